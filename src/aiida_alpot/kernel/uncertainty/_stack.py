"""Predictions of several members side by side, checked, and sums over the atoms of frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aiida_alpot.kernel.potentials.base import Predictions
from aiida_alpot.kernel.units import BoolArray, FloatArray, IntArray


@dataclass(frozen=True)
class Stack:
    """Predictions of several members: the leading axis of the first three is the member.

    A member that misses a frame has NaN there; a frame of which fewer than two members are left has NaN for all. A
    member whose engine knows no stress has NaN for all of it.
    """

    energy: FloatArray
    forces: FloatArray
    stress: FloatArray
    offsets: IntArray

    def mean(self) -> Stack:
        """Return the mean of the members, as a stack of one."""
        return Stack(
            mean_over_members(self.energy)[None],
            mean_over_members(self.forces)[None],
            mean_over_members(self.stress)[None],
            self.offsets,
        )


def mean_over_members(values: FloatArray) -> FloatArray:
    """Return the mean along the first axis over the members that have a value; NaN if none has."""
    known = ~np.isnan(values)
    if known.all():
        return np.asarray(values.mean(axis=0), dtype=np.float64)
    total, count = np.where(known, values, 0.0).sum(axis=0), known.sum(axis=0)
    mean = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return np.asarray(mean, dtype=np.float64)


def stack_members(members: Sequence[Predictions], allow_missing: bool = False) -> Stack:
    """Return predictions side by side.

    :param allow_missing: take a frame whose energy and forces are all NaN for one that this member failed to predict.
    :raises ValueError: if there is no member, the frames differ, or a value is not finite; the message names member
        and frame.
    """
    if not members:
        raise ValueError("a committee needs at least one member, got none")
    offsets = np.asarray(members[0].offsets, dtype=np.int64)
    for index, member in enumerate(members):
        if not np.array_equal(member.offsets, offsets):
            raise ValueError(f"member {index} is not of the same frames as member 0: the offsets differ")
    empty = np.flatnonzero(np.diff(offsets) == 0)
    if empty.size:
        raise ValueError(f"frame {int(empty[0])} has no atoms")
    missing = np.array([_missing_frames(member) if allow_missing else _no_frames(member) for member in members])
    for index, member in enumerate(members):
        _check_finite(member, index, missing[index])
    result = Stack(
        np.stack([member.energy for member in members]),
        np.stack([member.forces for member in members]),
        np.stack([member.stress for member in members]),
        offsets,
    )
    _check_stress(result.stress, ~missing)
    if missing.any():
        _leave_out(result, missing)
    return result


def leave_out_lone_stress(stacked: Stack) -> None:
    """Set to NaN the stress of the frames of which a single member has one: nobody is there to disagree with it."""
    n_known = np.count_nonzero(~np.isnan(stacked.stress).any(axis=2), axis=0)
    stacked.stress[:, n_known < 2] = np.nan


def segment_sum(values: FloatArray, offsets: IntArray) -> FloatArray:
    """Return the sum over the atoms of each frame, shape (n_frames,)."""
    if len(offsets) == 1:
        return np.zeros(0)
    return np.asarray(np.add.reduceat(values, offsets[:-1]), dtype=np.float64)


def segment_max(values: FloatArray, offsets: IntArray) -> FloatArray:
    """Return the maximum over the atoms of each frame, shape (n_frames,); NaN if one of them is."""
    if len(offsets) == 1:
        return np.zeros(0)
    return np.asarray(np.maximum.reduceat(values, offsets[:-1]), dtype=np.float64)


def _no_frames(member: Predictions) -> BoolArray:
    return np.zeros(member.n_frames, dtype=bool)


def _missing_frames(member: Predictions) -> BoolArray:
    """Return the frames of which neither energy nor any force is known, shape (n_frames,)."""
    unknown = np.all(np.isnan(member.forces), axis=1).astype(np.float64)
    return np.asarray(np.isnan(member.energy) & (segment_sum(unknown, member.offsets) == np.diff(member.offsets)))


def _leave_out(stacked: Stack, missing: BoolArray) -> None:
    """Set to NaN what a member misses, and the frames of which fewer than two members are left."""
    missing = missing | (np.count_nonzero(~missing, axis=0) < 2)
    stacked.energy[missing] = np.nan
    stacked.stress[missing] = np.nan
    stacked.forces[np.repeat(missing, np.diff(stacked.offsets), axis=1)] = np.nan


def _check_finite(member: Predictions, index: int, missing: BoolArray) -> None:
    bad = np.flatnonzero(~missing & ~np.isfinite(member.energy))
    if bad.size:
        raise ValueError(f"member {index}, frame {int(bad[0])}: the energy is not finite ({member.energy[bad[0]]})")
    finite = np.all(np.isfinite(member.forces), axis=1)
    bad = np.flatnonzero(~np.repeat(missing, np.diff(member.offsets)) & ~finite)
    if bad.size:
        frame = int(np.searchsorted(member.offsets, bad[0], side="right")) - 1
        raise ValueError(f"member {index}, frame {frame}: a force is not finite (atom {int(bad[0])} of all)")
    undefined = missing | np.all(np.isnan(member.stress), axis=1)
    bad = np.flatnonzero(~undefined & ~np.all(np.isfinite(member.stress), axis=1))
    if bad.size:
        raise ValueError(f"member {index}, frame {int(bad[0])}: a stress component is not finite")


def _check_stress(stress: FloatArray, present: BoolArray) -> None:
    """Refuse a stress that some of the members that predict the frame have, and some have not.

    A member without any stress does not count: its engine knows none.

    :param stress: shape (n_models, n_frames, 6).
    :param present: which members predict which frames, shape (n_models, n_frames).
    """
    undefined: BoolArray = np.asarray(np.isnan(stress).any(axis=2))
    present = present & ~np.all(undefined, axis=1, keepdims=True)
    first = np.argmax(present, axis=0)
    different = np.argwhere(present & (undefined != np.take_along_axis(undefined, first[None], axis=0)))
    if len(different):
        index, frame = different[0].tolist()
        raise ValueError(f"member {index}, frame {frame}: the stress is NaN for some members only")
