"""What the examples share: a profile of their own, the daemon, codes, and what is left when a campaign has ended.

Everything lives below AIIDA_PATH (the targets of make set it to .aiida in the clone): profiles, daemon, jobs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from aiida import load_profile, orm
from aiida.common.exceptions import NotExistent
from aiida.engine import submit
from aiida.engine.daemon.client import get_daemon_client
from aiida.engine.processes.builder import ProcessBuilder
from aiida.manage.configuration import get_config, reset_config
from rich.console import Console

from aiida_alpot.report.figure import plot_history
from aiida_alpot.report.progress import watch
from aiida_alpot.report.table import build_table

OPTIONS = {"resources": {"num_machines": 1, "num_mpiprocs_per_machine": 1}, "max_wallclock_seconds": 1800}
"""Scheduler options of all jobs: one process each."""
console = Console()


def build_parser(description: str | None, results: Path) -> argparse.ArgumentParser:
    """Return the parser of the options that all examples have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seed", type=int, default=0, help="seed of the campaign (default 0)")
    parser.add_argument("--results", type=Path, default=results, help="folder for figure, dataset and models")
    parser.add_argument("--cached", action="store_true", help="take from AiiDA's cache what an earlier run computed")
    return parser


def verdi(*arguments: str) -> None:
    """Run verdi quietly; its output is shown if it fails."""
    command = [sys.executable, "-m", "aiida", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")


def verdi_command(profile: str, name: str) -> str:
    """Return how a command of this environment is called on a profile."""
    return f"AIIDA_PATH={os.environ['AIIDA_PATH']} {Path(sys.executable).parent}/{name} -p {profile}"


def prepare_profile(profile: str, *, cached: bool, poll_interval: float = 1.0) -> None:
    """Make the profile on the first run: SQLite, ZeroMQ broker, this machine as computer. No service is needed.

    :param poll_interval: seconds between two questions after the state of the jobs. Every second they take up to a
        quarter of a core, which matters beside jobs that fill all of them.
    """
    if "AIIDA_PATH" not in os.environ:
        sys.exit(f"set AIIDA_PATH to a folder of this experiment, or use: make {profile}")
    if profile not in get_config(create=True).profile_names:
        console.print(f"making the AiiDA profile '{profile}' …")
        verdi("presto", "-p", profile, "--use-zeromq", "-n")
        reset_config()
        verdi("-p", profile, "config", "set", "daemon.timeout", "30")
        configure = ("computer", "configure", "core.local", "localhost", "-n")
        verdi("-p", profile, *configure, "--no-use-login-shell", "--safe-interval", "0")
    load_profile(profile)
    orm.load_computer("localhost").set_minimum_job_poll_interval(poll_interval)
    verdi("-p", profile, "config", "set", "caching.default_enabled", str(cached))


def start_daemon(profile: str) -> None:
    """Start the daemon, or start it anew so that it runs the code as it is now."""
    client = get_daemon_client(profile)
    verdi("-p", profile, "daemon", "restart" if client.is_daemon_running else "start")


def stop_daemon(profile: str) -> None:
    verdi("-p", profile, "daemon", "stop")


def load_code(label: str, executable: str, plugin: str | None = None) -> orm.InstalledCode:
    """Return the code of an executable of this machine, which is made on the first run."""
    try:
        return orm.load_code(f"{label}@localhost")
    except NotExistent:
        code = orm.InstalledCode(
            label=label,
            computer=orm.load_computer("localhost"),
            filepath_executable=executable,
            default_calc_job_plugin=plugin,
        )
        code.prepend_text = "export OMP_NUM_THREADS=1"
        return code.store()


def load_python() -> orm.InstalledCode:
    """Return the code that is this Python: jobs need it and the packages of their task, not AiiDA."""
    return load_code("python", sys.executable)


def follow(builder: ProcessBuilder, profile: str) -> orm.WorkChainNode:
    """Submit a campaign and look on until it has ended."""
    node = submit(builder)
    console.print(f"submitted ActiveLearningWorkChain <{node.pk}>; the daemon does the work, this only looks on")
    try:
        watch(node)
    except KeyboardInterrupt:
        command = f"{verdi_command(profile, 'aiida-alpot')} watch {node.pk}"
        sys.exit(f"\nthe campaign goes on in the daemon; look on with: {command}")
    if not node.is_finished_ok:
        stop_daemon(profile)
        sys.exit(
            f"the campaign ended with status {node.exit_status}: {node.exit_message}\n"
            f"see: {verdi_command(profile, 'verdi')} process report {node.pk}"
        )
    return node


def export_results(node: orm.WorkChainNode, results: Path, title: str) -> Path:
    """Put figure, history, dataset and models of a campaign into a folder of their own, and return it."""
    iterations = node.outputs.history["iterations"]
    folder = results / f"campaign-{node.pk}"
    folder.mkdir(parents=True, exist_ok=True)
    node.outputs.dataset.export(folder / "dataset.xyz")
    (folder / "history.json").write_text(json.dumps(iterations, indent=1), encoding="utf-8")
    for name, potential in node.outputs.potentials.items():
        potential.export(folder / f"{name}.model")
    plot_history(iterations, folder / "history.png", title=title)
    return folder


def conclude(node: orm.WorkChainNode, seconds: float, folder: Path, profile: str) -> None:
    """Print the table, why the campaign ended, and where everything is."""
    console.print(build_table(node.outputs.history["iterations"]))
    result: Any = node.outputs.result
    say(f"ended after {seconds:.0f} s: {result['reason']} ({result['message']})")
    say(f"figures, dataset and models: {os.path.relpath(folder)}")
    say(f"every step: {verdi_command(profile, 'verdi')} process status {node.pk}")


def say(text: str) -> None:
    """Print a line as it is."""
    console.print(text, soft_wrap=True, highlight=False)
