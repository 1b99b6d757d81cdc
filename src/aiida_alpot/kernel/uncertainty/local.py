"""Local D-optimality: one active set per cluster of training atoms, and the smallest of their grades (UQ-ACE Sec. 3.5).

A single active set of heterogeneous data spans the space between the clusters too, and calls it interpolation. An atom
is close to the data if it is close to one of the clusters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from aiida_alpot.kernel.potentials.base import Features
from aiida_alpot.kernel.seeds import derive_seed
from aiida_alpot.kernel.uncertainty._block import Start
from aiida_alpot.kernel.uncertainty._hdf5 import read_arrays, write_arrays
from aiida_alpot.kernel.uncertainty.active_set import TOL, ActiveSet
from aiida_alpot.kernel.uncertainty.maxvol import as_source, compute_span
from aiida_alpot.kernel.units import FloatArray, IntArray

N_CLUSTERS: Final = 4
"""Within the 2–8 in use."""
ROWS_PER_RANK: Final = 3.0
"""A cluster with fewer atoms than this times its rank is merged into the nearest one."""
EXPLAINED: Final = 0.99
"""Share of the variance kept by the principal components that k-means works on."""
MAX_ITERATIONS: Final = 100


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
        n_clusters: int = N_CLUSTERS,
        seed: int = 0,
        start: Start = "strict",
        tol: float = TOL,
        kind: str = "last_layer",
        constant_column: bool | None = None,
        rows_per_rank: float = ROWS_PER_RANK,
    ) -> LocalActiveSet:
        """Return the active sets of the clusters of the training atoms, clustered per species.

        :param features: features of the training atoms, at least one.
        :param labels: the cluster of each atom, e.g. the ``config_type`` of its frame, shape (n_atoms,); None for
            k-means on the principal components.
        :param n_clusters: clusters per species for k-means.
        :param seed: of k-means.
        :param start: see :class:`~.active_set.ActiveSet`.
        :param kind: see :meth:`.ActiveSet.build`, as are *tol* and *constant_column*.
        :param rows_per_rank: see :data:`ROWS_PER_RANK`; 0 keeps every cluster.
        :raises ValueError: if there is no atom, a feature is not finite or the shapes do not fit.
        """
        if features.n_atoms == 0 or not np.all(np.isfinite(features.values)):
            raise ValueError("clustering needs at least one atom, and features that are finite")
        if n_clusters < 1:
            raise ValueError(f"n_clusters must be positive, got {n_clusters}")
        given = None if labels is None else _integer_labels(labels, features.n_atoms)
        clusters = np.zeros(features.n_atoms, dtype=np.int64)
        for number in np.unique(features.species):
            mask = features.species == number
            values = np.asarray(features.values[mask], dtype=np.float64)
            points = _principal_components(values)
            if given is None:
                found = cluster_kmeans(points, n_clusters, derive_seed(seed, f"local/kmeans/{number}"))
            else:
                found = given[mask]
            clusters[mask] = _merge_small(values, points, found, rows_per_rank)
        members = [
            ActiveSet.build(_take(features, clusters == label), start, tol, kind, constant_column)
            for label in np.unique(clusters)
        ]
        return cls(members)

    @property
    def species(self) -> tuple[int, ...]:
        """Atomic numbers known to at least one cluster, ascending."""
        return tuple(sorted({number for member in self.members for number in member.species}))

    def grade(self, features: Features) -> FloatArray:
        """Return the smallest grade over the clusters for every atom, shape (n_atoms,); see :meth:`.ActiveSet.grade`.

        :raises ValueError: if the number of features is not the one the sets were built with.
        """
        return np.asarray(np.min([member.grade(features) for member in self.members], axis=0), dtype=np.float64)

    def residual(self, features: Features) -> FloatArray:
        """Return the smallest share outside the span of a cluster for every atom, shape (n_atoms,)."""
        return np.asarray(np.min([member.residual(features) for member in self.members], axis=0), dtype=np.float64)

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


def cluster_kmeans(points: FloatArray, n_clusters: int, seed: int) -> IntArray:
    """Return the cluster of each point by Lloyd's k-means from a seeded k-means++ start.

    :param points: shape (n, d).
    :param n_clusters: at most this many; fewer if there are fewer different points.
    :return: labels 0, 1, …, shape (n,).
    """
    generator = np.random.default_rng(seed)
    centres = points[generator.integers(len(points))][None]
    for _ in range(n_clusters - 1):
        weight = _square_distances(points, centres).min(axis=1)
        # what is roundoff between equal points is no distance
        weight[weight < 1e-20 * max(float(np.square(points).max(initial=0.0)), 1e-280)] = 0.0
        if weight.sum() == 0.0:
            break
        centres = np.concatenate([centres, points[generator.choice(len(points), p=weight / weight.sum())][None]])
    labels = np.full(len(points), -1, dtype=np.int64)
    for _ in range(MAX_ITERATIONS):
        found = np.argmin(_square_distances(points, centres), axis=1)
        if np.array_equal(found, labels):
            break
        labels = found
        for k in np.unique(labels):
            centres[k] = points[labels == k].mean(axis=0)
    return np.asarray(np.unique(labels, return_inverse=True)[1], dtype=np.int64)


def _square_distances(points: FloatArray, centres: FloatArray) -> FloatArray:
    return np.stack([np.square(points - centre).sum(axis=1) for centre in centres], axis=1)


def _principal_components(values: FloatArray) -> FloatArray:
    """Return the leading principal components of the standardised columns, shape (n, ≤ n_features)."""
    centred = values - values.mean(axis=0)
    deviation = centred.std(axis=0)
    centred = centred[:, deviation > 0.0] / deviation[deviation > 0.0]
    if centred.size == 0:
        return np.zeros((len(values), 1))
    power, vectors = np.linalg.eigh(centred.T @ centred / len(values))
    power, vectors = power[::-1], vectors[:, ::-1]
    n_kept = int(np.searchsorted(np.cumsum(power) / power.sum(), EXPLAINED)) + 1
    return np.asarray(centred @ vectors[:, :n_kept], dtype=np.float64)


def _merge_small(values: FloatArray, points: FloatArray, labels: IntArray, rows_per_rank: float) -> IntArray:
    """Return labels after the smallest cluster with too few atoms was merged, again and again."""
    labels = labels.copy()
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


def _take(features: Features, mask: npt.NDArray[np.bool_]) -> Features:
    return Features(features.values[mask], features.species[mask], features.frame_index[mask])
