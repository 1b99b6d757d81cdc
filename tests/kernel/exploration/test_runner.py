import json
import time

import numpy as np
import pytest
from ase.build import bulk, molecule

from aiida_alpot.kernel import dataset
from aiida_alpot.kernel.exploration import Monitor, explore, md, plan_trajectories, runner
from aiida_alpot.kernel.potentials import predict_committee
from aiida_alpot.kernel.uncertainty.active_set import ActiveSet
from aiida_alpot.kernel.uncertainty.calibration import Calibration
from aiida_alpot.kernel.uncertainty.committee import disagreement
from aiida_alpot.kernel.uncertainty.model import UncertaintyModel


def test_every_kept_frame_has_its_books_and_groups_are_trajectories(crystal, committee, tools):
    crystal.info["origin"] = "my-copper"
    settings = tools.settings(walkers=2)
    result = explore([crystal], committee, None, settings, 7, label="iteration-3/", iteration=3)
    assert len(result.frames) == 4
    assert [frame.info["group"] for frame in result.frames] == ["iteration-3/md-00000"] * 2 + [
        "iteration-3/md-00001"
    ] * 2
    info = result.frames[0].info
    assert (info["origin"], info["iteration"], info["config_type"], info["status"]) == (
        "my-copper",
        3,
        "md",
        "unlabelled",
    )
    assert info["disagreement_force"] > 0.0
    assert info["disagreement_force_max"] >= info["disagreement_force"]
    assert info["disagreement_stress"] > 0.0
    assert result.report["outcomes"] == {"completed": 2}
    json.dumps([result.report, result.trajectories])


def test_the_same_seed_gives_the_same_frames_bit_by_bit_and_walkers_differ(crystal, committee, tools):
    settings = tools.settings(walkers=2)
    one, two, other = (explore([crystal], committee, None, settings, seed).frames for seed in (1, 1, 2))
    for a, b in zip(one, two, strict=True):
        assert np.array_equal(a.positions, b.positions)
        assert np.array_equal(a.cell, b.cell)
        assert a.info["disagreement_force"] == b.info["disagreement_force"]
    assert not np.allclose(one[0].positions, other[0].positions)
    assert not np.allclose(one[0].positions, one[2].positions)


def test_a_part_of_the_schedule_gives_the_frames_of_the_whole(crystal, committee, tools):
    settings = tools.settings(walkers=3)
    whole = explore([crystal], committee, None, settings, 1)
    part = explore([crystal], committee, None, settings, 1, plans=plan_trajectories(1, settings, 1)[1:2])
    assert [entry["name"] for entry in part.trajectories] == ["md-00001"]
    for a, b in zip(part.frames, whole.frames[2:4], strict=True):
        assert np.array_equal(a.positions, b.positions)


def test_molecules_become_nvt_and_the_report_says_so(crystal, cluster, committee, tools):
    settings = tools.settings(ensemble="npt", pressures=[0.0, 0.5])
    result = explore([crystal, cluster], committee, None, settings, 1)
    assert [entry["ensemble"] for entry in result.trajectories] == ["npt", "npt", "nvt"]
    assert result.report["npt_became_nvt"] == ["md-00002"]
    assert np.isnan(result.frames[-1].info["disagreement_stress"])


def test_one_trajectory_that_fails_does_not_kill_the_others(crystal, tools):
    aluminium = bulk("Al", "fcc", a=4.0, cubic=True)
    committee = [tools.ScaledEmt(1.0, fails_on="Al"), tools.ScaledEmt(1.1, fails_on="Al")]
    result = explore([aluminium, crystal], committee, None, tools.settings(), 1)
    assert [entry["outcome"] for entry in result.trajectories] == ["failed", "completed"]
    assert "the potential exploded" in result.trajectories[0]["reason"]
    assert result.report["all_failed"] is False
    assert result.report["n_healthy_trajectories"] == 1
    assert explore([aluminium], committee, None, tools.settings(), 1).report["all_failed"] is True


