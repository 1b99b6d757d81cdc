"""``aiida-alpot``: protocols and the table of a campaign."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiida import orm
from aiida.common.links import LinkType
from ase import Atoms
from ase.io import write
from click.testing import CliRunner, Result

from aiida_alpot import __version__
from aiida_alpot.cli import main
from aiida_alpot.data.pes import PESData
from aiida_alpot.protocols import list_protocols
from aiida_alpot.report.progress import find_history
from aiida_alpot.workflows.slots import Offer

main_module = importlib.import_module("aiida_alpot.cli.main")  # the package hides it behind the command of its name


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def row(iteration: int) -> dict[str, Any]:
    return {
        "iteration": iteration,
        "n_labels": 40 + 10 * iteration,
        "n_frames": {"train": 40},
        "errors": {
            "test": {
                "committee_mean": {"energy": 0.004, "force": 0.123 / (1 + iteration), "stress": None},
                "members": [{"energy": 0.005, "force": 0.2, "stress": None}] * 2,
                "disagreement": {"energy": 0.002, "force": 0.05, "force_max": 0.1, "stress": None},
            }
        },
        "thresholds": {"force": 0.05},
        "evaluation": {"n_candidates": 77, "n_flagged": 5, "n_selected": 4},
        "training_seconds": {"m000": 12.0, "m001": 13.0},
    }


def plant(n_rows: int) -> orm.WorkChainNode:
    """Return a campaign whose calcfunction left a history of *n_rows* iterations."""
    campaign = orm.WorkChainNode(process_type="aiida.workflows:alpot.active_learning")
    campaign.set_process_label("ActiveLearningWorkChain")
    campaign.store()
    for n in range(1, n_rows + 1):
        function = orm.CalcFunctionNode()
        function.set_process_label("extend_history")
        function.base.links.add_incoming(campaign, LinkType.CALL_CALC, f"history_{n}")
        function.store()
        history = orm.Dict({"iterations": [row(k) for k in range(n)]})
        history.base.links.add_incoming(function, LinkType.CREATE, "result")
        history.store()
    return campaign


def test_help_and_version_need_no_profile() -> None:
    assert "active learning" in call("--help").output
    assert __version__ in call("--version").output


def test_protocols_are_listed_with_a_line_each() -> None:
    result = call("protocols")
    assert result.exit_code == 0, result.output
    for name, description in list_protocols("active_learning").items():
        assert name in result.output
        assert description in result.output


@pytest.mark.usefixtures("aiida_profile")
def test_history_shows_the_latest_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    result = call("history", plant(2).pk)
    assert result.exit_code == 0, result.output
    for text in ("test split", "123.0", "61.5", "77", "13"):
        assert text in result.output


@pytest.mark.usefixtures("aiida_profile")
def test_history_draws_a_figure(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    result = call("history", plant(2).pk, "--figure", tmp_path / "errors.png")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "errors.png").stat().st_size > 0


@pytest.mark.usefixtures("aiida_profile")
def test_a_figure_in_a_missing_folder_is_named(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    result = call("history", plant(2).pk, "--figure", tmp_path / "missing" / "errors.png")
    assert result.exit_code == 1
    assert "Error: --figure: cannot write" in result.output
    assert isinstance(result.exception, SystemExit)


@pytest.mark.usefixtures("aiida_profile")
def test_a_campaign_without_iterations_says_so() -> None:
    campaign = plant(0)
    result = call("history", campaign.pk)
    assert result.exit_code == 1
    assert f"campaign <{campaign.pk}> has no finished iteration yet" in result.output


@pytest.mark.usefixtures("aiida_profile")
def test_an_unknown_campaign_is_named() -> None:
    result = call("history", 10**9)
    assert result.exit_code != 0
    assert str(10**9) in result.output


@pytest.mark.usefixtures("aiida_profile")
def test_slots_without_a_daemon_say_so() -> None:
    result = call("slots")
    assert result.exit_code == 0, result.output
    assert "the daemon has none, this profile has no broker" in result.output


@pytest.mark.usefixtures("aiida_profile")
def test_slots_fail_if_one_campaign_more_may_lock_the_daemon_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main_module, "live_demands", list)
    monkeypatch.setattr(main_module, "daemon_offer", lambda: Offer(1, 5))
    assert call("slots").exit_code == 0
    assert call("slots", "--max-concurrent", 3).exit_code == 0
    result = call("slots", "--max-concurrent", 3, "--levels", 2)
    assert result.exit_code == 1
    for text in ("one campaign more", "at least 6", "verdi daemon incr 1"):
        assert text in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tolerance", "force:0.1"], "--tolerance: expected NAME=VALUE, e.g. force=0.05, got 'force:0.1'"),
        (["--overrides", "list.yaml"], "expected inputs by name, got list"),
        (["--overrides", "broken.yaml"], "is no YAML file"),
        (["--structures", "missing.xyz"], "missing.xyz"),
        ([], "still runs"),
    ],
)
def test_resume_refuses_what_it_cannot_do(
    aiida_profile: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("list.yaml").write_text("[1, 2]")
    Path("broken.yaml").write_text("a: [1")
    result = call("-p", aiida_profile.name, "resume", plant(0).pk, *arguments)
    assert result.exit_code != 0
    assert message in result.output
    assert "Traceback" not in result.output


def test_structures_of_a_resumed_campaign_lead_to_the_file_they_came_from(
    aiida_profile: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    killed_campaign: orm.WorkChainNode,
    make_copper: Callable[..., list[Atoms]],
) -> None:
    submitted: list[Any] = []
    monkeypatch.setattr(main_module, "submit", lambda builder: submitted.append(builder) or plant(0))
    write(tmp_path / "more.xyz", make_copper(3, seed=1), format="extxyz")
    result = call("-p", aiida_profile.name, "resume", killed_campaign.pk, "--structures", tmp_path / "more.xyz")
    assert result.exit_code == 0, result.output
    frames = submitted[0].structures
    assert len(frames) == 3
    assert frames.creator.process_label == "import_frames"
    assert frames.creator.inputs.file.filename == "more.xyz"


def test_structures_are_not_stored_for_a_campaign_that_cannot_be_resumed(
    aiida_profile: Any, tmp_path: Path, make_copper: Callable[..., list[Atoms]]
) -> None:
    write(tmp_path / "more.xyz", make_copper(3, seed=1), format="extxyz")
    before = orm.QueryBuilder().append(PESData).count()
    result = call("-p", aiida_profile.name, "resume", plant(0).pk, "--structures", tmp_path / "more.xyz")
    assert "still runs" in result.output
    assert orm.QueryBuilder().append(PESData).count() == before


def test_history_of_a_resumed_campaign_begins_with_that_of_the_one_before(aiida_profile: Any) -> None:
    campaign = orm.WorkChainNode(process_type="aiida.workflows:alpot.active_learning")
    before = orm.Dict({"iterations": [row(0), row(1)]}).store()
    campaign.base.links.add_incoming(before, LinkType.INPUT_WORK, "resume__history")
    campaign.store()
    assert len(find_history(campaign)) == 2
