"""Each condition of convergence alone can hold the loop, and all together let it go."""

import json
from dataclasses import replace

import numpy as np
import pytest

from aiida_alpot.kernel.convergence import ConvergenceSettings, IterationState, decide, stop_reason
from aiida_alpot.kernel.gates import Gate
from aiida_alpot.kernel.settings import SettingsError, parse_settings

GOOD = IterationState(
    n_candidates=100,
    n_trajectories=10,
    n_healthy_trajectories=10,
    flagged={"force": 0, "grade": 0},
    n_control=5,
    control_error={"energy": 5e-4, "force": 0.05, "stress": 5e-4},
)


def test_all_conditions_together_converge():
    decision = decide(GOOD, ConvergenceSettings())
    assert decision.converged
    assert decision.reason == "converged"
    assert decision.numbers["streak"] == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"flagged": {"force": 0, "stress": 1}}, "frames_above_threshold"),
        ({"n_candidates": 49}, "too_few_candidates"),
        ({"n_candidates": 0}, "too_few_candidates"),
        ({"n_healthy_trajectories": 8}, "too_few_healthy_trajectories"),
        ({"n_trajectories": 0, "n_healthy_trajectories": 0}, "too_few_healthy_trajectories"),
        ({"n_control": 0, "control_error": {}}, "no_control_frames"),
        ({"n_control": 4}, "no_control_frames"),
        ({"flagged": {}}, "no_threshold"),
        ({"control_error": {"energy": 5e-4, "force": 0.11}}, "control_error_above_tolerance"),
        ({"control_error": {"energy": np.nan, "force": 0.05}}, "control_error_above_tolerance"),
        ({"control_error": {"force": 0.05}}, "control_error_above_tolerance"),
    ],
)
def test_each_condition_alone_prevents_convergence(change, reason):
    decision = decide(replace(GOOD, **change), ConvergenceSettings())
    assert not decision.converged
    assert decision.reason == reason
    assert decision.numbers["failed"] == [reason]
    assert decision.numbers["streak"] == 0


def test_limits_themselves_are_enough():
    state = replace(
        GOOD, n_candidates=50, n_healthy_trajectories=9, control_error={"energy": 1e-3, "force": 0.1, "stress": 1e-3}
    )
    assert decide(state, ConvergenceSettings()).converged


def test_molecules_converge_without_a_stress():
    state = replace(GOOD, control_error={"energy": 1e-4, "force": 0.01, "stress": np.nan})
    decision = decide(state, ConvergenceSettings())
    assert decision.converged
    assert json.loads(json.dumps(decision.numbers)) == decision.numbers


def test_stress_as_the_only_tolerance_must_be_there():
    state = replace(GOOD, control_error={"stress": np.nan})
    assert not decide(state, ConvergenceSettings(tolerances={"stress": 1.0})).converged


def test_without_tolerances_no_control_frames_are_needed():
    state = replace(GOOD, n_control=0, control_error={})
    assert decide(state, ConvergenceSettings(tolerances={})).converged


def test_patience_counts_consecutive_iterations():
    settings = ConvergenceSettings(patience=2)
    first = decide(GOOD, settings)
    assert (first.converged, first.reason) == (False, "patience")
    second = decide(replace(GOOD, streak=first.numbers["streak"]), settings)
    assert second.converged
    broken = decide(replace(GOOD, streak=1, flagged={"force": 1}), settings)
    assert broken.numbers["streak"] == 0


def test_message_names_what_is_above():
    decision = decide(replace(GOOD, control_error={"energy": 2e-3, "force": 0.05}), ConvergenceSettings())
    assert decision.message == "error on control frames: energy 0.002 > 0.001 eV/atom"


GATED = ConvergenceSettings(gates={"lattice": Gate(reference=3.5, tolerance=0.25), "bulk": Gate(min=100.0)})


def test_gates_are_asked_when_everything_else_holds():
    due = decide(GOOD, GATED)
    assert (due.converged, due.reason, due.numbers["streak"]) == (False, "validation_due", 1)
    assert "gates" not in due.numbers
    decision = decide(replace(GOOD, properties={"lattice": 3.6, "bulk": {"value": 120.0, "error": 5.0}}), GATED)
    assert (decision.converged, decision.reason) == (True, "converged")
    assert decision.message.endswith("; bulk, lattice within their gates")


