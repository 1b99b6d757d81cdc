"""Run a small campaign on copper with EMT labels through a daemon and write what came of it as JSON.

``campaign.py run RESULT PYTHON --times N [--caching]`` runs the same campaign N times in a new profile, its jobs in
the interpreter PYTHON; ``campaign.py import RESULT ARCHIVE`` reads an archive of a campaign in a new profile.
Called by conftest.py in processes with an AIIDA_PATH of their own, as a user would run it.
"""

import argparse
import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from aiida import load_profile, orm
from aiida.engine import submit
from aiida.manage import get_manager
from aiida.manage.configuration import reset_config
from aiida.plugins import WorkflowFactory
from aiida.tools.archive import create_archive, import_archive
from ase.build import bulk

from aiida_alpot.data.pes import PESData
from aiida_alpot.data.potential import PotentialData, validate_potentials
from aiida_alpot.data.uncertainty import UncertaintyData

PROFILE = "loop"
TIMEOUT = 1400
DATA = (PESData, PotentialData, UncertaintyData)
HYPERPARAMETERS = {
    "num_channels": 4, "max_L": 0, "num_interactions": 1, "correlation": 2, "max_ell": 1, "r_max": 3.5,
    "max_num_epochs": None, "eval_interval": 5,
}  # fmt: skip
OVERRIDES = {
    "seed": 1,
    "max_iterations": 1,
    "augment": {
        "settings": {"copies": 12, "keep_input": False, "supercell": None, "vacancy": None,
                     "strain": {"range": [-0.03, 0.03]}, "rattle": {"fraction": 0.05}}
    },
    "split": {"train": 0.7, "validation": 0.15, "test": 0.15},
    "label": {"parameters": {"calculator": "ase.calculators.emt:EMT"}},
    "train": {"committee_size": 2, "parameters": {"n_updates": 10, "hyperparameters": HYPERPARAMETERS}},
    "explore": {
        "settings": {"ensemble": "nvt", "temperatures": [200, 400], "n_starting_frames": 2, "n_steps": 40,
                     "sample_every": 10, "check_every": 10}
    },
    "evaluate": {"settings": {"budget": 5}},
    "convergence": {"n_min": 2},
}  # fmt: skip


def verdi(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "aiida", *arguments], check=True, capture_output=True, text=True)


def make_code(python: str) -> orm.InstalledCode:
    """Return a code whose jobs end at once if their Python has AiiDA or this package after all."""
    code = orm.InstalledCode(label="python", computer=orm.load_computer("localhost"), filepath_executable=python)
    refusals = [f"{python} -c 'import {name}' 2>/dev/null && exit 7" for name in ("aiida", "aiida_alpot")]
    code.prepend_text = "\n".join(["unset PYTHONPATH", "export OMP_NUM_THREADS=1", *refusals])
    return code.store()


def build(code: orm.InstalledCode) -> Any:
    atoms = bulk("Cu", cubic=True)
    atoms.positions += np.random.default_rng(0).normal(0, 0.02, atoms.positions.shape)
    return WorkflowFactory("alpot.active_learning").get_builder_from_protocol(
        code, protocol="fast", overrides=OVERRIDES, structures=PESData.from_frames([atoms])
    )


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    verdi("presto", "-p", PROFILE, "--use-zeromq", "-n")
    verdi("-p", PROFILE, "config", "set", "daemon.timeout", "30")
    verdi("-p", PROFILE, "config", "set", "caching.default_enabled", str(arguments.caching))
    verdi("-p", PROFILE, "computer", "configure", "core.local", "localhost", "-n", "--no-use-login-shell")
    verdi("-p", PROFILE, "daemon", "start")
    reset_config()
    load_profile(PROFILE)
    try:
        code = make_code(arguments.python)
        nodes = [wait(submit(build(code))) for _ in range(arguments.times)]
    finally:
        verdi("-p", PROFILE, "daemon", "stop")
    result = {"runs": [describe(node) for node in nodes], "stored": read_all(), "clones": read_all(clones=True)}
    archive = arguments.result.with_suffix(".aiida")
    create_archive([nodes[0]], filename=archive)
    export_potentials(nodes[0], arguments.result.with_suffix(".potentials"))
    storage = get_manager().get_profile_storage()
    storage.maintain(full=True)
    result["n_loose"] = storage.get_repository().get_info()["Objects"]["loose"]
    result["packed"] = read_all()
    return result


