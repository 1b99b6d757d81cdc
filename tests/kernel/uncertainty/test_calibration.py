"""Calibration: known answers, invariances, and what it must warn about."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from aiida_alpot.kernel.uncertainty._scales import METHODS, bootstrap
from aiida_alpot.kernel.uncertainty.calibration import Calibration, compute_ppv, compute_tpr


@pytest.fixture(scope="module")
def half_normal():
    rng = np.random.default_rng(0)
    D = rng.lognormal(-2.0, 0.7, 200_000)
    return D, np.abs(rng.normal(0.0, D / 0.6))


def make_pairs(n, seed=0):
    rng = np.random.default_rng(seed)
    D = rng.lognormal(-2.0, 0.7, n)
    return D, np.abs(rng.normal(0.0, D / 0.6))


@pytest.mark.parametrize("method", METHODS)
def test_an_exact_line_is_recovered_by_every_method(method):
    e = np.linspace(0.01, 2.0, 400)
    D = 0.5 * e
    result = Calibration.fit(D, e, method)
    assert result.calibrated
    assert result.scale == pytest.approx(2.0)
    assert result.exponent == pytest.approx(1.0)
    assert result.threshold(0.3) == pytest.approx(0.15)
    np.testing.assert_allclose(result.predict_error([0.1, 0.4, 5.0]), [0.2, 0.8, 10.0])
    assert result.tpr(D, e, 0.3021) == 1.0
    assert result.ppv(D, e, 0.3021) == 1.0
    assert result.warnings == ()


def test_rates_of_the_four_point_example():
    D, e = [1.0, 2.0, 3.0, 4.0], [2.0, 1.0, 6.0, 8.0]
    assert compute_tpr(D, e, 2.0, 4.0) == 1.0
    assert compute_ppv(D, e, 2.0, 4.0) == 1.0
    assert compute_ppv(D, e, 1.5, 4.0) == pytest.approx(2 / 3)
    assert compute_tpr(D, e, 3.5, 4.0) == 0.5
    assert compute_tpr(D, e, 2.0, 8.0) is None
    assert compute_ppv(D, e, 4.0, 4.0) is None


@pytest.mark.parametrize(
    ("method", "scale", "precision"),
    [("ols_origin", 1 / 0.4745, 2e-3), ("rms_ratio", 1.682, 1e-2), ("median_ratio", 1.673 * 0.67449, 2e-2)],
)
def test_scales_of_the_half_normal_case(half_normal, method, scale, precision):
    assert Calibration.fit(*half_normal, method, n_bootstrap=0).scale == pytest.approx(scale, rel=precision)


def test_ols_divides_by_a_and_does_not_multiply(half_normal):
    D, e = half_normal
    tolerance = float(np.quantile(e, 0.6))
    result = Calibration.fit(D, e, "ols_origin", n_bootstrap=0)
    a = 1.0 / result.scale
    np.testing.assert_allclose(result.predict_error(D[:5]), D[:5] / a)
    assert result.threshold(tolerance) == pytest.approx(a * tolerance)
    assert result.tpr(D, e, tolerance) > 0.9
    assert compute_tpr(a * D, e, tolerance, tolerance) < 0.2


def test_median_is_more_precise_and_ols_recalls_more(half_normal):
    D, e = half_normal
    tolerance = float(np.quantile(e, 0.6))
    result = Calibration.fit(D, e, n_bootstrap=0)
    ols = Calibration.fit(D, e, "ols_origin", n_bootstrap=0)
    assert result.tpr(D, e, tolerance) < ols.tpr(D, e, tolerance)
    assert result.ppv(D, e, tolerance) > ols.ppv(D, e, tolerance)
    assert result.coverage(D, e) == pytest.approx(0.5, abs=1e-3)


def test_median_ratio_ignores_outliers():
    D, e = make_pairs(200)
    clean = Calibration.fit(D, e).scale
    e[:4] = 1e3
    assert Calibration.fit(D, e).scale == pytest.approx(clean, rel=0.05)
    assert Calibration.fit(D, e, "rms_ratio").scale > 10 * clean


def test_conformal_coverage_is_the_confidence_on_new_frames():
    shares = []
    for seed in range(40):
        result = Calibration.fit(*make_pairs(200, seed), "conformal", n_bootstrap=0)
        shares.append(result.coverage(*make_pairs(2000, 1000 + seed)))
    assert 0.87 <= np.mean(shares) <= 0.95


def test_conformal_scale_is_the_order_statistic():
    e = np.arange(1.0, 20.0)
    assert Calibration.fit(np.ones(19), e, "conformal").scale == 18.0
    few = Calibration.fit(np.ones(5), e[:5], "conformal", n_bootstrap=0)
    assert any("too few for a confidence" in note for note in few.warnings)


def test_loglog_recovers_a_power_law_and_clips_the_exponent():
    D = np.geomspace(1e-3, 1.0, 50)
    result = Calibration.fit(D, 3.0 * D**0.8, "loglog")
    assert result.exponent == pytest.approx(0.8)
    np.testing.assert_allclose(result.predict_error(D), 3.0 * D**0.8)
    assert result.predict_error(result.threshold(0.5)) == pytest.approx(0.5)
    assert Calibration.fit(D, D**3, "loglog").exponent == 1.5


def test_isotonic_follows_a_kink_and_stays_monotone():
    D = np.linspace(0.01, 2.0, 500)
    e = np.where(D < 1.0, D, 1.0 + 5.0 * (D - 1.0))
    result = Calibration.fit(D, e, "isotonic")
    np.testing.assert_allclose(result.predict_error(D), e, atol=1e-12)
    assert result.threshold(3.5) == pytest.approx(1.5, abs=1e-3)
    assert np.all(np.diff(result.predict_error(np.linspace(0.0, 10.0, 1000))) >= 0.0)
    noisy = Calibration.fit(*make_pairs(500), "isotonic")
    grid = np.linspace(0.0, 3.0, 2000)
    assert np.all(np.diff(noisy.predict_error(grid)) >= 0.0)
    tau = noisy.threshold(0.3)
    assert noisy.predict_error(tau * 0.99) <= 0.3 + 1e-12 <= noisy.predict_error(tau * 1.01) + 1e-9


def test_isotonic_averages_frames_of_equal_disagreement_in_any_order():
    D = np.repeat([1.0, 2.0], 100)
    e = np.concatenate([np.tile([0.0, 2.0], 50), np.full(100, 3.0)])
    order = np.random.default_rng(0).permutation(200)
    assert Calibration.fit(D, e, "isotonic").knots == Calibration.fit(D[order], e[order], "isotonic").knots
    np.testing.assert_allclose(Calibration.fit(D, e, "isotonic").predict_error([1.0, 2.0]), [1.0, 3.0])


def test_isotonic_with_few_points_falls_back_with_a_warning():
    result = Calibration.fit(*make_pairs(50), "isotonic")
    assert result.method == "median_ratio"
    assert any("isotonic fit needs 200" in note for note in result.warnings)


@given(seed=st.integers(0, 10_000), factor=st.floats(1e-3, 1e3), method=st.sampled_from(METHODS))
@settings(max_examples=40, deadline=None)
def test_thresholds_scale_with_the_units(seed, factor, method):
    D, e = make_pairs(210, seed)
    a = Calibration.fit(D, e, method, n_bootstrap=0)
    b = Calibration.fit(factor * D, factor * e, method, n_bootstrap=0)
    assert b.threshold(factor * 0.2) == pytest.approx(factor * a.threshold(0.2), rel=1e-6)
    np.testing.assert_allclose(b.predict_error(factor * D), factor * a.predict_error(D), rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_flagged_means_predicted_beyond_the_tolerance(method):
    D, e = make_pairs(300)
    result = Calibration.fit(D, e, method, n_bootstrap=0)
    assert np.array_equal(result.threshold(0.25) < D, result.predict_error(D) > 0.25)


@pytest.mark.parametrize("target", [0.5, 0.9, 1.0])
def test_target_tpr_is_reached_and_not_overshot(target):
    D, e = make_pairs(300)
    result = Calibration.fit(D, e, tolerance=0.3, target_tpr=target, n_bootstrap=0)
    positives = np.count_nonzero(e > 0.3)
    assert target <= result.tpr(D, e, 0.3) < target + 1.0 / positives + 1e-12
    assert result.threshold(0.6) == pytest.approx(2.0 * result.threshold(0.3))


def test_target_tpr_without_positives_changes_nothing():
    D, e = make_pairs(50)
    result = Calibration.fit(D, e, tolerance=1e6, target_tpr=0.9)
    assert result.threshold_factor == 1.0
    assert any("no error is beyond" in note for note in result.warnings)


def test_nan_pairs_are_dropped_and_counted():
    D, e = make_pairs(50)
    clean = Calibration.fit(D, e)
    dirty = Calibration.fit([np.nan, *D, 0.1], [0.5, *e, np.nan])
    assert dirty.n_dropped == 2
    assert dirty.scale == clean.scale
    assert dirty.n_points == 50
    assert np.isnan(clean.predict_error([np.nan])[0])


def test_fewer_than_three_points_keep_the_previous_calibration():
    previous = Calibration(scale=2.5, calibrated=True, n_points=100)
    kept = Calibration.fit([1.0, np.nan], [5.0, 1.0], previous=previous)
    assert kept.scale == 2.5
    assert kept.calibrated
    assert kept.n_dropped == 1
    assert any("only 1 points, a fit needs 3" in note for note in kept.warnings)
    none = Calibration.fit([], [])
    assert none.scale == 1.0
    assert not none.calibrated
    assert any("uncalibrated" in note for note in none.warnings)


def test_a_collapsed_committee_is_reported():
    e = np.linspace(0.1, 1.0, 30)
    assert any("collapsed" in note for note in Calibration.fit(1e-6 * e, e).warnings)
    zero = Calibration.fit(np.zeros(30), e)
    assert not zero.calibrated
    assert any("collapsed" in note for note in zero.warnings)
    assert not any("collapsed" in note for note in Calibration.fit(0.1 * e, e).warnings)


@pytest.mark.parametrize("method", METHODS)
def test_frames_without_disagreement_or_error_do_no_harm(method):
    D, e = make_pairs(300)
    D[:5], e[:5], D[5:10] = 0.0, 0.0, 0.0
    result = Calibration.fit(D, e, method, n_bootstrap=10)
    assert result.calibrated
    assert np.isfinite(result.threshold(0.1))
    assert np.all(np.isfinite(result.predict_error(D)))
    assert not Calibration.fit(D, np.zeros(300), method).calibrated


def test_extrapolated_and_unreachable_tolerances_are_reported():
    D, e = make_pairs(100)
    assert any("extrapolated" in note for note in Calibration.fit(D, e, tolerance=2 * e.max()).warnings)
    assert any("every error" in note for note in Calibration.fit(D, e, tolerance=0.5 * e.min()).warnings)


def test_disagreement_beyond_that_of_the_fit_is_told():
    D, e = make_pairs(100)
    result = Calibration.fit(D, e, n_bootstrap=0)
    assert result.largest_disagreement == D.max()
    assert result.extrapolates([D.min(), D.max(), 1.001 * D.max(), np.nan]).tolist() == [False, False, True, False]
    assert not Calibration().extrapolates([1e9]).any()


def test_interval_covers_the_scale_and_repeats_with_the_seed():
    D, e = make_pairs(100)
    a, b, c = (Calibration.fit(D, e, seed=seed) for seed in (1, 1, 2))
    low, high = a.interval
    assert low < a.scale < high
    assert a == b
    assert c.interval != a.interval
    assert c.scale == a.scale
    wide = Calibration.fit(D[:15], e[:15]).interval
    assert wide[1] - wide[0] > high - low


def test_bootstrap_interval_contains_the_truth_about_as_often_as_it_says():
    truth = 0.67449 / 0.6
    hits = 0
    for seed in range(100):
        low, high = Calibration.fit(*make_pairs(60, seed), n_bootstrap=200).interval
        hits += low <= truth <= high
    assert hits >= 86


@pytest.mark.parametrize("n", [8, 12, 1000])
def test_interval_of_few_points_is_as_much_wider_as_a_t_interval(n):
    """The square of an rms ratio with equal disagreements is a mean, whose t interval is known."""
    e = np.sqrt(np.arange(1.0, n + 1.0) + 10.0 * n)
    low, high = bootstrap("rms_ratio", np.ones(n), e, 0.9, 1.0, 4000, 0)
    half = (high**2 - low**2) / 2.0
    expected = stats.t.ppf(0.975, n - 1) * np.std(e**2, ddof=1) / np.sqrt(n)
    assert half == pytest.approx(expected, rel=0.08)


@pytest.mark.parametrize("method", METHODS)
def test_round_trip_through_json(method):
    D, e = make_pairs(250)
    result = Calibration.fit(D, e, method, tolerance=0.3, target_tpr=0.9, n_bootstrap=20)
    assert Calibration.from_dict(json.loads(json.dumps(result.to_dict()))) == result


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="two 1-d arrays"):
        Calibration.fit([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match=r"disagreement\[1\] is -1"):
        Calibration.fit([1.0, -1.0], [1.0, 1.0])
    with pytest.raises(ValueError, match=r"error\[0\] is inf"):
        Calibration.fit([1.0, 1.0], [np.inf, 1.0])
    with pytest.raises(ValueError, match="unknown method"):
        Calibration.fit([1.0], [1.0], "mean")
    with pytest.raises(ValueError, match="needs a tolerance"):
        Calibration.fit([1.0], [1.0], target_tpr=0.9)
    with pytest.raises(ValueError, match="tolerance must be positive"):
        Calibration().threshold(0.0)
    with pytest.raises(ValueError, match="scale: expected a positive"):
        Calibration(scale=-1.0)
    with pytest.raises(ValueError, match="did you mean 'scale'"):
        Calibration.from_dict({"scal": 1.0})


@pytest.mark.parametrize("method", ["median_ratio", "ols_origin", "rms_ratio", "loglog", "conformal"])
@pytest.mark.parametrize("share", [0.2, 0.6])
def test_frames_whose_forces_vanish_by_symmetry_do_not_move_the_scale(method, share):
    """Their disagreement is round-off and their labels have noise: the ratio of the two is 1e10."""
    rng = np.random.default_rng(5)
    D = rng.uniform(0.05, 0.2, 100)
    e = 2.0 * D * rng.lognormal(0.0, 0.3, 100)
    n = round(100 * share / (1 - share))
    alone = Calibration.fit(D, e, method)
    found = Calibration.fit(np.append(D, rng.uniform(0.0, 1e-14, n)), np.append(e, rng.uniform(0.0, 1e-4, n)), method)
    assert found.calibrated
    assert found.predict_error(np.array([0.1]))[0] == pytest.approx(alone.predict_error(np.array([0.1]))[0], rel=1e-9)


@pytest.mark.parametrize("method", ["median_ratio", "loglog", "conformal"])
def test_frames_with_an_error_and_no_disagreement_are_counted_and_told(method):
    rng = np.random.default_rng(5)
    D = rng.uniform(0.05, 0.2, 100)
    e = 2.0 * D * rng.lognormal(0.0, 0.3, 100)
    found = Calibration.fit(np.append(D, np.zeros(25)), np.append(e, rng.uniform(0.1, 0.2, 25)), method)
    assert any("25 of 125 frames have an error but no disagreement" in note for note in found.warnings)
