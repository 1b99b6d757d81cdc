"""What an exploration runs: conditions, length, stop rules and the limits of a healthy frame."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np

from aiida_alpot.kernel import defaults
from aiida_alpot.kernel.settings import check_device
from aiida_alpot.kernel.units import PROPERTIES

_COUNTS: Final = (
    "n_starting_frames",
    "walkers",
    "n_steps",
    "sample_every",
    "check_every",
    "barostat_every",
    "max_saved",
)

MAX_TIMESTEP: Final = 20.0
"""fs, longest time step: a tenth of the slowest period of a bond of heavy atoms."""

N_TEMPERATURES: Final = 5
"""Temperatures that the default schedule spreads evenly over the range of the paper."""


@dataclass(frozen=True)
class HealthSettings:
    """Limits beyond which a frame is no longer matter that a reference method should see.

    :param min_pair_ratio: smallest distance of a pair over the sum of its covalent radii.
    :param max_isolation: an atom that had a neighbour within this many sums of covalent radii at the start and has none
        now has escaped; None switches the test off.
    :param min_volume_ratio: smallest volume, and smallest length of a cell vector, over that at the start.
    :param max_volume_ratio: largest volume, and largest length of a cell vector, over that at the start.
    :param max_force: largest force on an atom, eV/Å.
    :param max_temperature_ratio: largest kinetic temperature over the target.
    :param temperature_floor: K, a kinetic temperature below it is never too high: strained starting frames release
        heat, few atoms fluctuate, and a target of 0 K has no ratio.
    """

    min_pair_ratio: float = 0.6
    max_isolation: float | None = 3.0
    min_volume_ratio: float = 0.2
    max_volume_ratio: float = 3.0
    max_force: float = 50.0
    max_temperature_ratio: float = 5.0
    temperature_floor: float = 5000.0

    def __post_init__(self) -> None:
        for name in ("min_pair_ratio", "min_volume_ratio"):
            _check_range(self, name, 0.0, 1.0)
        for name in ("max_volume_ratio", "max_temperature_ratio"):
            _check_range(self, name, 1.0)
        _check_range(self, "max_force", 0.0, exclusive=True)
        _check_range(self, "temperature_floor", 0.0)
        if self.max_isolation is not None:
            _check_range(self, "max_isolation", 1.0)


@dataclass(frozen=True)
class ExploreSettings:
    """Settings of an exploration by molecular dynamics. The defaults are those of Bidoggia et al. 2026, Sec. II A 5.

    :param ensemble: ``"auto"`` runs NPT on frames with a periodic axis and NVT on the others; ``"npt"`` for a frame
        whose cell cannot change becomes NVT and the report says so.
    :param temperatures: K; 0 starts at rest and only cools, without chance and so with one walker.
    :param pressures: GPa, positive in compression; NVT ignores them.
    :param n_starting_frames: frames drawn at random, without replacement, when more are given.
    :param walkers: trajectories with their own seed per frame, temperature and pressure.
    :param timestep: fs, at most :data:`MAX_TIMESTEP`.
    :param n_steps: MD steps of a trajectory.
    :param sample_every: steps between frames that are kept whatever the committee says.
    :param check_every: steps between looks at health, disagreement and grade.
    :param friction: of the Langevin thermostat, 1/fs; 0 runs without thermostat.
    :param barostat_time: fs, relaxation time of a cell of stiffness *bulk_modulus*.
    :param barostat_every: steps between moves of the cell.
    :param barostat: ``"anisotropic"`` moves the length of each periodic cell vector on its own, ``"isotropic"`` all of
        them together (liquids, whose cell would lose its shape); angles and non-periodic vectors stay.
    :param bulk_modulus: GPa, sets how fast the cell moves, not where it goes.
    :param driver: member of the committee that makes the forces: ``"first"``, ``"random"`` or its index.
    :param error_break: property to calibrated error (eV/atom, eV/Å, eV/Å, eV/Å³) at which a frame is kept and its
        trajectory stops.
    :param max_saved: most frames kept of a trajectory, which stops there.
    :param device: where the potentials are evaluated.
    :param health: limits of a healthy frame.
    """

    ensemble: Literal["auto", "nvt", "npt"] = "auto"
    temperatures: tuple[float, ...] = tuple(np.linspace(*defaults.TEMPERATURES, N_TEMPERATURES).tolist())
    pressures: tuple[float, ...] = (defaults.PRESSURES[0], 0.0, defaults.PRESSURES[1])
    n_starting_frames: int = defaults.STARTING_FRAMES
    walkers: int = 1
    timestep: float = defaults.MD_TIMESTEP
    n_steps: int = round(defaults.MD_TIME / defaults.MD_TIMESTEP)
    sample_every: int = round(defaults.MD_SAMPLE_TIME / defaults.MD_TIMESTEP)
    check_every: int = 100
    friction: float = 0.01
    barostat_time: float = 1000.0
    barostat_every: int = 10
    barostat: Literal["anisotropic", "isotropic"] = "anisotropic"
    bulk_modulus: float = 100.0
    driver: Literal["first", "random"] | int = "random"
    error_break: Mapping[str, float] | None = None
    max_saved: int = 100
    device: str = "cpu"
    health: HealthSettings = field(default_factory=HealthSettings)

    def __post_init__(self) -> None:
        for name in _COUNTS:
            _check_range(self, name, 1)
        for name in ("barostat_time", "bulk_modulus"):
            _check_range(self, name, 0.0, exclusive=True)
        _check_range(self, "timestep", 0.0, MAX_TIMESTEP, exclusive=True)
        _check_range(self, "friction", 0.0)
        check_device(self.device)
        self._check_choices()
        self._check_conditions()
        self._check_error_break()

    def _check_choices(self) -> None:
        if self.ensemble not in ("auto", "nvt", "npt"):
            raise ValueError(f"ensemble must be 'auto', 'nvt' or 'npt', got {self.ensemble!r}")
        if self.barostat not in ("anisotropic", "isotropic"):
            raise ValueError(f"barostat must be 'anisotropic' or 'isotropic', got {self.barostat!r}")
        if isinstance(self.driver, str):
            if self.driver not in ("first", "random"):
                raise ValueError(f"driver must be 'first', 'random' or an index, got {self.driver!r}")
        elif self.driver < 0:
            raise ValueError(f"driver must be 'first', 'random' or an index of at least 0, got {self.driver}")

    def _check_conditions(self) -> None:
        for name, lowest in (("temperatures", 0.0), ("pressures", -math.inf)):
            values: tuple[float, ...] = getattr(self, name)
            if not values:
                raise ValueError(f"{name} must not be empty")
            if not all(math.isfinite(value) and value >= lowest for value in values):
                raise ValueError(f"{name} must be finite and at least {lowest}, got {values}")
            if len(set(values)) != len(values):
                raise ValueError(f"{name} must not repeat a value (walkers repeats a trajectory), got {values}")

    def _check_error_break(self) -> None:
        for name, value in (self.error_break or {}).items():
            if name not in PROPERTIES:
                raise ValueError(f"error_break: unknown property {name!r}, expected one of {list(PROPERTIES)}")
            if not value > 0.0:
                raise ValueError(f"error_break: {name!r} must be positive, got {value}")


def _check_range(
    settings: Any, name: str, lowest: float, highest: float = math.inf, *, exclusive: bool = False
) -> None:
    value = getattr(settings, name)
    if not (lowest < value if exclusive else lowest <= value) or not value <= highest or not math.isfinite(value):
        bound = f"{'above' if exclusive else 'at least'} {lowest:g}"
        bound += f" and at most {highest:g}" if math.isfinite(highest) else ""
        raise ValueError(f"{name} must be {bound}, got {value}")
