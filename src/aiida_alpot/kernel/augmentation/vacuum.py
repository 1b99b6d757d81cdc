"""Keep the images of slabs, wires and molecules apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.geometry import complete_cell

from aiida_alpot.kernel.augmentation.base import NotApplicableError, Step
from aiida_alpot.kernel.defaults import VACUUM
from aiida_alpot.kernel.units import FloatArray

_ROUNDING = 1e-6
"""Å, by which a vacuum may fall short."""


@dataclass(frozen=True)
class VacuumSettings:
    """How much vacuum there is, [TrainsPot] Sec. II A 2.

    :param thickness: Å, least distance from the highest atom to the image of the lowest one, along the normal of every
        axis that is not periodic.
    """

    thickness: float = VACUUM

    def __post_init__(self) -> None:
        if not 0.0 < self.thickness <= 1000.0:
            raise ValueError(f"'thickness' must lie in (0, 1000] Å, got {self.thickness}")


def vacuum_thickness(cell: FloatArray, atoms: Atoms) -> FloatArray:
    """Return the height of a cell less the extent of the atoms, both along the normal to the other two vectors.

    :param cell: three independent vectors as rows, Å.
    :return: shape (3,), Å, for every axis, periodic or not.
    """
    normals = _normals(cell)
    return np.asarray((cell * normals).sum(axis=1) - np.ptp(atoms.positions @ normals.T, axis=0))


def make_vacuum(atoms: Atoms, settings: VacuumSettings, rng: np.random.Generator | None = None) -> Step:
    """Return the frame with at least the given vacuum along the axes that are not periodic.

    An axis that lacks vacuum, or a vector, gets a vector along its normal with the atoms in its middle. Other axes keep
    theirs, periodic ones always: which axes are periodic is for the user to say, and a layered crystal is periodic.
    Heights never decrease, so that a larger vacuum stays.

    :param rng: not used, nothing is random here.
    :raises NotApplicableError: if all axes are periodic or there is enough vacuum already.
    """
    del rng
    if np.all(atoms.pbc):
        raise NotApplicableError("all_axes_periodic")
    cell, missing = _completed(atoms)
    straightened: list[int] = []
    while (axis := _lacking_axis(atoms, cell, {*missing} - {*straightened}, settings.thickness)) is not None:
        # it is normal to the other two vectors now and stays so when they are straightened: no axis comes twice
        normal = _normals(cell)[axis]
        cell[axis] = (np.ptp(atoms.positions @ normal) + settings.thickness) * normal
        straightened.append(axis)
    if not straightened:
        raise NotApplicableError("enough_vacuum")
    padded = atoms.copy()
    padded.set_cell(cell)
    for axis in straightened:
        normal = _normals(cell)[axis]
        heights = atoms.positions @ normal
        padded.positions += 0.5 * (cell[axis] @ normal - heights.min() - heights.max()) * normal
    return Step(padded, f"vacuum {settings.thickness:g}", {"axes": sorted(straightened)})


def _completed(atoms: Atoms) -> tuple[FloatArray, list[int]]:
    """Return a cell of three independent vectors, and the axes whose vector the frame lacks."""
    cell = atoms.cell.array.copy()
    is_open = ~np.asarray(atoms.pbc, dtype=bool)
    if np.linalg.matrix_rank(cell) < np.count_nonzero(cell.any(axis=1)):
        cell[is_open] = 0.0
    missing = np.flatnonzero(~cell.any(axis=1)).tolist()
    return np.asarray(complete_cell(cell)), missing


def _lacking_axis(atoms: Atoms, cell: FloatArray, missing: set[int], thickness: float) -> int | None:
    """Return the first axis that is not periodic and lacks a vector or vacuum, ``None`` if there is none."""
    vacuum = vacuum_thickness(cell, atoms)
    lacking = (axis for axis in range(3) if axis in missing or vacuum[axis] < thickness - _ROUNDING)
    return next((axis for axis in lacking if not atoms.pbc[axis]), None)


def _normals(cell: FloatArray) -> FloatArray:
    """Return the unit normals to the other two vectors for each vector, as rows, on the side of the vector."""
    dual = np.linalg.inv(cell).T
    return np.asarray(dual / np.linalg.norm(dual, axis=1, keepdims=True))
