"""Errors and error bars of committees whose deviations from the labels are known by construction."""

import json
from dataclasses import replace

import numpy as np
import pytest
from ase.stress import voigt_6_to_full_3x3_stress

from aiida_alpot.kernel.calibrating import CalibrateSettings, assess, fit_uncertainty, rates, rms_errors
from aiida_alpot.kernel.cutouts import CORE
from aiida_alpot.kernel.exploration.monitor import Monitor
from aiida_alpot.kernel.potentials import reference_predictions
from aiida_alpot.kernel.predicting import Predictor, PredictSettings
from aiida_alpot.kernel.settings import SettingsError, parse_settings
from aiida_alpot.kernel.uncertainty import ActiveSet, UncertaintyModel

BIAS, SPREAD = 0.03, 0.04
NO_FEATURES = CalibrateSettings(feature_kind=None)


@pytest.fixture
def frames(make):
    return make.crystals(6)


@pytest.fixture
def committee(make, frames):
    """Two members at BIAS ± SPREAD from every label."""
    return [make.OffTarget(frames, *[BIAS + sign * SPREAD] * 3) for sign in (1, -1)]


def test_disagreement_of_two_members_is_half_their_distance(committee, frames):
    found = assess(committee, frames, NO_FEATURES)
    for name in ("energy", "force", "stress"):
        np.testing.assert_allclose(found.disagreement[name], SPREAD, rtol=1e-12)
    np.testing.assert_allclose(found.disagreement["force_max"], np.sqrt(3) * SPREAD, rtol=1e-12)


def test_error_of_a_random_member_adds_bias_and_spread_in_squares(committee, frames):
    found = assess(committee, frames, NO_FEATURES)
    for name in ("energy", "force", "stress"):
        np.testing.assert_allclose(found.error[name], np.hypot(BIAS, SPREAD), rtol=1e-12)


def test_error_of_the_mean_is_the_bias(committee, frames):
    found = assess(committee, frames, CalibrateSettings(target="committee_mean", feature_kind=None))
    for name in ("energy", "force", "stress"):
        np.testing.assert_allclose(found.error[name], BIAS, rtol=1e-12)


def test_summary_holds_the_errors_of_mean_and_members(committee, frames):
    summary = assess(committee, frames, NO_FEATURES).summary
    assert summary["n_frames"] == 6
    assert summary["committee_mean"] == pytest.approx(dict.fromkeys(("energy", "force", "stress"), BIAS))
    assert summary["members"][0]["force"] == pytest.approx(BIAS + SPREAD)
    assert summary["members"][1]["energy"] == pytest.approx(SPREAD - BIAS)
    assert summary["disagreement"]["force"] == pytest.approx(SPREAD)


def test_a_frame_that_a_member_fails_to_predict_changes_nothing_of_the_others(make, frames):
    bad = {frames[2].info["group"]}
    broken = [make.OffTarget(frames, *[BIAS + sign * SPREAD] * 3, bad=bad if sign < 0 else ()) for sign in (1, -1)]
    found, others = assess(broken, frames, NO_FEATURES), assess(broken, frames[:2] + frames[3:], NO_FEATURES)
    assert np.flatnonzero(np.isnan(found.error["force"])).tolist() == [2]
    assert found.failures.tolist() == ["", "", "member 1 gives no finite forces", "", "", ""]
    assert (found.summary["n_frames"], found.summary["n_not_predicted"]) == (5, 1)
    assert {**found.summary, "n_not_predicted": 0} == others.summary
    model = fit_uncertainty(broken, ["a", "b"], found, [], NO_FEATURES)
    expected = fit_uncertainty(broken, ["a", "b"], others, [], NO_FEATURES).calibrations["force"]
    assert model.calibrations["force"] == replace(expected, n_dropped=1)


def test_frames_that_no_member_predicts_leave_nothing_to_calibrate_on(make, frames):
    broken = [make.OffTarget(frames, bad={atoms.info["group"] for atoms in frames}) for _ in range(2)]
    found = assess(broken, frames, NO_FEATURES)
    assert found.summary["n_frames"] == 0
    assert fit_uncertainty(broken, ["a", "b"], found, [], NO_FEATURES).calibrations == {}


