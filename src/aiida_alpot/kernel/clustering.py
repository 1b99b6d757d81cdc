"""Clusters of points: k-means, and cells of bounded radius with Ward's hierarchy of their centres."""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy.cluster.hierarchy import linkage

from aiida_alpot.kernel.units import BoolArray, FloatArray, IntArray

CONSTANT: Final = 1e-6
"""Standard deviation relative to the largest value below which a column is round-off of single precision."""
_SAME: Final = 1e-12
"""Squared distance below which two points are copies, relative to the largest square of a point."""
_CELLS: Final = 500
"""Cells of BIRCH that are merged by Ward's method."""
_MAX_ITERATIONS: Final = 100
"""Of k-means."""
_EXPLAINED: Final = 0.99
"""Share of the variance kept by the principal components."""


def principal_components(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return all principal components of the standardised columns, the largest variance first, and their variances.

    Columns that are constant but for round-off are left out; if all are there is one component, of variance zero.

    :param values: shape (n, n_features).
    :return: shapes (n, n_components), centred, and (n_components,).
    """
    mean, axes, variance = principal_axes(values)
    return np.asarray((values - mean) @ axes, dtype=np.float64), variance


def principal_axes(values: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return what makes principal components of any values, ``(values − mean) @ axes``, and their variances.

    :param values: see :func:`principal_components`.
    :return: mean (n_features,), axes (n_features, n_components), variances (n_components,).
    """
    mean = values.mean(axis=0)
    centred = values - mean
    scale = centred.std(axis=0)
    varies = scale > CONSTANT * np.abs(values).max(axis=0)
    if not varies.any():
        return mean, np.zeros((values.shape[1], 1)), np.zeros(1)
    standard = centred[:, varies] / scale[varies]
    variance, vectors = np.linalg.eigh(standard.T @ standard / len(standard))
    axes = np.zeros((values.shape[1], len(variance)))
    axes[varies] = vectors[:, ::-1] / scale[varies][:, None]
    return mean, axes, np.asarray(variance[::-1], dtype=np.float64)


def compute_components(values: FloatArray) -> FloatArray:
    """Return the leading principal components of the standardised columns, shape (n, ≤ n_features).

    They hold 99 % of the variance.

    :param values: shape (n, n_features).
    """
    mean, axes = leading_axes(values)
    return np.asarray((values - mean) @ axes, dtype=np.float64)


def leading_axes(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return what makes :func:`compute_components` of any values: ``(values − mean) @ axes``.

    :return: mean (n_features,) and axes (n_features, ≤ n_features).
    """
    mean, axes, variance = principal_axes(values)
    if variance[0] == 0.0:
        return mean, axes
    n_kept = int(np.searchsorted(np.cumsum(variance) / variance.sum(), _EXPLAINED)) + 1
    return mean, axes[:, :n_kept]


def cluster_kmeans(points: FloatArray, n_clusters: int, seed: int) -> IntArray:
    """Return the cluster of each point by Lloyd's k-means from a seeded k-means++ start.

    :param points: shape (n, d).
    :param n_clusters: at most this many; fewer if there are fewer different points.
    :return: labels 0, 1, …, shape (n,).
    """
    generator = np.random.default_rng(seed)
    centres = points[generator.integers(len(points))][None]
    for _ in range(n_clusters - 1):
        weight = _square_distances(points, centres).min(axis=1)
        # what is roundoff between equal points is no distance
        weight[weight < 1e-20 * max(float(np.square(points).max(initial=0.0)), 1e-280)] = 0.0
        if weight.sum() == 0.0:
            break
        centres = np.concatenate([centres, points[generator.choice(len(points), p=weight / weight.sum())][None]])
    labels = np.full(len(points), -1, dtype=np.int64)
    for _ in range(_MAX_ITERATIONS):
        found = np.argmin(_square_distances(points, centres), axis=1)
        if np.array_equal(found, labels):
            break
        labels = found
        for k in np.unique(labels):
            centres[k] = points[labels == k].mean(axis=0)
    return np.asarray(np.unique(labels, return_inverse=True)[1], dtype=np.int64)


def cluster_birch(points: FloatArray, n_clusters: int) -> IntArray:
    """Return the cluster of each point by BIRCH (Zhang et al. 1996): cells of bounded radius, merged by Ward's method.

    The cells are those of :func:`cover`, not of a tree that grows point by point: the clusters do not depend on the
    order of the points, up to ties, and nothing is random.

    :param points: shape (n, d).
    :param n_clusters: at most this many; fewer if there are fewer different points.
    :return: labels 0, 1, …, shape (n,).
    """
    cell = np.maximum(cover(points, _CELLS), 0)
    centres = means(points, cell)
    cluster = cut_tree(centres, min(n_clusters, len(centres)), np.ones(len(centres), dtype=bool))[cell]
    return np.asarray(np.unique(cluster, return_inverse=True)[1], dtype=np.int64)


def _square_distances(points: FloatArray, centres: FloatArray) -> FloatArray:
    return np.stack([np.square(points - centre).sum(axis=1) for centre in centres], axis=1)


def cover(points: FloatArray, n: int, nearest: FloatArray | None = None) -> IntArray:
    """Return the cell of each point, for at most *n* cells around points that are far from each other.

    Each next centre is the point farthest from the centres so far, which leaves radii of at most twice the smallest
    possible; the first one is farthest from the origin. There are fewer cells if the other points are copies.

    :param points: shape (n_points, d).
    :param nearest: squared distance of each point to what is covered already, shape (n_points,).
    :return: shape (n_points,); −1 for a point that is no farther from what is covered already than from any centre.
    """
    points = np.asfortranarray(points)  # halves the time of the product below
    squares = np.einsum("ij,ij->i", points, points)
    same = _SAME * squares.max(initial=0.0)
    cell = np.full(len(points), -1, dtype=np.int64)
    if len(points) == 0:
        return cell
    centre = int(np.argmax(squares if nearest is None else nearest))
    nearest = np.full(len(points), np.inf) if nearest is None else nearest.copy()
    for k in range(n):
        if nearest[centre] <= same:
            break
        distance = squares - 2.0 * (points @ points[centre]) + squares[centre]
        distance[centre] = 0.0
        closer = distance < nearest
        nearest[closer] = distance[closer]
        cell[closer] = k
        centre = int(np.argmax(nearest))
    return cell


def means(points: FloatArray, label: IntArray) -> FloatArray:
    """Return the mean of the points of each label 0, 1, …, none of which is empty; points labelled −1 do not count."""
    points, label = points[label >= 0], label[label >= 0]
    sums = [np.bincount(label, weights=column) for column in points.T]
    return np.asarray(np.stack(sums, axis=1) / np.bincount(label)[:, None], dtype=np.float64)


def cut_tree(centres: FloatArray, n: int, free: BoolArray) -> IntArray:
    """Return the coarsest clusters of Ward's hierarchy of which *n* have free members only.

    :param centres: shape (n_centres, d), at least one.
    :param free: which centres are free, shape (n_centres,), at least *n* of them.
    :return: the cluster of each centre, shape (n_centres,); −1 for a cluster with a member that is not free.
    """
    size = len(centres)
    merges = np.zeros((0, 2), dtype=np.int64)
    if size > 1:
        merges = linkage(centres, method="ward")[:, :2].astype(np.int64)
    is_free = np.concatenate([free, np.zeros(len(merges), dtype=bool)])
    for node, children in enumerate(merges, start=size):
        is_free[node] = is_free[children].all()
    # merges are in order of their height, so that going down splits the widest cluster next
    top, n_free = size + len(merges), int(is_free[-1])
    while n_free < n and top > size:
        top -= 1
        n_free += int(is_free[merges[top - size]].sum()) - int(is_free[top])
    cluster = np.arange(len(is_free))
    for node in range(top - 1, size - 1, -1):
        cluster[merges[node - size]] = cluster[node]
    cluster = cluster[:size]
    return np.where(is_free[cluster], cluster, -1)
