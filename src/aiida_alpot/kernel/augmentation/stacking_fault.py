"""Shift one half of a crystal against the other along a lattice plane: the generalised stacking-fault surface.

V. Vitek, "Intrinsic stacking faults in body-centred cubic crystals", Philos. Mag. 18, 773 (1968).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from aiida_alpot.kernel.augmentation.base import DroppedFrameError, Made, NotApplicableError, Step
from aiida_alpot.kernel.augmentation.crystal import (
    Crystal,
    Cut,
    Indices,
    PlaneStack,
    check_planes,
    conventional_shift,
    cut_at,
    distinct_heights,
    distinct_planes,
    distinct_shifts,
    find_crystal,
    find_cuts,
    format_indices,
    format_shift,
    is_same_height,
    open_faces,
    scale_charge,
    stack_along,
    widen,
)
from aiida_alpot.kernel.defaults import SUPERCELL_MAX_ATOMS
from aiida_alpot.kernel.geometry import atoms_in_contact
from aiida_alpot.kernel.superlattice import repeat_cell
from aiida_alpot.kernel.units import IntArray

_DENSEST = 2
"""Largest Miller index among which the plane with the widest gap is looked for."""


@dataclass(frozen=True)
class StackingFaultSettings:
    """Which faults are made.

    :param planes: Miller indices in the conventional cell of the planes along which the crystal is shifted; the one
        with the widest gap between its layers, up to index 2, if ``None``: fcc 111, bcc 110, hcp 001.
    :param direction: of a path in the plane, in the conventional cell; a grid covers the whole plane if ``None``.
    :param n_points: shifts from 0 to 1 along the path, or along each vector of the grid, 0 counted: a multiple of 6
        holds the faults of close-packed planes. Shifts that the crystal's symmetry makes equal are made once.
    :param max_cuts: most of the distinct gaps of one plane that are shifted, the widest first: for
        diamond 111 the shuffle set, then the glide set.
    :param min_distance: Å, between a fault and its next image, or a surface.
    :param vacuum: Å; with it both halves are a slab between free surfaces, the fault in its middle.
    :param min_width: Å, both heights of the cell in the plane, reached with the fewest atoms.
    :param max_atoms: most atoms of a frame; it wins over *min_distance*, and that over *min_width*.
    :param min_ratio: shifts that bring atoms closer than this share of the sum of covalent radii are left out, as in
        the glide set of diamond.
    :param layer_tolerance: Å, atomic layers closer than this are not shifted against each other.
    :param symprec: Å, how far atoms may be from where symmetry wants them.
    """

    planes: tuple[Indices, ...] | None = None
    direction: Indices | None = None
    n_points: int = 6
    max_cuts: int = 2
    min_distance: float = 10.0
    vacuum: float | None = None
    min_width: float = 10.0
    max_atoms: int = SUPERCELL_MAX_ATOMS
    min_ratio: float = 0.6
    layer_tolerance: float = 0.2
    symprec: float = 0.01

    def __post_init__(self) -> None:
        check_planes(self.planes, 1)
        if self.direction is not None and not any(self.direction):
            raise ValueError(f"'direction' must not be zero, got {self.direction}")
        if self.direction is not None and self.planes is None:
            raise ValueError("'direction' needs 'planes', got none")
        if not 2 <= self.n_points <= 100:
            raise ValueError(f"'n_points' must lie in [2, 100], got {self.n_points}")
        for name in ("min_distance", "min_width", "layer_tolerance", "symprec"):
            if not 0.0 < getattr(self, name) <= 1000.0:
                raise ValueError(f"{name!r} must lie in (0, 1000] Å, got {getattr(self, name)}")
        if self.vacuum is not None and not 0.0 < self.vacuum <= 1000.0:
            raise ValueError(f"'vacuum' must lie in (0, 1000] Å, got {self.vacuum}")
        if not 0.0 <= self.min_ratio < 1.0:
            raise ValueError(f"'min_ratio' must lie in [0, 1), got {self.min_ratio}")
        for name in ("max_atoms", "max_cuts"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name!r} must be at least 1, got {getattr(self, name)}")


def make_stacking_faults(
    atoms: Atoms, settings: StackingFaultSettings, rng: np.random.Generator | None = None
) -> Iterator[Made]:
    """Yield the faulted crystals, each with one fault per cell, or the reasons in their place.

    The shift is added to the third cell vector, so that atoms, volume and periodicity are those of the crystal and no
    surface is made, unless a *vacuum* is asked for. Nothing is relaxed. The reason ``close_contact`` stands for a
    shift, ``above_max_atoms`` for a cut of which not even two spacings (one for each half of a slab) fit into
    *max_atoms*, ``direction_outside_plane`` for a plane.

    :param rng: not used, nothing is random here.
    :raises NotApplicableError: if the frame is no crystal.
    """
    del rng
    crystal = find_crystal(atoms, settings.symprec)
    for stack in _stacks(crystal, settings):
        points = _points(crystal, stack, settings)
        if points is None:
            yield NotApplicableError("direction_outside_plane")
            continue
        for number, cut in enumerate(_distinct_cuts(stack, settings), start=1):
            yield from _shift_all(crystal, stack, cut, number, points, settings)


def _shift_all(
    crystal: Crystal,
    stack: PlaneStack,
    cut: Cut,
    number: int,
    points: list[tuple[int, int]],
    settings: StackingFaultSettings,
) -> Iterator[Made]:
    """Yield the crystals that are faulted at one cut."""
    block = _block(stack, cut, settings)
    if block is None:
        yield NotApplicableError("above_max_atoms")
        return
    for fractions in distinct_shifts(points, settings.n_points, _operations(stack, cut, settings.layer_tolerance)):
        faulted = (_shifted if settings.vacuum is None else _between_surfaces)(block, fractions, settings)
        if len(atoms_in_contact(faulted, settings.min_ratio)):
            yield DroppedFrameError("close_contact")
            continue
        shift = conventional_shift(crystal, stack, fractions)
        yield Step(
            faulted,
            f"stacking fault {format_indices(stack.indices)} cut {number} shift {format_shift(shift)}",
            {"miller": list(stack.indices), "cut": number, "shift": shift},
        )


def _stacks(crystal: Crystal, settings: StackingFaultSettings) -> list[PlaneStack]:
    """Return the crystal along each plane that is asked for."""
    if settings.planes is not None:
        return [stack_along(crystal, plane) for plane in distinct_planes(crystal, settings.planes, 1)]
    stacks = [stack_along(crystal, plane) for plane in distinct_planes(crystal, None, _DENSEST)]
    return [max(stacks, key=lambda stack: round(find_cuts(stack, settings.layer_tolerance)[0].gap, 3))]


def _distinct_cuts(stack: PlaneStack, settings: StackingFaultSettings) -> list[Cut]:
    cuts = find_cuts(stack, settings.layer_tolerance)
    heights = distinct_heights([cut.height for cut in cuts], stack, settings.layer_tolerance)
    return [cut for cut in cuts if cut.height in heights][: settings.max_cuts]


def _points(crystal: Crystal, stack: PlaneStack, settings: StackingFaultSettings) -> list[tuple[int, int]] | None:
    """Return the shifts times *n_points* in units of the in-plane vectors, ``None`` if the path leaves the plane."""
    steps = range(settings.n_points)
    if settings.direction is None:
        return list(itertools.product(steps, steps))
    vector = np.array(settings.direction) @ crystal.conventional @ np.linalg.inv(stack.basis)
    i, j, out_of_plane = np.rint(vector).astype(int).tolist()
    if out_of_plane:
        return None
    period = math.gcd(i, j)
    return [(step * i // period, step * j // period) for step in steps]


def _operations(stack: PlaneStack, cut: Cut, tolerance: float) -> list[IntArray]:
    """Return what maps the shift at a cut to an equal one.

    An operation that turns the normal round exchanges the two halves, so that the other one is shifted.
    """
    return [
        sign * in_plane
        for sign, shift, in_plane in stack.symmetries
        if is_same_height(sign * cut.height + shift, cut.height, stack, tolerance)
    ]


def _block(stack: PlaneStack, cut: Cut, settings: StackingFaultSettings) -> Atoms | None:
    """Return the crystal from one cut to the next fault or the surface, or ``None`` if too few spacings fit.

    With a fault after every spacing, a crystal of one layer per spacing would be perfect again, as its own twin.
    """
    fewest, n_blocks = (2, 1) if settings.vacuum is None else (1, 2)
    n_spacings = max(fewest, math.ceil(settings.min_distance / stack.spacing - 1e-9))
    n_spacings = min(n_spacings, settings.max_atoms // (n_blocks * len(stack.atoms)))
    if n_spacings < fewest:
        return None
    return repeat_cell(cut_at(stack, cut.height), np.diag([1, 1, n_spacings]))


def _shifted(block: Atoms, fractions: tuple[float, float], settings: StackingFaultSettings) -> Atoms:
    """Return the block with its image along the third vector shifted, in the most upright cell."""
    faulted = block.copy()
    vectors = faulted.cell.array
    vectors[2] += np.array(fractions) @ vectors[:2]
    offset = np.linalg.lstsq(vectors[:2].T, vectors[2], rcond=None)[0]
    vectors[2] -= np.rint(offset) @ vectors[:2]
    faulted.set_cell(vectors)
    faulted.wrap()
    return widen(faulted, settings.min_width, settings.max_atoms)


def _between_surfaces(block: Atoms, fractions: tuple[float, float], settings: StackingFaultSettings) -> Atoms:
    """Return a slab of the block and, shifted, the block above it."""
    assert settings.vacuum is not None
    upper = block.copy()
    upper.positions += block.cell.array[2] + np.array(fractions) @ block.cell.array[:2]
    slab = block + upper
    scale_charge(slab, block)
    slab.pbc = (True, True, False)
    slab = widen(slab, settings.min_width, settings.max_atoms)
    open_faces(slab, settings.vacuum)
    return slab
