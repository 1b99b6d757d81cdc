"""Labels against a surrogate that is fitted to them: energy, forces and stress must derive from one energy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final, NamedTuple

import numpy as np
from ase import Atoms, units
from ase.data import chemical_symbols

from aiida_alpot.kernel.cutouts import core_of, whole_frames
from aiida_alpot.kernel.labelling.labels import Labels
from aiida_alpot.kernel.labelling.limits import Finding
from aiida_alpot.kernel.labelling.quality_settings import QualitySettings
from aiida_alpot.kernel.labelling.robust import excess, tail_limit
from aiida_alpot.kernel.labelling.surrogate import Prediction, Surrogate, fit_surrogate, virial_volume
from aiida_alpot.kernel.units import VOIGT_WEIGHTS, FloatArray, IntArray

_KCAL, _KJ, _KBAR = units.kcal / units.mol, units.kJ / units.mol, 0.1 * units.GPa
ENERGY_UNITS: Final = {"in Ry": units.Ry, "in Ha": units.Hartree, "in kcal/mol": _KCAL, "in kJ/mol": _KJ}
FORCE_UNITS: Final = {
    "in Ry/bohr": units.Ry / units.Bohr,
    "in Ha/bohr": units.Hartree / units.Bohr,
    "in kcal/mol/Å": _KCAL,
    "in kJ/mol/Å": _KJ,
    "with the opposite sign": -1.0,
}
STRESS_UNITS: Final = {
    "with the opposite sign": -1.0,
    "in GPa": units.GPa,
    "in GPa with the opposite sign": -units.GPa,
    "in kB": _KBAR,
    "in kB with the opposite sign": -_KBAR,
}
_USUAL: Final = 3.0
"""A label fits in another unit if its residual is then below this multiple of the usual one …"""
_SMALLER: Final = 1.0 / 3.0
"""… below this share of what it was, and below half of what is predicted."""
_FAR: Final = 5.0
"""Leverage over its median from which a frame lies outside what the surrogate was fitted to."""
_TINY: Final = 1e-12
_SYMMETRIC: Final = 1e-3
"""eV/Å, forces that are predicted where symmetry makes them zero, for positions with six digits."""
_NEAR: Final = 0.1
"""eV/atom, misfit of the energy at which an exchange of species is named if it explains the forces."""


@dataclass(frozen=True)
class _Quantity:
    """One quantity of all frames beside its prediction.

    :param labels: by frame, each (n_values,).
    :param predicted: by frame, each (n_values,).
    :param hardness: by frame, each (n_frames,): what a residual grows with.
    :param stretch: by frame, (n_frames,): how much more is allowed because little is known about frames like it.
    :param weights: of the values of a frame, (n_values,) or one number.
    :param factor: smallest limit of the ratio of a residual to the usual one.
    :param floor: residual that is accepted.
    """

    check: str
    unit: str
    labels: Sequence[FloatArray]
    predicted: Sequence[FloatArray]
    hardness: tuple[FloatArray, ...]
    stretch: FloatArray
    weights: FloatArray
    alternatives: Mapping[str, float]
    factor: float
    floor: float

    def misfit(self, k: int, scale: float = 1.0) -> float:
        """Return the rms residual of frame *k* with its label multiplied by *scale*."""
        return _rms(scale * self.labels[k] - self.predicted[k], self.weights)


def check_consistency(labels: Labels, settings: QualitySettings) -> tuple[list[Finding], dict[str, FloatArray]]:
    """Object to labels that are off by more than the surrogate is for frames as hard to predict.

    :return: the objections; and for ``"energy"`` (eV/atom) and ``"force"`` (eV/Å, rms) the size of error that would
        have shown in each label, (n_frames,): NaN where a label does not fit, or nothing can be said.
    """
    surrogate = fit_surrogate(labels) if settings.use_surrogate else None
    if surrogate is None:
        return [], {}
    predictions = [surrogate.predict(k, atoms) for k, atoms in enumerate(labels.frames)]
    findings = _check_missing_forces(labels, predictions)
    resolution = {}
    for quantity in _quantities(labels, predictions, settings):
        compared = _compare(quantity, settings)
        if compared is not None:
            findings += _check_quantity(quantity, compared, settings)
            resolution[quantity.check] = _resolve(quantity, compared, settings)
    return _name_exchanges(findings, labels, surrogate), resolution


def _quantities(
    labels: Labels, predictions: Sequence[Prediction], settings: QualitySettings
) -> tuple[_Quantity, _Quantity, _Quantity]:
    """Return energy, forces and stress; of pieces of larger frames, the forces on the core alone."""
    n_atoms = labels.n_atoms
    size = np.array([_rms(p.forces, np.ones(1)) for p in predictions])
    leverage = np.array([p.leverage for p in predictions])
    stretch = np.maximum((leverage / np.median(leverage, axis=0)).max(axis=1) / _FAR, 1.0)
    volumes = np.array([virial_volume(atoms) for atoms in labels.frames])
    whole = np.where(whole_frames(labels.frames), 1.0, np.nan)[:, None]
    cores = [core_of([atoms]) for atoms in labels.frames]
    energy = _Quantity(
        check="energy",
        unit="eV/atom",
        labels=list((labels.energy / n_atoms)[:, None] * whole),
        predicted=[np.array([p.energy]) for p in predictions],
        hardness=(size, leverage[:, 0]),
        stretch=stretch,
        weights=np.ones(1),
        alternatives=ENERGY_UNITS,
        factor=settings.energy_factor,
        floor=settings.energy_floor,
    )
    force = _Quantity(
        check="force",
        unit="eV/Å",
        labels=[forces[core].ravel() for forces, core in zip(labels.forces, cores, strict=True)],
        predicted=[p.forces[core].ravel() for p, core in zip(predictions, cores, strict=True)],
        hardness=(size, leverage[:, 1]),
        stretch=stretch,
        weights=np.ones(1),
        alternatives=FORCE_UNITS,
        factor=settings.force_factor,
        floor=settings.force_floor,
    )
    stress = _Quantity(
        check="stress",
        unit="eV/atom as virial",
        labels=list(labels.stress * (volumes / n_atoms)[:, None] * whole),
        predicted=[p.virial for p in predictions],
        hardness=(size, leverage[:, 2]),
        stretch=stretch,
        weights=VOIGT_WEIGHTS,
        alternatives=STRESS_UNITS,
        factor=settings.stress_factor,
        floor=settings.energy_floor,
    )
    return energy, force, stress


class _Compared(NamedTuple):
    """Residuals of the frames whose label is known, beside what is usual for them."""

    known: IntArray  # the frames, (n_known,)
    residual: FloatArray  # (n_known,)
    ratio: FloatArray  # of the residual to the usual one, (n_known,)
    limit: FloatArray  # of the ratio, (n_known,)


def _compare(quantity: _Quantity, settings: QualitySettings) -> _Compared | None:
    """Compare the residuals of a quantity with each other; None if there are too few."""
    every = np.array([quantity.misfit(k) for k in range(len(quantity.labels))])
    known = np.flatnonzero(np.isfinite(every))
    if len(known) < settings.n_min:
        return None
    ratio = excess(every[known], [values[known] for values in quantity.hardness])
    return _Compared(known, every[known], ratio, quantity.stretch[known] * tail_limit(ratio, quantity.factor))


def _check_quantity(quantity: _Quantity, compared: _Compared, settings: QualitySettings) -> list[Finding]:
    findings = []
    for k, off, times, limit in zip(*(values.tolist() for values in compared), strict=True):
        unit_limit = float(quantity.stretch[k]) * settings.unit_factor
        if off <= quantity.floor or times <= min(limit, unit_limit):
            continue
        unit = _fitting_unit(quantity, k, off / times) if times > unit_limit else None
        if unit is not None:
            reason = f"{quantity.check}: fits the other labels if taken as given {unit}"
            findings.append(Finding(k, "unit", reason, times, unit_limit))
        elif times > limit:
            reason = f"{quantity.check}: {off:.3g} {quantity.unit} off the other labels, {times:.2g} times the usual"
            findings.append(Finding(k, quantity.check, reason, times, limit))
    return findings


def _resolve(quantity: _Quantity, compared: _Compared, settings: QualitySettings) -> FloatArray:
    """Return the size of error in a label that fits which would have been objected to, (n_frames,)."""
    fits = compared.ratio <= settings.foretold_factor
    usual = compared.residual[fits] / np.maximum(compared.ratio[fits], _TINY)
    resolution = np.full(len(quantity.labels), np.nan)
    resolution[compared.known[fits]] = np.maximum(compared.limit[fits] * usual, quantity.floor)
    return resolution


def _fitting_unit(quantity: _Quantity, k: int, usual: float) -> str | None:
    """Return the unit or sign in which a label fits as well as any other, None if there is none."""
    limit = min(_USUAL * usual, _SMALLER * quantity.misfit(k), 0.5 * _rms(quantity.predicted[k], quantity.weights))
    for name, factor in quantity.alternatives.items():
        if quantity.misfit(k, factor) < limit:
            return name
    return None


def _check_missing_forces(labels: Labels, predictions: Sequence[Prediction]) -> list[Finding]:
    """Object to forces that are all exactly zero where symmetry does not ask for it.

    The surrogate has the symmetry of the frame: what symmetry makes zero is zero there too.
    """
    findings = []
    for k, (forces, prediction) in enumerate(zip(labels.forces, predictions, strict=True)):
        expected = _rms(prediction.forces, np.ones(1))
        if not forces.any() and expected > _SYMMETRIC:
            reason = f"all forces are exactly zero where the other labels give {expected:.2g} eV/Å"
            findings.append(Finding(k, "missing", reason, expected, _SYMMETRIC))
    return findings


def _name_exchanges(findings: Sequence[Finding], labels: Labels, surrogate: Surrogate) -> list[Finding]:
    """Add to the reason of a finding the two species whose exchange explains the label."""
    notes = {
        k: _explaining_exchange(k, labels, surrogate)
        for k in sorted({finding.frame for finding in findings if finding.check in ("energy", "force")})
    }
    return [finding.with_note(notes[finding.frame]) if notes.get(finding.frame) else finding for finding in findings]


def _explaining_exchange(k: int, labels: Labels, surrogate: Surrogate) -> str:
    atoms = labels.frames[k]

    def misfits(frame: Atoms) -> FloatArray:
        prediction = surrogate.predict(k, frame)
        energy = abs(prediction.energy - labels.energy[k] / len(atoms))
        return np.array([energy, _rms(prediction.forces - labels.forces[k], np.ones(1))])

    as_it_is = misfits(atoms)
    for first, second in combinations(sorted({int(z) for z in atoms.numbers}), 2):
        exchanged = atoms.copy()
        exchanged.numbers[atoms.numbers == first] = second
        exchanged.numbers[atoms.numbers == second] = first
        energy, force = misfits(exchanged)
        if force < as_it_is[1] / 2.0 and energy < max(as_it_is[0], _NEAR):
            return f"it fits with {chemical_symbols[first]} and {chemical_symbols[second]} exchanged"
    return ""


def _rms(values: FloatArray, weights: FloatArray) -> float:
    broadcast = np.broadcast_to(weights, values.shape)
    return float(np.sqrt(np.sum(broadcast * values**2) / broadcast.sum()))
