"""Distances and heights of a frame, exact for cells of any size and shape.

Periodic images count as neighbours, an atom's own images too: a cell of one atom has the nearest-neighbour distance of
its lattice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from ase import Atoms
from ase.data import covalent_radii
from ase.geometry import complete_cell, minkowski_reduce
from ase.neighborlist import primitive_neighbor_list

from aiida_alpot.kernel.units import BoolArray, FloatArray, IntArray

_FIRST_REACH = 3.0
"""Å, first cutoff of the search for the closest pair; it is doubled until a pair is found."""

_DEPENDENT = 1e-12
"""Square of the volume that unit vectors span, below which they count as linearly dependent."""


class Pair(NamedTuple):
    """Two atoms, or an atom and an image, with the distance (Å) or the scaled distance between them."""

    i: int
    j: int
    distance: float


def nearest_neighbour_distance(atoms: Atoms) -> float:
    """Return the shortest distance between two atoms or images of atoms.

    :return: Å; infinite if there is no second atom and no image.
    :raises ValueError: if the frame has no atoms, a position is not finite, or a periodic axis has no cell vector.
    """
    pair = closest_pair(atoms)
    return np.inf if pair is None else pair.distance


def closest_pair(atoms: Atoms) -> Pair | None:
    """Return the closest pair of atoms or images, ``None`` for an isolated atom.

    :raises ValueError: as :func:`nearest_neighbour_distance`.
    """
    return _closest(atoms, np.full(len(atoms), 0.5))


def closest_pair_ratio(atoms: Atoms) -> float:
    """Return the smallest distance over the sum of the two covalent radii (Cordero 2008, as in ASE).

    :return: without unit; about 1 for a single bond, infinite for an isolated atom.
    :raises ValueError: as :func:`nearest_neighbour_distance`.
    """
    pair = _closest(atoms, covalent_radii[atoms.numbers])
    return np.inf if pair is None else pair.distance


def atoms_in_contact(atoms: Atoms, min_ratio: float) -> IntArray:
    """Return the sorted indices of the atoms that are closer than *min_ratio* times the sum of covalent radii.

    :param min_ratio: limit of :func:`closest_pair_ratio`, without unit.
    :raises ValueError: as :func:`nearest_neighbour_distance`.
    """
    if min_ratio <= 0.0:
        return np.zeros(0, dtype=np.int64)
    first, second, _ = _pairs(atoms, min_ratio * covalent_radii[atoms.numbers])
    return np.union1d(first, second).astype(np.int64)


def perpendicular_heights(cell: npt.ArrayLike, pbc: npt.ArrayLike | None = None) -> FloatArray:
    """Return the distance between opposite faces of a cell along each axis.

    Heights are taken in the space that the periodic vectors span: the in-plane heights of a slab do not depend on how
    its third vector is tilted. The height, not the length of a vector, bounds the distance to the nearest image.

    :param cell: three vectors as rows, Å.
    :param pbc: which axes are periodic; all vectors that are not zero if omitted.
    :return: shape (3,), Å; infinite along an axis that is not periodic.
    :raises ValueError: if the periodic vectors are linearly dependent.
    """
    vectors = np.asarray(cell, dtype=float).reshape(3, 3)
    periodic = vectors.any(axis=1) if pbc is None else np.broadcast_to(np.asarray(pbc, dtype=bool), 3)
    heights = np.full(3, np.inf)
    if not periodic.any():
        return heights
    rows = vectors[periodic]
    if np.linalg.matrix_rank(rows) < len(rows):
        raise ValueError(f"the periodic cell vectors are linearly dependent: {rows.tolist()}")
    heights[periodic] = 1.0 / np.linalg.norm(np.linalg.pinv(rows), axis=0)
    return heights


def compact_cell(cell: FloatArray, pbc: npt.ArrayLike) -> FloatArray:
    """Return vectors of the same lattice that are short, so that no search for neighbours visits many images.

    Only the periodic vectors change, and only if one of them is more than twice as long as its height.

    :param cell: vectors as rows, shape (3, 3), Å.
    :return: Minkowski-reduced where it is skew, shape (3, 3), Å.
    :raises ValueError: if the periodic vectors are linearly dependent.
    """
    periodic = np.asarray(pbc, dtype=bool)
    lengths = np.linalg.norm(cell, axis=1)
    if not (periodic & (perpendicular_heights(cell, periodic) < 0.5 * lengths)).any():
        return cell
    return np.asarray(minkowski_reduce(cell, pbc=periodic)[0])


def list_neighbours(quantities: str, atoms: Atoms, cutoff: float | Sequence[float]) -> tuple[Any, ...]:
    """Return what :func:`ase.neighborlist.primitive_neighbor_list` does, in a time that no choice of vectors changes.

    It bins atoms along the cell vectors, and visits many bins where these are skew. The search has
    :func:`compact_cell`, and along axes that are not periodic, whose vectors have no meaning for distances, the extent
    of the atoms. So shifts ``S`` refer to the vectors of :func:`compact_cell`.

    :param cutoff: Å, or a radius of each atom.
    :raises ValueError: if the periodic vectors are linearly dependent.
    """
    periodic = np.asarray(atoms.pbc, dtype=bool)
    cell = np.where(periodic[:, None], compact_cell(atoms.cell.array, periodic), 0.0)
    cell = np.asarray(complete_cell(cell))
    positions = atoms.positions
    if not periodic.all():
        normals = cell[~periodic]  # orthogonal to all others, of length 1
        heights = positions @ normals.T
        positions = positions - heights.min(axis=0) @ normals
        # no more bins than atoms along an axis: the last bin takes those that are far away
        cell[~periodic] *= np.clip(np.ptp(heights, axis=0), 1.0, 3.0 * len(atoms))[:, None]
    found = primitive_neighbor_list(quantities, atoms.pbc, cell, positions, cutoff)
    return found if len(quantities) > 1 else (found,)


def smallest_heights(cells: FloatArray, pbc: BoolArray) -> FloatArray:
    """Return the smallest of the :func:`perpendicular_heights` of each of many cells.

    With unit vectors u along the periodic axes, and the Gram matrix G of them, h_i² = c_i² det(G) / cofactor_ii(G).

    :param cells: vectors as rows, shape (n, 3, 3), Å, finite.
    :param pbc: shape (n, 3).
    :return: shape (n,), Å; 0 if the periodic vectors are linearly dependent, infinite if no axis is periodic.
    """
    used = pbc & cells.any(axis=2)
    scale = np.where(used, np.abs(cells).max(axis=2), 1.0)
    vectors = np.where(used[..., None], cells / scale[..., None], 0.0)
    lengths = np.where(used, np.sqrt((vectors**2).sum(axis=2)), 1.0)
    a, b, c = np.moveaxis(vectors / lengths[..., None], 1, 0)
    ab, bc, ca = ((first * second).sum(axis=1) for first, second in ((a, b), (b, c), (c, a)))
    determinant = 1.0 + 2.0 * ab * bc * ca - ab**2 - bc**2 - ca**2
    cofactors = np.stack([1.0 - bc**2, 1.0 - ca**2, 1.0 - ab**2], axis=1)
    independent = np.broadcast_to((determinant > _DEPENDENT)[:, None], pbc.shape)
    ratios = np.divide(determinant[:, None], cofactors, where=independent, out=np.zeros(pbc.shape))
    heights = used * scale * lengths * np.sqrt(ratios)
    return np.asarray(np.where(pbc, heights, np.inf).min(axis=1))


def _closest(atoms: Atoms, radii: FloatArray) -> Pair | None:
    """Return the pair with the smallest distance over the sum of *radii*.

    All pairs below a scale are listed, so the smallest of them is exact; the scale is doubled until there is one. The
    shortest periodic vector, or the extent of a finite frame, bounds the scale.
    """
    bound = _largest_scale(atoms, radii)
    if not np.isfinite(bound):
        return None
    scale = _FIRST_REACH / (2.0 * float(radii.max()))
    while True:
        scale = min(scale, bound)
        first, second, distance = _pairs(atoms, scale * radii)
        if len(distance):
            scaled = distance / (radii[first] + radii[second])
            best = int(np.argmin(scaled))
            return Pair(int(first[best]), int(second[best]), float(scaled[best]))
        if scale >= bound:  # unreachable up to rounding of the bound
            bound *= 2.0
        scale *= 2.0


def _largest_scale(atoms: Atoms, radii: FloatArray) -> float:
    """Return a scale at which at least one pair is certain to be found; infinite if there is none at any scale."""
    _check(atoms)
    if atoms.pbc.any():
        shortest = float(np.linalg.norm(atoms.cell.array[atoms.pbc], axis=1).min())
        return 1.001 * shortest / (2.0 * float(radii.max()))
    if len(atoms) < 2:
        return np.inf
    extent = float(np.linalg.norm(np.ptp(atoms.positions, axis=0)))
    return (1.001 * extent + 1e-6) / (2.0 * float(radii.min()))


def _pairs(atoms: Atoms, radii: FloatArray) -> tuple[IntArray, IntArray, FloatArray]:
    """Return first atom, second atom and distance of all pairs closer than the sum of their *radii*."""
    _check(atoms)
    first, second, distance = list_neighbours("ijd", atoms, list(radii))
    return first, second, distance


def _check(atoms: Atoms) -> None:
    if len(atoms) == 0:
        raise ValueError("a frame without atoms has no distances")
    if not np.isfinite(atoms.positions).all():
        raise ValueError("a position is not finite")
    missing = atoms.pbc & ~atoms.cell.array.any(axis=1)
    if missing.any():
        raise ValueError(f"periodic axes without a cell vector: {np.flatnonzero(missing).tolist()}")
