"""Scales of few points: how far they are drawn to what was known before, and what is said of it."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_alpot.kernel.uncertainty.calibration import Calibration

PREVIOUS = Calibration(scale=2.0, calibrated=True, n_points=100)


def fit(n, scale=8.0, method="median_ratio", **options):
    return Calibration.fit(np.ones(n), np.full(n, scale), method, n_bootstrap=0, **options)


def between(n, fitted, prior):
    return np.exp((n * np.log(fitted) + 10 * np.log(prior)) / (n + 10))


@pytest.mark.parametrize("n", [3, 9, 10, 30, 49])
def test_below_fifty_points_the_scale_is_drawn_towards_the_previous_one(n):
    result = fit(n, previous=PREVIOUS)
    assert result.scale == pytest.approx(between(n, 8.0, 2.0))
    assert result.warnings == (
        f"scale 8 of {n} points, fewer than 50: shrunk to {result.scale:.3g}, towards 2 of the previous calibration",
    )


@pytest.mark.parametrize("previous", [None, Calibration()])
def test_below_ten_points_without_a_previous_fit_it_is_drawn_towards_one(previous):
    result = fit(9, previous=previous)
    assert result.scale == pytest.approx(between(9, 8.0, 1.0))
    assert any("fewer than 10: shrunk to" in note and "towards 1 (" in note for note in result.warnings)


@pytest.mark.parametrize(("n", "previous"), [(50, PREVIOUS), (50, None), (10, None), (30, None), (30, Calibration())])
def test_enough_points_speak_for_themselves(n, previous):
    assert fit(n, previous=previous).scale == 8.0


@pytest.mark.parametrize("previous", [None, Calibration()])
@pytest.mark.parametrize("n", [10, 30, 49])
def test_below_fifty_points_a_scale_without_a_previous_one_is_called_uncertain(n, previous):
    result = fit(n, previous=previous)
    assert result.warnings == (
        f"scale 8 of {n} points, fewer than 50, and there is no previous calibration to draw it towards: "
        "it is uncertain",
    )
    assert fit(50, previous=previous).warnings == ()


def test_the_warning_of_an_uncertain_scale_tells_its_interval():
    rng = np.random.default_rng(1)
    D = rng.lognormal(size=20)
    result = Calibration.fit(D, D * rng.lognormal(1.0, 0.5, 20))
    low, high = result.interval
    assert any(note.endswith(f"it is uncertain, 95 % interval {low:.3g} to {high:.3g}") for note in result.warnings)
    assert low < result.scale < high


def test_a_conformal_scale_is_only_enlarged():
    kept = fit(30, method="conformal", previous=PREVIOUS)
    assert kept.scale == 8.0
    assert any("not shrunk towards 2" in note for note in kept.warnings)
    assert fit(9, method="conformal").scale == 8.0
    assert fit(30, 0.5, "conformal", previous=PREVIOUS).scale == pytest.approx(between(30, 0.5, 2.0))


def test_the_scale_of_a_category_of_few_points_is_not_below_that_of_all():
    labels = ["rare"] * 5 + ["usual"] * 20
    result = fit(25, 0.5, "conformal", previous=PREVIOUS, categories=labels)
    assert result.categories == {"usual": 0.5}
    assert result.threshold(1.0, "rare") == result.threshold(1.0) == pytest.approx(1 / between(25, 0.5, 2.0))


def test_a_power_law_is_compared_at_its_pivot():
    D = np.linspace(1.0, 3.0, 21)
    previous = Calibration("loglog", scale=2.0, exponent=0.5, pivot=8.0, calibrated=True)
    result = Calibration.fit(D, 8.0 * D, "loglog", previous=previous, n_bootstrap=0)
    # at D = 2 the previous error is 2 · 8 · sqrt(2/8) = 8, four times the disagreement
    assert result.scale == pytest.approx(between(21, 8.0, 4.0))
    assert result.predict_error(2.0) == pytest.approx(2.0 * result.scale)
