"""Frames that a member of a committee fails to predict: which they are, why, and how to say it.

A disagreement of the members that are left is not that of the committee that was calibrated: it has fewer members, and
those that did not fail are the ones that agree. So nothing is said of such a frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from ase import Atoms

from aiida_alpot.kernel.potentials.base import Predictions
from aiida_alpot.kernel.uncertainty.categories import StrArray
from aiida_alpot.kernel.units import BoolArray

if TYPE_CHECKING:
    from aiida_alpot.kernel.dataset import Dataset, DatasetView

N_NAMED: Final = 3
"""Frames that a warning names."""


def find_failures(members: Sequence[Predictions]) -> StrArray:
    """Return why each frame is not predicted by all members, shape (n_frames,); empty for one that is.

    The energy, a force or the stress is not finite, as in ``"member 2 gives no finite forces"``; members count from 0.
    A stress may be NaN altogether for a frame if it is for all members that know one.

    :param members: at least one, of the same frames.
    """
    stress = _failed_stress(members)
    reasons: list[list[str]] = [[] for _ in range(members[0].n_frames)]
    for index, member in enumerate(members):
        parts = (("energy", ~np.isfinite(member.energy)), ("forces", _failed_forces(member)), ("stress", stress[index]))
        for name, failed in parts:
            for k in np.flatnonzero(failed).tolist():
                reasons[k].append(f"member {index} gives no finite {name}")
    return np.array(["; ".join(found) for found in reasons], dtype=np.str_)


def describe_failures(frames: Sequence[Atoms] | Dataset | DatasetView, failures: StrArray, name: str) -> list[str]:
    """Return a warning that counts the frames that are left out and names the first of them; none without any.

    :param frames: those that *failures* are of.
    :param failures: of :func:`find_failures`.
    :param name: of the frames, e.g. their split.
    """
    failed = np.flatnonzero(failures != "").tolist()
    if not failed:
        return []
    named = [f"frame {k} ({_describe(frames[k])}): {failures[k]}" for k in failed[:N_NAMED]]
    more = f"; and {len(failed) - N_NAMED} more" if len(failed) > N_NAMED else ""
    count = f"{len(failed)} of {len(frames)} frames are left out, as the committee does not predict them"
    return [f"{name}: {count}: {'; '.join(named)}{more}"]


def _failed_forces(member: Predictions) -> BoolArray:
    bad = ~np.isfinite(member.forces).all(axis=1)
    frame = np.repeat(np.arange(member.n_frames), np.diff(member.offsets))
    return np.asarray(np.bincount(frame[bad], minlength=member.n_frames) > 0)


def _failed_stress(members: Sequence[Predictions]) -> BoolArray:
    """Return which member fails which stress, shape (n_models, n_frames).

    One that has none of all frames knows none, or fails them all: then its energies are not finite either.
    """
    stress = np.stack([member.stress for member in members])
    undefined: BoolArray = np.asarray(np.isnan(stress).all(axis=2))
    knows = ~np.all(undefined, axis=1, keepdims=True)
    expected = (knows & ~undefined).any(axis=0)
    return np.asarray(knows & ~np.isfinite(stress).all(axis=2) & (expected | ~undefined))


def _describe(atoms: Atoms) -> str:
    group = str(atoms.info.get("group", ""))
    return f"{atoms.symbols}, group {group}" if group else str(atoms.symbols)
