"""When the loop is done: stop rules that return a decision with its reason and the numbers behind it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

from aiida_alpot.kernel.defaults import TOLERANCE_ENERGY, TOLERANCE_FORCE, TOLERANCE_STRESS
from aiida_alpot.kernel.gates import Gate, judge_properties
from aiida_alpot.kernel.settings import unknown_key_message

Reason = Literal[
    "converged",
    "no_threshold",
    "frames_above_threshold",
    "too_few_candidates",
    "too_few_healthy_trajectories",
    "control_error_above_tolerance",
    "no_control_frames",
    "patience",
    "validation_due",
    "property_gate",
]

_UNITS = {"energy": "eV/atom", "force": "eV/Å", "stress": "eV/Å³"}
PROPERTIES: Final = tuple(_UNITS)
"""What an error on control frames may be of."""


def _default_tolerances() -> dict[str, float]:
    return {"energy": TOLERANCE_ENERGY, "force": TOLERANCE_FORCE, "stress": TOLERANCE_STRESS}


@dataclass(frozen=True)
class ConvergenceSettings:
    """What an iteration has to fulfil, and how often.

    :param n_min: fewest candidates that an iteration can be judged by.
    :param healthy_share: smallest share of the trajectories that must have stayed healthy.
    :param patience: consecutive iterations that must fulfil everything else.
    :param tolerances: largest error on the control frames per property, eV/atom, eV/Å, eV/Å³. Name only the properties
        that matter; an empty mapping switches the test of errors, and the need for control frames, off.
    :param n_control_min: fewest control frames that the error is taken from. With one frame, an error of 1.5 times the
        tolerance would pass in more than a third of the cases, with five in a tenth.
    :param gates: bounds of properties by name, asked last: when everything else holds, the properties are computed.
    """

    n_min: int = 50
    healthy_share: float = 0.9
    patience: int = 1
    tolerances: Mapping[str, float] = field(default_factory=_default_tolerances)
    n_control_min: int = 5
    gates: Mapping[str, Gate] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("n_min", "patience", "n_control_min"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name!r} must be at least 1, got {getattr(self, name)}")
        if not 0.0 < self.healthy_share <= 1.0:
            raise ValueError(f"'healthy_share' must lie in (0, 1], got {self.healthy_share}")
        for name, value in self.tolerances.items():
            if name not in _UNITS:
                raise ValueError(unknown_key_message(name, _UNITS, "tolerances"))
            if not (math.isfinite(value) and value > 0.0):
                raise ValueError(f"'tolerances': {name!r} must be positive and finite, got {value}")


@dataclass(frozen=True)
class IterationState:
    """What one iteration found.

    :param n_candidates: frames that were evaluated.
    :param n_trajectories: trajectories that were run, those that gave no frame included.
    :param n_healthy_trajectories: those that stayed physical to their end.
    :param flagged: candidates without a label above threshold per criterion (a property, or the grade if one flags),
        before de-duplication, budget or upper bound (``Selection.report["flagged"]``).
    :param n_control: labelled control frames that the errors are taken from.
    :param control_error: error of the committee on them per property, units of the tolerances; NaN where undefined.
    :param judged: properties that the control frames can tell; pieces of larger frames tell forces alone.
    :param streak: iterations right before this one that fulfilled all conditions but the gates
        (``Decision.numbers["streak"]``).
    :param properties: what the gates judge, see :func:`~aiida_alpot.kernel.gates.judge_properties`; None if they were
        not computed.
    """

    n_candidates: int
    n_trajectories: int
    n_healthy_trajectories: int
    flagged: Mapping[str, int]
    n_control: int = 0
    control_error: Mapping[str, float] = field(default_factory=dict)
    judged: Collection[str] = PROPERTIES
    streak: int = 0
    properties: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for name in ("n_candidates", "n_trajectories", "n_healthy_trajectories", "n_control", "streak"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name!r} must not be negative, got {getattr(self, name)}")
        if self.n_healthy_trajectories > self.n_trajectories:
            raise ValueError(f"{self.n_healthy_trajectories} of {self.n_trajectories} trajectories cannot be healthy")


@dataclass(frozen=True)
class Decision:
    """Whether the loop is done, why (a code and a sentence), and the numbers that decided.

    :ivar numbers: for JSON; ``streak`` is to be given to the next iteration's :class:`IterationState`, ``failed`` lists
        the codes of all conditions that do not hold.
    """

    converged: bool
    reason: Reason
    message: str
    numbers: dict[str, Any]


def decide(state: IterationState, settings: ConvergenceSettings) -> Decision:
    """Return whether the loop has converged after this iteration.

    Converged: at least ``n_min`` candidates, from at least ``healthy_share`` of healthy trajectories, none above
    threshold for any property before de-duplication, budget or upper bound, and the error on the control frames within
    tolerance, for ``patience`` iterations, and all properties within their gates. Zero candidates are therefore never
    convergence.

    Properties are dear, so gates are asked last: ``validation_due`` says that only they are open, and the same state is
    to be decided again with its properties. A gate that does not let pass leaves the streak as it is.

    :raises ValueError: if a property of a gate is missing, or no number.
    """
    failed = [*_judge_exploration(state, settings), *_judge_control(state, settings)]
    streak = 0 if failed else state.streak + 1
    numbers = _numbers(state, settings, streak, [reason for reason, _ in failed])
    if failed:
        reason, message = failed[0]
        return Decision(False, reason, message, numbers)
    if streak < settings.patience:
        message = f"all conditions hold for {streak} of {settings.patience} iterations"
        return Decision(False, "patience", message, numbers)
    return _judge_properties(state, settings, numbers)


def _judge_properties(state: IterationState, settings: ConvergenceSettings, numbers: dict[str, Any]) -> Decision:
    """Return the decision when all other conditions hold."""
    if settings.gates and state.properties is None:
        message = f"all other conditions hold: {', '.join(sorted(settings.gates))} are to be judged"
        return Decision(False, "validation_due", message, numbers)
    verdicts = judge_properties(settings.gates, state.properties or {})
    numbers["gates"] = {name: asdict(verdict) for name, verdict in verdicts.items()}
    closed = [f"{name} {verdict}" for name, verdict in sorted(verdicts.items()) if not verdict.passed]
    if closed:
        numbers["failed"] = ["property_gate"]
        return Decision(False, "property_gate", "; ".join(closed), numbers)
    message = f"no candidate of {state.n_candidates} is above threshold and the control error is within tolerance"
    if not settings.tolerances:
        message = f"no candidate of {state.n_candidates} is above threshold"
    if verdicts:
        message += f"; {', '.join(sorted(verdicts))} within their gates"
    return Decision(True, "converged", message, numbers)


def stop_reason(
    decision: Decision,
    iteration: int,
    max_iterations: int,
    n_labels: int = 0,
    max_labels: int | None = None,
) -> str | None:
    """Return why the loop ends here, ``None`` if it goes on.

    :param iteration: iterations that are done, this one included.
    :param n_labels: labels bought so far.
    :param max_labels: most labels; no limit if omitted.
    :return: ``converged``, ``max_labels`` or ``max_iterations``, in this order.
    """
    if decision.converged:
        return "converged"
    if max_labels is not None and n_labels >= max_labels:
        return "max_labels"
    return "max_iterations" if iteration >= max_iterations else None


def _judge_exploration(state: IterationState, settings: ConvergenceSettings) -> list[tuple[Reason, str]]:
    failed: list[tuple[Reason, str]] = []
    if not state.flagged:
        failed.append(("no_threshold", "no property has both a tolerance and a calibration: nothing can be flagged"))
    if any(state.flagged.values()):
        counts = ", ".join(f"{name}: {count}" for name, count in sorted(state.flagged.items()) if count)
        failed.append(("frames_above_threshold", f"candidates above threshold ({counts})"))
    if state.n_candidates < settings.n_min:
        failed.append(("too_few_candidates", f"{state.n_candidates} candidates, at least {settings.n_min} are needed"))
    if state.n_trajectories == 0 or _healthy_share(state) < settings.healthy_share:
        counts = f"{state.n_healthy_trajectories} of {state.n_trajectories} trajectories are healthy"
        failed.append(("too_few_healthy_trajectories", f"{counts}, a share of {settings.healthy_share:g} is needed"))
    return failed


def _judge_control(state: IterationState, settings: ConvergenceSettings) -> list[tuple[Reason, str]]:
    if not settings.tolerances:
        return []
    if state.n_control < settings.n_control_min:
        needed = f"{state.n_control} labelled control frames, at least {settings.n_control_min} are needed"
        return [("no_control_frames", needed)]
    tolerances = {name: value for name, value in sorted(settings.tolerances.items()) if name in state.judged}
    if not tolerances:
        names = " and ".join(sorted(settings.tolerances))
        return [
            ("no_control_frames", f"all control frames were cut out of larger ones, which tells nothing of {names}")
        ]
    above = []
    for name, tolerance in tolerances.items():
        error = state.control_error.get(name, math.nan)
        if name == "stress" and math.isnan(error) and len(settings.tolerances) > 1:
            continue  # molecules have no stress
        if not error <= tolerance:
            above.append(f"{name} {error:.4g} > {tolerance:.4g} {_UNITS[name]}")
    return [("control_error_above_tolerance", f"error on control frames: {'; '.join(above)}")] if above else []


def _healthy_share(state: IterationState) -> float:
    return state.n_healthy_trajectories / state.n_trajectories if state.n_trajectories else 0.0


def _numbers(state: IterationState, settings: ConvergenceSettings, streak: int, failed: list[Reason]) -> dict[str, Any]:
    return {
        "n_candidates": state.n_candidates,
        "n_min": settings.n_min,
        "healthy_share": _healthy_share(state),
        "healthy_share_min": settings.healthy_share,
        "flagged": dict(state.flagged),
        "n_control": state.n_control,
        "control_error": {name: None if math.isnan(error) else error for name, error in state.control_error.items()},
        "tolerances": dict(settings.tolerances),
        "streak": streak,
        "patience": settings.patience,
        "failed": list(failed),
    }
