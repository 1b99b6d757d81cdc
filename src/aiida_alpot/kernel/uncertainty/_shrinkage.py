"""Draw a scale of few points towards what was known before.

``s = exp((n log s_fit + n0 log s_prior)/(n + n0))``, n0 = :data:`PRIOR_POINTS`. The committee of the last iteration
is close to this one, so its scale is worth these points and helps up to :data:`FEW_POINTS`, where its weight is a
sixth. Without it nothing is known but that the disagreement is meant to be an error: a scale of 1 only keeps a handful
of points from giving an absurd one. For 30 points of a committee that is too sure of itself (s = 5) it would be wrong
by a third, and always to the unsafe side: the error of a member is never below the disagreement, so that no true scale
is below 1. So 10 to 49 points without a previous scale are left as they are, and a warning tells how uncertain it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from aiida_alpot.kernel.uncertainty._scales import LEVEL, Method, Power

if TYPE_CHECKING:
    from aiida_alpot.kernel.uncertainty.calibration import Calibration

FEW_POINTS: Final = 50
"""Below this number of pairs the scale is shrunk towards the previous one, or a warning says that there is none."""
FEW_WITHOUT_PREVIOUS: Final = 10
"""Below this number of pairs the scale is shrunk towards 1 if there is no previous one."""
PRIOR_POINTS: Final = 10
"""Weight n0 of the previous scale."""


def shrink(
    method: Method,
    power: Power,
    n_points: int,
    previous: Calibration | None,
    interval: tuple[float, float] | None = None,
) -> tuple[float, list[str]]:
    """Return the scale to use and what to say of it.

    A conformal scale is never shrunk to a smaller one: that would break the coverage it stands for.

    :param power: what was fitted to *n_points* pairs.
    :param previous: of the last iteration; one that was not calibrated counts as none.
    :param interval: of the fitted scale, for words.
    """
    if n_points >= FEW_POINTS:
        return power.scale, []
    known = previous is not None and previous.calibrated
    few = FEW_POINTS if known else FEW_WITHOUT_PREVIOUS
    if n_points >= few:
        return power.scale, [_describe_uncertain(power.scale, n_points, interval)]
    prior = 1.0
    if previous is not None and known:
        prior = float(previous.predict_error(power.pivot)) / power.pivot or previous.scale
    logarithm = (n_points * np.log(power.scale) + PRIOR_POINTS * np.log(prior)) / (n_points + PRIOR_POINTS)
    scale = float(np.exp(logarithm))
    towards = f"{prior:.3g} of the previous calibration" if known else "1 (there is no previous calibration)"
    fitted = f"scale {power.scale:.3g} of {n_points} points, fewer than {few}"
    if method == "conformal" and scale < power.scale:
        return power.scale, [f"{fitted}: not shrunk towards {towards}, a conformal scale must not be reduced"]
    return scale, [f"{fitted}: shrunk to {scale:.3g}, towards {towards}"]


def _describe_uncertain(scale: float, n_points: int, interval: tuple[float, float] | None) -> str:
    within = "" if interval is None else f", {100 * LEVEL:g} % interval {interval[0]:.3g} to {interval[1]:.3g}"
    few = f"fewer than {FEW_POINTS}, and there is no previous calibration to draw it towards"
    return f"scale {scale:.3g} of {n_points} points, {few}: it is uncertain{within}"