def test_rms_of_forces_is_over_all_components_of_all_frames(make):
    frames = [make.crystals(1)[0], make.label(make.Atoms("Cu", cell=[3, 3, 3], pbc=True))]
    reference = reference_predictions(frames)
    deviation = np.random.default_rng(0).normal(size=reference.forces.shape)
    predicted = type(reference)(reference.energy, reference.forces + deviation, reference.stress, reference.offsets)
    np.testing.assert_allclose(rms_errors(predicted, reference)["force"], np.sqrt(np.mean(deviation**2)), rtol=1e-12)


def test_rms_of_stress_is_over_the_nine_components_of_the_tensor(frames):
    reference = reference_predictions(frames)
    deviation = np.random.default_rng(1).normal(size=reference.stress.shape)
    predicted = type(reference)(reference.energy, reference.forces, reference.stress + deviation, reference.offsets)
    full = np.array([voigt_6_to_full_3x3_stress(row) for row in deviation])
    np.testing.assert_allclose(rms_errors(predicted, reference)["stress"], np.sqrt(np.mean(full**2)), rtol=1e-12)


def test_stress_across_a_surface_is_left_out_of_every_number(make):
    frames = [make.slab()]
    across = np.array([0.0, 0.0, 9.0, 9.0, 9.0, 0.0])
    along = np.array([0.1, 0.1, 0.0, 0.0, 0.0, 0.1])
    committee = [make.OffTarget(frames, stress=along + across), make.OffTarget(frames, stress=along - across)]
    found = assess(committee, frames, NO_FEATURES)
    assert found.disagreement["stress"] == pytest.approx([0.0])
    assert found.error["stress"] == pytest.approx([0.1])
    assert found.summary["committee_mean"]["stress"] == pytest.approx(0.1)
    assert found.summary["members"][0]["stress"] == pytest.approx(0.1)


def test_energies_are_compared_per_atom(make):
    frames = make.molecules(1) + make.crystals(1)
    found = assess([make.OffTarget(frames, 0.1), make.OffTarget(frames, 0.1)], frames, NO_FEATURES)
    np.testing.assert_allclose(found.error["energy"], [0.1, 0.1], rtol=1e-12)
    assert found.summary["committee_mean"]["energy"] == pytest.approx(0.1)


def test_pieces_count_by_the_forces_on_their_core(make):
    """Whole frames are BIAS ± SPREAD off; of the pieces only the first atom is, the others by far more."""
    frames = make.crystals(6)
    committee = [make.OffTarget(frames, *[BIAS + sign * SPREAD] * 3) for sign in (1, -1)]
    whole = assess(committee, frames, NO_FEATURES)
    for atoms in frames[:3]:
        atoms.arrays[CORE] = np.arange(4) == 0
        atoms.calc.results["forces"][1:] += 9.0
        atoms.calc.results["energy"] += 9.0
    found = assess(committee, frames, NO_FEATURES)
    np.testing.assert_allclose(found.error["force"], whole.error["force"], rtol=1e-12)
    np.testing.assert_allclose(found.disagreement["force_max"], whole.disagreement["force_max"], rtol=1e-12)
    assert (
        np.isnan(found.error["energy"]).tolist() == np.isnan(found.error["stress"]).tolist() == [True] * 3 + [False] * 3
    )
    assert found.summary["committee_mean"] == pytest.approx(whole.summary["committee_mean"])
    model = fit_uncertainty(committee, ["a", "b"], found, [], NO_FEATURES)
    assert (model.calibrations["energy"].n_points, model.calibrations["force"].n_points) == (3, 6)


def test_a_candidate_that_is_a_piece_is_flagged_by_its_core(make):
    frames = make.crystals(2)
    committee = [make.OffTarget(frames, *[sign * SPREAD] * 3) for sign in (1, -1)]
    model = UncertaintyModel(active_set=ActiveSet.build(committee[0].features(frames)), feature_kind="last_layer")
    plain = Monitor(committee, model).assess(frames)
    piece = frames[0].copy()
    piece.calc = frames[0].calc
    piece.arrays[CORE] = np.arange(4) == 2
    found = Monitor(committee, model).assess([piece, frames[1]])
    assert found.grade[0] == model.grade(committee[0].features([piece]))[2]
    assert found.grade[1] == plain.grade[1]
    assert np.isnan(found.disagreement["energy"]).tolist() == [True, False]
    np.testing.assert_allclose(found.disagreement["force"], SPREAD, rtol=1e-12)


