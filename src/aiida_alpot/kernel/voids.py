"""The empty spheres between the atoms of a frame: where one more atom has room."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from ase import Atoms
from scipy.spatial import Delaunay, KDTree, QhullError

from aiida_alpot.kernel.geometry import compact_cell, perpendicular_heights
from aiida_alpot.kernel.units import BoolArray, FloatArray, IntArray

_SAME = 1e-3
"""Å, centres of spheres that are closer are one."""
_FLAT = 1e-12
"""Slope of a facet of the paraboloid below which it counts as upright: lower facets slope down."""
_EDGE = 1e-6
"""Fraction of a cell vector by which a point may lie outside the cell."""


class Voids(NamedTuple):
    """Empty spheres that touch atoms on all sides.

    :ivar positions: centres, inside the cell along periodic axes, shape (n, 3), Å.
    :ivar radii: distance to the nearest atom or image, shape (n,), Å.
    """

    positions: FloatArray
    radii: FloatArray


def find_voids(atoms: Atoms, max_radius: float) -> Voids:
    """Return the local maxima of the distance to the nearest atom, up to a radius.

    They are the Voronoi vertices that lie inside their own Delaunay cell. Atoms surround them on all sides, so that no
    point outside the outermost atoms along an axis that is not periodic is one, nor any point of a layer one atom thin.
    The result is that of the infinite crystal: a sphere up to *max_radius* depends on the atoms no farther away. Where
    more than four atoms are nearly at the same distance, a void can have several maxima close together.

    :param max_radius: largest radius, Å.
    :raises ValueError: if the periodic cell vectors are linearly dependent.
    """
    atoms = _with_compact_cell(atoms)
    points, _ = images_within(atoms, max_radius)
    origin = points.mean(axis=0)
    try:
        mesh = Delaunay(points - origin)
    except QhullError:  # fewer than five points, or all in one plane
        return Voids(np.zeros((0, 3)), np.zeros(0))
    centres = _circumcentres(mesh)
    inside = centres[_is_inside(centres + origin, atoms)]
    radii, _ = KDTree(mesh.points).query(inside)
    home = mesh.find_simplex(inside)
    is_maximum = (home >= 0) & (np.linalg.norm(centres[home] - inside, axis=1) < _SAME)
    found = np.flatnonzero(is_maximum & (radii <= max_radius))
    _, first = np.unique(np.round(inside[found] / _SAME), axis=0, return_index=True)
    return Voids(inside[found[first]] + origin, radii[found[first]])


def images_within(atoms: Atoms, distance: float) -> tuple[FloatArray, IntArray]:
    """Return at least all atoms and images no farther than *distance* from a point of the cell.

    The cell is :func:`~aiida_alpot.kernel.geometry.compact_cell`, the frame's own unless that is skew. It has borders
    across the periodic directions only: that of a slab is a prism without end.

    :param distance: Å.
    :return: positions, shape (n, 3), Å, and the atom each is an image of, shape (n,).
    :raises ValueError: if the periodic cell vectors are linearly dependent.
    """
    atoms = _with_compact_cell(atoms)
    vectors = atoms.cell.array[atoms.pbc]
    reach = distance / perpendicular_heights(atoms.cell.array, atoms.pbc)[atoms.pbc] + _EDGE
    scaled = _scaled(atoms.positions, atoms)
    scaled -= np.floor(scaled)
    offset = atoms.positions - _scaled(atoms.positions, atoms) @ vectors
    ranges = [range(-int(np.ceil(n)), int(np.ceil(n)) + 1) for n in reach]
    shifts = np.array(list(itertools.product(*ranges)), dtype=float)
    everywhere = scaled[None] + shifts[:, None]
    _, owner = kept = np.nonzero(((everywhere >= -reach) & (everywhere <= 1.0 + reach)).all(axis=2))
    return everywhere[kept] @ vectors + offset[owner], owner


def _with_compact_cell(atoms: Atoms) -> Atoms:
    cell = compact_cell(atoms.cell.array, atoms.pbc)
    return Atoms(atoms.numbers, atoms.positions, cell=cell, pbc=atoms.pbc)


def _circumcentres(mesh: Delaunay) -> FloatArray:
    """Return the centre of the sphere through the corners of each Delaunay cell, very far away for a flat one.

    Qhull finds the cells as facets of the points lifted to a paraboloid; the hyperplane of a facet tells the centre,
    also of a cell of more than four atoms, which is cut into pieces of which some have no volume.
    """
    height = 2.0 * mesh.paraboloid_scale * mesh.equations[:, 3:4]
    return np.asarray(-mesh.equations[:, :3] / np.minimum(height, -_FLAT))


def _is_inside(points: FloatArray, atoms: Atoms) -> BoolArray:
    """Return which points lie in the cell along its periodic axes; of equivalent points on its border, one does."""
    scaled = _scaled(points, atoms)
    return np.asarray(((scaled >= -_EDGE) & (scaled < 1.0 - _EDGE)).all(axis=1))


def _scaled(points: FloatArray, atoms: Atoms) -> FloatArray:
    """Return coordinates along the periodic vectors, without what is perpendicular to them."""
    return np.asarray(points @ np.linalg.pinv(atoms.cell.array[atoms.pbc]))