def test_stop_rules_come_from_the_uncertainty_model(crystal, committee, tools):
    model = tools.FakeModel(gamma_save=1e-6, gamma_break=1e9)
    result = explore([crystal], committee, model, tools.settings(ensemble="nvt"), 1)
    assert result.report["save_reasons"] == {"gamma_save": 4}
    model = tools.FakeModel(gamma_save=1e-6, gamma_break=1e-6)
    result = explore([crystal], committee, model, tools.settings(ensemble="nvt"), 1)
    assert result.report["save_reasons"] == {"gamma_break": 1}
    assert result.report["outcomes"] == {"gamma_break": 1}
    settings = tools.settings(ensemble="nvt", error_break={"force_max": 1e-6})
    result = explore([crystal], committee, tools.FakeModel(), settings, 1)
    assert result.report["outcomes"] == {"error_break": 1}
    assert result.report["all_failed"] is False


def test_an_error_rule_without_calibration_is_refused_before_any_step(crystal, committee, tools):
    settings = tools.settings(error_break={"stress": 0.1})
    for model in (None, tools.FakeModel()):
        with pytest.raises(ValueError, match="needs a calibration of stress"):
            explore([crystal], committee, model, settings, 1)


def test_what_did_not_start_before_the_deadline_is_reported(crystal, committee, tools):
    seen = []
    result = explore(
        [crystal],
        committee,
        None,
        tools.settings(walkers=2),
        1,
        deadline=time.monotonic() - 1.0,
        on_progress=lambda done, total, entry: seen.append((done, total, entry["outcome"])),
    )
    assert seen == [(1, 2, "walltime"), (2, 2, "walltime")]
    assert result.report["outcomes"] == {"walltime": 2}
    assert (result.report["n_trajectories"], result.report["n_healthy_trajectories"]) == (2, 0)
    assert result.report["all_failed"] is False
    assert result.frames == []


@pytest.mark.parametrize(
    ("reason", "healthy"),
    [
        ("completed", True),
        ("max_saved", True),
        ("gamma_break: grade 12 ≥ 10", True),
        ("error_break: force 1 ≥ 0.5", True),
        ("walltime", False),
        ("unfit: a force is not finite", False),
        ("health: a force is not finite", False),
        ("failed: step 1: no graph", False),
    ],
)
def test_only_a_trajectory_that_a_rule_ended_is_healthy(crystal, committee, tools, monkeypatch, reason, healthy):
    monkeypatch.setattr(runner, "run_trajectory", lambda *_, **__: md.TrajectoryResult([], reason, 5, {}))
    result = explore([crystal], committee, None, tools.settings(), 1)
    assert result.trajectories[0]["healthy"] is healthy
    assert result.report["n_healthy_trajectories"] == int(healthy)


def test_a_trajectory_whose_start_is_unfit_counts_neither_as_run_nor_as_healthy(crystal, committee, tools):
    crushed = crystal.copy()
    crushed.set_cell(0.5 * crushed.cell, scale_atoms=True)
    report = explore([crushed, crystal], committee, None, tools.settings(), 1).report
    assert report["outcomes"] == {"completed": 1, "unfit": 1}
    assert (report["n_trajectories"], report["n_unfit"], report["n_healthy_trajectories"]) == (1, 1, 1)
    assert report["all_failed"] is False


def test_nothing_to_start_from_is_an_empty_result(committee, tools):
    result = explore([], committee, None, tools.settings(), 1)
    assert (result.frames, result.trajectories, result.report["all_failed"]) == ([], [], False)


def test_plans_that_do_not_fit_the_frames_are_refused(crystal, cluster, committee, tools):
    settings = tools.settings()
    plans = plan_trajectories(2, settings, 1)
    with pytest.raises(ValueError, match="frame 1 of 1 frames"):
        explore([crystal], committee, None, settings, 1, plans=plans)
    with pytest.raises(ValueError, match="has no stress"):
        explore([crystal, cluster], committee, None, settings, 1, plans=plans)
    with pytest.raises(ValueError, match="used 2 times"):
        explore([crystal], committee, None, settings, 1, plans=[plans[0]] * 2)


def test_a_single_potential_has_no_disagreement_but_a_grade(crystal, tools):
    assessment = Monitor([tools.ScaledEmt()], tools.FakeModel()).assess([crystal, crystal * (2, 1, 1)])
    assert np.isnan(assessment.disagreement["force"]).all()
    assert np.isfinite(assessment.grade).all()
    assert assessment.error == {}


