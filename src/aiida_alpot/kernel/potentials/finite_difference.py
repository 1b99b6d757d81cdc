"""Are the forces and the stress of a potential the derivatives of its energy? Asked of every potential before use.

Exported models were seen whose energies are right and whose forces are wrong by several per cent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from ase import Atoms

from aiida_alpot.kernel.potentials.base import BATCH_SIZE, Potential, has_stress
from aiida_alpot.kernel.units import VOIGT, FloatArray

FORCE_FLOOR: Final = 1e-2
"""eV/Å, smallest scale a deviation is divided by: forces that vanish by symmetry have none of their own."""
STRESS_FLOOR: Final = 1e-4
"""eV/Å³, the same for stresses."""


def finite_difference_check(
    potential: Potential,
    frames: Sequence[Atoms],
    seed: int,
    n_components: int = 12,
    step: float = 1e-4,
    batch_size: int = BATCH_SIZE,
) -> dict[str, Any]:
    """Compare forces and stresses with central differences of the energy.

    Random components of random atoms are displaced by ±*step* (Å), random Voigt components of periodic frames are
    strained by ±*step*; all displaced frames are predicted in one call. ``σ_ij = (1/V) ∂E/∂ε_ij``.

    :param frames: at least one frame.
    :param seed: chooses the components.
    :param n_components: number of force components, and of stress components if a frame has a stress.
    :return: for ``force`` and ``stress``: ``X_deviation`` largest absolute deviation (eV/Å, eV/Å³), ``X_scale`` rms
        of the predicted components of the frames, ``X_relative`` deviation over scale (not below a floor),
        ``X_components`` their number; None for the stress without a periodic frame or if the engine gives none.
    :raises ValueError: if there is no frame, or *n_components* or *step* is not positive.
    """
    if not frames or n_components < 1 or step <= 0:
        raise ValueError("a finite-difference check needs a frame, a positive n_components and a positive step")
    rng = np.random.default_rng(seed)
    values = potential.predict(frames, batch_size=batch_size)
    periodic = [k for k, atoms in enumerate(frames) if has_stress(atoms) and np.all(np.isfinite(values.stress[k]))]
    atoms_chosen = rng.integers(values.n_atoms, size=n_components)
    axes = rng.integers(3, size=n_components)
    owners = np.searchsorted(values.offsets, atoms_chosen, side="right") - 1
    displaced: list[Atoms] = []
    for owner, atom, axis in zip(owners, atoms_chosen - values.offsets[owners], axes, strict=True):
        displaced += [_displaced(frames[owner], int(atom), int(axis), sign * step) for sign in (1, -1)]
    strained = [periodic[k] for k in rng.integers(len(periodic), size=n_components)] if periodic else []
    voigt = rng.integers(6, size=len(strained))
    for frame, component in zip(strained, voigt, strict=True):
        displaced += [_strained(frames[frame], int(component), sign * step) for sign in (1, -1)]

    energy = potential.predict(displaced, batch_size=batch_size).energy
    slopes = (energy[0::2] - energy[1::2]) / (2 * step)
    report = _compare("force", -slopes[:n_components], values.forces[atoms_chosen, axes], values.forces, FORCE_FLOOR)
    volumes = np.array([frames[frame].get_volume() for frame in strained])
    stress = slopes[n_components:] / volumes if strained else np.zeros(0)
    known = values.stress[strained, voigt] if strained else np.zeros(0)
    return report | _compare("stress", stress, known, values.stress[periodic], STRESS_FLOOR) | {"step": step}


def _displaced(atoms: Atoms, atom: int, axis: int, step: float) -> Atoms:
    moved = atoms.copy()
    moved.positions[atom, axis] += step
    return moved


def _strained(atoms: Atoms, component: int, strain: float) -> Atoms:
    i, j = VOIGT[component]
    deformation = np.eye(3)
    deformation[i, j] += strain / 2
    deformation[j, i] += strain / 2
    moved = atoms.copy()
    moved.set_constraint()
    moved.set_cell(np.asarray(atoms.cell) @ deformation, scale_atoms=False)
    moved.positions = atoms.positions @ deformation
    return moved


def _compare(name: str, slopes: FloatArray, values: FloatArray, everything: FloatArray, floor: float) -> dict[str, Any]:
    if not len(slopes):
        return {f"{name}_{key}": None for key in ("deviation", "scale", "relative")} | {f"{name}_components": 0}
    deviation = float(np.max(np.abs(slopes - values)))
    scale = float(np.sqrt(np.mean(everything**2)))
    return {
        f"{name}_deviation": deviation,
        f"{name}_scale": scale,
        f"{name}_relative": deviation / max(scale, floor),
        f"{name}_components": len(slopes),
    }
