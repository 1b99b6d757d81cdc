"""When two frames are the same, and when they are nearly so.

Nearly the same are two frames of equal composition and periodicity whose atoms can be paired such that the distances
of both atoms of a pair to their nearest neighbours, element by element, differ by at most twice a tolerance. So are a
frame and what a rotation, reflection, translation, other cell vectors of the same lattice, another order of the atoms
and a displacement of every atom by up to the tolerance make of it. The lists of distances are the rows of the pointwise
distance distribution of Widdowson and Kurlin (NeurIPS 2022), whose continuity is this bound.

What it takes for the same although it is not: mirror images, which have equal energies; frames of which every distance
that is compared differs by little although no displacement within the tolerance turns one into the other (a slight
strain, or the rare sets of points that share all their distances); frames that differ only in how parts are arranged to
each other that lie farther apart than :data:`MAX_NEIGHBOURS` neighbours of an element reach.
"""

from __future__ import annotations

import hashlib
import itertools
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from ase import Atoms
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from aiida_alpot.kernel.geometry import compact_cell
from aiida_alpot.kernel.units import FloatArray, IntArray

MAX_NEIGHBOURS: Final = 200
"""Nearest neighbours of one element whose distances are compared: those within about 8 Å in a metal."""

MIN_NEIGHBOURS: Final = 48
"""Neighbours of one element that are compared in a periodic frame however few atoms it has: four shells of fcc."""

_RESOLUTION = 1e-8
"""Å: frames that differ by less are the same frame."""

_ROUNDING = 1e-4
"""Å, of distances between positions that are kept in single precision, with room."""

_N_QUANTILES = 9
"""Values that are kept of a sorted column of distances to rule most pairs of frames out."""


def structure_key(atoms: Atoms) -> bytes:
    """Return a hash of species, positions, cell, periodicity, charge and initial moments."""
    digest = hashlib.sha256(_rounded(atoms.positions) + _rounded(atoms.cell.array))
    digest.update(atoms.pbc.tobytes() + atoms.numbers.tobytes())
    charge, moments = atoms.info.get("charge", 0.0), atoms.arrays.get("initial_magmoms")
    if charge:
        digest.update(b"charge" + _rounded(np.nan_to_num(float(charge))))
    if moments is not None and moments.any():
        digest.update(b"moments" + _rounded(np.nan_to_num(moments)))
    return digest.digest()


def series_key(atoms: Atoms, name: str) -> bytes:
    """Return a hash that the frames of a series, which is made of one frame, have in common."""
    return hashlib.sha256(structure_key(atoms) + name.encode()).digest()


def _rounded(values: FloatArray) -> bytes:
    return np.rint(values / _RESOLUTION).astype("<i8").tobytes()


def name_group(key: bytes) -> str:
    """Return the group of the frames with this :func:`structure_key` or :func:`series_key`."""
    return f"augment-{key.hex()[:16]}"


class Sites(NamedTuple):
    """What distances are taken from.

    :ivar kinds: atoms of one number are of one element with one initial moment, shape (n_atoms,).
    :ivar periodic: vectors of the periodic axes, shape (n_dim, 3), Å.
    """

    kinds: npt.NDArray[np.integer[Any]]
    positions: npt.NDArray[np.floating[Any]]
    periodic: FloatArray


class NearDuplicates:
    """The frames seen so far, by what they are compared with.

    Memory grows with the number of frames, by their positions in single precision.

    :param tolerance: displacement of an atom that makes no difference, Å.
    """

    def __init__(self, tolerance: float) -> None:
        self._bound = 2.0 * tolerance + _ROUNDING
        self._seen: dict[bytes, _Seen] = {}

    def is_known(self, atoms: Atoms) -> bool:
        """Return whether the frame is nearly the same as an earlier one; otherwise remember it."""
        composition, sites = _read_sites(atoms)
        seen = self._seen.setdefault(composition, _Seen())
        rows = distance_rows(sites)
        features = _summarise(rows)
        for k in seen.candidates(features, self._bound).tolist():
            if can_be_paired(rows, distance_rows(seen.sites[k]), self._bound):
                return True
        seen.add(sites, features)
        return False


class _Seen:
    """Frames of one composition, with a few numbers of each that rule most pairs of frames out."""

    def __init__(self) -> None:
        self.sites: list[Sites] = []
        self._features = np.empty((0, 0), dtype=np.float32)

    def candidates(self, features: FloatArray, bound: float) -> IntArray:
        """Return the frames whose numbers all differ by at most *bound*."""
        found = np.arange(len(self.sites))
        for column, value in zip(self._features, features.tolist(), strict=False):
            found = found[np.abs(column[found] - value) <= bound]
            if len(found) == 0:
                break
        return found

    def add(self, sites: Sites, features: FloatArray) -> None:
        """Remember a frame."""
        n_seen = len(self.sites)
        if n_seen == self._features.shape[1]:
            grown = np.empty((len(features), max(64, 2 * n_seen)), dtype=np.float32)
            grown[:, :n_seen] = self._features if n_seen else 0.0
            self._features = grown
        self._features[:, n_seen] = features
        self.sites.append(Sites(sites.kinds.astype(np.int16), sites.positions.astype(np.float32), sites.periodic))


