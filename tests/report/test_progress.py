"""What is shown of a campaign while it runs."""

from __future__ import annotations

import io

import pytest
from aiida import orm
from plumpy.process_states import ProcessState
from rich.console import Console

from aiida_alpot.report import progress
from aiida_alpot.report.progress import Progress, render_progress, watch
from aiida_alpot.report.slots import describe_offer
from aiida_alpot.workflows.slots import Demand, Load, Offer

WARNING = "process slots: the daemon has too few"
CAMPAIGN = Demand.of("campaign", [Load(parents=2, window=20)])


def shown(state: Progress, warning: str | None) -> str:
    buffer = io.StringIO()
    Console(file=buffer, width=200).print(render_progress(state, 12.0, warning))
    return buffer.getvalue()


def test_a_warning_stands_below_the_progress() -> None:
    state = Progress("running", False, "iteration_00_train", 1, 3, "", [])
    lines = shown(state, WARNING).splitlines()
    assert "1/3 jobs" in lines[0]
    assert lines[1].strip() == WARNING
    assert WARNING not in shown(state, None)


@pytest.mark.usefixtures("aiida_profile")
def test_watching_warns_once_and_asks_the_daemon_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    campaign = orm.WorkChainNode()
    campaign.set_process_state(ProcessState.RUNNING)
    campaign.store()
    asked = []
    naps = []

    def nap(_: float) -> None:
        naps.append(1)
        if len(naps) == 3:
            campaign.set_process_state(ProcessState.FINISHED)

    monkeypatch.setattr(progress, "slots_warning", lambda: asked.append(1) or WARNING)
    monkeypatch.setattr(progress.time, "sleep", nap)
    buffer = io.StringIO()
    watch(campaign, console=Console(file=buffer, width=200))
    assert buffer.getvalue().count(WARNING) == 1
    assert len(asked) == 1
    assert len(naps) == 3


@pytest.mark.parametrize(
    ("offer", "text"),
    [
        (Offer(1, 200), "has 200 (1 × 200)"),
        (Offer(1, 10), "has 10 (1 × 10); jobs will wait for a slot now and then"),
        (Offer(0, 200, "the daemon is not running"), "has none, the daemon is not running"),
        (Offer(None, 200, "how many run is not known: x"), "has 200 a worker, how many run is not known: x"),
    ],
)
def test_the_line_on_slots_says_what_is_needed_and_there(offer: Offer, text: str) -> None:
    line = describe_offer([CAMPAIGN], offer)
    assert line.startswith("needed: at least 3, 22 so that no job waits")
    assert line.endswith(text)
