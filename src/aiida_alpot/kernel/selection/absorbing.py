"""What the strategies share that take candidates into a copy of the active set."""

from __future__ import annotations

from typing import Final

import numpy as np

from aiida_alpot.kernel.potentials.base import Features
from aiida_alpot.kernel.selection.context import PickContext
from aiida_alpot.kernel.uncertainty.active_set import ActiveSet, compute_frame_grade
from aiida_alpot.kernel.uncertainty.local import LocalActiveSet
from aiida_alpot.kernel.units import FloatArray, IntArray

FINAL_GRADE: Final = 2.0
"""Grade above which a candidate is taken where ``gamma_select`` is None; within the range 1 to 2 of AutoPot."""
BLOCK: Final = 64
"""Candidates whose atoms are graded at a time."""


def require_active_set(active_set: ActiveSet | LocalActiveSet | None) -> ActiveSet | LocalActiveSet:
    """Return the active set that candidates can be taken into.

    :raises ValueError: if there is none; the message says what to do.
    """
    if active_set is None:
        raise ValueError(
            "this strategy chooses by grade and the uncertainty model has no active set: "
            "calibrate with 'feature_kind' set, e.g. 'last_layer'"
        )
    return active_set


def grade_limit(gamma_select: float | None, active_set: ActiveSet | LocalActiveSet | None) -> float:
    """Return the grade above which a candidate is taken in: *gamma_select*, or else :data:`FINAL_GRADE`.

    :raises ValueError: as :func:`require_active_set`.
    """
    # what the set holds counts as known: a lower limit would never be reached
    return max(FINAL_GRADE if gamma_select is None else gamma_select, require_active_set(active_set).known_grade)


class GrowingSet:
    """A copy of the active set, or of those of clusters, that takes candidates in.

    :param context: with the active set and the per-atom features of the candidates.
    :raises ValueError: if one of them is missing.
    """

    def __init__(self, context: PickContext) -> None:
        self._active_set = require_active_set(context.active_set).copy()
        if context.atom_features is None:
            raise ValueError("this strategy needs the per-atom features of the candidates")
        self.features = context.atom_features
        limit = context.limits.get("grade")
        self.final_grade = grade_limit(None if limit is None else float(limit), self._active_set)

    def grade(self, features: Features, n_frames: int) -> FloatArray:
        """Return the largest grade of the atoms of each frame, shape (n_frames,)."""
        return compute_frame_grade(self._active_set.grade(features), features.frame_index, n_frames)

    def residual(self, features: Features, n_frames: int) -> FloatArray:
        """Return the largest share of an atom's features outside the span of the set, shape (n_frames,)."""
        return compute_frame_grade(self._active_set.residual(features), features.frame_index, n_frames)

    def absorb(self, features: Features) -> None:
        """Take the atoms of a frame in, but for those whose features are not defined: they say nothing of others."""
        known = np.isfinite(features.values).all(axis=1)
        self._active_set.absorb(Features(features.values[known], features.species[known], features.frame_index[known]))


def blocks(rows: IntArray) -> list[IntArray]:
    """Return *rows* in blocks of at most :data:`BLOCK`."""
    return [rows[k : k + BLOCK] for k in range(0, len(rows), BLOCK)]


def take_frames(features: Features, first: int, stop: int) -> Features:
    """Return the features of the frames *first* to *stop* − 1, counted from 0."""
    start, end = np.searchsorted(features.frame_index, [first, stop])
    return Features(features.values[start:end], features.species[start:end], features.frame_index[start:end] - first)
