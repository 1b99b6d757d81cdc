"""What manipulations of the species share: symbols that exist, sites that change, pairs that may change places."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from ase import Atoms
from ase.data import atomic_masses, atomic_numbers, chemical_symbols

from aiida_alpot.kernel.augmentation.base import NotApplicableError
from aiida_alpot.kernel.units import BoolArray, IntArray

_N_ELEMENTS: Final = len(chemical_symbols)

_LAST_RADIUS: Final = 96
"""Curium: of heavier elements ASE has a number in the place of a covalent radius (Cordero 2008)."""


def check_symbols(setting: str, symbols: Iterable[str]) -> None:
    """Refuse what is no element, and elements that are named twice.

    :raises ValueError: naming *setting* and the symbol.
    """
    symbols = list(symbols)
    for symbol in symbols:
        if atomic_numbers.get(symbol, 0) == 0:
            raise ValueError(f"'{setting}' must hold chemical symbols, got {symbol!r}")
        if symbols.count(symbol) > 1:
            raise ValueError(f"'{setting}' must name every element once, got {symbol!r} twice")


def check_elements(elements: Sequence[str] | None) -> None:
    """Refuse elements that no crystal can be made of; ``None`` stands for those of the inputs.

    :raises ValueError: naming what is no element, comes twice or has no covalent radius, or if there is none.
    """
    if elements is None:
        return
    check_symbols("elements", elements)
    if not elements:
        raise ValueError("'elements' must name an element, got none")
    unknown = without_radius(elements)
    if unknown:
        raise ValueError(
            f"'elements' must have covalent radii, which set the volume; there is none of {', '.join(unknown)}"
        )


def without_radius(symbols: Iterable[str]) -> list[str]:
    """Return the elements whose covalent radius nobody has measured."""
    return [symbol for symbol in symbols if atomic_numbers[symbol] > _LAST_RADIUS]


def require_radii(symbols: Iterable[str]) -> None:
    """Leave out what is made of elements of the inputs if one has no covalent radius.

    :raises NotApplicableError: naming the first such element.
    """
    unknown = without_radius(symbols)
    if unknown:
        raise NotApplicableError(f"no_covalent_radius_of_{unknown[0]}")


def has_species(atoms: Atoms, species: Iterable[str] | None) -> BoolArray:
    """Return which atoms are of the given elements, all of them if ``None``; shape (n_atoms,)."""
    if species is None:
        return np.ones(len(atoms), dtype=bool)
    return np.isin(atoms.numbers, [atomic_numbers[symbol] for symbol in species])


def site_labels(atoms: Atoms, column: str | None) -> npt.NDArray[Any]:
    """Return the values of a per-atom column as text, or the symbols without one; shape (n_atoms,).

    :raises NotApplicableError: if the frame has no such column, or more than one value per atom.
    """
    if column is None:
        return np.array(atoms.get_chemical_symbols())
    if column not in atoms.arrays or atoms.arrays[column].ndim != 1:
        raise NotApplicableError("no_column")
    return np.asarray(atoms.arrays[column].astype(str))


def change_species(atoms: Atoms, sites: npt.ArrayLike, numbers: npt.ArrayLike) -> Atoms:
    """Return the frame with other elements on some sites.

    Columns stay with the sites, moments too: a moment that the new element does not have decays in a reference
    calculation, while one that starts at zero does not grow. Masses are those of the new elements.

    :param sites: indices, shape (n,).
    :param numbers: atomic numbers, shape (n,).
    """
    changed = atoms.copy()
    changed.numbers[sites] = numbers
    if changed.has("masses"):
        changed.arrays["masses"][sites] = atomic_masses[np.asarray(numbers)]
    return changed


def exchange_places(atoms: Atoms, first: npt.ArrayLike, second: npt.ArrayLike) -> Atoms:
    """Return the frame in which atoms have changed places, with all their columns; the order of atoms stays.

    :param first: indices, shape (n,); none may be in *second*.
    """
    changed = atoms.copy()
    changed.positions[first], changed.positions[second] = atoms.positions[second], atoms.positions[first]
    return changed


def round_count(share: float, total: float) -> int:
    """Return the number of atoms nearest to a share of *total*, half an atom counts as one, and at least one."""
    return max(1, math.floor(share * total + 0.5 + 1e-9))


def kinds_of(numbers: IntArray, groups: IntArray) -> IntArray:
    """Return one number for each element in each group; shape (n_atoms,)."""
    return groups * _N_ELEMENTS + numbers


class UnlikePairs:
    """Pairs of two elements within a group, each of which is drawn as often as every other.

    :param numbers: atomic numbers, shape (n_atoms,).
    :param groups: the group of each atom, shape (n_atoms,); atoms of different groups form no pair.
    :ivar n_pairs: how many there are.
    """

    def __init__(self, numbers: IntArray, groups: npt.NDArray[Any] | None = None) -> None:
        groups = np.zeros(len(numbers), dtype=np.int64) if groups is None else np.unique(groups, return_inverse=True)[1]
        kinds, kind, counts = np.unique(kinds_of(numbers, groups), return_inverse=True, return_counts=True)
        self._members = [np.flatnonzero(kind == k) for k in range(len(counts))]
        first, second = np.triu_indices(len(counts), k=1)
        together = kinds[first] // _N_ELEMENTS == kinds[second] // _N_ELEMENTS
        self._kinds = np.stack([first[together], second[together]], axis=1)
        self._ends = np.cumsum(counts[self._kinds].prod(axis=1))
        self.n_pairs = int(self._ends[-1]) if len(self._ends) else 0

    def draw(self, rng: np.random.Generator) -> tuple[int, int]:
        """Return the indices of two atoms."""
        number = int(rng.integers(self.n_pairs))
        which = int(np.searchsorted(self._ends, number, side="right"))
        first, second = (self._members[kind] for kind in self._kinds[which])
        rank = number - (int(self._ends[which - 1]) if which else 0)
        return int(first[rank // len(second)]), int(second[rank % len(second)])
