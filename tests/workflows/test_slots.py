"""Process slots: the formula, what live processes ask for, what the daemon offers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiida import orm
from aiida.common.links import LinkType
from aiida.engine.daemon.client import DaemonClient, DaemonException, DaemonTimeoutException
from aiida.manage.configuration.profile import Profile
from plumpy.process_states import ProcessState

from aiida_alpot.engines.label.ase import AseLabelEngine
from aiida_alpot.workflows import slots
from aiida_alpot.workflows.base import DEFAULT_MAX_CONCURRENT
from aiida_alpot.workflows.slots import (
    Demand,
    Load,
    Offer,
    campaign_demand,
    daemon_offer,
    describe_shortage,
    live_demands,
    needed_slots,
    slots_warning,
    stage_load,
)

DEADLOCK = Demand.of("campaign", [Load(parents=2, window=3, levels=2)])
"""The case that was seen to lock up with five slots."""


@pytest.fixture
def no_live_processes(aiida_profile: Any) -> None:
    """Nothing that other tests planted lives on."""
    query = orm.QueryBuilder().append(orm.ProcessNode, filters=slots._LIVE)
    for node in query.all(flat=True):
        node.set_process_state(ProcessState.KILLED)


@pytest.fixture
def live(no_live_processes: None, localhost: orm.Computer) -> Iterator[Any]:
    """Return a function that plants a live process: ``live("alpot.label", caller, engine="ase")``."""
    planted: list[orm.ProcessNode] = []

    def make(entry_point: str | None, caller: orm.ProcessNode | None = None, **inputs: Any) -> orm.ProcessNode:
        is_job = entry_point is None
        node: Any = orm.CalcJobNode(computer=localhost) if is_job else orm.WorkChainNode()
        node.process_type = f"aiida.workflows:{entry_point}"
        node.set_process_label(entry_point or "job")
        node.set_process_state(ProcessState.WAITING)
        for label, value in inputs.items():
            node.base.links.add_incoming(orm.to_aiida_type(value).store(), LinkType.INPUT_WORK, label)
        if caller is not None:
            link = LinkType.CALL_CALC if is_job else LinkType.CALL_WORK
            node.base.links.add_incoming(caller, link, f"child_{len(planted)}")
        planted.append(node.store())
        return node

    yield make
    for node in planted:
        node.set_process_state(ProcessState.KILLED)


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that sets what the daemon offers."""
    return lambda *given: monkeypatch.setattr(slots, "daemon_offer", lambda: Offer(*given))


@pytest.mark.parametrize(
    ("loads", "expected"),
    [
        ([], (0, 0)),
        ([(2, 1, 1)], (3, 3)),
        ([(2, 20, 1)], (3, 22)),
        ([(2, 3, 2)], (6, 8)),
        ([(2, 60, 3)], (123, 182)),
        ([(2, 20, 1)] * 9, (19, 198)),
        ([(2, 3, 2), (1, 5, 1)], (7, 14)),
    ],
)
def test_the_formula_sums_over_campaigns(loads: list[tuple[int, int, int]], expected: tuple[int, int]) -> None:
    assert needed_slots([Demand.of("", [Load(*load)]) for load in loads]) == expected


def test_stages_of_one_campaign_follow_each_other_so_the_largest_counts() -> None:
    demand = Demand.of("campaign", [Load(2, 20, 1), Load(2, 3, 2), Load(2, 1, 1)])
    assert (demand.held, demand.used) == (5, 22)


@pytest.mark.parametrize("n_slots", [1, 4, 5])
def test_fewer_slots_than_waiting_parents_can_hold_are_warned_of(n_slots: int) -> None:
    warning = describe_shortage([DEADLOCK], Offer(1, n_slots))
    assert warning is not None
    for text in (f"has {n_slots} ", "hold 5.", "at least 6", "and 8 ", "verdi daemon incr"):
        assert text in warning


@pytest.mark.parametrize("n_slots", [6, 7, 8, 200])
def test_one_slot_more_than_parents_can_hold_is_enough(n_slots: int) -> None:
    assert describe_shortage([DEADLOCK], Offer(1, n_slots)) is None


