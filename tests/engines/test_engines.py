"""The contracts of the engines, over every entry point, and what each hands to its job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from aiida import orm
from aiida.common.links import LinkType
from aiida.engine import Process
from plumpy.process_states import ProcessState

from aiida_alpot.calculations.explore_ase import ExploreAseCalculation
from aiida_alpot.calculations.label_ase import LabelAseCalculation
from aiida_alpot.calculations.train_mace import TrainMaceCalculation
from aiida_alpot.data.potential import PotentialData
from aiida_alpot.engines.explore.base import ExplorationInputs, ExploreEngine
from aiida_alpot.engines.job import JobResources
from aiida_alpot.engines.label.base import LabelEngine, LabelRequest
from aiida_alpot.engines.train.base import MemberInputs, TrainEngine
from aiida_alpot.plugins import known_engines, load_engine

CONTRACTS = {"label": LabelEngine, "train": TrainEngine, "explore": ExploreEngine}
WHERE = {"label": "label.parameters", "train": "train.parameters", "explore": "explore.settings"}
ENGINES = [(kind, name) for kind in CONTRACTS for name in known_engines(kind)]
VALID = {"ase": {"calculator": "ase.calculators.emt:EMT"}, "vasp": {"potential_family": "PBE"}}
"""Parameters that a label engine cannot do without."""


def _valid(kind: str, name: str) -> dict[str, Any]:
    return VALID.get(name, {}) if kind == "label" else {}


@pytest.fixture
def resources(python_code: Any) -> JobResources:
    kernel = orm.SinglefileData.from_string("kernel", filename="kernel.pyz").store()
    return JobResources(python_code, kernel, {"max_wallclock_seconds": 60}, "j000")


def ended(exit_status: int, localhost: Any, **outputs: orm.Node) -> orm.CalcJobNode:
    """Return a stored job that ended with these outputs."""
    node = orm.CalcJobNode(computer=localhost)
    node.set_process_state(ProcessState.FINISHED)
    node.set_exit_status(exit_status)
    node.store()
    for label, output in outputs.items():
        output.base.links.add_incoming(node, LinkType.CREATE, label)
        output.store()
    return node


def potential(folder: Path) -> PotentialData:
    (folder / "a.model").write_text("model")
    return PotentialData.from_file(folder / "a.model", engine="mace", symbols=["Cu"]).store()


@pytest.mark.parametrize(("kind", "name"), ENGINES)
def test_every_engine_keeps_the_contract_of_its_kind(kind: str, name: str) -> None:
    engine = load_engine(kind, name)  # type: ignore[arg-type]
    assert issubclass(engine, CONTRACTS[kind])
    assert not engine.__abstractmethods__


@pytest.mark.parametrize(("kind", "name"), ENGINES)
def test_every_engine_names_an_unknown_key_and_the_stage(kind: str, name: str) -> None:
    message = load_engine(kind, name).validate({**_valid(kind, name), "no_such_key": 1})  # type: ignore[arg-type]
    assert message is not None
    assert message.startswith(f"{WHERE[kind]}: unknown key 'no_such_key'")


@pytest.mark.parametrize(("kind", "name"), ENGINES)
def test_every_engine_accepts_its_defaults(kind: str, name: str) -> None:
    assert load_engine(kind, name).validate(_valid(kind, name)) is None  # type: ignore[arg-type]


def test_an_unknown_engine_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="there is no train engine 'mcae'; did you mean 'mace'"):
        load_engine("train", "mcae")


def test_resources_become_the_inputs_that_every_job_takes(resources: JobResources) -> None:
    inputs = resources.common_inputs()
    assert inputs["code"] is resources.code
    assert inputs["metadata"] == {
        "options": {"max_wallclock_seconds": 60},
        "label": "j000",
        "call_link_label": "j000",
    }


def accepted(process: type[Process], inputs: Any) -> bool:
    """Return whether the job would be accepted by its own spec."""
    ports = process.spec().inputs
    return ports.validate(ports.pre_process(dict(inputs))) is None


class TestAseLabels:
    engine = load_engine("label", "ase")
    parameters = VALID["ase"]

    def request(self, frames: Any) -> LabelRequest:
        return LabelRequest(frames, orm.Dict(self.parameters), self.engine.complete(self.parameters, frames.symbols))

    def prepare(self, copper: Any, resources: JobResources, previous: Any = None) -> Any:
        return self.engine.prepare_job("labels", self.request(copper), resources, previous)

    def test_one_job_labels_all_frames(self, copper: Any, resources: JobResources) -> None:
        assert self.engine.plan_jobs(self.request(copper)) == ["labels"]
        job = self.prepare(copper, resources)
        assert job.process is LabelAseCalculation
        assert job.inputs["frames"] is copper
        assert accepted(job.process, job.inputs)

    def test_it_goes_on_from_partial_labels(
        self, copper: Any, copper_dataset: Any, resources: JobResources, localhost: Any
    ) -> None:
        previous = ended(500, localhost, labelled=copper_dataset.clone())
        assert self.prepare(copper, resources, previous).inputs["frames"].uuid == previous.outputs.labelled.uuid

    def test_a_job_without_labels_leaves_all_frames_to_do(
        self, copper: Any, resources: JobResources, localhost: Any
    ) -> None:
        assert self.prepare(copper, resources, ended(302, localhost)).inputs["frames"] is copper

    def test_what_was_labelled_is_collected(self, copper: Any, copper_dataset: Any, localhost: Any) -> None:
        job = ended(0, localhost, labelled=copper_dataset.clone())
        assert self.engine.collect(self.request(copper), {"labels": job}, {}).uuid == job.outputs.labelled.uuid
        assert self.engine.collect(self.request(copper), {"labels": ended(310, localhost)}, {}) is None


class TestMaceTraining:
    engine = load_engine("train", "mace")

    def member(self, dataset: Any, parent: Any = None) -> MemberInputs:
        return MemberInputs(dataset, orm.Dict({}), orm.Int(5), parent)

    def test_a_member_is_trained_from_scratch(self, copper_dataset: Any, resources: JobResources) -> None:
        job = self.engine.prepare_job(self.member(copper_dataset), resources, None)
        assert job.process is TrainMaceCalculation
        assert not {"parent", "checkpoint"} & set(job.inputs)
        assert accepted(job.process, job.inputs)

    def test_a_member_starts_from_its_parent(
        self, copper_dataset: Any, resources: JobResources, tmp_path: Path
    ) -> None:
        parent = potential(tmp_path)
        job = self.engine.prepare_job(self.member(copper_dataset, parent), resources, None)
        assert job.inputs["parent"] is parent
        assert accepted(job.process, job.inputs)

    def test_an_interrupted_training_goes_on_from_its_checkpoint(
        self, copper_dataset: Any, resources: JobResources, localhost: Any
    ) -> None:
        previous = ended(500, localhost, remote_folder=orm.RemoteData(remote_path="/tmp/run", computer=localhost))
        job = self.engine.prepare_job(self.member(copper_dataset), resources, previous)
        assert job.inputs["checkpoint"].uuid == previous.outputs.remote_folder.uuid
        assert accepted(job.process, job.inputs)

    def test_a_lost_training_has_no_checkpoint_to_trust(
        self, copper_dataset: Any, resources: JobResources, localhost: Any
    ) -> None:
        previous = ended(302, localhost, remote_folder=orm.RemoteData(remote_path="/tmp/run", computer=localhost))
        assert "checkpoint" not in self.engine.prepare_job(self.member(copper_dataset), resources, previous).inputs


class TestAseExploration:
    engine = load_engine("explore", "ase")

    @pytest.mark.parametrize(("per_job", "expected"), [(1, 4), (3, 2), (4, 1), (99, 1)])
    def test_the_plan_covers_every_trajectory_once(self, copper: Any, per_job: int, expected: int) -> None:
        settings = orm.Dict({"temperatures": [300], "pressures": [0], "n_steps": 1})
        inputs = ExplorationInputs({}, None, copper, settings, orm.Int(1))  # type: ignore[arg-type]
        parts = self.engine.plan_jobs(inputs, orm.Int(per_job), orm.Int(2))
        assert len(parts) == expected
        covered = [k for part in parts.values() for k in range(part["first"], part["last"])]
        assert covered == [0, 1, 2, 3]
        assert {part["iteration"] for part in parts.values()} == {2}
        assert all(part.creator.process_label == "plan_exploration" for part in parts.values())

    def test_pressures_do_not_multiply_trajectories_at_constant_volume(self, copper: Any) -> None:
        settings = orm.Dict({"ensemble": "nvt", "temperatures": [300], "pressures": [0, 1, 2]})
        inputs = ExplorationInputs({}, None, copper, settings, orm.Int(1))  # type: ignore[arg-type]
        parts = self.engine.plan_jobs(inputs, orm.Int(99), orm.Int(0))
        assert parts["j000"]["last"] == 4

    def test_a_job_runs_its_part_of_the_plan(self, copper: Any, resources: JobResources, tmp_path: Path) -> None:
        member = potential(tmp_path)
        inputs = ExplorationInputs({"m000": member}, None, copper, orm.Dict({}), orm.Int(1))  # type: ignore[arg-type]
        part = orm.Dict({"first": 0, "last": 2, "iteration": 0})
        job = self.engine.prepare_job(inputs, part, resources)
        assert job.process is ExploreAseCalculation
        assert job.inputs["trajectories"] is part
        assert job.inputs["potentials"] == {"m000": member}
        assert set(job.inputs) - {"metadata", "kernel"} <= set(ExploreAseCalculation.spec().inputs)
