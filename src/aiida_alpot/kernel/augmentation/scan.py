"""Scans of one coordinate: dimers, trimers, and bonds, angles and dihedrals of a molecule."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, get_args

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial.transform import Rotation

from aiida_alpot.kernel.augmentation.base import DroppedFrameError, Made, NotApplicableError, Step
from aiida_alpot.kernel.augmentation.species import require_radii
from aiida_alpot.kernel.defaults import SCAN_POINTS
from aiida_alpot.kernel.geometry import atoms_in_contact, list_neighbours
from aiida_alpot.kernel.units import BoolArray, FloatArray, IntArray

Kind = Literal["dimer", "trimer", "bond", "angle", "dihedral"]

_INTERNAL: Final[dict[int, Kind]] = {2: "bond", 3: "angle", 4: "dihedral"}
"""Kind of an internal coordinate by its number of atoms."""

_SAME: Final = 1e-6
"""Å, between two vectors along the same bond; those to different images are farther apart."""

_LINEAR: Final = 1e-3
"""Sine of an angle below which its three atoms are on a line."""


@dataclass(frozen=True)
class ScanSettings:
    """What is scanned; except for the number of points [SPARC], the numbers are ours.

    :param kinds: ``dimer`` and ``trimer`` of the elements of an input, and every ``bond``, ``angle`` and ``dihedral``
        (one for each bond) of an input that is a molecule.
    :param coordinates: atoms of a bond, angle or dihedral, counted from 0, instead of every one of *kinds*. The two
        atoms of a bond may belong to two molecules.
    :param n_points: of each scan, its ends counted.
    :param min_ratio: smallest distance over the sum of covalent radii: scans of dimers begin there, points of other
        scans at which two atoms are closer are left out.
    :param cutoff: Å, at which scans of dimers end.
    :param trimer_range: degrees, angles of a trimer, whose two bonds are as long as the sums of covalent radii.
    :param bond_range: lengths of a bond over that of the input.
    :param angle_range: degrees, angles less that of the input; it ends at 0 and 180°.
    :param dihedral_range: degrees, dihedrals less that of the input. A full turn does not repeat its first point.
    :param bond_ratio: largest distance of two atoms with a bond over the sum of covalent radii.
    """

    kinds: tuple[Kind, ...] = ("dimer", "bond")
    coordinates: tuple[tuple[int, ...], ...] | None = None
    n_points: int = SCAN_POINTS
    min_ratio: float = 0.6
    cutoff: float = 6.0
    trimer_range: tuple[float, float] = (60.0, 180.0)
    bond_range: tuple[float, float] = (0.8, 2.0)
    angle_range: tuple[float, float] = (-30.0, 30.0)
    dihedral_range: tuple[float, float] = (-180.0, 180.0)
    bond_ratio: float = 1.25

    def __post_init__(self) -> None:
        if not set(self.kinds) <= set(get_args(Kind)):
            raise ValueError(f"'kinds' must be of {', '.join(get_args(Kind))}, got {self.kinds}")
        if not self.kinds and self.coordinates is None:
            raise ValueError("'kinds' must name what is scanned, got none and no 'coordinates'")
        for atoms in self.coordinates or ():
            if len(atoms) not in _INTERNAL or len(set(atoms)) < len(atoms) or min(atoms) < 0:
                raise ValueError(f"'coordinates' must hold 2 to 4 different atoms each, got {atoms}")
        if not 2 <= self.n_points <= 10_000:
            raise ValueError(f"'n_points' must lie in [2, 10000], got {self.n_points}")
        if not 0.0 < self.min_ratio < 1.0:
            raise ValueError(f"'min_ratio' must lie between 0 and 1, got {self.min_ratio}")
        if not 0.0 < self.cutoff <= 100.0:
            raise ValueError(f"'cutoff' must lie in (0, 100] Å, got {self.cutoff}")
        if not 1.0 <= self.bond_ratio <= 2.0:
            raise ValueError(f"'bond_ratio' must lie in [1, 2], got {self.bond_ratio}")
        self._check_range("trimer_range", 0.0, 180.0)
        self._check_range("bond_range", 0.0, 100.0)
        self._check_range("angle_range", -180.0, 180.0)
        self._check_range("dihedral_range", -360.0, 360.0)
        if self.dihedral_range[1] - self.dihedral_range[0] > 360.0:
            raise ValueError(f"'dihedral_range' must be at most a full turn, got {self.dihedral_range}")

    def _check_range(self, name: str, low: float, high: float) -> None:
        first, last = getattr(self, name)
        if not low <= first < last <= high or (name == "bond_range" and first == 0.0):
            raise ValueError(f"{name!r} must ascend within [{low:g}, {high:g}], got {(first, last)}")


class _Coordinate(NamedTuple):
    """An internal coordinate and the atoms that move."""

    atoms: tuple[int, ...]
    moving: BoolArray

    @property
    def kind(self) -> Kind:
        return _INTERNAL[len(self.atoms)]

    @property
    def text(self) -> str:
        return f"scan {self.kind} {'-'.join(map(str, self.atoms))}"


def make_scans(atoms: Atoms, settings: ScanSettings, rng: np.random.Generator | None = None) -> Iterator[Made]:
    """Yield the points of each scan in their order, or the reasons in their place.

    The parameters of a point are its kind, its elements or atoms, and the value of the coordinate, Å or degrees.
    Dimers and trimers are not periodic and have no cell. In a molecule, what hangs on the last atom (of an angle that a
    ring holds there, on the first) moves with it, of a dihedral what hangs on the third, and nothing else changes. The
    reason ``close_contact`` stands for a point; ``beyond_cutoff`` for a dimer; ``ring`` for a
    coordinate that cannot change alone, because other bonds hold the two sides together, ``linear`` for a dihedral
    that is not defined, ``not_bonded`` for one whose last atom does not hang on the third, ``no_such_atom``;
    ``not_a_molecule``, ``close_contact`` of the input and ``no_coordinate`` for all internal coordinates.

    The molecules of a periodic frame are put together across the borders of the cell, each where its first atom is.
    What bonds connect to its own image is ``not_a_molecule``: nothing there is scanned, only molecules beside it are.

    :param rng: not used, nothing is random here.
    :raises NotApplicableError: if an element has no covalent radius, which every scan needs.
    """
    del rng
    elements = sorted(set(atoms.get_chemical_symbols()))
    require_radii(elements)
    if "dimer" in settings.kinds:
        for pair in itertools.combinations_with_replacement(elements, 2):
            yield from _scan_dimer(pair, settings)
    if "trimer" in settings.kinds:
        for centre in elements:
            for first, last in itertools.combinations_with_replacement(elements, 2):
                yield from _scan_trimer((first, centre, last), settings)
    if settings.coordinates is not None or set(settings.kinds) & set(_INTERNAL.values()):
        yield from _scan_molecule(atoms, settings)


def _scan_dimer(symbols: Sequence[str], settings: ScanSettings) -> Iterator[Made]:
    shortest = settings.min_ratio * _bond_length(*symbols)
    if shortest >= settings.cutoff:
        yield NotApplicableError("beyond_cutoff")
        return
    for distance in np.linspace(shortest, settings.cutoff, settings.n_points).tolist():
        dimer = Atoms(list(symbols), [[0.0, 0.0, 0.0], [distance, 0.0, 0.0]])
        yield Step(dimer, f"scan dimer {'-'.join(symbols)}", _parameters("dimer", symbols, distance))


def _scan_trimer(symbols: Sequence[str], settings: ScanSettings) -> Iterator[Made]:
    first, centre, last = symbols
    for angle in np.linspace(*settings.trimer_range, settings.n_points).tolist():
        direction = np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle)), 0.0])
        trimer = Atoms(list(symbols), np.zeros((3, 3)))
        trimer.positions[0, 0] = _bond_length(first, centre)
        trimer.positions[2] = _bond_length(centre, last) * direction
        step = Step(trimer, f"scan trimer {'-'.join(symbols)}", _parameters("trimer", symbols, angle))
        yield _unless_crowded(step, settings)


def _bond_length(first: str, second: str) -> float:
    return float(covalent_radii[atomic_numbers[first]] + covalent_radii[atomic_numbers[second]])


def _parameters(kind: Kind, members: Sequence[Any], value: float) -> dict[str, Any]:
    return {"coordinate": kind, "of": list(members), "value": value}


def _unless_crowded(step: Step, settings: ScanSettings) -> Made:
    is_crowded = len(atoms_in_contact(step.atoms, settings.min_ratio)) > 0
    return DroppedFrameError("close_contact") if is_crowded else step


def _scan_molecule(atoms: Atoms, settings: ScanSettings) -> Iterator[Made]:
    """Yield the scans of all internal coordinates that are asked for.

    :raises NotApplicableError: if there is none.
    """
    if len(atoms_in_contact(atoms, settings.min_ratio)):
        raise NotApplicableError("close_contact")
    is_endless = np.zeros(len(atoms), dtype=bool)
    radii = settings.bond_ratio * covalent_radii[atoms.numbers]
    first, second, vectors = list_neighbours("ijD", atoms, list(radii))
    bonds = np.column_stack([first, second])
    if atoms.pbc.any():
        atoms, is_endless = _put_together(atoms, bonds, vectors)
        bonds = bonds[~is_endless[bonds[:, 0]]]
    chosen = settings.coordinates
    if chosen is None:
        chosen = tuple(_find_coordinates(bonds, len(atoms), settings.kinds))
    if not chosen:
        raise NotApplicableError("no_coordinate")
    for members in chosen:
        if is_endless[[k for k in members if k < len(atoms)]].any():
            yield NotApplicableError("not_a_molecule")
            continue
        try:
            coordinate = _prepare(atoms, members, bonds)
        except NotApplicableError as reason:
            yield reason
            continue
        for moved, value in _move(atoms, coordinate, settings):
            step = Step(moved, coordinate.text, _parameters(coordinate.kind, coordinate.atoms, value))
            yield _unless_crowded(step, settings)


def _put_together(atoms: Atoms, bonds: IntArray, vectors: FloatArray) -> tuple[Atoms, BoolArray]:
    """Return the frame without a molecule across a border of the cell, and which atoms are of none, shape (n_atoms,).

    :param vectors: from the first atom of each bond to the second, shape (n_bonds, 3), Å.
    :raises NotApplicableError: if every atom is connected to its own image.
    """
    whole = atoms.copy()
    neighbours = [np.flatnonzero(bonds[:, 0] == i) for i in range(len(atoms))]
    part = np.full(len(atoms), -1)
    for start in range(len(atoms)):
        waiting = [start] if part[start] < 0 else []
        part[waiting] = start
        while waiting:
            here = waiting.pop()
            for bond in neighbours[here]:
                there = bonds[bond, 1]
                if part[there] < 0:
                    whole.positions[there] = whole.positions[here] + vectors[bond]
                    part[there] = start
                    waiting.append(there)
    spans = whole.positions[bonds[:, 1]] - whole.positions[bonds[:, 0]]
    crossing = bonds[(np.abs(spans - vectors) > _SAME).any(axis=1), 0]
    is_endless = np.isin(part, part[crossing])
    if is_endless.all():
        raise NotApplicableError("not_a_molecule")
    return whole, is_endless


def _find_coordinates(bonds: IntArray, n_atoms: int, kinds: Sequence[Kind]) -> Iterator[tuple[int, ...]]:
    """Yield the atoms of every bond, angle, and bond with a dihedral."""
    neighbours = [sorted(bonds[bonds[:, 0] == i, 1].tolist()) for i in range(n_atoms)]
    pairs = [(i, j) for i in range(n_atoms) for j in neighbours[i] if i < j]
    if "bond" in kinds:
        yield from pairs
    if "angle" in kinds:
        for j in range(n_atoms):
            for i, k in itertools.combinations(neighbours[j], 2):
                yield i, j, k
    if "dihedral" in kinds:
        for j, k in pairs:
            before = [i for i in neighbours[j] if i != k]
            after = [i for i in neighbours[k] if i != j and i not in before[:1]]
            if before and after:
                yield before[0], j, k, after[0]


def _prepare(atoms: Atoms, members: tuple[int, ...], bonds: IntArray) -> _Coordinate:
    """Return the coordinate, in the opposite order of its atoms if only the other side of an angle can move.

    :raises NotApplicableError: if the coordinate cannot be changed alone.
    """
    if max(members) >= len(atoms):
        raise NotApplicableError("no_such_atom")
    n_fixed = min(len(members) - 1, 2)
    for order in (members, members[::-1]):
        moving = _find_side(order[n_fixed], order[n_fixed - 1], bonds, len(atoms))
        if not moving[list(order[:n_fixed])].any():
            break
    else:
        raise NotApplicableError("ring")
    if not moving[order[-1]]:
        raise NotApplicableError("not_bonded")
    if len(order) == 4 and (_is_linear(atoms, order[:3]) or _is_linear(atoms, order[1:])):
        raise NotApplicableError("linear")
    return _Coordinate(order, moving)


def _find_side(first: int, second: int, bonds: IntArray, n_atoms: int) -> BoolArray:
    """Return which atoms are connected to the first one other than by its bond to the second, shape (n_atoms,)."""
    kept = bonds[~np.isin(bonds, (first, second)).all(axis=1)]
    graph = csr_array((np.ones(len(kept)), (kept[:, 0], kept[:, 1])), shape=(n_atoms, n_atoms))
    parts = connected_components(graph, directed=False)[1]
    return np.asarray(parts == parts[first])


def _is_linear(atoms: Atoms, members: tuple[int, ...]) -> bool:
    return bool(abs(np.sin(np.radians(atoms.get_angle(*members)))) < _LINEAR)


def _move(atoms: Atoms, coordinate: _Coordinate, settings: ScanSettings) -> Iterator[tuple[Atoms, float]]:
    """Yield the molecule at each point with the value of the coordinate."""
    members, n_points = coordinate.atoms, settings.n_points
    if coordinate.kind == "bond":
        present = atoms.get_distance(*members)
        direction = (atoms.positions[members[1]] - atoms.positions[members[0]]) / present
        for value in (present * np.linspace(*settings.bond_range, n_points)).tolist():
            yield _displace(atoms, coordinate.moving, (value - present) * direction), value
    elif coordinate.kind == "angle":
        present = atoms.get_angle(*members)
        low, high = np.clip(present + np.array(settings.angle_range), 0.0, 180.0).tolist()
        axis = _normal(atoms, members)
        for value in np.linspace(low, high, n_points).tolist():
            yield _turn(atoms, coordinate.moving, members[1], (value - present) * axis), value
    else:
        present = atoms.get_dihedral(*members)
        low, high = settings.dihedral_range
        axis = atoms.positions[members[2]] - atoms.positions[members[1]]
        axis /= np.linalg.norm(axis)
        for turn in np.linspace(low, high, n_points, endpoint=high - low < 360.0).tolist():
            yield _turn(atoms, coordinate.moving, members[2], turn * axis), (present + turn) % 360.0


def _normal(atoms: Atoms, members: tuple[int, ...]) -> FloatArray:
    """Return the axis about which an angle widens, any normal to the line of three atoms on one."""
    before, after = (atoms.positions[members[k]] - atoms.positions[members[1]] for k in (0, 2))
    normal = np.cross(before, after)
    if _is_linear(atoms, members):
        normal = np.cross(before, np.eye(3)[np.argmin(np.abs(before))])
    return np.asarray(normal / np.linalg.norm(normal))


def _displace(atoms: Atoms, moving: BoolArray, shift: FloatArray) -> Atoms:
    moved = atoms.copy()
    moved.positions[moving] += shift
    return moved


def _turn(atoms: Atoms, moving: BoolArray, centre: int, degrees: FloatArray) -> Atoms:
    """Return the frame with atoms turned about one of them, by a vector along the axis."""
    moved = atoms.copy()
    origin = atoms.positions[centre]
    moved.positions[moving] = Rotation.from_rotvec(degrees, degrees=True).apply(atoms.positions[moving] - origin)
    moved.positions[moving] += origin
    return moved
