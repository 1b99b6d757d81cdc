"""Grades in units of what training frames reach that are left out: above 1 is what one in ten of them exceeds.

A frame of the same kind as N training frames exceeds a grade of 1 with a probability of up to (frames with an active
atom)/(N + 1), which is close to one where features outnumber frames. What left-out frames reach tells a frame that is
one more of its kind from one that is of another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from aiida_alpot.kernel.potentials.base import Features
from aiida_alpot.kernel.seeds import derive_seed
from aiida_alpot.kernel.uncertainty.active_set import ActiveSet, FeatureSource
from aiida_alpot.kernel.units import BoolArray, FloatArray, IntArray

KNOWN_SHARE: Final = 0.9
"""Share of left-out frames whose grade is at most one unit."""
N_FOLDS: Final = 10


def assign_folds(groups: Sequence[str], n_folds: int = N_FOLDS) -> IntArray:
    """Return the fold of each frame, shape (n_frames,): frames of a group are left out together.

    :param groups: of the frames; one without a name is a group of its own.
    :param n_folds: at most; fewer if there are fewer groups.
    """
    names = [group or f"\0{k}" for k, group in enumerate(groups)]
    found, index = np.unique(np.array(names, dtype=object).astype(str), return_inverse=True)
    order = np.random.default_rng(derive_seed(0, "left-out folds")).permutation(len(found))
    return np.asarray(order[index] % max(n_folds, 1), dtype=np.int64)


def scale_grades(active_set: ActiveSet, features: Features | FeatureSource, folds: IntArray) -> None:
    """Set the units of an active set; a species without left-out grades has the unit one. Changes the set in place.

    :param features: what the set was built from, without tags.
    :param folds: of the frames that ``features.frame_index`` counts.
    :raises ValueError: if the start is ``"strict"``: an infinite grade has no unit.
    """
    if active_set.start != "eps":
        raise ValueError("grades of a strict start are infinite outside the span and have no unit: start with 'eps'")
    grades = compute_left_out_grades(active_set, features, folds)
    active_set.units = {number: compute_unit(values) for number, values in grades.items()}


def compute_left_out_grades(
    active_set: ActiveSet, features: Features | FeatureSource, folds: IntArray
) -> dict[int, FloatArray]:
    """Return the grades, not scaled, of training frames by the active set of the other folds, block by block.

    Of each frame the largest of its atoms. Frames that the other folds know nothing of, as no other frame has their
    species, are left out.

    :param features: what the set was built from, without tags.
    :param folds: of the frames that ``features.frame_index`` counts.
    :return: by atomic number (0: configurations), shape (n_frames with the species,).
    """
    source = _as_source(features)
    with_owners = {int(fold) for owners in active_set.owners.values() for fold in folds[owners]}
    found: dict[int, list[FloatArray]] = {number: [np.zeros(0)] for number in active_set.blocks}
    for fold in np.unique(folds).tolist():
        # without frames that have no active row the set is what it is
        others = active_set.copy() if fold not in with_owners else _build_like(active_set, source, folds != fold)
        others.units = {}
        for chunk in _restrict(source, folds == fold):
            grades = others.grade(chunk)
            blocks = chunk.species if active_set.mode == "neighbourhood" else np.zeros(chunk.n_atoms, dtype=np.int64)
            for number in np.unique(blocks).tolist():
                inside = blocks == number
                largest = _frame_maxima(grades[inside], chunk.frame_index[inside])
                found[number].append(largest[np.isfinite(largest)])
    return {number: np.concatenate(parts) for number, parts in found.items()}


def compute_unit(grades: npt.ArrayLike, share: float = KNOWN_SHARE) -> float:
    """Return the grade that a new frame exceeds with a probability of at most 1 − *share*, if it is like these.

    The ⌈(n + 1)·share⌉-th smallest of n grades, of fewer than nine grades the largest; one without any, or
    where that is zero, as of features that are all zero.
    """
    values = np.sort(np.asarray(grades, dtype=np.float64))
    if not values.size:
        return 1.0
    rank = int(np.ceil((len(values) + 1) * share))
    return float(values[min(rank, len(values)) - 1]) or 1.0


def _build_like(active_set: ActiveSet, source: FeatureSource, frames: BoolArray) -> ActiveSet:
    return ActiveSet.build(
        lambda: _restrict(source, frames),
        active_set.start,
        active_set.tol,
        constant_column=active_set.constant_column,
        mode=active_set.mode,
    )


def _restrict(source: FeatureSource, frames: BoolArray) -> Iterator[Features]:
    """Return the chunks without the frames that are not marked, and without empty chunks."""
    for chunk in source():
        kept = frames[chunk.frame_index]
        if kept.all():
            yield chunk
        elif kept.any():
            yield Features(chunk.values[kept], chunk.species[kept], chunk.frame_index[kept])


def _frame_maxima(grades: FloatArray, frame_index: IntArray) -> FloatArray:
    starts = np.flatnonzero(np.diff(frame_index, prepend=-1))
    return np.asarray(np.maximum.reduceat(grades, starts), dtype=np.float64)


def _as_source(features: Features | FeatureSource) -> FeatureSource:
    return (lambda: iter((features,))) if isinstance(features, Features) else features
