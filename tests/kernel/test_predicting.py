"""Predictions of a committee with error bars, for frames that have no label."""

from dataclasses import replace

import numpy as np
import pytest

from aiida_alpot.kernel.cutouts import CORE
from aiida_alpot.kernel.potentials import Predictions, predict_committee, reference_predictions
from aiida_alpot.kernel.predicting import Predictor, PredictSettings, extrapolation_warnings, summarise
from aiida_alpot.kernel.settings import SettingsError, parse_settings
from aiida_alpot.kernel.uncertainty import ActiveSet, Calibration, UncertaintyModel, disagreement, error

SPREAD = 0.05


@pytest.fixture
def frames(make):
    return make.crystals(12)


@pytest.fixture
def committee(make, frames):
    return [make.OffTarget(frames, s, s, s) for s in (SPREAD, -SPREAD)]


def make_model(spread, errors, **given):
    points = {"force": (np.asarray(spread, dtype=float), np.asarray(errors, dtype=float))}
    calibrations = {"force": Calibration(scale=2.0, calibrated=True, n_points=len(spread))}
    return UncertaintyModel(calibrations=calibrations, tolerances={"force": 0.02}, points=points, **given)


def test_a_frame_carries_the_mean_its_calibrated_error_and_its_conformal_radius(frames, committee):
    """Of nineteen ratios 1, 2, … 19 the conformal one at 90 % is the eighteenth."""
    model = make_model(np.ones(19), np.arange(1.0, 20.0))
    predicted = Predictor(committee, model, PredictSettings()).predict(frames)
    found = disagreement(predict_committee(committee, frames))
    mean = reference_predictions(frames)
    for k, atoms in enumerate(predicted):
        assert atoms.info["disagreement_force"] == pytest.approx(found.force[k])
        assert atoms.info["error_force"] == pytest.approx(2.0 * found.force[k])
        assert atoms.info["radius_force"] == pytest.approx(18.0 * found.force[k])
        assert atoms.info["committee_energy"] == pytest.approx(mean.energy[k])
        np.testing.assert_allclose(atoms.arrays["committee_forces"], frames[k].get_forces(), atol=1e-12)
        assert atoms.arrays["force_disagreement"].max() == pytest.approx(found.force_max[k])
        assert "grade" not in atoms.info


def test_the_share_of_errors_within_the_radius_is_the_confidence_that_was_asked_for(make):
    rng = np.random.default_rng(0)
    spread = np.exp(rng.normal(size=4000))
    errors = np.abs(rng.normal(size=4000)) * spread
    for confidence in (0.5, 0.9, 0.99):
        model = make_model(spread[:2000], errors[:2000])
        radius = Predictor([], model, PredictSettings(confidence=confidence)).radii["force"]
        assert np.mean(errors[2000:] <= radius.predict_error(spread[2000:])) == pytest.approx(confidence, abs=0.03)


def test_each_category_has_a_radius_of_its_own(frames, committee):
    """Ratios 1 … 19 of one category and ten times as large ones of another, alternating."""
    errors = np.repeat(np.arange(1.0, 20.0), 2) * np.tile([1.0, 10.0], 19)
    kinds = {"point_categories": np.array(["calm", "wild"] * 19), "category_column": "kind"}
    for atoms, kind in zip(frames, ("calm", "wild", ""), strict=False):
        atoms.info["kind"] = kind
    model = make_model(np.ones(38), errors, **kinds)
    calm, wild, pooled = Predictor(committee, model, PredictSettings()).predict(frames[:3])
    spread = disagreement(predict_committee(committee, frames[:3])).force
    assert calm.info["radius_force"] == pytest.approx(18.0 * spread[0])
    assert wild.info["radius_force"] == pytest.approx(180.0 * spread[1])
    assert calm.info["radius_force"] < pooled.info["radius_force"] < wild.info["radius_force"]


def test_grades_are_of_the_atoms_and_that_of_a_frame_is_its_largest(frames, committee):
    features = committee[0].features(frames[:4])
    model = make_model([1.0], [1.0], active_set=ActiveSet.build(features, start="eps"))
    predicted = Predictor(committee, model, PredictSettings()).predict(frames)
    for atoms in predicted:
        assert atoms.info["grade"] == atoms.arrays["atom_grade"].max()
    assert max(atoms.info["grade"] for atoms in predicted[:4]) <= 1.01 + 1e-8


def test_of_a_piece_the_core_alone_counts(frames, committee):
    model = make_model([1.0], [1.0], active_set=ActiveSet.build(committee[0].features(frames[:4]), start="eps"))
    (whole,) = Predictor(committee, model, PredictSettings()).predict([frames[6]])
    least = int(np.argmin(whole.arrays["atom_grade"]))
    piece = frames[6].copy()
    piece.calc = frames[6].calc
    piece.arrays[CORE] = np.arange(4) == least
    predicted = Predictor(committee, model, PredictSettings()).predict([piece])
    assert predicted[0].info["grade"] == whole.arrays["atom_grade"][least] < whole.info["grade"]
    np.testing.assert_array_equal(predicted[0].arrays["atom_grade"], whole.arrays["atom_grade"])
    assert predicted[0].info["disagreement_force"] == pytest.approx(SPREAD)
    summarise(predicted, model)


