"""Uniform random choice among the uncertain candidates."""

from __future__ import annotations

import numpy as np

from aiida_alpot.kernel.selection.context import PickContext, Picks
from aiida_alpot.kernel.selection.table import CandidateTable
from aiida_alpot.kernel.units import IntArray


def pick_uniform(
    candidates: CandidateTable, pool: IntArray, n: int, rng: np.random.Generator, context: PickContext
) -> Picks:
    """Return *n* rows of *pool*, all with the same probability.

    The paper's choice among frames above threshold: frames near the dataset are the frequent ones of a trajectory and
    win by number, [TrainsPot] Sec. II A 6.

    :param pool: rows to choose from, shape (n_pool,).
    :param context: not used.
    :return: min(n, n_pool) rows.
    """
    del candidates, context
    return Picks(rng.permutation(pool)[:n])
