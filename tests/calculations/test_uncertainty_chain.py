"""Calibrate, explore and evaluate, one after the other, with a committee that was never trained."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from aiida import orm

from aiida_alpot.calculations.calibrate import CalibrateCalculation
from aiida_alpot.calculations.evaluate import EvaluateCalculation
from aiida_alpot.calculations.explore_ase import ExploreAseCalculation
from aiida_alpot.data.pes import PESData
from aiida_alpot.data.potential import PotentialData
from aiida_alpot.kernel.uncertainty import PROPERTIES


def test_calibrate_ends_well_and_is_bound_to_its_committee(
    calibrated: Any, committee: dict[str, PotentialData]
) -> None:
    outputs, node = calibrated
    assert node.is_finished_ok, node.exit_message
    uncertainty = outputs["uncertainty"]
    assert uncertainty.model_hashes == [committee[name].sha256 for name in sorted(committee)]
    assert uncertainty.tolerances == {"energy": 0.001, "force": 0.05, "stress": 0.001}
    assert all(uncertainty.thresholds[name] > 0 for name in ("energy", "force", "stress"))


def test_calibrate_reports_errors_of_every_split_and_what_it_used(calibrated: Any) -> None:
    results = calibrated[0]["report"]["results"]
    assert {split: entry["n_frames"] for split, entry in results["errors"].items()} == {
        "train": 8,
        "validation": 2,
        "test": 1,
        "calibration": 3,
    }
    assert len(results["errors"]["test"]["members"]) == 3
    assert results["errors"]["test"]["committee_mean"]["force"] > 0
    assert results["calibrated_on"] == ["calibration", "test"]
    assert set(results["calibrations"]) == set(PROPERTIES)
    active_set = calibrated[0]["uncertainty"].model().active_set
    assert results["active_atoms"] == {"Cu": len(active_set.owners[29])}


def test_calibrated_thresholds_of_report_and_node_are_the_same(calibrated: Any) -> None:
    outputs, _ = calibrated
    assert outputs["report"]["results"]["thresholds"] == outputs["uncertainty"].thresholds


def test_explore_ends_well_and_leaves_frames_of_every_trajectory(explored: Any) -> None:
    outputs, node = explored
    assert node.is_finished_ok, node.exit_message
    with outputs["candidates"].dataset() as reader:
        assert set(reader.column("status")) == {"unlabelled"}
        assert set(reader.column("iteration")) == {1}
        groups = set(reader.column("group"))
    assert len(groups) == 2
    assert all(re.fullmatch(r"i001-[0-9a-f]{6}/md-0000[01]", group) for group in groups)


def test_explore_reports_every_trajectory(explored: Any) -> None:
    outputs, _ = explored
    results = outputs["report"]["results"]
    assert len(results["trajectories"]) == 2
    for trajectory in results["trajectories"]:
        assert {"outcome", "reason", "healthy", "n_frames"} <= set(trajectory)
    assert sum(entry["n_frames"] for entry in results["trajectories"]) == outputs["candidates"].n_frames


def test_a_trajectory_does_not_depend_on_the_job_that_ran_it(
    run_job: Callable[..., Any], explore_inputs: dict[str, Any], explored: Any
) -> None:
    part = {"first": 1, "last": 2, "iteration": 1}
    outputs, node = run_job(ExploreAseCalculation, **{**explore_inputs, "trajectories": part})
    assert node.is_finished_ok, node.exit_message
    (group,) = {atoms.info["group"] for atoms in outputs["candidates"]}
    whole = [atoms for atoms in explored[0]["candidates"] if atoms.info["group"] == group]
    assert len(whole) == len(outputs["candidates"])
    for a, b in zip(whole, outputs["candidates"], strict=True):
        np.testing.assert_allclose(a.positions, b.positions, rtol=0, atol=1e-10)


def test_evaluate_ends_well_within_its_budget(evaluated: Any) -> None:
    outputs, node = evaluated
    assert node.is_finished_ok, node.exit_message
    results = outputs["report"]["results"]
    assert 0 < len(outputs["selected"]) <= 4
    assert results["n_selected"] == len(outputs["selected"])
    assert results["n_control"] == 1
    assert {"n_candidates", "n_healthy", "n_groups", "n_flagged", "flagged", "thresholds", "grade"} <= set(results)


def test_the_table_has_a_row_for_every_candidate(evaluated: Any, explored: Any) -> None:
    outputs, _ = evaluated
    table = outputs["table"]
    expected = {"grade", "residual", "healthy", "rejected", "group", "structure_id", "selected"}
    expected |= {f"{kind}_{name}" for kind in ("disagreement", "error") for name in PROPERTIES}
    assert set(table.get_arraynames()) == expected
    assert {table.get_array(name).shape for name in expected} == {(explored[0]["candidates"].n_frames,)}
    assert table.get_array("selected").sum() == len(outputs["selected"])


def test_the_table_has_the_quantiles_of_the_report(evaluated: Any) -> None:
    outputs, _ = evaluated
    values = outputs["table"].get_array("disagreement_force")
    reported = outputs["report"]["results"]["disagreement"]["force"]
    np.testing.assert_allclose((reported[0], reported[-1]), (values.min(), values.max()), rtol=1e-12)


def test_selected_frames_say_why_and_what_for(evaluated: Any) -> None:
    selected = evaluated[0]["selected"]
    for atoms in selected:
        assert atoms.calc is None
        assert atoms.info["selection_reason"]
        assert atoms.info["status"] == "unlabelled"
    control = [atoms for atoms in selected if atoms.info["control"]]
    assert len(control) == 1
    assert control[0].info["split"] in ("calibration", "test")
    assert control[0].info["selection_reason"] == "control"
    assert {atoms.info["split"] for atoms in selected if not atoms.info["control"]} <= {"train"}


def test_control_and_training_frames_come_from_different_trajectories(evaluated: Any) -> None:
    groups: dict[bool, set[str]] = {True: set(), False: set()}
    for atoms in evaluated[0]["selected"]:
        groups[atoms.info["control"]].add(atoms.info["group"])
    assert not groups[True] & groups[False]


def test_selected_frames_carry_the_mean_prediction_of_the_committee(evaluated: Any, tiny_models: Any) -> None:
    from aiida_alpot.kernel.potentials import load, predict_committee
    from aiida_alpot.kernel.uncertainty import mean_prediction

    frames = list(evaluated[0]["selected"])
    mean = mean_prediction(predict_committee([load(path, "mace") for path in tiny_models], frames))
    np.testing.assert_allclose([atoms.info["committee_energy"] for atoms in frames], mean.energy, rtol=1e-9)
    np.testing.assert_allclose(np.concatenate([a.arrays["committee_forces"] for a in frames]), mean.forces, atol=1e-9)
    np.testing.assert_allclose([atoms.info["committee_stress"] for atoms in frames], mean.stress, atol=1e-9)


# refused before anything runs


@pytest.fixture
def other_committee(committee: dict[str, PotentialData]) -> dict[str, PotentialData]:
    """The committee without its last member."""
    return dict(list(committee.items())[:2])


def test_explore_refuses_error_bars_of_other_models(
    run_job: Callable[..., Any], explore_inputs: dict[str, Any], other_committee: Any
) -> None:
    with pytest.raises(ValueError, match="uncertainty: it was calibrated with other potentials"):
        run_job(ExploreAseCalculation, **{**explore_inputs, "potentials": other_committee})


def test_evaluate_refuses_error_bars_of_other_models(
    run_job: Callable[..., Any], evaluate_inputs: dict[str, Any], other_committee: Any
) -> None:
    with pytest.raises(ValueError, match="uncertainty: it was calibrated with other potentials"):
        run_job(EvaluateCalculation, **{**evaluate_inputs, "potentials": other_committee})


def test_a_model_of_unknown_origin_is_not_run(
    run_job: Callable[..., Any], explore_inputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr("aiida_alpot.data.trust._folder", lambda: tmp_path)
    with pytest.raises(ValueError, match=r"potentials\.m000: the model file of .* did not come from this machine"):
        run_job(ExploreAseCalculation, **explore_inputs)


def test_an_empty_committee_is_refused(run_job: Callable[..., Any], dataset: PESData) -> None:
    with pytest.raises(ValueError, match="potentials"):
        run_job(CalibrateCalculation, potentials={}, dataset=dataset)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": {"temperature": [300.0]}}, "unknown key 'temperature'; did you mean 'temperatures'"),
        ({"settings": {"temperatures": [-300.0]}}, "temperatures must be finite and at least 0"),
        ({"settings": {"health": {"max_forces": 1.0}}}, "health: unknown key 'max_forces'; did you mean 'max_force'"),
        ({"seed": -1}, "seed: expected at least 0, got -1"),
        ({"trajectories": {"first": 2, "last": 2, "iteration": 0}}, "trajectories: expected first < last"),
    ],
)
def test_explore_refuses_wrong_settings_by_name(
    run_job: Callable[..., Any], explore_inputs: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run_job(ExploreAseCalculation, **{**explore_inputs, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": {"bugdet": 3}}, "unknown key 'bugdet'; did you mean 'budget'"),
        ({"settings": {"budget": 0}}, "budget must be positive, got 0"),
        ({"settings": {"strategy": "treshold"}}, "treshold"),
        ({"candidates": {}}, "candidates: at least one dataset is needed"),
    ],
)
def test_evaluate_refuses_wrong_settings_by_name(
    run_job: Callable[..., Any], evaluate_inputs: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run_job(EvaluateCalculation, **{**evaluate_inputs, **change})


def test_settings_are_checked_when_they_are_put_into_a_builder() -> None:
    builder = ExploreAseCalculation.get_builder()
    with pytest.raises(ValueError, match="did you mean 'temperatures'"):
        builder.settings = orm.Dict({"temperature": [1.0]})


def test_frames_to_start_from_must_not_be_none(run_job: Callable[..., Any], explore_inputs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="frames: the dataset has no frame"):
        run_job(ExploreAseCalculation, **{**explore_inputs, "frames": PESData.from_frames([])})
