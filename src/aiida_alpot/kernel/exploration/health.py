"""When a frame of a trajectory is no longer matter that a reference method should see."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list

from aiida_alpot.kernel.units import BoolArray, FloatArray

from .settings import HealthSettings


def check_motion(
    atoms: Atoms, forces: FloatArray, temperature: float, target: float, limits: HealthSettings
) -> str | None:
    """Return why forces or velocities are no longer healthy, or None. Cheap: meant for every step.

    :param forces: of the driving potential, shape (n_atoms, 3), eV/Å.
    :param temperature: kinetic temperature, K.
    :param target: K.
    """
    if not (np.all(np.isfinite(atoms.positions)) and np.all(np.isfinite(np.asarray(atoms.cell)))):
        return "a position or cell vector is not finite"
    if not np.all(np.isfinite(forces)):
        return "a force is not finite"
    largest = float(np.sqrt(np.max(np.sum(forces**2, axis=1), initial=0.0)))
    if largest > limits.max_force:
        return f"force of {largest:.3g} eV/Å above max_force {limits.max_force:g}"
    highest = max(limits.max_temperature_ratio * target, limits.temperature_floor)
    if not temperature <= highest:
        return f"temperature of {temperature:.4g} K above {highest:g} K"
    return None


def check_geometry(atoms: Atoms, start: Atoms, limits: HealthSettings) -> str | None:
    """Return why the arrangement of the atoms is no longer healthy, or None.

    :param start: the frame the trajectory began with, for volume, cell lengths and neighbours.
    """
    return _check_cell(atoms, start, limits) or _check_pairs(atoms, start, limits)


def check_health(
    atoms: Atoms, start: Atoms, forces: FloatArray, temperature: float, target: float, limits: HealthSettings
) -> str | None:
    """Return the first reason why a frame is not healthy, or None if it is.

    :param start: the frame the trajectory began with.
    :param forces: of the driving potential, shape (n_atoms, 3), eV/Å.
    :param temperature: kinetic temperature, K.
    :param target: temperature that was asked for, K.
    """
    return check_motion(atoms, forces, temperature, target, limits) or check_geometry(atoms, start, limits)


def _check_cell(atoms: Atoms, start: Atoms, limits: HealthSettings) -> str | None:
    """Compare volume and periodic lengths with the start: a cell can flatten at constant volume."""
    if not np.any(start.pbc):
        return None
    lengths = atoms.cell.lengths()[start.pbc] / start.cell.lengths()[start.pbc]
    ratios = [("cell vector", float(ratio)) for ratio in lengths]
    if start.cell.rank == 3:
        ratios.append(("volume", float(atoms.cell.volume / start.cell.volume)))
    for name, ratio in ratios:
        if not limits.min_volume_ratio <= ratio <= limits.max_volume_ratio:
            allowed = f"[{limits.min_volume_ratio:g}, {limits.max_volume_ratio:g}]"
            return f"{name} {ratio:.3g} times that of the start, outside {allowed}"
    return None


def _check_pairs(atoms: Atoms, start: Atoms, limits: HealthSettings) -> str | None:
    radii = covalent_radii[atoms.numbers]
    reach = limits.max_isolation or 1.0
    i, j, distance = neighbor_list("ijd", atoms, reach * radii)
    ratio = distance / (radii[i] + radii[j])
    if len(ratio) and ratio.min() < limits.min_pair_ratio:
        k = int(np.argmin(ratio))
        return (
            f"atoms {min(i[k], j[k])} and {max(i[k], j[k])} are {distance[k]:.3g} Å apart, {ratio[k]:.2f} of the sum "
            f"of covalent radii, below min_pair_ratio {limits.min_pair_ratio:g}"
        )
    if limits.max_isolation is None:
        return None
    lonely = _is_lonely(i, len(atoms))
    if not lonely.any():
        return None
    escaped = lonely & ~_is_lonely(neighbor_list("i", start, reach * radii), len(atoms))
    if escaped.any():
        return f"atom {int(np.argmax(escaped))} escaped: no neighbour within {reach:g} sums of covalent radii"
    return None


def _is_lonely(i: FloatArray, n_atoms: int) -> BoolArray:
    return np.asarray(np.bincount(i, minlength=n_atoms) == 0)
