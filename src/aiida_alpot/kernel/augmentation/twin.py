"""Reflect a crystal at a lattice plane: coherent twins, and symmetric tilt boundaries in general.

A boundary between a crystal and its mirror image is, in a cubic crystal, the symmetric tilt boundary of the coincidence
lattice Σ = h² + k² + l² (half of it if even): 111 and 112 are Σ3, 012 and 013 are Σ5, 113 is Σ11.
A. P. Sutton and R. W. Balluffi, "Interfaces in Crystalline Materials", Oxford (1995), Ch. 1.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import covalent_radii

from aiida_alpot.kernel.augmentation.base import DroppedFrameError, Made, NotApplicableError, Step
from aiida_alpot.kernel.augmentation.crystal import (
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
    lay_flat,
    scale_charge,
    stack_along,
    transformed,
    widen,
)
from aiida_alpot.kernel.defaults import SUPERCELL_MAX_ATOMS
from aiida_alpot.kernel.geometry import closest_pair_ratio


@dataclass(frozen=True)
class TwinSettings:
    """Which boundaries are made.

    :param planes: Miller indices in the conventional cell of the boundary planes; those at which the crystal is its own
        mirror image make no boundary.
    :param n_shifts: rigid shifts of one grain in the plane, along each in-plane vector, 0 counted; 1 is no shift.
    :param min_thickness: Å, of each of the two grains of a cell, which has two boundaries.
    :param min_width: Å, both heights of the cell in the plane, reached with the fewest atoms.
    :param max_atoms: most atoms of a frame; it wins over *min_thickness*, and that over *min_width*.
    :param min_ratio: shortest distance at a boundary over that in the crystal, both in units of covalent radii. An atom
        closer than this to its own mirror image is merged with it; if other atoms are, or the composition would change,
        the boundary is left out.
    :param layer_tolerance: Å, atomic layers closer than this count as one.
    :param symprec: Å, how far atoms may be from where symmetry wants them.
    """

    planes: tuple[Indices, ...] = ((1, 1, 1), (1, 1, 2))
    n_shifts: int = 1
    min_thickness: float = 10.0
    min_width: float = 8.0
    max_atoms: int = SUPERCELL_MAX_ATOMS
    min_ratio: float = 0.7
    layer_tolerance: float = 0.2
    symprec: float = 0.01

    def __post_init__(self) -> None:
        check_planes(self.planes, 1)
        if not 1 <= self.n_shifts <= 100:
            raise ValueError(f"'n_shifts' must lie in [1, 100], got {self.n_shifts}")
        if not 0.0 < self.min_ratio < 1.0:
            raise ValueError(f"'min_ratio' must lie between 0 and 1, got {self.min_ratio}")
        for name in ("min_thickness", "min_width", "layer_tolerance", "symprec"):
            if not 0.0 < getattr(self, name) <= 1000.0:
                raise ValueError(f"{name!r} must lie in (0, 1000] Å, got {getattr(self, name)}")
        if self.max_atoms < 1:
            raise ValueError(f"'max_atoms' must be at least 1, got {self.max_atoms}")


def make_twins(atoms: Atoms, settings: TwinSettings, rng: np.random.Generator | None = None) -> Iterator[Made]:
    """Yield bicrystals, or the reasons in their place: two grains, mirror images of each other, and two boundaries.

    The mirror is laid through every distinct atomic layer and through the middle of every distinct gap. The reason
    ``mirror_plane`` stands for a plane at which the crystal is its own mirror image, ``above_max_atoms`` for one of
    which two grains of two spacings do not fit into *max_atoms*, ``close_contact`` for a boundary where atoms come too
    close or that would have another composition.

    :param rng: not used, nothing is random here.
    :raises NotApplicableError: if the frame is no crystal.
    """
    del rng
    crystal = find_crystal(atoms, settings.symprec)
    for indices in distinct_planes(crystal, settings.planes, 1):
        stack = stack_along(crystal, indices)
        n_spacings = _thickness(stack, settings)
        if _is_mirror(stack):
            yield NotApplicableError("mirror_plane")
        elif n_spacings < 2:
            yield NotApplicableError("above_max_atoms")
        else:
            for name, height in _mirrors(stack, settings.layer_tolerance):
                for fractions in _shifts(stack, height, settings):
                    twin = _bicrystal(stack, height, n_spacings, fractions, settings)
                    shift = conventional_shift(crystal, stack, fractions)
                    yield _step(twin, indices, name, shift)


def _step(twin: Atoms | None, indices: Indices, mirror: str, shift: list[float]) -> Made:
    if twin is None:
        return DroppedFrameError("close_contact")
    where = f" shift {format_shift(shift)}" if any(shift) else ""
    parameters = {"miller": list(indices), "mirror": mirror, "shift": shift}
    return Step(twin, f"twin {format_indices(indices)} {mirror}{where}", parameters)


def _is_mirror(stack: PlaneStack) -> bool:
    """Return whether reflection at the planes is in the point group of the crystal."""
    return any(sign == -1 and np.array_equal(in_plane, np.eye(2)) for sign, _, in_plane in stack.symmetries)


def _thickness(stack: PlaneStack, settings: TwinSettings) -> int:
    """Return the spacings of each grain; with one, a crystal of one layer per spacing would be another crystal."""
    wanted = max(2, math.ceil(settings.min_thickness / stack.spacing - 1e-9))
    return min(wanted, settings.max_atoms // (2 * len(stack.atoms)))


def _mirrors(stack: PlaneStack, tolerance: float) -> list[tuple[str, float]]:
    """Return names and heights (in spacings) of the distinct mirrors: middles of layers, then of gaps."""
    cuts = sorted(find_cuts(stack, tolerance), key=lambda cut: cut.height)
    layers = []
    for below, above in zip(cuts, [*cuts[1:], cuts[0]._replace(height=cuts[0].height + 1.0)], strict=True):
        low = below.height + 0.5 * below.gap / stack.spacing
        high = above.height - 0.5 * above.gap / stack.spacing
        layers.append(0.5 * (low + high) % 1.0)
    named: list[tuple[str, float]] = []
    for name, heights in (("layer", layers), ("gap", [cut.height for cut in cuts])):
        distinct = distinct_heights(heights, stack, tolerance)
        named.extend((f"{name} {number}", height) for number, height in enumerate(distinct, start=1))
    return named


def _shifts(stack: PlaneStack, mirror: float, settings: TwinSettings) -> list[tuple[float, float]]:
    """Return the distinct shifts of a grain, none first; what keeps a grain where it is makes two of them equal."""
    operations = [
        in_plane
        for sign, shift, in_plane in stack.symmetries
        if sign == 1 and is_same_height(mirror + shift, mirror, stack, settings.layer_tolerance)
    ]
    points = itertools.product(range(settings.n_shifts), range(settings.n_shifts))
    return [(0.0, 0.0), *distinct_shifts(points, settings.n_shifts, operations)]


def _bicrystal(
    stack: PlaneStack, mirror: float, n_spacings: int, fractions: tuple[float, float], settings: TwinSettings
) -> Atoms | None:
    """Return two grains of a thickness; ``None`` if atoms are too close or the composition is not that of the crystal.

    Atoms in the mirror belong to both grains, and are there once.
    """
    base = lay_flat(cut_at(stack, mirror))
    thickness = n_spacings * stack.spacing
    min_ratio = settings.min_ratio * closest_pair_ratio(base)
    grain = base.repeat((1, 1, n_spacings + 2))
    grain.positions -= base.cell.array[2]
    margin = 0.5 * settings.layer_tolerance
    grain = grain[(grain.positions[:, 2] > -margin) & (grain.positions[:, 2] < thickness + margin)]
    reach = np.maximum(margin, min_ratio * covalent_radii[grain.numbers])
    heights = grain.positions[:, 2]
    in_mirror = (heights < reach) | (heights > thickness - reach)
    grain.positions[in_mirror, 2] = np.where(heights[in_mirror] < 0.5 * thickness, 0.0, thickness)
    image = transformed(grain[~in_mirror], np.diag([1.0, 1.0, -1.0]))
    image.positions += np.array(fractions) @ base.cell.array[:2]
    twin = grain + image
    twin.set_cell([*base.cell.array[:2], (0.0, 0.0, 2.0 * thickness)])
    twin.wrap()
    if not _is_same_composition(twin, base) or closest_pair_ratio(twin) < min_ratio - 1e-9:
        return None
    twin = widen(twin, settings.min_width, settings.max_atoms)
    scale_charge(twin, base)
    return twin


def _is_same_composition(atoms: Atoms, reference: Atoms) -> bool:
    counts = (np.bincount(frame.numbers, minlength=len(covalent_radii)) for frame in (atoms, reference))
    ours, theirs = counts
    return np.array_equal(ours * len(reference), theirs * len(atoms))
