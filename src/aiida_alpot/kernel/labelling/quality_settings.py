"""Settings of the review of labels."""

from __future__ import annotations

from dataclasses import dataclass

from aiida_alpot.kernel.labelling.gate import OVERLAP_RATIO


@dataclass(frozen=True)
class QualitySettings:
    """When a label is put into quarantine.

    Limits hold for every frame. Factors are multiples of the median over comparable labels (same fingerprint and
    charge), taken only if there are at least *n_min* of them, and raised where the distribution has a heavy tail.

    :param fingerprint: settings that were asked for: labels of others are quarantined. None is that of the engine in a
        labelling, and elsewhere accepts any; labels are compared with those of the same settings only.
    :param n_min: labels below which nothing is concluded from statistics.
    :param min_ratio: smallest distance over the sum of covalent radii.
    :param max_drift: eV/Å, largest ``|Σ F|/√N``, the noise per atom that a net force stands for. None where a net
        force is expected (constraints, external fields).
    :param max_force: eV/Å on one atom.
    :param max_energy: eV/atom above zero: in no convention bound matter has so much.
    :param composition_spread: eV/atom off the robust regression on composition that is accepted at least.
    :param composition_factor: the same as a multiple of the median deviation.
    :param drift_factor: net force against those of the other labels; *drift_floor* (eV/Å) is accepted at least.
    :param drift_floor: see *drift_factor*.
    :param energy_factor: residual of the energy in the surrogate; *energy_floor* (eV/atom) is accepted at least.
    :param energy_floor: see *energy_factor*.
    :param force_factor: residual of the forces (rms) in the surrogate; *force_floor* (eV/Å) is accepted at least.
    :param force_floor: see *force_factor*.
    :param stress_factor: residual of volume times stress in the surrogate; *energy_floor* is accepted at least.
    :param unit_factor: a lower factor for labels that fit as well as any in another unit or with the opposite sign.
    :param committee_factor: residual of the committee mean against the error to expect.
    :param foretold_factor: error of the committee as a multiple of the usual one up to which it foretold a label,
        which is then not set aside for energy or forces that do not fit the surrogate.
    :param committee_energy_floor: eV/atom, residual that is accepted at least.
    :param committee_force_floor: eV/Å, the same for the rms over the forces of a frame.
    :param moment_jump: μ_B/atom between a frame and its neighbours that counts as another magnetic branch.
    :param use_surrogate: fit the surrogate; the checks that need it are left out otherwise.
    """

    fingerprint: str | None = None
    n_min: int = 30
    min_ratio: float = OVERLAP_RATIO
    max_drift: float | None = 0.1
    max_force: float = 1000.0
    max_energy: float = 100.0
    composition_spread: float = 3.0
    composition_factor: float = 30.0
    drift_factor: float = 20.0
    drift_floor: float = 0.002
    energy_factor: float = 6.0
    energy_floor: float = 0.005
    force_factor: float = 5.0
    force_floor: float = 0.05
    stress_factor: float = 6.0
    unit_factor: float = 3.0
    committee_factor: float = 5.0
    foretold_factor: float = 3.0
    committee_energy_floor: float = 0.002
    committee_force_floor: float = 0.03
    moment_jump: float = 0.3
    use_surrogate: bool = True

    def __post_init__(self) -> None:
        if self.n_min < 10:
            raise ValueError(f"n_min must be at least 10: fewer labels say nothing about each other, got {self.n_min}")
        if not 0 <= self.min_ratio < 1:
            raise ValueError(f"min_ratio must be in [0, 1), got {self.min_ratio}")
        if self.max_drift is not None and self.max_drift <= 0:
            raise ValueError(f"max_drift must be positive or null, got {self.max_drift}")
        for name in ("max_force", "max_energy", "moment_jump"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in _FLOORS:
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in _FACTORS:
            if getattr(self, name) <= 1:
                raise ValueError(f"{name} must be above 1, as half of the labels are, got {getattr(self, name)}")


_FLOORS = (
    "composition_spread",
    "drift_floor",
    "energy_floor",
    "force_floor",
    "committee_energy_floor",
    "committee_force_floor",
)
_FACTORS = (
    "composition_factor",
    "drift_factor",
    "energy_factor",
    "force_factor",
    "stress_factor",
    "unit_factor",
    "committee_factor",
    "foretold_factor",
)
