"""Pairs of disagreement and error, without those of which one is not known."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from aiida_alpot.kernel.units import BoolArray, FloatArray


def clean_pairs(disagreement: npt.ArrayLike, error: npt.ArrayLike) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Return the pairs without a NaN, and which ones they are.

    :param disagreement: D, shape (n,), not negative.
    :param error: ε, shape (n,), not negative.
    :return: two arrays of shape (n_known,) and a mask of shape (n,).
    :raises ValueError: if the shapes differ or a value is negative or infinite.
    """
    D = np.asarray(disagreement, dtype=np.float64)
    e = np.asarray(error, dtype=np.float64)
    if D.ndim != 1 or D.shape != e.shape:
        raise ValueError(f"expected two 1-d arrays of one length, got the shapes {D.shape} and {e.shape}")
    for name, values in (("disagreement", D), ("error", e)):
        bad = np.flatnonzero(np.isinf(values) | (values < 0.0))
        if bad.size:
            raise ValueError(f"{name}[{int(bad[0])}] is {values[bad[0]]}; expected a finite number, not negative")
    known = ~(np.isnan(D) | np.isnan(e))
    return D[known], e[known], known