def test_molecules_have_no_stress_and_get_no_calibration_of_it(make):
    frames = make.molecules(5)
    committee = [make.OffTarget(frames, 0.02 + d, 0.02 + d) for d in (0.01, -0.01)]
    found = assess(committee, frames, NO_FEATURES)
    assert np.isnan(found.error["stress"]).all()
    assert np.isnan(found.summary["committee_mean"]["stress"])
    model = fit_uncertainty(committee, ["a", "b"], found, [], NO_FEATURES)
    assert set(model.calibrations) == {"energy", "force", "force_max"}
    assert set(model.thresholds) == {"energy", "force"}


def test_crystals_among_molecules_decide_the_stress(make):
    frames = make.molecules(4) + make.crystals(4)
    committee = [make.OffTarget(frames, 0.1, 0.1, BIAS + d) for d in (SPREAD, -SPREAD)]
    found = assess(committee, frames, NO_FEATURES)
    assert found.summary["committee_mean"]["stress"] == pytest.approx(BIAS)
    calibration = fit_uncertainty(committee, ["a", "b"], found, [], NO_FEATURES).calibrations["stress"]
    assert (calibration.n_points, calibration.n_dropped) == (4, 4)


def test_threshold_is_the_tolerance_over_the_ratio_of_error_and_disagreement(make):
    frames = make.crystals(20)
    committee = [make.OffTarget(frames, *[BIAS + d] * 3) for d in (SPREAD, -SPREAD)]
    settings = CalibrateSettings(tolerances={"force": 0.2}, feature_kind=None)
    model = fit_uncertainty(committee, ["a", "b"], assess(committee, frames, settings), [], settings)
    ratio = np.hypot(BIAS, SPREAD) / SPREAD
    assert model.thresholds == pytest.approx({"force": 0.2 / ratio})
    assert model.calibrations["energy"].scale == pytest.approx(ratio)
    assert model.model_hashes == ("a", "b")
    assert model.points["force"][0] == pytest.approx(np.full(20, SPREAD))


def test_few_points_are_drawn_towards_the_scale_of_the_committee_before(make, frames, committee):
    found = assess(committee, frames, NO_FEATURES)
    wide = make.crystals(20, seed=1)
    before = [make.OffTarget(wide, *[10 * SPREAD + sign * SPREAD] * 3) for sign in (1, -1)]
    previous = fit_uncertainty(before, ["c", "d"], assess(before, wide, NO_FEATURES), [], NO_FEATURES)
    scales = [
        fit_uncertainty(committee, ["a", "b"], found, [], NO_FEATURES, given).calibrations["force"].scale
        for given in (None, previous)
    ]
    fitted, n = np.hypot(BIAS, SPREAD) / SPREAD, len(frames)
    for scale, prior in zip(scales, (1.0, previous.calibrations["force"].scale), strict=True):
        assert scale == pytest.approx(np.exp((n * np.log(fitted) + 10 * np.log(prior)) / (n + 10)))


@pytest.fixture
def two_kinds(make):
    """Twenty frames with small errors, twenty with large ones, and a committee with one disagreement on all."""
    frames = make.crystals(20, config_type="bulk") + make.crystals(20, seed=1, config_type="liquid")
    calm = [make.OffTarget(frames, *[BIAS + sign * SPREAD] * 3) for sign in (1, -1)]
    for potential in calm:
        for atoms in frames[20:]:
            labels = potential.labels[atoms.positions.tobytes()]
            labels["forces"] = labels["forces"] + 10 * BIAS
    return frames, calm


