"""Displace every atom at random, the same in all directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from ase import Atoms

from aiida_alpot.kernel.augmentation.base import Done, DroppedFrameError, NotApplicableError, Outcome, Step
from aiida_alpot.kernel.augmentation.copies import Copies, change_one
from aiida_alpot.kernel.defaults import RATTLE_FRACTION
from aiida_alpot.kernel.units import FloatArray

Distribution = Literal["uniform", "magnitude", "normal"]

_MAX_AMPLITUDE = 5.0
"""Å, above which no crystal or molecule is left: longer than any bond."""


@dataclass(frozen=True)
class RattleSettings:
    """How far atoms are displaced, [TrainsPot] Sec. II A 2.

    [AutoPot] Sec. 5.1 has ``distribution="normal"`` and an *amplitude* of 0.02 Å, after a strain of 2 %.

    :param fraction: scale of the displacement over the nearest-neighbour distance of the frame.
    :param distribution: ``uniform`` in the ball of the scale's radius; ``magnitude``: random direction and a length
        uniform up to the scale, which is the paper's wording and has an rms of 0.58 instead of 0.77 of the radius;
        ``normal``: the scale is the standard deviation of each component.
    :param amplitude: the scale in Å, at most 5, overrides *fraction*.
    :param remove_drift: take the mean displacement away.
    :param min_ratio: atoms closer than this share of the sum of their covalent radii are displaced anew.
    :param max_tries: how often, before the frame is dropped.
    """

    fraction: float = RATTLE_FRACTION
    distribution: Distribution = "uniform"
    amplitude: float | None = None
    remove_drift: bool = False
    min_ratio: float = 0.4
    max_tries: int = 20

    def __post_init__(self) -> None:
        if not 0.0 < self.fraction < 1.0:
            raise ValueError(f"'fraction' must lie between 0 and 1, got {self.fraction}")
        if self.amplitude is not None and not 0.0 < self.amplitude <= _MAX_AMPLITUDE:
            raise ValueError(f"'amplitude' must lie in (0, {_MAX_AMPLITUDE:g}] Å, got {self.amplitude}")
        if not 0.0 <= self.min_ratio < 1.0:
            raise ValueError(f"'min_ratio' must lie in [0, 1), got {self.min_ratio}")
        if self.max_tries < 1:
            raise ValueError(f"'max_tries' must be at least 1, got {self.max_tries}")


def draw_displacements(n_atoms: int, scale: float, distribution: Distribution, rng: np.random.Generator) -> FloatArray:
    """Return isotropic displacements with mean zero.

    :param scale: radius of the ball, or standard deviation of a component, Å.
    :return: shape (n_atoms, 3), Å.
    """
    return np.asarray(scale * _draw(n_atoms, distribution, [rng])[0])


def _draw(n_atoms: int, distribution: Distribution, rngs: Sequence[np.random.Generator]) -> FloatArray:
    """Return displacements of scale one, each copy from its own generator, shape (n_copies, n_atoms, 3)."""
    vectors = np.empty((len(rngs), n_atoms, 3))
    lengths = np.empty((len(rngs), n_atoms, 1))
    for k, rng in enumerate(rngs):
        rng.standard_normal(out=vectors[k])
        if distribution != "normal":
            rng.random(out=lengths[k])
    if distribution == "normal":
        return vectors
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    vectors *= np.cbrt(lengths) if distribution == "uniform" else lengths
    return vectors


def rattle_copies(
    copies: Copies, settings: RattleSettings, rngs: Sequence[np.random.Generator], design: FloatArray | None = None
) -> list[Outcome]:
    """Displace the atoms of copies, each from its own generator, and return what became of each.

    The parameter ``scale`` is the radius of the ball, or the standard deviation of a component, in Å.

    Only the atoms of pairs that came too close are drawn anew, so that large frames are as likely to succeed as small
    ones.

    :param design: not used.
    """
    del design
    if copies.n_atoms == 1:  # its displacement would be a translation
        return [NotApplicableError("single_atom")] * len(copies)
    if settings.amplitude is None:
        scales = settings.fraction * copies.nearest_distances()
    else:
        scales = np.full(len(copies), settings.amplitude)
    drawn = scales[:, None, None] * _draw(copies.n_atoms, settings.distribution, rngs)
    copies.displacements = drawn.copy()
    waiting = np.arange(len(copies))
    for _ in range(settings.max_tries):
        if settings.remove_drift:
            copies.displacements[waiting] = drawn[waiting] - drawn[waiting].mean(axis=1, keepdims=True)
        else:
            copies.displacements[waiting] = drawn[waiting]
        close_copies, close_atoms = copies.contacts(waiting, settings.min_ratio)
        if len(close_copies) == 0:
            waiting = close_copies
            break
        waiting, starts = np.unique(close_copies, return_index=True)
        for k, atoms in zip(waiting.tolist(), np.split(close_atoms, starts[1:]), strict=True):
            drawn[k, atoms] = draw_displacements(len(atoms), scales[k], settings.distribution, rngs[k])
    outcomes: list[Outcome] = [Done("rattle", {"scale": scale}) for scale in scales.round(8).tolist()]
    for k in waiting.tolist():
        outcomes[k] = DroppedFrameError("close_contact")
    return outcomes


def rattle(atoms: Atoms, settings: RattleSettings, rng: np.random.Generator) -> Step:
    """Return the frame with displaced atoms.

    :raises NotApplicableError: if there is one atom.
    :raises DroppedFrameError: if atoms are still too close after *max_tries*.
    """
    return change_one(rattle_copies, atoms, settings, rng)
