"""How well a threshold tells the frames with a too large error: true positive rate and positive predictive value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from aiida_alpot.kernel.uncertainty._pairs import clean_pairs

if TYPE_CHECKING:
    from aiida_alpot.kernel.uncertainty.calibration import Calibration

GRID: Final = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Multiples of the tolerance at which rates are reported."""


def compute_tpr(
    disagreement: npt.ArrayLike, error: npt.ArrayLike, threshold: npt.ArrayLike, tolerance: float
) -> float | None:
    """Return TP/(TP + FN): the share of frames with ``ε > tolerance`` that have ``D > threshold``.

    :param threshold: one for all frames, or one for each, shape (n,).
    :return: None if no error is beyond the tolerance. Pairs with a NaN are left out.
    """
    D, e, known = clean_pairs(disagreement, error)
    flagged = np.broadcast_to(np.asarray(threshold), known.shape)[known] < D
    positive = e > tolerance
    return float(np.mean(flagged[positive])) if positive.any() else None


def compute_ppv(
    disagreement: npt.ArrayLike, error: npt.ArrayLike, threshold: npt.ArrayLike, tolerance: float
) -> float | None:
    """Return TP/(TP + FP): the share of frames with ``D > threshold`` that have ``ε > tolerance``.

    :param threshold: one for all frames, or one for each, shape (n,).
    :return: None if no frame is flagged. Pairs with a NaN are left out.
    """
    D, e, known = clean_pairs(disagreement, error)
    flagged = np.broadcast_to(np.asarray(threshold), known.shape)[known] < D
    return float(np.mean(e[flagged] > tolerance)) if flagged.any() else None


def report_rates(
    calibration: Calibration,
    disagreement: npt.ArrayLike,
    error: npt.ArrayLike,
    tolerance: float | None = None,
    categories: npt.ArrayLike | None = None,
) -> dict[str, Any]:
    """Return coverage and rates of a calibration as plain values; what is not defined is None.

    :param disagreement: D, shape (n,).
    :param error: ε, shape (n,).
    :param tolerance: largest error wanted; without it there are no rates.
    :param categories: of the frames, shape (n,); they give the coverage of each one too.
    :return: ``n_points`` and ``coverage``; with a tolerance ``tpr`` and ``ppv`` at it with the counts they come from,
        and ``grid``: the same at the multiples :data:`GRID` of the tolerance and the thresholds that belong to them.
    """
    _, _, known = clean_pairs(disagreement, error)
    report: dict[str, Any] = {
        "n_points": int(np.count_nonzero(known)),
        "coverage": calibration.coverage(disagreement, error, categories),
    }
    if categories is not None:
        report["coverage_by_category"] = calibration.coverage_by_category(disagreement, error, categories)
    if tolerance is None:
        return report
    grid = [_rates_at(calibration, disagreement, error, factor * tolerance, categories) for factor in GRID]
    return {**report, **grid[GRID.index(1.0)], "grid": grid}


def _rates_at(
    calibration: Calibration,
    disagreement: npt.ArrayLike,
    error: npt.ArrayLike,
    tolerance: float,
    categories: npt.ArrayLike | None,
) -> dict[str, Any]:
    D, e, known = clean_pairs(disagreement, error)
    limits = calibration.frame_thresholds(tolerance, np.full(len(known), "") if categories is None else categories)
    return {
        "tolerance": tolerance,
        "threshold": calibration.threshold(tolerance),
        "n_beyond": int(np.count_nonzero(e > tolerance)),
        "n_flagged": int(np.count_nonzero(limits[known] < D)),
        "tpr": compute_tpr(disagreement, error, limits, tolerance),
        "ppv": compute_ppv(disagreement, error, limits, tolerance),
    }