@pytest.mark.parametrize("n_slots", range(1, 12))
def test_the_warning_comes_exactly_where_slots_given_one_by_one_can_lock_up(n_slots: int) -> None:
    """Two campaign chains hold a slot each, then wrappers of items, greedily; a CalcJob below one ends only if it finds
    a slot. With five slots all are held by those that wait."""
    parents, window = 2, 3
    wrappers = min(window, max(0, n_slots - parents))
    is_locked = n_slots - parents - wrappers <= 0
    assert (describe_shortage([DEADLOCK], Offer(1, n_slots)) is not None) == is_locked


@pytest.mark.parametrize(("n_workers", "per_worker", "missing"), [(1, 5, 1), (1, 2, 2), (2, 2, 1), (5, 1, 1)])
def test_the_remedy_is_enough_workers(n_workers: int, per_worker: int, missing: int) -> None:
    warning = describe_shortage([DEADLOCK], Offer(n_workers, per_worker))
    assert warning is not None
    assert f"verdi daemon incr {missing}," in warning
    assert describe_shortage([DEADLOCK], Offer(n_workers + missing, per_worker)) is None


def test_without_a_daemon_nothing_holds_a_slot() -> None:
    assert describe_shortage([DEADLOCK], Offer(0, 5, "the daemon is not running")) is None


def test_a_daemon_that_does_not_say_how_many_workers_it_has_counts_as_one() -> None:
    warning = describe_shortage([DEADLOCK], Offer(None, 5, "how many run is not known: it timed out"))
    assert warning is not None
    assert "it timed out" in warning
    assert describe_shortage([DEADLOCK], Offer(None, 200, "it timed out")) is None


def test_a_stage_without_an_engine_is_one_job() -> None:
    assert stage_load("calibrate", {"max_concurrent": 50}, parents=2) == Load(2, 1, 1)


def test_a_committee_is_never_more_jobs_than_members() -> None:
    values = {"engine": "mace", "committee_size": 4}
    assert stage_load("train", values, parents=2) == Load(2, 4, 1)
    assert stage_load("train", {**values, "max_concurrent": 2}, parents=2) == Load(2, 2, 1)


def test_an_engine_whose_jobs_are_chains_holds_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AseLabelEngine, "LEVELS", 2)
    assert stage_load("label", {"engine": "ase", "max_concurrent": 3}, parents=2) == Load(2, 3, 2)


def test_an_engine_that_is_not_installed_counts_as_one_level() -> None:
    assert stage_load("label", {"engine": "none_such"}, parents=2) == Load(2, DEFAULT_MAX_CONCURRENT, 1)


@pytest.mark.usefixtures("aiida_profile")
def test_a_campaign_is_asked_for_by_its_inputs() -> None:
    inputs = {
        "label": {"engine": orm.Str("ase"), "max_concurrent": 7},
        "train": {"engine": orm.Str("mace"), "committee_size": orm.Int(9)},
        "explore": {},
        "calibrate": {"settings": orm.Dict({})},
    }
    assert campaign_demand(inputs) == Demand("this campaign", held=2, used=11)


def test_live_campaigns_count_by_their_inputs_and_others_by_what_lives(live: Any) -> None:
    campaign = live("alpot.active_learning", train__engine="mace", train__committee_size=4, calibrate__settings={})
    live("alpot.train", campaign, engine="mace", committee_size=4)
    other = live("quantumespresso.pw.base")
    live(None, other)
    live(None, other)
    assert live_demands() == [
        Demand(f"alpot.active_learning <{campaign.pk}>", held=2, used=6),
        Demand(f"quantumespresso.pw.base <{other.pk}>", held=1, used=3),
    ]


def test_the_window_of_a_live_campaign_is_read_from_its_inputs(live: Any) -> None:
    live("alpot.active_learning", label__engine="ase", label__max_concurrent=7)
    (demand,) = live_demands()
    assert (demand.held, demand.used) == (2, 9)


