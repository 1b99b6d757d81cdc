"""Features without a potential at every stage: calibrate, explore, evaluate and predict mean the same columns."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from aiida_alpot.kernel.calibrating import CalibrateSettings, assess, fit_uncertainty
from aiida_alpot.kernel.evaluating import EvaluateSettings, build_table, complete_features, select_candidates
from aiida_alpot.kernel.exploration.monitor import Monitor
from aiida_alpot.kernel.features import FeatureSpec
from aiida_alpot.kernel.predicting import Predictor, PredictSettings
from aiida_alpot.kernel.settings import SettingsError
from aiida_alpot.kernel.uncertainty import Calibration, ClusterSettings, UncertaintyModel

SMALL = {"r_cut": 4.0, "n_max": 3, "l_max": 2}
FUNCTION = '''
import numpy as np


def neighbours(frames, cutoff):
    """How many atoms are within two ranges of each."""
    rows = []
    for atoms in frames:
        distances = atoms.get_all_distances(mic=bool(atoms.pbc.any()))
        rows += [[np.exp(-row / cutoff).sum(), np.exp(-2 * row / cutoff).sum()] for row in distances]
    return rows
'''


@pytest.fixture(params=["soap", "user_functions:neighbours"])
def kind(request, tmp_path, monkeypatch):
    """A kind without a potential, with its parameters."""
    if request.param == "soap":
        pytest.importorskip("dscribe")
        return {"feature_kind": "soap", "feature_parameters": SMALL}
    (tmp_path / "user_functions.py").write_text(FUNCTION)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "user_functions", raising=False)
    return {"feature_kind": request.param, "feature_parameters": {"cutoff": 3.0}}


@pytest.fixture
def soap():
    """SOAP as the kind of the active sets."""
    pytest.importorskip("dscribe")
    return {"feature_kind": "soap", "feature_parameters": SMALL}


def dense_crystals(make):
    """Crystals far from all others."""
    frames = make.crystals(3, seed=7)
    for atoms in frames:
        atoms.set_cell(0.7 * atoms.cell, scale_atoms=True)
        make.label(atoms)
    return frames


@pytest.fixture
def frames(make):
    """Crystals and molecules, the last of which are candidates."""
    return [*make.crystals(10), *make.molecules(10)]


@pytest.fixture
def committee(make, frames):
    strangers = [*make.crystals(3, seed=5, symbol="Ni"), *dense_crystals(make)]
    return [make.OffTarget([*frames, *strangers], force=force) for force in (0.1, -0.1)]


@pytest.fixture
def calibrated(frames, committee, tmp_path):
    """Fit an uncertainty model to every other frame, and load it from its file."""

    def fit(**settings):
        values = CalibrateSettings(**settings)
        held_out = assess(committee, frames, values)
        fit_uncertainty(committee, ["a", "b"], held_out, frames[::2], values).save(tmp_path / "uncertainty.h5")
        return UncertaintyModel.load(tmp_path / "uncertainty.h5")

    return fit


def direct_grades(model, frames):
    """Grades of atoms from the features of each frame alone."""
    compute = FeatureSpec(model.feature_kind, model.feature_parameters).build()
    return [model.grade(compute([atoms])) for atoms in frames]


def test_a_frame_has_one_grade_whichever_stage_asks(calibrated, kind, frames, committee, opened):
    model = calibrated(**kind)
    of_atoms = direct_grades(model, frames)
    expected = [grades.max() for grades in of_atoms]
    np.testing.assert_allclose(Monitor(committee, model).assess(frames).grade, expected, rtol=1e-6)
    predicted = Predictor(committee, model, PredictSettings(batch_size=3)).predict(frames)
    for atoms, grades in zip(predicted, of_atoms, strict=True):
        np.testing.assert_allclose(atoms.arrays["atom_grade"], grades, rtol=1e-6)
    table, _ = build_table(opened(frames), committee, model, EvaluateSettings())
    np.testing.assert_allclose(table.grade, expected, rtol=1e-6)
    assert max(expected[::2]) <= model.active_set.tol + 1e-6
    assert max(expected) > 2.0


def test_columns_are_those_of_the_training_frames(calibrated, soap):
    model = calibrated(**soap)
    assert model.feature_parameters == {
        **SMALL,
        "species": ["H", "O", "Cu"],
        "sigma": 0.5,
        "compression": "mu1nu1",
    }
    assert {block.n_features for block in model.active_set.blocks.values()} == {3 * 3**2 * 3}


def test_species_that_are_named_make_the_columns(calibrated, soap):
    named = {**SMALL, "species": ["Cu", "O", "H", "Ni"]}
    model = calibrated(**{**soap, "feature_parameters": named})
    assert model.feature_parameters["species"] == named["species"]
    assert {block.n_features for block in model.active_set.blocks.values()} == {4 * 3**2 * 3}


def test_species_that_are_named_must_cover_the_training_frames(calibrated, soap):
    named = {**SMALL, "species": ["Cu", "O"]}
    message = r"feature_kind 'soap' is not defined for [HO] .*; calibrate\.settings\.feature_parameters\.species: name"
    with pytest.raises(ValueError, match=message):
        calibrated(**{**soap, "feature_parameters": named})


def test_grades_without_a_potential_do_not_depend_on_it(calibrated, kind, frames, make):
    model = calibrated(**kind)
    grades = [Monitor([make.OffTarget(frames, force=force)] * 2, model).assess(frames).grade for force in (0.0, 100.0)]
    np.testing.assert_array_equal(*grades)


def test_a_committee_without_features_of_its_own_has_grades(calibrated, kind, frames, make):
    class Bare(make.OffTarget):
        def features(self, *args, **options):
            raise AssertionError("no features were asked of the potential")

    model = calibrated(**kind)
    assert np.isfinite(Monitor([Bare(frames), Bare(frames)], model).assess(frames).grade).all()


def test_the_start_of_the_active_set_is_that_of_the_settings(calibrated, soap, frames):
    grades = {start: direct_grades(calibrated(**soap, active_set_start=start), frames) for start in ("eps", "strict")}
    assert np.isfinite(np.concatenate(grades["eps"])).all()
    assert np.isinf(np.concatenate(grades["strict"])).any()


def test_a_local_active_set_grades_by_soap(calibrated, soap, frames, committee):
    local = calibrated(**soap, clusters=ClusterSettings(n_clusters=2, rows_per_rank=0.0))
    compute = local.feature_spec.build()
    members = local.active_set.members
    expected = [np.min([member.grade(compute([atoms])) for member in members], axis=0).max() for atoms in frames]
    assert len(members) > 1
    np.testing.assert_allclose(Monitor(committee, local).assess(frames).grade, expected, rtol=1e-6)


# --- an unseen species ---


def test_an_unseen_species_has_an_infinite_grade_at_every_stage(calibrated, soap, make, frames, committee, opened):
    model = calibrated(**soap)
    nickel = make.crystals(2, seed=5, symbol="Ni")
    together = [frames[0], *nickel]
    assert np.isinf(Monitor(committee, model).assess(together).grade).tolist() == [False, True, True]
    predicted = Predictor(committee, model, PredictSettings()).predict(together)
    assert np.isinf(predicted[1].arrays["atom_grade"]).all()
    table, _ = build_table(opened(together), committee, model, EvaluateSettings())
    assert np.isinf(table.grade).tolist() == [False, True, True]


@pytest.mark.parametrize("strategy", ["ladder", "best_first"])
def test_frames_of_an_unseen_species_are_chosen_by_grade(calibrated, soap, make, frames, committee, opened, strategy):
    model = calibrated(**soap)
    nickel = make.crystals(2, seed=5, symbol="Ni")
    candidates = opened([*frames[:4:2], *nickel])
    settings = EvaluateSettings(strategy=strategy, control_share=0.0, validation_share=0.0)
    table, _ = build_table(candidates, committee, model, settings)
    selection = select_candidates(table, model, settings, 1, candidates=candidates, potentials=committee)
    assert sorted(selection.indices.tolist()) == [2, 3]


@pytest.mark.parametrize("strategy", ["ladder", "best_first"])
def test_selected_frames_leave_no_candidate_outside_the_active_set(
    calibrated, kind, make, frames, committee, opened, strategy
):
    model = calibrated(**kind)
    others = dense_crystals(make)
    candidates = opened(others)
    settings = EvaluateSettings(strategy=strategy, control_share=0.0, validation_share=0.0)
    table, _ = build_table(candidates, committee, model, settings)
    selection = select_candidates(table, model, settings, 1, candidates=candidates, potentials=committee)
    grown, compute = model.active_set.copy(), model.feature_spec.build()
    for row in selection.indices:
        grown.absorb(compute([others[row]]))
    assert table.grade.max() > 2.0
    assert grown.grade(compute(others)).max() <= 2.0


# --- distances ---


@pytest.fixture
def distances(kind):
    """Settings of an evaluation that measures distances in features without a potential."""
    values = {"features": kind["feature_kind"], "feature_parameters": kind["feature_parameters"]}
    return EvaluateSettings(strategy="fps", budget=1, control_share=0.0, validation_share=0.0, **values)


def test_distances_are_measured_between_the_means_over_atoms(distances, frames, committee, opened):
    """With room for one frame, farthest-point sampling takes the one farthest from the training frame."""
    labelled, candidates = opened(frames[:1], split=["train"]), opened(frames[1:])
    settings = complete_features(distances, candidates, labelled)
    all_flagged = UncertaintyModel({"force": Calibration(scale=1.0, calibrated=True)}, {"force": 1e-3})
    table, _ = build_table(candidates, committee, all_flagged, settings)
    compute = settings.feature_spec.build()
    rows = np.array([compute([atoms]).values.mean(axis=0) for atoms in frames])
    np.testing.assert_allclose(table.features, rows[1:], rtol=1e-10, atol=1e-12)
    known = {"candidates": candidates, "dataset": labelled, "potentials": committee}
    selection = select_candidates(table, all_flagged, settings, 1, **known)
    varying = rows.std(axis=0) > 1e-6 * np.abs(rows).max(axis=0)
    scaled = rows[:, varying] / rows[:, varying].std(axis=0)
    assert selection.indices.tolist() == [int(np.argmax(np.linalg.norm(scaled[1:] - scaled[0], axis=1)))]


def test_species_of_distances_are_those_of_all_frames_that_are_compared(soap, make, opened):
    settings = EvaluateSettings(strategy="fps", features="soap", feature_parameters=SMALL)
    completed = complete_features(settings, opened(make.molecules(1)), opened(make.crystals(1)), None, opened([]))
    assert completed.feature_parameters["species"] == ["H", "O", "Cu"]
    assert complete_features(completed, opened(make.crystals(1, symbol="Ni"))) == completed
    unneeded = EvaluateSettings(features="soap")
    assert complete_features(unneeded, opened(make.crystals(1))) == unneeded


def test_distances_without_species_are_refused_with_the_setting(soap, committee, frames, opened):
    settings = EvaluateSettings(strategy="fps", features="soap")
    model = UncertaintyModel(model_hashes=("a", "b"))
    with pytest.raises(SettingsError, match=r"evaluate\.settings\.feature_parameters: species: name those"):
        build_table(opened(frames), committee, model, settings)
    table, _ = build_table(opened([]), committee, model, settings)
    assert len(table) == 0


def test_distances_to_a_species_that_is_not_named_are_refused(soap, committee, frames, opened):
    settings = EvaluateSettings(strategy="fps", features="soap", feature_parameters={"species": ["Cu"]})
    with pytest.raises(ValueError, match=r"evaluate\.settings\.features 'soap' is not defined for O .* in OH2"):
        build_table(opened(frames), committee, UncertaintyModel(model_hashes=("a", "b")), settings)
