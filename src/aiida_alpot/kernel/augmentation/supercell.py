"""Repeat a cell until its images are far enough apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from ase import Atoms

from aiida_alpot.kernel.augmentation.base import NotApplicableError, Step
from aiida_alpot.kernel.defaults import SUPERCELL_LENGTH, SUPERCELL_MAX_ATOMS
from aiida_alpot.kernel.geometry import perpendicular_heights
from aiida_alpot.kernel.superlattice import find_superlattice, repeat_cell
from aiida_alpot.kernel.units import BoolArray, FloatArray, IntArray

MAX_LENGTH: Final = 1000.0
"""Å, largest height that a supercell can be asked for."""


@dataclass(frozen=True)
class SupercellSettings:
    """Size of a supercell, [TrainsPot] Sec. II A 2.

    :param min_length: smallest perpendicular height along every periodic axis, Å.
    :param max_atoms: most atoms of a supercell; it wins over *min_length*.
    :param shape: ``diagonal``: the cell repeated along its own axes; ``compact``: the cell of fewest atoms among all
        cells of the lattice, or, at the cap, that with the largest smallest height: 500 instead of 729 atoms for the
        primitive cell of copper at 18 Å, 288 instead of 432 for rock salt. Its axes are no longer those of the input.
    """

    min_length: float = SUPERCELL_LENGTH
    max_atoms: int = SUPERCELL_MAX_ATOMS
    shape: Literal["diagonal", "compact"] = "diagonal"

    def __post_init__(self) -> None:
        if not self.min_length > 0.0:
            raise ValueError(f"'min_length' must be positive, got {self.min_length}")
        if self.min_length > MAX_LENGTH:
            raise ValueError(f"'min_length' must be at most {MAX_LENGTH:g} Å, got {self.min_length}")
        if self.max_atoms < 1:
            raise ValueError(f"'max_atoms' must be at least 1, got {self.max_atoms}")


def supercell_repeats(atoms: Atoms, settings: SupercellSettings) -> IntArray:
    """Return how often the cell is repeated along each axis, 1 along an axis that is not periodic.

    Each perpendicular height reaches *min_length*. If that gives more than *max_atoms*, the axis that keeps the largest
    height after it loses one repeat loses it, again and again: the smallest height suffers last. A cell that exceeds
    the cap by itself is kept as it is.

    :return: shape (3,).
    """
    heights = perpendicular_heights(atoms.cell.array, atoms.pbc)
    finite = np.isfinite(heights)
    repeats = np.ones(3, dtype=np.int64)
    repeats[finite] = np.maximum(1, np.ceil(settings.min_length / heights[finite] - 1e-9)).astype(np.int64)
    while len(atoms) * int(repeats.prod()) > settings.max_atoms and (repeats > 1).any():
        remaining = np.where(repeats > 1, (repeats - 1) * np.where(finite, heights, 0.0), -np.inf)
        repeats[int(np.argmax(remaining))] -= 1
    return repeats


def supercell_matrix(atoms: Atoms, settings: SupercellSettings) -> IntArray:
    """Return the vectors of the supercell in terms of those of the cell, shape (3, 3).

    A compact cell that is no better than the diagonal one is not taken.
    """
    diagonal = np.diag(supercell_repeats(atoms, settings))
    if settings.shape == "diagonal" or len(atoms) > settings.max_atoms:
        return diagonal
    cell = atoms.cell.array
    compact = find_superlattice(cell, atoms.pbc, settings.min_length, settings.max_atoms // len(atoms))
    if compact is None:
        return diagonal
    merits = [_merit(matrix, cell, atoms.pbc, settings.min_length) for matrix in (diagonal, compact)]
    return diagonal if merits[0] >= merits[1] else compact


def _merit(matrix: IntArray, cell: FloatArray, pbc: BoolArray, min_length: float) -> tuple[float, int]:
    """Return what is larger for the better supercell: the height up to the one asked for, then fewer cells."""
    height = float(perpendicular_heights(matrix @ cell, pbc).min())
    return round(min(height, min_length), 6), -round(float(np.linalg.det(matrix)))


def make_supercell(atoms: Atoms, settings: SupercellSettings, rng: np.random.Generator | None = None) -> Step:
    """Return the repeated frame; the total ``charge`` grows with the number of cells.

    :param rng: not used, nothing is random here.
    :raises NotApplicableError: if one cell is the answer, or no axis is periodic.
    """
    del rng
    if not np.any(atoms.pbc):
        raise NotApplicableError("no_periodic_axis")
    matrix = supercell_matrix(atoms, settings)
    repeats = np.diag(matrix)
    if round(float(np.linalg.det(matrix))) == 1:
        is_wide = perpendicular_heights(atoms.cell.array, atoms.pbc).min() >= settings.min_length - 1e-6
        has_room = len(atoms) <= settings.max_atoms
        raise NotApplicableError("already_large" if is_wide and has_room else "above_max_atoms")
    larger = repeat_cell(atoms, matrix)
    is_diagonal = np.array_equal(matrix, np.diag(repeats))
    text = "x".join(str(n) for n in repeats) if is_diagonal else f"of {len(larger) // len(atoms)} cells"
    return Step(larger, f"supercell {text}", {"matrix": matrix.tolist()})
