"""StageWorkChain: jobs that are submitted, looked at and tried again."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, cast

from aiida import orm
from aiida.common.links import LinkType
from aiida.engine import CalcJob, ExitCode, Process, WorkChain, is_process_function, while_
from aiida.engine.processes.workchains.workchain import WorkChainSpec
from plumpy.process_states import ProcessState

from aiida_alpot.calculations.base import non_negative_validator
from aiida_alpot.calculations.kernel import get_kernel
from aiida_alpot.engines.job import CONTINUABLE, REPEATABLE, Job, JobResources
from aiida_alpot.kernel.settings import unknown_key_message
from aiida_alpot.workflows.window import WindowWorkChain

DEFAULT_MAX_ITERATIONS = 2
DEFAULT_MAX_CONCURRENT = 20
REPORTS = 20
"""Most lines on progress in the report of a stage, beside those on failures."""


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


class StageWorkChain(WindowWorkChain):
    """One stage: plans its jobs, runs at most ``max_concurrent`` at once, repeats those that can go further.

    The next job begins when one ends, so that a slow one holds nobody up.

    A subclass defines :meth:`plan_jobs`, :meth:`prepare_job` and :meth:`attach_results`. One failed job does not end
    the stage; the subclass decides in :meth:`attach_results` whether what is left is enough.
    """

    STAGE: ClassVar[str]

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
            valid_type=orm.Int,
            serializer=orm.to_aiida_type,
            default=lambda: orm.Int(DEFAULT_MAX_CONCURRENT),
            validator=non_negative_validator("max_concurrent", minimum=1),
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
            while_(cls.has_unfinished_jobs)(cls.run_jobs),
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

    @property
    def retried(self) -> frozenset[int]:
        """Exit codes of a job after which it is submitted again."""
        return REPEATABLE

    @property
    def lost_statuses(self) -> frozenset[int]:
        """Exit codes of a job that was stopped from outside, which says nothing of its inputs."""
        return self.retried

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
        try:
            keys = self.plan_jobs()
        except ValueError as error:
            return self.exit_codes.ERROR_ALL_JOBS_FAILED.format(detail=f"refused before it ran: {error}")
        self.ctx.n_jobs = len(keys)
        self.ctx.pending = keys
        self.ctx.running = {}
        self.ctx.repeated = {}
        self.ctx.failed = {}
        self.ctx.reported = -1
        return None

    def has_unfinished_jobs(self) -> bool:
        """Return whether a job is to be submitted or runs."""
        return bool(self.ctx.pending or self.ctx.running)

    def run_jobs(self) -> None:
        """Look at the jobs that ended since the last step and submit others in their place.

        The context holds what is not over and what failed; the jobs that ended well are known by their links.
        """
        running = {key: load_process(pk) for key, pk in self.ctx.running.items()}
        live = {key: node for key, node in running.items() if not node.is_terminated}
        for key in running.keys() - live.keys():
            self._inspect_job(key, running[key])
        if self.ctx.pending and not self.should_go_on():
            self.ctx.pending = []
        n_pending = len(self.ctx.pending)
        while self.ctx.pending and len(live) < self.inputs.max_concurrent.value:
            key = self.ctx.pending.pop(0)
            node = self._submit_job(key)
            if node is not None:
                live[key] = node
        self.ctx.running = {key: node.pk for key, node in live.items()}
        n_ended = self.ctx.n_jobs - len(self.ctx.pending) - len(live)
        share = REPORTS * n_ended // max(self.ctx.n_jobs, 1)
        if len(self.ctx.pending) < n_pending and share != self.ctx.reported:
            self.ctx.reported = share
            self.report(f"{self.STAGE}: {n_ended} of {self.ctx.n_jobs} jobs have ended, {len(live)} run")
        self.wait_for_any(live)

    def should_go_on(self) -> bool:
        """Return whether the jobs that wait are worth beginning."""
        return True

    def finished_jobs(self) -> dict[str, orm.ProcessNode]:
        """Return the last attempt of every job that ended well, by key."""
        return {key: nodes[-1] for key, nodes in find_jobs(self.node).items() if nodes[-1].is_finished_ok}

    def last_attempts(self) -> dict[str, orm.ProcessNode]:
        """Return the attempt of every job that has its results, by key.

        The one that ended well, else the last one that left partial results (a later attempt that was lost does not
        hide them), else the last one.
        """
        return {key: self._latest_partial(nodes) or nodes[-1] for key, nodes in find_jobs(self.node).items()}

    def failures(self) -> dict[str, str]:
        """Return the reason of every job that failed for good."""
        return {key: job["reason"] for key, job in self.ctx.failed.items()}

    def lost_jobs(self) -> dict[str, str]:
        """Return the reason of every job that was stopped from outside in each of its attempts."""
        return {key: job["reason"] for key, job in self.ctx.failed.items() if job["is_lost"]}

    def all_failed(self) -> ExitCode:
        """Return the exit code for a stage of which nothing ended usably."""
        lost, reasons = self.lost_jobs(), list(self.failures().values())
        if lost and len(lost) == len(reasons):
            return self.jobs_lost(lost)
        return self.exit_codes.ERROR_ALL_JOBS_FAILED.format(detail=reasons[-1] if reasons else "nothing")

    def jobs_lost(self, lost: Mapping[str, str]) -> ExitCode:
        """Return the exit code for a stage that lacks the results of the jobs *lost*."""
        key, reason = next(iter(lost.items()))
        detail = f"{len(lost)} of {self.ctx.n_jobs} jobs, the last attempt at {key} with {reason}"
        return self.exit_codes.ERROR_JOBS_LOST.format(detail=detail)

    def _submit_job(self, key: str) -> orm.ProcessNode | None:
        """Submit the next attempt at a job, None if its inputs are refused."""
        n_before = self.ctx.repeated.get(key, 0)

        def prepare() -> Job:
            before = find_called(self.node, key)[:n_before] if n_before else []
            options, checkpoint = self.inputs.options.get_dict(), self._checkpoint(key, before)
            resources = JobResources(self.inputs.code, self.inputs.kernel, options, key, checkpoint, n_before)
            return self.prepare_job(key, resources, self._latest_partial(before))

        try:
            return submit_once(self, prepare, key, n_before)
        except (TypeError, ValueError) as error:
            self._note_failure(key, "", f"refused before it ran: {error}", is_lost=False)
            return None

    def _checkpoint(self, key: str, before: Sequence[orm.ProcessNode]) -> orm.RemoteData | None:
        """Return the folder of the last attempt at a job, in this run or the one it resumes."""
        folders = [node.outputs.remote_folder for node in before if "remote_folder" in node.outputs]
        if folders:
            return cast(orm.RemoteData, folders[-1])
        given = self.inputs.checkpoints if "checkpoints" in self.inputs else {}
        return given.get(key, None)

    def _latest_partial(self, attempts: Sequence[orm.ProcessNode]) -> orm.ProcessNode | None:
        """Return the last attempt that left results, all or part of them."""
        partial = CONTINUABLE & self.retried
        usable = [node for node in attempts if node.is_finished_ok or node.exit_status in partial]
        return usable[-1] if usable else None

    def _inspect_job(self, key: str, node: orm.ProcessNode) -> None:
        """Note the end of an attempt: the job is over, or to be submitted again."""
        if node.is_finished_ok:
            return
        reason = self.describe_end(node)
        n_attempts = self.ctx.repeated.get(key, 0) + 1
        is_lost = self.was_lost(node)
        can_repeat = node.is_finished and (is_lost or node.exit_status in self.retried)
        if can_repeat and n_attempts < self.inputs.max_iterations.value:
            self.ctx.repeated[key] = n_attempts
            self.ctx.pending.insert(0, key)
            self.report(f"{self.STAGE}: job {key} <{node.pk}> goes on in another attempt: {reason}")
            return
        self._note_failure(key, f" <{node.pk}>", reason, is_lost=is_lost)

    def was_lost(self, node: orm.ProcessNode) -> bool:
        """Return whether an attempt was stopped from outside, which says nothing of its inputs."""
        return not node.is_finished or node.exit_status in self.lost_statuses

    def describe_end(self, node: orm.ProcessNode) -> str:
        """Return why an attempt did not end well, in one line."""
        return describe_end(node)

    def _note_failure(self, key: str, where: str, reason: str, *, is_lost: bool) -> None:
        self.ctx.failed[key] = {"reason": reason, "is_lost": is_lost}
        self.report(f"{self.STAGE}: job {key}{where} failed: {reason}")


class SingleJobWorkChain(StageWorkChain):
    """A stage that is one job of one CalcJob class, whose inputs and outputs it passes on."""

    CALCULATION: ClassVar[type[CalcJob]]
    INPUTS: ClassVar[tuple[str, ...]]
    OUTPUTS: ClassVar[tuple[str, ...]]

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Expose inputs and outputs of the CalcJob."""
        super().define(spec)
        expose_inputs(spec, cls.CALCULATION, include=cls.INPUTS)
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


