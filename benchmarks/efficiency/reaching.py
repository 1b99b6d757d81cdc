"""How many labels an arm needs for the final error of another, with intervals from the seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

N_RESAMPLES: Final = 2000

Floats = npt.NDArray[np.float64]
Curve = tuple[Floats, Floats]
"""Labels, ascending, and the error after each."""


def labels_to_reach(labels: Floats, errors: Floats, target: float) -> float:
    """Return the number of labels from which on the error stays at or below *target*; infinite if it does not.

    Between two points the logarithm of the error is linear in that of the labels.
    """
    above = np.flatnonzero(errors > target)
    if not above.size:
        return float(labels[0])
    k = int(above[-1])
    if k == len(labels) - 1:
        return float("inf")
    share = np.log(errors[k] / target) / np.log(errors[k] / errors[k + 1])
    return float(labels[k] * (labels[k + 1] / labels[k]) ** share)


def mean_curve(curves: Sequence[Curve], grid: Floats) -> Floats:
    """Return the geometric mean of the errors at the labels of *grid*; after its last point an error stays as it is."""
    return np.asarray(np.exp(np.mean(_on_grid(curves, grid), axis=0)))


def compare(
    arm: Sequence[Curve], baseline: Sequence[Curve], grid: Floats, final: float, seed: int = 0
) -> tuple[float, float, float]:
    """Return the labels that *arm* needs for the baseline's error at *final* labels, as a share of *final*.

    :param arm: a curve of each seed, in the order of *baseline*.
    :return: the ratio of the mean curves, and its 95 % interval from resampling the seeds of both together; a bound
        is infinite if the error was not reached.
    """
    of_arm, of_baseline = _on_grid(arm, grid), _on_grid(baseline, grid)
    at = np.flatnonzero(grid == final)[0]

    def ratio(rows: npt.NDArray[np.int64]) -> float:
        target = np.exp(of_baseline[rows, at].mean())
        return labels_to_reach(grid, np.exp(of_arm[rows].mean(axis=0)), target) / final

    rng = np.random.default_rng(seed)
    found = np.array([ratio(rng.integers(0, len(arm), len(arm))) for _ in range(N_RESAMPLES)])
    low, high = np.quantile(found, [0.025, 0.975], method="inverted_cdf")
    return ratio(np.arange(len(arm))), float(low), float(high)


def _on_grid(curves: Sequence[Curve], grid: Floats) -> Floats:
    """Return the logarithms of the errors at the labels of *grid*, shape (n_curves, n_grid)."""
    return np.stack([np.interp(np.log(grid), np.log(labels), np.log(errors)) for labels, errors in curves])
