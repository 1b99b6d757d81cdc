"""Displace every atom at random, the same in all directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from ase import Atoms

from aiida_alpot.kernel.augmentation.base import DroppedFrameError, NotApplicableError, Step
from aiida_alpot.kernel.defaults import RATTLE_FRACTION
from aiida_alpot.kernel.geometry import atoms_in_contact, nearest_neighbour_distance
from aiida_alpot.kernel.units import FloatArray


@dataclass(frozen=True)
class RattleSettings:
    """How far atoms are displaced, [TrainsPot] Sec. II A 2.

    :param fraction: scale of the displacement over the nearest-neighbour distance of the frame.
    :param distribution: ``uniform`` in the ball of the scale's radius; ``magnitude``: random direction and a length
        uniform up to the scale, which is the paper's wording and has an rms of 0.58 instead of 0.77 of the radius;
        ``normal``: the scale is the standard deviation of each component.
    :param amplitude: the scale in Å, overrides *fraction*.
    :param remove_drift: take the mean displacement away.
    :param min_ratio: atoms closer than this share of the sum of their covalent radii are displaced anew.
    :param max_tries: how often, before the frame is dropped.
    """

    fraction: float = RATTLE_FRACTION
    distribution: Literal["uniform", "magnitude", "normal"] = "uniform"
    amplitude: float | None = None
    remove_drift: bool = False
    min_ratio: float = 0.4
    max_tries: int = 20

    def __post_init__(self) -> None:
        if not 0.0 < self.fraction < 1.0:
            raise ValueError(f"'fraction' must lie between 0 and 1, got {self.fraction}")
        if self.amplitude is not None and not self.amplitude > 0.0:
            raise ValueError(f"'amplitude' must be positive, got {self.amplitude}")
        if not 0.0 <= self.min_ratio < 1.0:
            raise ValueError(f"'min_ratio' must lie in [0, 1), got {self.min_ratio}")
        if self.max_tries < 1:
            raise ValueError(f"'max_tries' must be at least 1, got {self.max_tries}")


def draw_displacements(
    n_atoms: int, scale: float, distribution: Literal["uniform", "magnitude", "normal"], rng: np.random.Generator
) -> FloatArray:
    """Return isotropic displacements with mean zero.

    :param scale: radius of the ball, or standard deviation of a component, Å.
    :return: shape (n_atoms, 3), Å.
    """
    vectors = rng.normal(size=(n_atoms, 3))
    if distribution == "normal":
        return scale * vectors
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    lengths = rng.random((n_atoms, 1))
    return scale * vectors * (np.cbrt(lengths) if distribution == "uniform" else lengths)


def rattle(atoms: Atoms, settings: RattleSettings, rng: np.random.Generator) -> Step:
    """Return the frame with displaced atoms.

    Only the atoms of pairs that came too close are drawn anew, so that large frames are as likely to succeed as small
    ones.

    :raises NotApplicableError: if there is one atom, whose displacement is a translation.
    :raises DroppedFrameError: if atoms are still too close after *max_tries*.
    """
    if len(atoms) == 1:
        raise NotApplicableError("single_atom")
    scale = settings.amplitude
    if scale is None:
        scale = settings.fraction * nearest_neighbour_distance(atoms)
    displacements = draw_displacements(len(atoms), scale, settings.distribution, rng)
    rattled = atoms.copy()
    for _ in range(settings.max_tries):
        shift = displacements.mean(axis=0) if settings.remove_drift else 0.0
        rattled.positions = atoms.positions + displacements - shift
        close = atoms_in_contact(rattled, settings.min_ratio)
        if len(close) == 0:
            return Step(rattled, "rattle")
        displacements[close] = draw_displacements(len(close), scale, settings.distribution, rng)
    raise DroppedFrameError("close_contact")
