"""Frames as periodic codes take them: a box around what is not periodic, kinds for starting moments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from ase import Atoms
from ase.data import ground_state_magnetic_moments
from ase.geometry import complete_cell

from aiida_alpot.kernel.units import FloatArray, IntArray

DENSITY_MARGIN = 6.0
"""Å that the electrons of a molecule reach beyond its outermost nuclei, on both sides together."""
DEFAULT_VACUUM = 10.0
"""Å of vacuum between periodic images along an axis that is not periodic."""


def put_into_box(atoms: Atoms, vacuum: float = DEFAULT_VACUUM, *, cubic: bool = False, doubled: bool = False) -> Atoms:
    """Return a frame whose cell leaves room between its images along the axes that are not periodic.

    Only vectors of axes that are not periodic change, and only to grow; a missing one is made perpendicular to the
    others. Positions are shifted along these axes to lie in the middle: forces do not depend on it.

    :param vacuum: smallest distance between the outermost atom and the image of the one on the other side, Å.
    :param cubic: give a frame without periodicity a cube at least twice as long as it is, as codes demand that remove
        the interaction of its images.
    :param doubled: likewise for slabs and wires: along axes that are not periodic the cell is at least twice as long
        as what it holds.
    """
    boxed = atoms.copy()
    free = [axis for axis in range(3) if not atoms.pbc[axis]]
    if not free:
        return boxed
    if len(free) == 3 and not boxed.cell.rank:
        boxed.cell[:] = np.eye(3)
    cell = complete_cell(boxed.cell)
    for axis in free:
        normal = _normal(cell, axis)
        along = boxed.positions @ normal
        height = float(cell[axis] @ normal)
        extent = float(np.ptp(along))
        wanted = max(extent + vacuum, 2 * extent + DENSITY_MARGIN if doubled else 0.0)
        if height < wanted:
            cell[axis] *= wanted / height
    if cubic and len(free) == 3:
        longest = float(np.max(np.ptp(boxed.positions, axis=0)))
        cell = np.eye(3) * max(*np.linalg.norm(cell, axis=1), 2 * longest + DENSITY_MARGIN if longest else 0.0)
    boxed.cell[:] = cell
    for axis in free:
        normal = _normal(cell, axis)
        along = boxed.positions @ normal
        boxed.positions += (cell[axis] @ normal / 2 - (along.min() + along.max()) / 2) * normal
    return boxed


def _normal(cell: np.ndarray, axis: int) -> np.ndarray:
    """Return the unit vector perpendicular to the other two, on the side of this one."""
    normal = np.cross(cell[(axis + 1) % 3], cell[(axis + 2) % 3])
    normal /= np.linalg.norm(normal)
    return normal if cell[axis] @ normal > 0 else -normal


def name_kinds(symbols: list[str], moments: np.ndarray | None) -> tuple[list[str], dict[str, float]]:
    """Return the kind of every atom and the starting moment of every kind, μB.

    Atoms of one element share a kind if their moments are equal; an element with several is numbered, ``Fe1``, ``Fe2``,
    from the largest moment down.

    :param moments: starting moment of each atom, None for none.
    """
    if moments is None:
        return list(symbols), {}
    values: dict[str, list[float]] = {}
    for symbol, moment in zip(symbols, moments.tolist(), strict=True):
        values.setdefault(symbol, [])
        if moment not in values[symbol]:
            values[symbol].append(moment)
    names: dict[tuple[str, float], str] = {}
    for symbol, found in values.items():
        for k, moment in enumerate(sorted(found, reverse=True), start=1):
            names[symbol, moment] = symbol if len(found) == 1 else f"{symbol}{k}"
    kinds = [names[symbol, moment] for symbol, moment in zip(symbols, moments.tolist(), strict=True)]
    return kinds, {name: moment for (_, moment), name in names.items()}


def is_isolated_atom(atoms: Atoms) -> bool:
    """Return whether a frame is one atom without images."""
    return len(atoms) == 1 and not any(atoms.pbc)


def ground_state_moment(atoms: Atoms) -> float:
    """Return the moment of an isolated atom by Hund's rule, μB."""
    return float(ground_state_magnetic_moments[atoms.numbers[0]])


def group_species(symbols: Sequence[str]) -> IntArray:
    """Return the atoms in an order that keeps those of one species together, species as they occur first."""
    first = {symbol: k for k, symbol in reversed(list(enumerate(symbols)))}
    return np.argsort([first[symbol] for symbol in symbols], kind="stable")


def from_groups(atoms: Atoms, values: FloatArray) -> FloatArray:
    """Return values by atom in the order of *atoms*, given in that of :func:`group_species`."""
    ordered = np.empty_like(values)
    ordered[group_species(list(atoms.symbols))] = values
    return ordered


def starting_moments(atoms: Atoms, by_symbol: Mapping[str, float] | None = None) -> np.ndarray | None:
    """Return the starting moment of every atom, μB, None for a frame that is not spin-polarised.

    Those of the frame itself go before those given for its elements.

    :param by_symbol: moments of elements; an element that is not named has none.
    """
    if "initial_magmoms" in atoms.arrays and np.any(atoms.arrays["initial_magmoms"]):
        return np.asarray(atoms.arrays["initial_magmoms"], dtype=np.float64)
    if by_symbol is None:
        return None
    return np.array([float(by_symbol.get(symbol, 0.0)) for symbol in atoms.symbols])


def spin_moments(atoms: Atoms, by_symbol: Mapping[str, float] | None = None) -> np.ndarray | None:
    """Return the moments that an electronic loop starts from, μB, None without spin polarisation.

    As :func:`starting_moments`, but that an isolated atom without moments of its own follows Hund's rule, and that its
    moment is never negative: codes are told to keep it, and a negative one means to VASP (NUPDOWN) and to pw.x
    (tot_magnetization) that it is free. Its energy does not depend on the sign.

    :raises ValueError: for a charged isolated atom without moments of its own: the tables are of neutral ones.
    """
    if not is_isolated_atom(atoms):
        return starting_moments(atoms, by_symbol)
    own = starting_moments(atoms)
    if own is not None:
        return np.asarray(np.abs(own))
    if atoms.info.get("charge"):
        raise ValueError("the isolated atom is charged: give its moment, in the array initial_magmoms")
    return np.array([ground_state_moment(atoms)])
