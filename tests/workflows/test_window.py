"""WindowWorkChain with real children: these tests pin the hooks of aiida-core that it extends."""

from __future__ import annotations

import shutil

import pytest
from aiida import orm
from aiida.calculations.arithmetic.add import ArithmeticAddCalculation
from aiida.engine import ExitCode, WorkChain, run_get_node
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_alpot.engines.job import Job, JobResources
from aiida_alpot.workflows.base import StageWorkChain, find_jobs
from aiida_alpot.workflows.window import WindowWorkChain

SLOW_SECONDS = 20


class SumsWorkChain(StageWorkChain):
    """Adds numbers in several jobs, of which the first is slow."""

    STAGE = "sums"

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Declare the numbers."""
        super().define(spec)
        spec.input("n_sums", valid_type=orm.Int)
        spec.input("sleep", valid_type=orm.Int)
        spec.output("total", valid_type=orm.Int)

    def plan_jobs(self) -> list[str]:
        """One job a sum."""
        return [f"s{k:03d}" for k in range(self.inputs.n_sums.value)]

    def prepare_job(self, key: str, resources: JobResources, previous: orm.ProcessNode | None) -> Job:
        """Add the number of the job to itself; a negative number fails."""
        number = orm.Int(int(key[1:]))
        sleep = self.inputs.sleep.value if key == "s000" else 0
        metadata = {"call_link_label": key, "options": {"sleep": sleep, "resources": {"num_machines": 1}}}
        return Job(ArithmeticAddCalculation, {"code": resources.code, "x": number, "y": number, "metadata": metadata})

    def attach_results(self) -> ExitCode | None:
        """Attach the number of sums."""
        self.out("total", orm.Int(len(self.finished_jobs())).store())
        return None


@pytest.fixture
def bash(localhost: orm.Computer) -> orm.InstalledCode:
    return orm.InstalledCode(computer=localhost, filepath_executable=shutil.which("bash")).store()


def test_the_next_child_begins_when_one_ends_and_the_slowest_holds_nobody(bash: orm.InstalledCode) -> None:
    inputs = {"n_sums": orm.Int(5), "sleep": orm.Int(SLOW_SECONDS), "max_concurrent": 2}
    outputs, node = run_get_node(SumsWorkChain, code=bash, **inputs)
    jobs = {key: attempts[-1] for key, attempts in find_jobs(node).items()}
    assert outputs["total"].value == 5
    assert sorted(jobs) == ["s000", "s001", "s002", "s003", "s004"]
    slow = jobs["s000"]
    # with a barrier s002 would begin after s000 had ended
    assert jobs["s002"].ctime < slow.mtime


def test_no_child_is_submitted_twice(bash: orm.InstalledCode) -> None:
    _, node = run_get_node(SumsWorkChain, code=bash, n_sums=orm.Int(4), sleep=orm.Int(0), max_concurrent=3)
    assert [len(attempts) for attempts in find_jobs(node).values()] == [1, 1, 1, 1]


def test_a_child_that_ended_between_two_steps_is_not_missed(bash: orm.InstalledCode) -> None:
    """With a window of one, every child may have ended before the next step waits."""
    outputs, _ = run_get_node(SumsWorkChain, code=bash, n_sums=orm.Int(3), sleep=orm.Int(0), max_concurrent=1)
    assert outputs["total"].value == 3


class TwoAtOnceWorkChain(WindowWorkChain):
    """Waits for all children the ordinary way."""

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """One step submits, the other looks."""
        super().define(spec)
        spec.input("code", valid_type=orm.AbstractCode)
        spec.outline(cls.start, cls.look)

    def start(self) -> None:
        """Put two children into the context."""
        for key in ("first", "second"):
            metadata = {"call_link_label": key, "options": {"resources": {"num_machines": 1}}}
            numbers = {"x": orm.Int(1), "y": orm.Int(2)}
            child = self.submit(ArithmeticAddCalculation, code=self.inputs.code, metadata=metadata, **numbers)
            self.to_context(**{key: child})

    def look(self) -> None:
        """Both are there."""
        assert {self.ctx[key].outputs.sum.value for key in ("first", "second")} == {3}


def test_a_step_that_names_no_window_waits_for_all_as_ever(bash: orm.InstalledCode) -> None:
    _, node = run_get_node(TwoAtOnceWorkChain, code=bash)
    assert node.is_finished_ok


def test_the_hooks_exist_in_this_version_of_aiida() -> None:
    for name in ("_action_awaitables", "_on_awaitable_finished", "_update_process_status"):
        assert callable(getattr(WorkChain, name))
