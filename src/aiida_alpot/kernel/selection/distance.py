"""Distances between candidates, and features for small molecules that need no potential."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from ase import Atoms
from ase.symbols import Symbols
from scipy.spatial.distance import cdist

from aiida_alpot.kernel.selection.table import CandidateTable
from aiida_alpot.kernel.units import BoolArray, FloatArray

_BLOCK = 4_000_000
"""Distances held in memory at a time."""


def sorted_distance_features(frames: Sequence[Atoms]) -> FloatArray:
    """Return the interatomic distances of each frame, sorted within each pair of species.

    Invariant to translation, rotation, and permutation of equal atoms. Periodic axes use the minimum image. Meant for
    molecules: the size grows with the square of the number of atoms.

    :return: shape (n_frames, n_atoms·(n_atoms − 1)/2), Å.
    :raises ValueError: if the frames do not have the same composition.
    """
    require_one_composition([atoms.numbers for atoms in frames])
    rows = [_sorted_distances(atoms) for atoms in frames]
    return np.array(rows).reshape(len(rows), -1)


def require_one_composition(numbers: Iterable[npt.NDArray[Any]]) -> None:
    """Raise if two frames differ in their composition.

    :param numbers: atomic numbers of each frame.
    :raises ValueError: with both compositions and the position of the frame that differs.
    """
    first: npt.NDArray[Any] | None = None
    for k, of_frame in enumerate(numbers):
        sorted_numbers = np.sort(of_frame)
        first = sorted_numbers if first is None else first
        if not np.array_equal(sorted_numbers, first):
            names = [Symbols(found).get_chemical_formula() for found in (first, sorted_numbers)]
            raise ValueError(
                f"sorted distances need frames of one composition, frame 0 is {names[0]} and frame {k} is {names[1]}"
            )


def _sorted_distances(atoms: Atoms) -> FloatArray:
    first, second = np.triu_indices(len(atoms), k=1)
    distances = atoms.get_all_distances(mic=bool(atoms.pbc.any()))[first, second]
    low = np.minimum(atoms.numbers[first], atoms.numbers[second])
    high = np.maximum(atoms.numbers[first], atoms.numbers[second])
    return np.asarray(distances[np.lexsort((distances, high, low))])


def require_features(candidates: CandidateTable, reference: FloatArray | None) -> FloatArray:
    """Return the features of the candidates.

    :raises ValueError: if there are none, or those of *reference* have another size or are not finite.
    """
    if candidates.features is None:
        raise ValueError("this choice measures distances and needs candidates with features")
    size = candidates.features.shape[1]
    if reference is not None and (reference.ndim != 2 or reference.shape[1] != size):
        raise ValueError(f"the training features have shape {reference.shape}, expected (n, {size})")
    if reference is not None and not np.isfinite(reference).all():
        raise ValueError("a training feature is not finite")
    return candidates.features


def distances_to(features: FloatArray, point: FloatArray) -> FloatArray:
    """Return the Euclidean distance of each row to *point*, shape (n_rows,)."""
    return np.asarray(np.linalg.norm(features - point, axis=1))


def nearest_distances(features: FloatArray, reference: FloatArray) -> FloatArray:
    """Return the distance of each row to the nearest row of *reference*, shape (n_rows,), in chunks of memory."""
    nearest = np.full(len(features), np.inf)
    chunk = max(1, _BLOCK // max(1, len(features)))
    for start in range(0, len(reference), chunk):
        np.minimum(nearest, cdist(features, reference[start : start + chunk]).min(axis=1), out=nearest)
    return nearest


def thin(candidates: CandidateTable, usable: BoolArray, min_distance: float) -> BoolArray:
    """Return *usable* without the near duplicates within each group.

    A row stays if it is at least *min_distance* from every earlier row of its group that stayed.

    :param usable: shape (n_frames,).
    :param min_distance: in the unit of the features.
    :raises ValueError: if the table has no features.
    """
    features = require_features(candidates, None)
    kept = np.zeros(len(candidates), dtype=bool)
    rows = np.flatnonzero(usable)
    rows = rows[np.argsort(candidates.group[rows], kind="stable")]
    starts = np.flatnonzero(candidates.group[rows][1:] != candidates.group[rows][:-1]) + 1
    for members in np.split(rows, starts):
        nearest = np.full(len(members), np.inf)
        for position, row in enumerate(members):
            if nearest[position] >= min_distance:
                kept[row] = True
                np.minimum(nearest, distances_to(features[members], features[row]), out=nearest)
    return kept
