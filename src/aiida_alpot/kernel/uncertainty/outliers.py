"""Atoms whose force is out of all proportion: a few extreme rows must not decide what an active set calls known.

UQ-ACE leaves atoms out beyond Q3 + 1.5 IQR (Shuang et al. 2026, Eq. 13) of the size of the force by its text, and of
the error of the force by its code (pacemaker). Either goes; here the quantiles are those of each species.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from aiida_alpot.kernel.uncertainty.committee import compute_adaptive_threshold
from aiida_alpot.kernel.units import BoolArray

N_MIN: Final = 20
"""Atoms of a species below which quartiles say too little."""


@dataclass(frozen=True)
class Outliers:
    """Which atoms are outliers of their species.

    :param limits: Q3 + 1.5 IQR per atomic number; a species without is not judged, as it has fewer than
        :data:`N_MIN` atoms that are known, or an interquartile range of zero.
    :param mask: shape (n_atoms,); at most a quarter of the atoms of a species.
    :param n_unknown: atoms without a finite value, which are no outliers.
    """

    limits: dict[int, float]
    mask: BoolArray
    n_unknown: int


def find_outliers(chunks: Iterable[tuple[npt.ArrayLike, npt.ArrayLike]]) -> Outliers:
    """Return the atoms beyond Q3 + 1.5 IQR of their species, linear quantiles.

    Sixteen bytes an atom are kept, whatever the chunks.

    :param chunks: atomic numbers and sizes (of forces, or of their errors), each of shape (any,).
    :raises ValueError: if a chunk has not as many of the one as of the other, or a size is negative.
    """
    parts = [(np.zeros(0, dtype=np.int64), np.zeros(0))]
    for numbers, sizes in chunks:
        part = np.asarray(numbers, dtype=np.int64), np.asarray(sizes, dtype=np.float64)
        if part[0].ndim != 1 or part[0].shape != part[1].shape:
            raise ValueError(f"sizes: expected one for each of {part[0].shape} atoms, got the shape {part[1].shape}")
        if np.any(part[1] < 0.0):
            raise ValueError(f"sizes of forces must not be negative, got {np.nanmin(part[1])}")
        parts.append(part)
    species, values = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    known = np.isfinite(values)
    mask = np.zeros(len(values), dtype=bool)
    limits: dict[int, float] = {}
    for number in np.unique(species[known]).tolist():
        rows = np.flatnonzero(known & (species == number))
        low, high = np.quantile(values[rows], [0.25, 0.75])
        if len(rows) < N_MIN or low == high:
            continue
        limits[number] = compute_adaptive_threshold(values[rows])
        mask[rows] = values[rows] > limits[number]
    return Outliers(limits, mask, int(np.count_nonzero(~known)))
