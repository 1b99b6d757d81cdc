"""StageWorkChain: jobs that are submitted, looked at and tried again."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, cast

from aiida import orm
from aiida.common.links import LinkType
from aiida.engine import CalcJob, ExitCode, WorkChain, while_
from aiida.engine.processes.workchains.workchain import WorkChainSpec
from plumpy.process_states import ProcessState

from aiida_alpot.calculations.base import non_negative_validator
from aiida_alpot.calculations.kernel import get_kernel
from aiida_alpot.engines.job import Job, JobResources
from aiida_alpot.kernel.settings import unknown_key_message

DEFAULT_MAX_ITERATIONS = 2
DEFAULT_MAX_CONCURRENT = 20

REPEATABLE = frozenset({100, 110, 120, 140, 302})
"""Exit codes of a job that was lost (no files, memory, walltime, its node, killed): another attempt may end well."""
CONTINUABLE = frozenset({500, 501})
"""Exit codes of a job that stopped with partial results, from which another attempt goes on."""


def validate_options(value: orm.Dict | None, _: Any) -> str | None:
    """Refuse scheduler options that do not exist, naming the nearest one that does, and values of the wrong type."""
    known = CalcJob.spec().inputs["metadata"]["options"]
    for key, option in ({} if value is None else value.get_dict()).items():
        if key not in known:
            return unknown_key_message(str(key), known, "options")
        problem = known[key].validate(option)
        if problem is not None:
            return f"options.{key}: {problem.message}"
        if key == "max_wallclock_seconds" and (option is True or option <= 0):
            return f"options.{key}: expected a positive number, got {option}"
        counts = option.items() if key == "resources" else ()
        for name, count in counts:
            if str(name).startswith(("num_", "tot_num_")) and (type(count) is not int or count < 1):
                return f"options.{key}.{name}: expected an integer of at least 1, got {count!r}"
    return None


class StageWorkChain(WorkChain):
    """One stage: plans its jobs, submits them in rounds of at most ``max_concurrent``, repeats what can go further.

    A subclass defines :meth:`plan_jobs`, :meth:`prepare_job` and :meth:`attach_results`. One failed job does not end
    the stage; the subclass decides in :meth:`attach_results` whether what is left is enough.
    """

    STAGE: ClassVar[str]
    RETRIED: ClassVar[frozenset[int]] = REPEATABLE
    """Exit codes of a job after which it is submitted again."""

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Declare the inputs, outline and exit codes that all stages share."""
        super().define(spec)
        spec.input("code", valid_type=orm.AbstractCode, help="The Python (or executable) that runs the jobs.")
        spec.input(
            "kernel",
            valid_type=orm.SinglefileData,
            default=get_kernel,
            help="The code of the kernel that travels with the jobs.",
        )
        spec.input(
            "options",
            valid_type=orm.Dict,
            default=lambda: orm.Dict({}),
            validator=validate_options,
            help="Scheduler options of the jobs: resources, max_wallclock_seconds, queue_name, …",
        )
        spec.input(
            "max_iterations",
            valid_type=orm.Int,
            default=lambda: orm.Int(DEFAULT_MAX_ITERATIONS),
            validator=non_negative_validator("max_iterations", minimum=1),
            help="Most attempts of one job.",
        )
        spec.input(
            "max_concurrent",
            valid_type=int,
            non_db=True,
            default=DEFAULT_MAX_CONCURRENT,
            validator=lambda value, _: None if value >= 1 else f"max_concurrent: expected at least 1, got {value}",
            help="Most jobs of this stage that run at once.",
        )
        spec.input_namespace(
            "checkpoints",
            valid_type=orm.RemoteData,
            dynamic=True,
            required=False,
            help="Folders of the jobs of an earlier run of this stage, by key: what they finished is not done again.",
        )
        spec.outline(
            cls.setup,
            while_(cls.has_pending_jobs)(cls.run_jobs, cls.inspect_jobs),
            cls.attach_results,
        )
        spec.exit_code(
            401, "ERROR_ALL_JOBS_FAILED", message="None of the jobs of this stage ended usably; the last said: {detail}"
        )
        spec.exit_code(402, "ERROR_TOO_MANY_FAILURES", message="Too much of this stage failed: {detail}")
        spec.exit_code(
            403,
            "ERROR_JOBS_LOST",
            message="Jobs were stopped from outside too often: {detail}; mend the cause (walltime, memory, disk, node) "
            "and resume the campaign: what is finished is kept",
        )

    @abstractmethod
    def plan_jobs(self) -> list[str]:
        """Return the keys of the jobs: letters, digits and underscores."""

    @abstractmethod
    def prepare_job(self, key: str, resources: JobResources, previous: orm.ProcessNode | None) -> Job:
        """Return the job *key*; *previous* is its last attempt that left partial results to go on from, or None."""

    @abstractmethod
    def attach_results(self) -> ExitCode | None:
        """Attach the outputs of the stage from the jobs that ended, or return why they are not enough."""

    def setup(self) -> ExitCode | None:
        """Plan the jobs, or return why there is nothing to plan."""
        fresh = {
            "state": "pending",
            "attempts": 0,
            "pk": None,
            "partial": None,
            "folder": None,
            "reason": "",
            "is_lost": False,
        }
        try:
            keys = self.plan_jobs()
        except ValueError as error:
            return self.exit_codes.ERROR_ALL_JOBS_FAILED.format(detail=f"refused before it ran: {error}")
        self.ctx.jobs = {key: dict(fresh) for key in keys}
        self.ctx.running = []
        return None

    def has_pending_jobs(self) -> bool:
        """Return whether a job is still to be submitted."""
        return any(job["state"] == "pending" for job in self.ctx.jobs.values())

    def run_jobs(self) -> None:
        """Submit the next round of jobs."""
        pending = [key for key, job in self.ctx.jobs.items() if job["state"] == "pending"]
        self.ctx.running = pending[: self.inputs.max_concurrent]
        for key in self.ctx.running:
            self._submit_job(key)
        done = sum(job["state"] in ("done", "failed") for job in self.ctx.jobs.values())
        before = f", {done} ended before" if done else ""
        self.report(f"{self.STAGE}: submitted {len(self.ctx.running)} of {len(self.ctx.jobs)} jobs{before}")

    def inspect_jobs(self) -> None:
        """Note what became of the jobs of this round."""
        for key in self.ctx.running:
            job = self.ctx.jobs[key]
            if job["state"] == "running":
                self._inspect_job(key, job, self.ctx[f"job_{key}"])

    def finished_jobs(self) -> dict[str, orm.ProcessNode]:
        """Return the last attempt of every job that ended well, by key."""
        return {key: load_process(job["pk"]) for key, job in self.ctx.jobs.items() if job["state"] == "done"}

    def last_attempts(self) -> dict[str, orm.ProcessNode]:
        """Return the attempt of every job that has its results.

        The one that ended well, else the last one that left partial results (a later attempt that was lost does not
        hide them), else the last one.
        """
        found = {}
        for key, job in self.ctx.jobs.items():
            pk = job["pk"] if job["state"] == "done" or job["partial"] is None else job["partial"]
            if pk is not None:
                found[key] = load_process(pk)
        return found

    def failures(self) -> dict[str, str]:
        """Return the reason of every job that failed for good."""
        return {key: job["reason"] for key, job in self.ctx.jobs.items() if job["state"] == "failed"}

    def lost_jobs(self) -> dict[str, str]:
        """Return the reason of every job that was stopped from outside in each of its attempts."""
        return {key: job["reason"] for key, job in self.ctx.jobs.items() if job["state"] == "failed" and job["is_lost"]}

    def all_failed(self) -> ExitCode:
        """Return the exit code for a stage of which nothing ended usably."""
        lost, reasons = self.lost_jobs(), list(self.failures().values())
        if lost and len(lost) == len(reasons):
            return self.jobs_lost(lost)
        return self.exit_codes.ERROR_ALL_JOBS_FAILED.format(detail=reasons[-1] if reasons else "nothing")

    def jobs_lost(self, lost: Mapping[str, str]) -> ExitCode:
        """Return the exit code for a stage that lacks the results of the jobs *lost*."""
        key, reason = next(iter(lost.items()))
        detail = f"{len(lost)} of {len(self.ctx.jobs)} jobs, the last attempt at {key} with {reason}"
        return self.exit_codes.ERROR_JOBS_LOST.format(detail=detail)

    def _submit_job(self, key: str) -> None:
        job = self.ctx.jobs[key]
        previous = load_process(job["partial"]) if job["partial"] is not None else None
        options = self.inputs.options.get_dict()
        resources = JobResources(self.inputs.code, self.inputs.kernel, options, key, self._checkpoint(key))
        job["attempts"] += 1
        try:
            prepared = self.prepare_job(key, resources, previous)
            node = submit_once(self, prepared, key, job["attempts"] - 1)
        except (TypeError, ValueError) as error:
            job.update(state="failed", reason=f"refused before it ran: {error}")
            self.report(f"{self.STAGE}: job {key} was {job['reason']}")
            return
        job.update(state="running", pk=node.pk)
        self.to_context(**{f"job_{key}": node})

    def _checkpoint(self, key: str) -> orm.RemoteData | None:
        """Return the folder of the last attempt at a job, in this run or the one it resumes."""
        if self.ctx.jobs[key]["folder"] is not None:
            return cast(orm.RemoteData, orm.load_node(self.ctx.jobs[key]["folder"]))
        given = self.inputs.checkpoints if "checkpoints" in self.inputs else {}
        return given.get(key, None)

    def _inspect_job(self, key: str, job: dict[str, Any], node: orm.ProcessNode) -> None:
        if node.is_finished_ok:
            job["state"] = "done"
            return
        job["reason"] = describe_end(node)
        job["is_lost"] = not node.is_finished or node.exit_status in self.RETRIED
        if "remote_folder" in node.outputs:
            job["folder"] = node.outputs.remote_folder.pk
        if node.is_finished and node.exit_status in CONTINUABLE:
            job["partial"] = node.pk
        can_repeat = node.is_finished and node.exit_status in self.RETRIED
        if can_repeat and job["attempts"] < self.inputs.max_iterations.value:
            job["state"] = "pending"
            self.report(f"{self.STAGE}: job {key} <{node.pk}> goes on in another attempt: {job['reason']}")
            return
        job["state"] = "failed"
        self.report(f"{self.STAGE}: job {key} <{node.pk}> failed: {job['reason']}")


