"""Uniform random choice among the uncertain candidates."""

from __future__ import annotations

import numpy as np

from aiida_alpot.kernel.selection.table import CandidateTable
from aiida_alpot.kernel.units import FloatArray, IntArray


def pick_uniform(
    candidates: CandidateTable,
    pool: IntArray,
    n: int,
    rng: np.random.Generator,
    reference: FloatArray | None = None,
) -> IntArray:
    """Return *n* rows of *pool*, all with the same probability.

    The paper's choice among frames above threshold: frames near the dataset are the frequent ones of a trajectory and
    win by number, [TrainsPot] Sec. II A 6.

    :param pool: rows to choose from, shape (n_pool,).
    :param reference: not used.
    :return: shape (min(n, n_pool),).
    """
    del candidates, reference
    return np.asarray(rng.permutation(pool)[:n], dtype=np.int64)
