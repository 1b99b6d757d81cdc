"""Deform a frame by a random symmetric stretch along its periodic directions.

A stretch is a function of a point in the unit cube, one coordinate for each number that is drawn: a principal strain,
an angle, a volume. Points are independent, or those of a Latin hypercube over all copies of a frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from ase import Atoms
from scipy.special import ndtri

from aiida_alpot.kernel.augmentation.base import Done, DroppedFrameError, NotApplicableError, Outcome, Step
from aiida_alpot.kernel.augmentation.copies import Base, Copies, change_one
from aiida_alpot.kernel.defaults import STRAIN_RANGE
from aiida_alpot.kernel.units import VOIGT, BoolArray, FloatArray

_MAX_DRAWS = 10_000
"""Draws of a stretch before settings count as contradictory: a draw costs microseconds."""

_MAX_STRAIN = 1.0
"""Principal strain at twice the length: above, bonds are broken, or percent are meant."""


@dataclass(frozen=True)
class StrainSettings:
    """A random stretch, [TrainsPot] Sec. II A 2.

    The default range is linear and ours: from −10 % to +20 % in each direction, from 0.73 to 1.73 times the volume, see
    :data:`~aiida_alpot.kernel.defaults.STRAIN_RANGE`. [TrainsPot] has −20 % to +60 %, 0.51 to 4.1 times the volume.
    Give *volume_range* to bound the volume too. [AutoPot] Sec. 5.1 and 5.2 have ``mode="components"`` and ±2 % or ±3 %.

    :param range: bounds of every principal strain (stretch minus one), whatever the mode and the distribution; of the
        components in the mode ``components``. Above -1, and at most 1.
    :param mode: ``full``: symmetric tensor of random orientation; ``normal``: independent along fixed orthogonal axes,
        the first along the first periodic cell vector; ``volumetric``: the same in all periodic directions;
        ``uniaxial``: in one random direction, the others keep their length; ``shear``: by 1 + γ in one random direction
        and 1/(1 + γ) in another orthogonal to it, which keeps the volume; ``components``: every component of the
        tensor by itself, a shear component within half the width of *range* around 0.
    :param distribution: of the principal strains (γ, components): ``uniform`` in *range*; ``normal``: for ``full`` and
        ``components`` the symmetric part of a matrix of independent N(0, *stdev*) components (rotation invariant), for
        the other modes principal strains N(0, *stdev*).
    :param stdev: standard deviation of a strain component for ``normal``.
    :param volume_range: bounds of the ratio of volumes (area for a slab, length for a wire), drawn uniformly; the drawn
        tensor then gives the shape only.
    :param sampling: ``random``: independent copies; ``latin_hypercube``: each number that is drawn falls once into
        each of as many equally likely intervals as there are copies of a frame (McKay 1979), which covers the range
        with fewer copies. A copy that is drawn anew, for a contact or a bound, is independent.
    :param molecules: deform the positions of frames without a periodic axis, about their centre.
    :param min_ratio: frames with atoms closer than this share of the sum of covalent radii are drawn anew.
    :param max_tries: how often, before the frame is dropped.
    """

    range: tuple[float, float] = STRAIN_RANGE
    mode: Literal["full", "normal", "volumetric", "uniaxial", "shear", "components"] = "full"
    distribution: Literal["uniform", "normal"] = "uniform"
    stdev: float = 0.03
    volume_range: tuple[float, float] | None = None
    sampling: Literal["random", "latin_hypercube"] = "random"
    molecules: bool = False
    min_ratio: float = 0.6
    max_tries: int = 20

    def __post_init__(self) -> None:
        low, high = self.range
        if not -1.0 < low <= 0.0 <= high <= _MAX_STRAIN or low == high:
            raise ValueError(
                f"'range' must hold 0, start above -1 and end at most at {_MAX_STRAIN:g}, got {self.range}"
            )
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
        if self.mode == "shear":
            raise ValueError(f"'volume_range' has no meaning for the mode 'shear', got {self.volume_range}")


def draw_stretch(n_dim: int, settings: StrainSettings, rng: np.random.Generator) -> FloatArray:
    """Return a random symmetric stretch tensor whose eigenvalues lie in ``1 + range``.

    :param n_dim: number of directions that are deformed, 1 to 3; at least 2 for the mode ``shear``.
    :return: shape (n_dim, n_dim).
    :raises ValueError: if *range* and *volume_range* leave no room for a draw.
    """
    return np.asarray(_draw_stretches(n_dim, settings, [rng])[0])


def _draw_stretches(
    n_dim: int, settings: StrainSettings, rngs: Sequence[np.random.Generator], first: FloatArray | None = None
) -> FloatArray:
    """Return a stretch from each generator, shape (n, n_dim, n_dim).

    :param first: points in the unit cube for the first draws, shape (n, n_coordinates).
    """
    stretches = np.empty((len(rngs), n_dim, n_dim))
    waiting = np.arange(len(rngs))
    n_coordinates = count_coordinates(n_dim, settings)
    for _ in range(_MAX_DRAWS):
        points = first if first is not None else np.array([rngs[k].random(n_coordinates) for k in waiting.tolist()])
        first = None
        drawn, is_valid = _stretches_at(points, n_dim, settings)
        stretches[waiting[is_valid]] = drawn[is_valid]
        waiting = waiting[~is_valid]
        if len(waiting) == 0:
            return stretches
    raise ValueError(
        f"no stretch within 'range' {settings.range} and 'volume_range' {settings.volume_range} in {_MAX_DRAWS} draws"
    )


def count_coordinates(n_dim: int, settings: StrainSettings) -> int:
    """Return of how many numbers a stretch of *n_dim* directions is a function."""
    n_angles = n_dim * (n_dim - 1) // 2
    n_values = {
        "full": n_dim + n_angles,
        "normal": n_dim,
        "volumetric": 1,
        "uniaxial": n_dim,
        "shear": 1 + n_angles,
        "components": n_dim + n_angles,
    }[settings.mode]
    return n_values + (settings.volume_range is not None)


def _stretches_at(points: FloatArray, n_dim: int, settings: StrainSettings) -> tuple[FloatArray, BoolArray]:
    """Return the stretches that belong to points of the unit cube, and which of them the settings allow."""
    low, high = settings.range
    is_tensor = settings.mode == "components" or (settings.mode == "full" and settings.distribution == "normal")
    tensors = _tensors_at(points, n_dim, settings) if is_tensor else _principal_at(points, n_dim, settings)
    principal = np.linalg.eigvalsh(tensors)
    if settings.volume_range is not None:
        ratios = np.interp(points[:, -1], [0.0, 1.0], settings.volume_range)
        is_positive = (principal > 0.0).all(axis=1)
        factors = np.ones(len(points))
        factors[is_positive] = (ratios[is_positive] / principal[is_positive].prod(axis=1)) ** (1.0 / n_dim)
        tensors, principal = tensors * factors[:, None, None], principal * factors[:, None]
    if settings.mode == "components" and settings.distribution == "uniform":
        return tensors, np.asarray((principal > 0.0).all(axis=1))
    return tensors, np.asarray(((principal >= 1.0 + low - 1e-12) & (principal <= 1.0 + high + 1e-12)).all(axis=1))


def _strains_at(points: FloatArray, settings: StrainSettings) -> FloatArray:
    """Return strains that are distributed as the settings say."""
    if settings.distribution == "normal":
        return np.asarray(settings.stdev * ndtri(np.maximum(points, np.finfo(float).tiny)))
    low, high = settings.range
    return low + (high - low) * points


def _tensors_at(points: FloatArray, n_dim: int, settings: StrainSettings) -> FloatArray:
    """Return stretches whose components are independent."""
    tensors = np.zeros((len(points), n_dim, n_dim))
    diagonal = np.arange(n_dim)
    tensors[:, diagonal, diagonal] = 1.0 + _strains_at(points[:, :n_dim], settings)
    above = np.triu_indices(n_dim, 1)
    shears = points[:, n_dim : n_dim + len(above[0])]
    if settings.distribution == "normal":
        shears = _strains_at(shears, settings) / np.sqrt(2.0)
    else:
        shears = (settings.range[1] - settings.range[0]) * (shears - 0.5)
    tensors[:, above[0], above[1]] = tensors[:, above[1], above[0]] = shears
    return tensors


def _principal_at(points: FloatArray, n_dim: int, settings: StrainSettings) -> FloatArray:
    """Return stretches by their principal values and axes."""
    n_values = {"full": n_dim, "normal": n_dim}.get(settings.mode, 1)
    strains = _strains_at(points[:, :n_values], settings)
    stretches = np.ones((len(points), n_dim))
    stretches[:, :n_values] += strains
    if settings.mode == "volumetric":
        stretches[:] = 1.0 + strains
    if settings.mode == "shear":
        stretches[:, 1] = 1.0 / np.maximum(stretches[:, 0], np.finfo(float).tiny)
    if settings.mode in ("normal", "volumetric"):
        return stretches[:, :, None] * np.eye(n_dim)
    axes = _axes_at(points[:, n_values:], n_dim)
    tensors = np.einsum("kia,ka,kja->kij", axes, stretches, axes)
    return np.asarray(0.5 * (tensors + tensors.transpose(0, 2, 1)))


def _axes_at(points: FloatArray, n_dim: int) -> FloatArray:
    """Return rotations with uniform measure, axes as columns; two coordinates give the first axis alone.

    In three dimensions: the first axis uniform on the sphere, the others turned about it by a third coordinate.
    """
    if n_dim == 1:
        return np.ones((len(points), 1, 1))
    angle = 2.0 * np.pi * points[:, 0]
    cos, sin = np.cos(angle), np.sin(angle)
    if n_dim == 2:
        return np.moveaxis(np.array([[cos, -sin], [sin, cos]]), 2, 0)
    height = 2.0 * points[:, 1] - 1.0
    radius = np.sqrt(1.0 - height**2)
    first = np.stack([radius * cos, radius * sin, height], axis=1)
    second = np.stack([-sin, cos, np.zeros(len(points))], axis=1)
    third = np.cross(first, second)
    turn = 2.0 * np.pi * (points[:, 2:3] if points.shape[1] > 2 else np.zeros((len(points), 1)))
    turned = np.cos(turn) * second + np.sin(turn) * third
    return np.stack([first, turned, np.cross(first, turned)], axis=2)


def design_strains(
    atoms: Atoms, settings: StrainSettings, n_copies: int, rng: np.random.Generator
) -> FloatArray | None:
    """Return a point in the unit cube for each copy of a frame, None if copies are independent.

    :return: a Latin hypercube, shape (n_copies, n_coordinates).
    """
    if settings.sampling == "random":
        return None
    shape = (n_copies, count_coordinates(int(np.asarray(atoms.pbc).sum()) or 3, settings))
    strata = rng.permuted(np.broadcast_to(np.arange(n_copies)[:, None], shape), axis=0)
    return np.asarray((strata + rng.random(shape)) / max(n_copies, 1))


def apply_stretch(atoms: Atoms, stretch: FloatArray) -> Atoms:
    """Return the frame deformed by *stretch* in the space of its periodic vectors.

    Vectors along axes that are not periodic, and distances normal to a slab or wire, keep their value: vacuum is never
    strained. A frame without a periodic axis is deformed about its centre and keeps its cell.

    :param stretch: shape (n, n) with n the number of periodic axes, or 3 for a molecule.
    :raises ValueError: if the shape does not fit the frame.
    """
    n_dim = int(np.asarray(atoms.pbc).sum()) or 3
    if stretch.shape != (n_dim, n_dim):
        raise ValueError(f"expected a stretch of shape {(n_dim, n_dim)}, got {stretch.shape}")
    copies = Copies(Base(atoms), [atoms])
    copies.deformations = _deformations(copies.base, stretch[None])
    return copies.atoms(0)


def _deformations(base: Base, stretches: FloatArray) -> FloatArray:
    """Return what row vectors are multiplied with from the right, shape (n, 3, 3)."""
    excess = stretches - np.eye(stretches.shape[1])
    return np.asarray(np.eye(3) + np.einsum("ia,kab,jb->kij", base.plane, excess, base.plane))


def strain_copies(
    copies: Copies, settings: StrainSettings, rngs: Sequence[np.random.Generator], design: FloatArray | None = None
) -> list[Outcome]:
    """Deform copies, each by a stretch from its own generator, and return what became of each.

    The parameter ``strain`` is the stretch minus one, in the order xx yy zz yz xz xy.

    :param design: rows of :func:`design_strains` for the copies.
    """
    atoms = copies.base.atoms
    n_dim = int(np.asarray(atoms.pbc).sum())
    problem = _find_problem(n_dim, len(atoms), settings)
    if problem:
        return [NotApplicableError(problem)] * len(copies)
    copies.deformations = np.empty((len(copies), 3, 3))
    waiting = np.arange(len(copies))
    for _ in range(settings.max_tries):
        stretches = _draw_stretches(n_dim or 3, settings, [rngs[k] for k in waiting.tolist()], design)
        design = None
        copies.deformations[waiting] = _deformations(copies.base, stretches)
        waiting = np.unique(copies.contacts(waiting, settings.min_ratio)[0])
        if len(waiting) == 0:
            break
    strains = np.array([(copies.deformations - np.eye(3))[:, a, b] for a, b in VOIGT]).T.round(8)
    outcomes: list[Outcome] = [Done("strain", {"strain": components}) for components in strains.tolist()]
    for k in waiting.tolist():
        outcomes[k] = DroppedFrameError("close_contact")
    return outcomes


def _find_problem(n_dim: int, n_atoms: int, settings: StrainSettings) -> str:
    """Return why a strain has no meaning for a frame, as a short code."""
    if n_dim == 0 and not settings.molecules:
        return "no_periodic_axis"
    if n_dim == 0 and n_atoms == 1:
        return "single_atom"
    if n_dim == 1 and settings.mode == "shear":
        return "one_periodic_axis"
    return ""


def strain(atoms: Atoms, settings: StrainSettings, rng: np.random.Generator) -> Step:
    """Return the frame after a random stretch.

    :raises NotApplicableError: if no axis is periodic and molecules are not to be deformed, or there is nothing to
        deform.
    :raises DroppedFrameError: if atoms are still too close after *max_tries*.
    """
    return change_one(strain_copies, atoms, settings, rng)
