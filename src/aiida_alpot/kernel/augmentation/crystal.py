"""A crystal seen along a lattice plane: what slabs, stacking faults and twins have in common.

Miller indices refer to the conventional cell that spglib gives a crystal (for a triclinic one, its Niggli cell), so
that they mean the same whatever cell of the crystal is given. Planes and cuts are distinct if no symmetry operation of
the crystal maps one onto the other, operations that turn the normal round and mirror images included.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from ase import Atoms
from ase.geometry import minkowski_reduce

from aiida_alpot.kernel._extras import require
from aiida_alpot.kernel.augmentation.base import NotApplicableError, clean_child
from aiida_alpot.kernel.geometry import perpendicular_heights
from aiida_alpot.kernel.superlattice import find_superlattice, repeat_cell
from aiida_alpot.kernel.units import FloatArray, IntArray

Indices = tuple[int, int, int]
"""Miller indices of a plane or of a direction."""

MAX_INDEX: Final = 6
"""Largest Miller index that all distinct planes can be asked for up to."""

_VACUUM: Final = 8.0
"""Å, widest gap between neighbouring atomic layers in anything that counts as a crystal."""


@dataclass(frozen=True)
class Crystal:
    """A primitive cell in the orientation of the input, and its symmetry.

    :ivar atoms: the primitive cell; its ``charge`` is that of the input per atom, times the number of atoms.
    :ivar conventional: vectors of the conventional cell in terms of the primitive ones, integer, as rows.
    :ivar rotations: in fractional coordinates of the primitive cell, for columns, shape (n, 3, 3).
    :ivar translations: fractional, shape (n, 3).
    """

    atoms: Atoms
    conventional: IntArray
    rotations: IntArray
    translations: FloatArray


class PlaneSymmetry(NamedTuple):
    """An operation that maps a family of planes onto itself.

    :ivar sign: -1 if it turns the normal round.
    :ivar shift: along the normal, in spacings: a height z becomes ``sign * z + shift``.
    :ivar in_plane: what it does to fractional coordinates in the plane (columns), shape (2, 2).
    """

    sign: int
    shift: float
    in_plane: IntArray


class Cut(NamedTuple):
    """Where a crystal can be cut: the middle of a gap between two layers.

    :ivar height: in spacings, in [0, 1).
    :ivar gap: Å, from the highest atom below to the lowest one above.
    """

    height: float
    gap: float


@dataclass(frozen=True)
class PlaneStack:
    """A crystal in a cell of which two vectors span a lattice plane and the third leads to the next one.

    :ivar indices: of the plane, coprime.
    :ivar atoms: right-handed; the first two vectors are reduced.
    :ivar basis: the three vectors in terms of the primitive ones, as rows.
    :ivar spacing: Å, between neighbouring lattice planes.
    :ivar symmetries: operations of the crystal that keep the planes.
    """

    indices: Indices
    atoms: Atoms
    basis: IntArray
    spacing: float
    symmetries: tuple[PlaneSymmetry, ...]

    @property
    def heights(self) -> FloatArray:
        """Return the height of every atom in spacings, in [0, 1)."""
        heights = np.linalg.solve(self.atoms.cell.array.T, self.atoms.positions.T)[2] % 1.0
        return np.where(heights < 1.0, heights, 0.0)


def find_crystal(atoms: Atoms, symprec: float) -> Crystal:
    """Return the primitive cell and the symmetry of a frame.

    Atoms with different initial magnetic moments count as different species: the primitive cell of an antiferromagnet
    is its magnetic one. The positions are those of the input, not idealised ones.

    :param symprec: Å, how far atoms may be from where symmetry wants them.
    :raises NotApplicableError: if the frame is not periodic along three axes, holds a vacuum, or has no cell that
        spglib understands.
    """
    if not atoms.pbc.all():
        raise NotApplicableError("not_a_crystal")
    if _holds_vacuum(atoms):
        raise NotApplicableError("holds_vacuum")
    dataset = _symmetry(atoms, symprec)
    _, first = np.unique(dataset.mapping_to_primitive, return_index=True)
    primitive = clean_child(atoms)[np.sort(first)]
    primitive.set_cell(dataset.primitive_lattice)
    primitive.wrap()
    if "charge" in primitive.info:
        primitive.info["charge"] = primitive.info["charge"] * len(primitive) / len(atoms)
    # of a supercell whose shape breaks the point group, spglib lists only some of the operations
    symmetry = _symmetry(primitive, symprec)
    conventional = np.rint(np.linalg.inv(symmetry.transformation_matrix).T).astype(np.int64)
    return Crystal(primitive, conventional, symmetry.rotations.astype(np.int64), symmetry.translations)


def _symmetry(atoms: Atoms, symprec: float) -> Any:
    spglib = require("spglib", extra="augment")
    moments = atoms.get_initial_magnetic_moments().reshape(len(atoms), -1)
    _, species = np.unique(np.column_stack([atoms.numbers, moments.round(3)]), axis=0, return_inverse=True)
    cell = (atoms.cell.array, atoms.get_scaled_positions(), species.ravel())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of how spglib reports errors, at every call
        try:
            dataset = spglib.get_symmetry_dataset(cell, symprec=symprec)
        except spglib.SpglibError:
            dataset = None
    if dataset is None:
        raise NotApplicableError("no_symmetry_found")
    return dataset


def _holds_vacuum(atoms: Atoms) -> bool:
    """Return whether no atom lies in a layer of the cell that is thicker than any gap of a crystal."""
    heights = perpendicular_heights(atoms.cell.array)
    scaled = np.sort(atoms.get_scaled_positions(), axis=0)
    gaps = np.diff(np.vstack([scaled, scaled[:1] + 1.0]), axis=0).max(axis=0)
    return bool((gaps * heights > _VACUUM).any())


def distinct_planes(crystal: Crystal, planes: Sequence[Indices] | None, max_index: int) -> list[Indices]:
    """Return one of every set of equivalent planes, by increasing indices or in the order given.

    :param planes: those to take from; all with indices up to *max_index* if ``None``.
    """
    to_conventional = crystal.conventional.T
    conjugated = np.linalg.inv(to_conventional) @ crystal.rotations @ to_conventional
    rotations = np.rint(conjugated).astype(np.int64)
    distinct: list[Indices] = []
    seen: set[Indices] = set()
    for plane in _all_planes(max_index) if planes is None else [_coprime(plane) for plane in planes]:
        if plane in seen:
            continue
        distinct.append(plane)
        for rotation in rotations:
            image = np.array(plane) @ rotation
            seen |= {_as_indices(image), _as_indices(-image)}
    return distinct


def _all_planes(max_index: int) -> list[Indices]:
    """Return all coprime indices up to a maximum, one of each ±, the simplest first."""
    span = range(-max_index, max_index + 1)
    planes = [plane for plane in itertools.product(span, span, span) if math.gcd(*plane) == 1]
    planes.sort(key=lambda plane: (max(map(abs, plane)), sum(map(abs, plane)), [-index for index in plane]))
    return [plane for plane in planes if next(index for index in plane if index) > 0]


def check_planes(planes: Sequence[Indices] | None, max_index: int) -> None:
    """Refuse indices that belong to no plane.

    :raises ValueError: naming the setting.
    """
    for plane in planes or ():
        if not any(plane):
            raise ValueError(f"'planes' must not hold {plane}, which is no plane")
    if planes is not None and not planes:
        raise ValueError("'planes' must name at least one plane, or be left out")
    if not 1 <= max_index <= MAX_INDEX:
        raise ValueError(f"'max_index' must lie in [1, {MAX_INDEX}], got {max_index}")


def format_indices(indices: Sequence[int]) -> str:
    """Return indices as text: ``111``, ``1-10``, and ``1_-12_3`` if one has two digits."""
    separator = "" if max(map(abs, indices)) < 10 else "_"
    return separator.join(str(index) for index in indices)


def stack_along(crystal: Crystal, indices: Indices) -> PlaneStack:
    """Return the crystal in a cell along the planes of the given indices."""
    covector = np.array(_coprime(_adjugate(crystal.conventional) @ indices))
    basis = _plane_basis(covector, crystal.atoms.cell.array)
    stack = crystal.atoms.copy()
    stack.set_cell(basis @ crystal.atoms.cell.array)
    stack.wrap()
    inverse = np.linalg.inv(basis.T)
    symmetries = []
    for rotation, translation in zip(crystal.rotations, crystal.translations, strict=True):
        image = covector @ rotation
        for sign in (1, -1):
            if np.array_equal(image, sign * covector):
                in_plane = np.rint(inverse @ rotation @ basis.T).astype(np.int64)[:2, :2]
                symmetries.append(PlaneSymmetry(sign, float(covector @ translation) % 1.0, in_plane))
    spacing = float(perpendicular_heights(stack.cell.array)[2])
    return PlaneStack(indices, stack, basis, spacing, tuple(symmetries))


def _adjugate(matrix: IntArray) -> IntArray:
    return np.asarray(np.rint(np.linalg.inv(matrix) * np.linalg.det(matrix)), dtype=np.int64)


def _coprime(indices: Sequence[int] | IntArray) -> Indices:
    values = _as_indices(indices)
    return _as_indices([value // math.gcd(*values) for value in values])


def _as_indices(values: Sequence[int] | IntArray) -> Indices:
    first, second, third = (int(value) for value in values)
    return first, second, third


def _plane_basis(covector: IntArray, cell: FloatArray) -> IntArray:
    """Return lattice vectors u, v, w as rows with covector·u = covector·v = 0 and covector·w = 1, short ones."""
    first, second, third = _as_indices(covector)
    common, p, q = _bezout(first, second)
    _, r, s = _bezout(common, third)
    in_plane = (
        [(second // common, -first // common, 0), (-p * third, -q * third, common)]
        if common
        else [(1, 0, 0), (0, 1, 0)]
    )
    basis = np.array([*in_plane, (r * p, r * q, s)], dtype=np.int64)
    _, operation = minkowski_reduce(_flat(basis @ cell), pbc=(True, True, False))
    basis[:2] = np.asarray(operation, dtype=np.int64)[:2, :2] @ basis[:2]
    vectors = basis @ cell
    if np.linalg.det(vectors) < 0.0:
        basis[1] *= -1
    offset = np.linalg.lstsq((basis[:2] @ cell).T, vectors[2], rcond=None)[0]
    basis[2] -= np.rint(offset).astype(np.int64) @ basis[:2]
    return basis


def _flat(vectors: FloatArray) -> FloatArray:
    """Return a cell with the first two vectors in the xy plane and the third along z."""
    flat = np.eye(3)
    flat[:2, :2] = np.linalg.qr(vectors[:2].T)[1].T
    return flat


def _bezout(a: int, b: int) -> tuple[int, int, int]:
    """Return (g, x, y) with ``a x + b y = g``, the greatest common divisor, not negative."""
    if b == 0:
        return abs(a), (a > 0) - (a < 0), 0
    common, x, y = _bezout(b, a % b)
    return common, y, x - a // b * y


def find_cuts(stack: PlaneStack, tolerance: float) -> list[Cut]:
    """Return where a crystal can be cut parallel to the planes, the widest gap first.

    :param tolerance: Å, layers closer than this are not cut apart. If there is no wider gap, the widest is taken.
    """
    heights = np.sort(stack.heights)
    widths = np.diff([*heights, heights[0] + 1.0])
    cuts = [
        Cut(float(height + 0.5 * width) % 1.0, float(width) * stack.spacing)
        for height, width in zip(heights, widths, strict=True)
    ]
    cuts.sort(key=lambda cut: (-round(cut.gap, 3), round(cut.height, 3)))
    wide = [cut for cut in cuts if cut.gap > tolerance]
    return wide or cuts[:1]


def distinct_heights(
    heights: Sequence[float], stack: PlaneStack, tolerance: float, *, turned: bool = True
) -> list[float]:
    """Return the first of every set of equivalent heights.

    :param heights: in spacings.
    :param tolerance: Å, within which two heights are the same.
    :param turned: whether operations that turn the normal round count.
    """
    distinct: list[float] = []
    operations = [symmetry for symmetry in stack.symmetries if turned or symmetry.sign == 1]
    for height in heights:
        images = [symmetry.sign * height + symmetry.shift for symmetry in operations]
        if not any(is_same_height(image, other, stack, tolerance) for image in images for other in distinct):
            distinct.append(height)
    return distinct


def is_same_height(first: float, second: float, stack: PlaneStack, tolerance: float) -> bool:
    """Return whether two heights differ by a whole number of spacings, within half the tolerance (Å)."""
    difference = first - second
    return abs(difference - round(difference)) * stack.spacing < 0.5 * tolerance


def distinct_shifts(
    points: Iterable[tuple[int, int]], n_points: int, operations: Sequence[IntArray]
) -> list[tuple[float, float]]:
    """Return one of every set of equivalent shifts in the plane other than zero, in fractions of the in-plane vectors.

    :param points: the shifts times *n_points*.
    :param operations: what makes shifts equivalent, matrices for columns, shape (2, 2) each.
    """
    distinct: list[tuple[float, float]] = []
    seen = {(0, 0)}
    for i, j in points:
        point = (i % n_points, j % n_points)
        if point not in seen:
            distinct.append((i / n_points, j / n_points))
            seen |= {(int(k) % n_points, int(m) % n_points) for k, m in (matrix @ point for matrix in operations)}
    return distinct


def conventional_shift(crystal: Crystal, stack: PlaneStack, fractions: tuple[float, float]) -> list[float]:
    """Return a shift in fractions of the in-plane vectors as fractions of the conventional ones."""
    shift = np.array(fractions) @ stack.basis[:2] @ np.linalg.inv(crystal.conventional)
    return [float(component) for component in shift]


def format_shift(shift: Sequence[float]) -> str:
    """Return a shift as text: ``0.167 0.167 -0.333``."""
    return " ".join(f"{component:.3f}" for component in shift)


def cut_at(stack: PlaneStack, height: float) -> Atoms:
    """Return the cell along the planes with its lowest plane at the given height, in spacings."""
    atoms = stack.atoms.copy()
    atoms.positions -= height * atoms.cell.array[2]
    atoms.wrap()
    return atoms


def widen(atoms: Atoms, min_width: float, max_atoms: int) -> Atoms:
    """Return a frame repeated in the plane of its first two vectors, and laid into the xy plane.

    :param min_width: Å, which both heights in the plane reach with the fewest cells, within the cap.
    """
    matrix = find_superlattice(atoms.cell.array, (True, True, False), min_width, max_atoms // len(atoms))
    return lay_flat(atoms if matrix is None else repeat_cell(atoms, matrix))


def lay_flat(atoms: Atoms) -> Atoms:
    """Return the frame rotated: first vector along x, second in the xy plane, third upwards."""
    first, second, third = atoms.cell.array
    normal = np.cross(first, second)
    axes = np.array([first, np.cross(normal, first), normal])
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    assert normal @ third > 0.0
    return transformed(atoms, axes)


def transformed(atoms: Atoms, operation: FloatArray) -> Atoms:
    """Return the frame after a rotation or reflection of cell, positions and vector moments (axial vectors).

    :param operation: orthogonal matrix for columns, shape (3, 3).
    """
    image = atoms.copy()
    image.set_cell(atoms.cell.array @ operation.T)
    image.positions = atoms.positions @ operation.T
    moments = atoms.arrays.get("initial_magmoms")
    if moments is not None and moments.ndim == 2:
        image.arrays["initial_magmoms"] = np.linalg.det(operation) * moments @ operation.T
    return image


def open_faces(slab: Atoms, vacuum: float) -> None:
    """Give a slab an upright third vector with a vacuum, and put it into the middle.

    :param slab: its first two vectors lie in the plane xy.
    :param vacuum: Å, between the outermost atoms of the slab and its image.
    """
    slab.pbc = (True, True, False)
    heights = slab.positions[:, 2]
    slab.cell[2] = (0.0, 0.0, np.ptp(heights) + vacuum)
    slab.positions[:, 2] += 0.5 * vacuum - heights.min()
    slab.wrap()


def scale_charge(atoms: Atoms, reference: Atoms) -> None:
    """Give a frame the total charge per atom of the reference, if that has one."""
    if "charge" in reference.info:
        atoms.info["charge"] = reference.info["charge"] * len(atoms) / len(reference)
