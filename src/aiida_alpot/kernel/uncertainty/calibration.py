"""Turn a disagreement into an error estimate and a tolerance into a threshold, property by property.

A calibration is fitted on pairs (D, ε) of frames that were not trained on and not chosen for their disagreement: both
would bias the slope. See :mod:`aiida_alpot.kernel.uncertainty._scales` for what each method estimates,
:mod:`~aiida_alpot.kernel.uncertainty.categories` for frames of several kinds and
:mod:`~aiida_alpot.kernel.uncertainty._shrinkage` for few frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from aiida_alpot.kernel.settings import parse_settings, settings_to_dict
from aiida_alpot.kernel.uncertainty._pairs import clean_pairs
from aiida_alpot.kernel.uncertainty._scales import METHODS, Method, Power, bootstrap, fit_isotonic, fit_power
from aiida_alpot.kernel.uncertainty._shrinkage import shrink
from aiida_alpot.kernel.uncertainty.categories import StrArray, as_labels, fit_categories
from aiida_alpot.kernel.uncertainty.rates import compute_ppv, compute_tpr
from aiida_alpot.kernel.units import BoolArray, FloatArray

FEWEST_POINTS: Final = 3
"""Below this number of pairs nothing is fitted."""
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
    :param categories: ``conformal`` only: the scale of each category of frames that has one; all others, and frames
        without a category, have *scale*.
    :param interval: 95 % bootstrap interval of the fitted scale (before it is shrunk), expanded for few pairs; None if
        it was not computed.
    :param threshold_factor: the threshold over the one that follows from the fit; other than 1 after ``target_tpr``.
    :param largest_error: largest ε of the fit; a tolerance above it is an extrapolation.
    :param largest_disagreement: largest D of the fit; beyond it an error is an extrapolation.
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
    categories: Mapping[str, float] = field(default_factory=dict)
    interval: tuple[float, float] | None = None
    threshold_factor: float = 1.0
    largest_error: float | None = None
    largest_disagreement: float | None = None
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
        if self.categories and self.method != "conformal":
            raise ValueError(f"categories: only a conformal calibration has them, this one is {self.method!r}")
        for name, value in self.categories.items():
            if not (np.isfinite(value) and value > 0.0):
                raise ValueError(f"categories: the scale of {name!r} must be positive and finite, got {value!r}")
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
        categories: npt.ArrayLike | None = None,
    ) -> Calibration:
        """Fit a calibration to pairs of disagreement and error.

        Pairs with a NaN are dropped and counted. With few pairs the scale is shrunk, see
        :mod:`~aiida_alpot.kernel.uncertainty._shrinkage`; with fewer than :data:`FEWEST_POINTS` *previous* is returned.

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
        :param categories: category of each frame, shape (n,), empty for none; each gets a scale of its own, see
            :func:`~.categories.fit_categories`. ``conformal`` only.
        :raises ValueError: if the shapes differ, a value is negative or infinite, or an option is out of range.
        """
        _check_options(method, tolerance, target_tpr, confidence, categories is not None)
        D, e, known = clean_pairs(disagreement, error)
        labels = None if categories is None else as_labels(categories, len(known))[known]
        n_dropped = int(np.count_nonzero(~known))
        notes = _diagnose(D, e, tolerance)
        if len(D) < FEWEST_POINTS:
            notes.append(f"only {len(D)} points, a fit needs {FEWEST_POINTS}")
            return _uncalibrated(method, previous, len(D), n_dropped, notes)
        if method == "isotonic" and len(D) < ISOTONIC_POINTS:
            notes.append(f"an isotonic fit needs {ISOTONIC_POINTS} points, got {len(D)}: median_ratio is used")
            method = "median_ratio"
        power, fit_notes = fit_power(method, D, e, confidence)
        notes += fit_notes
        if power is None:
            notes.append("no finite positive scale: all disagreements or all errors are zero")
            return _uncalibrated(method, previous, len(D), n_dropped, notes)
        interval = bootstrap(method, D, e, confidence, power.pivot, n_bootstrap, seed)
        scale, shrink_notes = shrink(method, power, len(D), previous, interval)
        scales, category_notes = ({}, []) if labels is None else fit_categories(D, e, labels, confidence, scale)
        result = _of_power(method, replace(power, scale=scale), D, e)
        result = replace(result, categories=scales, interval=interval, n_dropped=n_dropped)
        factor, tpr_notes = _reach_tpr(result, D, e, labels, tolerance, target_tpr)
        notes += shrink_notes + category_notes + tpr_notes
        return replace(result, threshold_factor=factor, warnings=tuple(notes))

    @property
    def _knots(self) -> FloatArray:
        return np.array([(0.0, 0.0), *self.knots], dtype=np.float64)

    def threshold(self, tolerance: float, category: str = "") -> float:
        """Return the disagreement above which an error beyond *tolerance* is expected.

        It is the disagreement at which :meth:`predict_error` reaches the tolerance, times ``threshold_factor``. For
        ``ols_origin`` (D = a·ε) this is ``a · tolerance``, as in Bidoggia et al. 2026.

        :param tolerance: positive, in the unit of the property.
        :param category: of the frame; one that is not known has the pooled scale.
        :raises ValueError: if the tolerance is not positive and finite.
        """
        _check_tolerance(tolerance)
        if self.knots:
            return self.threshold_factor * self._isotonic_threshold(tolerance)
        ratio = tolerance / (self.categories.get(category, self.scale) * self.pivot)
        return float(self.threshold_factor * self.pivot * ratio ** (1.0 / self.exponent))

    def frame_thresholds(self, tolerance: float, categories: npt.ArrayLike) -> FloatArray:
        """Return the threshold of each frame by its category, shape (n_frames,).

        :param tolerance: see :meth:`threshold`.
        :param categories: shape (n_frames,).
        """
        names, inverse = np.unique(as_labels(categories, np.size(categories)), return_inverse=True)
        thresholds = np.array([self.threshold(tolerance, str(name)) for name in names], dtype=np.float64)
        return np.asarray(thresholds[inverse], dtype=np.float64)

    def predict_error(self, disagreement: npt.ArrayLike, categories: npt.ArrayLike | None = None) -> FloatArray:
        """Return the error expected at a disagreement; ``D/a`` for ``ols_origin``. NaN stays NaN.

        Beyond the last knot of an isotonic fit the error grows in proportion to D.

        :param disagreement: any shape, not negative.
        :param categories: of the frames, shape (n_frames,) like the disagreement; the pooled scale is used for those
            that are not known, and for all without it.
        """
        D = np.asarray(disagreement, dtype=np.float64)
        if not self.knots:
            scale = self.scale if categories is None else self._frame_scales(as_labels(categories, len(D)))
            return np.asarray(scale * self.pivot * (D / self.pivot) ** self.exponent, dtype=np.float64)
        x, y = self._knots.T
        return np.asarray(np.where(x[-1] < D, y[-1] * D / x[-1], np.interp(D, x, y)), dtype=np.float64)

    def extrapolates(self, disagreement: npt.ArrayLike) -> BoolArray:
        """Return where a disagreement is beyond the largest of the fit, the shape given; nowhere if it is not known."""
        D = np.asarray(disagreement, dtype=np.float64)
        return np.asarray((np.inf if self.largest_disagreement is None else self.largest_disagreement) < D)

    def tpr(
        self,
        disagreement: npt.ArrayLike,
        error: npt.ArrayLike,
        tolerance: float,
        categories: npt.ArrayLike | None = None,
    ) -> float | None:
        """Return the true positive rate of the threshold at *tolerance*, see :func:`~.rates.compute_tpr`."""
        return compute_tpr(disagreement, error, self._limits(tolerance, categories), tolerance)

    def ppv(
        self,
        disagreement: npt.ArrayLike,
        error: npt.ArrayLike,
        tolerance: float,
        categories: npt.ArrayLike | None = None,
    ) -> float | None:
        """Return the positive predictive value of the threshold at *tolerance*, see :func:`~.rates.compute_ppv`."""
        return compute_ppv(disagreement, error, self._limits(tolerance, categories), tolerance)

    def coverage(
        self, disagreement: npt.ArrayLike, error: npt.ArrayLike, categories: npt.ArrayLike | None = None
    ) -> float | None:
        """Return the share of pairs whose error is at most the predicted one; None without a pair.

        About 0.5 for ``median_ratio``, at least the confidence for ``conformal`` on exchangeable frames.
        """
        D, e, known = clean_pairs(disagreement, error)
        labels = None if categories is None else as_labels(categories, len(known))[known]
        return float(np.mean(e <= self.predict_error(D, labels))) if len(D) else None

    def coverage_by_category(
        self, disagreement: npt.ArrayLike, error: npt.ArrayLike, categories: npt.ArrayLike
    ) -> dict[str, float]:
        """Return the coverage of the pairs of each category, also of those without a scale of their own."""
        D, e, known = clean_pairs(disagreement, error)
        labels = as_labels(categories, len(known))[known]
        covered = e <= self.predict_error(D, labels)
        return {str(name): float(np.mean(covered[labels == name])) for name in np.unique(labels)}

    def to_dict(self) -> dict[str, Any]:
        """Return a mapping of plain values that survives JSON and :meth:`from_dict`."""
        return settings_to_dict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """Return the calibration that :meth:`to_dict` described.

        :raises ValueError: if a key is unknown or a value does not fit.
        """
        return parse_settings(cls, values, "calibration")

    def _limits(self, tolerance: float, categories: npt.ArrayLike | None) -> float | FloatArray:
        return self.threshold(tolerance) if categories is None else self.frame_thresholds(tolerance, categories)

    def _frame_scales(self, labels: StrArray) -> FloatArray:
        return np.array([self.categories.get(str(label), self.scale) for label in labels], dtype=np.float64)

    def _isotonic_threshold(self, tolerance: float) -> float:
        x, y = self._knots.T
        above = int(np.searchsorted(y, tolerance, side="right"))
        if above == len(y):
            return float(x[-1] * tolerance / y[-1])
        share = (tolerance - y[above - 1]) / (y[above] - y[above - 1])
        return float(x[above - 1] + share * (x[above] - x[above - 1]))


def _check_tolerance(tolerance: float) -> None:
    if not (np.isfinite(tolerance) and tolerance > 0.0):
        raise ValueError(f"a tolerance must be positive and finite, got {tolerance!r}")


def _check_options(
    method: str, tolerance: float | None, target_tpr: float | None, confidence: float, has_categories: bool
) -> None:
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; expected one of {', '.join(METHODS)}")
    if tolerance is not None:
        _check_tolerance(tolerance)
    if target_tpr is not None and tolerance is None:
        raise ValueError("target_tpr needs a tolerance: it says which errors count as positive")
    if target_tpr is not None and not 0.0 < target_tpr <= 1.0:
        raise ValueError(f"target_tpr must be in (0, 1], got {target_tpr!r}")
    if has_categories and method != "conformal":
        raise ValueError(f"categories need the method 'conformal', got {method!r}")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must be in (0, 1), got {confidence!r}")


def _diagnose(D: FloatArray, e: FloatArray, tolerance: float | None) -> list[str]:
    """Return warnings that do not depend on the method."""
    notes: list[str] = []
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


def _of_power(method: Method, power: Power, D: FloatArray, e: FloatArray) -> Calibration:
    """Return the calibration of a power law that was fitted to pairs."""
    return Calibration(
        method=method,
        scale=power.scale,
        exponent=power.exponent,
        pivot=power.pivot,
        knots=fit_isotonic(D, e) if method == "isotonic" else (),
        largest_error=float(e.max()),
        largest_disagreement=float(D.max()),
        n_points=len(D),
        calibrated=True,
    )


def _reach_tpr(
    result: Calibration,
    D: FloatArray,
    e: FloatArray,
    labels: StrArray | None,
    tolerance: float | None,
    target_tpr: float | None,
) -> tuple[float, list[str]]:
    """Return the largest factor of the thresholds that flags the wanted share of the positives, and warnings."""
    if target_tpr is None or tolerance is None:
        return 1.0, []
    limits = result.frame_thresholds(tolerance, np.full(len(D), "") if labels is None else labels)
    positives = np.sort((D / limits)[e > tolerance])[::-1]
    if not len(positives):
        return 1.0, ["target_tpr has no effect: no error is beyond the tolerance"]
    # the product may lie above an integer by roundoff only
    wanted = int(np.ceil(target_tpr * len(positives) - 1e-9))
    smallest = float(positives[wanted - 1])
    if smallest == 0.0:
        return 1.0, ["target_tpr is out of reach: a frame with a large error has no disagreement at all"]
    # flagged means strictly above: the threshold lies just below the last frame that has to be flagged
    return smallest * (1.0 - 1e-12), []
