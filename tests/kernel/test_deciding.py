"""Decisions from the reports of an iteration, and the record they go into."""

import json

import numpy as np
import pytest
from ase.stress import voigt_6_to_full_3x3_stress

from aiida_alpot.kernel.cutouts import CORE
from aiida_alpot.kernel.deciding import Budget, conclude, decide_iteration, iteration_row, prediction_errors
from aiida_alpot.kernel.settings import SettingsError

SETTINGS = {"n_min": 10, "n_control_min": 1, "tolerances": {"energy": 0.1, "force": 0.1}}
EVALUATION = {
    "n_candidates": 20,
    "n_groups": 4,
    "n_groups_healthy": 4,
    "n_healthy": 20,
    "n_flagged": 0,
    "flagged": {"force": 0},
    "n_selected": 4,
    "n_control": 4,
    "disagreement": {"force": [0.0, 0.1, 0.2, 0.3]},
    "grade": None,
}
PLENTY = Budget(max_iterations=9, n_labels=10)


def predicted(frames, energy=0.0, force=0.0, stress=0.0, *, control=True):
    """Let the frames carry predictions that deviate from their labels: energy per atom, components."""
    for atoms in frames:
        labels = atoms.calc.results
        atoms.info["committee_energy"] = labels["energy"] + energy * len(atoms)
        atoms.info["committee_stress"] = labels.get("stress", np.full(6, np.nan)) + stress
        atoms.arrays["committee_forces"] = labels["forces"] + force
        atoms.info.update(control=control, status="labelled")
    return frames


def decide(frames=(), past=(), budget=PLENTY, settings=SETTINGS, exploration=None, **evaluation):
    reports = {"evaluation": {**EVALUATION, **evaluation}}
    if exploration is not None:
        reports["exploration"] = exploration
    decision = decide_iteration(settings, reports, frames, past, budget)
    assert json.loads(json.dumps(decision, allow_nan=False)) == decision
    return decision


def test_nothing_flagged_and_small_control_errors_converge(make):
    decision = decide(predicted(make.crystals(4), 0.05, 0.05))
    assert decision["converged"]
    assert (decision["reason"], decision["stop"]) == ("converged", "converged")
    assert decision["numbers"]["control_error"]["force"] == pytest.approx(0.05)


def test_flagged_candidates_go_on(make):
    decision = decide(predicted(make.crystals(4)), flagged={"force": 3, "energy": 0})
    assert (decision["converged"], decision["stop"]) == (False, None)
    assert decision["message"] == "candidates above threshold (force: 3)"


def test_a_control_error_above_tolerance_goes_on(make):
    decision = decide(predicted(make.crystals(4), 0.05, 0.2))
    assert decision["reason"] == "control_error_above_tolerance"


def test_only_control_frames_judge_but_all_selected_are_reported(make):
    frames = predicted(make.crystals(3), force=0.05) + predicted(make.crystals(1, seed=1), force=0.5, control=False)
    decision = decide(frames)
    assert decision["numbers"]["n_control"] == 3
    assert decision["numbers"]["control_error"]["force"] == pytest.approx(0.05)
    assert decision["selected_error"]["force"] == pytest.approx(np.sqrt((3 * 0.05**2 + 0.5**2) / 4))


def test_frames_that_got_no_label_do_not_judge(make):
    frames = predicted(make.crystals(4), force=0.05)
    frames[0].calc = None
    frames[1].info["status"] = "failed"
    del frames[2].info["committee_energy"]
    assert decide(frames)["numbers"]["n_control"] == 1


def test_no_control_frame_is_no_convergence():
    assert decide()["reason"] == "no_control_frames"
    assert decide(settings={"n_min": 10, "tolerances": {}})["converged"]


def test_healthy_trajectories_are_those_of_the_exploration_or_the_groups_of_a_pool(make):
    frames = predicted(make.crystals(4))
    assert decide(frames, n_groups_healthy=1)["reason"] == "too_few_healthy_trajectories"
    exploration = {"n_trajectories": 10, "n_healthy_trajectories": 10}
    assert decide(frames, exploration=exploration, n_groups_healthy=1)["converged"]
    exploration = {"n_trajectories": 10, "n_healthy_trajectories": 5}
    assert decide(frames, exploration=exploration)["numbers"]["healthy_share"] == 0.5


