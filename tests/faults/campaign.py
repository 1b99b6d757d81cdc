"""A campaign on copper with fixed potentials: labelling, exploration and evaluation, no training. Real jobs."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from aiida import orm
from aiida.engine import ProcessBuilder
from aiida.plugins import WorkflowFactory
from ase import Atoms
from ase.build import bulk

from aiida_alpot.data.pes import PESData
from aiida_alpot.data.potential import PotentialData
from aiida_alpot.data.uncertainty import UncertaintyData
from aiida_alpot.kernel.settings import merge_recursively
from aiida_alpot.kernel.uncertainty import Calibration, UncertaintyModel

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from reference import COPPER  # noqa: E402

OVERRIDES: dict[str, Any] = {
    "seed": 3,
    "max_iterations": 2,
    "split": {"train": 0.6, "validation": 0.2, "test": 0.2},
    "label": {"parameters": {"calculator": "reference:SlowMorse", "parameters": COPPER}, "max_iterations": 4},
    "explore": {
        "max_iterations": 4,
        "trajectories_per_job": 2,
        "settings": {
            "ensemble": "nvt", "temperatures": [300, 600], "n_starting_frames": 2, "n_steps": 60, "timestep": 2.0,
            "sample_every": 10, "check_every": 10, "error_break": None,
        },
    },
    "evaluate": {"max_iterations": 4, "settings": {"budget": 4, "features": "sorted_distances"}},
    "convergence": {"n_min": 5, "tolerances": {}},
}  # fmt: skip

LEFT_OUT = {"augment": None, "train": None, "calibrate": None}


def copper_frames(n_frames: int, seed: int = 0) -> list[Atoms]:
    """Return rattled cells of four atoms without labels."""
    rng = np.random.default_rng(seed)
    frames = []
    for k in range(n_frames):
        atoms = bulk("Cu", cubic=True)
        atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
        atoms.info["group"] = f"start-{seed}-{k}"
        frames.append(atoms)
    return frames


def make_code(computer: orm.Computer, ledger: Path, label_seconds: float) -> orm.InstalledCode:
    """Return this Python, with the reference method in its path and a ledger of all labels it computes."""
    code = orm.InstalledCode(label="python", computer=computer, filepath_executable=sys.executable)
    code.prepend_text = f"export OMP_NUM_THREADS=1 PYTHONPATH='{HERE}' LEDGER='{ledger}' LABEL_SECONDS={label_seconds}"
    return code.store()


def make_committee() -> tuple[dict[str, PotentialData], UncertaintyData]:
    """Return Morse potentials that differ in their depth, and the error bars of a force tolerance of 0.02 eV/Å."""
    potentials = {}
    with TemporaryDirectory() as folder:
        for k, scale in enumerate((0.9, 1.0, 1.1)):
            path = Path(folder) / f"m{k:03d}.model"
            parameters = {**COPPER, "epsilon": scale * COPPER["epsilon"]}
            path.write_text(
                json.dumps({"calculator": "ase.calculators.morse:MorsePotential", "parameters": parameters})
            )
            potentials[f"m{k:03d}"] = PotentialData.from_file(path, engine="ase", symbols=["Cu"]).store()
        path = Path(folder) / "uncertainty.h5"
        UncertaintyModel(
            calibrations={"force": Calibration(scale=1.0, calibrated=True, n_points=10)},
            tolerances={"force": 0.02},
            model_hashes=tuple(potentials[name].sha256 for name in sorted(potentials)),
        ).save(path)
        uncertainty = UncertaintyData.from_hdf5(path).store()
    return potentials, uncertainty


def make_builder(code: orm.InstalledCode, overrides: dict[str, Any] | None = None) -> ProcessBuilder:
    """Return the campaign."""
    potentials, uncertainty = make_committee()
    return WorkflowFactory("alpot.active_learning").get_builder_from_protocol(
        code,
        protocol="fast",
        overrides={**merge_recursively(OVERRIDES, overrides or {}), **LEFT_OUT},
        options={"resources": {"num_machines": 1, "num_mpiprocs_per_machine": 1}},
        structures=PESData.from_frames(copper_frames(5)),
        potentials=potentials,
        uncertainty=uncertainty,
    )


def twice_labelled(ledger: Path) -> list[str]:
    """Return the structures that were labelled more than once."""
    lines = ledger.read_text(encoding="utf-8").split() if ledger.exists() else []
    return [structure for structure, n in Counter(lines).items() if n > 1]


def main() -> None:
    """Submit a campaign to the daemon of the loaded profile and print its pk: LEDGER LABEL_SECONDS."""
    from aiida import load_profile
    from aiida.engine import submit

    load_profile("faults")
    code = make_code(orm.load_computer("scratch"), Path(sys.argv[1]), float(sys.argv[2]))
    sys.stdout.write(f"{submit(make_builder(code)).pk}\n")


if __name__ == "__main__":
    main()
