"""DIRECT sampling: one frame of each cluster of the candidates in their features."""

from __future__ import annotations

from typing import Final

import numpy as np

from aiida_alpot.kernel.clustering import cover, cut_tree, means, principal_components
from aiida_alpot.kernel.selection.context import PickContext, Picks
from aiida_alpot.kernel.selection.distance import nearest_distances, require_features
from aiida_alpot.kernel.selection.table import CandidateTable
from aiida_alpot.kernel.units import FloatArray, IntArray

_CELLS_PER_PICK: Final = 3
_CELLS: Final = 2500
"""Most cells unless more frames are wanted; the memory of Ward's method grows with their square."""
_ROUND_OFF: Final = 1e-9
"""Difference that decides nothing, of variances and of distances relative to the largest one from the origin."""


def pick_direct(
    candidates: CandidateTable, pool: IntArray, n: int, rng: np.random.Generator, context: PickContext
) -> Picks:
    """Return from each of *n* clusters of *pool* the row nearest to the mean of its members.

    Qi et al. 2024: the features are standardised, those principal components are kept whose variance is at least that
    of one feature, and each is weighted by its share of the variance. In place of BIRCH, whose subclusters depend on
    the order of the rows, cells of bounded radius are merged by Ward's method, which is BIRCH's last step. So a
    frequent kind of frame gets hardly more clusters than a rare one.

    With a reference, a row that is nearer to it than to the centre of any cell belongs to it, and the hierarchy is cut
    where *n* clusters hold no row of the reference. Nothing is random: the set does not depend on the order of the
    rows, up to ties.

    :param pool: rows to choose from, shape (n_pool,).
    :param rng: not used.
    :param context: its reference.
    :return: *n* rows, or one of each kind if there are fewer that differ.
    :raises ValueError: if the table has no features or those of the reference have another size.
    """
    del rng
    features = require_features(candidates, context.reference)[pool]
    if n <= 0 or len(pool) == 0:
        return Picks(np.zeros(0, dtype=np.int64))
    reference = features[:0] if context.reference is None else context.reference
    components = _components(np.concatenate([features, reference]))
    points, known = components[: len(pool)], components[len(pool) :]
    return Picks(pool[_representatives(points, _clusters(points, known, n))])


def _components(features: FloatArray) -> FloatArray:
    """Return the principal components of the standardised features, weighted by their share of the variance.

    Kept are those with at least the variance of one feature, of which there always is one.

    :return: shape (n_rows, n_kept), centred.
    """
    components, variance = principal_components(features)
    n_kept = max(int(np.count_nonzero(variance > 1.0 - _ROUND_OFF)), 1)
    return components[:, :n_kept] * (variance[:n_kept] / (variance.sum() or 1.0))


def _clusters(points: FloatArray, known: FloatArray, n: int) -> IntArray:
    """Return the cluster of each point, −1 for one in a cluster of the known points."""
    n_cells = max(n, min(_CELLS_PER_PICK * n, _CELLS))
    nearest = np.square(nearest_distances(points, known)) if len(known) else None
    cell = cover(points, n_cells, nearest)
    if cell.max() < 0:
        return cell
    centres, known_centres = means(points, cell), means(known, cover(known, n_cells))
    free = np.arange(len(centres) + len(known_centres)) < len(centres)
    cluster = cut_tree(np.concatenate([centres, known_centres]), min(n, len(centres)), free)
    return np.where(cell < 0, -1, cluster[cell])


def _representatives(points: FloatArray, cluster: IntArray) -> IntArray:
    """Return the point nearest to the mean of its cluster, for each cluster.

    Of equally near ones, as the two of a pair always are, it is the one nearest to the origin.
    """
    members = np.flatnonzero(cluster >= 0)
    label = np.unique(cluster[members], return_inverse=True)[1]
    centres = means(points[members], label)
    radius = np.linalg.norm(points[members], axis=1)
    distance = np.linalg.norm(points[members] - centres[label], axis=1)
    order = np.lexsort((radius, np.round(distance / (_ROUND_OFF * radius.max(initial=0.0) or 1.0)), label))
    first = np.unique(label[order], return_index=True)[1]
    return np.asarray(members[order[first]], dtype=np.int64)
