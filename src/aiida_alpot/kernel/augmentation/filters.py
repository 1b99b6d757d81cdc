"""Which frames are not to be labelled, and why."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms, units

from aiida_alpot.kernel.augmentation.canonical import canonical_key
from aiida_alpot.kernel.augmentation.duplicates import NearDuplicates, structure_key
from aiida_alpot.kernel.augmentation.report import Report
from aiida_alpot.kernel.geometry import atoms_in_contact, closest_pair_ratio

_GRAM: float = units._amu * 1e3
"""One atomic mass unit in g."""


@dataclass(frozen=True)
class FilterSettings:
    """What a frame must be like; a test is switched on by giving its limit, exact duplicates are always removed.

    Exact duplicates differ in the order of their atoms, the origin (which defect of a perfect crystal it is), or the
    images that their atoms are given in, see :func:`~aiida_alpot.kernel.augmentation.canonical.canonical_key`.

    :param max_atoms: most atoms.
    :param min_ratio: smallest distance of two atoms over the sum of their covalent radii; None to leave points of a
        scan that are closer.
    :param density: smallest and largest mass density, g/cm³, of frames with three periodic axes.
    :param near_duplicates: displacement of the atoms up to which two frames are the same, Å, however they are turned or
        mirrored. Distances up to some 8 Å are compared, within twice of it: 0.02 takes two strains of a crystal for one
        that differ by less than 0.5 %. See :mod:`~aiida_alpot.kernel.augmentation.duplicates` for what is recognised
        and what it can confuse.
    """

    max_atoms: int | None = None
    min_ratio: float | None = 0.4
    density: tuple[float, float] | None = None
    near_duplicates: float | None = None

    def __post_init__(self) -> None:
        if self.max_atoms is not None and self.max_atoms < 1:
            raise ValueError(f"'max_atoms' must be at least 1, got {self.max_atoms}")
        if self.min_ratio is not None and not 0.0 < self.min_ratio < 1.0:
            raise ValueError(f"'min_ratio' must lie between 0 and 1, got {self.min_ratio}")
        if self.density is not None and not 0.0 <= self.density[0] < self.density[1]:
            raise ValueError(f"'density' must be an ascending pair from 0 on, got {self.density}")
        if self.near_duplicates is not None and not self.near_duplicates > 0.0:
            raise ValueError(f"'near_duplicates' must be positive, got {self.near_duplicates}")


class Filters:
    """The tests of one run, in ascending order of their cost, with what they have seen.

    :param report: counts what is removed, with one example of each reason.
    """

    def __init__(self, settings: FilterSettings | None, report: Report) -> None:
        self._settings = settings or FilterSettings(min_ratio=None)
        self._report = report
        self._keys: set[bytes] = set()
        distance = self._settings.near_duplicates
        self._near = None if distance is None else NearDuplicates(distance)

    def accept(self, atoms: Atoms, origin: str, *, is_drawn: bool = False, is_crowded: bool | None = None) -> bool:
        """Return whether the frame stays.

        :param origin: names it in the report.
        :param is_drawn: whether its atoms were displaced at random, so that no other frame is the same in another order
            or from another origin; copies to the last digit are found all the same.
        :param is_crowded: whether atoms are closer than allowed, if that is known.
        """
        found = self._find_fault(atoms, is_drawn, is_crowded)
        if found is None:
            return True
        name, reason, detail = found
        self._report.removed[name, reason] += 1
        self._report.examples.setdefault(f"{name}: {reason}", f"{origin}{detail}")
        return False

    def _find_fault(self, atoms: Atoms, is_drawn: bool, is_crowded: bool | None) -> tuple[str, str, str] | None:
        """Return the test that a frame fails, why as a short code, and the number that was found."""
        settings = self._settings
        if settings.max_atoms is not None and len(atoms) > settings.max_atoms:
            return "max_atoms", "too_many_atoms", f": {len(atoms)}"
        key = structure_key(atoms) if is_drawn else canonical_key(atoms)
        if key in self._keys:
            return "duplicates", "same_structure", ""
        self._keys.add(key)
        if settings.density is not None and atoms.pbc.all():
            density = mass_density(atoms)
            if not settings.density[0] <= density <= settings.density[1]:
                reason = "too_low" if density < settings.density[0] else "too_high"
                return "density", reason, f": {density:.3g} g/cm³"
        if is_crowded is None and settings.min_ratio is not None:
            is_crowded = len(atoms_in_contact(atoms, settings.min_ratio)) > 0
        if is_crowded:
            return "min_ratio", "close_contact", f": {closest_pair_ratio(atoms):.2f}"
        if self._near is not None and self._near.is_known(atoms):
            return "near_duplicates", "within_tolerance", ""
        return None


def mass_density(atoms: Atoms) -> float:
    """Return the mass density of a frame with three periodic axes, g/cm³."""
    volume = np.abs(np.linalg.det(atoms.cell.array)) * 1e-24
    return float(atoms.get_masses().sum() * _GRAM / volume)