def expose_inputs(spec: WorkChainSpec, process: type[Process], namespace: str | None = None, **options: Any) -> None:
    """Expose inputs of another process, and no others: AiiDA lets such a namespace take any, misspelt ones too."""
    spec.expose_inputs(process, namespace=namespace, **options)
    ports = spec.inputs if namespace is None else spec.inputs[namespace]
    ports.dynamic = False


def submit_once(parent: WorkChain, prepare: Callable[[], Job], label: str, n_before: int = 0) -> orm.ProcessNode:
    """Submit a child and return its node, unless it was submitted by a worker that was lost before it could note it.

    A function is called, since it cannot be submitted; one that raises is a child that excepted. The links of the
    calls are the truth, not the context of the last checkpoint.

    :param prepare: makes the child, if it is to be submitted.
    :param label: of the call.
    :param n_before: children of this label that are known of, earlier attempts.
    """
    called = find_called(parent.node, label)
    if len(called) <= n_before:
        child = prepare()
        if is_process_function(child.process):
            return _call_function(parent, child, label)
        return parent.submit(child.process, **child.inputs)
    node = called[n_before]
    if node.process_state is ProcessState.CREATED and parent.runner.controller is not None:
        # its task may not have reached the broker; a second one does no harm
        parent.runner.controller.continue_process(node.pk, nowait=False, no_reply=True)
    return node


