"""Pieces of frames that are too large to label: an atom and what is around it, as a cluster or a periodic block.

A piece has a *core*, the atoms near its centre, of which every neighbour is in the piece where it was in the frame.
The atoms around the core are there for its sake: they lie at a surface, or at a seam, that the frame does not have.
Only the core may enter an active set (an envelope that holds such surfaces calls everything known; Shuang et al. 2025,
Sec. 4) and be judged by its forces.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from ase import Atoms
from ase.data import covalent_radii
from ase.geometry import complete_cell
from ase.neighborlist import primitive_neighbor_list

from aiida_alpot.kernel.geometry import atoms_in_contact
from aiida_alpot.kernel.potentials.base import Features
from aiida_alpot.kernel.units import BoolArray, FloatArray, IntArray

CORE: Final = "core"
"""Column of the atoms of a piece: whether they belong to its core."""


@dataclass(frozen=True)
class CutoutSettings:
    """How pieces are cut.

    :param shape: ``"block"``: a cube that is periodic; ``"cluster"``: a sphere in vacuum. A frame that is not periodic
        along all axes gives clusters.
    :param core_radius: Å, from the centre to the last atom of the core.
    :param reach: Å, how far around the core everything is kept. The cutoff of a potential keeps the energies of the
        core atoms, twice of it their forces.
    :param vacuum: Å, between a cluster and its next image, at least.
    :param min_ratio: distance over the sum of covalent radii below which two atoms at the seam of a block are too
        close: the one farther from the centre is left out.
    """

    shape: Literal["block", "cluster"] = "block"
    core_radius: float = 3.0
    reach: float = 6.0
    vacuum: float = 10.0
    min_ratio: float = 0.7

    def __post_init__(self) -> None:
        for name in ("core_radius", "reach", "vacuum"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 <= self.min_ratio < 1:
            raise ValueError(f"min_ratio must be in [0, 1), got {self.min_ratio}")


def choose_centres(atoms: Atoms, grades: npt.ArrayLike, threshold: float, core_radius: float) -> list[int]:
    """Return atoms around which to cut, so that every atom above a threshold lies in a core.

    The highest grade comes first; what lies in its core needs no piece of its own. Ties go to the first atom.

    :param grades: of the atoms, shape (n_atoms,).
    :param core_radius: Å.
    :raises ValueError: if the shapes do not fit.
    """
    values = np.asarray(grades, dtype=np.float64)
    if values.shape != (len(atoms),):
        raise ValueError(f"grades: expected one for each of {len(atoms)} atoms, got the shape {values.shape}")
    left = values > threshold
    centres: list[int] = []
    while left.any():
        centre = int(np.argmax(np.where(left, values, -np.inf)))
        centres.append(centre)
        near, _ = _surroundings(atoms, centre, core_radius)
        left[near] = False
        left[centre] = False
    return centres


def cut_out(atoms: Atoms, centre: int, settings: CutoutSettings | None = None) -> Atoms:
    """Return the surroundings of an atom as a frame of its own, without labels.

    It has the column :data:`CORE` of its atoms, keeps other columns of atoms and frame, and its centre comes first.

    :raises ValueError: if there is no such atom, or the frame with its images is smaller than a block: it can be
        labelled as it is.
    """
    settings = CutoutSettings() if settings is None else settings
    if not 0 <= centre < len(atoms):
        raise ValueError(f"there is no atom {centre} in a frame of {len(atoms)}")
    half = settings.core_radius + settings.reach
    if settings.shape == "block" and all(atoms.pbc):
        if abs(np.linalg.det(atoms.cell.array)) <= (2.0 * half) ** 3:
            raise ValueError(
                f"a block of {2 * half:g} Å is not smaller than the frame; label the frame, or lower core_radius, reach"
            )
        return _cut_block(atoms, centre, half, settings)
    return _cut_cluster(atoms, centre, half, settings)


def core_of(frames: list[Atoms]) -> BoolArray:
    """Return which atoms of frames may enter an active set, shape (n_atoms,): all of them but the shells of pieces."""
    parts = [np.asarray(atoms.arrays.get(CORE, np.ones(len(atoms))), dtype=bool) for atoms in frames]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=bool)


def keep_core(features: Features, frames: list[Atoms]) -> Features:
    """Return the features of the core atoms alone."""
    core = core_of(frames)
    return features if core.all() else Features(*(getattr(features, name)[core] for name in _FEATURES))


_FEATURES = ("values", "species", "frame_index")


def _surroundings(atoms: Atoms, centre: int, radius: float) -> tuple[IntArray, FloatArray]:
    """Return atoms and vectors (n, 3) to them or their images within a radius of an atom, itself not included."""
    reach = np.zeros(len(atoms))
    reach[centre] = radius
    i, j, distance, vector = primitive_neighbor_list(
        "ijdD", atoms.pbc, complete_cell(atoms.cell.array), atoms.positions, list(reach)
    )
    use = (i == centre) & (distance <= radius)
    return np.asarray(j[use], dtype=np.int64), np.asarray(vector[use], dtype=np.float64)


def _cut_cluster(atoms: Atoms, centre: int, radius: float, settings: CutoutSettings) -> Atoms:
    near, vectors = _surroundings(atoms, centre, radius)
    piece = _take(atoms, centre, near, vectors, settings.core_radius)
    piece.pbc = False
    piece.set_cell(np.ptp(piece.positions, axis=0) + settings.vacuum)
    piece.positions += 0.5 * piece.cell.lengths() - 0.5 * (piece.positions.max(axis=0) + piece.positions.min(axis=0))
    return piece


def _cut_block(atoms: Atoms, centre: int, half: float, settings: CutoutSettings) -> Atoms:
    near, vectors = _surroundings(atoms, centre, np.sqrt(3.0) * half)
    inside = np.all((vectors >= -half) & (vectors < half), axis=1)
    piece = _take(atoms, centre, near[inside], vectors[inside], settings.core_radius)
    piece.pbc = True
    piece.set_cell(np.full(3, 2.0 * half))
    piece.positions += half
    return _without_contacts(piece, half, settings.min_ratio)


def _without_contacts(piece: Atoms, half: float, min_ratio: float) -> Atoms:
    """Leave out atoms that are too close to an image across the seam, the farthest from the centre first."""
    distance = np.linalg.norm(piece.positions - half, axis=1)
    while True:
        close = atoms_in_contact(piece, min_ratio)
        # what was close in the frame already is not of the seam's making
        close = close[[_is_across_the_seam(piece, int(k), min_ratio) for k in close]] if len(close) else close
        close = close[~piece.arrays[CORE][close]]
        if not len(close):
            return piece
        worst = int(close[np.argmax(distance[close])])
        del piece[worst]
        distance = np.delete(distance, worst)


def _is_across_the_seam(piece: Atoms, atom: int, min_ratio: float) -> bool:
    vectors = piece.positions - piece.positions[atom]
    wrapped = vectors - np.round(vectors / piece.cell.lengths()) * piece.cell.lengths()
    moved = np.any(np.abs(wrapped - vectors) > 1e-9, axis=1)
    radii = covalent_radii[piece.numbers]
    too_close = np.linalg.norm(wrapped, axis=1) < min_ratio * (radii + radii[atom])
    return bool(np.any(moved & too_close))


def _take(atoms: Atoms, centre: int, near: IntArray, vectors: FloatArray, core_radius: float) -> Atoms:
    """Return atoms by their vectors from the centre, which comes first at the origin; then by distance."""
    order = np.argsort(np.linalg.norm(vectors, axis=1), kind="stable")
    piece = atoms[np.concatenate([[centre], near[order]])]
    piece.calc = None
    piece.positions = np.concatenate([np.zeros((1, 3)), vectors[order]])
    piece.arrays[CORE] = np.linalg.norm(piece.positions, axis=1) <= core_radius
    return piece
