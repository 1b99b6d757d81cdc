import time

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from aiida_alpot.kernel.exploration import LangevinIntegrator, md, run_trajectory
from aiida_alpot.kernel.exploration.md import StopRules
from aiida_alpot.kernel.exploration.monitor import Assessment


class Breaking(EMT):
    """EMT that raises, or returns NaN, after some calls."""

    def __init__(self, n_calls, error=None):
        super().__init__()
        self.n_left, self.error = n_calls, error

    def calculate(self, *args, **kwargs):
        super().calculate(*args, **kwargs)
        self.n_left -= 1
        if self.n_left < 0:
            if self.error is not None:
                raise self.error
            self.results["forces"] = np.full_like(self.results["forces"], np.nan)


def run(atoms, tools, *, plan=None, assessor=None, rules=None, calculator=None, deadline=None, **values):
    return run_trajectory(
        atoms,
        plan or tools.plan(),
        calculator or EMT(),
        assessor or tools.ScriptedAssessor(),
        tools.settings(**values),
        rules=rules,
        deadline=deadline,
    )


def reasons(result):
    return [frame.info["save_reason"] for frame in result.frames]


def test_frames_are_kept_at_regular_intervals_with_their_columns(cluster, tools):
    result = run(cluster, tools, n_steps=25, timestep=2.0)
    assert result.reason == "completed"
    assert result.n_steps == 25
    assert [frame.info["time_fs"] for frame in result.frames] == [20.0, 40.0]
    info = result.frames[0].info
    assert (info["md_temperature"], info["healthy"], info["save_reason"]) == (300.0, True, "sample")
    assert np.isnan(info["md_pressure"])
    assert np.isnan(info["grade"])
    assert set(result.stats) >= {"mean_temperature", "volume_start", "volume_mean", "n_checks"}


def test_a_regular_frame_stays_one_when_a_rule_keeps_it_too(cluster, tools):
    rules = StopRules(gamma_save=1e-9)
    assessor = tools.ScriptedAssessor(grades=[1.0] * 4)
    result = run(cluster, tools, n_steps=20, sample_every=10, check_every=5, rules=rules, assessor=assessor)
    assert reasons(result) == ["gamma_save"] * 4
    assert [frame.info["sampled"] for frame in result.frames] == [False, True, False, True]


def test_candidates_carry_no_labels_velocities_or_columns_of_their_parent(cluster, tools):
    start = cluster.copy()
    start.info.update(charge=1.0, split="train", REF_energy=-3.0)
    start.set_array("REF_forces", np.ones((13, 3)))
    start.set_initial_magnetic_moments(np.ones(13))
    start.set_velocities(np.ones((13, 3)))
    start.calc = SinglePointCalculator(start, energy=-3.0)
    before = start.copy()
    frame = run(start, tools).frames[0]
    assert frame.calc is None
    assert set(frame.arrays) == {"numbers", "positions", "initial_magmoms", "tags"}
    assert frame.info["charge"] == 1.0
    assert not {"split", "REF_energy"} & set(frame.info)
    assert start == before
    assert start.calc.results == {"energy": -3.0}


def test_gamma_break_is_tested_before_gamma_save_and_stops(cluster, tools):
    assessor = tools.ScriptedAssessor(grades=[1.0, 3.0, 12.0, 1.0])
    result = run(cluster, tools, assessor=assessor, rules=StopRules(2.0, 10.0))
    assert reasons(result) == ["gamma_save", "gamma_break"]
    assert result.outcome == "gamma_break"
    assert result.n_steps == 15
    assert [frame.info["grade"] for frame in result.frames] == [3.0, 12.0]


def test_gamma_break_goes_before_error_break_and_that_before_gamma_save():
    def decide(grade, error, **rules):
        unknown = Assessment.unknown(1)
        seen = Assessment(unknown.disagreement, {"force": np.array([error])}, np.array([grade]), unknown.finite)
        return StopRules(**{"gamma_save": 2.0, "gamma_break": 10.0, "error_break": {"force": 0.3}, **rules}).decide(
            seen
        )

    assert decide(10.0, 9.9)[0] == "gamma_break"
    assert decide(np.inf, 0.0)[0] == "gamma_break"
    assert decide(5.0, 0.3)[0] == "error_break"
    assert decide(5.0, 0.2) == ("gamma_save", "")
    assert decide(2.0, 0.2) == ("gamma_save", "")
    assert decide(1.9, 0.2) == ("", "")
    assert decide(np.nan, np.nan) == ("", "")
    assert decide(1e9, 9.9, gamma_save=None, gamma_break=None, error_break={}) == ("", "")


