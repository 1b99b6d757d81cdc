"""calcfunctions that decide, keep the record and conclude."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from aiida import orm
from ase import Atoms

from aiida_alpot.calculations.functions.decide import decide
from aiida_alpot.calculations.functions.history import conclude, extend_history
from aiida_alpot.data.pes import PESData

pytestmark = pytest.mark.usefixtures("aiida_profile")

SETTINGS = {"n_min": 5, "n_control_min": 1, "tolerances": {"force": 0.1}}
EXPLORATION = {"n_trajectories": 4, "n_healthy_trajectories": 4, "n_frames": 10, "outcomes": {"completed": 4}}


def evaluation(**flagged: int) -> orm.Dict:
    counts = {
        "n_candidates": 10,
        "n_healthy": 10,
        "n_groups": 4,
        "n_groups_healthy": 4,
        "n_selected": 2,
        "n_control": 1,
    }
    results = {**counts, "flagged": flagged, "n_flagged": sum(flagged.values()), "disagreement": {}, "grade": None}
    return orm.Dict({"status": "ok", "results": results})


@pytest.fixture
def control(make_copper: Callable[..., list[Atoms]], label_emt: Any) -> Callable[[float], PESData]:
    """Make a labelled control frame whose predicted forces are off by the same number in every component."""

    def make(error: float) -> PESData:
        (atoms,) = label_emt(make_copper(1, seed=8))
        atoms.info.update(control=True, committee_energy=atoms.calc.results["energy"], split="test")
        atoms.info["committee_stress"] = np.array(atoms.calc.results["stress"])
        atoms.arrays["committee_forces"] = atoms.calc.results["forces"] + error
        return PESData.from_frames([atoms]).store()

    return make


def decided(dataset: PESData, **changes: Any) -> dict[str, Any]:
    inputs = {
        "settings": orm.Dict(SETTINGS),
        "evaluation": evaluation(force=0),
        "dataset": dataset,
        "max_iterations": orm.Int(3),
        "exploration": orm.Dict(EXPLORATION),
        **changes,
    }
    return dict(decide(**inputs).get_dict())


def test_nothing_flagged_and_a_small_control_error_is_converged(copper_dataset: PESData, control: Any) -> None:
    decision = decided(copper_dataset, labelled=control(0.05))
    assert (decision["converged"], decision["stop"]) == (True, "converged")
    assert decision["numbers"]["control_error"]["force"] == pytest.approx(0.05)
    assert decision["selected_error"]["force"] == pytest.approx(0.05)


def test_a_large_control_error_is_not_converged(copper_dataset: PESData, control: Any) -> None:
    decision = decided(copper_dataset, labelled=control(0.2))
    assert (decision["converged"], decision["reason"]) == (False, "control_error_above_tolerance")
    assert decision["stop"] is None


def test_flagged_candidates_go_on(copper_dataset: PESData, control: Any) -> None:
    decision = decided(copper_dataset, labelled=control(0.05), evaluation=evaluation(force=3))
    assert (decision["reason"], decision["stop"]) == ("frames_above_threshold", None)


def test_without_labelled_control_frames_nothing_converges(copper_dataset: PESData) -> None:
    assert decided(copper_dataset)["reason"] == "no_control_frames"


def test_the_last_iteration_stops_the_loop(copper_dataset: PESData) -> None:
    decision = decided(copper_dataset, max_iterations=orm.Int(1))
    assert (decision["converged"], decision["stop"]) == (False, "max_iterations")


def test_the_last_label_stops_the_loop(copper_dataset: PESData) -> None:
    assert decided(copper_dataset, max_labels=orm.Int(12))["stop"] == "max_labels"


def test_without_an_exploration_the_groups_of_the_pool_count_as_trajectories(
    copper_dataset: PESData, control: Any
) -> None:
    assert decided(copper_dataset, exploration=None, labelled=control(0.0))["converged"]


def test_patience_counts_the_iterations_of_the_history(copper_dataset: PESData, control: Any) -> None:
    settings = orm.Dict({**SETTINGS, "patience": 2})
    first = decided(copper_dataset, settings=settings, labelled=control(0.0))
    assert (first["reason"], first["stop"]) == ("patience", None)
    history = orm.Dict({"iterations": [{"decision": first}]})
    assert decided(copper_dataset, settings=settings, labelled=control(0.0), history=history)["converged"]


def test_wrong_settings_are_refused_by_name(copper_dataset: PESData) -> None:
    with pytest.raises(ValueError, match="convergence: unknown key 'patients'; did you mean 'patience'"):
        decided(copper_dataset, settings=orm.Dict({"patients": 2}))


def calibration(force: float) -> orm.Dict:
    fitted = {"scale": 1.0, "interval": [0.9, 1.1], "n_points": 3, "calibrated": True, "warnings": [], "slope": 1}
    results = {
        "errors": {"test": {"committee_mean": {"force": force}}},
        "thresholds": {"force": 0.1},
        "calibrations": {"force": fitted},
    }
    return orm.Dict({"results": results})


def test_every_iteration_is_a_row_with_the_frames_it_trained_on(copper_dataset: PESData) -> None:
    first = extend_history(copper_dataset, calibration=calibration(0.3))
    second = extend_history(copper_dataset, history=first, calibration=calibration(0.2))
    rows = second["iterations"]
    assert [row["iteration"] for row in rows] == [0, 1]
    assert rows[0] == first["iterations"][0]
    assert rows[1]["n_frames"] == {"train": 8, "validation": 1, "test": 1, "calibration": 2}
    assert rows[1]["n_labels"] == 12
    assert rows[1]["errors"]["test"]["committee_mean"]["force"] == 0.2


def test_a_row_holds_the_stages_that_ran(copper_dataset: PESData) -> None:
    training = orm.Dict({"mean": {"test": {"force": 0.1}}, "seconds": {"m000": 3.0}, "members": {}})
    labelling = orm.Dict({"n_labelled": 2, "n_failed": 0, "cost_s": 1.5, "reasons": {}})
    reports = {
        "training": training,
        "exploration": orm.Dict(EXPLORATION),
        "evaluation": evaluation(force=2),
        "labelling": labelling,
        "decision": orm.Dict({"stop": None, "message": "go on"}),
    }
    (row,) = extend_history(copper_dataset, **reports)["iterations"]
    assert row["training"] == {"test": {"force": 0.1}}
    assert row["exploration"] == EXPLORATION
    assert row["evaluation"]["n_flagged"] == 2
    assert row["labelling"] == {"n_labelled": 2, "n_failed": 0, "cost_s": 1.5}
    assert row["decision"]["message"] == "go on"
    assert "errors" not in row


def test_a_finished_loop_says_why_it_ended_and_what_it_reached() -> None:
    rows = [
        {"n_labels": 10, "errors": {"test": {"x": 1}}, "decision": {"stop": None, "message": "on"}},
        {"n_labels": 14, "errors": {"test": {"x": 2}}, "decision": {"stop": "converged", "message": "done"}},
    ]
    assert conclude(orm.Dict({"iterations": rows})).get_dict() == {
        "reason": "converged",
        "message": "done",
        "n_iterations": 2,
        "n_labels": 14,
        "errors": {"test": {"x": 2}},
    }


def test_a_loop_that_only_trained_says_so() -> None:
    conclusion = conclude(orm.Dict({"iterations": [{"n_labels": 10, "errors": {}}]}))
    assert (conclusion["reason"], conclusion["n_iterations"]) == ("trained", 0)
