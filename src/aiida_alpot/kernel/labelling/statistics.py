"""Checks of labels against each other."""

from __future__ import annotations

from typing import Final

import numpy as np

from aiida_alpot.kernel.labelling.consistency import check_consistency
from aiida_alpot.kernel.labelling.labels import Labels
from aiida_alpot.kernel.labelling.limits import Finding, net_force
from aiida_alpot.kernel.labelling.magnetism import check_magnetism
from aiida_alpot.kernel.labelling.quality_settings import QualitySettings
from aiida_alpot.kernel.labelling.residuals import Residuals, check_committee, find_foretold
from aiida_alpot.kernel.labelling.robust import robust_fit
from aiida_alpot.kernel.labelling.surrogate import count_species, has_neighbours
from aiida_alpot.kernel.units import FloatArray, IntArray

SURROGATE_CHECKS: Final = ("energy", "force")
"""Checks of energy and forces against the surrogate."""


def check_statistics(
    labels: Labels, n_new: int, settings: QualitySettings, residuals: Residuals | None
) -> list[Finding]:
    """Return objections to the first *n_new* labels from a comparison with all of them.

    Isolated atoms are left out where a structure is judged: they have no bonds and no forces. A label that
    the committee foretold is not set aside because the surrogate did not, and the other way round.

    :param labels: of the same settings and charge, at least ``settings.n_min`` of them not isolated atoms.
    :param residuals: of all labels, NaN for those of which no committee has said anything.
    """
    findings = _check_drift(labels, settings)
    extended = np.flatnonzero([has_neighbours(atoms) for atoms in labels.frames])
    bound = labels.take(extended)
    inconsistent, of_bound = check_consistency(bound, settings)
    found = _check_composition(bound, settings) + inconsistent
    findings += [finding.of(int(extended[finding.frame])) for finding in found]
    resolution = {name: _spread_out(values, extended, len(labels)) for name, values in of_bound.items()}
    findings += check_magnetism(labels, settings)
    if residuals is not None:
        foretold = find_foretold(residuals, settings)
        findings = [f for f in findings if f.check not in SURROGATE_CHECKS or f.frame not in foretold]
        findings += check_committee(residuals, settings, resolution)
    return [finding for finding in findings if finding.frame < n_new]


def _spread_out(values: FloatArray, rows: IntArray, n_frames: int) -> FloatArray:
    """Return values of some frames as those of all, NaN for the others."""
    every = np.full(n_frames, np.nan)
    every[rows] = values
    return every


def _check_drift(labels: Labels, settings: QualitySettings) -> list[Finding]:
    if settings.max_drift is None:
        return []
    drift = net_force(labels)
    usual = float(np.quantile(drift, 0.75))
    limit = max(settings.drift_floor, settings.drift_factor * usual)
    reason = "a net force of {:.3g} eV/Å per root of the number of atoms, {:.1g} in three quarters of the other labels"
    return [
        Finding(int(k), "drift", reason.format(drift[k], usual), float(drift[k]), limit)
        for k in np.flatnonzero(drift > limit)
    ]


def _check_composition(labels: Labels, settings: QualitySettings) -> list[Finding]:
    """Compare the energy per atom with the sum over the atoms that most labels agree on.

    Strain and disorder only raise an energy, by up to the cohesive energy: the limit is wide.
    """
    species = sorted({int(z) for atoms in labels.frames for z in np.unique(atoms.numbers)})
    n_atoms = labels.n_atoms
    share = count_species(labels.frames, species) / n_atoms[:, None]
    energy = labels.energy / n_atoms
    deviation = energy - share @ robust_fit(share, energy)
    usual = float(np.median(np.abs(deviation)))
    limit = max(settings.composition_spread, settings.composition_factor * usual)
    reason = "the energy lies {:+.3g} eV/atom off the sum of its atoms, half of the other labels less than {:.2g}"
    return [
        Finding(int(k), "composition", reason.format(deviation[k], usual), float(abs(deviation[k])), limit)
        for k in np.flatnonzero(np.abs(deviation) > limit)
    ]
