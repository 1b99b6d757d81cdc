"""Clusters of training frames that any other frame can be assigned to, by the nearest centre.

A threshold or a scale of errors for all frames together is too high for most of them where they are of several kinds
(UQ-ACE Sec. 3.3). Where nobody named the kinds, the features tell them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from aiida_alpot.kernel.clustering import cluster_birch, cluster_kmeans, leading_axes, means
from aiida_alpot.kernel.potentials.base import Features
from aiida_alpot.kernel.seeds import derive_seed
from aiida_alpot.kernel.uncertainty.categories import StrArray
from aiida_alpot.kernel.uncertainty.local import N_CLUSTERS
from aiida_alpot.kernel.units import FloatArray


@dataclass(frozen=True)
class FrameClusterSettings:
    """How training frames are parted into clusters, by the mean features of their atoms.

    :param method: ``"kmeans"`` or ``"birch"``, on the principal components of the standardised features.
    :param n_clusters: how many are looked for.
    :param seed: of k-means.
    """

    method: Literal["kmeans", "birch"] = "kmeans"
    n_clusters: int = N_CLUSTERS
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n_clusters < 1:
            raise ValueError(f"n_clusters must be positive, got {self.n_clusters}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")


@dataclass(frozen=True, eq=False)
class FrameClusters:
    """Centres of clusters of frames, and where a frame is among them: at ``(mean features − shift) @ axes``.

    :param shift: shape (n_features,).
    :param axes: shape (n_features, n_components).
    :param centres: shape (n_clusters, n_components).
    :raises ValueError: if the shapes do not fit.
    """

    shift: FloatArray
    axes: FloatArray
    centres: FloatArray

    def __post_init__(self) -> None:
        n_features, n_components = np.shape(self.axes)
        if np.shape(self.shift) != (n_features,) or np.shape(self.centres)[1:] != (n_components,):
            raise ValueError(
                f"clusters of frames: shapes {np.shape(self.shift)}, {np.shape(self.axes)} and "
                f"{np.shape(self.centres)} of shift, axes and centres do not fit"
            )

    @classmethod
    def build(cls, rows: FloatArray, settings: FrameClusterSettings) -> FrameClusters:
        """Return the clusters of training frames.

        :param rows: mean features of each frame, at least one, shape (n_frames, n_features).
        """
        shift, axes = leading_axes(rows)
        points = (rows - shift) @ axes
        if settings.method == "birch":
            found = cluster_birch(points, settings.n_clusters)
        else:
            found = cluster_kmeans(points, settings.n_clusters, derive_seed(settings.seed, "frame-clusters"))
        return cls(shift, axes, means(points, found))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the clusters."""
        return tuple(f"cluster {k}" for k in range(len(self.centres)))

    def assign(self, rows: FloatArray) -> StrArray:
        """Return the name of the nearest cluster of each frame, shape (n_frames,).

        :param rows: mean features, shape (n_frames, n_features). A frame with one that is not finite has none: ``""``.
        :raises ValueError: if the number of features is another one.
        """
        if rows.shape[1] != len(self.shift):
            raise ValueError(f"the clusters are of {len(self.shift)} features, the frames have {rows.shape[1]}")
        names = np.full(len(rows), "", dtype=f"U{max(map(len, self.names))}")
        known = np.isfinite(rows).all(axis=1)
        points = (rows[known] - self.shift) @ self.axes
        distance = np.stack([np.square(points - centre).sum(axis=1) for centre in self.centres], axis=1)
        names[known] = np.array(self.names)[np.argmin(distance, axis=1)]
        return names

    def to_arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return the state as arrays by name."""
        return {"shift": self.shift, "axes": self.axes, "centres": self.centres}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.generic]]) -> FrameClusters:
        """Return the clusters that :meth:`to_arrays` described."""
        return cls(*(np.asarray(arrays[name], dtype=np.float64) for name in ("shift", "axes", "centres")))


def mean_over_atoms(features: Features, n_frames: int) -> FloatArray:
    """Return the mean features of each frame, shape (n_frames, n_features); NaN where those of an atom are.

    :param n_frames: frames, each of which has an atom.
    """
    total = np.zeros((n_frames, features.n_features))
    np.add.at(total, features.frame_index, features.values)
    counts: FloatArray = np.bincount(features.frame_index, minlength=n_frames).astype(np.float64)
    return total / counts[:, None]
