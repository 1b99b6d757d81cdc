"""Exploration: molecular dynamics that watches the committee's uncertainty while it runs.

:mod:`.settings` what to run, :mod:`.schedule` which trajectories, :mod:`.integrator` and :mod:`.barostat` how atoms and
cell move, :mod:`.monitor` what the committee says of a frame, :mod:`.health` when a frame is no longer matter,
:mod:`.md` one trajectory, :mod:`.runner` all of them, :mod:`.state` what is done so far, for the next attempt.
"""

from .barostat import MaskedBarostat
from .health import check_geometry, check_health
from .integrator import LangevinIntegrator
from .md import TrajectoryResult, run_trajectory
from .monitor import Assessment, Monitor
from .runner import ExploreResult, explore
from .schedule import TrajectoryPlan, choose_driver, count_trajectories, plan_trajectories
from .settings import ExploreSettings, HealthSettings
from .state import ExplorationState

__all__ = [
    "Assessment",
    "ExplorationState",
    "ExploreResult",
    "ExploreSettings",
    "HealthSettings",
    "LangevinIntegrator",
    "MaskedBarostat",
    "Monitor",
    "TrajectoryPlan",
    "TrajectoryResult",
    "check_geometry",
    "check_health",
    "choose_driver",
    "count_trajectories",
    "explore",
    "plan_trajectories",
    "run_trajectory",
]
