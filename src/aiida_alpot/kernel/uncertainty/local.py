"""Local D-optimality: one active set per cluster of training atoms, and the smallest of their grades (UQ-ACE Sec. 3.5).

A single active set of heterogeneous data spans the space between the clusters too, and calls it interpolation. An atom
is close to the data if it is close to one of the clusters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from aiida_alpot.kernel.clustering import cluster_birch, cluster_kmeans, compute_components
from aiida_alpot.kernel.potentials.base import Features
from aiida_alpot.kernel.seeds import derive_seed
from aiida_alpot.kernel.uncertainty._block import Start
from aiida_alpot.kernel.uncertainty._hdf5 import read_arrays, write_arrays
from aiida_alpot.kernel.uncertainty.active_set import TOL, ActiveSet, Mode
from aiida_alpot.kernel.uncertainty.configurations import sum_configurations
from aiida_alpot.kernel.uncertainty.maxvol import as_source, compute_span
from aiida_alpot.kernel.units import FloatArray, IntArray

N_CLUSTERS: Final = 4
"""Within the 2–8 in use."""
ROWS_PER_RANK: Final = 3.0
"""A cluster with fewer atoms than this times its rank is merged into the nearest one."""


@dataclass(frozen=True)
class ClusterSettings:
    """How training atoms are parted into clusters, each of which has an active set of its own.

    :param method: ``"kmeans"`` or ``"birch"``, on the principal components of the standardised features, or
        ``"column"`` for clusters that are known.
    :param column: of the frames, with the name of the cluster; frames without it are one cluster. Only for
        ``"column"``.
    :param n_clusters: how many are looked for; not for ``"column"``.
    :param level: ``"atom"``: the atoms of each species are clustered; ``"frame"``: frames are, by the mean features of
        their atoms. Not for ``"column"``.
    :param rows_per_rank: a cluster with fewer atoms of a species (or frames, if rows are configurations) than this
        times the rank of their features is merged into the nearest one; 0 keeps every cluster.
    :param seed: of k-means.
    """

    method: Literal["kmeans", "birch", "column"] = "kmeans"
    column: str = "config_type"
    n_clusters: int = N_CLUSTERS
    level: Literal["atom", "frame"] = "atom"
    rows_per_rank: float = ROWS_PER_RANK
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n_clusters < 1:
            raise ValueError(f"n_clusters must be positive, got {self.n_clusters}")
        if self.rows_per_rank < 0:
            raise ValueError(f"rows_per_rank must not be negative, got {self.rows_per_rank}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")
        if not self.column:
            raise ValueError("column must be the name of a column")


class LocalActiveSet:
    """Active sets of the clusters; the grade of an atom is the smallest of theirs.

    With a strict start a cluster gives an infinite grade outside its own span, so that a thin cluster does not call
    everything close to it known.

    :ivar members: one active set per cluster; a species may be absent from some.
    """

    def __init__(self, members: Sequence[ActiveSet]) -> None:
        if not members:
            raise ValueError("a local active set needs at least one cluster, got none")
        self.members = tuple(members)

    @classmethod
    def build(
        cls,
        features: Features,
        labels: npt.ArrayLike | None = None,
        clusters: ClusterSettings | None = None,
        start: Start = "strict",
        tol: float = TOL,
        kind: str = "last_layer",
        constant_column: bool | None = None,
        mode: Mode = "neighbourhood",
    ) -> LocalActiveSet:
        """Return the active sets of the clusters of the training atoms.

        :param features: features of the training atoms, at least one.
        :param labels: the cluster of each atom, e.g. the ``config_type`` of its frame, shape (n_atoms,); None to look
            for clusters.
        :param clusters: how to look, and which clusters are too small; the defaults without.
        :param start: see :class:`~.active_set.ActiveSet`.
        :param kind: see :meth:`.ActiveSet.build`, as are *tol* and *constant_column*.
        :param mode: see :class:`~.active_set.ActiveSet`; clusters of configurations are made of whole frames.
        :raises ValueError: if there is no atom, a feature is not finite, the shapes do not fit, or labels are missing.
        """
        found = part_atoms(features, labels, clusters, mode)
        return cls(
            [
                ActiveSet.build(part, start, tol, kind, constant_column, mode=mode)
                for part in take_clusters(features, found)
            ]
        )

    @property
    def species(self) -> tuple[int, ...]:
        """Atomic numbers known to at least one cluster, ascending."""
        return tuple(sorted({number for member in self.members for number in member.species}))

    @property
    def owners(self) -> dict[int, IntArray]:
        """Tags of the active rows of all clusters, see :attr:`.ActiveSet.owners`."""
        parts = [member.owners for member in self.members]
        numbers = sorted({number for part in parts for number in part})
        return {number: np.concatenate([part[number] for part in parts if number in part]) for number in numbers}

    @property
    def mode(self) -> Mode:
        """What a row is, see :class:`~.active_set.ActiveSet`."""
        return self.members[0].mode

    def grade(self, features: Features) -> FloatArray:
        """Return the smallest grade over the clusters for every atom, shape (n_atoms,); see :meth:`.ActiveSet.grade`.

        :raises ValueError: if the number of features is not the one the sets were built with.
        """
        return np.asarray(np.min([member.grade(features) for member in self.members], axis=0), dtype=np.float64)

    def residual(self, features: Features) -> FloatArray:
        """Return the smallest share outside the span of a cluster for every atom, shape (n_atoms,)."""
        return np.asarray(np.min([member.residual(features) for member in self.members], axis=0), dtype=np.float64)

    @property
    def known_grade(self) -> float:
        """Grade that no atom of the sets exceeds, see :attr:`.ActiveSet.known_grade`."""
        return max(member.known_grade for member in self.members)

    def absorb(self, features: Features) -> int:
        """Take atoms in, each into the cluster that knows it best; changes the sets in place.

        That is the one of the smallest grade, which is the smallest change; where all are infinite, of the smallest
        share outside the span. Then no atom has a grade above :attr:`known_grade` any more. Clusters neither appear nor
        move.

        :param features: atoms of one or several frames.
        :return: number of rows that entered, see :meth:`.ActiveSet.absorb`.
        :raises ValueError: if a feature is not finite or the number of features differs.
        """
        grades = np.stack([member.grade(features) for member in self.members])
        outside = np.stack([member.residual(features) for member in self.members])
        nearest = np.where(np.isinf(grades).all(axis=0), np.argmin(outside, axis=0), np.argmin(grades, axis=0))
        entered = 0
        for member, part in zip(self.members, _split(features, nearest, len(self.members)), strict=True):
            if part.n_atoms:
                entered += member.absorb(part)
        return entered

    def copy(self) -> LocalActiveSet:
        """Return an independent copy."""
        return LocalActiveSet([member.copy() for member in self.members])

    def to_arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return the state as flat arrays, keys like ``"0/29/rows"``."""
        parts = enumerate(member.to_arrays() for member in self.members)
        return {f"{index}/{key}": value for index, part in parts for key, value in part.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.generic]]) -> LocalActiveSet:
        """Return the sets that :meth:`to_arrays` described.

        :raises ValueError: if an array is missing.
        """
        parts: dict[int, dict[str, npt.NDArray[np.generic]]] = {}
        for key, value in arrays.items():
            index, _, name = key.partition("/")
            parts.setdefault(int(index), {})[name] = value
        return cls([ActiveSet.from_arrays(parts[index]) for index in sorted(parts)])

    def save(self, path: str | Path) -> None:
        """Write the sets to an HDF5 file; equal sets give equal bytes."""
        write_arrays(path, self.to_arrays(), {"kind": "local_active_set"})

    @classmethod
    def load(cls, path: str | Path) -> LocalActiveSet:
        """Return the sets that :meth:`save` wrote.

        :raises ValueError: if the file is of another kind or of an unknown schema.
        """
        return cls.from_arrays(read_arrays(path, "local_active_set")[0])


