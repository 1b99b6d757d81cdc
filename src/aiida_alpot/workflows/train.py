"""TrainingWorkChain: a committee, one job per member."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from aiida import orm
from aiida.engine import ExitCode
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_alpot.calculations.base import non_negative_validator
from aiida_alpot.calculations.functions.plan import member_names, plan_committee
from aiida_alpot.calculations.functions.summary import summarise_committee
from aiida_alpot.data.pes import PESData
from aiida_alpot.data.potential import PotentialData, validate_potentials
from aiida_alpot.engines.job import CONTINUABLE, REPEATABLE, Job, JobResources
from aiida_alpot.engines.train.base import MemberInputs
from aiida_alpot.kernel.defaults import COMMITTEE_SIZE
from aiida_alpot.kernel.settings import unknown_key_message
from aiida_alpot.kernel.splitting import find_mixed_settings
from aiida_alpot.plugins import known_engines, load_engine
from aiida_alpot.workflows.base import StageWorkChain, namespace

MIN_MEMBERS = 2
"""Fewest members that can disagree."""
OUT_OF_MEMORY = 413
"""Exit code of a training that the scheduler did not end, but its own node; the same as 110 for what follows."""


def _validate_committee_size(value: orm.Int, _: Any) -> str | None:
    if value.value < MIN_MEMBERS:
        return f"committee_size: a committee needs at least {MIN_MEMBERS} members to disagree, got {value.value}"
    return None


def _validate_min_members(value: orm.Int, _: Any) -> str | None:
    if value.value < MIN_MEMBERS:
        return f"min_members: a committee needs at least {MIN_MEMBERS} members to disagree, got {value.value}"
    return None


def _validate_dataset(value: PESData, _: Any) -> str | None:
    return None if value.n_labelled else "dataset: it has no labelled frame to train on"


def check_members(inputs: Mapping[str, Any], parents: Iterable[str], where: str) -> str | None:
    """Return what is wrong with the number of members and the names of those they start from, or None.

    :param inputs: of the stage; what is missing has its default.
    :param where: name of the namespace that *parents* come from.
    """
    size = inputs["committee_size"].value if "committee_size" in inputs else COMMITTEE_SIZE
    minimum = inputs["min_members"].value if "min_members" in inputs else MIN_MEMBERS
    if minimum > size:
        return f"train.min_members: {minimum} of a committee_size of {size} can never be usable"
    names = member_names(size)
    unknown = [name for name in parents if name not in names]
    return unknown_key_message(unknown[0], names, where) if unknown else None


def check_settings(dataset: PESData, name: str, *, is_split: bool = True) -> str:
    """Return why labels of a dataset are not to be fitted to together, "" if they may be.

    :param name: of the input that the dataset is.
    :param is_split: see :func:`~aiida_alpot.kernel.splitting.find_mixed_settings`.
    """
    try:
        with dataset.dataset() as reader:
            mixed = find_mixed_settings(reader, is_split=is_split)
    except (OSError, ValueError) as error:
        return f"{name}: its file cannot be read: {error}"
    remedy = "keep those of one, label the others anew, or set train.allow_mixed if their difference does not matter"
    return f"{name}: its labels were made with several settings ({mixed}); {remedy}" if mixed else ""


def _validate(inputs: Any, _: Any) -> str | None:
    problem = check_members(inputs, inputs.get("parents") or {}, "parents")
    if problem is not None:
        return problem
    if "engine" not in inputs or "parameters" not in inputs:
        return None
    if inputs["engine"].value not in known_engines("train"):
        return f"train.engine: {inputs['engine'].value!r} is unknown; known: {', '.join(known_engines('train'))}"
    return cast(str | None, load_engine("train", inputs["engine"].value).validate(inputs["parameters"].get_dict()))


class TrainingWorkChain(StageWorkChain):
    """Trains the members of a committee, each with its own seed, side by side.

    A member that is lost in all attempts ends the stage: resume the campaign. One that MACE could not train, by its own
    account, is left out as long as ``min_members`` are usable.
    """

    STAGE = "train"

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Declare inputs and outputs."""
        super().define(spec)
        spec.input(
            "dataset", valid_type=PESData, validator=_validate_dataset, help="Labelled frames with their splits."
        )
        spec.input(
            "engine",
            valid_type=orm.Str,
            default=lambda: orm.Str("mace"),
            help="Training engine, a name of the entry-point group aiida_alpot.train.",
        )
        spec.input("parameters", valid_type=orm.Dict, help="Hyperparameters of the engine.")
        spec.input(
            "committee_size",
            valid_type=orm.Int,
            default=lambda: orm.Int(COMMITTEE_SIZE),
            validator=_validate_committee_size,
            help="Number of members.",
        )
        spec.input(
            "min_members",
            valid_type=orm.Int,
            default=lambda: orm.Int(MIN_MEMBERS),
            validator=_validate_min_members,
            help="Fewest members that must be usable for the stage to succeed.",
        )
        spec.input(
            "allow_mixed",
            valid_type=orm.Bool,
            default=lambda: orm.Bool(False),
            help="Train on labels that were made with several settings; refused otherwise.",
        )
        spec.input("seed", valid_type=orm.Int, validator=non_negative_validator("seed"), help="Seed of the committee.")
        spec.input_namespace(
            "parents",
            valid_type=PotentialData,
            required=False,
            dynamic=True,
            validator=lambda value, _: validate_potentials(value) if value else None,
            help="Committee to start from (warm start), by the names of the members.",
        )
        spec.inputs.validator = _validate
        spec.output_namespace("potentials", valid_type=PotentialData, dynamic=True, help="The committee.")
        spec.output("report", valid_type=orm.Dict, required=False, help="Errors of every member.")

    @property
    def engine(self) -> Any:
        """The training engine."""
        return load_engine("train", self.inputs.engine.value)

    @property
    def retried(self) -> frozenset[int]:
        """Lost jobs, those that ran out of memory, and those that can go on."""
        return REPEATABLE | CONTINUABLE | {OUT_OF_MEMORY}

    def plan_jobs(self) -> list[str]:
        """Give every member a seed of its own.

        :raises ValueError: if the labels were made with several settings and this is not allowed.
        """
        problem = "" if self.inputs.allow_mixed.value else check_settings(self.inputs.dataset, "dataset")
        if problem:
            raise ValueError(problem)
        seeds = plan_committee(self.inputs.seed, self.inputs.committee_size)
        self.ctx.seeds = {key: node.pk for key, node in seeds.items()}
        return sorted(seeds)

    def prepare_job(self, key: str, resources: JobResources, previous: orm.ProcessNode | None) -> Job:
        """Ask the engine."""
        parents = self.inputs.parents if "parents" in self.inputs else {}
        seed = cast(orm.Int, orm.load_node(self.ctx.seeds[key]))
        member = MemberInputs(self.inputs.dataset, self.inputs.parameters, seed, parents.get(key))
        job: Job = self.engine.prepare_job(member, resources, previous)
        return job

    def attach_results(self) -> ExitCode | None:
        """Attach the members that ended well; a lost one, or fewer than ``min_members``, end the stage."""
        jobs = self.finished_jobs()
        if not jobs:
            return self.all_failed()
        self.out_many(namespace("potentials", {key: job.outputs.potential for key, job in jobs.items()}))
        self.out("report", summarise_committee(**{key: job.outputs.report for key, job in jobs.items()}))
        if self.lost_jobs():
            return self.jobs_lost(self.lost_jobs())
        if len(jobs) < self.inputs.min_members.value:
            failures = "; ".join(f"{key}: {reason}" for key, reason in self.failures().items())
            return self.exit_codes.ERROR_TOO_MANY_FAILURES.format(
                detail=f"{len(jobs)} members are usable, {self.inputs.min_members.value} are needed; {failures}"
            )
        return None
