"""Which trajectories an exploration runs: starting frames × temperatures × pressures × walkers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from aiida_alpot.kernel.seeds import derive_seed

from .settings import ExploreSettings


@dataclass(frozen=True)
class TrajectoryPlan:
    """One trajectory, before it runs.

    :param index: position in the whole schedule, also when a job runs a part of it.
    :param frame: index of the starting frame.
    :param temperature: K.
    :param pressure: GPa, None in the NVT ensemble.
    :param ensemble: ``"nvt"`` or ``"npt"``.
    :param seed: of velocities and noise, its own for every trajectory.
    :param name: unique; the group of the frames it yields.
    """

    index: int
    frame: int
    temperature: float
    pressure: float | None
    ensemble: Literal["nvt", "npt"]
    seed: int
    name: str


def plan_trajectories(
    n_frames: int,
    settings: ExploreSettings,
    seed: int,
    *,
    periodic: Sequence[bool] | None = None,
    label: str = "",
) -> tuple[TrajectoryPlan, ...]:
    """Return the schedule of an exploration.

    :param n_frames: starting frames at hand; more than ``n_starting_frames`` are thinned at random, by the seed.
    :param seed: of the exploration.
    :param periodic: for each frame whether its cell can change, :func:`~aiida_alpot.kernel.potentials.has_stress`; all
        can if None. Frames that cannot run NVT, once and not once per pressure.
    :param label: prefix of the names, e.g. ``"iteration-2/"``.
    :raises ValueError: if *periodic* has the wrong length.
    """
    flags = [True] * n_frames if periodic is None else [bool(flag) for flag in periodic]
    if len(flags) != n_frames:
        raise ValueError(f"periodic must have one value for each of {n_frames} frames, got {len(flags)}")
    plans: list[TrajectoryPlan] = []
    for frame in draw_frames(n_frames, settings, seed):
        ensemble: Literal["nvt", "npt"] = "npt" if settings.ensemble != "nvt" and flags[frame] else "nvt"
        pressures: tuple[float | None, ...] = settings.pressures if ensemble == "npt" else (None,)
        conditions = [
            (t, p) for t in settings.temperatures for p in pressures for _ in range(_count_walkers(t, settings))
        ]
        for temperature, pressure in conditions:
            name = f"{label}md-{len(plans):05d}"
            own = derive_seed(seed, f"explore/{name}")
            plans.append(TrajectoryPlan(len(plans), frame, temperature, pressure, ensemble, own, name))
    return tuple(plans)


def count_trajectories(
    n_frames_available: int, settings: ExploreSettings, periodic: Sequence[bool] | None = None, *, seed: int = 0
) -> int:
    """Return how many trajectories :func:`plan_trajectories` makes, to split them over jobs.

    The seed only matters when frames are drawn from a mixture of those whose cell can change and others.
    """
    return len(plan_trajectories(n_frames_available, settings, seed, periodic=periodic))


def _count_walkers(temperature: float, settings: ExploreSettings) -> int:
    """Return the walkers at one temperature: at 0 K there is no noise to tell them apart."""
    return settings.walkers if temperature > 0.0 else 1


def draw_frames(n_frames: int, settings: ExploreSettings, seed: int) -> tuple[int, ...]:
    """Return the sorted indices of the starting frames, drawn without replacement."""
    if n_frames <= settings.n_starting_frames:
        return tuple(range(n_frames))
    rng = np.random.default_rng(derive_seed(seed, "explore/starting-frames"))
    drawn = rng.choice(n_frames, size=settings.n_starting_frames, replace=False)
    return tuple(int(index) for index in np.sort(drawn))


def choose_driver(n_members: int, settings: ExploreSettings, seed: int) -> int:
    """Return the index of the committee member that makes the forces, the same in every job of an exploration.

    :raises ValueError: if there is no such member.
    """
    if n_members < 1:
        raise ValueError("an exploration needs at least one potential, got none")
    if settings.driver == "first":
        return 0
    if settings.driver == "random":
        return int(np.random.default_rng(derive_seed(seed, "explore/driver")).integers(n_members))
    if settings.driver >= n_members:
        raise ValueError(f"driver is {settings.driver}, but the committee has {n_members} members")
    return settings.driver
