"""Criteria of a committee without calibration, and thresholds that depend on the element or the cluster.

MP-ALOE (Kuner et al. 2025, "Query By Committee") selects a frame when the standard deviation of its energy, forces or
stress is above a threshold, raised for elements that should not be over-represented. UQ-ACE takes the threshold from
the errors on the training set; where these are of several kinds one threshold is too high for most of them, and each
cluster gets its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt
from ase.data import atomic_numbers

from aiida_alpot.kernel import defaults
from aiida_alpot.kernel.potentials.base import Predictions
from aiida_alpot.kernel.settings import unknown_key_message
from aiida_alpot.kernel.uncertainty._stack import segment_max
from aiida_alpot.kernel.uncertainty.categories import as_labels
from aiida_alpot.kernel.uncertainty.committee import Disagreement, compute_adaptive_threshold, disagreement
from aiida_alpot.kernel.units import PROPERTIES, BoolArray, FloatArray, IntArray

QUERY_THRESHOLDS: Final[Mapping[str, float]] = MappingProxyType(
    {"energy": defaults.QUERY_ENERGY, "force": defaults.QUERY_FORCE, "stress": defaults.QUERY_STRESS}
)
"""Thresholds of MP-ALOE by property."""
FEWEST_ERRORS: Final = 4
"""Below this number of errors a cluster has no quartiles of its own."""


def compute_query_flags(
    members: Sequence[Predictions],
    species: npt.ArrayLike,
    thresholds: Mapping[str, float] = QUERY_THRESHOLDS,
    multipliers: Mapping[str, float] | None = None,
    pbc: npt.ArrayLike | None = None,
) -> dict[str, BoolArray]:
    """Return which frames a committee disagrees on, by property; a frame is of interest if one property says so.

    Thresholds are multiplied by the factors of :func:`rate_by_element`. MP-ALOE publishes the factors with its code
    only (noble gases, Tc and the f-block have one), so there are none by default.

    :param members: predictions of at least two potentials.
    :param species: atomic numbers of all atoms, shape (n_atoms,).
    :param thresholds: standard deviation by property, see :func:`~.committee.disagreement`: eV/atom, eV/Å, eV/Å³.
    :param multipliers: factor of the thresholds by chemical symbol.
    :param pbc: see :func:`~.committee.disagreement`.
    :return: arrays of shape (n_frames,): ``D > threshold``, False where D is not defined.
    :raises ValueError: if a name does not exist, a number is not positive, or the members do not fit together.
    """
    for name, threshold in thresholds.items():
        if name not in PROPERTIES:
            raise ValueError(unknown_key_message(name, PROPERTIES, "thresholds"))
        _check_positive(f"thresholds: {name}", threshold)
    spread = disagreement(members, pbc)
    values, factors = rate_by_element(spread, species, multipliers or {})
    return {name: np.asarray(values[name] > limit * factors[name]) for name, limit in thresholds.items()}


def rate_by_element(
    spread: Disagreement,
    species: npt.ArrayLike,
    multipliers: Mapping[str, float],
    core: npt.ArrayLike | None = None,
) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
    """Return the disagreement to compare with a threshold, and the factor of that threshold, both by property.

    The factor of a frame is the largest of its elements. For ``force_max`` both are of the atom whose disagreement is
    the largest multiple of the factor of its element.

    :param species: atomic numbers of all atoms, shape (n_atoms,).
    :param multipliers: by chemical symbol, positive; 1 for an element without.
    :param core: which atoms count for ``force_max``, shape (n_atoms,).
    :return: arrays of shape (n_frames,).
    :raises ValueError: if a symbol does not exist, a number is not positive, or there are not as many atoms.
    """
    of_atom = _element_factors(species, multipliers)
    if of_atom.shape != spread.force_atom.shape:
        raise ValueError(f"species: expected {len(spread.force_atom)} atomic numbers, got the shape {of_atom.shape}")
    values = {name: spread.value(name) for name in PROPERTIES}
    factors = dict.fromkeys(PROPERTIES, segment_max(of_atom, spread.offsets))
    if multipliers:
        counted = spread.force_atom if core is None else np.where(core, spread.force_atom, 0.0)
        worst = _find_worst(counted / of_atom, spread.offsets)
        values["force_max"], factors["force_max"] = spread.force_atom[worst], of_atom[worst]
    return values, factors


def _find_worst(values: FloatArray, offsets: IntArray) -> IntArray:
    """Return the index of the atom with the largest value in each frame, shape (n_frames,)."""
    return np.array([a + np.argmax(values[a:b]) for a, b in pairwise(offsets.tolist())], dtype=np.int64)


def compute_adaptive_thresholds(errors: npt.ArrayLike, clusters: npt.ArrayLike) -> dict[str, float]:
    """Return :func:`~.committee.compute_adaptive_threshold` of each cluster.

    :param errors: training errors of a criterion, per frame or per atom, shape (n,); NaN entries are left out.
    :param clusters: cluster (or ``config_type``, or element) of each, shape (n,).
    :return: by the name of the cluster; one with fewer than :data:`FEWEST_ERRORS` errors has none.
    :raises ValueError: if the shapes differ.
    """
    values = np.asarray(errors, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"errors: expected a 1-d array, got the shape {values.shape}")
    labels = as_labels(clusters, len(values))
    known = np.isfinite(values)
    names, counts = np.unique(labels[known], return_counts=True)
    return {
        str(name): compute_adaptive_threshold(values[known & (labels == name)])
        for name in names[counts >= FEWEST_ERRORS]
    }


def assign_thresholds(thresholds: Mapping[str, float], clusters: npt.ArrayLike) -> FloatArray:
    """Return the threshold of each frame or atom from its own cluster, shape (n,).

    What belongs to none of the clusters gets the smallest threshold: it is new, and a high one would hide that.

    :param thresholds: of :func:`compute_adaptive_thresholds`.
    :param clusters: shape (n,).
    :raises ValueError: if there is no threshold.
    """
    if not thresholds:
        raise ValueError(f"no cluster has a threshold: each needs at least {FEWEST_ERRORS} finite errors")
    smallest = min(thresholds.values())
    labels = as_labels(clusters, np.size(clusters))
    return np.array([thresholds.get(str(label), smallest) for label in labels], dtype=np.float64)


def _element_factors(species: npt.ArrayLike, multipliers: Mapping[str, float]) -> FloatArray:
    """Return the multiplier of each atom, shape (n_atoms,), 1 for an element without."""
    numbers = np.asarray(species, dtype=np.int64)
    factors = np.ones(numbers.shape)
    for symbol, factor in multipliers.items():
        if symbol not in atomic_numbers:
            raise ValueError(f"multipliers: {symbol!r} is not the symbol of an element")
        _check_positive(f"multipliers: {symbol}", factor)
        factors[numbers == atomic_numbers[symbol]] = factor
    return factors


def _check_positive(name: str, value: float) -> None:
    if not (np.isfinite(value) and value > 0.0):
        raise ValueError(f"{name} must be positive and finite, got {value!r}")
