"""Conformal scales by category: who is covered, who falls back, and that nothing gets lost on the way."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ase import Atoms

from aiida_alpot.kernel.uncertainty.calibration import Calibration
from aiida_alpot.kernel.uncertainty.categories import fewest_points, frame_categories

CONFIDENCE = 0.9


def make_two_kinds(seed, n_easy=180, n_hard=60):
    """Errors of the hard kind are four times as large at the same disagreement."""
    rng = np.random.default_rng(seed)
    labels = np.array(["bulk"] * n_easy + ["liquid"] * n_hard)
    D = rng.lognormal(-2.0, 0.7, len(labels))
    return D, np.abs(rng.normal(0.0, np.where(labels == "liquid", 4.0, 1.0) * D)), labels


def fit(D, e, labels=None, **options):
    return Calibration.fit(D, e, "conformal", categories=labels, n_bootstrap=0, **options)


def test_a_pooled_scale_covers_the_hard_kind_too_rarely_and_one_by_category_does_not():
    pooled, own = [], []
    for seed in range(40):
        D, e, labels = make_two_kinds(seed)
        new = make_two_kinds(1000 + seed, 2000, 2000)
        pooled.append(fit(D, e).coverage_by_category(*new))
        own.append(fit(D, e, labels).coverage_by_category(*new))
    average = {kind: np.mean([found[kind] for found in own]) for kind in ("bulk", "liquid")}
    assert np.mean([found["liquid"] for found in pooled]) < CONFIDENCE - 0.15
    assert np.mean([found["bulk"] for found in pooled]) > CONFIDENCE + 0.05
    assert all(CONFIDENCE - 0.01 <= value <= CONFIDENCE + 0.03 for value in average.values())


def test_the_scale_of_a_category_is_the_fit_of_its_frames_alone():
    D, e, labels = make_two_kinds(0)
    result = fit(D, e, labels)
    assert result.scale == fit(D, e).scale
    for name in ("bulk", "liquid"):
        own = labels == name
        alone = fit(D[own], e[own])
        assert result.categories[name] == alone.scale
        assert result.threshold(0.3, name) == pytest.approx(alone.threshold(0.3))
        np.testing.assert_allclose(result.predict_error(D[own], labels[own]), alone.predict_error(D[own]))


def test_one_category_for_all_is_the_pooled_fit():
    D, e, _ = make_two_kinds(0)
    assert fit(D, e, np.full(len(D), "all")).categories == {"all": fit(D, e).scale}


def test_order_of_frames_and_names_of_clusters_do_not_matter():
    D, e, labels = make_two_kinds(0)
    order = np.random.default_rng(1).permutation(len(D))
    assert fit(D[order], e[order], labels[order]) == fit(D, e, labels)
    numbers = np.where(labels == "bulk", 7, 11)
    assert sorted(fit(D, e, numbers).categories.values()) == sorted(fit(D, e, labels).categories.values())


def test_unknown_and_missing_categories_have_the_pooled_scale():
    D, e, labels = make_two_kinds(0)
    result = fit(D, e, labels)
    np.testing.assert_allclose(result.predict_error([1.0, 1.0], ["surface", ""]), [result.scale] * 2)
    assert result.threshold(0.3, "surface") == result.threshold(0.3)
    np.testing.assert_array_equal(result.predict_error(D), fit(D, e).predict_error(D))


@pytest.mark.parametrize(("confidence", "n"), [(0.9, 10), (0.5, 2), (0.95, 20), (0.99, 100)])
def test_fewest_points_of_a_category(confidence, n):
    assert fewest_points(confidence) == n


@pytest.mark.parametrize("n", [9, 10])
def test_a_small_category_never_has_a_smaller_scale_than_all_frames(n):
    ones, labels = np.ones(100 + n), np.array(["bulk"] * 100 + ["rare"] * n)
    easy, hard = ones.copy(), ones.copy()
    easy[100:], hard[100:] = 0.1, 7.0
    scale = {name: fit(ones, e, labels).categories.get("rare") for name, e in (("easy", easy), ("hard", hard))}
    assert scale == {"easy": 0.1 if n == 10 else None, "hard": 7.0}
    notes = fit(ones, easy, labels).warnings
    assert any("rare (9)" in note and "fewer than 10" in note for note in notes) == (n == 9)


def test_frames_without_a_category_count_for_all_only():
    D, e, labels = make_two_kinds(0)
    labels[:50] = ""
    assert set(fit(D, e, labels).categories) == {"bulk", "liquid"}
    result = fit(D, e, np.full(len(D), ""))
    assert result.categories == {}
    assert any("no frame has a category" in note for note in result.warnings)


def test_pairs_without_a_value_are_dropped_with_their_category():
    D, e, labels = make_two_kinds(0)
    clean = fit(D, e, labels)
    dirty = fit([np.nan, *D], [1.0, *e], ["liquid", *labels])
    assert (dirty.categories, dirty.n_dropped) == (clean.categories, 1)
    assert dirty.coverage([np.nan, *D], [1.0, *e], ["liquid", *labels]) == clean.coverage(D, e, labels)


def test_rates_use_the_threshold_of_each_frame():
    D, labels = np.array([1.0, 1.0, 3.0, 3.0]), ["easy", "hard", "easy", "hard"]
    result = Calibration("conformal", scale=1.0, categories={"easy": 0.5, "hard": 2.0}, calibrated=True)
    e = result.predict_error(D, labels)
    np.testing.assert_array_equal(e, [0.5, 2.0, 1.5, 6.0])
    np.testing.assert_array_equal(result.frame_thresholds(1.0, labels), [2.0, 0.5, 2.0, 0.5])
    assert (result.tpr(D, e, 1.0, labels), result.ppv(D, e, 1.0, labels)) == (1.0, 1.0)
    assert result.tpr(D, e, 1.0) == pytest.approx(2 / 3)


@pytest.mark.parametrize("target", [0.5, 0.9])
def test_target_tpr_is_reached_over_all_categories(target):
    D, e, labels = make_two_kinds(0)
    result = fit(D, e, labels, tolerance=0.3, target_tpr=target)
    assert target <= result.tpr(D, e, 0.3, labels) < target + 1.0 / np.count_nonzero(e > 0.3) + 1e-12


def test_round_trip_through_json():
    result = fit(*make_two_kinds(0))
    assert Calibration.from_dict(json.loads(json.dumps(result.to_dict()))) == result


def test_categories_of_frames_are_words():
    frames = [Atoms(info={"cluster": 3}), Atoms(info={"cluster": "bulk"}), Atoms()]
    assert frame_categories(frames, "cluster").tolist() == ["3", "bulk", ""]
    assert frame_categories([], "cluster").shape == (0,)


def test_wrong_categories_are_refused():
    with pytest.raises(ValueError, match="categories need the method 'conformal', got 'median_ratio'"):
        Calibration.fit([1.0], [1.0], categories=["a"])
    with pytest.raises(ValueError, match="expected one for each of 2 values"):
        fit([1.0, 1.0], [1.0, 1.0], ["a"])
    with pytest.raises(ValueError, match="the scale of 'a' must be positive"):
        Calibration("conformal", categories={"a": 0.0})
    with pytest.raises(ValueError, match="only a conformal calibration has them"):
        Calibration(categories={"a": 1.0})
