"""Where a campaign is resumed, and what is refused; tests/faults/test_resume.py resumes real ones."""

from __future__ import annotations

from typing import Any

import pytest
from aiida import orm
from aiida.common.links import LinkType
from aiida.plugins import WorkflowFactory
from plumpy.process_states import ProcessState

from aiida_alpot.data.pes import PESData
from aiida_alpot.protocols import change_inputs
from aiida_alpot.workflows.active_learning import ActiveLearningWorkChain
from aiida_alpot.workflows.resume import Campaign, Reached, choose_stage


@pytest.mark.parametrize(
    ("reached", "wanted", "changed", "first"),
    [
        ("label", None, set(), "label"),
        ("label", None, {"max_iterations", "convergence"}, "label"),
        ("explore", None, {"calibrate", "convergence"}, "calibrate"),
        ("explore", None, {"structures"}, "train"),
        ("label", None, {"explore_from"}, "explore"),
        ("label", "evaluate", {"explore"}, "explore"),
        ("label", "train", {"explore"}, "train"),
        ("structures", None, {"train"}, "structures"),
    ],
)
def test_it_begins_with_the_earliest_stage_that_is_concerned(reached, wanted, changed, first) -> None:
    assert choose_stage(Reached(reached), wanted, changed) == first


def test_labels_of_the_iteration_are_learnt_from_when_an_earlier_stage_begins(pes: Any) -> None:
    reached = Reached("label", extended=pes(2, labelled=True))
    assert choose_stage(reached, None, set()) == "label"
    assert choose_stage(reached, "evaluate", set()) == "train"
    assert choose_stage(reached, None, {"calibrate"}) == "train"


def test_a_stage_that_was_not_reached_or_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="'label' was not reached, the campaign ended in 'explore'"):
        choose_stage(Reached("explore"), "label", set())
    with pytest.raises(ValueError, match="the structures are labelled; begin with a stage of the iteration"):
        choose_stage(Reached("explore"), "structures", set())
    assert choose_stage(Reached("structures"), "structures", set()) == "structures"
    with pytest.raises(ValueError, match="did you mean 'explore'"):
        choose_stage(Reached("label"), "exlore", set())


def test_a_campaign_that_runs_is_refused(aiida_profile: Any) -> None:
    node = orm.WorkChainNode()
    node.set_process_state(ProcessState.WAITING)
    with pytest.raises(ValueError, match=r"still runs; wait for it, or end it: verdi process kill"):
        ActiveLearningWorkChain.get_builder_to_resume(node.store())


def test_tolerances_and_overrides_of_the_same_stage_both_change_it(killed_campaign: orm.WorkChainNode) -> None:
    before = killed_campaign.inputs.calibrate.settings.get_dict()
    builder = ActiveLearningWorkChain.get_builder_to_resume(
        killed_campaign,
        tolerances={"force": 0.05},
        overrides={"calibrate": {"settings": {"n_min": 3}}, "convergence": {"patience": 2}},
    )
    wanted = {"energy": 0.004, "force": 0.05}
    assert builder.calibrate.settings.get_dict() == {**before, "tolerances": wanted, "n_min": 3}
    assert builder.convergence.get_dict() == {"tolerances": wanted, "patience": 2}


def test_a_tolerance_in_the_overrides_wins_over_the_one_given_beside_them(killed_campaign: orm.WorkChainNode) -> None:
    builder = ActiveLearningWorkChain.get_builder_to_resume(
        killed_campaign,
        tolerances={"energy": 0.002, "force": 0.05},
        overrides={"calibrate": {"settings": {"tolerances": {"force": 0.2}}}},
    )
    assert builder.calibrate.settings["tolerances"] == {"energy": 0.002, "force": 0.2}
    assert builder.convergence["tolerances"] == {"energy": 0.002, "force": 0.05}


def make_campaign(stages: dict[str, dict[str, Any]]) -> orm.WorkChainNode:
    """Return a failed campaign that called a splitting and these stages: exit status and outputs by link label."""
    node = orm.WorkChainNode(process_type="aiida.workflows:alpot.active_learning")
    node.set_process_state(ProcessState.FINISHED)
    node.set_exit_status(405)
    node.store()
    for label, content in stages.items():
        function = label in ("split_dataset", "extend_dataset", "extend_history")
        child = orm.CalcFunctionNode() if function else orm.WorkChainNode()
        child.set_process_label(label)
        child.set_process_state(ProcessState.FINISHED)
        child.set_exit_status(content.get("exit_status", 0))
        link = LinkType.CALL_CALC if function else LinkType.CALL_WORK
        child.base.links.add_incoming(node, link, label)
        for name, value in content.get("inputs", {}).items():
            child.base.links.add_incoming(value.store(), LinkType.INPUT_CALC if function else LinkType.INPUT_WORK, name)
        child.store()
        for name, value in content.get("outputs", {}).items():
            if function:
                value.base.links.add_incoming(child, LinkType.CREATE, name)
                value.store()
            else:
                value.store()
                value.base.links.add_incoming(child, LinkType.RETURN, name)
    return node


