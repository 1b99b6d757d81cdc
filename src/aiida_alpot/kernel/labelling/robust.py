"""Robust statistics: what most values say, whatever a few per cent of them are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from aiida_alpot.kernel.units import FloatArray

_TINY: Final = 1e-300
_FLOOR: Final = 1e-3
"""Share of the median below which values count as equal: logarithms need a floor."""
_HIGH: Final = 0.85
"""Quantile that tells how heavy a tail is, untouched by a twentieth of bad values."""
_GAUSSIAN: Final = 2.4
"""This quantile of the absolute value of a Gaussian over its median, with a twentieth of bad values."""
_RARE: Final = 2.5
"""Ratio of the standard scores of the 99.5 % and the 85 % quantile."""
_TUKEY: Final = 6.0
"""Cut of the bisquare in units of the median absolute deviation; about 4 standard deviations."""


def robust_fit(design: FloatArray, values: FloatArray, n_iterations: int = 30) -> FloatArray:
    """Return the coefficients of a linear model that up to a third of the values may disagree with.

    Least absolute deviations by iteratively reweighted least squares, then Tukey's bisquare. Of coefficients that the
    data do not determine the smallest are returned.

    :param design: shape (n, n_coefficients).
    :param values: shape (n,).
    :return: shape (n_coefficients,).
    """
    fit = np.linalg.lstsq(design, values, rcond=None)[0]
    for k in range(n_iterations):
        residual = np.abs(values - design @ fit)
        scale = max(float(np.median(residual)), 1e-12 * float(np.abs(values).max(initial=0.0)), _TINY)
        if k < n_iterations // 2:
            weight = 1.0 / np.maximum(residual, 1e-3 * scale)
        else:
            weight = np.clip(1.0 - (residual / (_TUKEY * scale)) ** 2, 0.0, None) ** 2
        root = np.sqrt(weight / weight.max())
        fit = np.linalg.lstsq(design * root[:, None], values * root, rcond=None)[0]
    return np.asarray(fit, dtype=np.float64)


def excess(residual: FloatArray, covariates: Sequence[FloatArray]) -> FloatArray:
    """Return how many times larger each residual is than is usual for its covariates.

    The usual size is ``exp(a + Σ_j b_j log c_j)`` with ``0 ≤ b_j ≤ 1``, fitted robustly to the logarithms and scaled
    so that the median of the result is 1: a frame that is hard to predict may be predicted badly.

    :param residual: shape (n,), not negative.
    :param covariates: numbers that grow with the residual to expect, each (n,), not negative.
    :return: shape (n,), without unit.
    """
    middle = float(np.median(residual))
    floor = max(_FLOOR * middle, _TINY)
    logs = np.log(residual + floor)
    columns = [np.log(c + _FLOOR * max(float(np.median(c)), _TINY)) for c in covariates]
    columns = [c - np.median(c) for c in columns if np.ptp(c) > 1e-9]
    expected = np.zeros_like(logs)
    if columns:
        slopes = robust_fit(np.column_stack([np.ones_like(logs), *columns]), logs)[1:]
        # a negative slope would call the easy frames hard
        expected = np.column_stack(columns) @ np.clip(slopes, 0.0, 1.0)
    relative = logs - expected
    return np.asarray(np.exp(relative - np.median(relative)), dtype=np.float64)


def tail_limit(ratios: FloatArray, factor: float) -> float:
    """Return the size above which a ratio with median 1 does not belong to the others.

    *factor* for the absolute value of a Gaussian, more for a distribution with heavier tails.

    :param ratios: of :func:`excess`.
    """
    return factor * max(1.0, float(np.quantile(ratios, _HIGH)) / _GAUSSIAN)


def lognormal_limit(ratios: FloatArray) -> float:
    """Return the size that one of two hundred ratios with median 1 exceeds if their logarithms are Gaussian.

    Errors of predictions far from the training data have such tails.

    :param ratios: of :func:`excess`.
    """
    return float(np.quantile(ratios, _HIGH) ** _RARE)
