"""Farthest-point selection."""

from __future__ import annotations

import numpy as np

from aiida_alpot.kernel.selection.context import PickContext, Picks
from aiida_alpot.kernel.selection.distance import distances_to, nearest_distances, require_features
from aiida_alpot.kernel.selection.table import CandidateTable
from aiida_alpot.kernel.units import FloatArray, IntArray


def pick_farthest(
    candidates: CandidateTable, pool: IntArray, n: int, rng: np.random.Generator, context: PickContext
) -> Picks:
    """Return rows of *pool*, each the farthest from those chosen before it and from the reference.

    Without a reference the first one is the row farthest from the mean of the pool. It ends early when only copies of
    chosen rows are left. Nothing is random: the set does not depend on the order of the rows, up to ties.

    :param pool: rows to choose from, shape (n_pool,).
    :param rng: not used.
    :param context: its reference.
    :return: at most *n* rows in the order of choice.
    :raises ValueError: if the table has no features or those of the reference have another size.
    """
    del rng
    features = require_features(candidates, context.reference)[pool]
    return Picks(pool[greedy_farthest(features, np.ones(len(pool)), n, context.reference)])


def greedy_farthest(features: FloatArray, weights: FloatArray, n: int, reference: FloatArray | None) -> IntArray:
    """Return rows that maximise weight × distance to the nearest chosen or reference row, one after the other.

    :param features: shape (n_rows, n_features).
    :param weights: shape (n_rows,), positive.
    :return: shape (at most n,).
    """
    if n <= 0 or len(features) == 0:
        return np.zeros(0, dtype=np.int64)
    if reference is not None and len(reference):
        nearest = nearest_distances(features, reference)
        first = int(np.argmax(weights * nearest))
    else:
        nearest = np.full(len(features), np.inf)
        ties = weights == weights.max()
        first = int(np.argmax(np.where(ties, distances_to(features, features.mean(axis=0)), -1.0)))
    chosen: list[int] = []
    best = first
    while len(chosen) < n and nearest[best] > 0.0:
        chosen.append(best)
        nearest = np.minimum(nearest, distances_to(features, features[best]))
        best = int(np.argmax(weights * nearest))
    return np.array(chosen, dtype=np.int64)
