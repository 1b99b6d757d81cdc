"""Submit a small campaign on copper with EMT labels to a daemon and print what came of it as JSON.

Run by test_loop.py in a process and an AIIDA_PATH of its own, as a user would run it.
"""

import json
import subprocess
import sys
import time

import numpy as np
from aiida import load_profile, orm
from aiida.engine import submit
from aiida.manage.configuration import reset_config
from aiida.plugins import WorkflowFactory
from ase.build import bulk

from aiida_alpot.data.pes import PESData

PROFILE = "loop"
TIMEOUT = 400


def verdi(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "aiida", *arguments], check=True, capture_output=True, text=True)


def build() -> object:
    code = orm.InstalledCode(
        label="python", computer=orm.load_computer("localhost"), filepath_executable=sys.executable
    ).store()
    overrides = {
        "seed": 1,
        "max_iterations": 1,
        "augment": {
            "settings": {"copies": 12, "keep_input": False, "supercell": None, "vacancy": None,
                         "strain": {"range": [-0.03, 0.03]}, "rattle": {"fraction": 0.05}}
        },
        "split": {"train": 0.7, "validation": 0.15, "test": 0.15},
        "label": {"parameters": {"calculator": "ase.calculators.emt:EMT"}},
        "train": {
            "committee_size": 2,
            "parameters": {
                "n_updates": 10,
                "hyperparameters": {
                    "num_channels": 4, "max_L": 0, "num_interactions": 1, "correlation": 2, "max_ell": 1, "r_max": 3.5,
                    "max_num_epochs": None, "eval_interval": 5,
                },
            },
        },
        "explore": {
            "settings": {"ensemble": "nvt", "temperatures": [200, 400], "n_starting_frames": 2, "n_steps": 40,
                         "sample_every": 10, "check_every": 10}
        },
        "evaluate": {"settings": {"budget": 5}},
        "convergence": {"n_min": 2},
    }  # fmt: skip
    atoms = bulk("Cu", cubic=True)
    atoms.positions += np.random.default_rng(0).normal(0, 0.02, atoms.positions.shape)
    return WorkflowFactory("alpot.active_learning").get_builder_from_protocol(
        code, protocol="fast", overrides=overrides, structures=PESData.from_frames([atoms])
    )


def main() -> None:
    verdi("presto", "-p", PROFILE, "--use-zeromq", "-n")
    verdi("-p", PROFILE, "config", "set", "daemon.timeout", "30")
    verdi("-p", PROFILE, "computer", "configure", "core.local", "localhost", "-n", "--no-use-login-shell")
    verdi("-p", PROFILE, "daemon", "start")
    reset_config()
    load_profile(PROFILE)
    try:
        node = submit(build())
        start = time.monotonic()
        while not node.is_terminated and time.monotonic() - start < TIMEOUT:
            time.sleep(1)
        report(node)
    finally:
        verdi("-p", PROFILE, "daemon", "stop")


def report(node: orm.WorkChainNode) -> None:
    states = {
        f"{child.process_label}": child.exit_status for child in node.called_descendants if child.exit_status != 0
    }
    result = {
        "exit_status": node.exit_status,
        "exit_message": node.exit_message,
        "outputs": sorted(node.outputs),
        "failed_children": states,
        "history": node.outputs.history.get_dict() if "history" in node.outputs else None,
        "result": node.outputs.result.get_dict() if "result" in node.outputs else None,
        "creators": {
            name: node.outputs[name].creator.process_label
            for name in ("dataset", "uncertainty", "history")
            if name in node.outputs
        },
        "splits": [atoms.info["split"] for atoms in node.outputs.dataset] if "dataset" in node.outputs else [],
        "groups": [atoms.info["group"] for atoms in node.outputs.dataset] if "dataset" in node.outputs else [],
        "status": [atoms.info["status"] for atoms in node.outputs.dataset] if "dataset" in node.outputs else [],
        "n_potentials": len(node.outputs.potentials) if "potentials" in node.outputs else 0,
    }
    sys.stdout.write("\n" + json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
