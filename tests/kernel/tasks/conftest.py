"""Committees of Lennard-Jones potentials that differ in their depth, and the task files of jobs."""

from __future__ import annotations

import hashlib
import json
from types import SimpleNamespace

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator

from aiida_alpot.kernel.dataset import Dataset, write
from aiida_alpot.kernel.uncertainty import Calibration, UncertaintyModel

ARGON = {"sigma": 3.4, "epsilon": 0.0104, "rc": 6.0, "smooth": True}


def argon(n_frames, seed=0):
    """Rattled argon crystals of four atoms, labelled, each its own group."""
    rng = np.random.default_rng(seed)
    frames = []
    for k in range(n_frames):
        atoms = bulk("Ar", "fcc", a=5.3, cubic=True)
        atoms.positions += rng.normal(0, 0.1, atoms.positions.shape)
        atoms.info["group"] = f"argon-{seed}-{k}"
        atoms.calc = LennardJones(**ARGON)
        results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(), "stress": atoms.get_stress()}
        atoms.calc = SinglePointCalculator(atoms, **results)
        frames.append(atoms)
    return frames


def splits(n_frames):
    """One validation, one test and two calibration frames, the others for training."""
    held_out = ["validation", "test", "calibration", "calibration"]
    return ["train"] * (n_frames - len(held_out)) + held_out


def write_committee(folder, scales=(0.9, 1.0, 1.1)):
    """Write the potentials of a committee and return their entry in a task file."""
    (folder / "potentials").mkdir(exist_ok=True)
    entries = {}
    for k, scale in enumerate(scales):
        path = folder / "potentials" / f"m{k:03d}.model"
        parameters = {**ARGON, "epsilon": scale * ARGON["epsilon"]}
        path.write_text(json.dumps({"calculator": "ase.calculators.lj:LennardJones", "parameters": parameters}))
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        file = f"potentials/{path.name}"
        entries[path.stem] = {"file": file, "engine": "ase", "sha256": sha256, "dtype": "float64"}
    return entries


def write_uncertainty(folder, entries, tolerance=1e-4):
    """Write an uncertainty model whose error is the disagreement."""
    model = UncertaintyModel(
        calibrations={"force": Calibration(scale=1.0, calibrated=True, n_points=10)},
        tolerances={"force": tolerance},
        model_hashes=tuple(entries[name]["sha256"] for name in sorted(entries)),
    )
    model.save(folder / "uncertainty.h5")
    return "uncertainty.h5"


def read_frames(path):
    """Return all frames of a dataset."""
    with Dataset.open(path) as dataset:
        return list(dataset)


def content_hash(path):
    """Return the hash of what a dataset holds."""
    with Dataset.open(path) as dataset:
        return dataset.content_hash


@pytest.fixture
def job():
    """What a test of a task needs."""
    return SimpleNamespace(
        argon=argon,
        splits=splits,
        committee=write_committee,
        uncertainty=write_uncertainty,
        frames=read_frames,
        content_hash=content_hash,
        write=write,
    )
