"""Checks of a label that need no other label."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from aiida_alpot.kernel.geometry import atoms_in_contact, closest_pair_ratio
from aiida_alpot.kernel.labelling.labels import Labels
from aiida_alpot.kernel.labelling.quality_settings import QualitySettings
from aiida_alpot.kernel.units import FloatArray


@dataclass(frozen=True)
class Finding:
    """An objection to a label.

    :param frame: position in the labels that were checked.
    :param check: name of the check.
    :param value: what was found.
    :param limit: above which it is an objection, in the unit of *value*.
    """

    frame: int
    check: str
    reason: str
    value: float
    limit: float

    def of(self, frame: int) -> Finding:
        """Return the same objection to the frame at another position."""
        return replace(self, frame=frame)

    def with_note(self, note: str) -> Finding:
        """Return the same objection with more to its reason."""
        return replace(self, reason=f"{self.reason}; {note}")


def check_limits(labels: Labels, settings: QualitySettings) -> list[Finding]:
    """Return objections that hold whatever the other labels are."""
    drift = net_force(labels)
    energy = labels.energy / labels.n_atoms
    findings = _check_fingerprints(labels, settings)
    for k in range(len(labels)):
        findings += _check_overlap(k, labels, settings)
        force = float(np.linalg.norm(labels.forces[k], axis=1).max())
        if force > settings.max_force:
            reason = f"a force of {force:.3g} eV/Å is above {settings.max_force:g} eV/Å"
            findings.append(Finding(k, "limit", reason, force, settings.max_force))
        if energy[k] > settings.max_energy:
            reason = f"an energy of {energy[k]:.4g} eV/atom is above {settings.max_energy:g} eV/atom"
            findings.append(Finding(k, "limit", reason, float(energy[k]), settings.max_energy))
        if settings.max_drift is not None and drift[k] > settings.max_drift:
            reason = f"the forces add up to {drift[k] * np.sqrt(len(labels.frames[k])):.3g} eV/Å instead of zero"
            findings.append(Finding(k, "drift", reason, float(drift[k]), settings.max_drift))
    return findings


def net_force(labels: Labels) -> FloatArray:
    """Return ``|Σ F|/√N``, shape (n_frames,), eV/Å.

    Independent errors of σ per atom and component give a net force of about ``σ √(3N)``.
    """
    total = np.array([np.linalg.norm(forces.sum(axis=0)) for forces in labels.forces])
    return np.asarray(total / np.sqrt(labels.n_atoms))


def _check_overlap(k: int, labels: Labels, settings: QualitySettings) -> list[Finding]:
    atoms = labels.frames[k]
    ratio = closest_pair_ratio(atoms)
    if ratio >= settings.min_ratio:
        return []
    where = ", ".join(f"{i} ({atoms[i].symbol})" for i in atoms_in_contact(atoms, settings.min_ratio)[:4])
    return [Finding(k, "overlap", f"atoms overlap: {where}", settings.min_ratio - ratio, 0.0)]


def _check_fingerprints(labels: Labels, settings: QualitySettings) -> list[Finding]:
    wanted = settings.fingerprint
    if wanted is None:
        return []
    counts = Counter(str(name) or "unknown" for name in labels.fingerprint)
    names = ", ".join(f"{n} of {name}" for name, n in sorted(counts.items()))
    return [
        Finding(k, "fingerprint", f"labelled with settings {name or 'unknown'} instead of {wanted} ({names})", 1.0, 0.0)
        for k, name in enumerate(labels.fingerprint)
        if name != wanted
    ]
