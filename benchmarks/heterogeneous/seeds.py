"""Scaled grades over seeds, as ``calibrate`` makes them: prints the last table of README.md.

``python benchmarks/heterogeneous/seeds.py``. Training frames are left out a tenth at a time; everything was chosen on
the first seed, the others are reported as they come.
"""

from __future__ import annotations

import argparse

import linear
import numpy as np
from measures import N_CLUSTERS, compute_scaled_grades
from run import Data
from structures import NOVEL, TRAINING

from aiida_alpot.kernel.potentials import Features
from aiida_alpot.kernel.uncertainty import ClusterSettings, compute_frame_grade
from aiida_alpot.kernel.uncertainty.local import cluster_atoms
from aiida_alpot.kernel.uncertainty.scaling import assign_folds

SEEDS = (11, 101, 202, 303)


def print_rows(seed: int, data: Data, basis: linear.Basis) -> None:
    """Print what is flagged of each kind with one active set and with clusters."""
    training, test = basis.compute_features(data.training), basis.compute_features(data.test)
    kinds = np.array([atoms.info["config_type"] for atoms in data.test])
    new = np.isin(kinds, list(NOVEL))
    folds = assign_folds([""] * len(data.training))
    for name in ("one set", "kmeans", "birch"):
        score = compute_frame_grade(_grade(name, seed, training, test, folds), test.frame_index, len(data.test))
        shares = [score[new], score[~new], *(score[kinds == kind] for kind in (*TRAINING, *NOVEL))]
        cells = [str(seed), str(training.n_features), name, *(f"{100 * np.mean(part > 1.0):.0f}" for part in shares)]
        print(f"| {' | '.join(cells)} |", flush=True)


def _grade(name: str, seed: int, training: Features, test: Features, folds: np.ndarray) -> np.ndarray:
    labels = np.zeros(training.n_atoms, dtype=np.int64)
    if name in ("kmeans", "birch"):
        labels = cluster_atoms(training, ClusterSettings(name, n_clusters=N_CLUSTERS, seed=seed))
    return compute_scaled_grades(training, test, labels, "linear", folds)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    columns = ["seed", "columns", "scaled γ", "new frames", "unseen of training kinds", *TRAINING, *NOVEL]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for seed in parser.parse_args().seeds:
        data = Data.make(seed)
        for basis in (linear.LARGE, linear.SMALL):
            print_rows(seed, data, basis)


if __name__ == "__main__":
    main()
