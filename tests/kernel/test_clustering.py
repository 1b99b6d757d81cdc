"""Clusters of points: separated clouds are found, whatever their size and the order of the points."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage

from aiida_alpot.kernel.clustering import (
    cluster_birch,
    cluster_kmeans,
    compute_components,
    cover,
    cut_tree,
    means,
    principal_components,
)

SIZES = (1000, 100, 50, 20, 5)


def blobs(sizes=SIZES, d=6, seed=0):
    """Return well separated Gaussian clouds and the cloud of each row."""
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(len(sizes)), sizes)
    centres = 40.0 * rng.permutation(np.eye(d))[: len(sizes)]
    return centres[label] + rng.normal(size=(len(label), d)), label


def same_partition(a, b):
    return len(set(zip(a.tolist(), b.tolist(), strict=True))) == len(set(a.tolist())) == len(set(b.tolist()))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_birch_finds_separated_clouds_however_small_they_are(seed):
    points, label = blobs(seed=seed)
    assert same_partition(cluster_birch(points, 5), label)


def test_birch_of_few_points_is_ward_of_all_of_them():
    points = np.random.default_rng(3).normal(size=(60, 4))
    for n in (1, 2, 7, 60):
        assert same_partition(cluster_birch(points, n), fcluster(linkage(points, "ward"), n, "maxclust"))


@pytest.mark.parametrize("n", [2, 5, 9])
def test_birch_does_not_depend_on_the_order_of_the_points(n):
    points, _ = blobs((700, 40, 9))
    order = np.random.default_rng(1).permutation(len(points))
    assert same_partition(cluster_birch(points[order], n), cluster_birch(points, n)[order])


@pytest.mark.parametrize("cluster", [cluster_birch, lambda points, n: cluster_kmeans(points, n, seed=0)])
def test_labels_count_from_zero_and_copies_are_one_cluster(cluster):
    points, _ = blobs((30, 20, 9))
    assert sorted(set(cluster(points, 3).tolist())) == [0, 1, 2]
    assert cluster(np.full((10, 2), 0.1), 4).tolist() == [0] * 10
    assert len(set(cluster(np.array([[0.0], [1.0], [0.0]]), 4).tolist())) == 2
    assert cluster(np.zeros((3, 2)), 2).tolist() == [0, 0, 0]


def test_kmeans_finds_separated_clouds_whatever_their_order():
    points, label = blobs((200, 200, 200))
    order = np.random.default_rng(1).permutation(len(points))
    assert same_partition(cluster_kmeans(points, 3, seed=0), label)
    assert same_partition(cluster_kmeans(points[order], 3, seed=0), label[order])


def test_kmeans_is_repeatable():
    points, _ = blobs((200, 40, 9))
    np.testing.assert_array_equal(cluster_kmeans(points, 4, seed=5), cluster_kmeans(points, 4, seed=5))


def test_components_do_not_change_with_units_and_constant_columns():
    values, _ = blobs((50, 20, 9))
    changed = np.column_stack([values * 10.0 ** np.arange(-3, 3) + 7.0, np.full(len(values), 3.0)])
    np.testing.assert_allclose(np.abs(compute_components(changed)), np.abs(compute_components(values)), rtol=1e-6)
    assert compute_components(np.ones((4, 2))).tolist() == [[0.0]] * 4


def test_components_hold_99_percent_of_the_variance():
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(500, 2))
    values = np.column_stack([latent @ rng.normal(size=(2, 8))]) + 1e-3 * rng.normal(size=(500, 8))
    points = compute_components(values)
    assert points.shape == (500, 2)
    assert points.var(axis=0).sum() == pytest.approx(8.0, rel=0.01)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), n=st.integers(1, 30))
def test_cells_are_those_of_brute_force(seed, n):
    points = np.random.default_rng(seed).normal(size=(30, 3))
    cell = cover(points, n)
    chosen = [int(np.argmax(np.linalg.norm(points, axis=1)))]
    while len(chosen) < n:
        chosen.append(int(np.argmax(np.linalg.norm(points[:, None] - points[chosen], axis=2).min(axis=1))))
    assert cell.tolist() == np.linalg.norm(points[:, None] - points[chosen], axis=2).argmin(axis=1).tolist()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), n=st.integers(1, 20))
def test_without_training_frames_the_tree_is_cut_as_scipy_cuts_it(seed, n):
    centres = np.random.default_rng(seed).normal(size=(20, 3))
    found = cut_tree(centres, n, np.ones(20, dtype=bool))
    expected = fcluster(linkage(centres, "ward"), n, "maxclust")
    assert len(set(found)) == n
    assert len(set(zip(found, expected, strict=True))) == n


def test_the_tree_is_cut_until_enough_clusters_hold_no_training_frame():
    centres = np.array([[0.0], [1.0], [10.0], [11.0], [30.0]])
    free = np.array([True, False, True, True, True])
    assert cut_tree(centres, 1, free)[[0, 1, 2, 3]].tolist() == [-1] * 4
    two = cut_tree(centres, 2, free)
    assert two[[0, 1]].tolist() == [-1, -1]
    assert two[2] == two[3] != two[4]
    three = cut_tree(centres, 3, free)
    assert len(set(three.tolist()) - {-1}) == 3
    assert three[1] == -1


def test_means_are_those_of_the_members():
    points = np.array([[0.0, 1.0], [2.0, 3.0], [9.0, 9.0], [5.0, 5.0]])
    assert means(points, np.array([0, 0, -1, 1])).tolist() == [[1.0, 2.0], [5.0, 5.0]]


def test_principal_components_are_those_of_the_correlation_matrix():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(200, 5)) @ rng.normal(size=(5, 5)) * 10.0 ** np.arange(5)
    components, variance = principal_components(values)
    np.testing.assert_allclose(variance, np.linalg.eigvalsh(np.corrcoef(values.T))[::-1])
    np.testing.assert_allclose(components.T @ components / 200, np.diag(variance), atol=1e-12)
    assert variance.sum() == pytest.approx(5.0)


def test_a_column_that_is_constant_but_for_round_off_is_no_direction():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(50, 3))
    values[:, 1] = 7.0 + 1e-7 * rng.normal(size=50)
    assert principal_components(values)[0].shape == (50, 2)
    flat, variance = principal_components(np.full((4, 2), 3.0))
    assert (flat.tolist(), variance.tolist()) == ([[0.0]] * 4, [0.0])
    assert compute_components(np.full((4, 2), 3.0)).tolist() == [[0.0]] * 4