def test_a_large_calibrated_error_keeps_the_frame_and_stops(cluster, tools):
    assessor = tools.ScriptedAssessor(errors=[0.1, 0.2, 0.5])
    result = run(cluster, tools, assessor=assessor, rules=StopRules(error_break={"force": 0.4}))
    assert reasons(result) == ["sample", "error_break"]
    assert result.reason.startswith("error_break: force 0.5")


def test_a_trajectory_ends_when_it_has_saved_enough(cluster, tools):
    assessor = tools.ScriptedAssessor(grades=[5.0] * 10)
    result = run(cluster, tools, assessor=assessor, rules=StopRules(2.0, 10.0), max_saved=3)
    assert (result.reason, len(result.frames), result.n_steps) == ("max_saved", 3, 15)


def test_a_failing_frame_is_kept_as_unhealthy_and_frames_before_it_stay(cluster, tools):
    result = run(cluster, tools, plan=tools.plan(1500.0), n_steps=500, health={"max_force": 3.0})
    assert result.outcome == "health"
    assert [frame.info["healthy"] for frame in result.frames] == [True] * (len(result.frames) - 1) + [False]
    assert "max_force" in result.frames[-1].info["save_reason"]


def test_overlapping_atoms_end_the_trajectory_before_the_committee_is_asked(tools):
    atoms = Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 2.3]])
    assessor = tools.ScriptedAssessor()
    result = run(atoms, tools, assessor=assessor, check_every=1, health={"min_pair_ratio": 0.95})
    assert result.reason.startswith("unfit: atoms 0 and 1")
    assert (result.frames, result.n_steps, assessor.n_calls) == ([], 0, 0)


def test_a_calculator_that_raises_ends_the_trajectory_with_the_reason(cluster, tools):
    result = run(cluster, tools, calculator=Breaking(15, RuntimeError("no graph")))
    assert result.reason == "failed: step 15: RuntimeError: no graph"
    assert [frame.info["healthy"] for frame in result.frames] == [True, False]


def test_forces_that_are_not_finite_end_the_trajectory(cluster, tools):
    result = run(cluster, tools, calculator=Breaking(15))
    assert result.reason == "health: a force is not finite"
    assert all(np.isfinite(frame.positions).all() for frame in result.frames)
    assert result.frames[-1].info["healthy"] is False


def test_a_missing_package_is_not_taken_for_a_bad_trajectory(cluster, tools):
    with pytest.raises(ImportError):
        run(cluster, tools, calculator=Breaking(3, ImportError("mace")))


def test_a_committee_that_predicts_nan_ends_the_trajectory(cluster, tools):
    result = run(cluster, tools, assessor=tools.ScriptedAssessor(finite=False))
    assert result.reason == "health: the committee predicts a value that is not finite"
    assert [frame.info["healthy"] for frame in result.frames] == [False]