def part_atoms(
    features: Features,
    labels: npt.ArrayLike | None = None,
    clusters: ClusterSettings | None = None,
    mode: Mode = "neighbourhood",
) -> IntArray:
    """Return the cluster of each atom after small ones were merged, shape (n_atoms,).

    See :meth:`LocalActiveSet.build` for parameters and errors.
    """
    settings = ClusterSettings() if clusters is None else clusters
    if features.n_atoms == 0 or not np.all(np.isfinite(features.values)):
        raise ValueError("clustering needs at least one atom, and features that are finite")
    if mode == "configuration" and labels is None and settings.level == "atom":
        raise ValueError("clusters of configurations are made of frames: set clusters.level to 'frame'")
    found = cluster_atoms(features, settings) if labels is None else _integer_labels(labels, features.n_atoms)
    merge = _merge_frames if mode == "configuration" else _merge_atoms
    return merge(features, found, settings.rows_per_rank)


def take_clusters(features: Features, labels: IntArray) -> list[Features]:
    """Return the features of each cluster, in the order of the labels."""
    number = np.unique(labels, return_inverse=True)[1]
    return _split(features, number, int(number.max(initial=-1)) + 1)


def _split(features: Features, number: IntArray, n_parts: int) -> list[Features]:
    """Return the features of the atoms of each number 0, 1, …, some of which may be empty."""
    masks = [number == k for k in range(n_parts)]
    return [Features(features.values[m], features.species[m], features.frame_index[m]) for m in masks]


