"""Pieces of frames that are too large to label: an atom and what is around it, as a cluster or a periodic block.

A piece has a *core*, the atoms near its centre, of which every neighbour is in the piece where it was in the frame.
The atoms around the core are there for its sake: they lie at a surface, or at a seam, that the frame does not have.
Only the core may enter an active set (an envelope that holds such surfaces calls everything known; Shuang et al. 2025,
Sec. 4) and only its forces count, in errors, error bars and training. Energy and stress of a piece are sums over all
its atoms, nine in ten of which are not core.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from ase import Atoms
from ase.data import covalent_radii
from ase.geometry import complete_cell
from ase.neighborlist import primitive_neighbor_list

from aiida_alpot.kernel.potentials.base import Features
from aiida_alpot.kernel.units import BoolArray, FloatArray, IntArray

CORE: Final = "cutout_core"
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

    Of a frame that is a piece itself, atoms that are not core stay that.

    :raises ValueError: if there is no such atom, the frame has a charge or spin, of which no one knows how much belongs
        to a piece, or it is with its images smaller than a block: it can be labelled as it is.
    """
    settings = CutoutSettings() if settings is None else settings
    if not 0 <= centre < len(atoms):
        raise ValueError(f"there is no atom {centre} in a frame of {len(atoms)}")
    _check_neutral(atoms)
    radius = settings.core_radius + settings.reach
    if settings.shape == "cluster" or not all(atoms.pbc):
        return _cut_cluster(atoms, centre, radius, settings)
    # what is left out at the seam lies outside the sphere that is kept: spheres of images are a contact apart
    half = radius + settings.min_ratio * float(covalent_radii[atoms.numbers].max())
    if abs(np.linalg.det(atoms.cell.array)) <= (2.0 * half) ** 3:
        raise ValueError(
            f"a block of {2 * half:.3g} Å is not smaller than the frame; label the frame, or lower core_radius or reach"
        )
    return _cut_block(atoms, centre, half, settings)


def core_of(frames: Sequence[Atoms]) -> BoolArray:
    """Return which atoms of frames may enter an active set, shape (n_atoms,): all of them but the shells of pieces."""
    parts = [np.asarray(atoms.arrays.get(CORE, np.ones(len(atoms))), dtype=bool) for atoms in frames]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=bool)


def whole_frames(frames: Sequence[Atoms]) -> BoolArray:
    """Return which frames have nothing but core atoms, shape (n_frames,): those that are no pieces."""
    return np.array([bool(np.all(atoms.arrays.get(CORE, True))) for atoms in frames], dtype=bool)


def keep_core(features: Features, frames: Sequence[Atoms]) -> Features:
    """Return the features of the core atoms alone."""
    core = core_of(frames)
    return features if core.all() else Features(*(getattr(features, name)[core] for name in _FEATURES))


_FEATURES = ("values", "species", "frame_index")


def _check_neutral(atoms: Atoms) -> None:
    for name, nothing in (("charge", 0.0), ("spin", 1.0)):
        value = atoms.info.get(name)
        if value is not None and not np.isnan(value) and value != nothing:
            raise ValueError(f"the frame has the {name} {value:g}; how much of it belongs to a piece is not known")


def _surroundings(atoms: Atoms, centre: int, radius: float) -> tuple[IntArray, FloatArray]:
    """Return atoms and vectors (n, 3) to them or their images within a radius of an atom, itself not included."""
    cell = complete_cell(atoms.cell.array)
    periodic = np.asarray(atoms.pbc, dtype=bool)
    fractions = np.linalg.solve(cell.T, (atoms.positions - atoms.positions[centre]).T).T
    fractions[:, periodic] -= np.round(fractions[:, periodic])
    heights = 1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    # |f + s| h is at most the distance, and |f| at most one half
    most = np.where(periodic, np.floor(radius / heights + 0.5), 0).astype(np.int64)
    shifts = np.array(list(product(*(range(-n, n + 1) for n in most.tolist()))), dtype=np.float64)
    vectors = (fractions[None] + shifts[:, None]) @ cell
    square = np.square(vectors).sum(axis=2)
    image, atom = np.nonzero(square <= radius**2)
    own = (atom == centre) & ~shifts[image].any(axis=1)
    return atom[~own], vectors[image[~own], atom[~own]]


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
    first, second, image = primitive_neighbor_list(
        "ijS", piece.pbc, piece.cell.array, piece.positions, list(min_ratio * covalent_radii[piece.numbers])
    )
    pairs = np.column_stack([first, second])[np.any(image != 0, axis=1)]
    distance = np.linalg.norm(piece.positions - half, axis=1)
    left_out: list[int] = []
    while len(pairs):
        close = np.unique(pairs)
        worst = int(close[np.argmax(distance[close])])
        left_out.append(worst)
        pairs = pairs[~np.any(pairs == worst, axis=1)]
    del piece[left_out]
    return piece


def _take(atoms: Atoms, centre: int, near: IntArray, vectors: FloatArray, core_radius: float) -> Atoms:
    """Return atoms by their vectors from the centre, which comes first at the origin; then by distance."""
    order = np.argsort(np.linalg.norm(vectors, axis=1), kind="stable")
    piece = atoms[np.concatenate([[centre], near[order]])]
    piece.calc = None
    piece.positions = np.concatenate([np.zeros((1, 3)), vectors[order]])
    piece.arrays[CORE] = core_of([piece]) & (np.linalg.norm(piece.positions, axis=1) <= core_radius)
    return piece