def wait(node: orm.ProcessNode) -> orm.ProcessNode:
    start = time.monotonic()
    while not node.is_terminated:
        if time.monotonic() - start > TIMEOUT:
            raise TimeoutError(f"the campaign <{node.pk}> is still {node.process_state} after {TIMEOUT} s")
        time.sleep(1)
    return node


def import_into_new_profile(arguments: argparse.Namespace) -> dict[str, Any]:
    verdi("presto", "-p", PROFILE, "--no-broker", "-n")
    reset_config()
    load_profile(PROFILE)
    import_archive(arguments.archive)
    potentials = dict(enumerate(orm.QueryBuilder().append(PotentialData).all(flat=True)))
    refused = validate_potentials(potentials)
    for potential in potentials.values():
        potential.trust()
    return {"stored": read_all(), "refused": refused, "refused_when_trusted": validate_potentials(potentials)}


def describe(node: orm.WorkChainNode) -> dict[str, Any]:
    """Return what a campaign gave and what its jobs did."""
    names = ("dataset", "uncertainty", "history", "result")
    outputs = {name: node.outputs[name] for name in names if name in node.outputs}
    jobs = sorted((job for job in node.called_descendants if isinstance(job, orm.CalcJobNode)), key=lambda job: job.pk)
    frames = list(outputs.get("dataset", []))
    return {
        "exit_status": node.exit_status,
        "exit_message": node.exit_message,
        "outputs": sorted(node.outputs),
        "failed_children": {c.process_label: c.exit_status for c in node.called_descendants if c.exit_status != 0},
        "jobs": [describe_job(job) for job in jobs],
        "history": outputs["history"].get_dict() if "history" in outputs else None,
        "result": outputs["result"].get_dict() if "result" in outputs else None,
        "creators": {name: output.creator.process_label for name, output in outputs.items() if name != "result"},
        "splits": [atoms.info["split"] for atoms in frames],
        "groups": [atoms.info["group"] for atoms in frames],
        "status": [atoms.info["status"] for atoms in frames],
        "dataset": read(outputs["dataset"]) if "dataset" in outputs else None,
        "potentials": {name: read(node) for name, node in node.outputs.potentials.items()},
    }


def describe_job(job: orm.CalcJobNode) -> dict[str, Any]:
    """Return which job it was, where it ran, whether it came from the cache, and what it gave."""
    links = job.base.links.get_outgoing().all()
    return {
        "process": job.process_label,
        "python": str(job.inputs.code.filepath_executable),
        "exit_status": job.exit_status,
        "is_cached": job.base.caching.is_created_from_cache,
        "seed": job.inputs.seed.value if "seed" in job.inputs else None,
        "outputs": {link.link_label: read(link.node) for link in links if isinstance(link.node, DATA)},
    }


def read_all(*, clones: bool = False) -> dict[str, Any]:
    """Return what every data node of this package says, by its uuid; what a stored clone says with *clones*."""
    nodes = [node for cls in DATA for node in orm.QueryBuilder().append(cls).all(flat=True)]
    return {node.uuid: read(node.clone().store() if clones else node) for node in nodes}


def read(node: Any) -> dict[str, Any]:
    """Return the hash of a node, its attributes and what is read from its file."""
    attributes = {key: value for key, value in node.base.attributes.all.items() if not key.startswith("_")}
    return {"hash": node.base.caching.compute_hash(), **attributes, "content": _read_content(node)}


def _read_content(node: Any) -> Any:
    if isinstance(node, PESData):
        with node.dataset() as dataset:
            dataset.verify()
            return [dataset.content_hash, dataset.usage_hash]
    if isinstance(node, UncertaintyData):
        model = node.model()
        points = {name: [values.tolist() for values in pair] for name, pair in model.points.items()}
        return {"points": points, "thresholds": model.thresholds, "hashes": list(model.model_hashes)}
    return hashlib.sha256(node.base.repository.get_object_content(node.FILENAME, "rb")).hexdigest()


def export_potentials(node: orm.WorkChainNode, folder: Path) -> None:
    folder.mkdir()
    for name, potential in node.outputs.potentials.items():
        potential.export(folder / f"{name}.model")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("run")
    command.set_defaults(function=run)
    command.add_argument("result", type=Path)
    command.add_argument("python")
    command.add_argument("--times", type=int, default=1)
    command.add_argument("--caching", action="store_true")
    command = commands.add_parser("import")
    command.set_defaults(function=import_into_new_profile)
    command.add_argument("result", type=Path)
    command.add_argument("archive", type=Path)
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # through the finally that stops the daemon
    arguments.result.write_text(json.dumps(arguments.function(arguments)))


if __name__ == "__main__":
    main()