def test_the_monitor_leaves_frames_unknown_on_which_a_member_is_not_finite(crystal, tools):
    class HalfNan(tools.ScaledEmt):
        def predict(self, frames, batch_size=32):
            found = super().predict(frames)
            found.energy[[len(frame) == 4 for frame in frames]] = np.nan
            return found

    rattled = crystal * (2, 1, 1)
    rattled.rattle(0.1, seed=1)
    monitor = Monitor([tools.ScaledEmt(), HalfNan(1.1)], tools.FakeModel())
    assessment = monitor.assess([crystal, rattled])
    assert assessment.finite.tolist() == [False, True]
    alone = monitor.assess([rattled])
    for name in ("energy", "force", "force_max", "stress"):
        assert np.isnan(assessment.disagreement[name][0])
        assert assessment.disagreement[name][1] == alone.disagreement[name][0]
    assert assessment.error["force"][1] == 2.0 * alone.disagreement["force"][0]


def test_a_species_that_the_potential_does_not_know_is_reported_not_raised(committee, tools):
    class Picky(tools.ScaledEmt):
        def predict(self, frames, batch_size=32):
            raise ValueError("frame 0 contains H")

    result = explore([molecule("H2O")], [Picky()], None, tools.settings(), 1)
    assert result.trajectories[0]["reason"] == "failed: step 1: ValueError: frame 0 contains H"


def test_stress_that_touches_a_vacuum_is_left_out(tools):
    slab = bulk("Cu", "fcc", a=3.5, cubic=True)
    slab.pbc = (True, True, False)
    frames = [slab, slab.copy()]
    frames[1].pbc = True
    monitor = Monitor([tools.ScaledEmt(0.9), tools.ScaledEmt(1.1)])
    found = monitor.assess(frames).disagreement["stress"]
    slab.calc = tools.ScaledEmt().calculator()
    in_plane = slab.get_stress(voigt=False)[:2, :2]
    assert found[0] == pytest.approx(0.1 * np.sqrt(np.mean(in_plane**2)))
    assert found[1] != pytest.approx(found[0], rel=0.05)


def test_kept_frames_survive_the_dataset_also_with_an_infinite_grade(crystal, committee, tools, tmp_path):
    class Unseen(tools.FakeModel):
        def grade(self, features):
            return np.full(len(features.values), np.inf)

    settings = tools.settings(ensemble="nvt", temperatures=[300.0, 600.0])
    unseen = explore([crystal], committee, Unseen(gamma_save=2.0, gamma_break=10.0), settings, 1)
    json.dumps([unseen.report, unseen.trajectories], allow_nan=False)
    kept = unseen.frames
    kept += explore([crystal], committee, None, settings, 1).frames
    dataset.write(tmp_path / "candidates.h5", kept)
    with dataset.Dataset.open(tmp_path / "candidates.h5") as read:
        assert list(read.column("save_reason")) == ["gamma_break"] * 2 + ["sample"] * 4
        assert list(read.column("healthy")) == [True] * 6
        grades = read.column("grade")
        assert np.isinf(grades[:2]).all()
        assert np.isnan(grades[2:]).all()
        assert set(read.column("status")) == {"unlabelled"}


def test_a_real_uncertainty_model_gives_errors_and_grades(crystal, committee, tools):
    frames = []
    for seed in range(12):
        frame = crystal * (2, 1, 1)
        frame.rattle(0.02 + 0.01 * seed, seed=seed)
        frames.append(frame)
    found = disagreement(predict_committee(committee, frames))
    calibration = Calibration.fit(found.force, 2.0 * found.force, "median_ratio")
    model = UncertaintyModel(
        calibrations={"force": calibration},
        tolerances={"force": 0.1},
        active_set=ActiveSet.build(committee[0].features(frames), start="eps"),
        feature_kind="last_layer",
        gamma_save=1e-9,
        gamma_break=None,
        model_hashes=("a", "b", "c"),
    )
    assessment = Monitor(committee, model).assess(frames[:3])
    assert np.allclose(assessment.error["force"], 2.0 * assessment.disagreement["force"])
    assert np.all(assessment.grade > 0.0)
    settings = tools.settings(ensemble="nvt", error_break={"force": 1e-9})
    result = explore([crystal], committee, model, settings, 1)
    assert result.report["outcomes"] == {"error_break": 1}
    result = explore([crystal], committee, model, tools.settings(ensemble="nvt"), 1)
    assert result.report["save_reasons"] == {"gamma_save": 4}