@pytest.mark.parametrize("change", [{"flagged": {"force": 1}}, {"n_candidates": 3}, {"n_control": 0}])
def test_gates_are_not_asked_before(change):
    assert decide(replace(GOOD, **change), GATED).reason not in ("validation_due", "property_gate")
    patient = replace(GATED, patience=2)
    assert decide(GOOD, patient).reason == "patience"
    assert decide(replace(GOOD, streak=1), patient).reason == "validation_due"


def test_a_gate_that_does_not_let_pass_gives_the_reason_and_all_numbers():
    state = replace(GOOD, streak=3, properties={"lattice": {"value": 3.6, "error": 0.5}, "bulk": None, "other": 1.0})
    decision = decide(state, GATED)
    assert (decision.converged, decision.reason) == (False, "property_gate")
    assert decision.message == (
        "bulk could not be computed, wanted at least 100; lattice is 3.6 ± 0.5, wanted at least 3.25 and at most 3.75"
    )
    assert decision.numbers["failed"] == ["property_gate"]
    assert decision.numbers["streak"] == 4
    assert decision.numbers["gates"] == {
        "lattice": {"value": 3.6, "error": 0.5, "min": 3.25, "max": 3.75, "passed": False},
        "bulk": {"value": None, "error": 0.0, "min": 100.0, "max": None, "passed": False},
    }
    assert json.loads(json.dumps(decision.numbers)) == decision.numbers


def test_a_property_without_gate_or_a_gate_without_property():
    assert decide(replace(GOOD, properties={"other": 1.0}), ConvergenceSettings()).converged
    with pytest.raises(ValueError, match="properties: 'bulk' is missing"):
        decide(replace(GOOD, properties={"lattice": 3.6}), GATED)


def test_gates_come_from_a_mapping():
    values = {"gates": {"lattice": {"reference": 3.5, "tolerance": 0.25}, "bulk": {"min": 100}}}
    assert parse_settings(ConvergenceSettings, values, "convergence").gates == GATED.gates
    with pytest.raises(SettingsError, match=r"convergence\.gates\.bulk: unknown key 'minn'; did you mean 'min'"):
        parse_settings(ConvergenceSettings, {"gates": {"bulk": {"minn": 1}}}, "convergence")


def test_stop_reason_prefers_success():
    good, bad = decide(GOOD, ConvergenceSettings()), decide(replace(GOOD, n_candidates=0), ConvergenceSettings())
    assert stop_reason(good, 9, 9, 10, 10) == "converged"
    assert stop_reason(bad, 9, 9, 10, 10) == "max_labels"
    assert stop_reason(bad, 9, 9) == "max_iterations"
    assert stop_reason(bad, 8, 9, 9, 10) is None


def test_settings_come_from_a_mapping():
    settings = parse_settings(ConvergenceSettings, {"n_min": 5, "tolerances": {"force": 0.2}}, "convergence")
    assert (settings.n_min, dict(settings.tolerances)) == (5, {"force": 0.2})
    with pytest.raises(SettingsError, match="did you mean 'force'"):
        parse_settings(ConvergenceSettings, {"tolerances": {"forces": 0.2}}, "convergence")


@pytest.mark.parametrize(
    "bad", [{"n_min": 0}, {"patience": 0}, {"healthy_share": 1.5}, {"tolerances": {"force": 0.0}}, {"n_control_min": 0}]
)
def test_settings_out_of_range_are_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        ConvergenceSettings(**bad)


def test_impossible_states_are_refused():
    with pytest.raises(ValueError, match="cannot be healthy"):
        replace(GOOD, n_healthy_trajectories=11)
    with pytest.raises(ValueError, match="n_candidates"):
        replace(GOOD, n_candidates=-1)


def test_a_tolerance_for_the_worst_atom_is_refused_because_control_errors_know_none():
    with pytest.raises(ValueError, match="unknown key 'force_max'; did you mean 'force'"):
        ConvergenceSettings(tolerances={"force_max": 0.3})
