"""The volume of a crystal that nobody has measured: from covalent radii, or of the lowest energy."""

from __future__ import annotations

import math
from typing import Final, Literal, TypeAlias

import numpy as np
from ase import Atoms
from scipy.optimize import minimize_scalar

from aiida_alpot.kernel.augmentation.base import DroppedFrameError, Energy, energy_function
from aiida_alpot.kernel.geometry import closest_pair_ratio

Volume: TypeAlias = Literal["radii", "potential"]

_RANGE: Final = (0.8, 1.3)
"""Edges of the cell, over those from radii, among which the lowest energy is looked for."""

_N_SCAN: Final = 11
"""Edges at which the energy is scanned before it is minimised between the best and its neighbours."""


def check_volume(contact: float) -> None:
    """Refuse a distance that no crystal has.

    :raises ValueError: if *contact* is outside of [0.5, 2].
    """
    if not 0.5 <= contact <= 2.0:
        raise ValueError(f"'contact' must lie in [0.5, 2] times the sum of covalent radii, got {contact}")


def fit_volume(atoms: Atoms, contact: float, energy: Energy | None = None) -> Atoms | DroppedFrameError:
    """Return the crystal, scaled isotropically.

    Its closest pair of atoms, over the sum of their covalent radii, becomes *contact*; with an *energy*, the edges are
    then those of the lowest energy from 0.8 to 1.3 of this.

    :return: the reason ``close_contact`` if atoms lie on top of each other, ``no_equilibrium_volume`` if the energy is
        lowest at an end of the range, ``energy_not_finite`` if it is not known anywhere.
    """
    ratio = closest_pair_ratio(atoms)
    if ratio == 0.0:
        return DroppedFrameError("close_contact")
    atoms = _scaled(atoms, contact / ratio)
    if energy is None:
        return atoms
    compute = energy_function(energy)
    scales = np.linspace(*_RANGE, _N_SCAN)
    energies = np.array([compute(_scaled(atoms, scale)) for scale in scales])
    energies[~np.isfinite(energies)] = math.inf
    best = int(np.argmin(energies))
    if not math.isfinite(energies[best]):
        return DroppedFrameError("energy_not_finite")
    if best in (0, _N_SCAN - 1):
        return DroppedFrameError("no_equilibrium_volume")
    found = minimize_scalar(
        lambda scale: compute(_scaled(atoms, scale)),
        bounds=(scales[best - 1], scales[best + 1]),
        method="bounded",
        options={"xatol": 1e-4},
    )
    return _scaled(atoms, float(found.x))


def _scaled(atoms: Atoms, factor: float) -> Atoms:
    scaled = atoms.copy()
    scaled.set_cell(atoms.cell.array * factor, scale_atoms=True)
    return scaled