class SingleJobWorkChain(StageWorkChain):
    """A stage that is one job of one CalcJob class, whose inputs and outputs it passes on."""

    CALCULATION: ClassVar[type[CalcJob]]
    INPUTS: ClassVar[tuple[str, ...]]
    OUTPUTS: ClassVar[tuple[str, ...]]

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Expose inputs and outputs of the CalcJob."""
        super().define(spec)
        spec.expose_inputs(cls.CALCULATION, include=cls.INPUTS)
        spec.inputs.validator = cls.CALCULATION.spec().inputs.validator
        spec.expose_outputs(cls.CALCULATION, include=cls.OUTPUTS)

    def plan_jobs(self) -> list[str]:
        """One job does it."""
        return [self.STAGE]

    def prepare_job(self, key: str, resources: JobResources, previous: orm.ProcessNode | None) -> Job:  # noqa: ARG002
        """Return the job."""
        inputs = {name: self.inputs[name] for name in self.INPUTS if name in self.inputs}
        return Job(self.CALCULATION, {**inputs, **resources.common_inputs()})

    def attach_results(self) -> ExitCode | None:
        """Attach what the job gave."""
        jobs = self.finished_jobs()
        if not jobs:
            return self.all_failed()
        self.out_many(self.exposed_outputs(jobs[self.STAGE], self.CALCULATION))
        return None


def submit_once(parent: WorkChain, child: Job, label: str, n_before: int = 0) -> orm.ProcessNode:
    """Submit a child and return its node, unless it was submitted by a worker that was lost before it could note it.

    The links of the calls are the truth, not the context of the last checkpoint.

    :param label: of the call.
    :param n_before: children of this label that are known of, earlier attempts.
    """
    # a node without a checkpoint was stored when its worker was lost: it can never run
    called = [node for node in find_called(parent.node, label) if node.is_terminated or node.checkpoint is not None]
    if len(called) <= n_before:
        return parent.submit(child.process, **child.inputs)
    node = called[n_before]
    if node.process_state is ProcessState.CREATED and parent.runner.controller is not None:
        # its task may not have reached the broker; a second one does no harm
        parent.runner.controller.continue_process(node.pk, nowait=False, no_reply=True)
    return node


def find_called(node: orm.ProcessNode, label: str) -> list[orm.ProcessNode]:
    """Return the children of a process that were called by this label, in the order of their submission."""
    links = node.base.links.get_outgoing(link_type=(LinkType.CALL_CALC, LinkType.CALL_WORK)).all()
    found = [cast(orm.ProcessNode, link.node) for link in links if link.link_label == label]
    return sorted(found, key=lambda child: cast(int, child.pk))


def load_process(pk: int) -> orm.ProcessNode:
    """Return the process with this pk."""
    return cast(orm.ProcessNode, orm.load_node(pk))


def describe_end(node: orm.ProcessNode) -> str:
    """Return why a process did not end well, in one line."""
    if node.is_finished:
        return f"exit status {node.exit_status}: {_one_line(node.exit_message) or 'no message'}"
    if node.is_killed:
        return "it was killed"
    return f"it excepted: {_one_line(node.exception) or 'no traceback'}"


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def namespace(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return *values* with the keys of an output namespace, ``{prefix}.{key}``."""
    return {f"{prefix}.{key}": value for key, value in values.items()}
