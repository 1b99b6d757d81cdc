"""DIRECT sampling: one frame per cluster, whatever the size of the clusters and the order of the rows."""

import time

import numpy as np
import pytest

from aiida_alpot.kernel.selection import CandidateTable, PickContext
from aiida_alpot.kernel.selection.direct import _components, pick_direct

SIZES = (1000, 100, 50, 20, 5)


def pick(features, n, reference=None, pool=None):
    features = np.asarray(features, dtype=float)
    text, zeros = np.arange(len(features)).astype(str), np.zeros(len(features))
    table = CandidateTable(zeros, zeros, zeros, zeros, zeros, zeros == 0, text, text, features)
    pool = np.arange(len(features)) if pool is None else pool
    return pick_direct(table, pool, n, np.random.default_rng(0), PickContext(reference=reference)).rows.tolist()


def blobs(sizes=SIZES, d=6, seed=0):
    """Return well separated Gaussian clouds and the cloud of each row."""
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(len(sizes)), sizes)
    centres = 40.0 * rng.permutation(np.eye(d))[: len(sizes)]
    return centres[label] + rng.normal(size=(len(label), d)), label


def test_every_cluster_gives_one_frame_however_small_it_is():
    features, label = blobs()
    assert sorted(label[pick(features, 5)]) == [0, 1, 2, 3, 4]


def test_the_frame_is_the_one_nearest_to_the_mean_of_its_cluster():
    features, label = blobs()
    points = _components(features)
    for row in pick(features, 5):
        members = np.flatnonzero(label == label[row])
        distance = np.linalg.norm(points[members] - points[members].mean(axis=0), axis=1)
        assert row == members[np.argmin(distance)]


def test_the_frame_is_not_the_centre_of_the_last_subcluster():
    # one cluster of three knots; maml returns the member nearest to one of the knots
    line = np.array([0.0, 0.1, 4.9, 5.0, 5.1, 9.9, 10.0, 200.0])[:, None]
    assert sorted(pick(line, 2)) == [3, 7]


@pytest.mark.parametrize("n", [1, 5, 17])
def test_the_set_does_not_depend_on_the_order_of_rows(n):
    features, _ = blobs((200, 40, 9))
    order = np.random.default_rng(1).permutation(len(features))
    assert set(order[pick(features[order], n)]) == set(pick(features, n))
    assert len(pick(features, n)) == n


def test_units_and_constant_features_do_not_change_what_is_chosen():
    features, _ = blobs((50, 20, 9))
    scaled = np.column_stack([features * 10.0 ** np.arange(-3, 3), np.full(len(features), 7.0)])
    assert pick(scaled, 6) == pick(features, 6)


def test_fewer_different_frames_than_wanted_are_all_returned_once():
    features = np.repeat(np.random.default_rng(0).normal(size=(6, 3)), 4, axis=0)
    chosen = pick(features, 10)
    assert len({tuple(features[row]) for row in chosen}) == len(chosen) == 6
    assert pick(np.ones((5, 2)), 3) == [0]


def test_only_rows_of_the_pool_are_chosen():
    features, _ = blobs((50, 20, 9))
    pool = np.arange(1, len(features), 2)
    assert set(pick(features, 8, pool=pool)) <= set(pool.tolist())


def test_clusters_with_training_frames_come_last():
    features, label = blobs((300, 100, 30, 10))
    reference = features[label < 2][::7]
    for n in (1, 2):
        assert set(label[pick(features, n, reference)]) <= {2, 3}
    assert set(label[pick(features, 2, reference)]) == {2, 3}
    assert len(pick(features, 40, reference)) == 40


def test_copies_of_training_frames_are_never_chosen():
    features, _ = blobs((20, 10))
    assert pick(features, 5, reference=features) == []
    assert set(pick(features, 50, reference=features[:25])) == set(range(25, 30))


def test_a_reference_without_rows_is_like_none():
    features, _ = blobs((20, 10))
    assert pick(features, 5, reference=features[:0]) == pick(features, 5)


def test_components_are_those_with_more_variance_than_a_feature():
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(500, 2))
    # three copies of one latent and two of another: correlation matrix with the eigenvalues 3 and 2
    features = np.column_stack([latent[:, [0, 0, 0, 1, 1]], rng.normal(size=500)]) + 1e-6 * rng.normal(size=(500, 6))
    variance = np.sort(np.linalg.eigvalsh(np.corrcoef(features.T)))[::-1]
    kept = variance[variance > 1.0]
    spread = np.sort(_components(features).std(axis=0))[::-1]
    np.testing.assert_allclose(spread, np.sqrt(kept) * kept / 6, rtol=1e-9)


def test_features_without_correlation_are_all_kept():
    grid = np.stack(np.meshgrid(np.arange(7.0), np.arange(5.0)), axis=-1).reshape(-1, 2)
    assert _components(grid).shape == (35, 2)
    assert len(pick(grid, 35)) == 35


@pytest.mark.slow
def test_a_hundred_thousand_frames_take_seconds():
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(100_000, 12)) + 4.0 * rng.normal(size=(40, 12))[rng.integers(0, 40, 100_000)]
    features = latent @ rng.normal(size=(12, 64)) + 0.3 * rng.normal(size=(100_000, 64))
    start = time.process_time()
    assert len(pick(features, 1000)) == 1000
    assert time.process_time() - start < 20.0
