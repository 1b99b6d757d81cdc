"""ActiveLearningWorkChain: the loop, with a planted child for every stage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest
from aiida import orm
from aiida.engine import WorkChain
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from aiida_alpot.data.pes import PESData
from aiida_alpot.data.potential import PotentialData
from aiida_alpot.data.uncertainty import UncertaintyData
from aiida_alpot.workflows.active_learning import STAGES, ActiveLearningWorkChain

STAGE_OF = {work_chain: stage for stage, (work_chain, _) in STAGES.items()}
FREE = {"n_min": 1, "tolerances": {}}
"""Convergence settings under which one iteration without flagged candidates is enough."""


def labelled_copies(frames: list[Atoms], n_failed: int) -> list[Atoms]:
    """Return the frames with labels, the first *n_failed* with a reason instead."""
    copies = []
    for k, atoms in enumerate(frames):
        copy = atoms.copy()
        if k >= n_failed:
            results = {"energy": -3.5, "forces": np.zeros((len(copy), 3)), "stress": np.zeros(6)}
            copy.calc = SinglePointCalculator(copy, **results)
            copy.info["status"] = "labelled"
        else:
            copy.info.update(status="failed", reason="the reference did not converge")
        copies.append(copy)
    return copies


def selected_frames(n_train: int, n_control: int, seed: int) -> list[Atoms]:
    """Return frames as an evaluation leaves them: split, control flag and predictions."""
    rng = np.random.default_rng(seed)
    frames = []
    for k in range(n_train + n_control):
        atoms = bulk("Cu")
        atoms.cell[:] *= 1 + rng.uniform(-0.05, 0.05)
        is_control = k >= n_train
        atoms.info.update(
            group=f"md-{seed}-{k}",
            split="calibration" if is_control else "train",
            control=is_control,
            status="unlabelled",
            iteration=seed,
            committee_energy=-3.5,
            committee_stress=np.zeros(6),
        )
        atoms.arrays["committee_forces"] = np.zeros((1, 3))
        frames.append(atoms)
    return frames


class PropertyWorkChain(WorkChain):
    """The process of a user that computes what gates judge."""

    @classmethod
    def define(cls, spec: Any) -> None:
        super().define(spec)
        spec.input_namespace("potentials", valid_type=PotentialData, dynamic=True)
        spec.input("uncertainty", valid_type=UncertaintyData)
        spec.input("dataset", valid_type=PESData)
        spec.input("code", valid_type=orm.AbstractCode)
        spec.output("properties", valid_type=orm.Dict, required=False)


class World:
    """Plants a child for every stage that the loop submits.

    :ivar fails: exit status of the stages that fail, by label of the submission.
    :ivar selects: training and control frames that each evaluation selects, the last one for ever.
    :ivar flagged: candidates above threshold that each evaluation reports, the last one for ever.
    :ivar n_failed: frames of each labelling of the loop that get no label.
    :ivar mends: whether labellings set the first label of the dataset aside.
    :ivar properties: what each process for gates gives, the last one for ever; None for one that gives nothing.
    :ivar cutout: what each evaluation reports of frames that are too large to label.
    """

    def __init__(self, plant: Any, pes: Any, committee: Any, error_bars: Any) -> None:
        self.plant, self.pes, self.committee, self.error_bars = plant, pes, committee, error_bars
        self.fails: dict[str, int] = {}
        self.selects = [(2, 1)]
        self.flagged = [3]
        self.n_failed = 0
        self.mends = False
        self.n_evaluations = 0
        self.properties: list[dict[str, Any] | None] = [{"lattice": 3.6}]
        self.cutout: dict[str, Any] = {}

    def __call__(self, submission: Any) -> Any:
        stage = STAGE_OF.get(submission.process, "validate")
        exit_status = self.fails.get(submission.label, 0)
        if exit_status and stage != "label":
            return self.plant(orm.WorkChainNode, exit_status, f"{stage} went wrong")
        outputs = getattr(self, stage)(submission)
        return self.plant(orm.WorkChainNode, exit_status, "too many failures" if exit_status else None, **outputs)

    def augment(self, submission: Any) -> dict[str, Any]:
        return {"frames": self.pes(8, seed=1), "report": orm.Dict({})}

    def label(self, submission: Any) -> dict[str, Any]:
        n_failed = self.n_failed if submission.label.startswith("iteration") else 0
        frames = labelled_copies(list(submission.inputs["frames"]), n_failed)
        splits = [str(atoms.info.get("split", "")) for atoms in frames]
        n_trainable = sum(split in ("train", "validation") for split in splits[n_failed:])
        report = {
            "n_frames": len(frames),
            "n_labelled": len(frames) - n_failed,
            "n_failed": n_failed,
            "cost_s": 1.0,
            "n_trainable": n_trainable,
        }
        outputs = {"labelled": PESData.from_frames(frames), "report": orm.Dict(report)}
        if self.mends and "known" in submission.inputs:
            known = list(submission.inputs["known"])
            known[0].info.update(status="quarantined", reason="unit: in Ry")
            outputs["known"] = PESData.from_frames(known)
        return outputs

    def train(self, submission: Any) -> dict[str, Any]:
        members = self.committee(submission.label)
        report = orm.Dict({"members": {}, "mean": {"train": {"energy": 0.1}}, "seconds": {"m000": 1.0}})
        return {**{f"potentials__{name}": node for name, node in members.items()}, "report": report}

    def calibrate(self, submission: Any) -> dict[str, Any]:
        results = {"errors": {"test": {}}, "thresholds": {"force": 0.1}, "calibrations": {}}
        return {
            "uncertainty": self.error_bars(submission.inputs["potentials"]),
            "report": orm.Dict({"results": results}),
        }

    def explore(self, submission: Any) -> dict[str, Any]:
        report = {"n_trajectories": 4, "n_healthy_trajectories": 4, "n_frames": 6, "outcomes": {"completed": 4}}
        return {"candidates__j000": self.pes(6, seed=5), "report": orm.Dict(report)}

    def evaluate(self, submission: Any) -> dict[str, Any]:
        number = self.n_evaluations
        self.n_evaluations += 1
        n_train, n_control = self.selects[min(number, len(self.selects) - 1)]
        flagged = self.flagged[min(number, len(self.flagged) - 1)]
        results = {
            "n_candidates": 6,
            "n_healthy": 6,
            "n_groups": 2,
            "n_groups_healthy": 2,
            "n_flagged": flagged,
            "flagged": {"force": flagged},
            "n_selected": n_train + n_control,
            "n_control": n_control,
            "n_train": n_train,
            "n_validation": 0,
            "disagreement": {},
            "grade": None,
            **({"cutout": self.cutout} if self.cutout else {}),
        }
        selected = PESData.from_frames(selected_frames(n_train, n_control, number))
        return {"selected": selected, "report": orm.Dict({"results": results})}

    def validate(self, submission: Any) -> dict[str, Any]:
        properties = self.properties.pop(0) if len(self.properties) > 1 else self.properties[0]
        return {} if properties is None else {"properties": orm.Dict(properties)}


@pytest.fixture
def world(plant: Any, pes: Any, committee: Any, error_bars: Any) -> World:
    return World(plant, pes, committee, error_bars)


@pytest.fixture
def campaign(start: Any, python_code: Any, pes: Any, world: World) -> Callable[..., Any]:
    """Return a function that starts a campaign; a stage or input given as None is left out."""

    def make(**inputs: Any) -> Any:
        given: dict[str, Any] = {
            "dataset": pes(10, labelled=True),
            "max_iterations": orm.Int(1),
            "seed": orm.Int(11),
            "label": {"code": python_code, "parameters": orm.Dict({"calculator": "ase.calculators.emt:EMT"})},
            "train": {"code": python_code, "parameters": orm.Dict({}), "committee_size": orm.Int(2)},
            "calibrate": {"code": python_code},
            "explore": {"code": python_code},
            "evaluate": {"code": python_code},
        }
        chosen = {key: value for key, value in {**given, **inputs}.items() if value is not None}
        return start(ActiveLearningWorkChain, world, **chosen)

    return make


@pytest.fixture(scope="module")
def finished() -> dict[str, Any]:
    """Campaigns that several tests look at."""
    return {}


@pytest.fixture
def one_round(campaign: Any, finished: dict[str, Any]) -> Any:
    """A campaign of one iteration that has ended; only to be looked at."""
    if "one" not in finished:
        finished["one"] = campaign()
        assert finished["one"].run() is None
    return finished["one"]


@pytest.fixture
def two_rounds(campaign: Any, finished: dict[str, Any]) -> Any:
    """A campaign of two iterations that has ended; only to be looked at."""
    if "two" not in finished:
        finished["two"] = campaign(max_iterations=orm.Int(2))
        assert finished["two"].run() is None
    return finished["two"]


@pytest.fixture
def augment(python_code: Any) -> dict[str, Any]:
    return {"code": python_code, "settings": orm.Dict({"copies": 2})}


ONE_ROUND = ["train", "calibrate", "explore", "evaluate", "label"]


def links(*stages: str, iteration: int = 0) -> list[str]:
    return [f"iteration_{iteration:02d}_{stage}" for stage in stages]


class TestStart:
    """What the loop begins with."""

    def test_from_structures_they_are_augmented_labelled_and_split(self, campaign: Any, augment: Any, pes: Any) -> None:
        structures = pes(2)
        rig = campaign(dataset=None, structures=structures, augment=augment, max_iterations=orm.Int(0))
        assert rig.run() is None
        assert rig.labels == ["augment", "label", *links("train", "calibrate")]
        assert rig.sent("augment")["frames"].uuid == structures.uuid
        assert rig.sent("label")["frames"].uuid == rig.submissions[0].node.outputs.frames.uuid
        dataset = rig.sent("iteration_00_train")["dataset"]
        assert dataset.n_labelled == 8
        assert {atoms.info["split"] for atoms in dataset} == {"train", "validation", "test"}

    def test_without_augmentation_the_structures_themselves_are_labelled(self, campaign: Any, pes: Any) -> None:
        structures = pes(6)
        rig = campaign(dataset=None, structures=structures, max_iterations=orm.Int(0))
        assert rig.run() is None
        assert rig.sent("label")["frames"].uuid == structures.uuid

    def test_structures_join_a_given_dataset(self, campaign: Any, pes: Any) -> None:
        rig = campaign(structures=pes(3, seed=8), max_iterations=orm.Int(0))
        assert rig.run() is None
        assert rig.output("dataset").n_labelled == 13

    def test_frames_of_a_labelling_that_failed_join_the_new_structures_and_are_not_augmented(
        self, campaign: Any, augment: Any, pes: Any
    ) -> None:
        earlier = pes(6, seed=2, labelled=True, failed=2)
        resume = {"stage": orm.Str("structures"), "frames": {"d000": earlier}}
        structures = PESData.from_frames([*pes(2, seed=9), *earlier]).store()
        rig = campaign(dataset=None, structures=structures, augment=augment, resume=resume, max_iterations=orm.Int(0))
        assert rig.run() is None
        assert len(rig.sent("augment")["frames"]) == 2
        frames = rig.sent("label")["frames"]
        assert (len(frames), frames.n_labelled) == (8 + 6, 4)
        assert frames.creator.process_label == "merge_structures"

    def test_only_structures_that_the_resumed_campaign_has_not_had_are_augmented(
        self, campaign: Any, augment: Any, pes: Any
    ) -> None:
        dataset, resume = pes(10, labelled=True), {"stage": orm.Str("train")}
        structures = PESData.from_frames([*dataset, *pes(2, seed=9)]).store()
        rig = campaign(structures=structures, augment=augment, resume=resume, max_iterations=orm.Int(0))
        assert rig.run() is None
        assert rig.labels == ["augment", "label", *links("train", "calibrate")]
        assert len(rig.sent("augment")["frames"]) == 2
        rig = campaign(structures=dataset, augment=augment, resume=resume, max_iterations=orm.Int(0))
        assert rig.run() is None
        assert rig.labels == links("train", "calibrate")

    def test_folders_of_a_resumed_campaign_are_for_the_first_stage_that_runs(
        self, campaign: Any, pes: Any, localhost: orm.Computer
    ) -> None:
        folder = orm.RemoteData(remote_path="/tmp/labels", computer=localhost).store()
        resume = {"stage": orm.Str("train"), "checkpoints": {"labels": folder}}
        rig = campaign(structures=pes(3, seed=9), resume=resume, max_iterations=orm.Int(0))
        assert rig.run() is None
        assert rig.sent("label")["checkpoints"]["labels"].uuid == folder.uuid
        assert not rig.sent("iteration_00_train").get("checkpoints")

    def test_from_a_dataset_nothing_is_labelled_first(self, campaign: Any) -> None:
        rig = campaign(max_iterations=orm.Int(0))
        assert rig.run() is None
        assert rig.labels == links("train", "calibrate")
        assert rig.output("result")["reason"] == "trained"

    def test_from_a_committee_with_error_bars_the_first_training_and_calibration_are_skipped(
        self, campaign: Any, committee: Any, error_bars: Any
    ) -> None:
        potentials = committee()
        uncertainty = error_bars(potentials).store()
        rig = campaign(potentials=potentials, uncertainty=uncertainty)
        assert rig.run() is None
        assert rig.labels == links("explore", "evaluate", "label") + links("train", "calibrate", iteration=1)
        assert rig.sent("iteration_00_explore")["uncertainty"].uuid == uncertainty.uuid
        assert dict(rig.sent("iteration_00_evaluate")["potentials"]) == potentials

    def test_from_a_committee_alone_it_is_calibrated_but_not_trained(self, campaign: Any, committee: Any) -> None:
        rig = campaign(potentials=committee(), max_iterations=orm.Int(0))
        assert rig.run() is None
        assert rig.labels == links("calibrate")

    def test_a_pool_is_searched_instead_of_an_exploration(self, campaign: Any, pes: Any) -> None:
        pool = pes(5, seed=4)
        rig = campaign(explore=None, candidates={"pool": pool})
        assert rig.run() is None
        assert rig.labels == links("train", "calibrate", "evaluate", "label") + links("train", "calibrate", iteration=1)
        assert rig.sent("iteration_00_evaluate")["candidates"]["pool"].uuid == pool.uuid

    def test_a_dataset_that_cannot_be_split_ends_with_410_and_is_kept(self, campaign: Any, pes: Any) -> None:
        rig = campaign(dataset=pes(1, labelled=True))
        exit_code = rig.run()
        assert exit_code.status == 410
        assert "usable dataset" in exit_code.message
        assert rig.output("dataset").n_labelled == 1

    def test_datasets_that_cannot_be_merged_end_with_410(self, campaign: Any, pes: Any, world: World) -> None:
        dataset = pes(4, labelled=True, quality=[1, 2, 3, 4])
        structures = pes(4, seed=3, quality=["a", "b", "c", "d"])
        exit_code = campaign(dataset=dataset, structures=structures).run()
        assert exit_code.status == 410
        assert "'quality'" in exit_code.message

    def test_explorations_start_from_the_first_dataset_or_from_given_frames(
        self, one_round: Any, campaign: Any, pes: Any
    ) -> None:
        rig = one_round
        assert rig.sent("iteration_00_explore")["frames"].uuid == rig.sent("iteration_00_train")["dataset"].uuid
        frames = pes(2, seed=6)
        rig = campaign(explore_from=frames)
        rig.run()
        assert rig.sent("iteration_00_explore")["frames"].uuid == frames.uuid

    def test_test_frames_go_to_the_calibration_only(self, campaign: Any, pes: Any) -> None:
        test_frames = pes(3, seed=7, labelled=True)
        rig = campaign(test_frames=test_frames, max_iterations=orm.Int(0))
        rig.run()
        assert rig.sent("iteration_00_calibrate")["test_frames"].uuid == test_frames.uuid
        assert rig.sent("iteration_00_train")["dataset"].n_frames == 10


class TestLoop:
    """Which stage follows which, and what ends the loop."""

    def test_the_last_selected_frames_are_labelled_and_trained_on(self, one_round: Any) -> None:
        rig = one_round
        assert rig.labels == links(*ONE_ROUND) + links("train", "calibrate", iteration=1)
        assert rig.sent("iteration_01_train")["dataset"].n_labelled == 13
        assert rig.output("dataset").uuid == rig.sent("iteration_01_train")["dataset"].uuid
        assert rig.output("result")["reason"] == "max_iterations"

    def test_labels_of_the_dataset_that_a_labelling_sets_aside_are_not_trained_on(
        self, campaign: Any, world: World
    ) -> None:
        world.mends, world.selects = True, [(0, 1)]
        rig = campaign()
        assert rig.run() is None
        assert "iteration_01_train" in rig.labels  # although no new label is to be trained on
        dataset = rig.sent("iteration_01_train")["dataset"]
        assert (len(dataset), dataset.n_labelled) == (11, 10)
        assert dataset[0].info["status"] == "quarantined"

    def test_labels_of_the_given_dataset_that_the_first_labelling_sets_aside_do_not_enter(
        self, campaign: Any, world: World, pes: Any
    ) -> None:
        world.mends = True
        rig = campaign(structures=pes(3, seed=8), max_iterations=orm.Int(0))
        assert rig.run() is None
        assert (len(rig.output("dataset")), rig.output("dataset").n_labelled) == (13, 12)

    def test_frames_that_are_too_large_are_told(self, campaign: Any, world: World) -> None:
        world.cutout = {"n_large": 3, "n_cut": 2, "n_pieces": 5, "left_out": {"0123456789abcdef": "it has a charge"}}
        rig = campaign()
        rig.run()
        assert "3 selected frames are too large to be labelled: 5 pieces were cut out of 2 of them" in rig.reports
        assert "frame 0123456789ab is too large to be labelled and was left out: it has a charge" in rig.reports

    def test_each_calibration_is_given_the_one_before(self, one_round: Any) -> None:
        rig = one_round
        assert "previous" not in rig.sent("iteration_00_calibrate")
        previous = rig.sent("iteration_01_calibrate")["previous"]
        assert previous.uuid == rig.sent("iteration_00_explore")["uncertainty"].uuid

    def test_every_stage_gets_the_kernel_of_the_campaign(self, one_round: Any) -> None:
        rig = one_round
        assert {s.inputs["kernel"].uuid for s in rig.submissions} == {rig.process.inputs.kernel.uuid}

    def test_seeds_differ_by_stage_and_iteration_and_come_from_a_process(self, two_rounds: Any) -> None:
        rig = two_rounds
        seeds = [s.inputs["seed"] for s in rig.submissions if "seed" in s.inputs]
        assert len({seed.value for seed in seeds}) == len(seeds)
        assert {seed.creator.process_label for seed in seeds} == {"plan_iteration"}

    def test_the_exploration_knows_its_iteration(self, two_rounds: Any) -> None:
        rig = two_rounds
        assert [rig.sent(f"iteration_{k:02d}_explore")["iteration"].value for k in range(2)] == [0, 1]

    def test_max_iterations_bounds_the_rounds(self, two_rounds: Any) -> None:
        rig = two_rounds
        assert sum(label.endswith("evaluate") for label in rig.labels) == 2
        assert rig.output("result")["n_iterations"] == 2
        assert [row["iteration"] for row in rig.output("history")["iterations"]] == [0, 1, 2]

    def test_nothing_selected_is_a_success_and_is_not_labelled(self, campaign: Any, world: World) -> None:
        world.selects, world.flagged = [(0, 0)], [0]
        rig = campaign(convergence=orm.Dict(FREE))
        assert rig.run() is None
        assert rig.labels == links("train", "calibrate", "explore", "evaluate")
        assert rig.output("result")["reason"] == "converged"

    def test_nothing_selected_does_not_end_the_loop_by_itself(self, campaign: Any, world: World) -> None:
        world.selects, world.flagged = [(0, 0), (2, 1)], [0]
        rig = campaign(max_iterations=orm.Int(2))
        assert rig.run() is None
        assert "iteration_00_label" not in rig.labels
        assert rig.labels[4:7] == links("explore", "evaluate", "label", iteration=1)
        assert rig.output("history")["iterations"][0]["decision"]["stop"] is None
        assert rig.output("result")["reason"] == "max_iterations"

    def test_without_new_labels_there_is_no_retraining_and_no_recalibration(self, campaign: Any, world: World) -> None:
        world.selects = [(0, 0)]
        rig = campaign(max_iterations=orm.Int(2))
        assert rig.run() is None
        assert sum(label.endswith("train") for label in rig.labels) == 1
        assert sum(label.endswith("calibrate") for label in rig.labels) == 1

    def test_control_frames_alone_are_calibrated_on_but_not_trained_on(self, campaign: Any, world: World) -> None:
        world.selects = [(0, 2)]
        rig = campaign()
        assert rig.run() is None
        assert rig.labels == links(*ONE_ROUND) + links("calibrate", iteration=1)

    def test_convergence_ends_the_loop_with_all_outputs(self, campaign: Any, world: World) -> None:
        world.flagged = [3, 0]
        rig = campaign(max_iterations=orm.Int(9), convergence=orm.Dict(FREE))
        assert rig.run() is None
        assert sum(label.endswith("evaluate") for label in rig.labels) == 2
        assert rig.output("result")["reason"] == "converged"
        assert rig.output("dataset").n_labelled == 16
        assert sorted(rig.output("potentials")) == ["m000", "m001"]
        hashes = [node.sha256 for _, node in sorted(rig.output("potentials").items())]
        assert rig.output("uncertainty").model_hashes == hashes
        assert len(rig.output("history")["iterations"]) == 3

    def test_patience_counts_over_iterations(self, campaign: Any, world: World) -> None:
        world.flagged = [0]
        rig = campaign(max_iterations=orm.Int(9), convergence=orm.Dict({**FREE, "patience": 2}))
        assert rig.run() is None
        assert rig.output("result")["n_iterations"] == 2

    def test_training_frames_that_all_failed_to_be_labelled_are_not_trained_on(
        self, campaign: Any, world: World
    ) -> None:
        world.selects, world.n_failed = [(1, 2)], 1
        rig = campaign()
        assert rig.run() is None
        assert rig.labels == links(*ONE_ROUND) + links("calibrate", iteration=1)

    def test_the_predictions_of_selected_frames_do_not_enter_the_dataset(self, one_round: Any) -> None:
        rig = one_round
        assert not any("committee_energy" in atoms.info for atoms in rig.output("dataset"))

    def test_a_row_of_the_history_counts_the_frames_its_committee_learned_from(self, two_rounds: Any) -> None:
        rig = two_rounds
        assert [row["n_labels"] for row in rig.output("history")["iterations"]] == [10, 13, 16]
        assert rig.output("result")["n_labels"] == 16

    def test_the_loop_survives_a_restart_after_every_step(self, campaign: Any, augment: Any, pes: Any) -> None:
        rig = campaign(dataset=None, structures=pes(2), augment=augment)
        assert rig.run(restarting=True) is None
        assert rig.labels == ["augment", "label", *links(*ONE_ROUND), *links("train", "calibrate", iteration=1)]
        assert rig.output("result")["reason"] == "max_iterations"


class TestBudget:
    """max_labels bounds what is labelled."""

    def test_it_caps_the_budget_of_an_evaluation(self, campaign: Any) -> None:
        rig = campaign(max_labels=orm.Int(12))
        rig.run()
        settings = rig.sent("iteration_00_evaluate")["settings"]
        assert settings["budget"] == 2
        assert settings.creator.process_label == "cap_budget"

    def test_it_keeps_a_smaller_budget(self, campaign: Any, python_code: Any) -> None:
        evaluate = {"code": python_code, "settings": orm.Dict({"budget": 1})}
        rig = campaign(max_labels=orm.Int(500), evaluate=evaluate)
        rig.run()
        assert rig.sent("iteration_00_evaluate")["settings"]["budget"] == 1

    def test_it_ends_the_loop_when_it_is_spent(self, campaign: Any) -> None:
        rig = campaign(max_labels=orm.Int(13), max_iterations=orm.Int(9))
        assert rig.run() is None
        assert rig.output("result")["reason"] == "max_labels"
        assert rig.labels[-2:] == links("train", "calibrate", iteration=1)

    def test_a_dataset_that_has_them_already_is_trained_on_without_a_search(self, campaign: Any) -> None:
        rig = campaign(max_labels=orm.Int(10))
        assert rig.run() is None
        assert rig.labels == links("train", "calibrate")


class TestCommittee:
    """What a training starts from."""

    def test_a_training_starts_from_scratch_by_default(self, one_round: Any) -> None:
        rig = one_round
        assert "parents" not in rig.sent("iteration_01_train")

    def test_a_warm_start_passes_the_committee_before_by_name(self, campaign: Any) -> None:
        rig = campaign(warm_start=orm.Bool(True))
        rig.run()
        assert "parents" not in rig.sent("iteration_00_train")
        before = dict(rig.submissions[0].node.outputs.potentials)
        parents = rig.sent("iteration_01_train")["parents"]
        assert {name: node.uuid for name, node in parents.items()} == {name: node.uuid for name, node in before.items()}

    def test_a_fresh_final_training_has_no_parents(self, campaign: Any) -> None:
        rig = campaign(warm_start=orm.Bool(True), fresh_final=orm.Bool(True), max_iterations=orm.Int(2))
        rig.run()
        assert "parents" in rig.sent("iteration_01_train")
        assert "parents" not in rig.sent("iteration_02_train")

    def test_a_fresh_final_training_happens_even_if_nothing_is_new(self, campaign: Any, world: World) -> None:
        world.selects = [(0, 0)]
        rig = campaign(fresh_final=orm.Bool(True))
        rig.run()
        assert rig.labels[-2:] == links("train", "calibrate", iteration=1)


class TestGates:
    """A process of the user is asked before the loop counts as converged."""

    CONVERGENCE: ClassVar[dict[str, Any]] = {**FREE, "gates": {"lattice": {"reference": 3.6, "tolerance": 0.02}}}

    @pytest.fixture
    def gated(self, campaign: Any, entry_points: Any, python_code: Any, world: World) -> Callable[..., Any]:
        """Return a function that starts a campaign with a gate, of which nothing is ever flagged."""
        entry_points.add(PropertyWorkChain, "aiida.workflows:test.properties")
        world.flagged = [0]
        validate = {"process": orm.Str("aiida.workflows:test.properties"), "inputs": {"code": python_code}}

        def make(**inputs: Any) -> Any:
            convergence = orm.Dict({**self.CONVERGENCE, **inputs.pop("convergence", {})})
            return campaign(validate=validate, convergence=convergence, **{"max_iterations": orm.Int(3), **inputs})

        return make

    def test_it_is_run_when_all_else_holds_and_lets_the_loop_end(self, gated: Any, world: World) -> None:
        rig = gated()
        assert rig.run() is None
        assert rig.labels == links(*ONE_ROUND, "validate") + links("train", "calibrate", iteration=1)
        decision = rig.output("history")["iterations"][0]["decision"]
        assert (decision["reason"], rig.output("result")["reason"]) == ("converged", "converged")
        assert decision["numbers"]["gates"]["lattice"]["value"] == 3.6

    def test_it_is_not_run_before(self, gated: Any, world: World) -> None:
        world.flagged = [3]
        rig = gated(max_iterations=orm.Int(1))
        assert rig.run() is None
        assert "iteration_00_validate" not in rig.labels

    def test_it_gets_committee_error_bars_and_dataset_and_what_else_it_takes(
        self, gated: Any, python_code: Any
    ) -> None:
        rig = gated()
        rig.run()
        sent = rig.sent("iteration_00_validate")
        assert dict(sent["potentials"]) == dict(rig.sent("iteration_00_evaluate")["potentials"])
        assert sent["uncertainty"].uuid == rig.sent("iteration_00_evaluate")["uncertainty"].uuid
        assert sent["dataset"].uuid == rig.sent("iteration_01_train")["dataset"].uuid
        assert sent["code"].uuid == python_code.uuid
        assert "kernel" not in sent

    def test_a_gate_that_does_not_let_pass_keeps_the_loop_going(self, gated: Any, world: World) -> None:
        world.properties = [{"lattice": 3.7}, {"lattice": {"value": 3.61, "error": 0.005}}]
        rig = gated()
        assert rig.run() is None
        decisions = [row["decision"]["reason"] for row in rig.output("history")["iterations"] if "decision" in row]
        assert decisions == ["property_gate", "converged"]
        assert [label for label in rig.labels if label.endswith("validate")] == [
            "iteration_00_validate",
            "iteration_01_validate",
        ]

    def test_the_last_iteration_says_which_gate_was_closed(self, gated: Any, world: World) -> None:
        world.properties = [{"lattice": None}]
        rig = gated(max_iterations=orm.Int(1))
        assert rig.run() is None
        assert rig.output("result")["reason"] == "max_iterations"
        assert "lattice could not be computed, wanted at least 3.58" in rig.output("result")["message"]

    def test_patience_is_for_the_other_conditions(self, gated: Any, world: World) -> None:
        world.properties = [{"lattice": 3.7}, {"lattice": 3.6}]
        rig = gated(convergence={"patience": 2})
        assert rig.run() is None
        decisions = [row["decision"]["reason"] for row in rig.output("history")["iterations"] if "decision" in row]
        assert decisions == ["patience", "property_gate", "converged"]

    @pytest.mark.parametrize(
        ("properties", "message"),
        [
            (None, "it has no output 'properties'"),
            ({"bulk": 3.0}, "properties: 'lattice' is missing, which a gate judges; got bulk"),
            ({"lattice": "wide"}, "properties.lattice: expected float, got 'wide'"),
        ],
    )
    def test_properties_that_cannot_be_judged_end_with_407(
        self, gated: Any, world: World, properties: Any, message: str
    ) -> None:
        world.properties = [properties]
        rig = gated()
        exit_code = rig.run()
        assert exit_code.status == 407
        assert f"The stage validate <{rig.submissions[-1].node.pk}> failed: {message}" in exit_code.message
        assert set(rig.process.outputs) == {"dataset", "potentials", "uncertainty"}

    def test_a_process_that_fails_ends_with_407(self, gated: Any, world: World) -> None:
        world.fails["iteration_00_validate"] = 400
        exit_code = gated().run()
        assert exit_code.status == 407
        assert "exit status 400: validate went wrong" in exit_code.message

    def test_the_loop_survives_a_restart_after_every_step(self, gated: Any, world: World) -> None:
        world.properties = [{"lattice": 3.7}, {"lattice": 3.6}]
        rig = gated()
        assert rig.run(restarting=True) is None
        assert rig.output("result")["reason"] == "converged"


class TestFailures:
    """A stage that fails ends the loop with its own exit code and all there is."""

    @pytest.mark.parametrize(
        ("stage", "status", "kept"),
        [
            ("train", 403, {"dataset"}),
            ("calibrate", 404, {"dataset", "potentials"}),
            ("explore", 405, {"dataset", "potentials", "uncertainty"}),
            ("evaluate", 406, {"dataset", "potentials", "uncertainty"}),
        ],
    )
    def test_in_the_first_iteration(self, campaign: Any, world: World, stage: str, status: int, kept: set[str]) -> None:
        world.fails[f"iteration_00_{stage}"] = 401
        rig = campaign()
        exit_code = rig.run()
        assert exit_code.status == status
        assert f"The stage {stage} <{rig.submissions[-1].node.pk}> failed" in exit_code.message
        assert f"{stage} went wrong" in exit_code.message
        assert set(rig.process.outputs) == kept

    @pytest.mark.parametrize(("stage", "status"), [("augment", 401), ("label", 402)])
    def test_before_the_loop(
        self, campaign: Any, world: World, augment: Any, pes: Any, stage: str, status: int
    ) -> None:
        world.fails[stage] = 402
        exit_code = campaign(dataset=None, structures=pes(2), augment=augment).run()
        assert exit_code.status == status

    def test_labels_of_a_failed_first_labelling_are_kept(
        self, campaign: Any, world: World, augment: Any, pes: Any
    ) -> None:
        world.fails["label"] = 402
        rig = campaign(dataset=None, structures=pes(2), augment=augment)
        rig.run()
        assert rig.output("dataset").n_labelled == 8

    def test_labels_of_a_failed_labelling_are_kept(self, campaign: Any, world: World) -> None:
        world.fails["iteration_00_label"], world.n_failed = 402, 2
        rig = campaign()
        exit_code = rig.run()
        assert exit_code.status == 402
        assert "too many failures" in exit_code.message
        assert rig.output("dataset").n_labelled == 11

    def test_frames_that_failed_to_be_labelled_do_not_stop_the_loop(self, campaign: Any, world: World) -> None:
        world.n_failed = 1
        rig = campaign()
        assert rig.run() is None
        assert rig.output("dataset").n_labelled == 12
        assert rig.output("dataset").n_frames == 13

    def test_a_failed_calibration_does_not_pair_old_error_bars_with_a_new_committee(
        self, campaign: Any, world: World
    ) -> None:
        world.fails["iteration_01_calibrate"] = 401
        rig = campaign(max_iterations=orm.Int(2))
        assert rig.run().status == 404
        assert "uncertainty" not in rig.process.outputs
        assert len(rig.output("history")["iterations"]) == 1

    def test_a_failed_training_leaves_the_committee_before_and_its_error_bars(
        self, campaign: Any, world: World
    ) -> None:
        world.fails["iteration_01_train"] = 401
        rig = campaign(max_iterations=orm.Int(2))
        assert rig.run().status == 403
        hashes = [node.sha256 for _, node in sorted(rig.output("potentials").items())]
        assert rig.output("uncertainty").model_hashes == hashes
        assert rig.output("dataset").n_labelled == 13

    def test_a_refused_stage_is_a_failure_and_no_exception(self, campaign: Any, monkeypatch: Any) -> None:
        rig = campaign()

        def refuse(*_: Any, **__: Any) -> Any:
            raise ValueError("potentials.m000: the model file is not trusted")

        rig.process.submit = refuse
        exit_code = rig.run()
        assert exit_code.status == 403
        assert "potentials.m000" in exit_code.message
