"""Per-atom features of candidates on demand, in flat memory."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import numpy as np

from aiida_alpot.kernel.cutouts import keep_core
from aiida_alpot.kernel.dataset import Dataset, DatasetView
from aiida_alpot.kernel.features import FeatureFunction
from aiida_alpot.kernel.potentials import Features
from aiida_alpot.kernel.potentials.base import concatenate_features
from aiida_alpot.kernel.units import IntArray

KEPT: Final = 2**25
"""Most numbers kept in memory, 256 MiB."""


class AtomFeatures:
    """Features of the atoms of some frames, computed when they are asked for.

    The frames asked for first stay in memory until it is full. Keeping the latest instead would be of no use to who
    goes through all frames again and again.

    :param compute: computes the features of frames.
    :param kept: most numbers kept in memory.
    """

    def __init__(self, frames: Dataset | DatasetView, compute: FeatureFunction, kept: int = KEPT) -> None:
        self._frames = frames
        self._compute = compute
        self._free = kept
        self._kept: dict[int, Features] = {}

    def __call__(self, rows: IntArray) -> Features:
        """Return the features of the frames at *rows*, at least one; ``frame_index`` counts them from 0."""
        asked = rows.tolist()
        missing = [row for row in asked if row not in self._kept]
        computed = dict(zip(missing, self._compute_rows(missing), strict=True)) if missing else {}
        for row, features in computed.items():
            if features.values.size <= self._free:
                self._kept[row] = features
                self._free -= features.values.size
        parts = [computed[row] if row in computed else self._kept[row] for row in asked]
        return concatenate_features(parts, [1] * len(parts))

    def _compute_rows(self, rows: list[int]) -> list[Features]:
        frames = list(self._frames[np.array(rows)])
        found = keep_core(self._compute(frames), frames)
        ends = np.searchsorted(found.frame_index, np.arange(len(rows) + 1))
        return [
            Features(found.values[start:end].copy(), found.species[start:end], np.zeros(end - start))
            for start, end in pairwise(ends.tolist())
        ]
