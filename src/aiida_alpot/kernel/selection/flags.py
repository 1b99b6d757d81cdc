"""Which candidates are uncertain, and in which property."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from aiida_alpot.kernel.selection.table import UNITS, CandidateTable
from aiida_alpot.kernel.settings import unknown_key_message
from aiida_alpot.kernel.units import PROPERTIES, BoolArray, FloatArray

Limit = float | FloatArray
"""One limit for all candidates, or one for each, shape (n_frames,)."""


@dataclass(frozen=True, eq=False)
class Flags:
    """The candidates above a limit, per criterion (a property or ``grade``) that has one.

    :ivar masks: shape (n_frames,) each.
    :ivar limits: the limit of each criterion, a single number or of shape (n_frames,).
    """

    masks: dict[str, BoolArray]
    limits: dict[str, FloatArray]
    n_candidates: int

    @property
    def any(self) -> BoolArray:
        """Return which candidates are above at least one limit, shape (n_frames,)."""
        flagged = np.zeros(self.n_candidates, dtype=bool)
        for mask in self.masks.values():
            flagged |= mask
        return flagged

    def reason(self, candidates: CandidateTable, index: int) -> str:
        """Return in words why a candidate is flagged, empty if it is not."""
        parts = []
        for name, mask in self.masks.items():
            if mask[index]:
                unit = f" {UNITS[name]}" if name in UNITS else ""
                limit = np.broadcast_to(self.limits[name], mask.shape)[index]
                parts.append(f"{name} {getattr(candidates, name)[index]:.4g} > {limit:.4g}{unit}")
        return "; ".join(parts)


def flag(candidates: CandidateTable, thresholds: Mapping[str, Limit], gamma_select: float | None) -> Flags:
    """Return the candidates with a disagreement above its threshold or a grade above *gamma_select*.

    The comparison is strict. A NaN (stress of a molecule, no active set) flags nothing, an infinite grade always flags.

    :param thresholds: limit of the disagreement per property, in the unit of its column.
    :raises ValueError: if a property does not exist or a limit is not a positive finite number.
    """
    check_limits(thresholds, "thresholds")
    limits = {name: np.asarray(thresholds[name], dtype=np.float64) for name in PROPERTIES if name in thresholds}
    if gamma_select is not None:
        check_limits({"grade": gamma_select}, "gamma_select", allowed=("grade",))
        limits["grade"] = np.asarray(gamma_select, dtype=np.float64)
    masks = {name: np.asarray(getattr(candidates, name) > limit) for name, limit in limits.items()}
    return Flags(masks, limits, len(candidates))


def above_upper(candidates: CandidateTable, thresholds: Mapping[str, Limit], upper: Mapping[str, float]) -> BoolArray:
    """Return the candidates whose disagreement is so large that the frame is taken for unphysical.

    :param upper: limit per property as a multiple of its threshold, larger than 1.
    :return: shape (n_frames,).
    :raises ValueError: if a property has no threshold, or a multiple is not larger than 1.
    """
    check_limits(upper, "upper")
    beyond = np.zeros(len(candidates), dtype=bool)
    for name, multiple in upper.items():
        if name not in thresholds:
            raise ValueError(f"'upper' bounds {name!r}, which has no threshold")
        if multiple <= 1.0:
            raise ValueError(f"'upper' for {name!r} is a multiple of the threshold and larger than 1, got {multiple}")
        beyond |= getattr(candidates, name) > multiple * thresholds[name]
    return beyond


def check_limits(limits: Mapping[str, Limit], where: str, allowed: tuple[str, ...] = PROPERTIES) -> None:
    """Raise if a name is not a property or a limit is not a positive finite number."""
    for name, limit in limits.items():
        if name not in allowed:
            raise ValueError(unknown_key_message(name, allowed, where))
        if not np.all(np.isfinite(limit) & (np.asarray(limit) > 0.0)):
            raise ValueError(f"{where}: the limit of {name!r} must be positive and finite, got {limit}")
