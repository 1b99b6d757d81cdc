"""Put more atoms into the voids of a frame."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii

from aiida_alpot.kernel.augmentation.base import DroppedFrameError, NotApplicableError, Step
from aiida_alpot.kernel.augmentation.species import check_symbols
from aiida_alpot.kernel.units import FloatArray
from aiida_alpot.kernel.voids import Voids, find_voids, images_within


@dataclass(frozen=True)
class InterstitialSettings:
    """Neutral interstitial atoms; no paper gives the numbers, which are ours.

    :param fraction: share of the distorted frames that a frame with interstitial atoms is made from.
    :param per_frame: atoms added.
    :param max_fraction: largest number of added atoms over the atoms of a frame; small cells get fewer, and are left
        out if that leaves none to add.
    :param species: elements to draw from, each as likely; those of the frame if omitted.
    :param min_ratio: smallest distance of an added atom to any other over the sum of covalent radii. Metals need a
        small one: it is 0.68 in the octahedral void of fcc Cu and 0.61 in the tetrahedral void of bcc Fe.
    :param max_radius: Å, a larger empty sphere is vacuum: a slab in a cell of full periodicity, a pore. Along an axis
        that is not periodic, no point outside the outermost atoms is a void, see
        :func:`~aiida_alpot.kernel.voids.find_voids`.
    """

    fraction: float = 0.2
    per_frame: int = 1
    max_fraction: float = 0.25
    species: tuple[str, ...] | None = None
    min_ratio: float = 0.5
    max_radius: float = 4.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.fraction <= 1.0:
            raise ValueError(f"'fraction' must lie in [0, 1], got {self.fraction}")
        if self.per_frame < 1:
            raise ValueError(f"'per_frame' must be at least 1, got {self.per_frame}")
        if not 0.0 < self.max_fraction <= 1.0:
            raise ValueError(f"'max_fraction' must lie in (0, 1], got {self.max_fraction}")
        if not 0.0 <= self.min_ratio < 2.0:
            raise ValueError(f"'min_ratio' must lie in [0, 2), got {self.min_ratio}")
        if not 0.0 < self.max_radius <= 20.0:
            raise ValueError(f"'max_radius' must lie in (0, 20] Å, got {self.max_radius}")
        if self.species is not None:
            check_symbols("species", self.species)
            if not self.species:
                raise ValueError("'species' must name an element, got none; omit it for those of the frame")


def count_interstitials(atoms: Atoms, settings: InterstitialSettings) -> int:
    """Return how many atoms may be added to the frame.

    :raises NotApplicableError: if none may.
    """
    if not atoms.pbc.any():
        raise NotApplicableError("no_periodic_axis")
    n_added = min(settings.per_frame, math.floor(settings.max_fraction * len(atoms) + 1e-9))
    if n_added == 0:
        raise NotApplicableError("too_few_atoms")
    return n_added


def make_interstitials(atoms: Atoms, settings: InterstitialSettings, rng: np.random.Generator) -> Step:
    """Return the frame with atoms in some of its voids, drawn in proportion to the volume of the empty sphere.

    User columns of an added atom are zero or empty.

    :raises NotApplicableError: if the frame is too small, a molecule, or has no void.
    :raises DroppedFrameError: if no void has room for the element that was drawn.
    """
    n_added = count_interstitials(atoms, settings)
    voids = find_voids(atoms, settings.max_radius)
    if len(voids.radii) == 0:
        raise NotApplicableError("no_void")
    choices = settings.species or sorted(set(atoms.get_chemical_symbols()))
    species = [choices[k] for k in rng.integers(len(choices), size=n_added)]
    filled = atoms.copy()
    for symbol in species:
        filled.extend(Atoms(symbol, [_draw_site(filled, symbol, voids, settings.min_ratio, rng)]))
    parameters = {"species": species, "positions": filled.positions[len(atoms) :].tolist()}
    return Step(filled, f"interstitial {' '.join(species)}", parameters)


def _draw_site(atoms: Atoms, symbol: str, voids: Voids, min_ratio: float, rng: np.random.Generator) -> FloatArray:
    """Return a void in which an atom is far enough from all others and from its own images, shape (3,), Å."""
    radius = covalent_radii[atomic_numbers[symbol]]
    limits = min_ratio * (radius + covalent_radii[atoms.numbers])
    points, owner = images_within(atoms, float(limits.max()))
    if _meets_itself(atoms, symbol, 2.0 * min_ratio * radius):
        raise DroppedFrameError("close_contact")
    weights = voids.radii**3
    for k in rng.choice(len(weights), size=len(weights), replace=False, p=weights / weights.sum()):
        if (np.linalg.norm(points - voids.positions[k], axis=1) >= limits[owner]).all():
            return np.asarray(voids.positions[k])
    raise DroppedFrameError("close_contact")


def _meets_itself(atoms: Atoms, symbol: str, distance: float) -> bool:
    """Return whether images of one atom are closer than *distance* in the cell of the frame."""
    images, _ = images_within(Atoms(symbol, cell=atoms.cell, pbc=atoms.pbc), distance)
    return bool(np.count_nonzero(np.linalg.norm(images, axis=1) < distance) > 1)
