"""SOAP power spectra by DScribe: features of atoms that need no potential (Bartók et al. 2013)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from ase.neighborlist import neighbor_list
from scipy.linalg import null_space

from aiida_alpot.kernel._extras import require
from aiida_alpot.kernel.units import FloatArray

EXTRA: Final = "soap"
MAX_FEATURES: Final = 4000
"""An active set keeps a square matrix of this size per species, 128 MB."""

_RANGES: Final = {"r_cut": (2, 12), "n_max": (1, 10), "l_max": (0, 8)}
"""Where the radial functions can be made orthogonal in double precision (DScribe 2.1)."""


@dataclass(frozen=True)
class SoapSettings:
    """What the surroundings of an atom are described by.

    :param species: symbols of all species that occur, each with columns of its own; by default those of the training
        frames for grades, and those of all frames that are compared for distances.
    :param r_cut: Å, range of the radial functions. A Gaussian reaches in from 3.7 *sigma* beyond.
    :param n_max: radial functions (Gaussian-type orbitals).
    :param l_max: largest angular momentum.
    :param sigma: Å, width of the Gaussian that stands for an atom.
    :param compression: how pairs of species are combined. ``"mu1nu1"`` takes each species with the density of all
        together (Darby et al. 2022), S n² (l + 1) columns for S species; ``"crossover"`` each species with itself only,
        S n (n + 1)/2 (l + 1); ``"off"`` takes every pair, S n (S n + 1)/2 (l + 1). DScribe's ``"mu2"`` is left out: to
        it all species are the same, so that an exchange of neighbours would go unnoticed.

    The defaults are small for the sake of grades: an active set needs five to twenty training atoms of a species per
    column before it knows others of their kind (benchmarks/features).
    """

    species: tuple[str, ...] = ()
    r_cut: float = 5.0
    n_max: int = 4
    l_max: int = 3
    sigma: float = 0.5
    compression: Literal["mu1nu1", "crossover", "off"] = "mu1nu1"

    def __post_init__(self) -> None:
        unknown = [symbol for symbol in self.species if atomic_numbers.get(symbol, 0) == 0]
        if unknown:
            raise ValueError(f"species: expected symbols of elements, got {unknown[0]!r}")
        if len(set(self.species)) < len(self.species):
            raise ValueError(f"species: expected different ones, got {', '.join(self.species)}")
        for name, (low, high) in _RANGES.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must be from {low} to {high}, got {getattr(self, name)}")
        if self.sigma <= 0:
            raise ValueError(f"sigma must be positive, got {self.sigma}")
        if self.n_features > MAX_FEATURES:
            raise ValueError(
                f"{len(self.species)} species, n_max {self.n_max}, l_max {self.l_max} and compression "
                f"{self.compression!r} make {self.n_features} features of at most {MAX_FEATURES}; "
                "lower n_max or l_max, or use compression 'mu1nu1' or 'crossover'"
            )

    @property
    def n_features(self) -> int:
        """Number of columns; 0 as long as the species are not known."""
        radial = {
            "mu1nu1": len(self.species) * self.n_max**2,
            "crossover": len(self.species) * self.n_max * (self.n_max + 1) // 2,
            "off": len(self.species) * self.n_max * (len(self.species) * self.n_max + 1) // 2,
        }
        return radial[self.compression] * (self.l_max + 1)


class Soap:
    """Computes the rows of :data:`~.rows.RowFunction` by DScribe.

    An atom of a species that is not in the settings, or that has one within reach, has a row of NaN.

    :ivar reach: Å, beyond which an atom does not count at all.
    :raises ValueError: if the settings name no species.
    :raises MissingPackageError: if DScribe is not installed.
    """

    def __init__(self, settings: SoapSettings) -> None:
        if not settings.species:
            raise ValueError("species: name those of all frames")
        self._numbers = [atomic_numbers[symbol] for symbol in settings.species]
        self._n_features = settings.n_features
        self._soap = import_dscribe().SOAP(
            r_cut=settings.r_cut,
            n_max=settings.n_max,
            l_max=settings.l_max,
            sigma=settings.sigma,
            species=settings.species,
            compression={"mode": settings.compression, "species_weighting": None},
            periodic=True,
        )
        self.reach = settings.r_cut + float(self._soap.get_cutoff_padding())

    def __call__(self, frames: Sequence[Atoms]) -> FloatArray:
        """Return one row per atom, shape (n_atoms, n_features).

        :raises ValueError: if a frame has a periodic axis without an independent cell vector.
        """
        return np.concatenate([self._rows(atoms) for atoms in frames])

    def _rows(self, atoms: Atoms) -> FloatArray:
        rows = np.full((len(atoms), self._n_features), np.nan)
        known = np.isin(atoms.numbers, self._numbers)
        if not known.any() or not np.isfinite(atoms.positions).all():
            return rows
        compact = gather(atoms, self.reach)
        rows[known] = self._soap.create(compact[known])
        if not known.all():
            first, second = neighbor_list("ij", compact, self.reach)
            rows[first[~known[second]]] = np.nan
        return rows


def import_dscribe() -> Any:
    """Return the module of DScribe with its descriptors.

    :raises MissingPackageError: if it, or a package that it imports, is not installed.
    """
    return require("dscribe.descriptors", extra=EXTRA)


def gather(atoms: Atoms, reach: float) -> Atoms:
    """Return the same atoms where DScribe sees the surroundings of each: those within *reach* do not change.

    DScribe repeats the cell along the periodic axes just as often as it takes for atoms that lie inside, needs three
    vectors for that even of a molecule, and bins all atoms on one grid, whose size has no bound. So atoms are moved
    into the cell along periodic axes, the other axes become orthogonal to these, and empty space along them that is
    wider than *reach* is narrowed to little more.

    :raises ValueError: if a periodic axis has no cell vector independent of the others.
    """
    periodic = np.asarray(atoms.pbc, dtype=bool)
    cell = np.array(atoms.cell.array)
    across = null_space(cell[periodic]).T if periodic.any() else np.eye(3)
    if len(across) != np.count_nonzero(~periodic):
        raise ValueError(f"{atoms.symbols}: the cell vectors of the periodic axes are not independent, got {cell}")
    cell[~periodic] = across
    fractions = np.linalg.solve(cell.T, atoms.positions.T).T
    fractions[:, periodic] %= 1.0
    positions = fractions @ cell
    for direction in across:
        height = positions @ direction
        order = np.argsort(height)
        excess = np.maximum(np.diff(height[order]) - 1.1 * reach, 0.0)
        positions[order[1:]] -= np.cumsum(excess)[:, None] * direction
    return Atoms(numbers=atoms.numbers, positions=positions, cell=cell, pbc=periodic)
