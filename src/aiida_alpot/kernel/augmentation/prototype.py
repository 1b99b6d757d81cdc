"""Put elements into prototype structures, as in [MP-ALOE]: crystals that nobody has made, at sensible volumes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import numpy as np
from ase import Atoms
from ase.spacegroup import crystal

from aiida_alpot.kernel.augmentation.base import DroppedFrameError, Energy, Made, NotApplicableError, Step
from aiida_alpot.kernel.augmentation.species import check_elements, require_radii
from aiida_alpot.kernel.augmentation.volume import Volume, check_volume, fit_volume

_EDGE: Final = 4.0
"""Å, of cells before their volume is fitted."""

MAX_SPECIES: Final = 3
MAX_ATOMS: Final = 8


class Prototype(NamedTuple):
    """A crystal whose sites wait for elements.

    :ivar space_group: its number.
    :ivar sites: one place of each orbit, fractional in the conventional cell.
    :ivar kinds: a letter for each orbit, equal ones for orbits that may change places: they turn into each other.
    :ivar axes: lengths of the conventional cell over the first, and its angles in degrees.
    """

    space_group: int
    sites: tuple[tuple[float, float, float], ...]
    kinds: str
    axes: tuple[float, float, float, float, float, float] = (1.0, 1.0, 1.0, 90.0, 90.0, 90.0)

    @property
    def n_species(self) -> int:
        """Number of elements that it takes."""
        return len(self.sites)

    def occupy(self, symbols: Sequence[str]) -> Atoms:
        """Return the primitive cell with an element on each orbit; its volume means nothing."""
        lengths = [_EDGE * length for length in self.axes[:3]]
        atoms = crystal(
            symbols,
            self.sites,
            spacegroup=self.space_group,
            cellpar=[*lengths, *self.axes[3:]],
            primitive_cell=True,
        )
        return Atoms(atoms.numbers, atoms.positions, cell=atoms.cell.array, pbc=True)


def _tetragonal(ratio: float) -> tuple[float, float, float, float, float, float]:
    return (1.0, 1.0, ratio, 90.0, 90.0, 90.0)


def _hexagonal(ratio: float) -> tuple[float, float, float, float, float, float]:
    return (1.0, 1.0, ratio, 90.0, 90.0, 120.0)


_ZERO, _HALF, _QUARTER = (0.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
_THIRD = 1.0 / 3.0
_IDEAL = math.sqrt(8.0 / 3.0)

PROTOTYPES: Final[Mapping[str, Prototype]] = MappingProxyType(
    {
        "sc": Prototype(221, (_ZERO,), "a"),
        "fcc": Prototype(225, (_ZERO,), "a"),
        "bcc": Prototype(229, (_ZERO,), "a"),
        "hcp": Prototype(194, ((_THIRD, 2 * _THIRD, 0.25),), "a", _hexagonal(_IDEAL)),
        "diamond": Prototype(227, (_ZERO,), "a"),
        "rocksalt": Prototype(225, (_ZERO, _HALF), "aa"),
        "cesiumchloride": Prototype(221, (_ZERO, _HALF), "aa"),
        "zincblende": Prototype(216, (_ZERO, _QUARTER), "aa"),
        "wurtzite": Prototype(186, ((_THIRD, 2 * _THIRD, 0.0), (_THIRD, 2 * _THIRD, 0.375)), "aa", _hexagonal(_IDEAL)),
        "nickeline": Prototype(194, (_ZERO, (_THIRD, 2 * _THIRD, 0.25)), "ab", _hexagonal(1.4)),
        "L1_0": Prototype(123, (_ZERO, _HALF), "aa", _tetragonal(math.sqrt(2.0))),
        "L1_2": Prototype(221, (_ZERO, (0.0, 0.5, 0.5)), "ab"),
        "fluorite": Prototype(225, (_ZERO, _QUARTER), "ab"),
        "rutile": Prototype(136, (_ZERO, (0.305, 0.305, 0.0)), "ab", _tetragonal(0.644)),
        "AlB2": Prototype(191, (_ZERO, (_THIRD, 2 * _THIRD, 0.5)), "ab", _hexagonal(1.08)),
        "CdI2": Prototype(164, (_ZERO, (_THIRD, 2 * _THIRD, 0.25)), "ab", _hexagonal(1.6)),
        "perovskite": Prototype(221, (_ZERO, _HALF, (0.5, 0.5, 0.0)), "abc"),
        "half-heusler": Prototype(216, (_ZERO, _QUARTER, _HALF), "aba"),
        "heusler": Prototype(225, (_ZERO, _HALF, _QUARTER), "aab"),
        "delafossite": Prototype(166, (_ZERO, (0.0, 0.0, 0.5), (0.0, 0.0, 0.11)), "abc", _hexagonal(5.7)),
        "chalcopyrite": Prototype(122, (_ZERO, (0.0, 0.0, 0.5), (0.25, 0.25, 0.125)), "aab", _tetragonal(2.0)),
    }
)
"""One to eight atoms and one to three elements, *Strukturbericht* names where there is no other."""


@dataclass(frozen=True)
class PrototypeSettings:
    """Which prototypes are given which elements, [MP-ALOE].

    :param names: of :data:`PROTOTYPES`; all of them if omitted.
    :param elements: those of all inputs if omitted.
    :param count: structures; every prototype has its turn, and no structure comes twice.
    :param max_species: most elements of one structure.
    :param volume: ``radii``: the closest two atoms are *contact* times the sum of their covalent radii apart;
        ``potential``: from there, the volume of the lowest energy of the potential that is given, the shape kept.
    :param contact: for the metals about 0.95, for ionic crystals up to 1.2.
    """

    names: tuple[str, ...] | None = None
    elements: tuple[str, ...] | None = None
    count: int = 20
    max_species: int = MAX_SPECIES
    volume: Volume = "radii"
    contact: float = 1.0

    def __post_init__(self) -> None:
        unknown = [name for name in self.names or () if name not in PROTOTYPES]
        if unknown or self.names == ():
            raise ValueError(f"'names' must hold prototypes ({', '.join(PROTOTYPES)}), got {unknown or 'none'}")
        check_elements(self.elements)
        _check_counts(self)
        check_volume(self.contact)

    @property
    def needs_energy(self) -> bool:
        """Whether a potential is asked."""
        return self.volume == "potential"


@dataclass(frozen=True)
class DecorateSettings:
    """Which elements are put into the input frames, taken as prototypes, [MP-ALOE].

    :param elements: to choose from; each species of a frame becomes one of them, no two the same.
    :param count: structures of each frame, none twice, the frame's own elements are not among them.
    :param max_species: most elements of a frame that is a prototype.
    :param max_atoms: most atoms of one.
    :param volume: see :class:`PrototypeSettings`, with *contact*.
    """

    elements: tuple[str, ...]
    count: int = 20
    max_species: int = MAX_SPECIES
    max_atoms: int = MAX_ATOMS
    volume: Volume = "radii"
    contact: float = 1.0

    def __post_init__(self) -> None:
        check_elements(self.elements)
        _check_counts(self)
        if self.max_atoms < 1:
            raise ValueError(f"'max_atoms' must be at least 1, got {self.max_atoms}")
        check_volume(self.contact)

    @property
    def needs_energy(self) -> bool:
        """Whether a potential is asked."""
        return self.volume == "potential"


def make_prototypes(
    elements: Sequence[str], settings: PrototypeSettings, rng: np.random.Generator, energy: Energy | None = None
) -> Iterator[Made]:
    """Yield primitive cells of prototypes with elements on their sites, or the reason in the place of one.

    The prototypes take turns in an order of chance; one of which every decoration was made is passed over, so that
    there may be fewer than *count*.

    :param energy: for ``volume = "potential"``.
    :raises NotApplicableError: if there are too few elements for any of the prototypes, or one has no covalent radius.
    """
    symbols = settings.elements or tuple(elements)
    require_radii(symbols)
    n_most = min(settings.max_species, len(symbols))
    names = [name for name in settings.names or PROTOTYPES if PROTOTYPES[name].n_species <= n_most]
    if not names:
        raise NotApplicableError("too_few_elements")
    decorations = {name: _decorations(PROTOTYPES[name].kinds, symbols, rng) for name in rng.permutation(names).tolist()}
    for name, chosen in itertools.islice(_take_turns(decorations), settings.count):
        atoms = fit_volume(PROTOTYPES[name].occupy(chosen), settings.contact, energy)
        yield _step(atoms, f"prototype {name}", {"prototype": name, "elements": list(chosen)})


def decorate(
    atoms: Atoms, settings: DecorateSettings, rng: np.random.Generator, energy: Energy | None = None
) -> Iterator[Made]:
    """Yield the frame with other elements on its sites, at another volume, or the reason in the place of one.

    Atoms of one element stay of one element. Nothing but places, cell and periodicity is kept: moments and charges
    belong to the elements that were there.

    :param energy: for ``volume = "potential"``.
    :raises NotApplicableError: if the frame is not periodic along three axes, has too many atoms or elements, or there
        are too few elements to choose from.
    """
    present = sorted(set(atoms.get_chemical_symbols()))
    if not atoms.pbc.all():
        raise NotApplicableError("not_a_crystal")
    if len(atoms) > settings.max_atoms:
        raise NotApplicableError("above_max_atoms")
    if len(present) > settings.max_species:
        raise NotApplicableError("above_max_species")
    if len(present) > len(settings.elements):
        raise NotApplicableError("too_few_elements")
    kinds = "".join(chr(ord("a") + k) for k in range(len(present)))
    others = (chosen for chosen in _decorations(kinds, settings.elements, rng) if list(chosen) != present)
    for chosen in itertools.islice(others, settings.count):
        place = dict(zip(present, chosen, strict=True))
        symbols = [place[symbol] for symbol in atoms.get_chemical_symbols()]
        bare = Atoms(symbols, atoms.positions, cell=atoms.cell.array, pbc=True)
        yield _step(fit_volume(bare, settings.contact, energy), "decorated", {"elements": place})


def _step(atoms: Atoms | DroppedFrameError, text: str, parameters: dict[str, Any]) -> Made:
    if isinstance(atoms, DroppedFrameError):
        return atoms
    formula = atoms.get_chemical_formula(empirical=True)
    return Step(atoms, f"{text} {formula}", {**parameters, "volume_per_atom": atoms.get_volume() / len(atoms)})


def _decorations(kinds: str, symbols: Sequence[str], rng: np.random.Generator) -> Iterator[tuple[str, ...]]:
    """Yield an element for each orbit, all that differ, once each, in an order of chance."""
    n_kinds = len(kinds)
    made: set[tuple[tuple[str, str], ...]] = set()
    n_all = math.perm(len(symbols), n_kinds) // math.prod(math.factorial(kinds.count(k)) for k in set(kinds))
    while len(made) < n_all:
        chosen = [symbols[k] for k in rng.permutation(len(symbols))[:n_kinds]]
        key = tuple(sorted(zip(kinds, chosen, strict=True)))
        if key not in made:
            made.add(key)
            yield tuple(chosen)


def _take_turns(
    decorations: Mapping[str, Iterator[tuple[str, ...]]],
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield one of each in turn, until all are exhausted."""
    live = dict(decorations)
    while live:
        for name in list(live):
            chosen = next(live[name], None)
            if chosen is None:
                del live[name]
            else:
                yield name, chosen


def _check_counts(settings: PrototypeSettings | DecorateSettings) -> None:
    for name in ("count", "max_species"):
        if getattr(settings, name) < 1:
            raise ValueError(f"{name!r} must be at least 1, got {getattr(settings, name)}")