def _call_function(parent: WorkChain, child: Job, label: str) -> orm.ProcessNode:
    function: Any = child.process
    try:
        return cast(orm.ProcessNode, function.run_get_node(**child.inputs)[1])
    except Exception:
        called = find_called(parent.node, label)
        if not called:  # its inputs were refused
            raise
        return called[-1]


def find_jobs(node: orm.ProcessNode) -> dict[str, list[orm.ProcessNode]]:
    """Return the attempts at every job that a stage has called, by key, in the order of their submission."""
    found: dict[str, list[orm.ProcessNode]] = {}
    for label, child in _called(node, None):
        if isinstance(child, (orm.CalcJobNode, orm.WorkChainNode)):
            found.setdefault(label, []).append(child)
    return found


def find_called(node: orm.ProcessNode, label: str) -> list[orm.ProcessNode]:
    """Return the children of a process that were called by this label, in the order of their submission."""
    return [child for found, child in _called(node, label) if found == label]


def _called(node: orm.ProcessNode, pattern: str | None) -> list[tuple[str, orm.ProcessNode]]:
    """Return labels and children, without those that a lost worker stored but without a checkpoint: they never run."""
    calls = (LinkType.CALL_CALC, LinkType.CALL_WORK)
    links = node.base.links.get_outgoing(link_type=calls, link_label_filter=pattern).all()
    children = [(link.link_label, cast(orm.ProcessNode, link.node)) for link in links]
    usable = [call for call in children if call[1].is_terminated or call[1].checkpoint is not None]
    return sorted(usable, key=lambda call: cast(int, call[1].pk))


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
