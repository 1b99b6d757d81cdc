"""Put atoms on the sites of others: antisites and foreign elements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols

from aiida_alpot.kernel.augmentation.base import DroppedFrameError, NotApplicableError, Step
from aiida_alpot.kernel.augmentation.species import (
    UnlikePairs,
    change_species,
    check_symbols,
    exchange_places,
    has_species,
    round_count,
)
from aiida_alpot.kernel.defaults import SUBSTITUTED_ATOMS, SUBSTITUTION_FRACTION
from aiida_alpot.kernel.geometry import atoms_in_contact
from aiida_alpot.kernel.units import IntArray


@dataclass(frozen=True)
class SubstitutionSettings:
    """Which atoms are put on the sites of others, [TrainsPot] Sec. II A 2.

    :param fraction: share of the distorted frames that a frame with substitutions is made from.
    :param atom_fraction: share of the atoms of a frame whose site changes its element, to the nearest number that is
        possible, and at least one atom, or one pair. The paper counts exchanges, of two atoms each.
    :param mode: ``exchange``: unlike atoms change places and the composition stays; ``replace``: atoms become another
        element of the frame; ``foreign``: atoms become what *elements* says.
    :param elements: for ``foreign``: the elements to draw from, each as likely, for an atom of a given element.
    :param species: for ``exchange`` and ``replace``: elements that take part, all if omitted; the cations of an oxide.
    :param molecules: make substitutions in frames without a periodic axis too.
    :param min_ratio: frames with atoms closer than this share of the sum of their covalent radii are drawn anew.
    :param max_tries: how often, before the frame is dropped.
    """

    fraction: float = SUBSTITUTION_FRACTION
    atom_fraction: float = SUBSTITUTED_ATOMS
    mode: Literal["exchange", "replace", "foreign"] = "exchange"
    elements: Mapping[str, tuple[str, ...]] | None = None
    species: tuple[str, ...] | None = None
    molecules: bool = False
    min_ratio: float = 0.4
    max_tries: int = 20

    def __post_init__(self) -> None:
        if not 0.0 <= self.fraction <= 1.0:
            raise ValueError(f"'fraction' must lie in [0, 1], got {self.fraction}")
        if not 0.0 < self.atom_fraction <= 1.0:
            raise ValueError(f"'atom_fraction' must lie in (0, 1], got {self.atom_fraction}")
        if not 0.0 <= self.min_ratio < 1.0:
            raise ValueError(f"'min_ratio' must lie in [0, 1), got {self.min_ratio}")
        if self.max_tries < 1:
            raise ValueError(f"'max_tries' must be at least 1, got {self.max_tries}")
        self._check_species()

    def _check_species(self) -> None:
        if (self.mode == "foreign") != bool(self.elements):
            raise ValueError(f"'elements' belong to the mode 'foreign', got {self.elements} with {self.mode!r}")
        if self.species is not None:
            check_symbols("species", self.species)
            if self.mode == "foreign" or len(self.species) < 2:
                raise ValueError(
                    f"'species' must name two elements for exchange or replace, got {self.species} for {self.mode!r}"
                )
        for old, new in (self.elements or {}).items():
            check_symbols("elements", [old, *new])
            if not new:
                raise ValueError(f"'elements' must name what takes the place of {old}, got none")


def count_substitutions(atoms: Atoms, settings: SubstitutionSettings) -> int:
    """Return how many atoms are put on sites of another element; with ``exchange``, the number of pairs is half of it.

    :raises NotApplicableError: if none may: every exchange of the two atoms of a cell is an inversion.
    """
    if not settings.molecules and not atoms.pbc.any():
        raise NotApplicableError("no_periodic_axis")
    sites = _open_sites(atoms, settings)
    if settings.mode == "foreign":
        if len(sites) == 0:
            raise NotApplicableError("no_such_species")
        return min(round_count(settings.atom_fraction, len(atoms)), len(sites))
    if len(set(atoms.numbers[sites].tolist())) < 2:
        raise NotApplicableError("single_species")
    if settings.mode == "replace":
        return min(round_count(settings.atom_fraction, len(atoms)), len(sites) - 1)
    if len(atoms) == 2:
        raise NotApplicableError("two_atoms")
    n_pairs = round_count(settings.atom_fraction, len(atoms) / 2)
    return 2 * min(n_pairs, _most_pairs(atoms.numbers[sites]))


def substitute(atoms: Atoms, settings: SubstitutionSettings, rng: np.random.Generator) -> Step:
    """Return the frame with another element on some sites.

    :raises NotApplicableError: if the frame has one element only, none that is to be replaced, or is a molecule.
    :raises DroppedFrameError: if atoms are still too close after *max_tries*.
    """
    n_changed = count_substitutions(atoms, settings)
    make = _exchange if settings.mode == "exchange" else _replace
    for _ in range(settings.max_tries):
        changed, old, new = make(atoms, settings, n_changed, rng)
        if len(atoms_in_contact(changed, settings.min_ratio)) == 0:
            names = (f"{chemical_symbols[a]}>{chemical_symbols[b]}" for a, b in zip(old, new, strict=True))
            changes = dict(sorted(Counter(names).items()))
            text = f"substitution {settings.mode} {n_changed}"
            return Step(changed, text, {"mode": settings.mode, "changes": changes})
    raise DroppedFrameError("close_contact")


def _exchange(
    atoms: Atoms, settings: SubstitutionSettings, n_changed: int, rng: np.random.Generator
) -> tuple[Atoms, IntArray, IntArray]:
    """Return the frame after exchanges, and the old and new elements of the sites."""
    first, second = _draw_pairs(atoms, settings, n_changed // 2, rng)
    old, new = np.concatenate([first, second]), np.concatenate([second, first])
    return exchange_places(atoms, first, second), atoms.numbers[old], atoms.numbers[new]


def _replace(
    atoms: Atoms, settings: SubstitutionSettings, n_changed: int, rng: np.random.Generator
) -> tuple[Atoms, IntArray, IntArray]:
    """Return the frame with new elements on some sites, and the old and new elements of these."""
    sites = rng.choice(_open_sites(atoms, settings), size=n_changed, replace=False)
    new = _draw_elements(atoms, sites, settings, rng)
    return change_species(atoms, sites, new), atoms.numbers[sites], new


def _open_sites(atoms: Atoms, settings: SubstitutionSettings) -> IntArray:
    """Return the atoms that may get another element."""
    species = settings.elements if settings.mode == "foreign" else settings.species
    return np.flatnonzero(has_species(atoms, species))


def _draw_elements(atoms: Atoms, sites: IntArray, settings: SubstitutionSettings, rng: np.random.Generator) -> IntArray:
    """Return a new element for each of *sites*, shape (n,)."""
    present = np.unique(atoms.numbers[_open_sites(atoms, settings)])
    choices = {number: present[present != number] for number in present}
    for old, new in (settings.elements or {}).items():
        choices[atomic_numbers[old]] = np.array([atomic_numbers[symbol] for symbol in new])
    return np.array([rng.choice(choices[number]) for number in atoms.numbers[sites]], dtype=np.int64)


def _draw_pairs(
    atoms: Atoms, settings: SubstitutionSettings, n_pairs: int, rng: np.random.Generator
) -> tuple[IntArray, IntArray]:
    """Return pairs of unlike atoms, no atom in two of them; a pair that would leave too few to others is not taken."""
    left = _open_sites(atoms, settings)
    chosen: list[IntArray] = []
    while len(chosen) < n_pairs:
        pair = list(UnlikePairs(atoms.numbers[left]).draw(rng))
        rest = np.delete(left, pair)
        if len(chosen) + 1 + _most_pairs(atoms.numbers[rest]) >= n_pairs:
            chosen.append(left[pair])
            left = rest
    first, second = np.transpose(chosen)
    return first, second


def _most_pairs(numbers: IntArray) -> int:
    """Return the largest number of disjoint pairs of unlike atoms."""
    counts = np.unique(numbers, return_counts=True)[1]
    return min(len(numbers) // 2, len(numbers) - int(counts.max(initial=0)))
