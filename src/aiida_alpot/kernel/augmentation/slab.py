"""Cut slabs from a crystal along lattice planes, with every distinct termination."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from ase import Atoms

from aiida_alpot.kernel.augmentation.base import Made, NotApplicableError, Step
from aiida_alpot.kernel.augmentation.crystal import (
    Cut,
    Indices,
    PlaneStack,
    check_planes,
    cut_at,
    distinct_heights,
    distinct_planes,
    find_crystal,
    find_cuts,
    format_indices,
    is_same_height,
    open_faces,
    scale_charge,
    stack_along,
    widen,
)
from aiida_alpot.kernel.defaults import SLAB_MAX_ATOMS, SLAB_THICKNESS, VACUUM


@dataclass(frozen=True)
class SlabSettings:
    """Which slabs are cut, [TrainsPot] Sec. II A 2.

    The paper cuts (111), (110) and (100), which are all distinct planes up to index 1 of a cubic crystal; other
    crystals have more, such as (001), and these are cut too.

    :param planes: Miller indices in the conventional cell; of equivalent ones the first is taken.
    :param max_index: without *planes*, all distinct planes with indices up to this.
    :param min_thickness: Å, from the lowest to the highest atom.
    :param min_width: Å, both heights of the cell in the plane, reached with the fewest atoms; the paper's slabs are as
        wide as its supercells, 18 Å, which takes three times the atoms.
    :param vacuum: Å, between the slab and its next image.
    :param max_atoms: most atoms of a slab; it wins over *min_thickness*, and that over *min_width*.
    :param max_terminations: most terminations of one plane, those with the widest gaps between the layers; a crystal
        without symmetry has as many as its cell has atoms.
    :param equal_faces: end on the same face on both sides, where the crystal has a symmetry that makes this possible,
        at the cost of its composition; otherwise slabs have the composition of the crystal and the two sides of a cut.
    :param layer_tolerance: Å, atomic layers closer than this are not cut apart.
    :param symprec: Å, how far atoms may be from where symmetry wants them.
    """

    planes: tuple[Indices, ...] | None = None
    max_index: int = 1
    min_thickness: float = SLAB_THICKNESS
    min_width: float = 10.0
    vacuum: float = VACUUM
    max_atoms: int = SLAB_MAX_ATOMS
    max_terminations: int = 10
    equal_faces: bool = False
    layer_tolerance: float = 0.2
    symprec: float = 0.01

    def __post_init__(self) -> None:
        check_planes(self.planes, self.max_index)
        for name in ("min_thickness", "min_width", "vacuum", "layer_tolerance", "symprec"):
            if not 0.0 < getattr(self, name) <= 1000.0:
                raise ValueError(f"{name!r} must lie in (0, 1000] Å, got {getattr(self, name)}")
        for name in ("max_atoms", "max_terminations"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name!r} must be at least 1, got {getattr(self, name)}")


class _Faces(NamedTuple):
    """The cuts at which a slab begins and ends; it is a whole number of spacings thick if they are the same."""

    bottom: Cut
    top: Cut

    @property
    def excess(self) -> float:
        """Return by how much the slab is thicker than a whole number of spacings, in spacings."""
        return 0.0 if self.bottom is self.top else (self.top.height - self.bottom.height) % 1.0


def make_slabs(atoms: Atoms, settings: SlabSettings, rng: np.random.Generator | None = None) -> Iterator[Made]:
    """Yield one slab for each distinct termination of each plane, or the reason in its place.

    Slabs are periodic along the first two vectors, which lie in the xy plane; the third is along z and not periodic.
    The reason ``above_max_atoms`` stands for a termination of which not even one spacing fits into *max_atoms*.

    :param rng: not used, nothing is random here.
    :raises NotApplicableError: if the frame is no crystal.
    """
    del rng
    crystal = find_crystal(atoms, settings.symprec)
    for indices in distinct_planes(crystal, settings.planes, settings.max_index):
        stack = stack_along(crystal, indices)
        terminations = _terminations(stack, settings)
        for number, faces in enumerate(terminations[: settings.max_terminations], start=1):
            slab = _cut_slab(stack, faces, settings)
            if slab is None:
                yield NotApplicableError("above_max_atoms")
                continue
            yield Step(
                slab,
                f"slab {format_indices(indices)} termination {number}",
                {"miller": list(indices), "termination": number, "n_terminations": len(terminations)},
            )


def _terminations(stack: PlaneStack, settings: SlabSettings) -> list[_Faces]:
    """Return the distinct pairs of faces that slabs of this plane have."""
    cuts = find_cuts(stack, settings.layer_tolerance)
    can_turn = any(symmetry.sign == -1 for symmetry in stack.symmetries)
    equal = settings.equal_faces and can_turn
    heights = distinct_heights([cut.height for cut in cuts], stack, settings.layer_tolerance, turned=not equal)
    distinct = [cut for cut in cuts if cut.height in heights]
    if not equal:
        return [_Faces(cut, cut) for cut in distinct]
    return [_Faces(_opposite(cut, cuts, stack, settings.layer_tolerance), cut) for cut in distinct]


def _opposite(cut: Cut, cuts: list[Cut], stack: PlaneStack, tolerance: float) -> Cut:
    """Return the cut at which a slab begins that ends at *cut* with the same face, itself if it can be."""
    images = [shift - cut.height for sign, shift, _ in stack.symmetries if sign == -1]
    candidates = [other for other in cuts if any(is_same_height(other.height, z, stack, tolerance) for z in images)]
    return min(candidates, key=lambda other: (cut.height - other.height) % 1.0, default=cut)


def _cut_slab(stack: PlaneStack, faces: _Faces, settings: SlabSettings) -> Atoms | None:
    """Return the slab, or ``None`` if not even the thinnest one fits."""
    cell = cut_at(stack, faces.bottom.height)
    excess = faces.excess
    in_excess = cell.get_scaled_positions()[:, 2] < excess
    n_excess = int(in_excess.sum())
    gaps = 0.5 * (faces.bottom.gap + faces.top.gap)
    wanted = math.ceil((settings.min_thickness + gaps) / stack.spacing - excess - 1e-9)
    fewest = 0 if n_excess else 1
    n_spacings = max(fewest, min(wanted, (settings.max_atoms - n_excess) // len(cell)))
    if n_spacings * len(cell) + n_excess > settings.max_atoms:
        return None
    kept = np.concatenate([np.ones(n_spacings * len(cell), dtype=bool), in_excess])
    slab = cell.repeat((1, 1, n_spacings + 1))[kept]
    slab.pbc = (True, True, False)
    slab = widen(slab, settings.min_width, settings.max_atoms)
    open_faces(slab, settings.vacuum)
    scale_charge(slab, stack.atoms)
    return slab
