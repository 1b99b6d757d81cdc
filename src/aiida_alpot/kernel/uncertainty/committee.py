"""Disagreement and error of a committee: what the definitions of design.md say, on flat arrays.

Every spread is a population form (ddof = 0) of vectors, never of norms: F and −F differ by 2|F|, not by 0. Energies
are per atom, stresses are compared as full 3×3 tensors, so that every number is invariant to a rotation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from aiida_alpot.kernel.potentials.base import Predictions
from aiida_alpot.kernel.uncertainty._stack import (
    Stack,
    leave_out_lone_stress,
    mean_over_members,
    segment_max,
    segment_sum,
    stack_members,
)
from aiida_alpot.kernel.units import PROPERTIES, VOIGT, VOIGT_WEIGHTS, BoolArray, FloatArray, IntArray

Target = Literal["member_rms", "committee_mean"]


@dataclass(frozen=True)
class Deviations:
    """One number per frame and property, and one per atom; NaN where it is not defined.

    :param energy: shape (n_frames,), eV/atom.
    :param force: rms over the force components of a frame, shape (n_frames,), eV/Å.
    :param force_max: largest value of *force_atom* in a frame, shape (n_frames,), eV/Å.
    :param stress: rms over the components of the tensor, shape (n_frames,), eV/Å³.
    :param force_atom: length of the deviation vector of an atom, shape (n_atoms,), eV/Å.
    :param offsets: atoms of frame ``k`` are ``offsets[k]:offsets[k + 1]``, shape (n_frames + 1,).
    """

    energy: FloatArray
    force: FloatArray
    force_max: FloatArray
    stress: FloatArray
    force_atom: FloatArray
    offsets: IntArray

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return len(self.energy)

    def value(self, name: str) -> FloatArray:
        """Return the per-frame array of a property.

        :param name: one of :data:`PROPERTIES`.
        :raises ValueError: if there is no such property.
        """
        if name not in PROPERTIES:
            raise ValueError(f"unknown property {name!r}; expected one of {', '.join(PROPERTIES)}")
        return np.asarray(getattr(self, name), dtype=np.float64)


@dataclass(frozen=True)
class Disagreement(Deviations):
    """Spread of the members of a committee around their mean, see :func:`disagreement`."""


@dataclass(frozen=True)
class Error(Deviations):
    """Deviation of a committee from the reference, see :func:`error`."""


def disagreement(
    members: Sequence[Predictions],
    pbc: npt.ArrayLike | None = None,
    allow_missing: bool = False,
    core: npt.ArrayLike | None = None,
) -> Disagreement:
    """Return how much the members of a committee disagree.

    With bars for committee means: ``D_E = sqrt(1/M Σ_j (E_j − Ē)²)/N``, ``D_F = sqrt(1/(3NM) Σ_ji |F_ij − F̄_i|²)``,
    ``D_F,atom = sqrt(1/M Σ_j |F_ij − F̄_i|²)``, ``D_σ = sqrt(1/(9M) Σ_j ‖σ_j − σ̄‖²_F)``
    (Bidoggia et al. 2026, Eq. (1), on vectors).

    :param members: predictions of at least two potentials for the same frames. One whose engine knows no stress is
        left out of the stress.
    :param pbc: periodicity per frame, shape (n_frames, 3). Stress components that touch an axis without periodicity
        are left out and the mean is taken over the remaining ones (4 of 9 for a slab, 1 for a wire); the periodic
        cell vectors are taken to span the Cartesian axes with the same numbers.
    :param allow_missing: leave a member out on the frames that it failed to predict: those of which its energy and all
        its forces are NaN. M is then the number of members that are left.
    :return: NaN for the stress of a frame where it is not defined, or by fewer than two members, and for all of a frame
        that fewer than two members predict.
    :raises ValueError: if there are fewer than two members, they are of different frames, a value is not finite (the
        message names member and frame), or no atom of a frame counts.
    """
    if len(members) < 2:
        raise ValueError(f"a disagreement needs at least two members, got {len(members)}")
    stacked = stack_members(members, allow_missing)
    leave_out_lone_stress(stacked)
    return Disagreement(**_rms_deviations(stacked, stacked.mean(), _stress_weights(stacked, pbc), core))


def error(
    members: Sequence[Predictions],
    reference: Predictions,
    target: Target = "member_rms",
    pbc: npt.ArrayLike | None = None,
    core: npt.ArrayLike | None = None,
) -> Error:
    """Return how far a committee is from the reference.

    ``member_rms``: the formulas of :func:`disagreement` with the reference in place of the mean (Bidoggia et al.
    2026, Eq. (2)): the error to expect of one member drawn at random, hence of dynamics driven by one member; for the
    rms quantities ``ε² = D² + (mean − ref)²``. ``committee_mean``: the error of the mean prediction.

    :param members: predictions of at least one potential.
    :param reference: labels of the same frames; NaN where there is none, which gives NaN for that property and frame.
    :param target: what the error is of.
    :param pbc: see :func:`disagreement`.
    :param core: see :func:`disagreement`.
    :raises ValueError: if the frames differ, a prediction is not finite, a label is infinite, or *target* is unknown.
    """
    if target not in ("member_rms", "committee_mean"):
        raise ValueError(f"unknown target {target!r}; expected 'member_rms' or 'committee_mean'")
    stacked = stack_members(members)
    if not np.array_equal(stacked.offsets, reference.offsets):
        raise ValueError("the reference is not of the same frames as the predictions: the offsets differ")
    for name in ("energy", "forces", "stress"):
        if np.any(np.isinf(getattr(reference, name))):
            raise ValueError(f"the reference has an infinite value in {name}; a missing label is NaN")
    if target == "committee_mean":
        stacked = stacked.mean()
    centre = Stack(reference.energy[None], reference.forces[None], reference.stress[None], reference.offsets)
    return Error(**_rms_deviations(stacked, centre, _stress_weights(stacked, pbc), core))


def mean_prediction(members: Sequence[Predictions]) -> Predictions:
    """Return the mean of the members: the committee's best estimate.

    :raises ValueError: if there is no member, the frames differ, or a value is not finite.
    """
    mean = stack_members(members).mean()
    return Predictions(mean.energy[0], mean.forces[0], mean.stress[0], mean.offsets)


def compute_cbe(members: Sequence[Predictions]) -> FloatArray:
    """Return the committee-based energy criterion ``max_j |E_j − Ē|/N`` of UQ-ACE.

    :return: shape (n_frames,), eV/atom. Its error counterpart is ``error(…, "committee_mean").energy``.
    :raises ValueError: as :func:`disagreement`.
    """
    stacked = stack_members(members)
    spread = np.abs(stacked.energy - stacked.mean().energy).max(axis=0)
    return np.asarray(spread / np.diff(stacked.offsets), dtype=np.float64)


def compute_abf(members: Sequence[Predictions]) -> FloatArray:
    """Return the atom-based force criterion ``max_j |F_ij − F̄_i|`` of UQ-ACE.

    :return: shape (n_atoms,), eV/Å. Its error counterpart is ``error(…, "committee_mean").force_atom``.
    :raises ValueError: as :func:`disagreement`.
    """
    stacked = stack_members(members)
    spread = np.linalg.norm(stacked.forces - stacked.mean().forces, axis=2).max(axis=0)
    return np.asarray(spread, dtype=np.float64)


def compute_cbf(members: Sequence[Predictions], core: npt.ArrayLike | None = None) -> FloatArray:
    """Return the configuration-based force criterion ``max_i max_j |F_ij − F̄_i|`` of UQ-ACE.

    :param core: see :func:`disagreement`.
    :return: shape (n_frames,), eV/Å. Its error counterpart is ``error(…, "committee_mean").force_max``.
    :raises ValueError: as :func:`disagreement`.
    """
    offsets = np.asarray(members[0].offsets, dtype=np.int64)
    return segment_max(np.where(_check_core(core, offsets), compute_abf(members), 0.0), offsets)


def compute_adaptive_threshold(errors: npt.ArrayLike) -> float:
    """Return ``Q3 + 1.5·(Q3 − Q1)`` of the training errors of a criterion (UQ-ACE), linear quantiles.

    :param errors: any shape; NaN entries are left out.
    :raises ValueError: if no finite value is left.
    """
    values = np.asarray(errors, dtype=np.float64)
    values = values[np.isfinite(values)]
    if values.size == 0:
        raise ValueError("an adaptive threshold needs at least one finite error, got none")
    low, high = np.quantile(values, [0.25, 0.75])
    return float(high + 1.5 * (high - low))


def _stress_weights(stacked: Stack, pbc: npt.ArrayLike | None) -> FloatArray:
    """Return how often each Voigt component counts, shape (n_frames, 6); 0 for a masked one."""
    n_frames = stacked.energy.shape[1]
    if pbc is None:
        return np.broadcast_to(VOIGT_WEIGHTS, (n_frames, 6))
    periodic = np.asarray(pbc, dtype=bool)
    if periodic.shape != (n_frames, 3):
        raise ValueError(f"pbc: expected the shape ({n_frames}, 3), got {periodic.shape}")
    first, second = np.array(VOIGT).T
    return np.asarray((periodic[:, first] & periodic[:, second]) * VOIGT_WEIGHTS, dtype=np.float64)


def _rms_deviations(stacked: Stack, centre: Stack, weights: FloatArray, core: npt.ArrayLike | None) -> dict[str, Any]:
    """Return the fields of :class:`Deviations` for the rms distance of *stacked* from *centre*."""
    counts = np.diff(stacked.offsets)
    in_core = _check_core(core, stacked.offsets)
    n_core = segment_sum(in_core.astype(np.float64), stacked.offsets)
    whole = n_core == counts
    atom_square = mean_over_members(np.square(stacked.forces - centre.forces).sum(axis=2))
    force_atom = np.sqrt(atom_square)
    energy = np.sqrt(mean_over_members(np.square(stacked.energy - centre.energy))) / counts
    stress = _stress_rms(mean_over_members(np.square(stacked.stress - centre.stress)), weights)
    return {
        "energy": np.where(whole, energy, np.nan),
        "force": np.sqrt(segment_sum(np.where(in_core, atom_square, 0.0), stacked.offsets) / (3.0 * n_core)),
        "force_max": segment_max(np.where(in_core, force_atom, 0.0), stacked.offsets),
        "stress": np.where(whole, stress, np.nan),
        "force_atom": force_atom,
        "offsets": stacked.offsets,
    }


def _check_core(core: npt.ArrayLike | None, offsets: IntArray) -> BoolArray:
    """Return which atoms count, shape (n_atoms,)."""
    n_atoms = int(offsets[-1])
    in_core = np.ones(n_atoms, dtype=bool) if core is None else np.asarray(core, dtype=bool)
    if in_core.shape != (n_atoms,):
        raise ValueError(f"core: expected the shape ({n_atoms},), got {in_core.shape}")
    empty = np.flatnonzero(segment_sum(in_core.astype(np.float64), offsets) == 0.0)
    if empty.size:
        raise ValueError(f"core: no atom of frame {int(empty[0])} counts")
    return in_core


def _stress_rms(square: FloatArray, weights: FloatArray) -> FloatArray:
    total = weights.sum(axis=1)
    # a masked component must not spoil the others, it may be NaN in the labels of a slab
    summed = np.where(weights > 0.0, weights * square, 0.0).sum(axis=1)
    mean = np.divide(summed, total, out=np.full(len(total), np.nan), where=total > 0.0)
    return np.asarray(np.sqrt(mean), dtype=np.float64)