def test_a_deadline_stops_in_good_order(cluster, tools):
    result = run(cluster, tools, deadline=time.monotonic() - 1.0)
    assert (result.reason, result.frames, result.n_steps) == ("walltime", [], 0)
    result = run(cluster, tools, deadline=time.monotonic() + 0.3, n_steps=10**6)
    assert result.reason == "walltime"
    assert len(result.frames) == min(100, result.n_steps // 10)


def test_zero_kelvin_runs_and_relaxes(crystal, tools):
    result = run(crystal, tools, plan=tools.plan(0.0, pressure=0.0), n_steps=50)
    assert result.reason == "completed"
    assert result.stats["mean_temperature"] < 5.0


@pytest.mark.parametrize("pbc", [(True, True, False), (True, True, True), (False, False, False)])
def test_the_centre_of_mass_stays_along_all_axes(pbc, tools):
    atoms = fcc111("Cu", (2, 2, 2), a=3.6, vacuum=5.0)
    atoms.pbc = pbc
    frame = run(atoms, tools, plan=tools.plan(1000.0), n_steps=60).frames[-1]
    assert np.abs(frame.positions - atoms.positions).max() > 1e-2
    assert np.abs(frame.get_center_of_mass() - atoms.get_center_of_mass()).max() < 1e-10


def test_the_centre_of_mass_stays_in_fractional_coordinates_when_the_cell_moves(crystal, tools):
    frame = run(crystal, tools, plan=tools.plan(1000.0, pressure=5.0), n_steps=60).frames[-1]
    assert not np.allclose(frame.cell, crystal.cell, rtol=1e-4)
    fractional = [np.linalg.solve(atoms.cell.T, atoms.get_center_of_mass()) for atoms in (frame, crystal)]
    assert np.abs(fractional[0] - fractional[1]).max() < 1e-12


def test_frames_of_a_one_atom_cell_are_the_start_bit_by_bit(tools):
    """Nothing but the centre of mass moves, so that their structure ids must be one."""
    atoms = bulk("Cu", a=3.6)
    atoms.positions += [0.1, 0.2, 0.3]
    frames = run(atoms, tools, plan=tools.plan(1000.0)).frames
    assert len(frames) == 2
    assert all(np.array_equal(frame.positions, atoms.positions) for frame in frames)


def test_the_mean_temperature_is_that_of_the_second_half_of_the_steps(cluster, tools, monkeypatch):
    """One value at the start and one a step: 0, 1, … 20, of which the second half begins at 10."""
    values = iter(range(100))
    monkeypatch.setattr(LangevinIntegrator, "temperature", property(lambda _: float(next(values))))
    result = run(cluster, tools)
    assert result.stats["mean_temperature"] == np.mean(range(10, 21))


def test_temperatures_take_eight_bytes_a_step(cluster, tools):
    state = md._Run(cluster, tools.plan(), EMT(), tools.ScriptedAssessor(), tools.settings(), StopRules())
    state.execute(None)
    assert (state._temperatures.itemsize, len(state._temperatures)) == (8, 21)


def test_npt_changes_only_the_periodic_vectors_of_a_slab(tools):
    atoms = fcc111("Cu", (2, 2, 2), a=3.6, vacuum=5.0)
    atoms.pbc = (True, True, False)
    frame = run(atoms, tools, plan=tools.plan(300.0, pressure=0.5)).frames[-1]
    assert np.array_equal(frame.cell[2], atoms.cell[2])
    assert not np.isclose(frame.cell.lengths()[0], atoms.cell.lengths()[0], rtol=1e-9)
    assert frame.info["md_pressure"] == 0.5


def test_nvt_keeps_the_cell_bit_by_bit(crystal, tools):
    frame = run(crystal, tools).frames[-1]
    assert np.array_equal(frame.cell, crystal.cell)


def test_npt_without_a_stress_is_refused(cluster, tools):
    with pytest.raises(ValueError, match="periodic axis"):
        run(cluster, tools, plan=tools.plan(pressure=0.0))


def test_a_calculator_without_stress_fails_the_npt_trajectory_with_its_reason(crystal, tools):
    class NoStress(Calculator):
        implemented_properties = ("energy", "forces")

        def calculate(self, atoms=None, properties=(), system_changes=()):
            super().calculate(atoms, properties, system_changes)
            self.results = {"energy": 0.0, "forces": np.zeros((len(atoms), 3))}

    result = run(crystal, tools, plan=tools.plan(pressure=0.0), calculator=NoStress())
    assert result.outcome == "failed"
    assert "stress" in result.reason


@pytest.mark.parametrize("cell", [np.eye(3) * 0.1, [[4, 0, 0], [0, 4, 0], [4, 4, 0]], np.full((3, 3), np.nan)])
def test_a_frame_whose_cell_has_collapsed_is_not_kept_since_no_dataset_would_take_it(cell):
    assert md._can_be_kept(Atoms("Cu", cell=np.eye(3) * 2.5, pbc=True))
    assert not md._can_be_kept(Atoms("Cu", cell=cell, pbc=True))
