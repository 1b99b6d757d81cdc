"""Cover the feature space with few frames: the candidate of the largest grade first."""

from __future__ import annotations

from typing import Final

import numpy as np

from aiida_alpot.kernel.selection.absorbing import GrowingSet, blocks
from aiida_alpot.kernel.selection.context import PickContext, Picks
from aiida_alpot.kernel.selection.table import CandidateTable
from aiida_alpot.kernel.units import BoolArray, FloatArray, IntArray

_REGRADED: Final = 16
"""Candidates whose grades are brought up to date at a time."""


def pick_best_first(
    candidates: CandidateTable, pool: IntArray, n: int, rng: np.random.Generator, context: PickContext
) -> Picks:
    """Return the rows of *pool* that a copy of the active set takes in, that of the largest grade first.

    Grades fall as the set grows, as a rule. So a candidate is graded again only when its old grade is the largest, and
    enters if it still is. As a grade may rise too, all are graded again in the end, until none exceeds
    ``gamma_select``, or else 2. Infinite grades are ordered by the share of an atom's features outside the span of
    the set. Nothing is random: the set does not depend on the order of the rows, up to ties.

    :param pool: rows to choose from, shape (n_pool,).
    :param rng: not used.
    :param context: its active set, the per-atom features, and the limit of the grade.
    :return: at most *n* rows in the order of choice, with the grade at which each one entered.
    :raises ValueError: if there is no active set or there are no per-atom features.
    """
    del candidates, rng
    grown = GrowingSet(context)
    grades = _Grades(grown, pool)
    entered: dict[int, str] = {}
    while len(entered) < n:
        above = grades.above(grown.final_grade)
        if not above.size:
            break
        best = int(above[0])
        if grades.current[best]:
            row = int(pool[best])
            entered[row] = f"best_first: grade {grades.values[best]:.4g} > {grown.final_grade:.4g}"
            grown.absorb(grown.features(pool[best : best + 1]))
            grades.outdate(best)
        else:
            grades.update(above[~grades.current[above]][:_REGRADED])
    return Picks(np.array(list(entered), dtype=np.int64), entered)


class _Grades:
    """The grades of the candidates, of which some are out of date.

    :ivar values: grade of each candidate, shape (n_pool,); −inf for one that entered.
    :ivar current: which grades are those of the set as it is, shape (n_pool,).
    """

    values: FloatArray
    current: BoolArray

    def __init__(self, grown: GrowingSet, pool: IntArray) -> None:
        self._grown = grown
        self._pool = pool
        self._outside = np.zeros(len(pool))
        self.values = np.full(len(pool), np.inf)
        self.current = np.zeros(len(pool), dtype=bool)
        self.update(np.arange(len(pool)))

    def above(self, limit: float) -> IntArray:
        """Return the candidates above *limit*, the largest grade first; if none is left, all are graded again."""
        if not np.any(self.values > limit):
            self.update(np.flatnonzero(~self.current & (self.values >= 0.0)))
        above = np.flatnonzero(self.values > limit)
        return above[np.lexsort((-self._outside[above], -self.values[above]))]

    def update(self, candidates: IntArray) -> None:
        """Grade some candidates."""
        for block in blocks(candidates):
            features = self._grown.features(self._pool[block])
            self.values[block] = self._grown.grade(features, len(block))
            if np.isinf(self.values[block]).any():
                self._outside[block] = self._grown.residual(features, len(block))
            self.current[block] = True

    def outdate(self, entered: int) -> None:
        """Mark every grade as out of date after a candidate entered."""
        self.values[entered] = -np.inf
        self.current[:] = False
