"""Uncertain and different at once: greedy maximum of uncertainty × distance."""

from __future__ import annotations

import numpy as np

from aiida_alpot.kernel.selection.context import PickContext, Picks
from aiida_alpot.kernel.selection.distance import require_features
from aiida_alpot.kernel.selection.fps import greedy_farthest
from aiida_alpot.kernel.selection.table import CandidateTable
from aiida_alpot.kernel.units import FloatArray, IntArray


def pick_greedy_diverse(
    candidates: CandidateTable, pool: IntArray, n: int, rng: np.random.Generator, context: PickContext
) -> Picks:
    """Return rows of *pool*, each the maximum of u × distance to what is chosen already.

    u is the largest committee deviation of an atom's force (``force_max``), the distance is Euclidean in the features,
    to the nearest chosen row or row of the reference. Without a reference the first one is the most uncertain row. It
    ends early when only copies of chosen rows are left.

    :param pool: rows to choose from, shape (n_pool,).
    :param rng: not used.
    :param context: its reference.
    :return: at most *n* rows in the order of choice.
    :raises ValueError: if the table has no features or those of the reference have another size.
    """
    del rng
    features = require_features(candidates, context.reference)[pool]
    weights = _uncertainty(candidates.force_max[pool])
    return Picks(pool[greedy_farthest(features, weights, n, context.reference)])


def _uncertainty(deviation: FloatArray) -> FloatArray:
    """Return positive finite weights: infinite counts as the largest finite number, NaN (one model) as the smallest."""
    finite = deviation[np.isfinite(deviation) & (deviation > 0.0)]
    if len(finite) == 0:
        return np.ones(len(deviation))
    return np.clip(np.nan_to_num(deviation, nan=0.0, posinf=np.inf), finite.min(), finite.max())
