"""What the loop adds to the time of its jobs.

    python run.py quickstart --work FOLDER [--pk PK]     the quickstart, stage by stage; without --pk it is run first
    python run.py label-minute --work FOLDER             a loop whose labels take a minute, against the ideal time

Profile, daemon and jobs lie below FOLDER. The Python that runs this runs the jobs.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
QUICKSTART = HERE.parents[1] / "examples" / "quickstart" / "run.py"
TEST_FRAMES = 10


def verdi(profile: str, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "aiida", *(["-p", profile] if profile else []), *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        sys.exit(f"verdi {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")


def make_profile(name: str, n_workers: int) -> None:
    """Make a profile as the quickstart does and start its daemon."""
    from aiida import load_profile
    from aiida.manage.configuration import reset_config

    verdi("", "presto", "-p", name, "--use-zeromq", "-n")
    verdi(name, "config", "set", "daemon.timeout", "30")
    options = ("-n", "--no-use-login-shell", "--safe-interval", "0")
    verdi(name, "computer", "configure", "core.local", "localhost", *options)
    verdi(name, "daemon", "start", str(n_workers))
    reset_config()
    load_profile(name)


def run_quickstart(arguments: argparse.Namespace) -> None:
    """Print where the time of a quickstart went."""
    from aiida import load_profile, orm
    from aiida.plugins import WorkflowFactory
    from timing import markdown, read_campaign, rows

    if arguments.pk is None:
        subprocess.run([sys.executable, str(QUICKSTART)], check=True)
    load_profile("quickstart")
    if arguments.pk is None:
        query = orm.QueryBuilder().append(WorkflowFactory("alpot.active_learning"), tag="campaign")
        node = query.order_by({"campaign": {"id": "desc"}}).first(flat=True)
    else:
        node = orm.load_node(arguments.pk)
    campaign = read_campaign(node)
    print(markdown(rows(campaign)))
    print_counts(campaign)


def run_label_minute(arguments: argparse.Namespace) -> None:
    """Run a loop whose labels take a given time and print its wall time against the ideal."""
    from aiida.engine import submit

    profile = f"label-minute-{time.strftime('%Y%m%d-%H%M%S')}"
    make_profile(profile, n_workers=1)
    try:
        node = submit(build_campaign(arguments))
        while not node.is_terminated:
            time.sleep(2)
        cpu = worker_cpu()
    finally:
        verdi(profile, "daemon", "stop")
    if not node.is_finished_ok:
        sys.exit(f"the campaign ended with status {node.exit_status}: {node.exit_message}")

    report_label_minute(node, arguments)
    n_processes = 1 + len(node.called_descendants)
    print(f"CPU of the daemon worker: {cpu:.1f} s, {cpu / n_processes:.2f} s a process")


def worker_cpu() -> float:
    """Return the CPU time that the workers of the daemon have used, s, which hardly depends on the load."""
    import psutil
    from aiida.engine.daemon.client import get_daemon_client

    times = [psutil.Process(int(pid)).cpu_times() for pid in get_daemon_client().get_worker_info()["info"]]
    return sum(used.user + used.system for used in times)


def report_label_minute(node: Any, arguments: argparse.Namespace) -> None:
    """Print the table and the wall time of a campaign against the ideal one."""
    from timing import length, markdown, read_campaign, rows, running

    campaign = read_campaign(node)
    labelling = [stage for stage in campaign.stages if stage.name == "label"]
    others = [stage for stage in campaign.stages if stage.name != "label"]
    counts = [len(child.inputs.frames) for child in node.called if child.label.endswith("_label")]
    sleeping = sum(math.ceil(count / arguments.workers) * arguments.seconds for count in counts)
    ideal, wall = sleeping + running(others), length(campaign.wall)
    rest = {
        "label jobs: Python, workers, EMT": running(labelling) - sleeping,
        "AiiDA in the stage label": sum(length(stage.wall) for stage in labelling) - running(labelling),
        "AiiDA in the other stages": sum(length(stage.wall) for stage in others) - running(others),
        "the loop between stages": wall - sum(length(stage.wall) for stage in campaign.stages),
    }
    print(markdown(rows(campaign)))
    print_counts(campaign)
    print(f"labels per iteration {counts}, {arguments.workers} at a time, {arguments.seconds:g} s each")
    print(f"ideal {ideal:.1f} s: {sleeping:.1f} s of labels and {running(others):.1f} s in the jobs of other stages")
    print(f"wall {wall:.1f} s: {100 * (wall / ideal - 1):.1f} % more than the ideal")
    for name, seconds in rest.items():
        print(f"  {name}: {seconds:.1f} s")


def build_campaign(arguments: argparse.Namespace) -> Any:
    """Return a campaign on copper: fixed potentials, labels by an EMT that sleeps."""
    from aiida import orm
    from aiida.plugins import WorkflowFactory

    from aiida_alpot.data.pes import PESData

    code = orm.InstalledCode(
        label="python", computer=orm.load_computer("localhost"), filepath_executable=sys.executable
    )
    code.prepend_text = f"export OMP_NUM_THREADS=1 PYTHONPATH={HERE}"
    sleepy = {"calculator": "emt:SleepyEMT", "parameters": {"seconds": arguments.seconds}}
    one = {"resources": {"num_machines": 1, "num_mpiprocs_per_machine": 1}}
    side_by_side = {"resources": {"num_machines": 1, "num_mpiprocs_per_machine": arguments.workers}}
    overrides = {
        "max_iterations": arguments.iterations,
        "augment": None,
        "train": None,
        "label": {"parameters": sleepy, "options": side_by_side},
        "explore": {
            "settings": {"ensemble": "nvt", "temperatures": [300, 600], "n_starting_frames": 2, "n_steps": 40,
                         "sample_every": 4, "check_every": 4, "error_break": None}
        },
        "evaluate": {"settings": {"budget": arguments.labels}},
        "convergence": {"n_min": 10**6},
    }  # fmt: skip
    builder = WorkflowFactory("alpot.active_learning").get_builder_from_protocol(
        code.store(),
        protocol="fast",
        overrides=overrides,
        options=one,
        dataset=PESData.from_frames(labelled_frames(), split=["calibration"] * 12 + ["test"] * TEST_FRAMES),
        potentials=scaled_potentials(arguments.work),
    )
    # no active sets: these potentials have no features
    builder.calibrate.settings = orm.Dict({"tolerances": {"force": 0.02}, "feature_kind": None})
    return builder


def labelled_frames() -> list[Any]:
    """Return rattled copper cells with EMT labels."""
    from ase.build import bulk
    from ase.calculators.emt import EMT
    from ase.calculators.singlepoint import SinglePointCalculator

    rng = np.random.default_rng(0)
    frames = []
    for k in range(12 + TEST_FRAMES):
        atoms = bulk("Cu", cubic=True)
        atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
        atoms.info.update(group=f"given-{k}", status="labelled")
        atoms.calc = EMT()
        results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(), "stress": atoms.get_stress()}
        atoms.calc = SinglePointCalculator(atoms, **results)
        frames.append(atoms)
    return frames


def scaled_potentials(folder: Path) -> dict[str, Any]:
    """Return a committee of three that costs nothing and disagrees."""
    from aiida_alpot.data.potential import PotentialData

    potentials = {}
    for k, factor in enumerate((0.8, 1.0, 1.2)):
        path = folder / f"m{k:03d}.json"
        model = {"calculator": "emt:ScaledEMT", "parameters": {"factor": factor}, "species": [29], "cutoff": 6.5}
        path.write_text(json.dumps(model))
        node = PotentialData.from_file(path, engine="ase", symbols=["Cu"], cutoff=6.5, seed=k)
        potentials[path.stem] = node.store()
    return potentials


def print_counts(campaign: Any) -> None:
    """Print the processes of a campaign."""
    kinds = ", ".join(f"{count} {name}" for name, count in sorted(campaign.processes.items()))
    total = sum(campaign.processes.values())
    print(f"\ncampaign <{campaign.pk}>: {total} processes ({kinds}), {campaign.n_labels} new labels, "
          f"{total / max(1, campaign.n_labels):.2f} processes a label")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    quickstart = commands.add_parser("quickstart", help="where the time of the quickstart goes")
    quickstart.add_argument("--pk", type=int, default=None, help="a finished campaign; without it one is run")
    quickstart.set_defaults(run=run_quickstart)
    minute = commands.add_parser("label-minute", help="a loop whose labels take a minute")
    minute.add_argument("--seconds", type=float, default=60.0, help="time of a label (default 60)")
    minute.add_argument("--labels", type=int, default=6, help="labels of an iteration (default 6)")
    minute.add_argument("--workers", type=int, default=2, help="labels at a time (default 2)")
    minute.add_argument("--iterations", type=int, default=2, help="iterations that label (default 2)")
    minute.set_defaults(run=run_label_minute)
    for command in (quickstart, minute):
        command.add_argument("--work", type=Path, required=True, help="folder of profile and jobs (AIIDA_PATH)")
    arguments = parser.parse_args()
    arguments.work = arguments.work.resolve()
    arguments.work.mkdir(parents=True, exist_ok=True)
    os.environ["AIIDA_PATH"] = str(arguments.work)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    arguments.run(arguments)


if __name__ == "__main__":
    main()