@pytest.fixture
def unstored(pes: Any) -> Any:
    return lambda n, seed: pes(n, labelled=True, seed=seed).clone()


def test_a_failed_exploration_is_begun_again_with_committee_and_error_bars(
    unstored: Any, committee: Any, error_bars: Any
) -> None:
    potentials = committee()
    bars = error_bars(potentials)
    first = unstored(4, 1)
    campaign = make_campaign(
        {
            "split_dataset": {"outputs": {"result": first}},
            "iteration_00_train": {
                "outputs": {**{f"potentials__{k}": v for k, v in potentials.items()}, "report": orm.Dict({"t": 1})}
            },
            "iteration_00_calibrate": {"outputs": {"uncertainty": bars, "report": orm.Dict({"c": 1})}},
            "iteration_00_explore": {"exit_status": 403},
        },
    )
    reached = Campaign(campaign).reached
    assert (reached.stage, reached.history, reached.extended) == ("explore", None, None)
    assert reached.dataset.uuid == first.uuid == reached.starting.uuid
    assert set(reached.potentials) == set(potentials)
    assert reached.uncertainty.uuid == bars.uuid
    assert {name: report.get_dict() for name, report in reached.reports.items()} == {
        "training": {"t": 1},
        "calibration": {"c": 1},
    }


def test_labels_of_a_labelling_that_failed_are_kept_apart_from_the_dataset_it_began_with(
    unstored: Any, pes: Any
) -> None:
    before, after, labelled = unstored(4, 1), unstored(6, 2), pes(2, labelled=True, seed=3)
    campaign = make_campaign(
        {
            "split_dataset": {"outputs": {"result": before}},
            "iteration_00_label": {"exit_status": 402, "outputs": {"labelled": labelled}},
            "extend_dataset": {"inputs": {"dataset": before, "labelled": labelled}, "outputs": {"result": after}},
        },
    )
    reached = Campaign(campaign).reached
    assert reached.stage == "label"
    assert (reached.dataset.uuid, reached.extended.uuid) == (before.uuid, after.uuid)
    assert reached.selected.uuid == labelled.uuid
    assert reached.checkpoints == {}


def test_labels_that_a_labelling_has_set_aside_stay_so_in_a_campaign_that_was_killed_behind_it(
    unstored: Any, pes: Any
) -> None:
    before, mended, labelled = unstored(4, 1), pes(4, labelled=True, failed=1), pes(2, labelled=True, seed=3)
    stages = {
        "split_dataset": {"outputs": {"result": before}},
        "iteration_00_label": {"outputs": {"labelled": labelled, "known": mended}},
    }
    reached = Campaign(make_campaign(stages)).reached
    assert (reached.dataset.uuid, reached.extended) == (mended.uuid, None)


def test_overrides_change_one_key_of_a_dict_and_name_what_does_not_exist(python_code: Any) -> None:
    work_chain = WorkflowFactory("alpot.active_learning")
    builder = work_chain.get_builder_from_protocol(
        python_code, protocol="fast", overrides={"label": {"parameters": {"calculator": "ase.calculators.emt:EMT"}}}
    )
    before = builder.explore.settings.get_dict()
    change_inputs(builder, work_chain.spec().inputs, {"explore": {"settings": {"n_steps": 7}}, "max_iterations": 3})
    assert builder.explore.settings.get_dict() == {**before, "n_steps": 7}
    assert builder.max_iterations.value == 3
    with pytest.raises(ValueError, match="did you mean 'max_iterations'"):
        change_inputs(builder, work_chain.spec().inputs, {"max_iteration": 3})
    with pytest.raises(ValueError, match="explore: it has no inputs to change"):
        change_inputs(builder, work_chain.spec().inputs, {"explore": 3})


def test_the_jobs_of_a_labelling_that_was_killed_are_found_again(
    killed_campaign: orm.WorkChainNode, copper: PESData
) -> None:
    labelling = orm.WorkChainNode()
    labelling.base.links.add_incoming(killed_campaign, LinkType.CALL_WORK, "label")
    labelling.base.links.add_incoming(copper, LinkType.INPUT_WORK, "frames")
    labelling.set_process_state(ProcessState.KILLED)
    labelling.store()
    builder = ActiveLearningWorkChain.get_builder_to_resume(killed_campaign)
    assert builder.resume["labelling"].value == labelling.uuid
    assert builder.structures.uuid == copper.uuid
