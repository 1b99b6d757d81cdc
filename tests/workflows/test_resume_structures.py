"""A campaign that failed before its loop is resumed, with more structures or without: no frame and no label is lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from aiida import orm
from aiida.common.links import LinkType
from plumpy.process_states import ProcessState

from aiida_alpot.calculations.kernel import get_kernel
from aiida_alpot.workflows.active_learning import ActiveLearningWorkChain

resume = ActiveLearningWorkChain.get_builder_to_resume


def add_child(node: orm.WorkChainNode, label: str, exit_status: int, inputs: Mapping[str, Any], **outputs: Any) -> None:
    child = orm.WorkChainNode()
    child.set_process_state(ProcessState.FINISHED)
    child.set_exit_status(exit_status)
    child.base.links.add_incoming(node, LinkType.CALL_WORK, label)
    for name, value in inputs.items():
        child.base.links.add_incoming(value, LinkType.INPUT_WORK, name)
    child.store()
    for name, value in outputs.items():
        value.base.links.add_incoming(child, LinkType.RETURN, name)


@pytest.fixture
def failed(pes: Any, python_code: Any) -> Any:
    """Return a function that stores a campaign which failed before its loop: stages by label, and further inputs."""

    def make(children: Mapping[str, tuple[int, dict[str, Any], dict[str, Any]]], **further: Any) -> orm.WorkChainNode:
        node = orm.WorkChainNode(process_type="aiida.workflows:alpot.active_learning")
        inputs = {
            "structures": pes(2),
            "kernel": get_kernel(),
            "augment__code": python_code,
            "augment__settings": orm.Dict({"copies": 10}).store(),
            "label__code": python_code,
            "label__parameters": orm.Dict({"calculator": "ase.calculators.emt:EMT"}).store(),
            **further,
        }
        for name, value in inputs.items():
            node.base.links.add_incoming(value, LinkType.INPUT_WORK, name)
        node.set_process_state(ProcessState.FINISHED)
        node.set_exit_status(402)
        node.store()
        for label, (exit_status, given, outputs) in children.items():
            add_child(node, label, exit_status, given, **outputs)
        return node

    return make


@pytest.fixture
def half_labelled(failed: Any, pes: Any) -> orm.WorkChainNode:
    """A campaign whose first labelling failed: 20 augmented frames, 12 of them labelled."""
    augmented, labelled = pes(20, seed=1), pes(20, seed=1, labelled=True, failed=8)
    labelling = (402, {"frames": augmented}, {"labelled": labelled})
    return failed({"augment": (0, {}, {"frames": augmented}), "label": labelling})


def resumed_frames(builder: Any) -> list[str]:
    return [node.uuid for _, node in sorted(dict(builder.resume.get("frames", {})).items())]


def test_it_goes_on_with_the_frames_and_labels_of_the_failed_labelling(half_labelled: orm.WorkChainNode) -> None:
    builder = resume(half_labelled)
    assert (len(builder.structures), builder.structures.n_labelled) == (20, 12)
    assert resumed_frames(builder) == []
    assert "augment" not in builder._inputs(prune=True)


def test_labels_of_the_given_dataset_that_the_failed_labelling_set_aside_stay_so(failed: Any, pes: Any) -> None:
    given, mended, labelled = pes(4, labelled=True), pes(4, labelled=True, failed=1), pes(6, seed=1, labelled=True)
    campaign = failed({"label": (402, {"frames": labelled}, {"labelled": labelled, "known": mended})}, dataset=given)
    assert resume(campaign).dataset.uuid == mended.uuid


def test_frames_and_labels_of_the_failed_labelling_are_kept_beside_new_structures(
    half_labelled: orm.WorkChainNode, pes: Any
) -> None:
    new = pes(3, seed=9)
    builder = resume(half_labelled, structures=new)
    assert builder.structures.uuid == new.uuid
    assert builder.augment.settings["copies"] == 10
    frames = builder.resume.frames["d000"]
    assert (len(frames), frames.n_labelled) == (20, 12)
    assert builder.resume.stage.value == "structures"


def test_augmented_frames_that_were_not_labelled_yet_are_kept_beside_new_structures(failed: Any, pes: Any) -> None:
    augmented = pes(20, seed=1)
    campaign = failed({"augment": (0, {}, {"frames": augmented})})
    builder = resume(campaign, structures=pes(3, seed=9))
    assert resumed_frames(builder) == [augmented.uuid]


def test_new_structures_replace_those_whose_augmentation_failed(failed: Any, pes: Any) -> None:
    new = pes(3, seed=9)
    builder = resume(failed({"augment": (401, {}, {})}), structures=new)
    assert builder.structures.uuid == new.uuid
    assert resumed_frames(builder) == []


def test_a_resumed_campaign_that_fails_before_its_labelling_hands_on_what_it_was_given(failed: Any, pes: Any) -> None:
    earlier, history = pes(20, seed=1, labelled=True, failed=8), orm.Dict({"iterations": [{}]}).store()
    given = {"resume__frames__d000": earlier, "resume__history": history, "resume__stage": orm.Str("train").store()}
    campaign = failed({"augment": (401, {}, {})}, **given)
    builder = resume(campaign)
    assert resumed_frames(builder) == [earlier.uuid]
    assert (builder.resume.stage.value, builder.resume.history.uuid) == ("train", history.uuid)


def test_new_structures_of_a_campaign_in_its_loop_are_augmented_and_begin_with_fresh_trainings(
    failed: Any, pes: Any
) -> None:
    dataset, new = pes(10, labelled=True), pes(3, seed=9)
    campaign = failed({"iteration_00_train": (403, {}, {})}, train__parameters=orm.Dict({}).store())
    splitting = orm.CalcFunctionNode()
    splitting.set_process_label("split_dataset")
    splitting.set_process_state(ProcessState.FINISHED)
    splitting.set_exit_status(0)
    splitting.base.links.add_incoming(campaign, LinkType.CALL_CALC, "split_dataset")
    splitting.store()
    split = dataset.clone()
    split.base.links.add_incoming(splitting, LinkType.CREATE, "result")
    split.store()
    builder = resume(campaign, structures=new)
    assert builder.structures.uuid == new.uuid
    assert builder.augment.settings["copies"] == 10
    assert builder.dataset.uuid == split.uuid
    without = resume(campaign)
    assert {"structures", "augment"}.isdisjoint(without._inputs(prune=True))


def test_a_resumed_campaign_keeps_the_window_of_its_stages(failed: Any) -> None:
    builder = resume(failed({}, label__max_concurrent=orm.Int(5).store()))
    assert builder.label.max_concurrent.value == 5
