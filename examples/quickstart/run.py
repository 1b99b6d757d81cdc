"""From one structure of ethanol to a committee of MACE potentials with error bars.

Everything lives below AIIDA_PATH (``make quickstart`` sets it to .aiida in the clone): profile, daemon, jobs, results.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import yaml
from aiida import load_profile, orm
from aiida.common.exceptions import NotExistent
from aiida.engine import submit
from aiida.engine.daemon.client import get_daemon_client
from aiida.manage.configuration import get_config, reset_config
from aiida.plugins import WorkflowFactory
from rich.console import Console

from aiida_alpot.data.pes import PESData
from aiida_alpot.protocols import merge_recursively
from aiida_alpot.report.figure import plot_history
from aiida_alpot.report.progress import watch
from aiida_alpot.report.table import build_table

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PROFILE = "quickstart"
console = Console()


def verdi(*arguments: str) -> None:
    """Run verdi quietly; its output is shown if it fails."""
    command = [sys.executable, "-m", "aiida", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")


def prepare_profile() -> None:
    """Make the profile on the first run: SQLite, ZeroMQ broker, this machine as computer. No service is needed."""
    if PROFILE not in get_config(create=True).profile_names:
        console.print("making the AiiDA profile 'quickstart' …")
        verdi("presto", "-p", PROFILE, "--use-zeromq", "-n")
        reset_config()
        verdi("-p", PROFILE, "config", "set", "daemon.timeout", "30")
        verdi(
            "-p",
            PROFILE,
            "computer",
            "configure",
            "core.local",
            "localhost",
            "-n",
            "--no-use-login-shell",
            "--safe-interval",
            "0",
        )
    load_profile(PROFILE)


def start_daemon() -> None:
    """Start the daemon, or start it anew so that it runs the code as it is now."""
    client = get_daemon_client(PROFILE)
    verdi("-p", PROFILE, "daemon", "restart" if client.is_daemon_running else "start")


def load_python() -> orm.InstalledCode:
    """Return the code that is this Python: jobs need it and the packages of their task, not AiiDA."""
    label = "python"
    try:
        return orm.load_code(f"{label}@localhost")
    except NotExistent:
        code = orm.InstalledCode(
            label=label, computer=orm.load_computer("localhost"), filepath_executable=sys.executable
        )
        code.prepend_text = "export OMP_NUM_THREADS=1"
        return code.store()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="seed of the campaign (default 0)")
    parser.add_argument("--strategy", default=None, help="selection strategy, e.g. random, to compare with")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for figure, dataset and models")
    parser.add_argument("--cached", action="store_true", help="take from AiiDA's cache what an earlier run computed")
    arguments = parser.parse_args()
    if "AIIDA_PATH" not in os.environ:
        sys.exit("set AIIDA_PATH to a folder of this experiment, or use: make quickstart")

    start = time.monotonic()
    prepare_profile()
    verdi("-p", PROFILE, "config", "set", "caching.default_enabled", str(arguments.cached))
    start_daemon()
    overrides = yaml.safe_load((HERE / "settings.yaml").read_text(encoding="utf-8"))
    overrides["seed"] = arguments.seed
    if arguments.strategy is not None:
        overrides = merge_recursively(overrides, {"evaluate": {"settings": {"strategy": arguments.strategy}}})
    builder = WorkflowFactory("alpot.active_learning").get_builder_from_protocol(
        load_python(),
        protocol="fast",
        overrides=overrides,
        options={"resources": {"num_machines": 1, "num_mpiprocs_per_machine": 1}, "max_wallclock_seconds": 1800},
        structures=PESData.from_file(HERE / "ethanol.xyz"),
        test_frames=PESData.from_file(HERE / "test.xyz"),
    )
    builder.metadata.label = f"ethanol, seed {arguments.seed}"
    node = submit(builder)
    console.print(f"submitted ActiveLearningWorkChain <{node.pk}>; the daemon does the work, this only looks on")
    try:
        watch(node)
    except KeyboardInterrupt:
        sys.exit(f"\nthe campaign goes on in the daemon; look on with: {verdi_command('aiida-alpot')} watch {node.pk}")
    verdi("-p", PROFILE, "daemon", "stop")
    conclude(node, time.monotonic() - start, arguments.results)


def verdi_command(name: str) -> str:
    """Return how a command of this environment is called on this profile."""
    return f"AIIDA_PATH={os.environ['AIIDA_PATH']} {Path(sys.executable).parent}/{name} -p {PROFILE}"


def conclude(node: orm.WorkChainNode, seconds: float, results: Path) -> None:
    """Print the table, draw the figure and put dataset and models into the results folder."""
    if not node.is_finished_ok:
        sys.exit(
            f"the campaign ended with status {node.exit_status}: {node.exit_message}\n"
            f"see: {verdi_command('verdi')} process report {node.pk}"
        )
    iterations = node.outputs.history["iterations"]
    folder = results / f"campaign-{node.pk}"
    folder.mkdir(parents=True, exist_ok=True)
    node.outputs.dataset.export(folder / "dataset.xyz")
    (folder / "history.json").write_text(json.dumps(iterations, indent=1), encoding="utf-8")
    for name, potential in node.outputs.potentials.items():
        potential.export(folder / f"{name}.model")
    plot_history(iterations, folder / "history.png", title="ethanol, GFN2-xTB labels, MACE committee of three")
    console.print(build_table(iterations))
    result = node.outputs.result
    console.print(f"ended after {seconds:.0f} s: {result['reason']} ({result['message']})", highlight=False)
    console.print(f"figure, dataset and models: {os.path.relpath(folder)}", soft_wrap=True, highlight=False)
    console.print(f"every step: {verdi_command('verdi')} process status {node.pk}", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    main()
