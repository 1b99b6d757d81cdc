"""Local D-optimality: the exact heterogeneous case, clustering, merging."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_alpot.kernel.potentials.base import Features
from aiida_alpot.kernel.uncertainty.active_set import ActiveSet
from aiida_alpot.kernel.uncertainty.local import ClusterSettings, LocalActiveSet

A = [(4.0, 0.2), (3.0, 0.6)]
B = [(1.2, 1.0), (1.0, 1.2)]
C = [(0.2, 4.0), (0.6, 3.0)]
LABELS = ["a", "a", "b", "b", "c", "c"]


def features(values, species=29):
    values = np.asarray(values, dtype=float)
    return Features(values, np.broadcast_to(species, len(values)), np.zeros(len(values)))


def blobs(seed=0, n=200, d=5):
    rng = np.random.default_rng(seed)
    centres = np.array([[20.0, 0, 0, 0, 0], [0, 20.0, 0, 0, 0], [0, 0, 20.0, 0, 0]])[:, :d]
    labels = np.repeat([0, 1, 2], n)
    return centres[labels] + rng.normal(size=(3 * n, d)), labels


@pytest.mark.parametrize(
    ("point", "grade", "local"),
    [
        ((2.2, 1.2), 0.536341, (2.422222, 3.272727, 4.755556)),
        ((1.1, 1.1), 0.261905, (2.322222, 0.5, 2.322222)),
        ((2.0, 2.0), 0.476190, (4.222222, 0.909091, 4.222222)),
        ((4.7, 0.46), 1.172180, (0.8, 11.772727, 10.393333)),
    ],
)
def test_heterogeneous_case_in_two_dimensions(point, grade, local):
    options = {"constant_column": False}
    x = features([point])
    whole = ActiveSet.build(features(A + B + C), **options)
    assert sorted(map(tuple, whole.blocks[29].rows)) == [(0.2, 4.0), (4.0, 0.2)]
    assert abs(np.linalg.det(whole.blocks[29].rows)) == pytest.approx(15.96)
    assert whole.grade(x)[0] == pytest.approx(grade, abs=1e-6)
    parts = LocalActiveSet.build(features(A + B + C), LABELS, ClusterSettings(rows_per_rank=0.0), **options)
    assert [member.grade(x)[0] for member in parts.members] == pytest.approx(local, abs=1e-6)
    assert parts.grade(x)[0] == pytest.approx(min(local), abs=1e-6)


def test_atoms_between_the_clusters_are_flagged_only_locally():
    values, labels = blobs()
    whole = ActiveSet.build(features(values))
    parts = LocalActiveSet.build(features(values), labels)
    between = features(np.array([[10.0, 10.0, 0, 0, 0], [7.0, 7.0, 7.0, 0, 0]]))
    assert np.all(whole.grade(between) <= 1.01)
    assert np.all(parts.grade(between) > 2.0)
    assert parts.grade(features(values)).max() <= 1.01 + 1e-8


@pytest.mark.parametrize("method", ["kmeans", "birch"])
def test_clusters_that_are_found_are_those_that_are_given(method):
    values, labels = blobs()
    found = LocalActiveSet.build(features(values), clusters=ClusterSettings(method, n_clusters=3))
    given = LocalActiveSet.build(features(values), labels)
    new = features(values + 3.0)
    np.testing.assert_allclose(found.grade(new), given.grade(new))


@pytest.mark.parametrize("method", ["kmeans", "birch"])
@pytest.mark.parametrize("level", ["atom", "frame"])
def test_grades_do_not_depend_on_the_order_of_the_frames(method, level):
    values, _ = blobs()
    frames = np.repeat(np.arange(len(values) // 4), 4)
    order = np.random.default_rng(2).permutation(frames[-1] + 1)
    rows = np.concatenate([np.flatnonzero(frames == k) for k in order])
    settings = ClusterSettings(method, n_clusters=3, level=level)
    new = features(values + 3.0)
    grades = [
        LocalActiveSet.build(Features(chosen, np.full(len(values), 29), frames), clusters=settings).grade(new)
        for chosen in (values, values[rows])
    ]
    np.testing.assert_allclose(*grades)


def test_frames_are_clustered_by_their_mean_features():
    values, labels = blobs()
    # each frame has atoms of two clouds: their mean tells the frames apart, the atoms of a frame stay together
    pairs = [(0, 1), (1, 2)]
    rows = [np.flatnonzero(labels == cloud)[:100].reshape(50, 2) for pair in pairs for cloud in pair]
    frames = np.concatenate([np.hstack(rows[:2]), np.hstack(rows[2:])])
    data = Features(values[frames.ravel()], np.full(frames.size, 29), np.repeat(np.arange(len(frames)), 4))
    by_frame = LocalActiveSet.build(data, clusters=ClusterSettings(n_clusters=2, level="frame"))
    by_label = LocalActiveSet.build(data, np.repeat([0, 1], frames.size // 2))
    new = features(values + 3.0)
    np.testing.assert_allclose(by_frame.grade(new), by_label.grade(new))


def test_small_clusters_are_merged_into_the_nearest():
    values, labels = blobs()
    labels[:4] = 7
    parts = LocalActiveSet.build(features(values), labels)
    assert len(parts.members) == 3
    assert parts.grade(features(values)).max() <= 1.01 + 1e-8
    few = LocalActiveSet.build(features(values[::100]), labels[::100])
    assert len(few.members) == 1


def test_a_thin_cluster_does_not_call_its_surroundings_known():
    rng = np.random.default_rng(0)
    line = np.outer(rng.uniform(1.0, 2.0, 50), [1.0, 1.0, 0.0])
    cloud = rng.normal([50.0, 0.0, 0.0], 1.0, (50, 3))
    parts = LocalActiveSet.build(features(np.concatenate([line, cloud])), np.repeat([0, 1], 50), constant_column=False)
    assert parts.members[0].grade(features([[1.5, 1.5, 0.0]]))[0] <= 1.0
    assert np.isinf(parts.members[0].grade(features([[1.5, 1.5, 0.5]]))[0])


def test_a_species_may_be_absent_from_a_cluster():
    values, labels = blobs()
    species = np.where(labels == 0, 29, 79)
    data = Features(values, species, np.zeros(len(values)))
    parts = LocalActiveSet.build(data, labels)
    assert parts.species == (29, 79)
    assert parts.grade(data).max() <= 1.01 + 1e-8
    assert np.isinf(parts.grade(features(values[:2], 13))).all()
    assert parts.residual(data).max() < 1e-6
    assert {number: len(rows) for number, rows in parts.owners.items()} == {29: 6, 79: 12}


def test_round_trip_keeps_grades_and_bytes(tmp_path):
    values, labels = blobs()
    parts = LocalActiveSet.build(features(values), labels)
    parts.save(tmp_path / "a.h5")
    loaded = LocalActiveSet.load(tmp_path / "a.h5")
    loaded.save(tmp_path / "b.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    new = features(values + 3.0)
    np.testing.assert_array_equal(loaded.grade(new), parts.grade(new))
    with pytest.raises(ValueError, match="kind 'active_set'"):
        ActiveSet.load(tmp_path / "a.h5")


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="at least one atom"):
        LocalActiveSet.build(Features(np.zeros((0, 2)), [], []))
    with pytest.raises(ValueError, match="labels: expected one per atom"):
        LocalActiveSet.build(features(A), ["a"])
    with pytest.raises(ValueError, match="give the labels of the atoms"):
        LocalActiveSet.build(features(A), clusters=ClusterSettings("column"))
    for wrong in ({"n_clusters": 0}, {"rows_per_rank": -1.0}, {"seed": -1}, {"column": ""}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ClusterSettings(**wrong)
    with pytest.raises(ValueError, match="at least one cluster"):
        LocalActiveSet([])


@pytest.mark.parametrize("start", ["eps", "strict"])
def test_atoms_enter_the_cluster_that_knows_them_best(start):
    rng = np.random.default_rng(5)
    near, far = (
        np.column_stack([rng.normal(size=20), np.zeros(20)]),
        np.column_stack([np.zeros(20), rng.normal(size=20)]),
    )
    parts = LocalActiveSet.build(
        features(np.concatenate([near, far])), np.repeat([0, 1], 20), start=start, constant_column=False
    )
    before = parts.copy()
    new = features(np.array([[50.0, 0.0]]))
    assert parts.grade(new)[0] > 2.0
    assert parts.absorb(new) == 1
    assert parts.grade(new)[0] <= parts.known_grade
    np.testing.assert_array_equal(parts.members[1].grade(new), before.members[1].grade(new))
    assert before.grade(new)[0] > 2.0
    assert parts.absorb(new) == 0


def test_absorbing_into_one_cluster_is_absorbing_into_its_set():
    rng = np.random.default_rng(6)
    data, new = features(rng.normal(size=(30, 3))), features(4.0 * rng.normal(size=(10, 3)))
    parts = LocalActiveSet.build(data, np.zeros(30))
    alone = parts.members[0].copy()
    assert parts.absorb(new) == alone.absorb(new)
    np.testing.assert_array_equal(parts.grade(data), alone.grade(data))


def test_a_species_that_no_cluster_knows_is_known_once_it_is_taken_in():
    parts = LocalActiveSet.build(features(A + B), LABELS[: len(A + B)], ClusterSettings(rows_per_rank=0.0), start="eps")
    values = np.asarray(A, dtype=float)
    new = Features(values, np.full(len(values), 79), np.zeros(len(values)))
    assert np.isinf(parts.grade(new)).all()
    parts.absorb(new)
    assert parts.grade(new).max() <= parts.known_grade * (1 + 1e-8)
