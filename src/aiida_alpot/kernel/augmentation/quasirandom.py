"""Special quasirandom structures: a small cell with the pair correlations of an infinite random alloy.

Zunger, Wei, Ferreira and Bernard, Phys. Rev. Lett. 65, 353 (1990). Pairs are counted with all their periodic images, so
that small, elongated and partly periodic cells are right: a search that sees the nearest image of each pair only
(sqsgenerator 0.5) calls a 1×2×3 fcc cell perfect whose second shell has a correlation of 0.39 instead of 0.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from ase import Atoms

from aiida_alpot.kernel.augmentation.base import NotApplicableError
from aiida_alpot.kernel.augmentation.species import UnlikePairs, kinds_of
from aiida_alpot.kernel.geometry import list_neighbours, nearest_neighbour_distance
from aiida_alpot.kernel.units import FloatArray, IntArray

_GAP: Final = 0.05
"""Difference of two distances over the shortest one that separates two shells."""
_WIDTH: Final = 0.35
"""Range of distances over the shortest one at which a shell without gaps ends."""
_REACHES: Final = (2.1, 3.1, 4.1, 6.1)
"""Cutoffs over the shortest distance, tried until they hold the shells."""
_HOT: Final = 0.05
"""Temperature at the start of the annealing over the objective of the first arrangement."""
_PERFECT: Final = 1e-20
"""Objective below which nothing is left to improve."""
_MOST_SITES: Final = 2000
"""Above, the table of pairs takes more than 100 MB, and a random arrangement deviates by less than 1 %."""


def arrange(
    atoms: Atoms, numbers: IntArray, groups: IntArray, n_shells: int, n_steps: int, rng: np.random.Generator
) -> tuple[IntArray, FloatArray]:
    """Return an arrangement of elements whose pairs are as frequent as in an infinite random alloy.

    Simulated annealing by exchanges within the sublattices. It minimises the sum over shells s of ‖Δ_s‖²/s, Δ_s(a, b)
    being the share of pairs (a, b) among the pairs of the shell less that of the random alloy; a and b are elements on
    their sublattices, so that pairs between sublattices count too. Larger clusters are left to chance.

    :param atoms: the sites of the alloy.
    :param numbers: an element for each site, shape (n_sites,).
    :param groups: the sublattice of each site, shape (n_sites,).
    :param n_shells: shells of neighbours, the nearest first.
    :param n_steps: exchanges that are tried.
    :return: elements, shape (n_sites,), and the largest |Δ_s| of each shell, shape (n_shells,) or shorter.
    :raises NotApplicableError: if there are more sites than one can search.
    """
    if len(atoms) > _MOST_SITES:
        raise NotApplicableError("too_many_sites")
    shells = shell_weights(atoms, n_shells)
    pairs = UnlikePairs(numbers, groups)
    state = _State(shells, numbers, groups)
    if pairs.n_pairs == 0 or len(shells) == 0:
        return numbers, state.deviations()
    best, best_site = state.objective, state.site.copy()
    hot = _HOT * state.objective
    for step in range(n_steps):
        if best < _PERFECT:
            break
        allowed = state.objective - hot * (1.0 - step / n_steps) ** 2 * np.log(1.0 - rng.random())
        if state.exchange(*pairs.draw(rng), allowed) and state.objective < best:
            best, best_site = state.objective, state.site.copy()
    arranged = np.empty_like(numbers)
    arranged[best_site] = numbers
    return arranged, _State(shells, arranged, groups).deviations()


def shell_weights(atoms: Atoms, n_shells: int) -> FloatArray:
    """Return the share that each pair of atoms has of the pairs of each shell, all images counted.

    A shell ends at a gap between distances or, in an amorphous frame without gaps, at a width.

    :return: shape (n_shells, n_atoms, n_atoms), symmetric, each shell adds up to 1; fewer shells if there are no more.
    """
    nearest = nearest_neighbour_distance(atoms)
    n_found, weights = 0, np.zeros((n_shells, len(atoms), len(atoms)))
    if not 0.0 < nearest < np.inf:
        return weights[:0]
    for reach in _REACHES:
        first, second, distance = list_neighbours("ijd", atoms, reach * nearest)
        shell = _number_shells(distance / nearest, len(atoms))
        n_found = int(shell.max()) + 1
        if n_found > n_shells:  # the shells asked for are whole, the last one found may be cut
            break
    kept = shell < n_shells
    np.add.at(weights, (shell[kept], first[kept], second[kept]), 1.0)
    weights = weights[:n_found]
    return np.asarray(weights / weights.sum(axis=(1, 2), keepdims=True))


def _number_shells(distances: FloatArray, n_atoms: int) -> IntArray:
    """Return the shell of each distance, counted from 0; a shell holds a pair for each atom, or more.

    :param distances: over the shortest one.
    """
    ascending = np.sort(np.round(distances, 6))
    gaps = np.append(np.flatnonzero(np.diff(ascending) > _GAP) + 1, len(ascending))
    starts = [0]
    while starts[-1] < len(ascending):
        least = min(starts[-1] + n_atoms, len(ascending))
        wide = int(np.searchsorted(ascending, ascending[starts[-1]] + _WIDTH, side="right"))
        starts.append(min(int(gaps[np.searchsorted(gaps, least)]), max(least, wide)))
    return np.searchsorted(ascending[starts[:-1]], np.round(distances, 6), side="right") - 1


class _State:
    """An arrangement under way: atom k sits on ``site[k]``."""

    def __init__(self, shells: FloatArray, numbers: IntArray, groups: IntArray) -> None:
        _, self._kind = np.unique(kinds_of(numbers, groups), return_inverse=True)
        occupation = np.eye(int(self._kind.max()) + 1)[self._kind]
        average = np.empty_like(occupation)
        for group in np.unique(groups):
            average[groups == group] = occupation[groups == group].mean(axis=0)
        self._shells = shells
        self._factors = 1.0 / (1.0 + np.arange(len(shells)))[:, None, None]
        self._field = shells @ occupation
        self._excess = occupation.T @ self._field - average.T @ shells @ average
        self.objective = float((self._factors * self._excess**2).sum())
        self.site = np.arange(len(numbers))

    def deviations(self) -> FloatArray:
        """Return the largest |Δ_s| of each shell, shape (n_shells,)."""
        return np.asarray(np.abs(self._excess).max(axis=(1, 2), initial=0.0))

    def exchange(self, one: int, other: int, allowed: float) -> bool:
        """Let two atoms change places if the objective does not exceed *allowed*, and return whether they did."""
        i, j = self.site[one], self.site[other]
        a, b = self._kind[one], self._kind[other]
        change = self._field[:, i] - self._field[:, j]
        difference = self._shells[:, i] - self._shells[:, j]
        own = difference[:, i] - difference[:, j]
        excess = self._excess.copy()
        for kind, sign in ((b, 1.0), (a, -1.0)):
            excess[:, kind] += sign * change
            excess[:, :, kind] += sign * change
        for row, column, sign in ((a, a, 1.0), (b, b, 1.0), (a, b, -1.0), (b, a, -1.0)):
            excess[:, row, column] += sign * own
        objective = float((self._factors * excess**2).sum())
        if objective > allowed:
            return False
        self._field[:, :, b] += difference
        self._field[:, :, a] -= difference
        self._excess, self.objective = excess, objective
        self.site[one], self.site[other] = j, i
        return True
