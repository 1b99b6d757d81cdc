"""Deform a frame by a random symmetric stretch along its periodic directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from ase import Atoms

from aiida_alpot.kernel.augmentation.base import DroppedFrameError, NotApplicableError, Step
from aiida_alpot.kernel.defaults import STRAIN_RANGE
from aiida_alpot.kernel.geometry import atoms_in_contact
from aiida_alpot.kernel.units import FloatArray

_MAX_DRAWS = 10_000
"""Draws of a stretch before settings count as contradictory: a draw costs microseconds."""


@dataclass(frozen=True)
class StrainSettings:
    """A random stretch, [TrainsPot] Sec. II A 2.

    The default range is linear: from −20 % to +60 % in each direction means from 0.51 to 4.1 times the volume.
    Give *volume_range* to bound the volume too.

    :param range: bounds of every principal strain (stretch minus one), whatever the mode and the distribution.
    :param mode: ``full``: symmetric tensor of random orientation; ``normal``: independent along fixed orthogonal axes,
        the first along the first periodic cell vector; ``volumetric``: the same in all periodic directions.
    :param distribution: of the principal strains: ``uniform`` in *range*; ``normal``: the symmetric part of a matrix
        of independent N(0, *stdev*) components (rotation invariant), or its diagonal, or one number, by mode.
    :param stdev: standard deviation of a strain component for ``normal``.
    :param volume_range: bounds of the ratio of volumes (area for a slab, length for a wire), drawn uniformly; the drawn
        tensor then gives the shape only.
    :param molecules: deform the positions of frames without a periodic axis, about their centre.
    :param min_ratio: frames with atoms closer than this share of the sum of covalent radii are drawn anew.
    :param max_tries: how often, before the frame is dropped.
    """

    range: tuple[float, float] = STRAIN_RANGE
    mode: Literal["full", "normal", "volumetric"] = "full"
    distribution: Literal["uniform", "normal"] = "uniform"
    stdev: float = 0.03
    volume_range: tuple[float, float] | None = None
    molecules: bool = False
    min_ratio: float = 0.6
    max_tries: int = 20

    def __post_init__(self) -> None:
        low, high = self.range
        if not -1.0 < low <= 0.0 <= high or low == high:
            raise ValueError(f"'range' must hold 0 and start above -1, got {self.range}")
        if not self.stdev > 0.0:
            raise ValueError(f"'stdev' must be positive, got {self.stdev}")
        if not 0.0 <= self.min_ratio < 1.0:
            raise ValueError(f"'min_ratio' must lie in [0, 1), got {self.min_ratio}")
        if self.max_tries < 1:
            raise ValueError(f"'max_tries' must be at least 1, got {self.max_tries}")
        self._check_volume_range()

    def _check_volume_range(self) -> None:
        if self.volume_range is None:
            return
        low, high = self.volume_range
        if not 0.0 < low <= 1.0 <= high or low == high:
            raise ValueError(f"'volume_range' must hold 1 and start above 0, got {self.volume_range}")


def draw_stretch(n_dim: int, settings: StrainSettings, rng: np.random.Generator) -> FloatArray:
    """Return a random symmetric stretch tensor whose eigenvalues lie in ``1 + range``.

    :param n_dim: number of directions that are deformed, 1 to 3.
    :return: shape (n_dim, n_dim).
    :raises ValueError: if *range* and *volume_range* leave no room for a draw.
    """
    low, high = settings.range
    for _ in range(_MAX_DRAWS):
        values, axes = _draw_principal(n_dim, settings, rng)
        stretches = 1.0 + values
        if settings.volume_range is not None and (stretches > 0.0).all():
            volume = rng.uniform(*settings.volume_range)
            stretches = stretches * (volume / stretches.prod()) ** (1.0 / n_dim)
        if ((stretches >= 1.0 + low - 1e-12) & (stretches <= 1.0 + high + 1e-12)).all():
            tensor = (axes * stretches) @ axes.T
            return 0.5 * (tensor + tensor.T)
    raise ValueError(
        f"no stretch within 'range' {settings.range} and 'volume_range' {settings.volume_range} in {_MAX_DRAWS} draws"
    )


def _draw_principal(n_dim: int, settings: StrainSettings, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Return principal strains, shape (n_dim,), and their axes as columns."""
    fixed = np.eye(n_dim)
    n_values = 1 if settings.mode == "volumetric" else n_dim
    if settings.distribution == "normal" and settings.mode == "full":
        matrix = rng.normal(scale=settings.stdev, size=(n_dim, n_dim))
        values, axes = np.linalg.eigh(0.5 * (matrix + matrix.T))
        return values, axes
    if settings.distribution == "normal":
        return np.broadcast_to(rng.normal(scale=settings.stdev, size=n_values), n_dim), fixed
    values = np.broadcast_to(rng.uniform(*settings.range, size=n_values), n_dim)
    if settings.mode != "full":
        return values, fixed
    return values, _random_axes(n_dim, rng)


def _random_axes(n_dim: int, rng: np.random.Generator) -> FloatArray:
    """Return an orthogonal matrix with Haar measure (QR of a Gaussian matrix with the signs of R taken out)."""
    axes, upper = np.linalg.qr(rng.normal(size=(n_dim, n_dim)))
    return np.asarray(axes * np.sign(np.diag(upper)))


def apply_stretch(atoms: Atoms, stretch: FloatArray) -> Atoms:
    """Return the frame deformed by *stretch* in the space of its periodic vectors.

    Vectors along axes that are not periodic, and distances normal to a slab or wire, keep their value: vacuum is never
    strained. A frame without a periodic axis is deformed about its centre and keeps its cell.

    :param stretch: shape (n, n) with n the number of periodic axes, or 3 for a molecule.
    :raises ValueError: if the shape does not fit the frame.
    """
    periodic = np.asarray(atoms.pbc, dtype=bool)
    n_dim = int(periodic.sum()) or 3
    if stretch.shape != (n_dim, n_dim):
        raise ValueError(f"expected a stretch of shape {(n_dim, n_dim)}, got {stretch.shape}")
    basis = np.linalg.qr(atoms.cell.array[periodic].T)[0] if periodic.any() else np.eye(3)
    deformation = np.eye(3) + basis @ (stretch - np.eye(n_dim)) @ basis.T
    centre = np.zeros(3) if periodic.any() else atoms.positions.mean(axis=0)
    strained = atoms.copy()
    strained.positions = (atoms.positions - centre) @ deformation + centre
    cell = atoms.cell.array.copy()
    cell[periodic] = cell[periodic] @ deformation
    strained.set_cell(cell, scale_atoms=False)
    return strained


def strain(atoms: Atoms, settings: StrainSettings, rng: np.random.Generator) -> Step:
    """Return the frame after a random stretch.

    :raises NotApplicableError: if no axis is periodic and molecules are not to be deformed, or there is nothing to
        deform.
    :raises DroppedFrameError: if atoms are still too close after *max_tries*.
    """
    n_dim = int(np.asarray(atoms.pbc).sum())
    if n_dim == 0 and not settings.molecules:
        raise NotApplicableError("no_periodic_axis")
    if n_dim == 0 and len(atoms) == 1:
        raise NotApplicableError("single_atom")
    for _ in range(settings.max_tries):
        strained = apply_stretch(atoms, draw_stretch(n_dim or 3, settings, rng))
        if len(atoms_in_contact(strained, settings.min_ratio)) == 0:
            return Step(strained, "strain")
    raise DroppedFrameError("close_contact")
