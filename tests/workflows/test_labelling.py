"""LabellingWorkChain with an engine that has one job a frame."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from aiida import orm
from aiida.calculations.arithmetic.add import ArithmeticAddCalculation
from aiida.common.links import LinkType
from ase import Atoms
from ase.calculators.emt import EMT

from aiida_alpot.data.pes import PESData
from aiida_alpot.engines.job import Job, JobResources
from aiida_alpot.engines.label import collecting, per_frame
from aiida_alpot.engines.label.base import LabelRequest
from aiida_alpot.engines.label.per_frame import FrameLabelEngine
from aiida_alpot.kernel.labelling.results import Result
from aiida_alpot.workflows.label import LabellingWorkChain


class CountingEngine(FrameLabelEngine):
    """The energy of a frame is what its job gave."""

    NAME: ClassVar[str] = "counting"
    OUTPUTS: ClassVar[tuple[str, ...]] = ("result",)

    @classmethod
    def validate(cls, parameters: Mapping[str, Any]) -> str | None:
        """All is well."""
        return None

    @classmethod
    def fingerprint(cls, settings: Mapping[str, Any]) -> str:
        """The method."""
        return f"counting-{settings.get('method', 'a')}"

    @classmethod
    def build(cls, atoms: Atoms, structure: orm.StructureData, request: LabelRequest, resources: JobResources) -> Job:
        """Return a job of which only the label matters here."""
        assert len(atoms) == len(structure.sites)
        metadata = {"call_link_label": resources.label, "options": {"resources": {"num_machines": 1}}}
        numbers = {"x": orm.Int(1), "y": orm.Int(resources.n_before)}
        return Job(ArithmeticAddCalculation, {"code": resources.code, "metadata": metadata, **numbers})

    @classmethod
    def read(cls, atoms: Atoms, outputs: Mapping[str, orm.Node], settings: Mapping[str, Any]) -> Sequence[Result]:
        """Return as many labels as the job says."""
        content = outputs["result"].get_dict()
        if "problem" in content:
            raise ValueError(content["problem"])
        if not content:
            raise KeyError("energies")
        forces = [[0.0, 0.0, 0.0]] * len(atoms)
        return [Result({"energy": energy, "forces": forces}) for energy in content["energies"]]


@pytest.fixture
def stage(start: Callable[..., Any], python_code: Any, entry_points: Any) -> Callable[..., Any]:
    """Return a function that starts the labelling of a dataset with that engine."""
    entry_points.add(CountingEngine, "aiida_alpot.label:counting")

    def make(child: Callable[[Any], Any], frames: PESData, **inputs: Any) -> Any:
        given = {"code": python_code, "engine": orm.Str("counting"), "parameters": orm.Dict({}), "frames": frames}
        return start(LabellingWorkChain, child, **{**given, **inputs})

    return make


@pytest.fixture
def gave(plant: Callable[..., Any]) -> Callable[..., Callable[[Any], Any]]:
    """Return a function that makes a child which gives labels of these energies."""
    return lambda *energies: lambda _: plant(result=orm.Dict({"energies": list(energies)}))


def statuses(labelled: Iterable[Atoms]) -> list[str]:
    return [frame.info["status"] for frame in labelled]


def test_every_frame_is_labelled_in_its_place(stage: Any, gave: Any, pes: Any) -> None:
    rig = stage(gave(-1.0), pes(3))
    assert rig.run() is None
    labelled = rig.output("labelled")
    assert [frame.info["group"] for frame in labelled] == ["g0-0", "g0-1", "g0-2"]
    assert statuses(labelled) == ["labelled"] * 3
    assert {frame.info["fingerprint"] for frame in labelled} == {"counting-a"}


def test_results_are_collected_in_chunks_that_read_as_one(
    stage: Any, gave: Any, pes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(per_frame, "CHUNK", 2)
    rig = stage(gave(-1.0), pes(5))
    assert rig.run() is None
    labelled = rig.output("labelled")
    assert [frame.info["group"] for frame in labelled] == [f"g0-{k}" for k in range(5)]
    parts = [link.node for link in labelled.creator.base.links.get_incoming(node_class=PESData).all()]
    assert [part.creator.process_label for part in parts] == ["collect_labels"] * 3
    assert max(len(part.creator.base.links.get_incoming().all()) for part in parts) == 2 + 2  # frames and settings too


def test_a_failed_job_costs_its_frame_and_says_why(stage: Any, gave: Any, plant: Any, pes: Any) -> None:
    failed = iter([True, False, False])
    rig = stage(lambda s: plant(exit_status=310, message="no") if next(failed) else gave(-1.0)(s), pes(3))
    assert rig.run() is None
    labelled = list(rig.output("labelled"))
    assert statuses(labelled) == ["failed", "labelled", "labelled"]
    assert labelled[0].info["reason"] == "exit status 310: no"


def test_an_output_that_cannot_be_read_costs_its_frame_only(stage: Any, gave: Any, plant: Any, pes: Any) -> None:
    unreadable = iter([True, False])
    problem = orm.Dict({"problem": "there are no forces"})
    rig = stage(lambda s: plant(result=problem) if next(unreadable) else gave(-1.0)(s), pes(2))
    assert rig.run() is None
    expected = "the output of its calculation cannot be used: there are no forces"
    assert next(iter(rig.output("labelled"))).info["reason"] == expected


def test_an_engine_that_stumbles_over_one_output_loses_no_other_label(
    stage: Any, gave: Any, plant: Any, pes: Any
) -> None:
    empty = iter([True, False])
    rig = stage(lambda s: plant(result=orm.Dict({})) if next(empty) else gave(-1.0)(s), pes(2))
    assert rig.run() is None
    labelled = list(rig.output("labelled"))
    assert statuses(labelled) == ["failed", "labelled"]
    assert "KeyError: 'energies'" in labelled[0].info["reason"]


def test_a_job_that_was_lost_leaves_its_frame_to_the_next_run(stage: Any, gave: Any, plant: Any, pes: Any) -> None:
    labels: list[str] = []

    def child(submission: Any) -> Any:
        labels.append(submission.label)
        is_lost = submission.label == labels[0]
        return plant(exit_status=302, message="killed") if is_lost else gave(-1.0)(submission)

    rig = stage(child, pes(4))
    assert rig.run() is None
    labelled = rig.output("labelled")
    assert sorted(statuses(labelled)) == ["labelled"] * 3 + ["unlabelled"]
    again = stage(gave(-2.0), labelled)
    assert again.run() is None
    assert len(again.labels) == 1
    assert statuses(again.output("labelled")) == ["labelled"] * 4


@pytest.fixture
def plant_unhandled(plant: Any) -> Callable[[int], Any]:
    """Return a function that plants a WorkChain which gave up after a calculation of this exit status."""

    def make(exit_status: int) -> Any:
        parent = plant(orm.WorkChainNode, 402, "unhandled failure")
        job = plant(orm.CalcJobNode, exit_status, "of the scheduler")
        job.backend_entity.add_incoming(parent.backend_entity, LinkType.CALL_CALC, "iteration_01")
        return parent

    return make


@pytest.mark.parametrize("exit_status", [100, 110, 140])
def test_a_frame_whose_calculation_the_machine_stopped_is_labelled_again(
    stage: Any, gave: Any, plant_unhandled: Any, pes: Any, exit_status: int
) -> None:
    stopped = iter([True, False, False])
    rig = stage(lambda s: plant_unhandled(exit_status) if next(stopped) else gave(-1.0)(s), pes(2))
    assert rig.run() is None
    assert statuses(rig.output("labelled")) == ["labelled"] * 2
    assert sorted(rig.labels.count(label) for label in set(rig.labels)) == [1, 2]


def test_a_frame_whose_calculation_is_always_stopped_is_left_to_the_next_labelling(
    stage: Any, gave: Any, plant_unhandled: Any, pes: Any
) -> None:
    labels: list[str] = []

    def child(submission: Any) -> Any:
        labels.append(submission.label)
        return plant_unhandled(140) if submission.label == labels[0] else gave(-1.0)(submission)

    rig = stage(child, pes(2), max_iterations=orm.Int(2))
    assert rig.run() is None
    assert labels.count(labels[0]) == 2
    assert sorted(statuses(rig.output("labelled"))) == ["labelled", "unlabelled"]
    (left,) = (frame for frame in rig.output("labelled") if frame.info["status"] == "unlabelled")
    assert left.info["reason"].startswith("stopped from outside: exit status 402: unhandled failure")
    assert "exit status 140: of the scheduler" in left.info["reason"]
    again = stage(gave(-2.0), rig.output("labelled"))
    assert again.run() is None
    assert statuses(again.output("labelled")) == ["labelled"] * 2


@pytest.mark.parametrize("exit_status", [120, 310])
def test_walltime_and_failures_of_the_physics_are_no_loss(
    stage: Any, gave: Any, plant_unhandled: Any, pes: Any, exit_status: int
) -> None:
    failed = iter([True, False])
    rig = stage(lambda s: plant_unhandled(exit_status) if next(failed) else gave(-1.0)(s), pes(2))
    assert rig.run() is None
    assert len(rig.labels) == 2
    assert statuses(rig.output("labelled")) == ["failed", "labelled"]


def test_the_stage_is_lost_when_too_many_of_its_jobs_are(stage: Any, plant: Any, pes: Any) -> None:
    rig = stage(lambda _: plant(exit_status=302, message="killed"), pes(2))
    assert rig.run().status == 403


def test_the_stage_ends_early_when_too_many_have_failed(stage: Any, plant: Any, pes: Any) -> None:
    failed = lambda _: plant(exit_status=310, message="wrong pseudopotential")  # noqa: E731
    rig = stage(failed, pes(20), max_failed_fraction=orm.Float(0.1), max_concurrent=2)
    exit_code = rig.run()
    assert exit_code.status == 402
    assert "wrong pseudopotential" in exit_code.message
    assert len(rig.labels) == 4
    assert statuses(rig.output("labelled")).count("unlabelled") == 16


def test_another_fingerprint_labels_anew_and_both_labels_stay(stage: Any, gave: Any, pes: Any) -> None:
    first = stage(gave(-1.0), pes(2))
    first.run()
    again = stage(gave(-2.0), first.output("labelled"), parameters=orm.Dict({"method": "b"}))
    assert again.run() is None
    found = [(frame.info["fingerprint"], frame.get_potential_energy()) for frame in again.output("labelled")]
    assert found == [("counting-a", -1.0), ("counting-b", -2.0)] * 2
    third = stage(gave(-3.0), again.output("labelled"), parameters=orm.Dict({"method": "b"}))
    assert third.run() is None
    assert third.labels == []
    assert third.output("labelled").content_hash == again.output("labelled").content_hash


def test_frames_with_labels_of_these_settings_have_no_job(stage: Any, gave: Any, pes: Any) -> None:
    first = stage(gave(-1.0), pes(2))
    first.run()
    again = stage(gave(-2.0), first.output("labelled"))
    assert again.run() is None
    assert again.labels == []
    assert again.output("labelled").content_hash == first.output("labelled").content_hash


def test_one_frame_may_give_several_labels(stage: Any, gave: Any, pes: Any) -> None:
    rig = stage(gave(-1.0, -2.0, -3.0), pes(1))
    assert rig.run() is None
    assert [frame.get_potential_energy() for frame in rig.output("labelled")] == [-1.0, -2.0, -3.0]


def test_a_stage_that_is_resumed_keeps_the_jobs_that_ended_well(stage: Any, gave: Any, plant: Any, pes: Any) -> None:
    frames = pes(4)
    good = iter([True, True, False, False])
    killed = stage(lambda s: gave(-1.0)(s) if next(good) else plant(exit_status=302), frames)
    killed.step("setup")
    killed.step("run_jobs")
    resumed = stage(gave(-2.0), frames, resume_from=orm.Str(killed.process.node.uuid))
    assert resumed.run() is None
    assert resumed.labels == killed.labels[2:]
    assert [frame.get_potential_energy() for frame in resumed.output("labelled")] == [-1.0, -1.0, -2.0, -2.0]


def test_a_label_that_is_nonsense_is_put_into_quarantine_with_its_reason(stage: Any, plant: Any, pes: Any) -> None:
    energies = iter([-1.0, 1e6, -1.0])
    rig = stage(lambda _: plant(result=orm.Dict({"energies": [next(energies)]})), pes(3))
    assert rig.run() is None
    labelled = list(rig.output("labelled"))
    assert statuses(labelled) == ["labelled", "quarantined", "labelled"]
    assert "limit: an energy of 1e+06 eV/atom is above 100 eV/atom" in labelled[1].info["reason"]
    review = rig.output("report")["review"]
    assert (review["n_reviewed"], review["n_quarantined"], review["by_check"]) == (3, 1, {"limit": 1})
    assert "1 of 3 labels are put into quarantine (limit 1)" in rig.reports
    assert rig.output("labelled").creator.process_label == "quarantine_labels"


def test_limits_of_the_review_are_settings(stage: Any, gave: Any, pes: Any) -> None:
    rig = stage(gave(1e6), pes(2), quality=orm.Dict({"max_energy": 1e7}))
    assert rig.run() is None
    assert statuses(rig.output("labelled")) == ["labelled"] * 2


def test_labels_that_were_too_few_to_be_compared_are_set_aside_in_the_dataset_once_there_are_enough(
    stage: Any, plant: Any, pes: Any
) -> None:
    limits = orm.Dict({"n_min": 12, "use_surrogate": False})
    energies = iter([-1.0, -50.0, *[-1.0] * 5])
    first = stage(lambda _: plant(result=orm.Dict({"energies": [next(energies)]})), pes(7), quality=limits)
    assert first.run() is None
    assert statuses(first.output("labelled")) == ["labelled"] * 7
    assert first.output("report")["review"]["n_not_compared"] == 7
    assert "7 accepted labels are not compared with others yet: there are fewer than 12" in first.reports
    assert "known" not in first.process.outputs

    known = first.output("labelled")
    second = stage(lambda _: plant(result=orm.Dict({"energies": [-1.0]})), pes(6, seed=1), known=known, quality=limits)
    assert second.run() is None
    mended = list(second.output("known"))
    assert statuses(second.output("labelled")) == ["labelled"] * 6
    assert statuses(mended) == ["labelled", "quarantined", *["labelled"] * 5]
    assert "composition: the energy lies -49 eV/atom off" in mended[1].info["reason"]
    assert second.output("known").creator.inputs.labelled.uuid == known.uuid
    review = second.output("report")["review"]
    assert (review["n_reviewed"], review["n_late"], review["n_not_compared"]) == (13, 7, 0)


class SloppyEngine(CountingEngine):
    """One of its labels says itself that it was made with other settings."""

    @classmethod
    def read(cls, atoms: Atoms, outputs: Mapping[str, orm.Node], settings: Mapping[str, Any]) -> Sequence[Result]:
        """Return the label of the job under the name of another cut-off, if the frame is the first one."""
        (label,) = super().read(atoms, outputs, settings)
        return [replace(label, fingerprint="coarse" if atoms.info["group"] == "g0-0" else "")]


def test_a_new_label_of_other_settings_than_those_of_the_engine_is_put_into_quarantine(
    stage: Any, gave: Any, pes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LabellingWorkChain, "engine", SloppyEngine)
    monkeypatch.setattr(collecting, "load_engine", lambda *_: SloppyEngine)
    rig = stage(gave(-1.0), pes(3))
    assert rig.run() is None
    labelled = list(rig.output("labelled"))
    assert statuses(labelled) == ["quarantined", "labelled", "labelled"]
    assert "labelled with settings coarse instead of counting-a" in labelled[0].info["reason"]
    accepted = stage(gave(-1.0), pes(3), quality=orm.Dict({"fingerprint": "coarse"}))
    assert accepted.run().status == 402
    assert statuses(accepted.output("labelled")) == ["labelled", "quarantined", "quarantined"]


def test_a_label_of_another_fidelity_that_a_frame_was_given_with_is_not_set_aside(
    stage: Any, gave: Any, pes: Any
) -> None:
    first = stage(gave(-1.0), pes(2))
    first.run()
    again = stage(gave(-2.0), first.output("labelled"), parameters=orm.Dict({"method": "b"}))
    assert again.run() is None
    assert statuses(again.output("labelled")) == ["labelled"] * 4
    assert again.output("report")["review"]["n_reviewed"] == 2


def test_a_stage_that_is_resumed_with_other_settings_takes_no_label_of_the_old_ones(
    stage: Any, gave: Any, plant: Any, pes: Any
) -> None:
    frames = pes(2)
    good = iter([True, False])
    killed = stage(lambda s: gave(-1.0)(s) if next(good) else plant(exit_status=302), frames)
    killed.step("setup")
    killed.step("run_jobs")
    others = {"resume_from": orm.Str(killed.process.node.uuid), "parameters": orm.Dict({"method": "b"})}
    resumed = stage(gave(-2.0), frames, **others)
    assert resumed.run() is None
    assert [frame.get_potential_energy() for frame in resumed.output("labelled")] == [-2.0, -2.0]


def test_an_unknown_setting_of_the_review_is_refused(stage: Any, gave: Any, pes: Any) -> None:
    with pytest.raises(ValueError, match=r"label\.quality: unknown key 'max_enregy'; did you mean 'max_energy'"):
        stage(gave(-1.0), pes(1), quality=orm.Dict({"max_enregy": 1.0}))


def test_settings_count_the_species_of_the_dataset_that_the_labels_are_for(stage: Any, gave: Any, pes: Any) -> None:
    seen: list[Sequence[str]] = []

    class AskingEngine(CountingEngine):
        @classmethod
        def complete(cls, parameters: Mapping[str, Any], symbols: Sequence[str]) -> dict[str, Any]:
            seen.append(symbols)
            return dict(parameters)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LabellingWorkChain, "engine", AskingEngine)
        known = PESData.from_frames([Atoms("AuH", positions=[[0, 0, 0], [0, 0, 2]])])
        assert stage(gave(-1.0), pes(1), known=known).run() is None
    assert seen == [["Au", "Cu", "H"]]


def test_a_structure_that_the_dataset_has_a_label_of_these_settings_of_is_not_computed_again(
    stage: Any, gave: Any, pes: Any
) -> None:
    first = stage(gave(-1.0), pes(3))
    first.run()
    known = list(first.output("labelled"))
    known[1].info["fingerprint"] = "another"
    known[2].info.update(status="quarantined", reason="limit: absurd")
    copies = list(pes(3))
    copies[0].info["group"] = "copy"
    rig = stage(gave(-2.0), PESData.from_frames(copies), known=PESData.from_frames(known))
    assert rig.run() is None
    labelled = list(rig.output("labelled"))
    assert len(rig.labels) == 2
    assert [frame.get_potential_energy() for frame in labelled] == [-1.0, -2.0, -2.0]
    assert (labelled[0].info["group"], labelled[0].info["cost"]) == ("copy", 0.0)
    assert rig.output("report")["review"]["n_reviewed"] == 2
    assert "1 of 3 frames have a label of these settings in the dataset" in rig.reports


def test_a_known_label_follows_one_of_other_settings(stage: Any, gave: Any, pes: Any) -> None:
    first = stage(gave(-1.0), pes(2))
    first.run()
    others = list(first.output("labelled"))
    for frame in others:
        frame.info["fingerprint"] = "another"
    rig = stage(gave(-2.0), PESData.from_frames(others), known=first.output("labelled"))
    assert rig.run() is None
    assert not rig.labels
    assert [frame.info["fingerprint"] for frame in rig.output("labelled")] == ["another", "counting-a"] * 2


def test_an_engine_whose_job_alone_knows_its_settings_gets_the_labels_of_the_same_structures(
    stage: Any, gave: Any, pes: Any
) -> None:
    asked = []

    class UnsureEngine(CountingEngine):
        @classmethod
        def fingerprint(cls, settings: Mapping[str, Any]) -> None:  # type: ignore[override]
            return None

        @classmethod
        def plan_jobs(cls, request: LabelRequest) -> list[str]:
            asked.append(request.known)
            return []

    first = stage(gave(-1.0), pes(3))
    first.run()
    known = list(first.output("labelled"))
    known[0].info["fingerprint"] = "another"
    known[2].info["status"] = "quarantined"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LabellingWorkChain, "engine", UnsureEngine)
        rig = stage(gave(-2.0), pes(3), known=PESData.from_frames(known))
        rig.process.plan_jobs()
        assert [frame.info["group"] for frame in asked[0]] == ["g0-0", "g0-1"]
        assert asked[0].creator.process_label == "select_same"
        stage(gave(-2.0), pes(3, seed=1), known=PESData.from_frames(known)).process.plan_jobs()
    assert asked[1] is None


class EmtEngine(CountingEngine):
    """Labels with a stress, of the sign and unit that the parameters say."""

    @classmethod
    def read(cls, atoms: Atoms, outputs: Mapping[str, orm.Node], settings: Mapping[str, Any]) -> Sequence[Result]:
        """Compute the label here."""
        frame = atoms.copy()
        frame.calc = EMT()
        labels = {"energy": frame.get_potential_energy(), "forces": frame.get_forces()}
        return [Result({**labels, "stress": settings.get("factor", 1.0) * frame.get_stress()})]


@pytest.mark.parametrize(
    ("factor", "status", "words"),
    [(1.0, None, "right"), (-1.0, 405, "opposite sign"), (160.21766, 405, "looks like GPa")],
)
def test_a_stress_that_is_not_the_derivative_of_the_energy_ends_the_stage(
    stage: Any, gave: Any, pes: Any, monkeypatch: pytest.MonkeyPatch, factor: float, status: int | None, words: str
) -> None:
    monkeypatch.setattr(LabellingWorkChain, "engine", EmtEngine)
    monkeypatch.setattr(collecting, "load_engine", lambda *_: EmtEngine)
    rig = stage(
        gave(-1.0),
        pes(2),
        check_stress=orm.Bool(True),
        parameters=orm.Dict({"factor": factor, "method": f"factor {factor}"}),
    )
    exit_code = rig.run()
    assert (exit_code and exit_code.status) == status
    assert words in rig.reports
    assert len(rig.submissions) == 2 + 7
    assert len(rig.output("labelled")) == 2
    assert rig.output("report")["n_labelled"] == 2


def test_a_stress_that_was_found_right_is_not_checked_again_for_the_same_settings(
    stage: Any, gave: Any, pes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LabellingWorkChain, "engine", EmtEngine)
    monkeypatch.setattr(collecting, "load_engine", lambda *_: EmtEngine)
    n_jobs = []
    for method in ("once", "once", "twice"):
        inputs = {"check_stress": orm.Bool(True), "parameters": orm.Dict({"method": method})}
        rig = stage(gave(-1.0), pes(2), **inputs)
        assert rig.run() is None
        n_jobs.append(len(rig.submissions))
    assert n_jobs == [2 + 7, 2, 2 + 7]


def test_a_frame_that_bears_the_name_of_a_probe_is_not_taken_away(
    stage: Any, gave: Any, pes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LabellingWorkChain, "engine", EmtEngine)
    monkeypatch.setattr(collecting, "load_engine", lambda *_: EmtEngine)
    frames = list(pes(2))
    frames[1].info.update(config_type="stress_probe", group="stress_probe_0")
    parameters = orm.Dict({"method": "not a probe"})
    rig = stage(gave(-1.0), PESData.from_frames(frames), check_stress=orm.Bool(True), parameters=parameters)
    assert rig.run() is None
    assert len(rig.output("labelled")) == 2
    assert "right" in rig.reports
