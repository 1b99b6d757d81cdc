"""Measures of novelty: grades of global and local active sets, and what they are for training frames left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from aiida_alpot.kernel.potentials import Features
from aiida_alpot.kernel.uncertainty import ActiveSet, ClusterSettings, LocalActiveSet
from aiida_alpot.kernel.uncertainty.local import cluster_atoms, take_clusters
from aiida_alpot.kernel.uncertainty.scaling import scale_grades

N_CLUSTERS: Final = 6

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Measure:
    """A measure of novelty of the atoms of the test frames; that of a frame is the largest of its atoms.

    :param score: shape (n_atoms,).
    :param limit: above which an atom is flagged.
    :param frame_limit: above which a frame is flagged.
    """

    name: str
    score: Floats
    limit: float = 1.0
    frame_limit: float = 1.0


def measure_grades(training: Features, test: Features, kinds: Ints, feature_kind: str, seed: int) -> list[Measure]:
    """Return the grades of the test atoms, as they are and in units of those of left-out training frames.

    :param kinds: of the training atoms, shape (n_atoms,).
    """
    partitions = {"by kind": kinds}
    for method in ("kmeans", "birch"):
        for level in ("atom", "frame"):
            settings = ClusterSettings(method, n_clusters=N_CLUSTERS, level=level, seed=seed)
            partitions[f"{method} of {level}s"] = cluster_atoms(training, settings)
    measures = [Measure("global γ", ActiveSet.build(training, kind=feature_kind).grade(test))]
    keep_all = ClusterSettings(rows_per_rank=0.0)
    for name, labels in partitions.items():
        grades = LocalActiveSet.build(training, labels, keep_all, kind=feature_kind).grade(test)
        measures.append(Measure(f"local γ, {name}", grades))
        measures.append(Measure("– outside every span", np.where(np.isinf(grades), 2.0, 0.0)))
    partitions = {"global": np.zeros_like(kinds), **partitions}
    for name in ("global", "by kind", "kmeans of atoms", "birch of atoms"):
        scaled = compute_scaled_grades(training, test, partitions[name], feature_kind)
        measures.append(Measure(f"scaled γ, {name}", scaled))
    return measures


def compute_scaled_grades(
    training: Features, test: Features, labels: Ints, feature_kind: str, folds: Ints | None = None
) -> Floats:
    """Return the smallest grade over clusters, each in units of what nine of ten left-out training frames keep.

    The grades are those of the start ``"eps"``: finite outside the span of a cluster too.

    :param labels: clusters of the training atoms, shape (n_atoms,).
    :param folds: of the training frames, which are left out together; by default they are left out one by one.
    """
    alone = np.arange(training.frame_index[-1] + 1)
    members = []
    for part in take_clusters(training, labels):
        members.append(ActiveSet.build(part, start="eps", kind=feature_kind))
        scale_grades(members[-1], part, alone if folds is None else folds)
    return LocalActiveSet(members).grade(test)
