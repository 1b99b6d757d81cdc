"""Measure features of atoms, cost and grades: ``python benchmarks/features/run.py`` prints the tables of README.md.

``--only cost`` or ``--only grades`` prints one of them. One thread; times are those of the processor.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk

from aiida_alpot.kernel.features import FeatureSpec
from aiida_alpot.kernel.potentials import Potential, load
from aiida_alpot.kernel.uncertainty import ActiveSet, compute_frame_grade
from aiida_alpot.testing.models import make_tiny_mace

KINDS = {
    "soap": ("soap", {}),
    "soap, 6 and 4": ("soap", {"n_max": 6, "l_max": 4}),
    "soap, 6 and 4, crossover": ("soap", {"n_max": 6, "l_max": 4, "compression": "crossover"}),
    "soap, 8 and 6": ("soap", {"n_max": 8, "l_max": 6}),
    "last_layer": ("last_layer", {}),
    "invariants": ("invariants", {}),
}
"""What is compared: n_max and l_max of SOAP where they are not the defaults."""
ALLOYS = {"Cu": (29,), "Cu–Au": (29, 79), "Cu–Ag–Pd–Au": (29, 47, 46, 79)}
N_ROUNDS = 20
N_FRAMES = 20
"""Test frames of each kind."""


def crystals(numbers: Sequence[int], n_frames: int, seed: int, stdev: float = 0.1, scale: float = 1.0) -> list[Atoms]:
    """Return strained (2 %) and rattled cells of 32 atoms with random species."""
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(n_frames):
        atoms = bulk("Cu", cubic=True) * (2, 2, 2)
        atoms.set_cell(scale * atoms.cell @ (np.eye(3) + rng.normal(0, 0.02, (3, 3))), scale_atoms=True)
        atoms.positions += rng.normal(0, stdev, atoms.positions.shape)
        atoms.numbers = rng.choice(numbers, len(atoms))
        frames.append(atoms)
    return frames


def vacancies(numbers: Sequence[int], n_frames: int, seed: int) -> list[Atoms]:
    """Return the same with one atom missing."""
    frames = crystals(numbers, n_frames, seed)
    for atoms in frames:
        del atoms[0]
    return frames


def make_potential(numbers: Sequence[int], folder: Path) -> Potential:
    """Return a MACE potential of the size of a small trained one, with random weights."""
    path = make_tiny_mace(folder / "m.model", species=numbers, cutoff=5.0, hidden_irreps="64x0e + 64x1o")
    return load(path, "mace")


def measure_cost(folder: Path) -> None:
    """Print atoms per second: the best of many rounds, as other processes may disturb some of them."""
    cases = []
    for alloy, numbers in ALLOYS.items():
        frames, potential = crystals(numbers, 8, 0), make_potential(numbers, folder)
        for name, (kind, parameters) in KINDS.items():
            compute = FeatureSpec(kind, parameters).complete(numbers).build([potential])
            compute(frames)  # torch compiles in the first two calls
            cases.append((f"{alloy}, {name}", compute, frames, compute(frames).n_features))
    best = np.full(len(cases), np.inf)
    for _ in range(N_ROUNDS):
        for k, (_, compute, frames, _) in enumerate(cases):
            start = time.process_time()
            compute(frames)
            best[k] = min(best[k], time.process_time() - start)
    print("| | columns | atoms per second |\n|---|---:|---:|")
    for (name, _, frames, n_features), seconds in zip(cases, best, strict=True):
        print(f"| {name} | {n_features} | {sum(map(len, frames)) / seconds:.0f} |")


def measure_grades(folder: Path) -> None:
    """Print the median grade of unseen frames of several kinds, and the share of frames above 2."""
    heads = ("", "columns", "atoms a species", "the same", "a vacancy", "10 % less volume", "rattled twice as far")
    print(f"| {' | '.join(heads)} |\n|---|---:|---:|---|---|---|---|")
    for alloy, numbers in list(ALLOYS.items())[:2]:
        potential = make_potential(numbers, folder)
        tests = [
            crystals(numbers, N_FRAMES, 1),
            vacancies(numbers, N_FRAMES, 2),
            crystals(numbers, N_FRAMES, 3, scale=0.9 ** (1 / 3)),
            crystals(numbers, N_FRAMES, 4, stdev=0.2),
        ]
        for name, (kind, parameters) in KINDS.items():
            compute = FeatureSpec(kind, parameters).complete(numbers).build([potential])
            features = [compute(frames) for frames in tests]
            for n_frames in (10, 40, 160):
                trained = compute(crystals(numbers, n_frames, 0))
                active = ActiveSet.build(trained, start="eps", kind=kind)
                cells = []
                for found in features:
                    grades = compute_frame_grade(active.grade(found), found.frame_index, N_FRAMES)
                    cells.append(f"{np.median(grades):.3g} ({np.mean(grades > 2):.0%})")
                counts = f"{trained.n_features} | {trained.n_atoms // len(numbers)}"
                print(f"| {alloy}, {name} | {counts} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["cost", "grades"])
    only = parser.parse_args().only
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as folder:
        if only != "grades":
            measure_cost(Path(folder))
        if only != "cost":
            measure_grades(Path(folder))


if __name__ == "__main__":
    main()
