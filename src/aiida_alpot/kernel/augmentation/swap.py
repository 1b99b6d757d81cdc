"""Let unlike atoms change places by Monte Carlo with a potential: short-range order as at a temperature."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from ase import Atoms

from aiida_alpot.kernel.augmentation.base import (
    DroppedFrameError,
    Energy,
    NotApplicableError,
    Step,
    energy_function,
)
from aiida_alpot.kernel.augmentation.species import (
    UnlikePairs,
    check_symbols,
    exchange_places,
    has_species,
    site_labels,
)
from aiida_alpot.kernel.units import KB


@dataclass(frozen=True)
class SwapSettings:
    """A Metropolis walk through the arrangements of the atoms on fixed sites.

    :param temperature: K.
    :param attempts: exchanges that are tried, each of which costs one energy; some ten for each atom that takes part
        make the frame forget where it started.
    :param species: elements that take part, all if omitted; the cations of an oxide.
    :param column: a per-atom column, of integers or text; atoms change places within one value of it.
    :param molecules: change frames without a periodic axis too.
    """

    temperature: float = 1000.0
    attempts: int = 500
    species: tuple[str, ...] | None = None
    column: str | None = None
    molecules: bool = False

    needs_energy: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.temperature > 0.0:
            raise ValueError(f"'temperature' must be positive, got {self.temperature}")
        if self.attempts < 1:
            raise ValueError(f"'attempts' must be at least 1, got {self.attempts}")
        if self.species is not None:
            check_symbols("species", self.species)
            if len(self.species) < 2:
                raise ValueError(f"'species' must name two elements or more, got {list(self.species)}")


def swap(atoms: Atoms, settings: SwapSettings, rng: np.random.Generator, energy: Energy) -> Step:
    """Return the frame at the end of a Metropolis walk.

    Every pair of unlike atoms is proposed as often as every other, and their number never changes: with the acceptance
    min(1, exp(−ΔE/k_B T)) the walk obeys detailed balance, and its frames have the Boltzmann weights. A frame whose
    energy is not finite is never accepted.

    :param energy: a function, or an ASE calculator; what it raises is not caught.
    :raises NotApplicableError: if no two unlike atoms may change places, or the frame is a molecule.
    :raises DroppedFrameError: if the energy of the frame itself is not finite.
    """
    if not settings.molecules and not atoms.pbc.any():
        raise NotApplicableError("no_periodic_axis")
    mobile = np.flatnonzero(has_species(atoms, settings.species))
    groups = None if settings.column is None else site_labels(atoms, settings.column)[mobile]
    pairs = UnlikePairs(atoms.numbers[mobile], groups)
    if pairs.n_pairs == 0:
        raise NotApplicableError("single_species")
    compute = energy_function(energy)
    current, start = atoms, compute(atoms)
    if not math.isfinite(start):
        raise DroppedFrameError("energy_not_finite")
    value, n_accepted = start, 0
    for _ in range(settings.attempts):
        trial = exchange_places(current, *mobile[list(pairs.draw(rng))])
        proposed = compute(trial)
        allowed = value - KB * settings.temperature * np.log(1.0 - rng.random())
        if math.isfinite(proposed) and proposed < allowed:
            current, value, n_accepted = trial, proposed, n_accepted + 1
    energies = {"energy_start": start, "energy_end": value}
    parameters = {"temperature": settings.temperature, "attempts": settings.attempts, "accepted": n_accepted}
    return Step(current.copy(), f"swap {n_accepted}", parameters | energies)