def test_each_category_has_its_own_scale(two_kinds):
    frames, committee = two_kinds
    settings = CalibrateSettings(
        tolerances={"force": 0.1}, method="conformal", category_column="config_type", feature_kind=None
    )
    held_out = assess(committee, frames, settings)
    model = fit_uncertainty(committee, ["a", "b"], held_out, [], settings)
    categories = model.calibrations["force"].categories
    expected = {"bulk": np.hypot(BIAS, SPREAD) / SPREAD, "liquid": np.hypot(11 * BIAS, SPREAD) / SPREAD}
    assert categories == pytest.approx(expected)
    assert model.calibrations["force"].scale == pytest.approx(expected["liquid"])
    report = rates(model, held_out)["force"]
    # all ratios of a category are equal up to roundoff, so that some errors are just above the prediction
    assert set(report["coverage_by_category"]) == {"bulk", "liquid"}
    assert min(report["coverage_by_category"].values()) >= 0.9
    assert (report["n_beyond"], report["n_flagged"], report["tpr"], report["ppv"]) == (20, 20, 1.0, 1.0)
    assert Monitor(committee, model).assess([frames[0], frames[-1]]).error["force"] == pytest.approx(
        [np.hypot(BIAS, SPREAD), np.hypot(11 * BIAS, SPREAD)]
    )
    del frames[0].info["config_type"]
    assert Monitor(committee, model).assess(frames[:1]).error["force"] == pytest.approx(np.hypot(11 * BIAS, SPREAD))


def test_a_scale_of_another_method_is_not_what_few_points_are_drawn_to(make):
    frames = make.crystals(20)
    committee = [make.OffTarget(frames, force=s) for s in (BIAS + SPREAD, BIAS - SPREAD)]
    found = assess(committee, frames, NO_FEATURES)
    conformal = replace(NO_FEATURES, method="conformal")
    previous = fit_uncertainty(committee, ["a", "b"], found, [], conformal)
    scales = [
        fit_uncertainty(committee, ["a", "b"], found, [], NO_FEATURES, before).calibrations["force"].scale
        for before in (None, previous)
    ]
    assert scales[0] == scales[1]


def test_categories_of_another_column_are_not_kept_with_the_previous_scale(two_kinds):
    frames, committee = two_kinds
    previous, kept = None, {}
    for column in ("config_type", "config_type", "cluster"):
        settings = CalibrateSettings(method="conformal", category_column=column, feature_kind=None)
        chosen = frames if previous is None else frames[:2]
        model = fit_uncertainty(committee, ["a", "b"], assess(committee, chosen, settings), [], settings, previous)
        previous = previous or model
        kept[column] = set(model.calibrations["force"].categories)
    assert kept == {"config_type": {"bulk", "liquid"}, "cluster": set()}


def test_rates_are_plain_and_of_every_calibrated_property(committee, frames):
    found = assess(committee, frames, NO_FEATURES)
    model = fit_uncertainty(committee, ["a", "b"], found, [], NO_FEATURES)
    report = rates(model, found)
    assert set(report) == {"energy", "force", "force_max", "stress"}
    assert report["energy"]["tpr"] == 1.0
    assert "tpr" not in report["force_max"]
    json.dumps(report, allow_nan=False)


def test_active_set_is_made_of_the_training_frames_of_the_first_member(committee, frames, make):
    settings = CalibrateSettings(gamma_save=2.0, gamma_break=5.0)
    model = fit_uncertainty(committee, ["a", "b"], assess(committee, frames, settings), frames[:3], settings)
    grades = model.grade(committee[0].features(frames[:3]))
    assert grades.max() <= 1.01 + 1e-9
    assert (model.gamma_save, model.gamma_break) == (2.0, 5.0)


@pytest.mark.parametrize("level", ["atom", "frame"])
@pytest.mark.parametrize("method", ["kmeans", "birch", "column"])
def test_grades_are_the_smallest_over_the_clusters(make, tmp_path, method, level):
    training, new = make.crystals(6, config_type="a") + make.crystals(6, seed=1, config_type="b"), make.crystals(3, 5)
    committee = [make.OffTarget(training + new, *[BIAS + sign * SPREAD] * 3) for sign in (1, -1)]
    clusters = {"method": method, "level": level, "n_clusters": 2, "rows_per_rank": 0.0}
    settings = parse_settings(CalibrateSettings, {"clusters": clusters}, "calibrate")
    model = fit_uncertainty(committee, ["a", "b"], assess(committee, training, settings), training, settings)
    assert len(model.active_set.members) == 2
    model.save(tmp_path / "u.h5")
    loaded = UncertaintyModel.load(tmp_path / "u.h5")
    features = committee[0].features(new)
    smallest = np.min([member.grade(features) for member in model.active_set.members], axis=0)
    for grades in (model.grade(features), loaded.grade(features)):
        np.testing.assert_array_equal(grades, smallest)
    of_frames = [smallest[features.frame_index == k].max() for k in range(3)]
    np.testing.assert_array_equal(Monitor(committee, loaded).assess(new).grade, of_frames)
    predicted = Predictor(committee, loaded, PredictSettings()).predict(new)
    np.testing.assert_array_equal([atoms.info["grade"] for atoms in predicted], of_frames)