def cluster_atoms(features: Features, settings: ClusterSettings) -> IntArray:
    """Return the cluster of each atom, shape (n_atoms,); small clusters are not merged yet.

    :raises ValueError: if the clusters are those of a column, which features do not know.
    """
    if settings.method == "column":
        raise ValueError("clusters by a column: give the labels of the atoms")
    if settings.level == "frame":
        frames, index, counts = np.unique(features.frame_index, return_inverse=True, return_counts=True)
        total = np.zeros((len(frames), features.n_features))
        np.add.at(total, index, features.values)
        return _cluster(total / counts[:, None], settings, "local/kmeans/frames")[index]
    found = np.zeros(features.n_atoms, dtype=np.int64)
    for number in np.unique(features.species):
        mask = features.species == number
        values = np.asarray(features.values[mask], dtype=np.float64)
        found[mask] = _cluster(values, settings, f"local/kmeans/{number}")
    return found


def _cluster(values: FloatArray, settings: ClusterSettings, name: str) -> IntArray:
    points = compute_components(values)
    if settings.method == "birch":
        return cluster_birch(points, settings.n_clusters)
    return cluster_kmeans(points, settings.n_clusters, derive_seed(settings.seed, name))


def _merge_atoms(features: Features, labels: IntArray, rows_per_rank: float) -> IntArray:
    """Merge small clusters of the atoms of each species."""
    found = labels.copy()
    for number in np.unique(features.species):
        mask = features.species == number
        found[mask] = _merge_small(np.asarray(features.values[mask], dtype=np.float64), labels[mask], rows_per_rank)
    return found


def _merge_frames(features: Features, labels: IntArray, rows_per_rank: float) -> IntArray:
    """Merge small clusters of frames, whose atoms have one label."""
    rows, row_of = sum_configurations(features, np.unique(features.species).tolist(), count=False)
    first = np.unique(row_of, return_index=True)[1]
    if np.any(labels != labels[first][row_of]):
        raise ValueError("labels: the atoms of a configuration are of one cluster, got several")
    return _merge_small(rows.values, labels[first], rows_per_rank)[row_of]


def _merge_small(values: FloatArray, labels: IntArray, rows_per_rank: float) -> IntArray:
    """Return labels after the smallest cluster with too few atoms was merged, again and again."""
    labels, points = labels.copy(), compute_components(values)
    while True:
        names, counts = np.unique(labels, return_counts=True)
        needed = [rows_per_rank * compute_span(as_source(values[labels == name])).rank for name in names]
        small = np.flatnonzero(counts < needed)
        if len(names) == 1 or not small.size:
            return labels
        worst = int(small[np.argmin(counts[small])])
        centres = np.stack([points[labels == name].mean(axis=0) for name in names])
        distance = np.square(centres - centres[worst]).sum(axis=1)
        distance[worst] = np.inf
        labels[labels == names[worst]] = names[int(np.argmin(distance))]


def _integer_labels(labels: npt.ArrayLike, n_atoms: int) -> IntArray:
    values = np.asarray(labels)
    if values.shape != (n_atoms,):
        raise ValueError(f"labels: expected one per atom, shape ({n_atoms},), got {values.shape}")
    return np.asarray(np.unique(values, return_inverse=True)[1], dtype=np.int64)
