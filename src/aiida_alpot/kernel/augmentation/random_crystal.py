"""Random crystals by space group, made by PyXtal (Fredericks et al. 2021, doi:10.1016/j.cpc.2020.107810)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from ase import Atoms

from aiida_alpot.kernel._extras import require
from aiida_alpot.kernel.augmentation.base import DroppedFrameError, Energy, Made, NotApplicableError, Step
from aiida_alpot.kernel.augmentation.crystal import find_crystal
from aiida_alpot.kernel.augmentation.species import check_elements, require_radii
from aiida_alpot.kernel.augmentation.volume import Volume, fit_volume
from aiida_alpot.kernel.geometry import atoms_in_contact

_LATTICES: Final = 5
"""Lattices that PyXtal tries for one composition in one space group."""

_SYMPREC: Final = 1e-3
"""Å, within which a cell counts as a primitive one."""


@dataclass(frozen=True)
class RandomSettings:
    """Which random crystals are made; all defaults are ours.

    Space group, number of elements, elements and number of atoms are drawn with equal chances, and drawn anew if the
    Wyckoff positions of the group cannot hold that composition: groups of low symmetry come more often.

    :param count: crystals.
    :param elements: those of all inputs if omitted.
    :param max_species: most elements of a crystal.
    :param min_atoms: fewest atoms of a primitive cell, but where chance makes a smaller one of it.
    :param max_atoms: most atoms of one.
    :param space_groups: numbers to choose from; 1 to 230 if omitted.
    :param volume: ``radii``: that of the sum of the atoms' volumes times *factor*; ``potential``: that of the lowest
        energy of the potential, which begins with the closest pair at the sum of its covalent radii.
    :param factor: how loose the atoms lie.
    :param min_ratio: crystals with atoms closer than this share of the sum of covalent radii are drawn anew.
    :param max_tries: how often, before the frame is dropped.
    """

    count: int = 20
    elements: tuple[str, ...] | None = None
    max_species: int = 3
    min_atoms: int = 2
    max_atoms: int = 8
    space_groups: tuple[int, ...] | None = None
    volume: Volume = "radii"
    factor: float = 1.1
    min_ratio: float = 0.6
    max_tries: int = 100

    def __post_init__(self) -> None:
        for name in ("count", "max_species", "min_atoms", "max_tries"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name!r} must be at least 1, got {getattr(self, name)}")
        if not self.min_atoms <= self.max_atoms <= 1000:
            raise ValueError(f"'max_atoms' must lie in [{self.min_atoms}, 1000], got {self.max_atoms}")
        check_elements(self.elements)
        if self.space_groups == () or not all(1 <= number <= 230 for number in self.space_groups or ()):
            raise ValueError(f"'space_groups' must hold numbers from 1 to 230, got {self.space_groups}")
        if not 0.5 <= self.factor <= 5.0:
            raise ValueError(f"'factor' must lie in [0.5, 5], got {self.factor}")
        if not 0.0 <= self.min_ratio < 1.0:
            raise ValueError(f"'min_ratio' must lie in [0, 1), got {self.min_ratio}")

    @property
    def needs_energy(self) -> bool:
        """Whether a potential is asked."""
        return self.volume == "potential"


def make_random_crystals(
    elements: Sequence[str], settings: RandomSettings, rng: np.random.Generator, energy: Energy | None = None
) -> Iterator[Made]:
    """Yield primitive cells of random crystals, or the reason ``no_crystal`` in the place of one.

    :param energy: for ``volume = "potential"``.
    :raises NotApplicableError: if an element has no covalent radius.
    :raises MissingPackageError: without PyXtal.
    """
    symbols = settings.elements or tuple(elements)
    require_radii(symbols)
    pyxtal = require("pyxtal", extra="random")
    groups = settings.space_groups or tuple(range(1, 231))
    for _ in range(settings.count):
        yield _draw(pyxtal, symbols, groups, settings, rng, energy)


def _draw(
    pyxtal: Any,
    symbols: Sequence[str],
    groups: Sequence[int],
    settings: RandomSettings,
    rng: np.random.Generator,
    energy: Energy | None,
) -> Made:
    """Return one crystal."""
    for _ in range(settings.max_tries):
        group = int(rng.choice(groups))
        species, counts = _draw_composition(symbols, settings, rng)
        atoms = _build(pyxtal, group, species, counts, settings.factor, rng)
        if atoms is None or len(atoms_in_contact(atoms, settings.min_ratio)):
            continue
        fitted = fit_volume(atoms, 1.0, energy) if settings.needs_energy else atoms
        if isinstance(fitted, DroppedFrameError):
            return fitted
        return Step(fitted, f"random crystal {fitted.get_chemical_formula()} group {group}", {"space_group": group})
    return DroppedFrameError("no_crystal")


def _draw_composition(
    symbols: Sequence[str], settings: RandomSettings, rng: np.random.Generator
) -> tuple[list[str], list[int]]:
    """Return elements and how many atoms there are of each, one at least."""
    n_most = min(settings.max_species, len(symbols), settings.max_atoms)
    n_species = int(rng.integers(1, n_most + 1))
    n_atoms = int(rng.integers(max(settings.min_atoms, n_species), settings.max_atoms + 1))
    species = [symbols[k] for k in rng.permutation(len(symbols))[:n_species]]
    bars = np.sort(rng.choice(np.arange(1, n_atoms), n_species - 1, replace=False))
    return species, np.diff(bars, prepend=0, append=n_atoms).tolist()


def _build(
    pyxtal: Any, group: int, species: list[str], counts: list[int], factor: float, rng: np.random.Generator
) -> Atoms | None:
    """Return the primitive cell of a crystal, ``None`` if the group cannot hold the composition."""
    crystal = pyxtal.pyxtal()
    seeded = np.random.default_rng(int(rng.integers(2**32)))
    try:
        crystal.from_random(
            3, group, species, counts, factor, random_state=seeded, conventional=False, max_count=_LATTICES
        )
    except pyxtal.msg.Comp_CompatibilityError:
        return None
    if not crystal.valid:
        return None
    try:
        return find_crystal(crystal.to_ase(), _SYMPREC).atoms
    except NotApplicableError:  # nothing that spglib understands
        return None