def test_of_several_families_the_first_member_that_has_features_gives_the_grades(frames, make):
    families = [make.OffTarget(frames, force=SPREAD, feature_kinds=()), make.OffTarget(frames, force=-SPREAD)]
    settings = CalibrateSettings()
    model = fit_uncertainty(families, ["a", "b"], assess(families, frames, settings), frames[:3], settings)
    expected = model.frame_grade(families[1].features(frames), len(frames))
    np.testing.assert_array_equal(Monitor(families, model).assess(frames).grade, expected)
    predicted = Predictor(families, model, PredictSettings()).predict(frames)
    assert [atoms.info["grade"] for atoms in predicted] == expected.tolist()


def test_features_that_no_member_has_are_refused_with_the_remedy(frames, make):
    families = [make.OffTarget(frames, force=d, feature_kinds=()) for d in (SPREAD, -SPREAD)]
    settings = CalibrateSettings()
    found = assess(families, frames, settings)
    with pytest.raises(ValueError, match=r"'last_layer' \(engines: off-target\); take features that need no potential"):
        fit_uncertainty(families, ["a", "b"], found, frames[:3], settings)


def test_a_member_without_stress_leaves_its_calibration_to_the_others(frames, make):
    deviations = (BIAS + SPREAD, None, BIAS - SPREAD)
    families = [make.OffTarget(frames, stress=deviation) for deviation in deviations]
    found = assess(families, frames, NO_FEATURES)
    np.testing.assert_allclose(found.disagreement["stress"], SPREAD, rtol=1e-12)
    np.testing.assert_allclose(found.error["stress"], np.hypot(BIAS, SPREAD), rtol=1e-12)
    assert np.isnan(found.summary["members"][1]["stress"])
    lone = fit_uncertainty(families[:2], ["a", "b"], assess(families[:2], frames, NO_FEATURES), [], NO_FEATURES)
    assert "stress" not in lone.calibrations


@pytest.mark.parametrize("train", [True, False])
def test_without_features_or_training_frames_there_is_no_active_set(committee, frames, train):
    settings = CalibrateSettings(feature_kind=None if train else "last_layer")
    found = assess(committee, frames, settings)
    assert fit_uncertainty(committee, ["a", "b"], found, frames if train else [], settings).active_set is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tolerances": {}}, "tolerances must name at least one property"),
        ({"tolerances": {"forces": 1.0}}, "tolerances: expected one of energy, force, .* got 'forces'"),
        ({"tolerances": {"force": 0.0}}, r"tolerances\.force must be positive"),
        ({"splits": ["train"]}, "leave 'train' out"),
        ({"fallback_splits": ["train"]}, "leave 'train' out"),
        ({"splits": ["tset"]}, "splits: .*'tset'"),
        ({"clusters": {"method": "birsh"}}, r"clusters\.method: expected one of"),
        ({"clusters": {"n_cluster": 3}}, "did you mean 'n_clusters'"),
        ({"batch_size": 0}, "batch_size must be positive, got 0"),
        ({"gamma_save": 3.0, "gamma_break": 2.0}, r"gamma_break 2\.0 must not be below gamma_save 3\.0"),
        ({"confidence": 1.0}, r"confidence must be in \(0, 1\)"),
        ({"category_column": "config_type"}, "category_column needs the method 'conformal'"),
        ({"category_column": "", "method": "conformal"}, "category_column must be the name"),
        (
            {"feature_kind": None, "feature_parameters": {"r_cut": 4.0}},
            "feature_parameters: needs the active set that feature_kind null leaves out",
        ),
        ({"feature_kind": "soop"}, r"calibrate\.settings\.feature_kind: unknown kind 'soop'; did you mean 'soap'"),
        ({"method": "median"}, r"calibrate\.method: expected one of"),
        ({"tolerance": {"force": 1.0}}, "did you mean 'tolerances'"),
    ],
)
def test_settings_out_of_range_are_named(values, message):
    with pytest.raises(SettingsError, match=message):
        parse_settings(CalibrateSettings, values, "calibrate")
