"""The smallest cell whose images are far enough apart, over all superlattices of a lattice, not the diagonal ones only.

The volume of a cell is at least the length of a vector times the square of the smallest height, and at least the area
of a face times that height. This bounds the vectors and faces of every cell that is better than a given one, so that
all of them can be listed: what is found is the best there is.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from ase import Atoms
from ase.geometry import minkowski_reduce

from aiida_alpot.kernel.units import FloatArray, IntArray

_BALL: Final = {1: 2.0, 2: math.pi, 3: 4.0 * math.pi / 3.0}
"""Volume of the unit ball by dimension."""

_SLACKS: Final = tuple(0.001 * 2**step for step in range(15))
"""How far from a cube the search goes, one after the other: it ends with the first in which there is a cell."""

_MAX_VECTORS: Final = 800
"""Most lattice vectors in a search, which takes a second then."""

_ROUNDING: Final = 1e-9


class _Cell(NamedTuple):
    """A cell of a superlattice: number of primitive cells, smallest height (Å), and its vectors in the basis."""

    n_cells: int
    height: float
    matrix: IntArray


def find_superlattice(cell: npt.ArrayLike, pbc: npt.ArrayLike, min_length: float, max_cells: int) -> IntArray | None:
    """Return the cell of fewest lattice cells whose perpendicular heights all reach *min_length*.

    If that takes more than *max_cells*, the cell of at most *max_cells* with the largest smallest height. Among equals
    the one with the largest smallest height, then with the shortest vectors, is returned.

    :param cell: three vectors as rows, Å.
    :param pbc: which axes are periodic; heights are taken in the space that these vectors span.
    :param min_length: Å.
    :return: integer matrix of the new vectors in terms of the old ones, shape (3, 3), with a positive determinant; the
        identity along axes that are not periodic. ``None`` if cells so large are asked for that the search would take
        too long.
    """
    periodic = np.flatnonzero(np.broadcast_to(np.asarray(pbc, dtype=bool), 3))
    matrix = np.eye(3, dtype=np.int64)
    if len(periodic) == 0:
        return matrix
    basis, reduction = _reduced(np.asarray(cell, dtype=float)[periodic])
    cells = _large_enough(basis, min_length, max_cells)
    if cells:
        best = min(cells, key=lambda item: (item.n_cells, *_shape_key(basis, item)))
    elif cells is not None and (cells := _within_cap(basis, min_length, max_cells)):
        best = min(cells, key=lambda item: (*_shape_key(basis, item), item.n_cells))
    else:
        return None
    matrix[np.ix_(periodic, periodic)] = _oriented(best.matrix @ reduction)
    return matrix


def repeat_cell(atoms: Atoms, matrix: IntArray) -> Atoms:
    """Return the frame in a cell of a superlattice, with the total ``charge`` times the number of cells.

    The cell is repeated along its own axes as often as the diagonal of the Hermite normal form says, which gives every
    site of the new cell once, and the atoms are wrapped into it.

    :param matrix: new cell vectors in terms of the old ones, shape (3, 3).
    """
    first = math.gcd(*(int(entry) for entry in matrix[:, 0]))
    minors = [np.cross(matrix[i], matrix[j])[2] for i, j in ((0, 1), (0, 2), (1, 2))]
    second = math.gcd(*(int(entry) for entry in minors))
    n_cells = abs(_determinant(matrix))
    larger = atoms.repeat((first, second // first, n_cells // second))
    if "charge" in larger.info:
        larger.info["charge"] = larger.info["charge"] * n_cells
    if np.count_nonzero(matrix - np.diag(np.diag(matrix))):
        larger.set_cell(matrix @ atoms.cell.array)
        larger.wrap()
    return larger


def _reduced(vectors: FloatArray) -> tuple[FloatArray, IntArray]:
    """Return a reduced basis in coordinates of the space it spans, shape (n, n), and its transformation."""
    n_dim = len(vectors)
    embedded = np.eye(3)
    embedded[:n_dim, :n_dim] = np.linalg.qr(vectors.T)[1].T
    _, operation = minkowski_reduce(embedded, pbc=[axis < n_dim for axis in range(3)])
    reduction = np.asarray(operation, dtype=np.int64)[:n_dim, :n_dim]
    return reduction @ embedded[:n_dim, :n_dim], reduction


def _large_enough(basis: FloatArray, min_length: float, max_cells: int) -> list[_Cell] | None:
    """Return cells with heights of at least *min_length*, the smallest among them; none if all exceed the cap."""
    n_dim, unit = len(basis), abs(np.linalg.det(basis))
    for slack in _SLACKS:
        limit = math.floor(min_length**n_dim * (1.0 + slack) / unit)
        cells = _list_cells(basis, min_length, min(max(limit, 1), max_cells))
        if cells is None or cells or limit >= max_cells:
            return cells
    return None


def _within_cap(basis: FloatArray, min_length: float, max_cells: int) -> list[_Cell] | None:
    """Return cells within the cap, the one with the largest smallest height among them."""
    n_dim, unit = len(basis), abs(np.linalg.det(basis))
    longest = min(min_length, (max_cells * unit) ** (1.0 / n_dim))
    for slack in _SLACKS:
        cells = _list_cells(basis, longest / (1.0 + slack), max_cells)
        if cells is None or cells:
            return cells
    return None


def _shape_key(basis: FloatArray, item: _Cell) -> tuple[float, float, list[int]]:
    """Return what orders cells by shape, the best first, the same on every machine."""
    vectors = item.matrix @ basis
    return (
        -round(item.height, 6),
        round(float((vectors**2).sum()), 6),
        [-entry for entry in item.matrix.ravel().tolist()],
    )


def _list_cells(basis: FloatArray, min_length: float, max_cells: int) -> list[_Cell] | None:
    """Return all cells of at most *max_cells* whose heights reach *min_length*, up to signs and order of vectors.

    :return: ``None`` if there are too many vectors to combine.
    """
    n_dim, unit = len(basis), abs(np.linalg.det(basis))
    volume = max_cells * unit * (1.0 + _ROUNDING)
    shortest = min_length * (1.0 - _ROUNDING)
    longest = volume / shortest ** (n_dim - 1)
    if longest < shortest:
        return []
    if _BALL[n_dim] * (longest**n_dim - shortest**n_dim) / (2.0 * unit) > _MAX_VECTORS:
        return None
    integers = _half_shell(basis, shortest, longest)
    combinations, heights = _combined(integers @ basis, shortest, volume)
    return [
        _Cell(abs(_determinant(matrix)), float(height), matrix)
        for matrix, height in zip(integers[combinations], heights, strict=True)
    ]


def _half_shell(basis: FloatArray, shortest: float, longest: float) -> IntArray:
    """Return one of each pair ±v of lattice vectors of a length within bounds, by length."""
    reach = np.floor(longest * np.linalg.norm(np.linalg.inv(basis), axis=0) + _ROUNDING).astype(int)
    axes = [np.arange(-extent, extent + 1) for extent in reach]
    integers = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(basis))
    integers = integers[len(integers) // 2 + 1 :]
    lengths = np.linalg.norm(integers @ basis, axis=1)
    inside = (lengths >= shortest) & (lengths <= longest)
    order = np.argsort(np.round(lengths[inside], 6), kind="stable")
    return np.asarray(integers[inside][order], dtype=np.int64)


def _combined(vectors: FloatArray, shortest: float, volume: float) -> tuple[IntArray, FloatArray]:
    """Return which vectors make a cell of heights of at least *shortest* and of at most *volume*, and its height.

    The heights of a face are no smaller than those of the cell, so that the pairs are sorted out before the triples.

    :param vectors: shape (n, n_dim), Å.
    :return: indices, shape (n_cells, n_dim), and smallest heights, shape (n_cells,), Å.
    """
    n_vectors, n_dim = vectors.shape
    lengths = np.linalg.norm(vectors, axis=1)
    if n_dim == 1:
        return np.arange(n_vectors)[:, None], lengths
    products = vectors @ vectors.T
    areas = np.sqrt(np.maximum(np.outer(lengths, lengths) ** 2 - products**2, 0.0))
    heights = areas / np.maximum.outer(lengths, lengths)
    fits = np.triu((heights >= shortest) & (areas <= volume / shortest ** (n_dim - 2)), 1)
    pairs = np.argwhere(fits)
    if n_dim == 2:
        return pairs, heights[fits]
    triples = [np.zeros((0, 3), dtype=np.int64)]
    for first in range(n_vectors):
        partners = np.flatnonzero(fits[first])
        both = partners[np.argwhere(fits[np.ix_(partners, partners)])]
        triples.append(np.column_stack([np.full(len(both), first), both]))
    i, j, k = np.concatenate(triples).T
    volumes = np.abs(np.einsum("ij,ij->i", np.cross(vectors[i], vectors[j]), vectors[k]))
    smallest = volumes / np.maximum(np.maximum(areas[i, j], areas[j, k]), areas[i, k])
    good = (volumes <= volume) & (smallest >= shortest)
    return np.stack([i, j, k], axis=1)[good], smallest[good]


def _oriented(matrix: IntArray) -> IntArray:
    """Return the matrix with its vectors turned round where that gives more positive entries, and right-handed."""
    signs = np.where(matrix.sum(axis=1) < 0, -1, 1)
    matrix = matrix * signs[:, None]
    return matrix if _determinant(matrix) > 0 else np.concatenate([matrix[:-1], -matrix[-1:]])


def _determinant(matrix: IntArray) -> int:
    return round(float(np.linalg.det(matrix)))
