"""StageWorkChain: a window of jobs, what is tried again and what is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from aiida import orm
from aiida.common.links import LinkType
from aiida.engine import CalcJob
from plumpy.process_states import ProcessState

from aiida_alpot.engines.job import REPEATABLE
from aiida_alpot.workflows.base import describe_end, validate_options
from aiida_alpot.workflows.train import TrainingWorkChain


@pytest.fixture
def stage(start: Callable[..., Any], python_code: Any, pes: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that starts a stage of three jobs."""

    def make(child: Callable[[Any], Any], **inputs: Any) -> Any:
        given = {
            "code": python_code,
            "dataset": pes(6, labelled=True),
            "parameters": orm.Dict({}),
            "committee_size": orm.Int(3),
            "seed": orm.Int(7),
        }
        return start(TrainingWorkChain, child, **{**given, **inputs})

    return make


@pytest.fixture
def trained(plant: Callable[..., Any], potential: Callable[..., Any]) -> Callable[[Any], Any]:
    """Return a child that trained well."""

    def make(submission: Any) -> Any:
        report = orm.Dict({"results": {"rmse": {"train": {"energy": 0.1}}}, "seconds": 1.0})
        return plant(potential=potential(submission.label), report=report)

    return make


def in_turn(*children: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return one child after the other for every key, the last one for ever."""
    attempts: dict[str, int] = {}

    def child(submission: Any) -> Any:
        number = attempts.get(submission.label, 0)
        attempts[submission.label] = number + 1
        return children[min(number, len(children) - 1)](submission)

    return child


def test_setup_plans_every_job_as_pending(stage: Any, trained: Any) -> None:
    rig = stage(trained)
    rig.step("setup")
    assert rig.process.ctx.pending == ["m000", "m001", "m002"]
    assert rig.process.has_unfinished_jobs()


def test_no_more_than_max_concurrent_jobs_run_at_once(stage: Any, trained: Any) -> None:
    rig = stage(trained, max_concurrent=2)
    assert rig.process.node.inputs.max_concurrent.value == 2
    rig.step("setup")
    rig.step("run_jobs")
    assert rig.labels == ["m000", "m001"]
    assert rig.process.has_unfinished_jobs()
    rig.step("run_jobs")
    assert rig.labels == ["m000", "m001", "m002"]
    rig.step("run_jobs")
    assert not rig.process.has_unfinished_jobs()


def test_a_slow_job_holds_nobody_up(stage: Any, trained: Any, plant: Any) -> None:
    slow = plant(state=ProcessState.RUNNING)
    rig = stage(lambda s: slow if s.label == "m000" else trained(s), max_concurrent=2)
    rig.step("setup")
    for _ in range(3):
        rig.step("run_jobs")
    assert rig.labels == ["m000", "m001", "m002"]
    assert rig.process.ctx.running == {"m000": slow.pk}
    assert rig.process.has_unfinished_jobs()


def test_a_job_that_is_repeated_goes_before_those_that_wait(stage: Any, trained: Any, plant: Any) -> None:
    lost = lambda _: plant(exit_status=302)  # noqa: E731
    rig = stage(in_turn(lost, trained), max_concurrent=1, committee_size=orm.Int(2))
    rig.run()
    assert rig.labels == ["m000", "m000", "m001", "m001"]


def test_the_context_does_not_grow_with_the_jobs_that_ended_well(stage: Any, trained: Any) -> None:
    rig = stage(trained)
    rig.run()
    known = ("n_jobs", "pending", "running", "repeated", "failed")
    assert {key: rig.process.ctx[key] for key in known} == dict(zip(known, (3, [], {}, {}, {}), strict=True))
    assert set(rig.process.ctx) - {*known, *rig.labels} == {"seeds", "reported"}


def test_max_concurrent_below_one_is_refused(stage: Any, trained: Any) -> None:
    with pytest.raises(ValueError, match="max_concurrent: expected at least 1"):
        stage(trained, max_concurrent=0)


def test_jobs_get_code_kernel_options_and_a_label(stage: Any, trained: Any, python_code: Any) -> None:
    options = {"max_wallclock_seconds": 120, "resources": {"num_machines": 1}}
    rig = stage(trained, options=orm.Dict(options))
    rig.run()
    sent = rig.sent("m001")
    assert sent["code"].uuid == python_code.uuid
    assert sent["kernel"].uuid == rig.process.inputs.kernel.uuid
    assert sent["metadata"] == {"options": options, "label": "m001", "call_link_label": "m001"}


def test_jobs_that_end_well_are_done(stage: Any, trained: Any) -> None:
    rig = stage(trained)
    assert rig.run() is None
    assert sorted(rig.process.finished_jobs()) == ["m000", "m001", "m002"]
    assert rig.process.failures() == {}


def test_a_failed_job_is_not_repeated_and_keeps_its_reason(stage: Any, trained: Any, plant: Any) -> None:
    rig = stage(lambda s: plant(exit_status=411, message="it diverged") if s.label == "m001" else trained(s))
    assert rig.run() is None
    assert rig.labels.count("m001") == 1
    assert rig.process.failures() == {"m001": "exit status 411: it diverged"}


@pytest.mark.parametrize("exit_status", [100, 110, 120, 140, 302, 305, 413, 500, 501])
def test_a_lost_or_interrupted_job_is_tried_again(stage: Any, trained: Any, plant: Any, exit_status: int) -> None:
    lost = lambda _: plant(exit_status=exit_status, remote_folder=_remote(plant))  # noqa: E731
    rig = stage(in_turn(lost, trained), committee_size=orm.Int(2))
    assert rig.run() is None
    assert sorted(rig.labels) == ["m000", "m000", "m001", "m001"]
    assert sorted(rig.process.finished_jobs()) == ["m000", "m001"]


def _remote(plant: Any) -> orm.RemoteData:
    computer = orm.load_computer("localhost")
    return orm.RemoteData(remote_path="/tmp/checkpoint", computer=computer)


def test_a_job_fails_for_good_after_max_iterations(stage: Any, plant: Any) -> None:
    rig = stage(lambda _: plant(exit_status=302, message="no report"), max_iterations=orm.Int(3))
    exit_code = rig.run()
    assert exit_code.status == 403
    assert "no report" in exit_code.message
    assert "resume the campaign" in exit_code.message
    assert rig.labels.count("m000") == 3
    assert sorted(rig.process.failures()) == ["m000", "m001", "m002"]


def test_max_iterations_of_one_never_repeats(stage: Any, plant: Any) -> None:
    rig = stage(lambda _: plant(exit_status=302), max_iterations=orm.Int(1))
    assert rig.run().status == 403
    assert rig.labels == ["m000", "m001", "m002"]


def test_a_killed_child_is_not_retried_and_counts_as_lost(stage: Any, trained: Any, plant: Any) -> None:
    rig = stage(lambda s: plant(state=ProcessState.KILLED) if s.label == "m000" else trained(s))
    assert rig.run().status == 403
    assert rig.labels.count("m000") == 1
    assert rig.process.failures() == {"m000": "it was killed"}


def test_an_excepted_child_is_not_retried_and_counts_as_lost(stage: Any, trained: Any, plant: Any) -> None:
    broken = {"state": ProcessState.EXCEPTED, "exception": "KeyError: 'x'\n"}
    rig = stage(lambda s: plant(**broken) if s.label == "m000" else trained(s))
    assert rig.run().status == 403
    assert rig.labels.count("m000") == 1
    assert rig.process.failures() == {"m000": "it excepted: KeyError: 'x'"}


@pytest.mark.parametrize("error", [ValueError, TypeError])
def test_a_refused_submission_fails_the_job_and_the_stage_goes_on(stage: Any, trained: Any, error: Any) -> None:
    def child(submission: Any) -> Any:
        if submission.label == "m000":
            raise error("queue_name is unknown")
        return trained(submission)

    rig = stage(child)
    assert rig.run() is None
    assert rig.process.failures() == {"m000": "refused before it ran: queue_name is unknown"}
    assert sorted(rig.process.finished_jobs()) == ["m001", "m002"]


def test_a_stage_of_which_all_is_refused_ends_with_401(stage: Any) -> None:
    def refuse(_: Any) -> Any:
        raise ValueError("queue_name is unknown")

    exit_code = stage(refuse).run()
    assert exit_code.status == 401
    assert "refused before it ran: queue_name is unknown" in exit_code.message


def test_a_lost_attempt_does_not_hide_the_partial_results_before_it(stage: Any, plant: Any) -> None:
    partial = lambda _: plant(exit_status=500, remote_folder=_remote(plant))  # noqa: E731
    lost = lambda _: plant(exit_status=302)  # noqa: E731
    rig = stage(in_turn(partial, lost, lost), max_iterations=orm.Int(3), committee_size=orm.Int(2))
    rig.run()
    first = rig.submissions[0].node
    assert rig.process.last_attempts()["m000"].pk == first.pk
    checkpoints = [s.inputs["checkpoint"].pk for s in rig.submissions if s.label == "m000" and "checkpoint" in s.inputs]
    assert checkpoints == [first.outputs.remote_folder.pk] * 2


def test_the_stage_survives_a_restart_after_every_step(stage: Any, trained: Any, plant: Any) -> None:
    lost = lambda _: plant(exit_status=302)  # noqa: E731
    rig = stage(in_turn(lost, trained), max_concurrent=2)
    assert rig.run(restarting=True) is None
    assert sorted(rig.labels) == sorted(["m000", "m001", "m002"] * 2)


def test_what_is_lost_may_come_back_but_a_bad_account_or_input_may_not() -> None:
    codes = CalcJob.exit_codes
    assert codes.ERROR_SCHEDULER_NODE_FAILURE.status in REPEATABLE
    assert codes.ERROR_SCHEDULER_INVALID_ACCOUNT.status not in REPEATABLE


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"max_walltime": 3600}, "'max_wallclock_seconds'"),
        ({"queue": "debug"}, "'queue_name'"),
        ({"max_wallclock_seconds": "an hour"}, "options.max_wallclock_seconds"),
    ],
)
def test_wrong_options_are_refused_by_name(aiida_profile: Any, options: dict[str, Any], expected: str) -> None:
    message = validate_options(orm.Dict(options), None)
    assert message is not None
    assert message.startswith("options")
    assert expected in message


def test_known_options_pass(aiida_profile: Any) -> None:
    options = {"resources": {"num_machines": 1}, "max_wallclock_seconds": 60, "queue_name": "debug", "withmpi": True}
    assert validate_options(orm.Dict(options), None) is None


def test_the_end_of_a_process_is_told_in_one_line(plant: Any) -> None:
    assert describe_end(plant(exit_status=400, message="first\nsecond")) == "exit status 400: first second"
    assert describe_end(plant(exit_status=400)) == "exit status 400: no message"
    assert describe_end(plant(state=ProcessState.EXCEPTED)) == "it excepted: no traceback"


def test_a_planted_output_is_linked_to_its_child(plant: Any) -> None:
    node = plant(report=orm.Dict({}))
    assert node.base.links.get_outgoing(link_type=LinkType.CREATE).all_link_labels() == ["report"]


def test_a_job_that_a_lost_worker_has_submitted_is_not_submitted_again(
    stage: Any, trained: Any, localhost: orm.Computer
) -> None:
    rig = stage(trained)
    orphan = orm.CalcJobNode(computer=localhost)
    orphan.base.links.add_incoming(rig.process.node, LinkType.CALL_CALC, "m001")
    orphan.set_process_state(ProcessState.FINISHED)
    orphan.set_exit_status(400)
    orphan.store()
    rig.run()
    assert rig.labels == ["m000", "m002"]
    assert rig.process.failures() == {"m001": "exit status 400: no message"}


def test_a_job_that_was_stored_but_can_never_run_is_submitted_anew(
    stage: Any, trained: Any, localhost: orm.Computer
) -> None:
    rig = stage(trained)
    orphan = orm.CalcJobNode(computer=localhost)
    orphan.base.links.add_incoming(rig.process.node, LinkType.CALL_CALC, "m001")
    orphan.store()
    assert rig.run() is None
    assert rig.labels == ["m000", "m001", "m002"]
