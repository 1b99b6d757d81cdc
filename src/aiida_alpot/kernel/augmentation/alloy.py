"""Mix elements on the sites of a frame."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from aiida_alpot.kernel.augmentation.base import DroppedFrameError, NotApplicableError, Step
from aiida_alpot.kernel.augmentation.quasirandom import arrange
from aiida_alpot.kernel.augmentation.species import change_species, check_symbols, has_species, site_labels
from aiida_alpot.kernel.geometry import atoms_in_contact
from aiida_alpot.kernel.units import FloatArray, IntArray

_MAX_POINTS: Final = 10_000
"""Most compositions of a grid that are listed to be taken in turn."""

_ALLOY: Final = "alloy"
"""Name of the only sublattice where *alloy_species* are given."""


@dataclass(frozen=True)
class Mixture:
    """Elements that share the sites of one sublattice, and how much of each there is.

    Without *compositions* and *grid* the concentrations are flat over the simplex (Dirichlet with all α = 1).

    :param species: two elements or more.
    :param compositions: concentrations to choose from; they add up to 1, an element left out has none. The copies of a
        frame take them in turn, in an order of chance: none comes again before all have come.
    :param grid: concentrations are multiples of 1/*grid*; those of one element are among them. They are taken in turn
        as *compositions* are, if there are at most 10,000 and no *corners*; else every one is as likely.
    :param corners: share of the frames with one element on all sites, each element as likely; a flat draw and a grid
        give few of them.
    """

    species: tuple[str, ...]
    compositions: tuple[Mapping[str, float], ...] | None = None
    grid: int | None = None
    corners: float = 0.0

    def __post_init__(self) -> None:
        check_symbols("species", self.species)
        if len(self.species) < 2:
            raise ValueError(f"'species' must name two elements or more, got {list(self.species)}")
        if self.grid is not None and self.grid < 1:
            raise ValueError(f"'grid' must be at least 1, got {self.grid}")
        if not 0.0 <= self.corners <= 1.0:
            raise ValueError(f"'corners' must lie in [0, 1], got {self.corners}")
        if self.compositions is not None:
            self._check_compositions(self.compositions)

    def _check_compositions(self, compositions: tuple[Mapping[str, float], ...]) -> None:
        if not compositions or self.grid is not None or self.corners > 0.0:
            raise ValueError("'compositions' must name one or more, and go without 'grid' and 'corners'")
        for shares in compositions:
            unknown = sorted(set(shares) - set(self.species))
            if unknown or min(shares.values(), default=-1.0) < 0.0 or abs(sum(shares.values()) - 1.0) > 1e-6:
                raise ValueError(
                    f"'compositions' must be concentrations of {list(self.species)} with the sum 1, got {dict(shares)}"
                )


@dataclass(frozen=True)
class AlloySettings:
    """Which elements are mixed on which sites, [TrainsPot] Sec. II A 2.

    Give *alloy_species* for one alloy, or *sublattices* for several. Small cells have few arrangements: make a
    supercell first.

    :param alloy_species: elements of the alloy.
    :param fixed_species: elements that keep their sites; if omitted, all that are not of the alloy. Name them to mix
        the alloy on the sites of other elements, none (``[]``) for all sites.
    :param compositions: see :class:`Mixture`, with *grid* and *corners*; for *alloy_species*.
    :param sublattices: the mixture on the sites of each element, or of each value of *column*; the rest is fixed.
    :param column: a per-atom column, of integers or text, that tells the sublattice of each atom.
    :param arrangement: ``random``, or ``quasirandom``: the pairs of elements in the first *shells* shells of neighbours
        come as near to those of an infinite random alloy as the cell allows
        (:func:`~aiida_alpot.kernel.augmentation.quasirandom.arrange`).
    :param shells: for ``quasirandom``.
    :param steps: exchanges that are tried for one ``quasirandom`` frame.
    :param min_ratio: frames with atoms closer than this share of the sum of covalent radii are drawn anew.
    :param max_tries: how often, before the frame is dropped.
    """

    alloy_species: tuple[str, ...] = ()
    fixed_species: tuple[str, ...] | None = None
    compositions: tuple[Mapping[str, float], ...] | None = None
    grid: int | None = None
    corners: float = 0.0
    sublattices: Mapping[str, Mixture] = field(default_factory=dict)
    column: str | None = None
    arrangement: Literal["random", "quasirandom"] = "random"
    shells: int = 3
    steps: int = 5000
    min_ratio: float = 0.4
    max_tries: int = 20

    def __post_init__(self) -> None:
        if bool(self.alloy_species) == bool(self.sublattices):
            raise ValueError(
                f"either 'alloy_species' or 'sublattices' must be given, got {list(self.alloy_species)} "
                f"and {sorted(self.sublattices)}"
            )
        if not 0.0 <= self.min_ratio < 1.0:
            raise ValueError(f"'min_ratio' must lie in [0, 1), got {self.min_ratio}")
        for name in ("shells", "steps", "max_tries"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name!r} must be at least 1, got {getattr(self, name)}")
        if self.alloy_species:
            self._check_alloy()
        else:
            self._check_sublattices()

    @property
    def mixtures(self) -> dict[str, Mixture]:
        """The mixture of each sublattice, in the order of their names."""
        return {_ALLOY: self.mixture} if self.alloy_species else dict(sorted(self.sublattices.items()))

    @property
    def mixture(self) -> Mixture:
        """The mixture of *alloy_species*."""
        return Mixture(self.alloy_species, self.compositions, self.grid, self.corners)

    def _check_alloy(self) -> None:
        if self.column is not None:
            raise ValueError(f"'column' belongs to 'sublattices', got {self.column!r} with 'alloy_species'")
        check_symbols("alloy_species", self.alloy_species)
        check_symbols("fixed_species", self.fixed_species or ())
        self.mixture  # noqa: B018 - checks itself

    def _check_sublattices(self) -> None:
        given = [name for name in ("fixed_species", "compositions", "grid") if getattr(self, name) is not None]
        if given or self.corners > 0.0:
            raise ValueError(f"{given or ['corners']} belong to 'alloy_species', give them in each of 'sublattices'")
        if self.column is None:
            check_symbols("sublattices", self.sublattices)


class _Sublattice(NamedTuple):
    """Sites that share a mixture."""

    name: str
    sites: IntArray
    mixture: Mixture


def design_compositions(
    atoms: Atoms, settings: AlloySettings, n_copies: int, rng: np.random.Generator
) -> FloatArray | None:
    """Return the concentrations of many copies of a frame, such that each that is listed has its turn.

    :param atoms: not used, the list is the same for every frame.
    :return: shape (n_copies, n), the species of all :attr:`AlloySettings.mixtures` one behind the other; NaN where the
        concentrations are drawn copy by copy.
    """
    del atoms
    columns = []
    for mixture in settings.mixtures.values():
        points = _list_points(mixture)
        if points is None:
            columns.append(np.full((n_copies, len(mixture.species)), np.nan))
            continue
        rounds = -(-n_copies // len(points))
        turns = np.concatenate([np.empty(0, dtype=int), *(rng.permutation(len(points)) for _ in range(rounds))])
        columns.append(points[turns[:n_copies]])
    return np.hstack(columns)


def _list_points(mixture: Mixture) -> FloatArray | None:
    """Return all compositions of a mixture, shape (n, n_species), ``None`` if they are not listed."""
    n_species = len(mixture.species)
    if mixture.compositions is not None:
        return np.array([[shares.get(symbol, 0.0) for symbol in mixture.species] for shares in mixture.compositions])
    if mixture.grid is None or mixture.corners > 0.0:
        return None
    n_places = mixture.grid + n_species - 1
    if math.comb(n_places, n_species - 1) > _MAX_POINTS:
        return None
    bars = np.array(list(itertools.combinations(range(n_places), n_species - 1)))
    return _shares_between(bars, mixture.grid)


def _shares_between(bars: IntArray, grid: int) -> FloatArray:
    """Return concentrations, the stars between bars: n_species - 1 bars, ascending, among *grid* stars.

    :param bars: shape (..., n_species - 1).
    """
    n_places = grid + bars.shape[-1]
    return np.asarray((np.diff(bars, prepend=-1, append=n_places) - 1) / grid)


def alloy(
    atoms: Atoms, settings: AlloySettings, rng: np.random.Generator, concentrations: FloatArray | None = None
) -> Step:
    """Return the frame with the elements mixed on its sites.

    The numbers of atoms are the nearest to the concentrations (largest remainder); the composition that is reached is
    in the parameters, per sublattice.

    :param concentrations: one row of :func:`design_compositions`; without it, or where it is NaN, they are drawn.
    :raises NotApplicableError: if the frame has no site of the alloy, lacks the column, or has too many sites for
        ``quasirandom``.
    :raises DroppedFrameError: if atoms are still too close after *max_tries*.
    """
    sublattices = _find_sublattices(atoms, settings)
    sites = np.concatenate([part.sites for part in sublattices])
    given = _split_row(settings, concentrations)
    for _ in range(settings.max_tries):
        counts = {part.name: draw_counts(part.mixture, len(part.sites), rng, given[part.name]) for part in sublattices}
        numbers = np.concatenate([_shuffled(counts[part.name], rng) for part in sublattices])
        parameters: dict[str, object] = {"composition": {name: _shares(counts[name]) for name in counts}}
        if settings.arrangement == "quasirandom":
            groups = np.repeat(np.arange(len(sublattices)), [len(part.sites) for part in sublattices])
            numbers, deviations = arrange(atoms[sites], numbers, groups, settings.shells, settings.steps, rng)
            parameters["pair_deviations"] = deviations.tolist()
        mixed = change_species(atoms, sites, numbers)
        if len(atoms_in_contact(mixed, settings.min_ratio)) == 0:
            return Step(mixed, f"alloy {mixed[sites].symbols.formula.format('hill')}", parameters)
    raise DroppedFrameError("close_contact")


def draw_counts(
    mixture: Mixture, n_sites: int, rng: np.random.Generator, shares: FloatArray | None = None
) -> dict[str, int]:
    """Return how many atoms of each element a sublattice gets.

    :param shares: concentrations, shape (n_species,); they are drawn if omitted.
    """
    counts = largest_remainder(_draw_shares(mixture, rng) if shares is None else shares, n_sites, rng)
    return {symbol: int(count) for symbol, count in zip(mixture.species, counts, strict=True)}


def largest_remainder(shares: FloatArray, total: int, rng: np.random.Generator) -> IntArray:
    """Return whole numbers that add up to *total*, each less than one from its share of it.

    What is left after rounding down goes to the largest remainders (Hamilton's method), among equal ones by lot.

    :param shares: shape (n,), they add up to 1.
    :return: shape (n,).
    """
    exact = np.round(shares * total, 9)
    counts = np.floor(exact).astype(np.int64)
    order = np.lexsort((rng.random(len(shares)), counts - exact))
    counts[order[: total - int(counts.sum())]] += 1
    return counts


def _draw_shares(mixture: Mixture, rng: np.random.Generator) -> FloatArray:
    """Return a concentration for each element of the mixture, shape (n_species,)."""
    n_species = len(mixture.species)
    if mixture.compositions is not None:
        chosen = mixture.compositions[rng.integers(len(mixture.compositions))]
        return np.array([chosen.get(symbol, 0.0) for symbol in mixture.species])
    if rng.random() < mixture.corners:
        return np.asarray(np.eye(n_species)[rng.integers(n_species)])
    if mixture.grid is None:
        return rng.dirichlet(np.ones(n_species))
    bars = np.sort(rng.choice(mixture.grid + n_species - 1, size=n_species - 1, replace=False))
    return _shares_between(bars, mixture.grid)


def _split_row(settings: AlloySettings, concentrations: FloatArray | None) -> dict[str, FloatArray | None]:
    """Return the concentrations that are given for each mixture, by name."""
    if concentrations is None:
        return dict.fromkeys(settings.mixtures)
    ends = np.cumsum([len(mixture.species) for mixture in settings.mixtures.values()])
    parts = np.split(concentrations, ends[:-1])
    return {name: None if np.isnan(part).any() else part for name, part in zip(settings.mixtures, parts, strict=True)}


def _find_sublattices(atoms: Atoms, settings: AlloySettings) -> list[_Sublattice]:
    """Return the sublattices that the frame has.

    :raises NotApplicableError: if it has none, or lacks the column.
    """
    if settings.alloy_species:
        is_fixed = ~has_species(atoms, settings.alloy_species)
        if settings.fixed_species is not None:
            is_fixed = has_species(atoms, settings.fixed_species)
        found = [_Sublattice(_ALLOY, np.flatnonzero(~is_fixed), settings.mixture)]
    else:
        labels = site_labels(atoms, settings.column)
        mixtures = settings.mixtures
        found = [_Sublattice(name, np.flatnonzero(labels == name), mixture) for name, mixture in mixtures.items()]
    found = [part for part in found if len(part.sites)]
    if not found:
        raise NotApplicableError("no_alloy_site")
    return found


def _shuffled(counts: Mapping[str, int], rng: np.random.Generator) -> IntArray:
    """Return the atomic numbers of one sublattice in random order."""
    numbers = [atomic_numbers[symbol] for symbol in counts]
    return rng.permutation(np.repeat(numbers, list(counts.values())))


def _shares(counts: Mapping[str, int]) -> dict[str, float]:
    total = sum(counts.values())
    return {symbol: count / total for symbol, count in counts.items()}
