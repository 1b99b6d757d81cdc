"""What is reported of a threshold, on cases that can be counted by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from aiida_alpot.kernel.uncertainty.calibration import Calibration
from aiida_alpot.kernel.uncertainty.rates import GRID, compute_ppv, compute_tpr, report_rates

D, E = [1.0, 2.0, 3.0, 4.0], [2.0, 1.0, 6.0, 8.0]
TWICE = Calibration(scale=2.0, calibrated=True, n_points=4)


def test_rates_at_the_tolerance_are_counted():
    report = report_rates(TWICE, D, E, 4.0)
    expected = {"tolerance": 4.0, "threshold": 2.0, "n_beyond": 2, "n_flagged": 2, "tpr": 1.0, "ppv": 1.0}
    assert {name: report[name] for name in expected} == expected
    assert (report["n_points"], report["coverage"]) == (4, 1.0)
    json.dumps(report, allow_nan=False)


def test_the_grid_moves_tolerance_and_threshold_together():
    grid = report_rates(TWICE, D, E, 2.0)["grid"]
    assert [row["tolerance"] for row in grid] == [0.5, 1.0, 2.0, 4.0, 8.0]
    assert [row["threshold"] for row in grid] == [0.25, 0.5, 1.0, 2.0, 4.0]
    assert [row["tpr"] for row in grid] == [1.0, 1.0, 1.0, 1.0, None]
    assert [row["ppv"] for row in grid] == [1.0, 3 / 4, 2 / 3, 1.0, None]
    assert 1.0 in GRID


def test_rates_agree_with_the_functions_they_are_named_after():
    rng = np.random.default_rng(0)
    spread = rng.lognormal(size=500)
    error = np.abs(rng.normal(0.0, 2.0 * spread))
    for row in report_rates(TWICE, spread, error, 1.5)["grid"]:
        assert row["tpr"] == compute_tpr(spread, error, row["threshold"], row["tolerance"])
        assert row["ppv"] == compute_ppv(spread, error, row["threshold"], row["tolerance"])


def test_a_threshold_for_each_frame_is_that_of_the_frame_when_pairs_are_dropped():
    spread, limits = [np.nan, 1.0, 1.0], [0.0, 0.5, 2.0]
    assert compute_tpr(spread, [9.0, 9.0, 9.0], limits, 1.0) == 0.5
    assert compute_ppv(spread, [9.0, 0.0, 9.0], limits, 1.0) == 0.0


def test_categories_have_their_own_coverage_and_thresholds():
    calibration = Calibration("conformal", scale=2.0, categories={"hard": 4.0}, calibrated=True)
    report = report_rates(calibration, [1.0, 1.0, 1.0], [1.0, 3.0, 5.0], 3.5, ["easy", "hard", "hard"])
    assert report["coverage_by_category"] == {"easy": 1.0, "hard": 0.5}
    assert report["coverage"] == pytest.approx(2 / 3)
    assert (report["n_flagged"], report["tpr"], report["ppv"]) == (2, 1.0, 0.5)


def test_without_a_tolerance_or_a_pair_there_are_no_rates():
    assert report_rates(TWICE, D, E) == {"n_points": 4, "coverage": 1.0}
    report = report_rates(TWICE, [np.nan], [1.0], 1.0)
    assert (report["n_points"], report["coverage"], report["tpr"], report["ppv"]) == (0, None, None, None)
