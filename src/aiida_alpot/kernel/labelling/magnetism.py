"""Labels on another magnetic branch than their neighbours: another state, not another structure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from ase import Atoms

from aiida_alpot.kernel.labelling.labels import Labels
from aiida_alpot.kernel.labelling.limits import Finding
from aiida_alpot.kernel.labelling.quality_settings import QualitySettings
from aiida_alpot.kernel.units import FloatArray, IntArray

N_NEIGHBOURS: Final = 8
"""Frames of the same composition with the nearest volume per atom that a frame is compared with."""
_SPREADS: Final = 4.0
"""Standard deviations among the neighbours that a moment, or an energy, may lie off."""


def check_magnetism(labels: Labels, settings: QualitySettings) -> list[Finding]:
    """Return objections to frames whose moments jump and whose energy lies above that of their neighbours.

    Moments that change with the volume are physics: a frame is compared with those of the same composition and nearly
    the same volume per atom. ``|Σ m|/N`` tells the order (ferro- or antiferromagnetic, flipped sites), ``Σ |m|/N``
    the size of the moments; both are blind to a flip of all of them. The branch that is lower in energy is never the
    wrong one.
    """
    rows = np.array([k for k, moments in enumerate(labels.magmoms) if moments is not None], dtype=np.int64)
    findings = []
    for group in _compositions(labels, rows):
        if len(group) > N_NEIGHBOURS:
            findings += _check_group(labels, group, settings)
    return findings


def _compositions(labels: Labels, rows: IntArray) -> list[IntArray]:
    formulas: dict[str, list[int]] = {}
    for k in rows:
        atoms = labels.frames[k]
        formulas.setdefault(atoms.symbols.formula.reduce()[0].format("hill"), []).append(int(k))
    return [np.array(group) for _, group in sorted(formulas.items())]


def _check_group(labels: Labels, group: IntArray, settings: QualitySettings) -> list[Finding]:
    n_atoms = labels.n_atoms[group]
    moments = [np.asarray(labels.magmoms[k]) for k in group]
    kinds = (
        ("net moment", np.array([abs(m.sum()) for m in moments]) / n_atoms),
        ("mean size of the moments", np.array([np.abs(m).sum() for m in moments]) / n_atoms),
    )
    energy = labels.energy[group] / n_atoms
    nearest = _neighbours([_volume(labels.frames[k]) for k in group])
    findings = []
    for name, values in kinds:
        for k, others in enumerate(nearest):
            jump = abs(values[k] - np.median(values[others]))
            limit = max(settings.moment_jump, _SPREADS * _spread(values[others]))
            above = energy[k] - np.median(energy[others])
            if jump > limit and above > 2.0 * _spread(energy[others]):
                reason = (
                    f"another magnetic branch: {name} of {values[k]:.3g} μ_B/atom, its neighbours have "
                    f"{np.median(values[others]):.3g} and lie {above:.3g} eV/atom lower"
                )
                findings.append(Finding(int(group[k]), "magnetism", reason, float(jump), limit))
    return findings


def _volume(atoms: Atoms) -> float:
    """Return the volume per atom, 0 without a cell."""
    return float(atoms.get_volume()) / len(atoms) if atoms.cell.rank == 3 else 0.0


def _neighbours(volumes: Sequence[float]) -> list[IntArray]:
    """Return the frames with the nearest volumes, not counting the frame itself."""
    distance = np.abs(np.subtract.outer(volumes, volumes))
    np.fill_diagonal(distance, np.inf)
    return [np.argsort(row, kind="stable")[:N_NEIGHBOURS] for row in distance]


def _spread(values: FloatArray) -> float:
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))
