"""ExplorationWorkChain: candidates from molecular dynamics."""

from __future__ import annotations

from typing import Any, cast

from aiida import orm
from aiida.engine import ExitCode
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_alpot.calculations.base import fraction_validator, non_negative_validator, validate_models
from aiida_alpot.calculations.explore_ase import ExploreAseCalculation
from aiida_alpot.calculations.functions.summary import PLAN, summarise_exploration
from aiida_alpot.data.pes import PESData
from aiida_alpot.engines.explore.base import ExplorationInputs
from aiida_alpot.engines.job import CONTINUABLE, REPEATABLE, Job, JobResources
from aiida_alpot.plugins import known_engines, load_engine
from aiida_alpot.workflows.base import StageWorkChain, expose_inputs, namespace


def _validate(inputs: Any, context: Any) -> str | None:
    if "engine" in inputs and "settings" in inputs:
        name = inputs["engine"].value
        if name not in known_engines("explore"):
            return f"explore.engine: {name!r} is unknown; known: {', '.join(known_engines('explore'))}"
        problem: str | None = load_engine("explore", name).validate(inputs["settings"].get_dict())
        if problem is not None:
            return problem
    return validate_models(inputs, context)


class ExplorationWorkChain(StageWorkChain):
    """Runs trajectories over starting frames × temperatures × pressures, several in a job.

    A job that was stopped goes on where it was. One that is stopped in all its attempts ends the stage, since without
    its candidates others would be selected: resume the campaign, or allow for it by ``max_lost_fraction``.
    """

    STAGE = "explore"

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Declare inputs and outputs."""
        super().define(spec)
        expose_inputs(spec, ExploreAseCalculation, include=("potentials", "uncertainty", "frames", "seed"))
        spec.input(
            "engine",
            valid_type=orm.Str,
            default=lambda: orm.Str("ase"),
            help="Exploration engine, a name of the entry-point group aiida_alpot.explore.",
        )
        spec.input(
            "settings",
            valid_type=orm.Dict,
            default=lambda: orm.Dict({}),
            help="Conditions and stop rules of the engine.",
        )
        spec.input(
            "trajectories_per_job",
            valid_type=orm.Int,
            default=lambda: orm.Int(20),
            validator=non_negative_validator("trajectories_per_job", minimum=1),
            help="Trajectories that one job runs.",
        )
        spec.input(
            "iteration",
            valid_type=orm.Int,
            default=lambda: orm.Int(0),
            validator=non_negative_validator("iteration"),
            help="Iteration of the loop, part of the names of the trajectories.",
        )
        spec.input(
            "max_lost_fraction",
            valid_type=orm.Float,
            default=lambda: orm.Float(0.0),
            validator=fraction_validator("max_lost_fraction"),
            help="Largest share of jobs that may be lost (killed or out of time in all attempts).",
        )
        spec.inputs.validator = _validate
        spec.output_namespace("candidates", valid_type=PESData, dynamic=True, help="Frames, one dataset per job.")
        spec.output("report", valid_type=orm.Dict, required=False, help="What became of every trajectory.")

    @property
    def engine(self) -> Any:
        """The exploration engine."""
        return load_engine("explore", self.inputs.engine.value)

    @property
    def retried(self) -> frozenset[int]:
        """Lost jobs and those that can go on."""
        return REPEATABLE | CONTINUABLE

    def plan_jobs(self) -> list[str]:
        """Ask the engine."""
        parts = self.engine.plan_jobs(self._shared(), self.inputs.trajectories_per_job, self.inputs.iteration)
        self.ctx.parts = {key: node.pk for key, node in parts.items()}
        return sorted(parts)

    def prepare_job(
        self,
        key: str,
        resources: JobResources,
        previous: orm.ProcessNode | None,  # noqa: ARG002
    ) -> Job:
        """Ask the engine; the checkpoint among the resources is all it needs of an earlier attempt."""
        job: Job = self.engine.prepare_job(self._shared(), orm.load_node(self.ctx.parts[key]), resources)
        return job

    def attach_results(self) -> ExitCode | None:
        """Attach the candidates of every job that left some, also of those stopped near their walltime."""
        attempts = self.last_attempts()
        found = {key: job.outputs.candidates for key, job in attempts.items() if "candidates" in job.outputs}
        reports = {key: job.outputs.report for key, job in attempts.items() if "report" in job.outputs}
        if reports:
            plans = {f"{PLAN}{key}": cast(orm.Dict, orm.load_node(pk)) for key, pk in self.ctx.parts.items()}
            self.out("report", summarise_exploration(**reports, **plans))
        if not found:
            return self.all_failed()
        self.out_many(namespace("candidates", found))
        lost = self.lost_jobs()
        if len(lost) > self.inputs.max_lost_fraction.value * self.ctx.n_jobs:
            return self.jobs_lost(lost)
        return None

    def _shared(self) -> ExplorationInputs:
        return ExplorationInputs(
            potentials=self.inputs.potentials,
            uncertainty=self.inputs.uncertainty,
            frames=self.inputs.frames,
            settings=self.inputs.settings,
            seed=self.inputs.seed,
        )
