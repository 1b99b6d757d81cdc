"""Copies of one frame that are deformed and displaced, many at once.

What a copy may bring close to each other is found once, for the base: the pairs of atoms and images within a distance
that covers the strongest compression and the longest displacement of any copy. Every copy is then looked at with a few
operations on whole arrays. Each number of a copy comes from operations on that copy's numbers alone, so that it does
not depend on which copies stand in the block with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.data import covalent_radii

from aiida_alpot.kernel.augmentation.base import Outcome, Step, copy_info
from aiida_alpot.kernel.dataset.atoms import build_frame
from aiida_alpot.kernel.geometry import atoms_in_contact, list_neighbours, nearest_neighbour_distance
from aiida_alpot.kernel.units import FloatArray, IntArray

_FIRST_REACH = 5.0
"""Å, of the first list of pairs, which mostly is the last."""

_MAX_REACH = 8.0
"""Å: copies that need pairs from farther away are looked at one by one, so that the list of pairs stays short."""

_MARGIN = 1.0 + 1e-9
"""Room for rounding in bounds that only choose what is looked at closely."""

_AT_ONCE = 200_000
"""Pairs of copies held in memory at a time."""


class _Pairs(NamedTuple):
    """Pairs of atoms or images in ascending order of distance, each once.

    :ivar vectors: from first to second, shape (3, n_pairs), Å.
    :ivar products: xx, yy, zz, yz, xz, xy of the vectors, off-diagonal ones twice, shape (6, n_pairs).
    """

    first: IntArray
    second: IntArray
    vectors: FloatArray
    products: FloatArray
    distances: FloatArray

    def within(self, reach: float) -> _Pairs:
        """Return the pairs up to a distance."""
        n = int(np.searchsorted(self.distances, reach, side="right"))
        return _Pairs(self.first[:n], self.second[:n], self.vectors[:, :n], self.products[:, :n], self.distances[:n])


class Base:
    """The frame that copies are made of, and what is found out about it once."""

    def __init__(self, atoms: Atoms) -> None:
        self.atoms = atoms
        self._reach = 0.0
        self._pairs: _Pairs | None = None

    @cached_property
    def nearest(self) -> float:
        """Distance of the closest pair, Å."""
        pairs = self.pairs(_FIRST_REACH)
        return float(pairs.distances[0]) if len(pairs.distances) else nearest_neighbour_distance(self.atoms)

    @cached_property
    def plane(self) -> FloatArray:
        """Orthonormal vectors that span the periodic directions, or all of space without one; shape (3, n_dim)."""
        periodic = np.asarray(self.atoms.pbc, dtype=bool)
        return np.linalg.qr(self.atoms.cell.array[periodic].T)[0] if periodic.any() else np.eye(3)

    @cached_property
    def centre(self) -> FloatArray:
        """What a deformation leaves where it is: the origin, or the centre of a frame without a periodic axis."""
        return np.zeros(3) if self.atoms.pbc.any() else self.atoms.positions.mean(axis=0)

    def pairs(self, reach: float) -> _Pairs:
        """Return the pairs up to a distance, which is at most the largest that lists are made for."""
        if self._pairs is None or reach > self._reach:
            self._reach = min(max(1.2 * reach, _FIRST_REACH), _MAX_REACH)
            self._pairs = _list_pairs(self.atoms, self._reach)
        return self._pairs.within(reach)


def _list_pairs(atoms: Atoms, reach: float) -> _Pairs:
    first, second, distances, vectors, shifts = list_neighbours("ijdDS", atoms, reach)
    leading = np.where(shifts[:, 0] != 0, shifts[:, 0], np.where(shifts[:, 1] != 0, shifts[:, 1], shifts[:, 2]))
    once = np.flatnonzero((first < second) | ((first == second) & (leading > 0)))
    order = once[np.argsort(distances[once], kind="stable")]
    x, y, z = vectors[order].T
    products = np.array([x * x, y * y, z * z, 2 * y * z, 2 * x * z, 2 * x * y])
    return _Pairs(first[order], second[order], np.array([x, y, z]), products, distances[order])


class Copies:
    """Copies of one base, each with its own species, deformation and displacements.

    :param frames: the copies before they are deformed: the geometry of the base, species and other arrays their own.
    """

    def __init__(self, base: Base, frames: Sequence[Atoms]) -> None:
        self.base = base
        self.frames = list(frames)
        self.deformations: FloatArray | None = None
        self.displacements: FloatArray | None = None

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def n_atoms(self) -> int:
        """Number of atoms of each copy."""
        return len(self.base.atoms)

    @cached_property
    def radii(self) -> FloatArray:
        """Covalent radii, Å: shape (n_copies, n_atoms), or (1, n_atoms) if the copies have the species of the base."""
        if all(frame is self.base.atoms for frame in self.frames):
            return np.asarray(covalent_radii[self.base.atoms.numbers])[None]
        return np.array([covalent_radii[frame.numbers] for frame in self.frames])

    def select(self, kept: IntArray) -> Copies:
        """Return some of the copies."""
        chosen = Copies(self.base, [self.frames[k] for k in kept.tolist()])
        chosen.deformations = None if self.deformations is None else self.deformations[kept]
        chosen.displacements = None if self.displacements is None else self.displacements[kept]
        return chosen

    def atoms(self, k: int) -> Atoms:
        """Return one copy as a frame of its own."""
        frame, base = self.frames[k], self.base.atoms
        positions, cell = base.positions, base.cell.array
        if self.deformations is not None:
            deformation, periodic = self.deformations[k], np.asarray(base.pbc, dtype=bool)
            positions = (positions - self.base.centre) @ deformation + self.base.centre
            cell = np.where(periodic[:, None], cell @ deformation, cell)
        if self.displacements is not None:
            positions = positions + self.displacements[k]
        return build_frame({**frame.arrays, "positions": positions}, cell, base.pbc, copy_info(frame))

    def nearest_distances(self) -> FloatArray:
        """Return the distance of the closest pair of each copy before displacements, shape (n_copies,), Å."""
        nearest = np.full(len(self), self.base.nearest)
        if self.deformations is None:
            return nearest
        low, high = self._stretches(np.arange(len(self)))
        reach = nearest * high / low * _MARGIN
        for rows in self._chunks(np.flatnonzero(reach <= _MAX_REACH), reach):
            pairs = self.base.pairs(float(reach[rows].max()))
            squares = self._squares(rows, pairs)
            close = squares <= squares.min(axis=1, keepdims=True) * _MARGIN
            copy, pair = np.nonzero(close)
            exact = (self._vectors(rows[copy], pairs, pair) ** 2).sum(axis=0)
            nearest[rows] = np.sqrt(np.minimum.reduceat(exact, np.searchsorted(copy, np.arange(len(rows)))))
        for k in np.flatnonzero(reach > _MAX_REACH).tolist():
            nearest[k] = nearest_neighbour_distance(self._deformed(k))
        return nearest

    def contacts(self, rows: IntArray, min_ratio: float) -> tuple[IntArray, IntArray]:
        """Return copy and atom of all atoms that are closer to another than *min_ratio* times the covalent radii.

        :param rows: the copies that are looked at, ascending.
        :return: in ascending order.
        """
        if min_ratio <= 0.0 or len(rows) == 0:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        reach, room = self._contact_reach(rows, min_ratio)
        found = np.zeros((len(self), self.n_atoms), dtype=bool)
        for chunk in self._chunks(rows[reach[rows] <= _MAX_REACH], reach):
            pairs = self.base.pairs(float(reach[chunk].max()))
            radii = self.radii if len(self.radii) == 1 else self.radii[chunk]
            limits = min_ratio * (radii[:, pairs.first] + radii[:, pairs.second])
            near = self._squares(chunk, pairs) < (limits + room[chunk, None]) ** 2 * _MARGIN
            copy, pair = np.nonzero(near)
            vectors = self._vectors(chunk[copy], pairs, pair)
            first, second = pairs.first[pair], pairs.second[pair]
            if self.displacements is not None:
                moved = self.displacements[chunk[copy], second] - self.displacements[chunk[copy], first]
                vectors = vectors + moved.T
            hit = (vectors**2).sum(axis=0) < np.broadcast_to(limits, near.shape)[copy, pair] ** 2
            found[chunk[copy[hit]], first[hit]] = True
            found[chunk[copy[hit]], second[hit]] = True
        for k in rows[reach[rows] > _MAX_REACH].tolist():
            found[k, atoms_in_contact(self.atoms(k), min_ratio)] = True
        copies, atoms = np.nonzero(found)
        return copies, atoms

    def _contact_reach(self, rows: IntArray, min_ratio: float) -> tuple[FloatArray, FloatArray]:
        """Return the distance in the base up to which pairs can touch, and the room that displacements take up."""
        reach, room = np.zeros(len(self)), np.zeros(len(self))
        if self.displacements is not None:
            room[rows] = 2.0 * np.sqrt((self.displacements[rows] ** 2).sum(axis=2).max(axis=1)) * _MARGIN
        low = 1.0 if self.deformations is None else self._stretches(rows)[0]
        largest = np.broadcast_to(self.radii.max(axis=1), len(self))
        reach[rows] = (2.0 * min_ratio * largest[rows] + room[rows]) / low * _MARGIN
        return reach, room

    def _stretches(self, rows: IntArray) -> tuple[FloatArray, FloatArray]:
        """Return the smallest and the largest factor by which a deformation changes a length, shape (n,) each."""
        assert self.deformations is not None
        metric = self.deformations[rows] @ self.deformations[rows].transpose(0, 2, 1)
        squares = np.linalg.eigvalsh(metric)
        return np.sqrt(np.maximum(squares[:, 0], 1e-12)), np.sqrt(squares[:, -1])

    def _chunks(self, rows: IntArray, reach: FloatArray) -> list[IntArray]:
        """Return *rows* in groups, so that the pairs of a group fit into memory."""
        if len(rows) == 0:
            return []
        n_pairs = len(self.base.pairs(float(reach[rows].max())).first)
        n_rows = max(1, _AT_ONCE // max(n_pairs, 1))
        return [rows[start : start + n_rows] for start in range(0, len(rows), n_rows)]

    def _squares(self, rows: IntArray, pairs: _Pairs) -> FloatArray:
        """Return the squared distances after deformation, shape (n_rows, n_pairs); bounds, since they round."""
        if self.deformations is None:
            return np.broadcast_to(pairs.distances**2, (len(rows), len(pairs.distances)))
        metric = self.deformations[rows] @ self.deformations[rows].transpose(0, 2, 1)
        components = metric[:, [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        return components @ pairs.products

    def _vectors(self, rows: IntArray, pairs: _Pairs, pair: IntArray) -> FloatArray:
        """Return the vectors of single pairs of copies after deformation, shape (3, n)."""
        x, y, z = pairs.vectors[:, pair]
        if self.deformations is None:
            return np.array([x, y, z])
        along_x, along_y, along_z = self.deformations.reshape(-1, 9).T[:, rows].reshape(3, 3, -1)
        return np.asarray(x * along_x + y * along_y + z * along_z)

    def _deformed(self, k: int) -> Atoms:
        one = self.select(np.array([k]))
        one.displacements = None
        return one.atoms(0)


def same_geometry(one: Atoms, other: Atoms) -> bool:
    """Return whether two frames differ in nothing but species and other arrays, bit by bit."""
    return one is other or (
        np.array_equal(one.positions, other.positions)
        and np.array_equal(one.cell.array, other.cell.array)
        and np.array_equal(one.pbc, other.pbc)
    )


def change_one(
    change: Callable[[Copies, Any, Sequence[np.random.Generator]], list[Outcome]],
    atoms: Atoms,
    settings: Any,
    rng: np.random.Generator,
) -> Step:
    """Return one frame after what is defined for many copies.

    :raises NotApplicableError: if it has no meaning for the frame.
    :raises DroppedFrameError: if no acceptable frame was found.
    """
    copies = Copies(Base(atoms), [atoms])
    outcome = change(copies, settings, [rng])[0]
    if isinstance(outcome, Exception):
        raise outcome
    return Step(copies.atoms(0), *outcome)