def test_streak_is_carried_through_the_history(make):
    settings, frames = {**SETTINGS, "patience": 2}, predicted(make.crystals(4))
    first = decide(frames, settings=settings)
    assert (first["reason"], first["stop"], first["numbers"]["streak"]) == ("patience", None, 1)
    assert decide(frames, [{"decision": first}], settings=settings)["converged"]
    broken = decide(frames, [{"decision": first}], settings=settings, flagged={"force": 1})
    assert decide(frames, [{"decision": first}, {"decision": broken}], settings=settings)["reason"] == "patience"


def test_a_row_without_decision_starts_a_new_streak(make):
    assert decide(predicted(make.crystals(4)), [{"iteration": 0}])["numbers"]["streak"] == 1


def test_the_loop_stops_when_iterations_or_labels_are_spent():
    past = [{"decision": None}, {"decision": None}]
    assert decide(past=past, budget=Budget(3, 10))["stop"] == "max_iterations"
    assert decide(past=past, budget=Budget(4, 10))["stop"] is None
    assert decide(past=past, budget=Budget(4, 10, max_labels=10))["stop"] == "max_labels"
    assert decide(past=past, budget=Budget(3, 10, max_labels=10))["stop"] == "max_labels"
    assert decide(past=past, budget=Budget(4, 9, max_labels=10))["stop"] is None


def test_convergence_is_a_better_reason_than_an_empty_purse(make):
    assert decide(predicted(make.crystals(4)), budget=Budget(1, 10, max_labels=1))["stop"] == "converged"


def test_an_unknown_setting_is_named():
    with pytest.raises(SettingsError, match="convergence: unknown key 'patients'; did you mean 'patience'"):
        decide(settings={"patients": 2})


def test_errors_of_the_predictions_are_those_computed_by_hand(make):
    frames = make.crystals(2) + make.molecules(1)
    rng = np.random.default_rng(0)
    energy, force, stress = [], [], []
    for atoms in frames:
        d_energy, d_force, d_stress = rng.normal(), rng.normal(size=(len(atoms), 3)), rng.normal(size=6)
        predicted([atoms], d_energy / len(atoms), d_force, d_stress)
        energy.append(d_energy / len(atoms))
        force.append(d_force.ravel())
        if atoms.pbc.any():
            stress.append(voigt_6_to_full_3x3_stress(d_stress).ravel())
    found = prediction_errors(frames)
    assert found["energy"] == pytest.approx(np.sqrt(np.mean(np.square(energy))))
    assert found["force"] == pytest.approx(np.sqrt(np.mean(np.concatenate(force) ** 2)))
    assert found["stress"] == pytest.approx(np.sqrt(np.mean(np.concatenate(stress) ** 2)))


def test_stress_across_a_surface_does_not_judge(make):
    frames = predicted([make.slab()], stress=np.array([0.1, 0.1, 9.0, 9.0, 9.0, 0.1]))
    assert prediction_errors(frames)["stress"] == pytest.approx(0.1)


def test_molecules_are_judged_without_stress(make):
    decision = decide(predicted(make.molecules(4), 0.01, 0.01), settings={"n_min": 10, "n_control_min": 1})
    assert decision["numbers"]["control_error"] == pytest.approx({"energy": 0.01, "force": 0.01})
    assert decision["selected_error"]["stress"] is None
    assert decision["reason"] == "control_error_above_tolerance"  # 0.01 eV/atom is above the default
    assert decide(predicted(make.molecules(4), 1e-4, 0.01), settings={"n_min": 10, "n_control_min": 1})["converged"]


def as_pieces(frames):
    """Make the first atom of each frame its core."""
    for atoms in frames:
        atoms.arrays[CORE] = np.arange(len(atoms)) == 0
    return frames


def test_pieces_are_judged_by_the_forces_on_their_core(make):
    frames = as_pieces(predicted(make.crystals(2), 9.0, 9.0, 9.0))
    for atoms in frames:
        atoms.arrays["committee_forces"][0] = atoms.calc.results["forces"][0] + 0.02
    found = prediction_errors(frames)
    assert found["force"] == pytest.approx(0.02)
    assert np.isnan([found["energy"], found["stress"]]).all()
    mixed = prediction_errors(frames + predicted(make.crystals(1, seed=5), 0.03, 0.05, 0.07))
    assert mixed["energy"] == pytest.approx(0.03)
    assert mixed["stress"] == pytest.approx(0.07)
    assert mixed["force"] == pytest.approx(np.sqrt((2 * 0.02**2 + 4 * 0.05**2) / 6))


