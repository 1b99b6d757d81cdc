"""The six stages: what their jobs get, and what becomes of jobs that ended well, in part or not at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from aiida import orm
from ase import Atoms
from ase.build import bulk

from aiida_alpot.calculations.augment import AugmentCalculation
from aiida_alpot.calculations.calibrate import CalibrateCalculation
from aiida_alpot.calculations.evaluate import EvaluateCalculation
from aiida_alpot.calculations.explore_ase import ExploreAseCalculation
from aiida_alpot.calculations.label_ase import LabelAseCalculation
from aiida_alpot.data.pes import PESData
from aiida_alpot.workflows.augment import AugmentWorkChain
from aiida_alpot.workflows.base import find_called
from aiida_alpot.workflows.calibrate import CalibrationWorkChain
from aiida_alpot.workflows.evaluate import EvaluationWorkChain
from aiida_alpot.workflows.explore import ExplorationWorkChain
from aiida_alpot.workflows.label import LabellingWorkChain
from aiida_alpot.workflows.train import TrainingWorkChain

EMT = {"calculator": "ase.calculators.emt:EMT"}
Starter = Callable[..., Any]


class TestSingleJobs:
    """Augment, calibrate and evaluate pass inputs and outputs through."""

    @pytest.fixture
    def augment(self, start: Starter, python_code: Any, pes: Any) -> Starter:
        def make(child: Any, **inputs: Any) -> Any:
            given = {"frames": pes(2), "settings": orm.Dict({"copies": 2}), "seed": orm.Int(5)}
            return start(AugmentWorkChain, child, code=python_code, **{**given, **inputs})

        return make

    def test_augmentation_hands_on_inputs_and_outputs(self, augment: Starter, plant: Any, pes: Any) -> None:
        rig = augment(lambda _: plant(frames=pes(4), report=orm.Dict({"status": "ok"})))
        assert rig.run() is None
        assert rig.submissions[0].process is AugmentCalculation
        assert rig.sent("augment")["seed"].value == 5
        assert rig.output("frames").n_frames == 4
        assert rig.output("report")["status"] == "ok"

    def test_a_failed_job_ends_the_stage_with_its_reason(self, augment: Starter, plant: Any) -> None:
        exit_code = augment(lambda _: plant(exit_status=400, message="no room for an atom")).run()
        assert exit_code.status == 401
        assert "no room for an atom" in exit_code.message

    def test_an_unknown_setting_is_refused_with_the_nearest(self, augment: Starter) -> None:
        with pytest.raises(ValueError, match=r"augment\.settings: unknown key 'ratle'; did you mean 'rattle'"):
            augment(None, settings=orm.Dict({"ratle": {}}))

    def test_no_frames_and_a_negative_seed_are_refused(self, augment: Starter, pes: Any) -> None:
        with pytest.raises(ValueError, match="frames: the dataset has no frame"):
            augment(None, frames=pes(0))
        with pytest.raises(ValueError, match="seed: expected at least 0, got -1"):
            augment(None, seed=orm.Int(-1))

    def test_structures_become_the_frames_of_the_job_and_stay_in_its_provenance(
        self, start: Starter, python_code: Any, plant: Any, pes: Any
    ) -> None:
        given = {name: orm.StructureData(ase=bulk(name)).store() for name in ("Cu", "Al")}
        inputs = {"settings": orm.Dict({"copies": 2}), "seed": orm.Int(5), "code": python_code}
        rig = start(AugmentWorkChain, lambda _: plant(frames=pes(4), report=orm.Dict({})), structures=given, **inputs)
        assert rig.run() is None
        frames = rig.sent("augment")["frames"]
        assert [atoms.get_chemical_formula() for atoms in frames] == ["Al", "Cu"]
        links = frames.creator.base.links.get_incoming().all()
        assert {link.node.uuid for link in links if isinstance(link.node, orm.StructureData)} == {
            node.uuid for node in given.values()
        }
        with pytest.raises(ValueError, match="frames or structures: give one of them"):
            start(AugmentWorkChain, None, structures=given, frames=pes(2), **inputs)
        with pytest.raises(ValueError, match="frames or structures: give one of them"):
            start(AugmentWorkChain, None, **inputs)

    def test_structures_are_collected_once_however_often_a_worker_is_lost(
        self, start: Starter, python_code: Any, plant: Any
    ) -> None:
        given = {"Cu": orm.StructureData(ase=bulk("Cu")).store()}
        inputs = {"settings": orm.Dict({"copies": 2}), "seed": orm.Int(5), "code": python_code}
        rig = start(AugmentWorkChain, None, structures=given, **inputs)
        with rig.process._process_scope():
            assert rig.step("setup") is None
            assert rig.step("setup") is None
        assert [node.label for node in rig.process.node.called] == ["structures"]
        assert find_called(rig.process.node, "structures") == rig.process.node.called

    def test_structures_that_cannot_be_collected_end_the_stage_with_the_reason(
        self, start: Starter, python_code: Any
    ) -> None:
        given = {"empty": orm.StructureData(cell=np.eye(3).tolist()).store()}
        inputs = {"settings": orm.Dict({"copies": 2}), "seed": orm.Int(5), "code": python_code}
        rig = start(AugmentWorkChain, None, structures=given, **inputs)
        with rig.process._process_scope():
            exit_code = rig.step("setup")
        assert exit_code.status == 401
        assert "structures: it excepted" in exit_code.message

    @pytest.mark.parametrize("symbols", [("Cu", "Au"), ("Cu",)])
    def test_a_structure_with_mixed_sites_or_vacancies_is_refused_by_its_name(
        self, start: Starter, python_code: Any, symbols: tuple[str, ...]
    ) -> None:
        mixed = orm.StructureData(cell=(3.8 * np.eye(3)).tolist())
        mixed.append_atom(position=(0, 0, 0), symbols=symbols, weights=[0.4] * len(symbols))
        given = {"pure": orm.StructureData(ase=bulk("Cu")), "mixed": mixed}
        inputs = {"settings": orm.Dict({"copies": 2}), "seed": orm.Int(5), "code": python_code}
        with pytest.raises(ValueError, match=r"structures\.mixed: the kind .* expected one element .*settings\.alloy"):
            start(AugmentWorkChain, None, structures=given, **inputs)
        with pytest.raises(ValueError, match=r"structures\.metadata: .* give the structure another"):
            start(AugmentWorkChain, None, structures={"metadata": given["pure"]}, **inputs)

    def test_swaps_get_their_potentials_and_are_refused_without(
        self, augment: Starter, plant: Any, pes: Any, committee: Any
    ) -> None:
        settings, members = orm.Dict({"copies": 2, "swap": {}}), committee()
        rig = augment(lambda _: plant(frames=pes(4), report=orm.Dict({})), settings=settings, potentials=members)
        assert rig.run() is None
        assert rig.sent("augment")["potentials"] == members
        with pytest.raises(ValueError, match=r"augment\.settings: swap: the energies .* give the job 'potentials'"):
            augment(None, settings=settings)
        with pytest.raises(ValueError, match=r"no manipulation asks them: switch one on .*swap"):
            augment(None, potentials=members)

    def test_calibration_hands_on_inputs_and_outputs(
        self, start: Starter, python_code: Any, plant: Any, pes: Any, committee: Any, error_bars: Any
    ) -> None:
        members = committee()
        child = lambda _: plant(uncertainty=error_bars(members), report=orm.Dict({}))  # noqa: E731
        dataset, test_frames = pes(4, labelled=True), pes(2, seed=9, labelled=True)
        rig = start(
            CalibrationWorkChain,
            child,
            code=python_code,
            potentials=members,
            dataset=dataset,
            test_frames=test_frames,
        )
        assert rig.run() is None
        assert rig.submissions[0].process is CalibrateCalculation
        sent = rig.sent("calibrate")
        assert sent["test_frames"].uuid == test_frames.uuid
        assert dict(sent["potentials"]) == members
        assert rig.output("uncertainty").model_hashes == [members[name].sha256 for name in sorted(members)]

    def test_calibration_refuses_an_unknown_setting(
        self, start: Starter, python_code: Any, pes: Any, committee: Any
    ) -> None:
        with pytest.raises(ValueError, match=r"calibrate\.settings: unknown key 'tolerance'.*'tolerances'"):
            start(
                CalibrationWorkChain,
                None,
                code=python_code,
                potentials=committee(),
                dataset=pes(4, labelled=True),
                settings=orm.Dict({"tolerance": {}}),
            )

    def test_evaluation_hands_on_inputs_and_outputs(
        self, start: Starter, python_code: Any, plant: Any, pes: Any, committee: Any, error_bars: Any
    ) -> None:
        members = committee()
        table = orm.ArrayData({"grade": np.zeros(3)})
        child = lambda _: plant(selected=pes(1), table=table, report=orm.Dict({}))  # noqa: E731
        rig = start(
            EvaluationWorkChain,
            child,
            code=python_code,
            potentials=members,
            uncertainty=error_bars(members),
            candidates={"j000": pes(3), "j001": pes(2)},
            seed=orm.Int(1),
        )
        assert rig.run() is None
        assert rig.submissions[0].process is EvaluateCalculation
        assert sorted(rig.sent("evaluate")["candidates"]) == ["j000", "j001"]
        assert rig.output("selected").n_frames == 1
        assert "grade" in rig.output("table").get_arraynames()

    def test_evaluation_refuses_what_it_cannot_use(
        self, start: Starter, python_code: Any, pes: Any, committee: Any, error_bars: Any
    ) -> None:
        members = committee()
        given = {
            "code": python_code,
            "potentials": members,
            "uncertainty": error_bars(members),
            "candidates": {"pool": pes(3)},
            "seed": orm.Int(1),
        }
        with pytest.raises(ValueError, match="uncertainty: it was calibrated with other potentials"):
            start(EvaluationWorkChain, None, **{**given, "potentials": committee("other")})
        with pytest.raises(ValueError, match=r"evaluate\.settings: unknown key 'budgte'; did you mean 'budget'"):
            start(EvaluationWorkChain, None, **given, settings=orm.Dict({"budgte": 3}))
        with pytest.raises(ValueError, match="candidates"):
            start(EvaluationWorkChain, None, **{**given, "candidates": {}})
        gold = PESData.from_frames([Atoms("Au", cell=[4, 4, 4], pbc=True)])
        with pytest.raises(ValueError, match=r"candidates\.gold: Au unknown to the potential m000"):
            start(EvaluationWorkChain, None, **{**given, "candidates": {"pool": pes(3), "gold": gold}})


class TestLabelling:
    """Labels are kept whatever happens to the job, and too many failures end the stage."""

    @pytest.fixture
    def label(self, start: Starter, python_code: Any, pes: Any) -> Starter:
        def make(child: Any, **inputs: Any) -> Any:
            given = {"frames": pes(4), "parameters": orm.Dict(EMT)}
            return start(LabellingWorkChain, child, code=python_code, **{**given, **inputs})

        return make

    def test_labels_and_their_summary_are_attached(self, label: Starter, plant: Any, pes: Any) -> None:
        rig = label(lambda _: plant(labelled=pes(4, labelled=True)))
        assert rig.run() is None
        assert rig.submissions[0].process is LabelAseCalculation
        assert rig.output("labelled").n_labelled == 4
        assert rig.output("report")["n_labelled"] == 4

    @pytest.mark.parametrize("exit_status", [500, 501])
    def test_another_attempt_goes_on_from_what_is_labelled(
        self, label: Starter, plant: Any, pes: Any, exit_status: int
    ) -> None:
        children = [
            plant(exit_status=exit_status, labelled=pes(4, labelled=True, failed=2)),
            plant(labelled=pes(4, labelled=True)),
        ]
        rig = label(lambda _: children[len(rig.submissions) - 1])
        assert rig.run() is None
        first, second = rig.submissions
        assert first.inputs["frames"].uuid == rig.process.inputs.frames.uuid
        assert second.inputs["frames"].uuid == children[0].outputs.labelled.uuid
        assert rig.output("labelled").uuid == children[1].outputs.labelled.uuid

    def test_labels_of_an_interrupted_job_survive_the_loss_of_the_next(
        self, label: Starter, plant: Any, pes: Any
    ) -> None:
        children = [plant(exit_status=500, labelled=pes(4, labelled=True, failed=1)), plant(exit_status=302)]
        rig = label(lambda _: children[len(rig.submissions) - 1])
        assert rig.run() is None
        assert rig.output("labelled").n_labelled == 3

    @pytest.mark.parametrize(("failed", "expected"), [(1, 0), (2, 0), (3, 402)])
    def test_the_largest_failed_share_is_allowed_and_more_is_not(
        self, label: Starter, plant: Any, pes: Any, failed: int, expected: int
    ) -> None:
        rig = label(lambda _: plant(labelled=pes(4, labelled=True, failed=failed)), max_failed_fraction=orm.Float(0.5))
        exit_code = rig.run()
        assert (exit_code.status if exit_code else 0) == expected
        assert rig.output("labelled").n_labelled == 4 - failed
        if exit_code:
            assert "3 of 4 frames have no label, e.g. the reference did not converge" in exit_code.message

    def test_labels_of_another_fingerprint_than_the_job_reports_are_set_aside(
        self, label: Starter, plant: Any, pes: Any
    ) -> None:
        """A package of another version on the compute node, between two attempts."""
        made = pes(4, labelled=True, fingerprint=["new", "new", "old", "new"])
        report = orm.Dict({"results": {"fingerprint": "new"}})
        rig = label(lambda _: plant(labelled=made, report=report))
        assert rig.run() is None
        reasons = [frame.info["reason"] for frame in rig.output("labelled")]
        assert "labelled with settings old instead of new" in reasons[2]
        assert rig.output("report")["review"]["by_check"] == {"fingerprint": 1}

    def test_nothing_labelled_is_a_failure_even_if_all_may_fail(self, label: Starter, plant: Any, pes: Any) -> None:
        rig = label(lambda _: plant(labelled=pes(2, labelled=True, failed=2)), max_failed_fraction=orm.Float(1.0))
        assert rig.run().status == 402
        assert rig.output("report")["n_failed"] == 2

    def test_a_job_without_labels_ends_with_401(self, label: Starter, plant: Any) -> None:
        exit_code = label(lambda _: plant(exit_status=310, message="the package tblite is missing")).run()
        assert exit_code.status == 401
        assert "tblite" in exit_code.message

    @pytest.mark.parametrize(
        ("inputs", "message"),
        [
            ({"engine": "asse"}, "label.engine: 'asse' is unknown; known: .*ase"),
            ({"parameters": {"calculater": "x:Y"}}, "label.parameters: unknown key 'calculater'.*calculator"),
            ({"parameters": {}}, "label.parameters: 'calculator' is required"),
            ({"max_failed_fraction": 1.5}, "max_failed_fraction: expected 0 to 1, got 1.5"),
            ({"options": {"max_walltime": 60}}, "options.*did you mean 'max_wallclock_seconds'"),
            ({"max_iterations": 0}, "max_iterations: expected at least 1, got 0"),
        ],
    )
    def test_wrong_inputs_are_refused_by_name(self, label: Starter, inputs: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            label(None, **inputs)


class TestTraining:
    """A committee of members that differ in their seeds, complete or not."""

    @pytest.fixture
    def train(self, start: Starter, python_code: Any, pes: Any) -> Starter:
        def make(child: Any, **inputs: Any) -> Any:
            given = {
                "dataset": pes(6, labelled=True),
                "parameters": orm.Dict({}),
                "committee_size": orm.Int(3),
                "seed": orm.Int(7),
            }
            return start(TrainingWorkChain, child, code=python_code, **{**given, **inputs})

        return make

    @pytest.fixture
    def failing(self, plant: Any, potential: Any) -> Callable[..., Any]:
        """Return a child that trains all members but those named."""

        def make(*failed: str) -> Any:
            def child(submission: Any) -> Any:
                if submission.label in failed:
                    return plant(exit_status=411, message="it diverged")
                report = orm.Dict({"results": {"rmse": {"train": {"energy": 0.5}}}, "seconds": 2.0})
                return plant(potential=potential(submission.label), report=report)

            return child

        return make

    def test_labels_of_several_settings_are_refused_before_any_job_unless_they_may_mix(
        self, train: Starter, failing: Any, pes: Any
    ) -> None:
        mixed = pes(3, labelled=True, fingerprint=["a", "b", ""], split=["train", "validation", "train"])
        exit_code = train(failing(), dataset=mixed).run()
        assert exit_code.status == 401
        assert "several settings (1 of a, 1 of b)" in exit_code.message
        assert train(failing(), dataset=mixed, allow_mixed=orm.Bool(True)).run() is None

    def test_every_member_has_a_seed_of_its_own(self, train: Starter, failing: Any) -> None:
        rig = train(failing())
        assert rig.run() is None
        seeds = [submission.inputs["seed"].value for submission in rig.submissions]
        assert len(set(seeds)) == len(seeds) == 3
        assert 7 not in seeds

    def test_the_seeds_of_the_members_are_made_by_a_process(self, train: Starter, failing: Any) -> None:
        rig = train(failing())
        rig.run()
        assert rig.submissions[0].inputs["seed"].creator.process_label == "plan_committee"

    def test_the_same_seed_gives_the_same_members(self, train: Starter, failing: Any) -> None:
        seeds = []
        for size in (2, 3):
            rig = train(failing(), committee_size=orm.Int(size))
            rig.run()
            seeds.append([submission.inputs["seed"].value for submission in rig.submissions])
        assert seeds[0] == seeds[1][:2]

    def test_the_committee_and_its_errors_are_attached(self, train: Starter, failing: Any) -> None:
        rig = train(failing())
        rig.run()
        assert sorted(rig.output("potentials")) == ["m000", "m001", "m002"]
        assert rig.output("report")["mean"] == {"train": {"energy": 0.5}}

    def test_one_failed_member_of_three_leaves_a_committee_of_two(self, train: Starter, failing: Any) -> None:
        rig = train(failing("m001"))
        assert rig.run() is None
        assert sorted(rig.output("potentials")) == ["m000", "m002"]

    def test_fewer_than_min_members_end_with_402_and_are_attached(self, train: Starter, failing: Any) -> None:
        rig = train(failing("m001"), min_members=orm.Int(3))
        exit_code = rig.run()
        assert exit_code.status == 402
        assert "2 members are usable, 3 are needed; m001: exit status 411: it diverged" in exit_code.message
        assert sorted(rig.output("potentials")) == ["m000", "m002"]

    @pytest.mark.parametrize("exit_status", [302, 305, 413])
    def test_a_member_lost_in_all_attempts_ends_the_stage_with_the_others_attached(
        self, train: Starter, failing: Any, plant: Any, exit_status: int
    ) -> None:
        done = failing()
        rig = train(lambda s: plant(exit_status=exit_status) if s.label == "m000" else done(s))
        exit_code = rig.run()
        assert exit_code.status == 403
        assert f"1 of 3 jobs, the last attempt at m000 with exit status {exit_status}" in exit_code.message
        assert sorted(rig.output("potentials")) == ["m001", "m002"]
        assert sorted(rig.output("report")["members"]) == ["m001", "m002"]

    def test_all_failed_ends_with_401(self, train: Starter, failing: Any) -> None:
        exit_code = train(failing("m000", "m001", "m002")).run()
        assert exit_code.status == 401
        assert "it diverged" in exit_code.message

    def test_members_start_from_the_parent_of_their_name(self, train: Starter, failing: Any, committee: Any) -> None:
        parents = committee("parent", 2)
        rig = train(failing(), parents=parents)
        assert rig.run() is None
        assert rig.sent("m000")["parent"].uuid == parents["m000"].uuid
        assert rig.sent("m001")["parent"].uuid == parents["m001"].uuid
        assert "parent" not in rig.sent("m002")

    def test_an_interrupted_training_goes_on_from_its_checkpoint(
        self, train: Starter, failing: Any, plant: Any, localhost: Any
    ) -> None:
        remote = orm.RemoteData(remote_path="/tmp/run", computer=localhost)
        interrupted = plant(exit_status=500, remote_folder=remote)
        done = failing()

        def child(submission: Any) -> Any:
            is_first = submission.label == "m000" and "checkpoint" not in submission.inputs
            return interrupted if is_first else done(submission)

        rig = train(child)
        assert rig.run() is None
        assert rig.labels.count("m000") == 2
        assert rig.sent("m000")["checkpoint"].uuid == interrupted.outputs.remote_folder.uuid
        assert rig.submissions[0].inputs["seed"].uuid == rig.sent("m000")["seed"].uuid

    def test_a_lost_training_starts_over(self, train: Starter, failing: Any, plant: Any) -> None:
        lost, done = plant(exit_status=302), failing()
        rig = train(lambda s: lost if s.label == "m000" and rig.labels.count("m000") == 1 else done(s))
        assert rig.run() is None
        assert rig.labels.count("m000") == 2
        assert "checkpoint" not in rig.sent("m000")

    @pytest.mark.parametrize(
        ("inputs", "message"),
        [
            ({"committee_size": 1}, "committee_size: a committee needs at least 2 members"),
            ({"min_members": 1}, "min_members: a committee needs at least 2 members"),
            ({"min_members": 4}, "train.min_members: 4 of a committee_size of 3"),
            ({"engine": "mase"}, "train.engine: 'mase' is unknown; known: mace"),
            ({"parameters": {"hyperparams": {}}}, "train.parameters: unknown key.*'hyperparameters'"),
            ({"seed": -3}, "seed: expected at least 0, got -3"),
        ],
    )
    def test_wrong_inputs_are_refused_by_name(self, train: Starter, inputs: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            train(None, **inputs)

    def test_a_dataset_without_labels_is_refused(self, train: Starter, pes: Any) -> None:
        with pytest.raises(ValueError, match="dataset: it has no labelled frame to train on"):
            train(None, dataset=pes(3))

    def test_a_parent_of_no_member_is_refused(self, train: Starter, committee: Any) -> None:
        with pytest.raises(ValueError, match=r"parents: unknown key 'm003'; did you mean 'm00\d'"):
            train(None, parents=committee("parent", 4))


class TestExploration:
    """Parts of one plan over several jobs, and candidates of every job that left some."""

    @pytest.fixture
    def explore(self, start: Starter, python_code: Any, pes: Any, committee: Any, error_bars: Any) -> Starter:
        def make(child: Any, **inputs: Any) -> Any:
            members = committee()
            given = {
                "potentials": members,
                "uncertainty": error_bars(members),
                "frames": pes(2),
                "settings": orm.Dict(
                    {"temperatures": [300, 600], "pressures": [0, 1], "n_steps": 10, "sample_every": 5}
                ),
                "seed": orm.Int(3),
                "trajectories_per_job": orm.Int(3),
                "iteration": orm.Int(4),
            }
            return start(ExplorationWorkChain, child, code=python_code, **{**given, **inputs})

        return make

    @pytest.fixture
    def explored(self, plant: Any, pes: Any) -> Callable[[Any], Any]:
        def child(submission: Any, exit_status: int = 0, **outputs: Any) -> Any:
            plan = submission.inputs["trajectories"].get_dict()
            rows = [
                {"outcome": "completed", "healthy": True, "n_frames": 1} for _ in range(plan["first"], plan["last"])
            ]
            report = orm.Dict({"results": {"trajectories": rows}})
            return plant(exit_status=exit_status, candidates=pes(len(rows)), report=report, **outputs)

        return child

    @pytest.fixture
    def folder(self, localhost: orm.Computer) -> Callable[[], orm.RemoteData]:
        """Return a function that makes the folder of a job."""
        return lambda: orm.RemoteData(remote_path="/tmp/run", computer=localhost)

    def test_the_jobs_cover_all_trajectories_exactly_once(self, explore: Starter, explored: Any) -> None:
        rig = explore(explored)
        assert rig.run() is None
        parts = [submission.inputs["trajectories"] for submission in rig.submissions]
        covered = [index for part in parts for index in range(part["first"], part["last"])]
        assert covered == list(range(2 * 2 * 2))
        assert {part["iteration"] for part in parts} == {4}
        assert {submission.process for submission in rig.submissions} == {ExploreAseCalculation}

    def test_all_jobs_share_seed_committee_and_starting_frames(self, explore: Starter, explored: Any) -> None:
        rig = explore(explored)
        rig.run()
        for name in ("seed", "uncertainty", "frames", "settings"):
            assert {submission.inputs[name].uuid for submission in rig.submissions} == {rig.process.inputs[name].uuid}

    def test_candidates_and_report_of_all_jobs_are_attached(self, explore: Starter, explored: Any) -> None:
        rig = explore(explored)
        rig.run()
        assert sorted(rig.output("candidates")) == ["j000", "j001", "j002"]
        assert [len(node) for node in rig.output("candidates").values()] == [3, 3, 2]
        assert rig.output("report")["n_trajectories"] == 8

    def test_one_failed_job_leaves_the_candidates_of_the_others(
        self, explore: Starter, explored: Any, plant: Any
    ) -> None:
        rig = explore(
            lambda s: plant(exit_status=400, message="it crashed") if s.label == "j000" else explored(s),
            trajectories_per_job=orm.Int(4),
        )
        assert rig.run() is None
        assert list(rig.output("candidates")) == ["j001"]

    def test_trajectories_of_a_failed_job_count_as_run_and_unhealthy(
        self, explore: Starter, explored: Any, plant: Any
    ) -> None:
        rig = explore(
            lambda s: plant(exit_status=400) if s.label == "j000" else explored(s), trajectories_per_job=orm.Int(4)
        )
        rig.run()
        report = rig.output("report")
        assert (report["n_trajectories"], report["n_healthy_trajectories"]) == (8, 4)

    def test_an_interrupted_job_goes_on_from_its_folder(self, explore: Starter, explored: Any, folder: Any) -> None:
        ends = iter([500, 0])
        rig = explore(lambda s: explored(s, next(ends), remote_folder=folder()) if s.label == "j001" else explored(s))
        assert rig.run() is None
        assert rig.labels == ["j000", "j001", "j002", "j001"]
        first, second = (s for s in rig.submissions if s.label == "j001")
        assert "checkpoint" not in first.inputs
        assert second.inputs["checkpoint"].uuid == first.node.outputs.remote_folder.uuid

    def test_a_resumed_stage_begins_in_the_folders_of_the_one_before(
        self, explore: Starter, explored: Any, folder: Any
    ) -> None:
        checkpoint = folder().store()
        rig = explore(explored, checkpoints={"j001": checkpoint})
        assert rig.run() is None
        assert rig.sent("j001")["checkpoint"].uuid == checkpoint.uuid
        assert "checkpoint" not in rig.sent("j000")

    def test_a_job_out_of_time_in_all_attempts_ends_the_stage_with_its_candidates_kept(
        self, explore: Starter, explored: Any
    ) -> None:
        rig = explore(lambda s: explored(s, 500 if s.label == "j001" else 0))
        exit_code = rig.run()
        assert exit_code.status == 403
        assert "1 of 3 jobs, the last attempt at j001" in exit_code.message
        assert sorted(rig.output("candidates")) == ["j000", "j001", "j002"]

    def test_a_full_disk_in_one_of_several_jobs_ends_the_stage_and_does_not_change_the_candidates(
        self, explore: Starter, explored: Any, plant: Any
    ) -> None:
        rig = explore(lambda s: plant(exit_status=305, message="no space left") if s.label == "j001" else explored(s))
        exit_code = rig.run()
        assert exit_code.status == 403
        assert "1 of 3 jobs, the last attempt at j001 with exit status 305: no space left" in exit_code.message
        assert rig.labels.count("j001") == 2

    def test_lost_jobs_are_allowed_for_by_max_lost_fraction(self, explore: Starter, explored: Any) -> None:
        rig = explore(lambda s: explored(s, 500 if s.label == "j001" else 0), max_lost_fraction=orm.Float(0.4))
        assert rig.run() is None
        assert sorted(rig.output("candidates")) == ["j000", "j001", "j002"]

    def test_frames_that_nothing_can_start_from_end_with_401(self, explore: Starter, pes: Any) -> None:
        rig = explore(None, frames=pes(2, status=["failed", "quarantined"]))
        exit_code = rig.run()
        assert exit_code.status == 401
        assert "1 of status failed, 1 of status quarantined" in exit_code.message
        assert rig.submissions == []

    def test_all_failed_ends_with_401(self, explore: Starter, plant: Any) -> None:
        exit_code = explore(lambda _: plant(exit_status=430, message="no trajectory gave a frame")).run()
        assert exit_code.status == 401
        assert "no trajectory gave a frame" in exit_code.message

    @pytest.mark.parametrize(
        ("inputs", "message"),
        [
            ({"settings": {"temperature": [300]}}, "explore.settings: unknown key.*'temperatures'"),
            ({"settings": {"temperatures": [-1]}}, "explore.settings: temperatures must be.*at least 0"),
            ({"engine": "lamps"}, "explore.engine: 'lamps' is unknown; known: ase"),
            ({"trajectories_per_job": 0}, "trajectories_per_job: expected at least 1, got 0"),
            ({"iteration": -1}, "iteration: expected at least 0, got -1"),
        ],
    )
    def test_wrong_inputs_are_refused_by_name(self, explore: Starter, inputs: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            explore(None, **inputs)

    def test_error_bars_of_another_committee_are_refused(self, explore: Starter, committee: Any) -> None:
        with pytest.raises(ValueError, match="uncertainty: it was calibrated with other potentials"):
            explore(None, potentials=committee("other"))
