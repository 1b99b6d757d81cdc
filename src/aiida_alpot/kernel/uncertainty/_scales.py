"""Estimators of the ratio between error and disagreement, one per calibration method.

``median_ratio``
    ``s = median(ε/D)``. Robust against heavy tails and outliers, the default.
``ols_origin``
    Least squares of D on ε through the origin, ``a = Σ Dε / Σ ε²``; threshold ``a·tolerance``, error ``D/a``
    (Bidoggia et al. 2026). ``1/a`` is not the slope of ε on D: noise in ε attenuates a (0.47 instead of 0.6 for a
    half-normal error), so that it favours recall.
``rms_ratio``
    ``s = sqrt(Σ ε² / Σ D²)``. The right one for a Gaussian error, the worst one with outliers.
``loglog``
    ``log ε`` as a line in ``log D``, slope within [0.5, 1.5].
``isotonic``
    ε as any non-decreasing function of D (pool adjacent violators); needs many points.
``conformal``
    The ``ceil((n + 1)·confidence)``-th smallest ε/D: at least this share of new errors is below the prediction if the
    frames are exchangeable. High recall, low precision.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
from scipy.optimize import isotonic_regression
from scipy.special import ndtr, stdtrit

from aiida_alpot.kernel.seeds import derive_seed
from aiida_alpot.kernel.units import FloatArray

Method = Literal["median_ratio", "ols_origin", "rms_ratio", "loglog", "isotonic", "conformal"]

METHODS: Final[tuple[str, ...]] = get_args(Method)
"""Names of the methods."""
EXPONENTS: Final = (0.5, 1.5)
"""Range the exponent of ``loglog`` is clipped to."""
ROUND_OFF: Final = 1e-4
"""Share of the 90 % quantile of the disagreements below which one is round-off, as where forces vanish by symmetry: the
ratio of an error to it says nothing of other frames."""
NO_ERROR: Final = 1e-3
"""Share of the 90 % quantile of the errors below which one is none: with a disagreement that is round-off such a frame
says nothing."""
LEVEL: Final = 0.95
"""Level of the bootstrap interval."""


@dataclass(frozen=True)
class Power:
    """The law ``ε = scale · pivot · (D/pivot)^exponent``."""

    scale: float
    exponent: float
    pivot: float


def fit_power(method: Method, D: FloatArray, e: FloatArray, confidence: float) -> tuple[Power | None, list[str]]:
    """Return the power law of a method and warnings; None if it has no finite positive scale.

    :param D: disagreements, shape (n,), n > 0, not negative.
    :param e: errors, shape (n,), not negative.
    :param confidence: see ``conformal``.
    """
    notes: list[str] = []
    pivot = float(np.median(D)) or float(D.max())
    if pivot == 0.0 or e.max() == 0.0:
        return None, notes
    scale, exponent = _estimate(method, D, e, confidence, pivot)
    used = _without_round_off(D, e)[0]
    without = int(np.count_nonzero(used == 0.0))
    if method in ("conformal", "median_ratio", "loglog") and without:
        notes.append(f"{without} of {len(D)} frames have an error but no disagreement: no scale covers them")
    if method == "conformal" and _conformal_rank(len(used), confidence) > len(used):
        notes.append(f"{len(used)} points are too few for a confidence of {confidence:g}: the largest ratio is used")
    if not (np.isfinite(scale) and scale > 0.0):
        return None, notes
    return Power(scale, exponent, pivot), notes


def fit_isotonic(D: FloatArray, e: FloatArray) -> tuple[tuple[float, float], ...]:
    """Return the ends of the steps of the non-decreasing least-squares fit of *e* to *D*.

    Frames without disagreement are left out: the fit is taken to start at the origin. There are no knots if no other
    frame has an error.
    """
    if not np.any(D > 0.0):
        return ()
    values, inverse, counts = np.unique(D[D > 0.0], return_inverse=True, return_counts=True)
    means = np.bincount(inverse, weights=e[D > 0.0]) / counts
    fitted = isotonic_regression(means, weights=counts).x
    steps = np.diff(fitted) != 0.0
    ends = np.concatenate([[True], steps]) | np.concatenate([steps, [True]])
    knots = tuple((float(x), float(y)) for x, y in zip(values[ends], fitted[ends], strict=True))
    return knots if knots and knots[-1][1] > 0.0 else ()


def bootstrap(
    method: Method, D: FloatArray, e: FloatArray, confidence: float, pivot: float, n_resamples: int, seed: int
) -> tuple[float, float] | None:
    """Return the interval of the scale at *pivot*; None if fewer than two resamples have one.

    It is the percentile interval expanded as a t interval is (Hesterberg 2015, Sec. 5.4): resamples of n points vary
    less than samples do by sqrt((n − 1)/n), and the quantiles of few points are those of Student's t.

    An isotonic fit has no scale of its own; its interval is the one of ``median_ratio``.
    """
    generator = np.random.default_rng(derive_seed(seed, "calibration/bootstrap"))
    scales = np.empty(n_resamples)
    for k in range(n_resamples):
        draw = generator.integers(0, len(D), len(D))
        scales[k] = _estimate(method, D[draw], e[draw], confidence, pivot)[0]
    scales = scales[np.isfinite(scales)]
    if len(scales) < 2:
        return None
    tail = float(ndtr(-np.sqrt(len(D) / (len(D) - 1)) * stdtrit(len(D) - 1, 0.5 + LEVEL / 2.0)))
    low, high = np.quantile(scales, [tail, 1.0 - tail])
    return float(low), float(high)


def _estimate(method: Method, D: FloatArray, e: FloatArray, confidence: float, pivot: float) -> tuple[float, float]:
    """Return scale and exponent; NaN or infinite where the data do not define it."""
    D, e = _without_round_off(D, e)
    if method == "ols_origin":
        return _divide(float(e @ e), float(D @ e)), 1.0
    if method == "rms_ratio":
        return float(np.sqrt(_divide(float(e @ e), float(D @ D)))), 1.0
    if method == "loglog":
        return _loglog(D, e, pivot)
    with np.errstate(over="ignore"):
        ratios = np.divide(e, D, out=np.full(len(D), np.inf), where=D > 0.0)
    ratios.sort()
    n_finite = int(np.count_nonzero(np.isfinite(ratios)))
    if not n_finite:
        return np.nan, 1.0
    if method == "conformal":
        return float(ratios[min(_conformal_rank(len(ratios), confidence), n_finite) - 1]), 1.0
    # the mean of the two middle values would be infinite if one of them is
    middle = ratios[len(ratios) // 2 - 1 + len(ratios) % 2 : len(ratios) // 2 + 1]
    return float(middle.mean()), 1.0


def _without_round_off(D: FloatArray, e: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return disagreements and errors with zero in place of a disagreement that is round-off.

    Frames without error are left out with it: where forces vanish by symmetry there is nothing to be learnt.
    """
    D = np.where(ROUND_OFF * np.quantile(D, 0.9) > D, 0.0, D)
    use = (D > 0.0) | (e > NO_ERROR * np.quantile(e, 0.9))
    return D[use], e[use]


def _loglog(D: FloatArray, e: FloatArray, pivot: float) -> tuple[float, float]:
    use = (D > 0.0) & (e > 0.0)
    if not use.any():
        return np.nan, 1.0
    x, y = np.log(D[use] / pivot), np.log(e[use] / pivot)
    variance = float(np.var(x))
    slope = float(np.mean((x - x.mean()) * (y - y.mean()))) / variance if variance > 0.0 else 1.0
    slope = float(np.clip(slope, *EXPONENTS))
    return float(np.exp(y.mean() - slope * x.mean())), slope


def _conformal_rank(n: int, confidence: float) -> int:
    return int(np.ceil((n + 1) * confidence - 1e-9))


def _divide(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator > 0.0 else np.inf
