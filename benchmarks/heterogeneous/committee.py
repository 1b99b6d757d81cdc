"""A committee of MACE potentials, trained on the training frames by the task of the package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ase import Atoms

from aiida_alpot.kernel.dataset import write
from aiida_alpot.kernel.potentials import Potential, load
from aiida_alpot.kernel.tasks.train_mace import run as train_mace

N_MEMBERS: Final = 3
SETTINGS: Final = {
    "n_updates": 600,
    "dtype": "float32",
    "lr_decay": 0.02,
    "hyperparameters": {
        "r_max": 5.0,
        "num_channels": 16,
        "max_L": 0,
        "correlation": 2,
        "max_ell": 2,
        "radial_MLP": "[32,32]",
        "MLP_irreps": "16x0e",
        "num_radial_basis": 8,
        "loss": "stress",
        "energy_weight": 1000,
        "forces_weight": 100,
        "stress_weight": 1000,
        "batch_size": 2,
        "lr": 0.02,
        "eval_interval": 5,
    },
}


def train(folder: Path, training: Sequence[Atoms], validation: Sequence[Atoms]) -> list[Potential]:
    """Train the members into *folder*, one after the other, and load them; members that are there are kept."""
    members = [folder / f"member-{seed}" for seed in range(N_MEMBERS)]
    for seed, member in enumerate(members):
        if not (member / "potential.model").is_file():
            member.mkdir(parents=True, exist_ok=True)
            frames = [atoms.copy() for atoms in (*training, *validation)]
            for k, (atoms, labelled) in enumerate(zip(frames, (*training, *validation), strict=True)):
                atoms.calc = labelled.calc
                atoms.info.update(split="train" if k < len(training) else "validation", group=f"frame-{k}")
            write(member / "dataset.h5", frames)
            results = train_mace({"settings": SETTINGS, "seed": seed, "dataset": "dataset.h5"}, member)
            print(f"member {seed}: {results['rmse']}", flush=True)
    return [load(member / "potential.model", "mace", dtype="float32") for member in members]
