"""Every task but training, in a folder as a job has it."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from aiida_alpot.kernel.cutouts import CORE
from aiida_alpot.kernel.dataset import Dataset
from aiida_alpot.kernel.exploration import ExploreSettings
from aiida_alpot.kernel.settings import SettingsError, parse_settings
from aiida_alpot.kernel.tasks import (
    TaskError,
    TaskInterruptedError,
    augment,
    calibrate,
    evaluate,
    explore_ase,
    label_ase,
)
from aiida_alpot.kernel.tasks.inputs import Committee
from aiida_alpot.kernel.uncertainty import Calibration, UncertaintyModel

SHORT_MD = {
    "n_steps": 12,
    "sample_every": 4,
    "check_every": 4,
    "temperatures": [100.0, 300.0],
    "pressures": [0.0],
    "timestep": 2.0,
}


def bits(frames):
    return [(atoms.positions.tobytes(), atoms.cell.tobytes(), atoms.info["group"]) for atoms in frames]


# --- augment ---


def test_augment_writes_the_frames_it_counts(job, tmp_path):
    job.write(tmp_path / "frames.h5", job.argon(2))
    task = {"frames": "frames.h5", "settings": {"copies": 3, "rattle": {}}, "seed": 1}
    results = augment.run(task, tmp_path)
    frames = job.frames(tmp_path / augment.OUTPUT)
    assert results["n_frames"] == len(frames) == 8
    assert all(atoms.calc is None for atoms in frames)


def test_augment_depends_on_the_seed_alone(job, tmp_path):
    job.write(tmp_path / "frames.h5", job.argon(2))
    hashes = []
    for seed in (1, 1, 2):
        augment.run({"frames": "frames.h5", "settings": {"copies": 1, "rattle": {}}, "seed": seed}, tmp_path)
        hashes.append(job.content_hash(tmp_path / augment.OUTPUT))
    assert hashes[0] == hashes[1] != hashes[2]


def test_augment_does_not_depend_on_the_order_of_the_inputs(job, tmp_path):
    frames = job.argon(3)
    found = []
    for given in (frames, frames[::-1]):
        job.write(tmp_path / "frames.h5", given)
        task = {"frames": "frames.h5", "settings": {"copies": 2, "rattle": {}}, "seed": 1}
        results = augment.run(task, tmp_path)
        found.append((results, bits(job.frames(tmp_path / augment.OUTPUT))))
    assert found[0] == found[1]


def test_augmented_frames_tell_their_input_whatever_the_order_of_rows(job, tmp_path):
    frames = job.argon(3)
    for given in (frames, frames[::-1]):
        job.write(tmp_path / "frames.h5", given)
        task = {"frames": "frames.h5", "settings": {"copies": 1, "strain": {"mode": "volumetric"}}, "seed": 1}
        augment.run(task, tmp_path)
        with Dataset.open(tmp_path / "frames.h5") as dataset:
            rows = dict(zip(dataset.frame_ids(labels=False).tolist(), dataset, strict=True))
        for child in job.frames(tmp_path / augment.OUTPUT):
            scaled = child.get_scaled_positions(wrap=False)
            assert rows[child.info["parent_id"]].get_scaled_positions(wrap=False) == pytest.approx(scaled)


def test_augment_refuses_to_end_with_nothing_and_says_why(job, tmp_path):
    job.write(tmp_path / "frames.h5", job.argon(2))
    task = {"frames": "frames.h5", "settings": {"copies": 0, "filters": {"max_atoms": 1}}, "seed": 1}
    with pytest.raises(ValueError, match=r'no frame is left of 2: .*"max_atoms": {"too_many_atoms": 2}'):
        augment.run(task, tmp_path)


@pytest.mark.parametrize(
    ("module", "where", "task"),
    [
        (augment, "augment.settings", {"frames": "x.h5"}),
        (calibrate, "calibrate.settings", {"dataset": "x.h5"}),
        (evaluate, "evaluate.settings", {}),
        (explore_ase, "explore.settings", {}),
        (label_ase, "label.parameters", {"frames": "x.h5"}),
    ],
)
def test_an_unknown_setting_is_named_before_anything_is_read(module, where, task, tmp_path):
    with pytest.raises(SettingsError, match=f"{where}: unknown key 'no_such_setting'"):
        module.run({"settings": {"no_such_setting": 1}, "seed": 1, **task}, tmp_path)


# --- label_ase ---

LENNARD_JONES = {
    "calculator": "ase.calculators.lj:LennardJones",
    "parameters": {"sigma": 3.4, "epsilon": 0.0104, "rc": 6.0, "smooth": True},
    "isolated": False,
}


def without_labels(frames):
    for atoms in frames:
        atoms.calc = None
    return frames


def test_label_gives_the_labels_of_the_calculator(job, tmp_path):
    job.write(tmp_path / "frames.h5", without_labels(job.argon(3)))
    task = {"frames": "frames.h5", "settings": LENNARD_JONES, "walltime_s": 600}
    results = label_ase.run(task, tmp_path)
    assert (results["n_frames"], results["n_labelled"]) == (3, 3)
    for atoms, expected in zip(job.frames(tmp_path / label_ase.OUTPUT), job.argon(3), strict=True):
        np.testing.assert_allclose(atoms.get_forces(), expected.get_forces(), rtol=1e-10, atol=1e-14)
    assert json.loads((tmp_path / "progress.json").read_text()) == {"done": 3, "total": 3, "failed": 0}


def test_label_interrupted_by_the_walltime_writes_what_there_is(job, tmp_path):
    job.write(tmp_path / "frames.h5", without_labels(job.argon(3)))
    task = {"frames": "frames.h5", "settings": LENNARD_JONES, "walltime_s": 1e-9}
    with pytest.raises(TaskInterruptedError, match="3 frames are left") as caught:
        label_ase.run(task, tmp_path)
    assert caught.value.results["n_unlabelled"] == 3
    assert len(job.frames(tmp_path / label_ase.OUTPUT)) == 3


# --- calibrate ---


@pytest.fixture
def calibrated(job, tmp_path):
    """Calibrate on a dataset and give the results."""

    def run(frames, splits, test_frames=None, **settings):
        job.write(tmp_path / "dataset.h5", frames, split=splits)
        task = {
            "potentials": job.committee(tmp_path),
            "dataset": "dataset.h5",
            "settings": {"feature_kind": None, **settings},
        }
        if test_frames is not None:
            job.write(tmp_path / "external.h5", test_frames)
            task["test_frames"] = "external.h5"
        return calibrate.run(task, tmp_path)

    return run


def test_calibrate_reports_errors_of_every_split_that_has_frames(job, calibrated):
    results = calibrated(job.argon(8), ["train"] * 4 + ["validation"] + ["calibration"] * 3, n_min=1)
    assert list(results["errors"]) == ["train", "validation", "calibration"]
    # the mean of the depths 0.9, 1.0 and 1.1 is that of the reference
    assert results["errors"]["train"]["committee_mean"]["force"] == pytest.approx(0.0, abs=1e-12)
    assert results["errors"]["train"]["members"][0]["force"] > 1e-4
    json.dumps(results)


def test_calibrate_on_scaled_potentials_gives_the_ratio_one(job, calibrated, tmp_path):
    """The mean is exact here, so that the error of a random member is the disagreement."""
    results = calibrated(job.argon(12), job.splits(12), n_min=1)
    assert results["calibrations"]["force"]["scale"] == pytest.approx(1.0, rel=0.3)
    model = UncertaintyModel.load(tmp_path / calibrate.OUTPUT)
    assert model.thresholds == results["thresholds"]
    D, e = model.points["force"]
    np.testing.assert_allclose(D, e, rtol=1e-9)
    assert model.model_hashes == tuple(entry["sha256"] for entry in job.committee(tmp_path).values())


def test_calibrate_reports_rates_by_category(job, calibrated, tmp_path):
    frames = job.argon(30)
    for k, atoms in enumerate(frames):
        atoms.info["config_type"] = "hot" if k % 2 else "cold"
    results = calibrated(
        frames, ["train"] * 2 + ["calibration"] * 28, method="conformal", category_column="config_type"
    )
    assert set(results["rates"]) == set(results["calibrations"])
    force = results["rates"]["force"]
    assert set(force["coverage_by_category"]) == {"cold", "hot"}
    assert [row["tolerance"] for row in force["grid"]] == [0.025, 0.05, 0.1, 0.2, 0.4]
    assert set(results["calibrations"]["force"]["categories"]) == {"cold", "hot"}
    assert UncertaintyModel.load(tmp_path / calibrate.OUTPUT).category_column == "config_type"
    json.dumps(results, allow_nan=False)


@pytest.mark.parametrize(
    ("held_out", "n_min", "expected"),
    [
        (["calibration", "calibration", "test", "validation"], 3, ["calibration", "test"]),
        (["calibration", "calibration", "test", "validation"], 4, ["calibration", "test", "validation"]),
        (["test", "validation"], 1, ["test"]),
        (["validation"], 1, ["validation"]),
    ],
)
def test_validation_helps_out_when_held_out_frames_are_few(job, calibrated, held_out, n_min, expected):
    results = calibrated(job.argon(3 + len(held_out)), ["train"] * 3 + held_out, n_min=n_min)
    assert results["calibrated_on"] == expected


def test_without_any_held_out_frame_the_splits_are_named(job, calibrated):
    with pytest.raises(TaskError, match="no labelled frame in the splits calibration, test, validation") as caught:
        calibrated(job.argon(3), ["train"] * 3)
    assert caught.value.code == "no_held_out_frames"


def test_calibrate_also_judges_an_external_test_set(job, calibrated):
    results = calibrated(job.argon(6), job.splits(6), test_frames=job.argon(2, seed=9), n_min=1)
    assert results["errors"]["external_test"]["n_frames"] == 2
    assert "external_test" not in results["calibrated_on"]


@pytest.fixture
def broken(monkeypatch, make):
    """Let the committee of a task be one whose last member fails to predict some of the frames."""

    def install(module, frames, failing):
        groups = {atoms.info["group"] for atoms in failing}
        members = tuple(make.OffTarget(frames, d, d, d, bad=groups if d < 0 else ()) for d in (0.02, -0.01))
        monkeypatch.setattr(module, "load_committee", lambda *_: Committee(("a", "b"), members, ("a", "b")))

    return install


def test_frames_that_a_member_fails_to_predict_are_left_out_of_a_calibration(job, calibrated, broken):
    frames, splits = job.argon(10), ["train"] * 4 + ["calibration"] * 6
    broken(calibrate, frames, [frames[0], frames[7]])
    results = calibrated(frames, splits, feature_kind="last_layer")
    assert [results["errors"][split]["n_not_predicted"] for split in ("train", "calibration")] == [1, 1]
    assert results["calibrations"]["force"]["n_points"] == 5
    assert [note.partition(":")[0] for note in results["warnings"]] == ["train", "calibration"]
    assert "(Ar4, group argon-0-7): member 1 gives no finite forces" in results["warnings"][1]
    kept = [k for k in range(10) if k not in (0, 7)]
    broken(calibrate, frames, [])
    expected = calibrated([frames[k] for k in kept], [splits[k] for k in kept], feature_kind="last_layer")
    assert expected["warnings"] == []
    for name in ("calibrations", "thresholds", "active_atoms", "rates"):
        assert results[name] == expected[name]


def test_a_committee_that_predicts_no_held_out_frame_is_refused(job, calibrated, broken):
    frames = job.argon(6)
    broken(calibrate, frames, frames[3:])
    with pytest.raises(TaskError, match=r"is predicted \(calibration: 3 of 3 .*member 1 gives no finite forces"):
        calibrated(frames, ["train"] * 3 + ["calibration"] * 3)


def test_the_order_of_rows_does_not_change_a_calibration(job, calibrated, tmp_path):
    frames, splits = job.argon(8), job.splits(8)
    calibrated(frames, splits, n_min=1)
    before = (tmp_path / calibrate.OUTPUT).read_bytes()
    calibrated(frames[::-1], splits[::-1], n_min=1)
    assert (tmp_path / calibrate.OUTPUT).read_bytes() == before


def test_active_atoms_are_counted_by_species(make, tiny_models, tmp_path, job):
    import hashlib

    frames = make.crystals(8)
    job.write(tmp_path / "dataset.h5", frames, split=job.splits(8))
    potentials = {}
    for path in tiny_models[:2]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        potentials[path.stem] = {"file": path.name, "engine": "mace", "sha256": sha256, "dtype": "float64"}
    task = {"potentials": potentials, "dataset": "dataset.h5", "settings": {"n_min": 1}}
    results = calibrate.run(task, tmp_path)
    model = UncertaintyModel.load(tmp_path / calibrate.OUTPUT)
    assert results["active_atoms"] == {"Cu": len(model.active_set.owners[29])}
    assert 0 < results["active_atoms"]["Cu"] <= 16
    assert results["n_clusters"] is None
    task["settings"]["clusters"] = {"method": "birch", "n_clusters": 2, "rows_per_rank": 0.0}
    assert calibrate.run(task, tmp_path)["n_clusters"] == 2


# --- explore_ase ---


@pytest.fixture
def explored(job, tmp_path):
    """Explore and give frames and results."""
    entries = job.committee(tmp_path)
    uncertainty = job.uncertainty(tmp_path, entries, tolerance=10.0)

    def run(frames, first=0, last=99, walltime_s=None, **settings):
        shutil.rmtree(tmp_path / explore_ase.STATE, ignore_errors=True)  # every run is a job of its own
        job.write(tmp_path / "frames.h5", frames)
        task = {
            "potentials": entries,
            "uncertainty": uncertainty,
            "frames": "frames.h5",
            "settings": {**SHORT_MD, **settings},
            "seed": 3,
            "first": first,
            "last": last,
            "label": "i002",
            "iteration": 2,
            "walltime_s": walltime_s,
        }
        results = explore_ase.run(task, tmp_path)
        return job.frames(tmp_path / explore_ase.OUTPUT), results

    return run


def test_parts_of_the_plan_give_the_frames_of_the_whole(job, explored):
    frames = job.argon(2)
    whole, results = explored(frames)
    assert results["n_trajectories"] == 4
    parts = [explored(frames, first, last)[0] for first, last in ((0, 1), (1, 3), (3, 4))]
    assert bits(whole) == bits([atoms for part in parts for atoms in part])


def test_the_order_of_starting_frames_changes_no_trajectory(job, explored):
    frames = job.argon(2)
    assert bits(explored(frames)[0]) == bits(explored(frames[::-1])[0])


def test_labels_of_starting_frames_change_no_trajectory(job, explored):
    assert bits(explored(job.argon(2))[0]) == bits(explored(without_labels(job.argon(2)))[0])


def test_candidates_belong_to_their_trajectory_and_iteration(job, explored, tmp_path):
    frames, results = explored(job.argon(1))
    names = {trajectory["name"] for trajectory in results["trajectories"]}
    assert {atoms.info["group"] for atoms in frames} == names
    tag = explore_ase.compute_tag(3, [structure_id(tmp_path / "frames.h5")])
    assert names == {f"i002-{tag}/md-00000", f"i002-{tag}/md-00001"}
    assert {atoms.info["iteration"] for atoms in frames} == {2}
    assert all(atoms.calc is None for atoms in frames)
    assert json.loads((tmp_path / "progress.json").read_text()) == {"done": 2, "total": 2}


def structure_id(path):
    with Dataset.open(path) as dataset:
        return str(dataset.frame_ids(labels=False)[0])


def test_the_tag_is_of_seed_and_starting_frames_in_any_order():
    tags = [explore_ase.compute_tag(seed, ids) for seed, ids in ((3, "ab"), (3, "ba"), (4, "ab"), (3, "ac"))]
    assert tags[0] == tags[1]
    assert len(set(tags)) == 3
    assert all(len(tag) == 6 and int(tag, 16) >= 0 for tag in tags)


def test_explorations_of_two_campaigns_share_no_trajectory_name(job, explored):
    groups = [{atoms.info["group"] for atoms in explored(job.argon(1, seed=seed))[0]} for seed in (0, 1)]
    assert not groups[0] & groups[1]


def test_the_committee_is_loaded_on_the_device_of_the_settings(job, explored, monkeypatch):
    asked = []
    original = explore_ase.load_committee
    monkeypatch.setattr(
        explore_ase, "load_committee", lambda task, folder: asked.append(task["device"]) or original(task, folder)
    )
    explored(job.argon(1), device="cuda:1")
    explored(job.argon(1))
    assert asked == ["cuda:1", "cpu"]


@pytest.fixture
def starting(job, tmp_path):
    """Write frames and give the groups of those that trajectories may start from."""

    def run(frames, health=None, **columns):
        job.write(tmp_path / "frames.h5", frames, **columns)
        settings = parse_settings(ExploreSettings, {"health": health or {}}, "explore.settings")
        with Dataset.open(tmp_path / "frames.h5") as dataset:
            return sorted(atoms.info["group"][-1] for atoms in explore_ase.read_starting_frames(dataset, settings))

    return run


def test_failed_and_quarantined_frames_start_nothing(job, starting):
    status = ["labelled", "failed", "unlabelled", "quarantined"]
    assert starting(job.argon(4), status=status) == ["0", "2"]


def test_frames_of_unhealthy_geometry_start_nothing(job, starting):
    frames = without_labels(job.argon(3))
    frames[1].set_cell(0.25 * frames[1].cell, scale_atoms=True)
    assert starting(frames) == ["0", "2"]
    assert starting(frames, health={"min_pair_ratio": 0.1}) == ["0", "1", "2"]


def test_frames_with_forces_beyond_the_limit_start_nothing(job, starting):
    frames = job.argon(3)
    frames[1].calc.results["forces"][2] = [0.0, -60.0, 0.0]
    assert starting(frames) == ["0", "2"]
    assert starting(frames, health={"max_force": 61.0}) == ["0", "1", "2"]


def test_pieces_of_larger_frames_start_nothing(job, starting):
    frames = job.argon(3)
    frames[1].arrays[CORE] = np.arange(4) == 0
    assert starting(frames) == ["0", "2"]
    with pytest.raises(ValueError, match="of 1: 1 cut out of a larger frame"):
        starting(frames[1:2])


def test_descendants_of_held_out_frames_would_be_trained_on_so_these_start_nothing(job, starting):
    split = ["test", "train", "validation", "", "calibration"]
    assert starting(job.argon(5), split=split) == ["1", "3"]


def test_a_dataset_of_held_out_frames_alone_may_start_trajectories(job, starting):
    assert starting(job.argon(2), split=["test", "validation"]) == ["0", "1"]


def test_a_dataset_without_fit_frames_names_counts_per_reason_and_the_remedy(job, starting):
    frames = job.argon(5)
    frames[0].calc = None
    frames[0].set_cell(0.25 * frames[0].cell, scale_atoms=True)
    frames[1].calc.results["forces"][2] = [0.0, -60.0, 0.0]
    status = ["unlabelled", "labelled", "labelled", "labelled", "failed"]
    with pytest.raises(ValueError, match="no frame to start an exploration from, of 5") as caught:
        starting(frames, status=status, split=["train", "train", "test", "test", "train"])
    message = str(caught.value)
    assert "2 held out for test, 1 of status failed, 1 of unhealthy geometry (min_pair_ratio 0.6), 1 with a" in message
    assert "1 with a force above max_force 50 eV/Å" in message
    assert "explore_from" in message
    assert "health" in message


def test_an_exploration_without_a_fit_frame_says_so(job, explored):
    frames = without_labels(job.argon(1))
    frames[0].set_cell(0.25 * frames[0].cell, scale_atoms=True)
    with pytest.raises(ValueError, match="1 of unhealthy geometry"):
        explored(frames)


def test_an_exploration_out_of_time_before_its_first_frame_is_interrupted(job, explored):
    with pytest.raises(
        TaskInterruptedError, match="walltime was near before any trajectory had given a frame"
    ) as caught:
        explored(job.argon(1), walltime_s=0.0)
    assert [trajectory["reason"] for trajectory in caught.value.results["trajectories"]] == ["walltime"] * 2


def test_an_exploration_that_runs_out_of_time_keeps_its_frames(job, explored, monkeypatch, tmp_path):
    """The second trajectory finds that the time is over."""
    ticks = iter([0.0, *[1.0] * 1000])
    whole, _ = explored(job.argon(1))
    from aiida_alpot.kernel.exploration import runner

    original = runner._run_one

    def run_one(plan, start, calculator, context):
        deadline = None if next(ticks) == 0.0 else 0.0
        return original(plan, start, calculator, replace(context, deadline=deadline))

    monkeypatch.setattr(runner, "_run_one", run_one)
    with pytest.raises(TaskInterruptedError, match="walltime"):
        explored(job.argon(1))
    kept = bits(job.frames(tmp_path / explore_ase.OUTPUT))
    assert kept == bits(whole)[: len(kept)]
    assert 0 < len(kept) < len(whole)


def test_an_exploration_without_any_frame_is_a_failure(job, explored):
    with pytest.raises(TaskError, match="no trajectory gave a frame") as caught:
        explored(job.argon(1), n_steps=2, sample_every=100)
    assert caught.value.code == "no_frames"


def test_error_bars_of_another_committee_are_refused(job, tmp_path):
    entries = job.committee(tmp_path)
    uncertainty = job.uncertainty(tmp_path, entries)
    del entries["m002"]
    job.write(tmp_path / "frames.h5", job.argon(1))
    common = {"potentials": entries, "uncertainty": uncertainty, "seed": 1}
    explore = {"frames": "frames.h5", "settings": SHORT_MD, "first": 0, "last": 1, "label": "x", "iteration": 0}
    for module, task in ((explore_ase, explore), (evaluate, {"candidates": ["frames.h5"], "settings": {}})):
        with pytest.raises(ValueError, match="calibrate again for this committee"):
            module.run({**common, **task}, tmp_path)


# --- evaluate ---


@pytest.fixture
def evaluated(job, tmp_path):
    """Evaluate candidates and give frames and results."""
    entries = job.committee(tmp_path)
    uncertainty = job.uncertainty(tmp_path, entries)

    def run(*pools, dataset=None, seed=1, **settings):
        for k, frames in enumerate(pools):
            job.write(tmp_path / f"candidates-{k}.h5", without_labels(frames))
        task = {
            "potentials": entries,
            "uncertainty": uncertainty,
            "candidates": [f"candidates-{k}.h5" for k in range(len(pools))],
            "settings": settings,
            "seed": seed,
        }
        if dataset is not None:
            job.write(tmp_path / "dataset.h5", dataset, split=["train"] * len(dataset))
            task["dataset"] = "dataset.h5"
        results = evaluate.run(task, tmp_path)
        json.dumps(results)
        return job.frames(tmp_path / evaluate.OUTPUT), results

    return run


def test_evaluate_selects_within_the_budget(job, evaluated, tmp_path):
    frames, results = evaluated(job.argon(8), budget=5)
    assert results["n_selected"] == len(frames) == 5
    assert results["n_candidates"] == 8
    assert results["thresholds"] == {"force": pytest.approx(1e-4)}
    assert {atoms.info["split"] for atoms in frames} <= {"train", "validation", "calibration", "test"}
    with np.load(tmp_path / evaluate.TABLE, allow_pickle=False) as table:
        assert table["selected"].sum() == 5
        chosen = table["disagreement_force"][table["selected"]]
    assert len(chosen) == 5
    low, median, _, high = results["disagreement"]["force"]
    assert low <= median <= high
    assert results["grade"] is None
    assert results["extrapolated"] == {"force": 0}
    assert ["committee of 3" in note for note in results["warnings"]] == [True]


def test_evaluate_is_deterministic(job, evaluated, tmp_path):
    runs = []
    for seed in (1, 1, 2):
        evaluated(job.argon(8), budget=3, seed=seed)
        runs.append((tmp_path / evaluate.OUTPUT).read_bytes())
    assert runs[0] == runs[1] != runs[2]


def test_several_pools_are_judged_as_one(job, evaluated):
    one, first = evaluated(job.argon(6), budget=3)
    two, second = evaluated(job.argon(6)[:2], job.argon(6)[2:], budget=3)
    assert bits(one) == bits(two)
    assert first == second


def test_frames_of_the_dataset_are_not_selected_again(job, evaluated):
    frames, results = evaluated(job.argon(6), dataset=job.argon(4))
    assert results["n_known"] == 4
    assert {atoms.info["group"] for atoms in frames} <= {"argon-0-4", "argon-0-5"}


@pytest.mark.parametrize("criterion", [{"kind": "fixed", "thresholds": {"force": 1e-9}}, {"kind": "adaptive"}])
def test_the_criterion_of_the_settings_flags(job, evaluated, criterion):
    _, results = evaluated(job.argon(8), dataset=job.argon(5, seed=2), criterion=criterion)
    assert results["criterion"] == criterion["kind"]
    assert set(results["flagged"]) == set(criterion.get("thresholds", {"energy": 0, "force_max": 0}))
    if criterion["kind"] == "fixed":
        assert results["flagged"] == {"force": 8}
    else:
        assert set(results["adaptive_thresholds"]) == {"energy", "force_max"}


def test_candidates_that_a_member_fails_to_predict_are_rejected_with_the_reason(
    job, evaluated, broken, monkeypatch, tmp_path
):
    frames = job.argon(8)
    broken(evaluate, frames, frames[:2])
    tight = {"calibrations": {"force": Calibration(calibrated=True, n_points=10)}, "tolerances": {"force": 1e-4}}
    monkeypatch.setattr(evaluate, "load_uncertainty", lambda *_: UncertaintyModel(**tight))
    chosen, results = evaluated(frames, budget=8)
    assert results["n_rejected"] == 2
    assert not {frames[0].info["group"], frames[1].info["group"]} & {atoms.info["group"] for atoms in chosen}
    assert len(chosen) == results["n_selected"] > 0
    assert "2 of 8 frames are left out" in results["warnings"][0]
    assert "member 1 gives no finite forces" in results["warnings"][0]
    with np.load(tmp_path / evaluate.TABLE, allow_pickle=False) as table:
        assert sorted(table["rejected"].tolist()) == [""] * 6 + ["member 1 gives no finite forces"] * 2


def test_clusters_of_a_calibration_give_the_thresholds_of_an_evaluation(job, calibrated, evaluated, broken, tmp_path):
    frames = job.argon(16)
    for module in (calibrate, evaluate):
        broken(module, frames, [])
    splits = ["train"] * 10 + ["calibration"] * 6
    report = calibrated(frames, splits, feature_kind="last_layer", frame_clusters={"n_clusters": 2})
    assert report["frame_clusters"] == ["cluster 0", "cluster 1"]
    criterion = {"kind": "adaptive", "by": "cluster", "force_level": "atom"}
    _, results = evaluated(frames[10:], dataset=frames[:10], criterion=criterion, budget=3)
    # the mean of the members is off by a constant: that is every error
    for threshold in results["adaptive_thresholds"]["force_max"].values():
        assert threshold == pytest.approx(np.sqrt(3) * 0.005)
    assert set(results["adaptive_thresholds"]["force_max"]) <= {"cluster 0", "cluster 1"}
    with np.load(tmp_path / evaluate.TABLE, allow_pickle=False) as table:
        assert set(table["cluster"]) <= {"cluster 0", "cluster 1"}


def test_an_empty_pool_selects_nothing(evaluated):
    frames, results = evaluated([])
    assert frames == []
    assert (results["n_candidates"], results["n_selected"]) == (0, 0)
    assert results["disagreement"]["force"] is None


def test_frames_that_are_too_large_are_labelled_in_pieces(job, evaluated):
    sphere = {"shape": "cluster", "core_radius": 2.0, "reach": 2.0}
    large = [atoms.repeat(2) for atoms in job.argon(6)]
    for k, atoms in enumerate(large):
        atoms.rattle(0.1, seed=k)
        atoms.calc = None
    frames, results = evaluated(large + job.argon(2, seed=5), budget=6, cutout={"max_atoms": 20, **sphere})
    assert results["n_selected"] == len(frames) == results["n_train"] + results["n_validation"] + results["n_control"]
    pieces = [atoms for atoms in frames if CORE in atoms.arrays]
    cutout = results["cutout"]
    assert (cutout["n_large"], cutout["n_pieces"]) == (len(pieces), len(pieces))
    assert {atoms.info["group"] for atoms in pieces} <= {atoms.info["group"] for atoms in large}
    assert max(map(len, frames)) <= 20
    for atoms in pieces:
        assert atoms.arrays["committee_forces"].shape == (len(atoms), 3)
        # two atoms at this distance attract each other, and the members differ in how much
        assert atoms.info["committee_energy"] < 0
        assert atoms.info["committee_energy_disagreement"] > 0
    again, _ = evaluated((large + job.argon(2, seed=5))[::-1], budget=6, cutout={"max_atoms": 20, **sphere})
    assert bits(again) == bits(frames)


def test_frames_that_cannot_be_cut_are_reported_and_left_out(job, evaluated):
    cutout = {"max_atoms": 3, "shape": "cluster", "core_radius": 2.0, "reach": 2.0}
    frames, results = evaluated(job.argon(6), budget=4, cutout=cutout)
    assert frames == []
    assert (results["n_selected"], results["n_control"], results["control_groups"]) == (0, 0, [])
    assert len(results["cutout"]["left_out"]) == results["cutout"]["n_refused"] == 4
    assert all("atoms, more than 3" in reason for reason in results["cutout"]["left_out"].values())


def test_quantiles_keep_an_infinite_grade():
    assert evaluate._quantiles(np.array([1.0, np.nan, np.inf])) == [1.0, 1.0, 1.0, np.inf]
    assert evaluate._quantiles(np.array([np.nan])) is None
