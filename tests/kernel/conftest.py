"""Labelled frames and potentials whose errors are known by construction."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.singlepoint import SinglePointCalculator

from aiida_alpot.kernel.dataset import Dataset, write
from aiida_alpot.kernel.potentials import Features, Potential, Predictions, has_stress, offsets_of


def label(atoms, energy=None, forces=None, stress=None, **info):
    """Attach labels, drawn from the positions where they are not given."""
    rng = np.random.default_rng(abs(int(1e6 * atoms.positions.sum())))
    drawn = {
        "energy": float(rng.normal()),
        "forces": rng.normal(size=(len(atoms), 3)),
        "stress": 0.01 * rng.normal(size=6),
    }
    results = {"energy": energy, "forces": forces, "stress": stress}
    labels = {name: drawn[name] if value is None else value for name, value in results.items()}
    if not has_stress(atoms):
        del labels["stress"]
    atoms.calc = SinglePointCalculator(atoms, **labels)
    atoms.info.update(info)
    return atoms


def crystals(n_frames, seed=0, symbol="Cu", **info):
    """Rattled cubic cells of four atoms, each its own group."""
    rng = np.random.default_rng(seed)
    frames = []
    for k in range(n_frames):
        atoms = bulk(symbol, "fcc", a=3.6, cubic=True)
        atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
        atoms.info.update(group=f"crystal-{seed}-{k}", **info)
        frames.append(label(atoms))
    return frames


def molecules(n_frames, seed=0, **info):
    """Rattled water molecules without cell, each its own group."""
    rng = np.random.default_rng(seed)
    frames = []
    for k in range(n_frames):
        atoms = molecule("H2O")
        atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
        atoms.info.update(group=f"molecule-{seed}-{k}", **info)
        frames.append(label(atoms))
    return frames


def slab():
    """A labelled slab."""
    return label(fcc111("Cu", (1, 1, 2), vacuum=5.0, periodic=False))


class OffTarget(Potential):
    """Predicts the labels of the frames plus a constant: errors are known exactly.

    :param energy: added to the energy per atom.
    :param force: added to every force component.
    :param stress: added to the stress, a number or six; None for an engine that knows none.
    :param bad: groups whose prediction is NaN.
    :param feature_kinds: none for an engine without features.
    """

    engine, species, cutoff, dtype = "off-target", tuple(range(1, 119)), 5.0, "float64"

    def __init__(self, labels, energy=0.0, force=0.0, stress=0.0, bad=(), feature_kinds=("last_layer", "invariants")):
        self.feature_kinds = feature_kinds
        self.labels = {atoms.positions.tobytes(): dict(atoms.calc.results) for atoms in labels}
        self.energy, self.force, self.stress, self.bad = energy, force, stress, bad

    def predict(self, frames, batch_size=32):
        offsets = offsets_of(frames)
        energy, forces = np.zeros(len(frames)), np.zeros((offsets[-1], 3))
        stress = np.full((len(frames), 6), np.nan)
        for k, atoms in enumerate(frames):
            known = self.labels[atoms.positions.tobytes()]
            energy[k] = known["energy"] + self.energy * len(atoms)
            forces[offsets[k] : offsets[k + 1]] = known["forces"] + self.force
            if has_stress(atoms) and self.stress is not None:
                stress[k] = known["stress"] + self.stress
            if atoms.info.get("group") in self.bad:
                forces[offsets[k]] = np.nan
        return Predictions(energy, forces, stress, offsets)

    def features(self, frames, kind="last_layer", batch_size=32):
        if kind not in self.feature_kinds:
            return super().features(frames, kind, batch_size)
        values = np.concatenate([atoms.positions for atoms in frames])
        if kind == "invariants":
            values = np.linalg.norm(values, axis=1)[:, None]
        values = values.copy()
        index = np.repeat(np.arange(len(frames)), [len(atoms) for atoms in frames])
        for k, atoms in enumerate(frames):
            if atoms.info.get("group") in self.bad:
                values[index == k] = np.nan
        return Features(values, np.concatenate([atoms.numbers for atoms in frames]), index)


@pytest.fixture
def make():
    """Functions that make frames and potentials."""
    return SimpleNamespace(
        label=label, crystals=crystals, molecules=molecules, slab=slab, OffTarget=OffTarget, Atoms=Atoms
    )


@pytest.fixture
def opened(tmp_path):
    """Write frames to a dataset and open it."""
    datasets = []

    def open_(frames, **columns):
        path = tmp_path / f"frames-{len(datasets)}.h5"
        write(path, frames, **columns)
        datasets.append(Dataset.open(path))
        return datasets[-1]

    yield open_
    for dataset in datasets:
        dataset.close()
