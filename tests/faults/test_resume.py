"""A campaign that ended, well or badly, goes on from any stage: real jobs, no label computed twice, same result."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from aiida import orm
from aiida.engine import run_get_node

from aiida_alpot.data.pes import PESData
from aiida_alpot.workflows.active_learning import ActiveLearningWorkChain

sys.path.insert(0, str(Path(__file__).parent))
import campaign

pytestmark = pytest.mark.slow
resume = ActiveLearningWorkChain.get_builder_to_resume
BROKEN = {"options": {"prepend_text": "exit 1"}, "max_iterations": 1}
MENDED = {"options": {"prepend_text": ""}, "max_iterations": 4}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, aiida_profile: Any) -> Any:
    """A computer, and a ledger for each campaign."""

    class World:
        def __init__(self) -> None:
            self.folder = tmp_path_factory.mktemp("resume")
            self.computer = orm.Computer(
                "resume",
                "localhost",
                transport_type="core.local",
                scheduler_type="core.direct",
                workdir=str(self.folder),
            ).store()
            self.computer.set_minimum_job_poll_interval(0.0)
            self.computer.configure(use_login_shell=False, safe_interval=0.0)

        def ledger(self, name: str) -> Path:
            return self.folder / f"{name}.ledger"

        def run(self, name: str, overrides: dict[str, Any] | None = None) -> orm.WorkChainNode:
            code = campaign.make_code(self.computer, self.ledger(name), 0.0)
            return run_get_node(campaign.make_builder(code, overrides))[1]

    return World()


@pytest.fixture(scope="module")
def whole(world: Any) -> orm.WorkChainNode:
    """Two iterations that nothing befell."""
    return world.run("whole")


@pytest.fixture(scope="module")
def short(world: Any) -> orm.WorkChainNode:
    """One iteration that nothing befell."""
    return world.run("short", {"max_iterations": 1})


def assert_same(node: orm.WorkChainNode, expected: orm.WorkChainNode) -> None:
    assert node.is_finished_ok, node.exit_message
    assert node.outputs.dataset.content_hash == expected.outputs.dataset.content_hash
    assert node.outputs.dataset.usage_hash == expected.outputs.dataset.usage_hash
    n_labels = [[row["n_labels"] for row in n.outputs.history["iterations"]] for n in (node, expected)]
    assert n_labels[0] == n_labels[1]
    assert node.outputs.result["reason"] == expected.outputs.result["reason"]


def test_the_campaign_that_nothing_befell_labels_everything_once(world: Any, whole: orm.WorkChainNode) -> None:
    assert whole.is_finished_ok, whole.exit_message
    assert whole.outputs.result["n_iterations"] == 2
    assert campaign.twice_labelled(world.ledger("whole")) == []


@pytest.mark.parametrize("stage", ["label", "explore", "evaluate"])
def test_a_campaign_that_failed_in_a_stage_goes_on_to_the_same_end(
    world: Any, short: orm.WorkChainNode, stage: str
) -> None:
    failed = world.run(stage, {"max_iterations": 1, stage: BROKEN})
    assert failed.exit_status >= 400
    node = run_get_node(resume(failed, overrides={stage: MENDED}))[1]
    assert_same(node, short)
    assert campaign.twice_labelled(world.ledger(stage)) == []


def test_more_iterations_give_what_as_many_from_the_start_give(
    world: Any, short: orm.WorkChainNode, whole: orm.WorkChainNode
) -> None:
    assert short.outputs.result["n_iterations"] == 1
    with pytest.raises(ValueError, match="max_iterations: all 1 rounds are done"):
        resume(short)
    node = run_get_node(resume(short, overrides={"max_iterations": 2}))[1]
    assert_same(node, whole)
    assert campaign.twice_labelled(world.ledger("short")) == []


def test_more_structures_are_labelled_and_those_known_are_not(world: Any, short: orm.WorkChainNode) -> None:
    structures = PESData.from_frames([*campaign.copper_frames(5), *campaign.copper_frames(3, seed=1)])
    ledger = world.ledger("short")
    before = len(ledger.read_text().split())
    node = run_get_node(resume(short, overrides={"max_iterations": 1, "label": MENDED}, structures=structures))[1]
    assert node.is_finished_ok, node.exit_message
    assert len(ledger.read_text().split()) == before + 3
    assert node.outputs.dataset.n_labelled == short.outputs.dataset.n_labelled + 3
