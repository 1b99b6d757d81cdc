"""A form of a frame that does not depend on the order of its atoms, the origin, or the images they are given in.

Coordinates are taken along the periodic vectors, and at right angles to them in Å. One atom becomes the origin, the
coordinates are rounded, fractions wrapped, and the hashes of the rows added up: of the sums that every atom of the
rarest species gives, the smallest is canonical. Most of these atoms need not be tried: the sum of a wave over all
atoms, as seen from an atom, depends neither on order, origin nor images, and the canonical origin is one of those for
which it is largest. All of them are so in a perfect crystal, one alone in a rattled frame.
"""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np
import numpy.typing as npt
from ase import Atoms

from aiida_alpot.kernel.units import BoolArray, FloatArray, IntArray

_GRID: Final = 2**10 * 3**3 * 5 * 7 * 11
"""Parts of a periodic vector to which coordinates are rounded, about 1e-6 Å: the usual fractions lie on it, far from
where rounding turns."""

_STEP: Final = 1e-6 * 2.0**0.5
"""Å, to which coordinates at right angles to the periodic vectors are rounded: those of files have some decimals, and
none lies where rounding turns."""

_CELL_STEP: Final = 1e-8
"""Å, to which cell vectors are rounded."""

_MOMENT_STEP: Final = 1e-8

_WAVE: Final = np.array([1.0, 2.0, 3.0])
"""Wave vector over those of the lattice, or in 1/Å where it is not periodic."""

_PHASE: Final = np.exp(0.4j)
"""Tells an atom from its mirror image."""

_AT_ONCE: Final = 2**18
"""Rows that are hashed at once."""

_ODD: Final = np.array([0xD1B54A32D192ED03, 0xABC98388FB8FAC03, 0x8CB92BA72F3D8DD7], dtype=np.uint64)
"""Numbers without a pattern, to add up the coordinates of an atom by."""

_MIX: Final = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFT: Final = (np.uint64(30), np.uint64(27), np.uint64(31))
"""Multipliers and shifts of a finaliser that spreads every bit over all 64 (splitmix64, Steele et al. 2014)."""

_TIE: Final = 1e-7
"""Difference of two sums, over the sum of all atomic numbers, below which they are equal."""


def canonical_key(atoms: Atoms) -> bytes:
    """Return a hash that frames have in common which differ in order, origin and images of their atoms only.

    It covers species, positions, cell, periodicity, charge and initial moments. The origin is free along axes that are
    not periodic too; a turned frame, or one with other cell vectors of the same lattice, is another one.
    """
    moments = atoms.arrays.get("initial_magmoms")
    if moments is not None and not np.nan_to_num(moments).any():
        moments = None
    kinds = _kinds(atoms, moments)
    form = _canonical_rows(_coordinates(atoms), kinds, np.asarray(atoms.pbc, dtype=bool))
    digest = hashlib.sha256(_rounded(atoms.cell.array, _CELL_STEP) + atoms.pbc.tobytes() + form)
    charge = atoms.info.get("charge", 0.0)
    if charge:
        digest.update(b"charge" + _rounded(np.nan_to_num(float(charge)), _CELL_STEP))
    return digest.digest()


def _rounded(values: FloatArray | float, step: float) -> bytes:
    return np.rint(np.asarray(values) / step).astype("<i8").tobytes()


def _kinds(atoms: Atoms, moments: FloatArray | None) -> IntArray:
    """Return what an atom is, atomic number and moment, shape (n_atoms, 1 or more)."""
    numbers = atoms.numbers[:, None].astype(np.int64)
    if moments is None:
        return np.asarray(numbers)
    steps = np.rint(np.nan_to_num(moments).reshape(len(atoms), -1) / _MOMENT_STEP).astype(np.int64)
    return np.hstack([numbers, steps])


def _coordinates(atoms: Atoms) -> FloatArray:
    """Return fractions along periodic axes and lengths at right angles to them, Å, shape (n_atoms, 3)."""
    periodic = np.asarray(atoms.pbc, dtype=bool)
    if not periodic.any():
        return np.asarray(atoms.positions)
    basis = atoms.cell.array.copy()
    if not periodic.all():
        basis[~periodic] = np.linalg.qr(basis[periodic].T, mode="complete")[0].T[int(periodic.sum()) :]
    return np.asarray(atoms.positions @ np.linalg.inv(basis))


def _canonical_rows(coordinates: FloatArray, kinds: IntArray, periodic: BoolArray) -> bytes:
    """Return the smallest sums of the hashes of all rows with one atom as the origin, and of their squares."""
    scale = np.where(periodic, float(_GRID), 1.0 / _STEP)
    origins = _find_origins(coordinates, kinds, periodic)
    seeds = _mix_columns(kinds)
    found = []
    step = max(1, _AT_ONCE // len(kinds))
    for first in range(0, len(origins), step):
        shifted = coordinates - coordinates[origins[first : first + step], None]
        places = np.rint(shifted * scale).astype(np.int64)
        np.remainder(places, _GRID, out=places, where=periodic)
        rows = _mix(seeds + (places.view(np.uint64) * _ODD).sum(axis=2))
        # sums do not depend on the order of the atoms, and two of them are 128 bits
        found.append(min(zip(rows.sum(axis=1).tolist(), (rows * rows).sum(axis=1).tolist(), strict=True)))
    return b"%016x%016x" % min(found)


def _mix_columns(kinds: IntArray) -> npt.NDArray[np.uint64]:
    """Return a number for each row that other rows do not have."""
    numbers = kinds[:, 0].view(np.uint64)
    for column in kinds.T[1:]:
        numbers = _mix(numbers) + np.ascontiguousarray(column).view(np.uint64)
    return numbers


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return numbers that look random, each the image of one number only."""
    values = (values ^ (values >> _SHIFT[0])) * _MIX[0]
    values = (values ^ (values >> _SHIFT[1])) * _MIX[1]
    return values ^ (values >> _SHIFT[2])


def _find_origins(coordinates: FloatArray, kinds: IntArray, periodic: BoolArray) -> IntArray:
    """Return the atoms of the rarest species for which the sum of the wave is largest, all of them."""
    numbers = kinds[:, 0]
    counts = np.bincount(numbers)
    counts[counts == 0] = len(numbers) + 1
    candidates = np.flatnonzero(numbers == counts.argmin())
    if len(candidates) == 1:
        return candidates
    phases = coordinates @ (_WAVE * np.where(periodic, 2.0 * np.pi, 1.0))
    cos, sin = np.cos(phases), np.sin(phases)
    total = _PHASE * complex(numbers @ cos, numbers @ sin)
    sums = cos[candidates] * total.real + sin[candidates] * total.imag
    return np.asarray(candidates[sums >= sums.max() - _TIE * float(numbers.sum())])
