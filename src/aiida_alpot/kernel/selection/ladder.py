"""Cover the feature space by falling thresholds of the grade: the ladder of AutoPot, Algorithm 2.1."""

from __future__ import annotations

from typing import Final

import numpy as np

from aiida_alpot.kernel.selection.absorbing import GrowingSet, blocks, take_frames
from aiida_alpot.kernel.selection.context import PickContext, Picks
from aiida_alpot.kernel.selection.table import CandidateTable
from aiida_alpot.kernel.units import IntArray

LEVELS: Final = (1e5, 1e4, 1e3, 1e2, 10.0)
"""Thresholds before the final one: what is far off enters first and makes much of the rest superfluous."""


def pick_ladder(
    candidates: CandidateTable, pool: IntArray, n: int, rng: np.random.Generator, context: PickContext
) -> Picks:
    """Return the rows of *pool* that a copy of the active set takes in, level by level.

    A level sweeps the candidates that are left, in their order, and takes in each whose grade exceeds the level: the
    next ones are graded with it. The last level, ``gamma_select`` or else 2, is swept again until no candidate
    exceeds it. A level that the sweep before shows to be empty is left out.

    :param pool: rows to choose from, shape (n_pool,); their order matters.
    :param rng: not used.
    :param context: its active set, the per-atom features, and the limit of the grade.
    :return: at most *n* rows in the order of choice, with the grade at which each one entered.
    :raises ValueError: if there is no active set or there are no per-atom features.
    """
    del candidates, rng
    grown = GrowingSet(context)
    levels = [level for level in LEVELS if level > grown.final_grade] + [grown.final_grade]
    entered: dict[int, str] = {}
    k: int | None = 0
    while k is not None and len(entered) < n:
        left = pool[~np.isin(pool, list(entered))]
        found, highest = _sweep(grown, left, levels[k], n - len(entered))
        entered |= found
        if found:
            k = min(k + 1, len(levels) - 1)
        else:
            k = next((j for j, level in enumerate(levels) if level < highest), None)
    return Picks(np.array(list(entered), dtype=np.int64), entered)


def _sweep(grown: GrowingSet, rows: IntArray, level: float, most: int) -> tuple[dict[int, str], float]:
    """Take in those of *rows* whose grade exceeds *level*, *most* at most.

    :return: the rows that entered with their reasons, and the largest grade seen of the others.
    """
    entered: dict[int, str] = {}
    highest = 0.0
    for block in blocks(rows):
        features, first = grown.features(block), 0
        while first < len(block):
            grades = grown.grade(take_frames(features, first, len(block)), len(block) - first)
            above = np.flatnonzero(grades > level)
            passed = int(above[0]) if above.size else len(grades)
            highest = max(highest, grades[:passed].max(initial=0.0))
            first += passed
            if above.size:
                grown.absorb(take_frames(features, first, first + 1))
                entered[int(block[first])] = f"ladder: grade {grades[passed]:.4g} > {level:.4g}"
                first += 1
            if len(entered) == most:
                return entered, highest
    return entered, highest