def test_a_stage_that_runs_alone_has_one_parent(live: Any) -> None:
    stage = live("alpot.train", engine="mace", committee_size=4)
    assert live_demands() == [Demand(f"alpot.train <{stage.pk}>", held=1, used=5)]


def test_what_lives_now_counts_if_it_is_more_than_the_inputs_say(live: Any) -> None:
    campaign = live("alpot.active_learning", train__engine="mace", train__committee_size=1)
    stage = live("alpot.train", campaign)
    for wrapper in [live("some.wrapper", stage) for _ in range(3)]:
        live(None, wrapper)
    (demand,) = live_demands()
    assert (demand.held, demand.used) == (5, 8)


def test_processes_that_ended_hold_nothing(live: Any) -> None:
    live("alpot.active_learning").set_process_state(ProcessState.FINISHED)
    assert live_demands() == []


def test_the_campaign_that_begins_counts_once(live: Any, offer: Any) -> None:
    campaign = live("alpot.active_learning", train__engine="mace", train__committee_size=4)
    inputs = {"train": {"engine": orm.Str("mace"), "committee_size": orm.Int(4)}}
    offer(1, 3)
    assert slots_warning(inputs, pk=campaign.pk) is None
    warning = slots_warning(inputs)
    assert warning is not None
    assert "hold 4." in warning


def test_live_processes_of_others_are_counted_in(live: Any, offer: Any) -> None:
    for _ in range(4):
        live("some.workflow")
    offer(1, 6)
    inputs = {"train": {"engine": orm.Str("mace"), "committee_size": orm.Int(4)}}
    assert slots_warning() is None
    assert "at least 7" in str(slots_warning(inputs))


@pytest.mark.usefixtures("aiida_profile")
def test_a_profile_without_broker_has_no_daemon() -> None:
    found = daemon_offer()
    assert (found.workers, found.slots_per_worker) == (0, 200)
    assert "no broker" in found.problem


@pytest.fixture
def daemon(aiida_profile: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A profile with a broker whose daemon seems to run."""
    monkeypatch.setattr(Profile, "process_control_backend", "core.zeromq")
    monkeypatch.setattr(DaemonClient, "is_daemon_running", True)
    monkeypatch.setattr(DaemonClient, "get_controller_endpoint", lambda _: f"ipc://{tmp_path}/nobody")
    return monkeypatch


def test_the_daemon_is_asked_for_its_workers(daemon: pytest.MonkeyPatch) -> None:
    daemon.setattr(DaemonClient, "get_numprocesses", lambda _, timeout: {"status": "ok", "numprocesses": 3})
    assert daemon_offer() == Offer(3, 200)
    assert daemon_offer().total == 600


@pytest.mark.parametrize(
    "error", [DaemonTimeoutException("timed out"), DaemonException("no way"), RuntimeError("no port"), OSError("gone")]
)
def test_a_daemon_that_cannot_be_asked_is_unknown_and_no_exception(
    daemon: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(_: object, timeout: int) -> None:
        raise error

    daemon.setattr(DaemonClient, "get_numprocesses", fail)
    found = daemon_offer()
    assert found.workers is None
    assert str(error) in found.problem


def test_a_daemon_that_is_busy_is_unknown(daemon: pytest.MonkeyPatch) -> None:
    answer = {"status": "error", "reason": "arbiter is already running"}
    daemon.setattr(DaemonClient, "get_numprocesses", lambda _, timeout: answer)
    found = daemon_offer()
    assert found.workers is None
    assert "already running" in found.problem


def test_a_daemon_that_is_not_running_offers_none(daemon: pytest.MonkeyPatch) -> None:
    daemon.setattr(DaemonClient, "is_daemon_running", False)
    assert daemon_offer() == Offer(0, 200, "the daemon is not running")


@pytest.mark.usefixtures("daemon")
def test_a_socket_that_nobody_answers_is_left_after_the_timeout() -> None:
    found = daemon_offer(timeout=1)
    assert found.workers is None
    assert found.problem
