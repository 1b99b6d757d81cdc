"""The most uncertain candidates first."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from aiida_alpot.kernel.selection.context import PickContext, Picks
from aiida_alpot.kernel.selection.flags import Limit
from aiida_alpot.kernel.selection.table import CandidateTable
from aiida_alpot.kernel.units import FloatArray, IntArray


def pick_top(
    candidates: CandidateTable, pool: IntArray, n: int, rng: np.random.Generator, context: PickContext
) -> Picks:
    """Return the rows of *pool* whose disagreement or grade is the largest multiple of its limit.

    Among infinite grades the largest finite multiple decides. Nothing is random: the set does not depend on the order
    of the rows, up to ties, of which the first come first.

    :param pool: rows to choose from, shape (n_pool,).
    :param rng: not used.
    :param context: its limits.
    :return: min(n, n_pool) rows, the most uncertain one first.
    """
    del rng
    multiples = _multiples(candidates, pool, context.limits)
    largest = multiples.max(axis=0, initial=0.0)
    largest_finite = np.where(np.isfinite(multiples), multiples, 0.0).max(axis=0, initial=0.0)
    order = np.lexsort((-largest_finite, -largest))
    return Picks(pool[order[:n]])


def _multiples(candidates: CandidateTable, pool: IntArray, limits: Mapping[str, Limit]) -> FloatArray:
    """Return disagreements and grade over their limits, shape (n_limits, n_pool), zero where they are not defined."""
    multiples = np.zeros((len(limits), len(pool)))
    for row, (name, limit) in zip(multiples, limits.items(), strict=True):
        row[:] = (getattr(candidates, name) / limit)[pool]
    multiples[np.isnan(multiples)] = 0.0
    return multiples
