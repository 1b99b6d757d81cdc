"""Molecular dynamics by ASE, with any potential this package can load."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from aiida import orm

from aiida_alpot.calculations.explore_ase import ExploreAseCalculation
from aiida_alpot.calculations.functions.plan import plan_exploration
from aiida_alpot.engines.explore.base import ExplorationInputs, ExploreEngine
from aiida_alpot.engines.job import Job, JobResources
from aiida_alpot.kernel.exploration import ExploreSettings
from aiida_alpot.kernel.settings import parse_settings


class AseExploreEngine(ExploreEngine):
    """NVT and NPT trajectories with the committee looking on."""

    @classmethod
    def validate(cls, settings: Mapping[str, Any]) -> str | None:
        """Check names, types and ranges of the settings, and that a trajectory is long enough to be sampled."""
        try:
            found = parse_settings(ExploreSettings, settings, "explore.settings")
        except ValueError as error:
            return str(error)
        if found.sample_every > found.n_steps:
            return (
                f"explore.settings.sample_every: {found.sample_every} steps between samples of a trajectory of n_steps "
                f"{found.n_steps} give none; expected at most n_steps"
            )
        return None

    @classmethod
    def plan_jobs(
        cls, inputs: ExplorationInputs, trajectories_per_job: orm.Int, iteration: orm.Int
    ) -> Mapping[str, orm.Dict]:
        """Split starting frames × temperatures × pressures × walkers over jobs."""
        parts = plan_exploration(inputs.frames, inputs.settings, inputs.seed, trajectories_per_job, iteration)
        return cast(Mapping[str, orm.Dict], parts)

    @classmethod
    def prepare_job(cls, inputs: ExplorationInputs, part: orm.Dict, resources: JobResources) -> Job:
        """Run one part of the plan, from where an earlier attempt was stopped."""
        job_inputs = {
            "potentials": dict(inputs.potentials),
            "uncertainty": inputs.uncertainty,
            "frames": inputs.frames,
            "settings": inputs.settings,
            "seed": inputs.seed,
            "trajectories": part,
            **resources.common_inputs(),
        }
        if resources.checkpoint is not None:
            job_inputs["checkpoint"] = resources.checkpoint
        return Job(ExploreAseCalculation, job_inputs)