def _read_sites(atoms: Atoms) -> tuple[bytes, Sites]:
    """Return the composition of a frame, equal for frames that are worth comparing, and its sites."""
    moments = np.nan_to_num(atoms.get_initial_magnetic_moments()).reshape(len(atoms), -1).round(3) + 0.0
    species, kinds, counts = np.unique(
        np.column_stack([atoms.numbers, moments]), axis=0, return_inverse=True, return_counts=True
    )
    charge = float(np.nan_to_num(atoms.info.get("charge", 0.0)))
    vectors = compact_cell(atoms.cell.array, atoms.pbc)[np.asarray(atoms.pbc, dtype=bool)]
    head = f"{len(vectors)} {charge} {species.tolist()} {counts.tolist()}".encode()
    return head, Sites(kinds.ravel(), atoms.positions, vectors)


def distance_rows(sites: Sites) -> list[FloatArray]:
    """Return the distances of each atom to its nearest neighbours of each kind, ascending.

    Twice as many neighbours of a kind as the cell has atoms of it, at least :data:`MIN_NEIGHBOURS` and at most
    :data:`MAX_NEIGHBOURS`; in a frame without a periodic axis all there are.

    :return: by kind of the atom, shape (n_atoms_of_kind, n_distances), Å.
    """
    positions, kinds = sites.positions.astype(np.float64), sites.kinds
    counts = np.bincount(kinds)
    is_periodic = len(sites.periodic) > 0
    wanted = np.clip(2 * counts, MIN_NEIGHBOURS, MAX_NEIGHBOURS) if is_periodic else counts
    found: list[list[FloatArray]] = [[] for _ in counts]
    reach = _guess_reach(len(positions), sites.periodic, int(wanted.max()))
    for kind, n_wanted in enumerate(wanted.tolist()):
        n_listed = n_wanted + is_periodic  # an atom is the first neighbour of its own kind, at no distance
        distances, reach = _nearest(positions, positions[kinds == kind], sites.periodic, n_listed, reach)
        for own, columns in enumerate(found):
            columns.append(distances[kinds == own, 1:] if own == kind else distances[kinds == own, :n_wanted])
    return [np.hstack(columns) for columns in found]


def _guess_reach(n_atoms: int, periodic: FloatArray, n_neighbours: int) -> float:
    """Return a radius that holds about so many neighbours, Å."""
    n_dim = len(periodic)
    if n_dim == 0:
        return np.inf
    content = np.sqrt(np.linalg.det(periodic @ periodic.T))
    ball = (2.0, np.pi, 4.0 * np.pi / 3.0)[n_dim - 1]
    return float(1.2 * (n_neighbours * content / (n_atoms * ball)) ** (1.0 / n_dim))


def _nearest(
    positions: FloatArray, targets: FloatArray, periodic: FloatArray, n_nearest: int, reach: float
) -> tuple[FloatArray, float]:
    """Return distances to the nearest targets or images of them, shape (n_atoms, n_nearest), and a radius that holds
    these.

    :param reach: radius to begin with, Å.
    """
    if len(periodic) == 0:
        return np.sort(cdist(positions, targets), axis=1)[:, :n_nearest], reach
    while True:
        images = _images(positions, targets, periodic, reach)
        if len(images) >= n_nearest:
            distances, _ = cKDTree(images).query(positions, k=np.arange(1, n_nearest + 1))
            if distances[:, -1].max() <= reach:
                return distances, reach
        reach *= 1.2


def _images(positions: FloatArray, targets: FloatArray, periodic: FloatArray, reach: float) -> FloatArray:
    """Return all images of the targets within a radius of any position, and some more."""
    inverse = np.linalg.pinv(periodic)
    fractions, own = positions @ inverse, targets @ inverse
    margin = reach * np.linalg.norm(inverse, axis=0)
    low = np.floor(fractions.min(axis=0) - own.max(axis=0) - margin).astype(int)
    high = np.ceil(fractions.max(axis=0) - own.min(axis=0) + margin).astype(int)
    shifts = np.array(list(itertools.product(*(range(a, b + 1) for a, b in zip(low, high, strict=True)))))
    images = (targets + (shifts @ periodic)[:, None]).reshape(-1, 3)
    inside = (images >= positions.min(axis=0) - reach) & (images <= positions.max(axis=0) + reach)
    return np.asarray(images[inside.all(axis=1)])


def _summarise(rows: list[FloatArray]) -> FloatArray:
    """Return quantiles over the atoms of each kind: of the nearest distance, and of the mean of all distances.

    None of them changes by more than the largest change of a distance.
    """
    found = []
    for distances in rows:
        chosen = np.linspace(0, len(distances) - 1, _N_QUANTILES).astype(int)
        if distances.shape[1]:
            found += [np.sort(distances.min(axis=1))[chosen], np.sort(distances.mean(axis=1))[chosen]]
    return np.concatenate([np.empty(0), *found])


def can_be_paired(first: list[FloatArray], second: list[FloatArray], bound: float) -> bool:
    """Return whether the atoms of two frames can be paired so that no two of their distances differ by more."""
    for rows, others in zip(first, second, strict=True):
        fits = np.array([np.abs(row - others).max(axis=1, initial=0.0) <= bound for row in rows])
        if (maximum_bipartite_matching(csr_array(fits), perm_type="column") < 0).any():
            return False
    return True