def test_a_frame_that_a_member_cannot_predict_is_unknown_and_the_others_are_not(make, frames, committee):
    frames[3].info["group"] = "broken"
    committee[1] = make.OffTarget(frames, -SPREAD, -SPREAD, -SPREAD, bad=("broken",))
    predictor = Predictor(committee, make_model([1.0], [1.0]), PredictSettings())
    predicted = predictor.predict(frames)
    unknown = [bool(np.isnan(atoms.info["error_force"])) for atoms in predicted]
    assert np.flatnonzero(unknown).tolist() == [3]
    assert np.isnan(predicted[3].arrays["committee_forces"]).all()
    summary = summarise(predicted, replace(predictor.model, tolerances={"force": 1e-6}))
    assert (summary["n_frames"], summary["n_unknown"], summary["above_tolerance"]) == (12, 1, {"force": 11})
    assert (summary["extrapolated"], summary["n_out_of_span"]) == ({"force": 0}, None)
    assert set(summary["quantiles"]) == {"error_force", "radius_force"}


def test_frames_beyond_the_largest_disagreement_of_the_calibration_are_counted_and_told(make, frames):
    committee = [make.OffTarget(frames, force=s) for s in (SPREAD, -SPREAD)]
    for atoms in frames[:5]:
        labels = committee[0].labels[atoms.positions.tobytes()]
        labels["forces"] = labels["forces"] + 4 * SPREAD
    model = make_model([1.0], [1.0])
    limited = replace(model.calibrations["force"], largest_disagreement=2 * SPREAD)
    model = replace(model, calibrations={"force": limited})
    summary = summarise(Predictor(committee, model, PredictSettings()).predict(frames), model)
    assert summary["extrapolated"] == {"force": 5}
    (note,) = extrapolation_warnings(summary)
    assert note.startswith("force: 5 of 12 frames disagree more than any frame of the calibration")


@pytest.mark.parametrize("start", ["eps", "strict"])
def test_frames_outside_the_span_of_the_training_atoms_are_counted_and_told(make, start):
    flat, new = make.crystals(4), make.crystals(6, seed=3)
    for atoms in [*flat, *new[:2]]:
        atoms.positions[:, 2] = 0.0
        make.label(atoms)
    committee = [make.OffTarget(flat + new, force=s) for s in (SPREAD, -SPREAD)]
    active = ActiveSet.build(committee[0].features(flat), start=start)
    model = make_model([1.0], [1.0], active_set=active)
    predicted = Predictor(committee, model, PredictSettings()).predict(new)
    assert [atoms.info["outside_span"] > 1e-3 for atoms in predicted] == [False] * 2 + [True] * 4
    summary = summarise(predicted, model)
    assert summary["n_out_of_span"] == 4
    assert any(note.startswith("4 of 6 frames have an atom") for note in extrapolation_warnings(summary))


def test_too_few_points_for_the_confidence_are_told(committee):
    predictor = Predictor(committee, make_model(np.ones(5), np.arange(1.0, 6.0)), PredictSettings(confidence=0.95))
    assert any(text.startswith("radius_force: 5 points are too few") for text in predictor.warnings)


def test_labels_of_frames_that_have_them_stay_and_are_not_looked_at(frames, committee):
    (atoms,) = Predictor(committee, make_model([1.0], [1.0]), PredictSettings()).predict(frames[:1])
    assert atoms.get_potential_energy() == frames[0].get_potential_energy()


def test_the_radius_bounds_the_error_of_the_mean_where_it_bounds_that_of_the_members(frames, committee):
    members, reference = predict_committee(committee, frames), reference_predictions(frames)
    of_mean = error(members, reference, "committee_mean").force
    assert np.all(of_mean <= error(members, reference, "member_rms").force)


def test_settings_out_of_range_are_named():
    for values, message in (
        ({"confidence": 1.0}, "confidence must be in"),
        ({"batch_size": 0}, "batch_size must be positive"),
        ({"confidenc": 0.5}, "did you mean 'confidence'"),
    ):
        with pytest.raises(SettingsError, match=message):
            parse_settings(PredictSettings, values, "predict.settings")


def test_predictions_tell_which_frames_are_finite():
    forces = np.zeros((5, 3))
    forces[1, 2], forces[4, 0] = np.nan, np.inf
    predictions = Predictions(np.array([0.0, np.nan, 1.0, 2.0]), forces, np.full((4, 6), np.nan), [0, 2, 3, 4, 5])
    assert predictions.finite.tolist() == [False, False, True, False]
    assert Predictions(np.zeros(0), np.zeros((0, 3)), np.zeros((0, 6)), [0]).finite.tolist() == []
