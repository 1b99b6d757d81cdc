"""Turn a disagreement into an error estimate and a tolerance into a threshold, property by property.

A calibration is fitted on pairs (D, ε) of frames that were not trained on and not chosen for their disagreement: both
would bias the slope. See :mod:`aiida_alpot.kernel.uncertainty._scales` for what each method estimates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from aiida_alpot.kernel.settings import parse_settings, settings_to_dict
from aiida_alpot.kernel.uncertainty._scales import METHODS, Method, Power, bootstrap, fit_isotonic, fit_power
from aiida_alpot.kernel.units import FloatArray

FEW_POINTS: Final = 10
"""Below this number of pairs the scale is shrunk towards the previous one."""
FEWEST_POINTS: Final = 3
"""Below this number of pairs nothing is fitted."""
PRIOR_POINTS: Final = 10
"""Weight n0 of the previous scale in ``s = exp((n log s + n0 log s_prev)/(n + n0))``."""
ISOTONIC_POINTS: Final = 200
"""Fewest pairs an isotonic fit is worth; below it ``median_ratio`` is used, with a warning."""
COLLAPSED: Final = 1e-3
"""A committee has collapsed when its median disagreement is below this share of its median error."""


@dataclass(frozen=True)
class Calibration:
    """What turns the disagreement D of one property into an estimate of its error ε.

    The error is ``scale · pivot · (D/pivot)^exponent`` (exponent 1 for all methods but ``loglog``: ``scale · D``), or
    follows the knots of an isotonic fit. A frame is flagged when D is strictly larger than :meth:`threshold`.

    :param method: the method that was used, see :data:`~._scales.METHODS`.
    :param scale: ε/D at the pivot.
    :param exponent: power of D, 1 for a proportional error.
    :param pivot: a typical disagreement (the median), in the unit of the property.
    :param knots: isotonic fit, pairs (D, ε), both non-decreasing; empty for the other methods.
    :param interval: 95 % bootstrap interval of the fitted scale (before it is shrunk), None if it was not computed.
    :param threshold_factor: the threshold over the one that follows from the fit; other than 1 after ``target_tpr``.
    :param largest_error: largest ε of the fit; a tolerance above it is an extrapolation.
    :param n_points: pairs used.
    :param n_dropped: pairs left out because D or ε was NaN.
    :param calibrated: False if there were too few pairs for a fit and none from before.
    :param warnings: what a user should know before trusting the numbers.
    :raises ValueError: if a number is out of range.
    """

    method: Method = "median_ratio"
    scale: float = 1.0
    exponent: float = 1.0
    pivot: float = 1.0
    knots: tuple[tuple[float, float], ...] = ()
    interval: tuple[float, float] | None = None
    threshold_factor: float = 1.0
    largest_error: float | None = None
    n_points: int = 0
    n_dropped: int = 0
    calibrated: bool = False
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method: unknown {self.method!r}; expected one of {', '.join(METHODS)}")
        for name in ("scale", "exponent", "pivot", "threshold_factor"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0.0):
                raise ValueError(f"{name}: expected a positive finite number, got {value!r}")
        if self.n_points < 0 or self.n_dropped < 0:
            raise ValueError(f"n_points, n_dropped: expected counts, got {self.n_points} and {self.n_dropped}")
        if np.any(np.diff(self._knots, axis=0) < 0.0):
            raise ValueError("knots: expected non-decreasing disagreements and errors")

    @classmethod
    def fit(
        cls,
        disagreement: npt.ArrayLike,
        error: npt.ArrayLike,
        method: Method = "median_ratio",
        tolerance: float | None = None,
        previous: Calibration | None = None,
        seed: int = 0,
        target_tpr: float | None = None,
        confidence: float = 0.9,
        n_bootstrap: int = 500,
    ) -> Calibration:
        """Fit a calibration to pairs of disagreement and error.

        Pairs with a NaN are dropped and counted. With fewer than :data:`FEW_POINTS` pairs the scale is shrunk
        towards the one of *previous* (1 without it), with fewer than :data:`FEWEST_POINTS` *previous* is returned.

        :param disagreement: D, shape (n,), not negative.
        :param error: ε in the same unit, shape (n,), not negative.
        :param method: see :data:`~._scales.METHODS`.
        :param tolerance: largest error that is acceptable; only for warnings and *target_tpr*.
        :param previous: the calibration of the last iteration.
        :param seed: of the bootstrap.
        :param target_tpr: choose the threshold at *tolerance* such that this share of the frames with a larger error
            is flagged; thresholds at other tolerances change by the same factor.
        :param confidence: share of errors below the prediction, ``conformal`` only.
        :param n_bootstrap: resamples for the interval, 0 for none.
        :raises ValueError: if the shapes differ, a value is negative or infinite, or an option is out of range.
        """
        _check_options(method, tolerance, target_tpr, confidence)
        D, e, n_dropped = _clean_pairs(disagreement, error)
        notes = _diagnose(D, e, tolerance)
        if len(D) < FEWEST_POINTS:
            return _uncalibrated(method, previous, len(D), n_dropped, notes)
        if method == "isotonic" and len(D) < ISOTONIC_POINTS:
            notes.append(f"an isotonic fit needs {ISOTONIC_POINTS} points, got {len(D)}: median_ratio is used")
            method = "median_ratio"
        power, fit_notes = fit_power(method, D, e, confidence)
        notes += fit_notes
        if power is None:
            notes.append("no finite positive scale: all disagreements or all errors are zero")
            return _uncalibrated(method, previous, len(D), n_dropped, notes)
        knots = fit_isotonic(D, e) if method == "isotonic" else ()
        result = cls(
            method=method,
            scale=power.scale,
            exponent=power.exponent,
            pivot=power.pivot,
            knots=knots,
            interval=bootstrap(method, D, e, confidence, power.pivot, n_bootstrap, seed),
            largest_error=float(e.max()),
            n_points=len(D),
            n_dropped=n_dropped,
            calibrated=True,
        )
        result = _shrink(result, power, previous, notes)
        result = _reach_tpr(result, D, e, tolerance, target_tpr, notes)
        return replace(result, warnings=tuple(notes))

    @property
    def _knots(self) -> FloatArray:
        return np.array([(0.0, 0.0), *self.knots], dtype=np.float64)

    def threshold(self, tolerance: float) -> float:
        """Return the disagreement above which an error beyond *tolerance* is expected.

        It is the disagreement at which :meth:`predict_error` reaches the tolerance, times ``threshold_factor``. For
        ``ols_origin`` (D = a·ε) this is ``a · tolerance``, as in Bidoggia et al. 2026.

        :param tolerance: positive, in the unit of the property.
        :raises ValueError: if the tolerance is not positive and finite.
        """
        _check_tolerance(tolerance)
        if self.knots:
            return self.threshold_factor * self._isotonic_threshold(tolerance)
        ratio = tolerance / (self.scale * self.pivot)
        return float(self.threshold_factor * self.pivot * ratio ** (1.0 / self.exponent))

    def predict_error(self, disagreement: npt.ArrayLike) -> FloatArray:
        """Return the error expected at a disagreement; ``D/a`` for ``ols_origin``. NaN stays NaN.

        Beyond the last knot of an isotonic fit the error grows in proportion to D.

        :param disagreement: any shape, not negative.
        """
        D = np.asarray(disagreement, dtype=np.float64)
        if not self.knots:
            return np.asarray(self.scale * self.pivot * (D / self.pivot) ** self.exponent, dtype=np.float64)
        x, y = self._knots.T
        return np.asarray(np.where(x[-1] < D, y[-1] * D / x[-1], np.interp(D, x, y)), dtype=np.float64)

    def tpr(self, disagreement: npt.ArrayLike, error: npt.ArrayLike, tolerance: float) -> float | None:
        """Return the true positive rate of the threshold at *tolerance*, see :func:`compute_tpr`."""
        return compute_tpr(disagreement, error, self.threshold(tolerance), tolerance)

    def ppv(self, disagreement: npt.ArrayLike, error: npt.ArrayLike, tolerance: float) -> float | None:
        """Return the positive predictive value of the threshold at *tolerance*, see :func:`compute_ppv`."""
        return compute_ppv(disagreement, error, self.threshold(tolerance), tolerance)

    def coverage(self, disagreement: npt.ArrayLike, error: npt.ArrayLike) -> float | None:
        """Return the share of pairs whose error is at most the predicted one; None without a pair.

        About 0.5 for ``median_ratio``, at least the confidence for ``conformal`` on exchangeable frames.
        """
        D, e, _ = _clean_pairs(disagreement, error)
        return float(np.mean(e <= self.predict_error(D))) if len(D) else None

    def to_dict(self) -> dict[str, Any]:
        """Return a mapping of plain values that survives JSON and :meth:`from_dict`."""
        return settings_to_dict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """Return the calibration that :meth:`to_dict` described.

        :raises ValueError: if a key is unknown or a value does not fit.
        """
        return parse_settings(cls, values, "calibration")

    def _isotonic_threshold(self, tolerance: float) -> float:
        x, y = self._knots.T
        above = int(np.searchsorted(y, tolerance, side="right"))
        if above == len(y):
            return float(x[-1] * tolerance / y[-1])
        share = (tolerance - y[above - 1]) / (y[above] - y[above - 1])
        return float(x[above - 1] + share * (x[above] - x[above - 1]))


def compute_tpr(disagreement: npt.ArrayLike, error: npt.ArrayLike, threshold: float, tolerance: float) -> float | None:
    """Return TP/(TP + FN): the share of frames with ``ε > tolerance`` that have ``D > threshold``.

    :return: None if no error is beyond the tolerance. Pairs with a NaN are left out.
    """
    D, e, _ = _clean_pairs(disagreement, error)
    positive = e > tolerance
    return float(np.mean(D[positive] > threshold)) if positive.any() else None


def compute_ppv(disagreement: npt.ArrayLike, error: npt.ArrayLike, threshold: float, tolerance: float) -> float | None:
    """Return TP/(TP + FP): the share of frames with ``D > threshold`` that have ``ε > tolerance``.

    :return: None if no frame is flagged. Pairs with a NaN are left out.
    """
    D, e, _ = _clean_pairs(disagreement, error)
    flagged = threshold < D
    return float(np.mean(e[flagged] > tolerance)) if flagged.any() else None


def _check_tolerance(tolerance: float) -> None:
    if not (np.isfinite(tolerance) and tolerance > 0.0):
        raise ValueError(f"a tolerance must be positive and finite, got {tolerance!r}")


def _check_options(method: str, tolerance: float | None, target_tpr: float | None, confidence: float) -> None:
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; expected one of {', '.join(METHODS)}")
    if tolerance is not None:
        _check_tolerance(tolerance)
    if target_tpr is not None and tolerance is None:
        raise ValueError("target_tpr needs a tolerance: it says which errors count as positive")
    if target_tpr is not None and not 0.0 < target_tpr <= 1.0:
        raise ValueError(f"target_tpr must be in (0, 1], got {target_tpr!r}")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must be in (0, 1), got {confidence!r}")


def _clean_pairs(disagreement: npt.ArrayLike, error: npt.ArrayLike) -> tuple[FloatArray, FloatArray, int]:
    """Return the pairs without a NaN, and how many were dropped."""
    D = np.asarray(disagreement, dtype=np.float64)
    e = np.asarray(error, dtype=np.float64)
    if D.ndim != 1 or D.shape != e.shape:
        raise ValueError(f"expected two 1-d arrays of one length, got the shapes {D.shape} and {e.shape}")
    for name, values in (("disagreement", D), ("error", e)):
        bad = np.flatnonzero(np.isinf(values) | (values < 0.0))
        if bad.size:
            raise ValueError(f"{name}[{int(bad[0])}] is {values[bad[0]]}; expected a finite number, not negative")
    keep = ~(np.isnan(D) | np.isnan(e))
    return D[keep], e[keep], int(np.count_nonzero(~keep))


def _diagnose(D: FloatArray, e: FloatArray, tolerance: float | None) -> list[str]:
    """Return warnings that do not depend on the method."""
    notes: list[str] = []
    if len(D) < FEW_POINTS:
        notes.append(f"only {len(D)} points: the scale is shrunk towards the previous one")
    if len(D) and np.median(D) < COLLAPSED * np.median(e):
        notes.append(
            f"collapsed committee: the median disagreement {np.median(D):.3g} is below {COLLAPSED:g} of the median "
            f"error {np.median(e):.3g}; are the members clones?"
        )
    if len(D) and tolerance is not None and tolerance > e.max():
        notes.append(f"extrapolated: the tolerance {tolerance:.3g} is beyond the largest error {e.max():.3g}")
    if len(D) and tolerance is not None and tolerance < e.min():
        notes.append(f"every error is beyond the tolerance {tolerance:.3g} (smallest {e.min():.3g})")
    return notes


def _uncalibrated(
    method: Method, previous: Calibration | None, n_points: int, n_dropped: int, notes: list[str]
) -> Calibration:
    """Return *previous* as it was, or the calibration that takes the disagreement for the error."""
    if previous is not None:
        notes.append("the previous calibration is kept")
        return replace(previous, warnings=tuple(notes), n_dropped=n_dropped)
    notes.append("uncalibrated: the disagreement is taken for the error")
    return Calibration(method=method, n_points=n_points, n_dropped=n_dropped, warnings=tuple(notes))


def _shrink(result: Calibration, power: Power, previous: Calibration | None, notes: list[str]) -> Calibration:
    """Return *result* with its scale between the fitted and the previous one if it rests on few points."""
    n = result.n_points
    if n >= FEW_POINTS:
        return result
    prior = 1.0 if previous is None else float(previous.predict_error(power.pivot)) / power.pivot or previous.scale
    logarithm = (n * np.log(power.scale) + PRIOR_POINTS * np.log(prior)) / (n + PRIOR_POINTS)
    scale = float(np.exp(logarithm))
    notes.append(f"scale {power.scale:.3g} of {n} points, shrunk to {scale:.3g} (previous {prior:.3g})")
    return replace(result, scale=scale)


def _reach_tpr(
    result: Calibration,
    D: FloatArray,
    e: FloatArray,
    tolerance: float | None,
    target_tpr: float | None,
    notes: list[str],
) -> Calibration:
    """Return *result* with the largest threshold that flags the wanted share of the positives."""
    if target_tpr is None or tolerance is None:
        return result
    positives = np.sort(D[e > tolerance])[::-1]
    if not len(positives):
        notes.append("target_tpr has no effect: no error is beyond the tolerance")
        return result
    # the product may lie above an integer by roundoff only
    wanted = int(np.ceil(target_tpr * len(positives) - 1e-9))
    smallest = float(positives[wanted - 1])
    if smallest == 0.0:
        notes.append("target_tpr is out of reach: a frame with a large error has no disagreement at all")
        return result
    # flagged means strictly above: the threshold lies just below the last frame that has to be flagged
    threshold = smallest * (1.0 - 1e-12)
    return replace(result, threshold_factor=threshold / result.threshold(tolerance))
