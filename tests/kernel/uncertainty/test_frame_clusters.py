"""Any frame belongs to the cluster of training frames whose centre is the nearest."""

import numpy as np
import pytest

from aiida_alpot.kernel.clustering import compute_components, leading_axes
from aiida_alpot.kernel.potentials import Features
from aiida_alpot.kernel.uncertainty import FrameClusters, FrameClusterSettings, UncertaintyModel, mean_over_atoms

METHODS = pytest.mark.parametrize("method", ["kmeans", "birch"])


def blobs(n, seed=0, scale=1.0):
    """Rows around three far points of six features, one after the other."""
    rng = np.random.default_rng(seed)
    centres = 20.0 * np.random.default_rng(7).normal(size=(3, 6))
    return (centres[np.arange(3 * n) // n] + rng.normal(size=(3 * n, 6))) * scale


def parts(names):
    """Return which rows are of one cluster, whatever the clusters are called."""
    return {tuple(np.flatnonzero(names == name).tolist()) for name in np.unique(names)}


@METHODS
def test_new_rows_are_of_the_cluster_that_they_are_drawn_from(method):
    clusters = FrameClusters.build(blobs(10), FrameClusterSettings(method, n_clusters=3))
    assert parts(clusters.assign(blobs(10))) == parts(np.arange(30) // 10)
    new = clusters.assign(blobs(4, seed=1))
    assert parts(new) == parts(np.arange(12) // 4)
    assert new[0] == clusters.assign(blobs(10))[0]
    assert set(new) == set(clusters.names)


@METHODS
def test_units_and_origin_of_features_change_nothing(method):
    settings = FrameClusterSettings(method, n_clusters=3)
    units, origin = np.array([1e-3, 1.0, 50.0, 2.0, 7.0, 0.1]), np.arange(6.0)
    plain = FrameClusters.build(blobs(10), settings).assign(blobs(5, seed=2))
    other = FrameClusters.build(blobs(10) * units + origin, settings).assign(blobs(5, seed=2) * units + origin)
    assert parts(plain) == parts(other)


def test_assignment_is_brute_force_nearest_centre():
    rows, new = np.random.default_rng(0).normal(size=(40, 5)), np.random.default_rng(1).normal(size=(9, 5))
    clusters = FrameClusters.build(rows, FrameClusterSettings(n_clusters=4))
    points = (new - clusters.shift) @ clusters.axes
    expected = [int(np.argmin([np.linalg.norm(point - centre) for centre in clusters.centres])) for point in points]
    assert clusters.assign(new).tolist() == [f"cluster {k}" for k in expected]


def test_axes_give_the_components_of_the_rows_that_they_were_made_from():
    rows = blobs(5)
    shift, axes = leading_axes(rows)
    np.testing.assert_allclose((rows - shift) @ axes, compute_components(rows), atol=1e-12)


def test_a_frame_whose_features_are_not_defined_is_of_no_cluster():
    clusters = FrameClusters.build(blobs(10), FrameClusterSettings(n_clusters=3))
    rows = blobs(1)
    rows[1, 2] = np.nan
    assert [bool(name) for name in clusters.assign(rows)] == [True, False, True]
    with pytest.raises(ValueError, match="clusters are of 6 features, the frames have 5"):
        clusters.assign(rows[:, :5])


def test_a_single_frame_makes_a_single_cluster():
    clusters = FrameClusters.build(blobs(1)[:1], FrameClusterSettings(n_clusters=4))
    assert clusters.assign(blobs(1)).tolist() == ["cluster 0"] * 3


def test_clusters_survive_the_file_of_the_model(tmp_path):
    clusters = FrameClusters.build(blobs(10), FrameClusterSettings(n_clusters=3))
    UncertaintyModel(frame_clusters=clusters).save(tmp_path / "model.h5")
    found = UncertaintyModel.load(tmp_path / "model.h5").frame_clusters
    assert found.assign(blobs(4, seed=3)).tolist() == clusters.assign(blobs(4, seed=3)).tolist()
    np.testing.assert_array_equal(found.centres, clusters.centres)


def test_mean_features_are_over_the_atoms_of_each_frame():
    features = Features(np.array([[1.0], [3.0], [np.nan], [5.0]]), np.ones(4), np.array([0, 0, 1, 2]))
    np.testing.assert_array_equal(mean_over_atoms(features, 3), [[2.0], [np.nan], [5.0]])


@pytest.mark.parametrize(("values", "match"), [({"n_clusters": 0}, "n_clusters"), ({"seed": -1}, "seed")])
def test_settings_out_of_range_are_named(values, match):
    with pytest.raises(ValueError, match=match):
        FrameClusterSettings(**values)
