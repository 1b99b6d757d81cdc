"""Units of grades: exact small cases, and that one in ten new frames of a kind is flagged."""

import numpy as np
import pytest

from aiida_alpot.kernel.potentials import Features
from aiida_alpot.kernel.uncertainty import ActiveSet, compute_frame_grade
from aiida_alpot.kernel.uncertainty.scaling import assign_folds, compute_left_out_grades, compute_unit, scale_grades

CU, AU = 29, 79


def features(values, species=None, frame_index=None):
    values = np.asarray(values, dtype=float)
    n = len(values)
    return Features(
        values, np.full(n, CU) if species is None else species, np.arange(n) if frame_index is None else frame_index
    )


def build(training, **options):
    return ActiveSet.build(training, **{"start": "eps", "constant_column": False, **options})


def test_a_unit_is_the_conformal_quantile():
    assert compute_unit(np.arange(1.0, 20.0)) == 18.0
    assert compute_unit(np.arange(1.0, 20.0)[::-1], share=0.5) == 10.0
    assert compute_unit([3.0, 1.0]) == 3.0
    assert compute_unit([]) == compute_unit(np.zeros(30)) == 1.0


def test_left_out_grades_are_those_of_the_set_of_the_others():
    training = features([[1.0], [2.0], [4.0], [8.0]])
    grades = compute_left_out_grades(build(training), training, np.arange(4))
    # without 8 the longest is 4; the others are measured by 8
    np.testing.assert_allclose(grades[CU], [1 / 8, 2 / 8, 4 / 8, 8 / 4])
    pairs = compute_left_out_grades(build(training), training, np.array([0, 0, 1, 1]))
    np.testing.assert_allclose(pairs[CU], [1 / 8, 2 / 8, 4 / 2, 8 / 2])


def test_a_frame_counts_by_its_largest_atom():
    training = features([[1.0], [3.0], [2.0], [8.0]], frame_index=[0, 0, 1, 2])
    np.testing.assert_allclose(
        compute_left_out_grades(build(training), training, np.arange(3))[CU], [3 / 8, 2 / 8, 8 / 3]
    )


def test_scaled_grades_are_grades_over_the_unit_of_the_species(tmp_path):
    rng = np.random.default_rng(0)
    species = np.tile([CU, AU], 60)
    training = features(rng.normal(size=(120, 5)), species, np.repeat(np.arange(60), 2))
    plain, scaled = build(training), build(training)
    scale_grades(scaled, training, assign_folds([str(k) for k in range(60)]))
    asked = features(rng.normal(size=(20, 5)), np.tile([CU, AU], 10))
    units = np.where(asked.species == CU, scaled.units[CU], scaled.units[AU])
    assert units.min() > 0.0
    np.testing.assert_allclose(scaled.grade(asked), plain.grade(asked) / units)
    scaled.save(tmp_path / "a.h5")
    assert ActiveSet.load(tmp_path / "a.h5").units == scaled.units
    scaled.absorb(asked)
    assert scaled.grade(asked).max() <= scaled.known_grade * (1 + 1e-8)


def test_chunks_change_nothing():
    rng = np.random.default_rng(0)
    training = features(rng.normal(size=(60, 4)), frame_index=np.repeat(np.arange(20), 3))
    folds = assign_folds([str(k) for k in range(20)], 5)
    whole, parts = build(training), build(training)
    scale_grades(whole, training, folds)
    scale_grades(
        parts,
        lambda: (
            Features(training.values[k : k + 9], training.species[k : k + 9], training.frame_index[k : k + 9])
            for k in range(0, 60, 9)
        ),
        folds,
    )
    assert parts.units == pytest.approx(whole.units, rel=1e-10)


@pytest.mark.parametrize(("n_frames", "plain_share"), [(36, 0.5), (60, 0.15), (300, 0.0)])
def test_at_most_one_in_ten_new_frames_of_the_kind_exceeds_one(n_frames, plain_share):
    """Few frames exceed a plain grade of one far more often; with many, one unit is below it, and flags one in ten."""
    plain, scaled, far = [], [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        training, new = features(rng.normal(size=(n_frames, 30))), features(rng.normal(size=(200, 30)))
        active = build(training)
        plain.append(np.mean(active.grade(new) > 1.0))
        scale_grades(active, training, assign_folds([""] * n_frames))
        scaled.append(np.mean(active.grade(new) > 1.0))
        far.append(np.mean(active.grade(features(40.0 * new.values)) > 1.0))
    assert np.mean(plain) >= plain_share
    assert np.mean(scaled) < 0.12
    assert np.mean(far) > 0.9
    if n_frames == 300:
        assert np.mean(scaled) > 0.06


def test_configurations_have_a_unit_too():
    rng = np.random.default_rng(0)
    training = features(rng.normal(size=(90, 3)), np.tile([CU, CU, AU], 30), np.repeat(np.arange(30), 3))
    active = build(training, mode="configuration")
    scale_grades(active, training, np.arange(30) % 10)
    assert set(active.units) == {0}
    grades = compute_frame_grade(active.grade(training), training.frame_index, 30)
    assert grades.max() <= 1.01 / active.units[0] + 1e-9


def test_a_species_that_one_fold_has_alone_keeps_the_unit_one():
    training = features(np.random.default_rng(0).normal(size=(40, 2)), np.where(np.arange(40) < 36, CU, AU))
    active = build(training)
    scale_grades(active, training, np.repeat(np.arange(10), 4))
    assert active.units[AU] == 1.0


@pytest.mark.parametrize("mode", ["neighbourhood", "configuration"])
def test_features_that_say_nothing_and_a_single_frame_have_the_unit_one(mode):
    for training in (features(np.zeros((20, 3))), features([[1.0, 2.0]])):
        active = build(training, mode=mode)
        scale_grades(active, training, assign_folds([""] * len(training.values)))
        assert set(active.units.values()) == {1.0}
        assert np.isfinite(active.grade(training)).all()


def test_frames_of_a_group_are_left_out_together():
    groups = [f"run-{k // 5}" for k in range(100)] + ["", ""]
    folds = assign_folds(groups)
    assert len(np.unique(folds)) == 10
    assert all(len(set(folds[5 * k : 5 * k + 5])) == 1 for k in range(20))
    assert folds.tolist() == assign_folds(groups).tolist()
    assert len(np.unique(assign_folds(["a", "a", "b"]))) == 2
    assert len(np.unique(assign_folds([""] * 4))) == 4


def test_a_strict_start_has_no_units():
    training = features([[1.0], [2.0]])
    with pytest.raises(ValueError, match="start with 'eps'"):
        scale_grades(build(training, start="strict"), training, np.arange(2))
