"""All trajectories of an exploration, one after the other, and the report on them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ase import Atoms
from ase.calculators.calculator import Calculator

from aiida_alpot.kernel.jsonio import plain
from aiida_alpot.kernel.potentials import Potential, has_stress

from .md import StopRules, TrajectoryResult, run_trajectory
from .monitor import Monitor
from .schedule import TrajectoryPlan, choose_driver, plan_trajectories
from .settings import ExploreSettings
from .state import ExplorationState

if TYPE_CHECKING:
    from aiida_alpot.kernel.uncertainty.model import UncertaintyModel

HEALTHY = frozenset({"completed", "max_saved", "gamma_break", "error_break"})
"""Outcomes of a trajectory that a rule ended. One that the walltime ended has not shown that it stays healthy."""
UNFIT = "unfit"
"""Outcome of a trajectory whose start was not healthy: it never ran."""
BROKEN = frozenset({UNFIT, "health", "failed"})
"""Outcomes of a trajectory that broke, or never could run."""

Progress = Callable[[int, int, dict[str, Any]], None]
"""Called after every trajectory with how many are done, how many there are, and its entry in the report."""


@dataclass(frozen=True)
class ExploreResult:
    """What an exploration yielded.

    :param frames: candidates of all trajectories in the order of the schedule, without labels.
    :param trajectories: one JSON-able entry per trajectory.
    :param report: JSON-able summary; ``n_trajectories`` counts those that ran, ``n_unfit`` those whose start was
        not healthy, ``n_healthy_trajectories`` those that a rule ended; ``all_failed`` tells that every one broke.
    """

    frames: list[Atoms]
    trajectories: list[dict[str, Any]]
    report: dict[str, Any]


def explore(
    starting_frames: Sequence[Atoms],
    potentials: Sequence[Potential],
    uncertainty: UncertaintyModel | None,
    settings: ExploreSettings,
    seed: int,
    *,
    plans: Sequence[TrajectoryPlan] | None = None,
    deadline: float | None = None,
    state: ExplorationState | None = None,
    on_progress: Progress | None = None,
    label: str = "",
    iteration: int = -1,
) -> ExploreResult:
    """Run the trajectories of an exploration; the same seed gives the same frames bit by bit.

    One trajectory that breaks does not touch the others. The order of *plans* is the order of work; a part of a
    schedule (``plans[a:b]``) is the unit that several jobs share, each with the same frames, settings and seed.

    :param starting_frames: frames the trajectories start from; their labels are not looked at.
    :param potentials: the committee; one of its members drives.
    :param uncertainty: calibrations, active set and γ thresholds; None runs without stop rules.
    :param seed: of the exploration.
    :param plans: trajectories to run, by default the whole schedule.
    :param deadline: value of ``time.monotonic()`` after which to stop in good order; what did not finish is reported as
        ``walltime``.
    :param state: what an earlier attempt has done, and where this one keeps what it does.
    :param label: prefix of the names in the default schedule, e.g. ``"iteration-2/"``.
    :param iteration: of the loop, for the book-keeping of the frames.
    :raises ValueError: if ``error_break`` names a property without calibration, the driver does not exist, or a plan
        names a frame that was not given.
    """
    rules = build_rules(settings, uncertainty)
    driver = choose_driver(len(potentials), settings, seed)
    if plans is None:
        flags = [has_stress(atoms) for atoms in starting_frames]
        plans = plan_trajectories(len(starting_frames), settings, seed, periodic=flags, label=label)
    _check_plans(plans, starting_frames)
    context = _Context(Monitor(potentials, uncertainty), settings, rules, deadline, state, iteration)
    frames: list[Atoms] = []
    entries: list[dict[str, Any]] = []
    for plan in plans:
        finished = None if state is None else state.load_finished(plan)
        if finished is None:
            # a new calculator: what the trajectory before left in its cache and neighbour list is not this one's
            calculator = potentials[driver].calculator()
            finished = _run_one(plan, starting_frames[plan.frame], calculator, context)
        frames.extend(finished[0])
        entries.append(finished[1])
        if on_progress is not None:
            on_progress(len(entries), len(plans), entries[-1])
    return ExploreResult(frames, entries, _report(entries, frames, settings, driver))


def build_rules(settings: ExploreSettings, uncertainty: UncertaintyModel | None) -> StopRules:
    """Return the stop rules that settings and uncertainty model give together.

    :raises ValueError: if ``error_break`` names a property that has no calibration.
    """
    limits = dict(settings.error_break or {})
    calibrated = sorted(uncertainty.calibrations) if uncertainty is not None else []
    missing = sorted(set(limits) - set(calibrated))
    if missing:
        known = ", ".join(calibrated) or "nothing"
        raise ValueError(f"error_break needs a calibration of {', '.join(missing)}; calibrated: {known}")
    if uncertainty is None:
        return StopRules()
    return StopRules(uncertainty.gamma_save, uncertainty.gamma_break, limits)


@dataclass(frozen=True)
class _Context:
    """What the trajectories of an exploration share; see :func:`explore`."""

    monitor: Monitor
    settings: ExploreSettings
    rules: StopRules
    deadline: float | None
    state: ExplorationState | None
    iteration: int


def _run_one(
    plan: TrajectoryPlan, start: Atoms, calculator: Calculator, context: _Context
) -> tuple[list[Atoms], dict[str, Any]]:
    """Return the frames of one trajectory and its entry in the report."""
    deadline, state = context.deadline, context.state
    began = time.monotonic()
    if deadline is not None and began >= deadline:
        return [], _entry(plan, TrajectoryResult([], "walltime", 0, {}), 0.0)
    monitor, settings, rules = context.monitor, context.settings, context.rules
    result = run_trajectory(start, plan, calculator, monitor, settings, rules=rules, deadline=deadline, state=state)
    for frame in result.frames:
        _keep_books(frame, start, plan, context.iteration)
    entry = _entry(plan, result, time.monotonic() - began)
    if state is not None and result.reason != "walltime":
        state.save_finished(plan, result.frames, entry)
    return result.frames, entry


def _check_plans(plans: Sequence[TrajectoryPlan], starting_frames: Sequence[Atoms]) -> None:
    names = Counter(plan.name for plan in plans)
    for plan in plans:
        if not 0 <= plan.frame < len(starting_frames):
            raise ValueError(f"{plan.name} starts from frame {plan.frame} of {len(starting_frames)} frames")
        if plan.ensemble == "npt" and not has_stress(starting_frames[plan.frame]):
            raise ValueError(f"{plan.name} is NPT, but frame {plan.frame} has no stress: plan it with periodic=False")
        if names[plan.name] > 1:
            raise ValueError(f"the trajectory name {plan.name!r} is used {names[plan.name]} times, but it is a group")


def _keep_books(frame: Atoms, parent: Atoms, plan: TrajectoryPlan, iteration: int) -> None:
    origin = str(parent.info.get("origin") or parent.info.get("group") or f"starting-frame-{plan.frame}")
    frame.info.update(group=plan.name, origin=origin, iteration=iteration, config_type="md", status="unlabelled")


def _entry(plan: TrajectoryPlan, result: TrajectoryResult, seconds: float) -> dict[str, Any]:
    entry = {
        "index": plan.index,
        "name": plan.name,
        "frame": plan.frame,
        "ensemble": plan.ensemble,
        "temperature": plan.temperature,
        "pressure": plan.pressure,
        "seed": plan.seed,
        "outcome": result.outcome,
        "reason": result.reason,
        "healthy": result.outcome in HEALTHY,
        "n_steps": result.n_steps,
        "n_frames": len(result.frames),
        "seconds": seconds,
        **result.stats,
    }
    # an infinite grade is legal in a frame but not in JSON
    return {key: plain(value) for key, value in entry.items()}


def _report(
    entries: Sequence[dict[str, Any]], frames: Sequence[Atoms], settings: ExploreSettings, driver: int
) -> dict[str, Any]:
    n_unfit = sum(entry["outcome"] == UNFIT for entry in entries)
    became_nvt = [entry["name"] for entry in entries if settings.ensemble == "npt" and entry["ensemble"] == "nvt"]
    return {
        "n_trajectories": len(entries) - n_unfit,
        "n_unfit": n_unfit,
        "n_healthy_trajectories": sum(entry["healthy"] for entry in entries),
        "all_failed": bool(entries) and all(entry["outcome"] in BROKEN for entry in entries),
        "outcomes": dict(sorted(Counter(entry["outcome"] for entry in entries).items())),
        "n_frames": len(frames),
        "n_healthy_frames": sum(bool(frame.info["healthy"]) for frame in frames),
        "save_reasons": dict(sorted(Counter(frame.info["save_reason"].split(":")[0] for frame in frames).items())),
        "npt_became_nvt": became_nvt,
        "driver": driver,
        "n_steps": sum(entry["n_steps"] for entry in entries),
    }