def test_control_frames_that_are_all_pieces_judge_forces_alone(make):
    decision = decide(as_pieces(predicted(make.crystals(4), 0.0, 0.05)))
    assert decision["converged"]
    assert decision["numbers"]["control_error"] == {"force": pytest.approx(0.05)}
    assert decide(as_pieces(predicted(make.crystals(4), 0.0, 0.2)))["reason"] == "control_error_above_tolerance"
    energies = {**SETTINGS, "tolerances": {"energy": 0.1}}
    decision = decide(as_pieces(predicted(make.crystals(4))), settings=energies)
    assert decision["reason"] == "no_control_frames"
    assert "cut out of larger ones, which tells nothing of energy" in decision["message"]


def test_one_whole_control_frame_judges_the_energy(make):
    frames = as_pieces(predicted(make.crystals(4), 0.0, 0.05)) + predicted(make.crystals(1, seed=5), 0.2)
    assert "energy 0.2 > 0.1" in decide(frames)["message"]


def test_no_frames_have_no_errors():
    assert prediction_errors([]) == {}


REPORTS = {
    "training": {"mean": {"train": {"force": 0.1}}, "seconds": {"m000": 3.0}, "members": {}},
    "calibration": {
        "results": {
            "errors": {"test": {"committee_mean": {"force": 0.2}}},
            "thresholds": {"force": 0.05},
            "calibrations": {
                "force": {
                    "scale": 2.0,
                    "interval": None,
                    "n_points": 5,
                    "calibrated": True,
                    "warnings": ["few"],
                    "knots": [1, 2],
                }
            },
        }
    },
    "exploration": {
        "n_trajectories": 4,
        "n_healthy_trajectories": 3,
        "n_frames": 20,
        "outcomes": {"finished": 4},
        "trajectories": ["long"],
    },
    "evaluation": {"results": EVALUATION},
    "labelling": {"n_labelled": 3, "n_failed": 1, "cost_s": 2.5, "reasons": {}},
    "decision": {"stop": None, "message": "go on"},
}


def test_a_row_holds_what_every_stage_said():
    row = iteration_row(REPORTS, {"train": 8, "test": 2})
    assert row["n_frames"] == {"train": 8, "test": 2}
    assert row["n_labels"] == 10
    assert row["errors"] == {"test": {"committee_mean": {"force": 0.2}}}
    assert row["thresholds"] == {"force": 0.05}
    assert set(row["calibrations"]["force"]) == {"scale", "interval", "n_points", "calibrated", "warnings"}
    assert row["training"] == {"train": {"force": 0.1}}
    assert row["training_seconds"] == {"m000": 3.0}
    assert row["exploration"]["n_healthy_trajectories"] == 3
    assert "trajectories" not in row["exploration"]
    assert row["evaluation"]["n_candidates"] == 20
    assert row["labelling"] == {"n_labelled": 3, "n_failed": 1, "cost_s": 2.5}
    assert row["decision"] == {"stop": None, "message": "go on"}


@pytest.mark.parametrize("stage", sorted(REPORTS))
def test_a_row_of_an_iteration_that_ended_early_holds_what_there_is(stage):
    row = iteration_row({stage: REPORTS[stage]}, {"train": 1})
    assert set(row) > {"n_frames", "n_labels"}
    assert json.loads(json.dumps(row, allow_nan=False)) == row


def test_conclusion_is_that_of_the_last_decision():
    history = [
        {"n_labels": 10, "errors": {"test": 1}, "decision": {"stop": None, "message": "go on"}},
        {"n_labels": 14, "errors": {"test": 2}, "decision": {"stop": "converged", "message": "done"}},
    ]
    assert conclude(history) == {
        "reason": "converged",
        "message": "done",
        "n_iterations": 2,
        "n_labels": 14,
        "errors": {"test": 2},
    }


def test_a_last_training_after_the_last_decision_brings_the_errors():
    history = [
        {"n_labels": 10, "errors": {"test": 1}, "decision": {"stop": "max_iterations", "message": "spent"}},
        {"n_labels": 14, "errors": {"test": 0.5}},
    ]
    found = conclude(history)
    assert (found["reason"], found["n_iterations"], found["n_labels"]) == ("max_iterations", 1, 14)
    assert found["errors"] == {"test": 0.5}


def test_a_campaign_without_search_was_trained_only():
    assert conclude([{"n_labels": 10}]) == {
        "reason": "trained",
        "message": "trained and calibrated without a search",
        "n_iterations": 0,
        "n_labels": 10,
        "errors": {},
    }
