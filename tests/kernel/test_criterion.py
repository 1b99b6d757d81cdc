"""Candidates are flagged by the calibrated, the fixed, or the adaptive criterion, as the settings say."""

import numpy as np
import pytest

from aiida_alpot.kernel.criterion import CriterionSettings, adaptive_thresholds, find_limits
from aiida_alpot.kernel.evaluating import EvaluateSettings, build_table, select_candidates
from aiida_alpot.kernel.settings import SettingsError, parse_settings
from aiida_alpot.kernel.uncertainty import Calibration, UncertaintyModel, compute_adaptive_threshold

SPREAD = 0.05
MODEL = UncertaintyModel({"force": Calibration(calibrated=True)}, {"force": 1.0})
"""Errors are the disagreement, and 1 eV/Å is allowed: nothing is flagged."""


@pytest.fixture
def frames(make):
    """Eight crystals of copper and four of gold."""
    return [*make.crystals(8), *make.crystals(4, seed=1, symbol="Au")]


@pytest.fixture
def flagged(make, frames, opened):
    """Count what is flagged by property."""

    def run(dataset=None, **criterion):
        committee = [make.OffTarget(frames, d, d, d) for d in (SPREAD, -SPREAD)]
        candidates = opened(frames)
        settings = EvaluateSettings(criterion=CriterionSettings(**criterion))
        table, arrays = build_table(candidates, committee, MODEL, settings)
        adaptive = None
        if settings.criterion.kind == "adaptive":
            adaptive = adaptive_thresholds(committee, dataset, settings.criterion.column)
        limits = find_limits(candidates, MODEL, settings.criterion, arrays, adaptive)
        selection = select_candidates(table, MODEL, settings, 1, limits=limits, candidates=candidates)
        return selection.report["flagged"], selection.reasons

    return run


def test_the_calibrated_criterion_is_the_default(flagged):
    assert EvaluateSettings().criterion.kind == "calibrated"
    assert flagged()[0] == {"force": 0}


def test_fixed_thresholds_are_those_of_the_settings(flagged):
    assert flagged(kind="fixed")[0] == {"energy": 0, "force": 0, "stress": 0}
    assert flagged(kind="fixed", thresholds={"energy": 0.04, "stress": 0.06})[0] == {"energy": 12, "stress": 0}


@pytest.mark.parametrize("prop", ["energy", "force", "force_max", "stress"])
def test_an_element_with_a_factor_needs_more_to_be_flagged(flagged, prop):
    by_property, reasons = flagged(kind="fixed", thresholds={prop: 0.04}, element_factors={"Au": 3.0})
    assert by_property == {prop: 8}
    limits = {reason.split(" > ")[1].split()[0] for reason in reasons if " > " in reason}
    assert limits == {"0.04"}


def test_an_element_has_a_factor_of_its_calibrated_threshold_too(flagged):
    assert flagged(element_factors={"Cu": 0.01})[0] == {"force": 8}


def test_a_frame_without_prediction_is_not_flagged_by_any_criterion(make, opened, frames):
    committee = [make.OffTarget(frames, d, d, d, bad={"crystal-0-3"}) for d in (SPREAD, -SPREAD)]
    candidates = opened(frames)
    for criterion in (CriterionSettings("fixed", {"force": 0.04}, {"Au": 2.0}), CriterionSettings("adaptive")):
        settings = EvaluateSettings(criterion=criterion)
        table, arrays = build_table(candidates, committee, MODEL, settings)
        limits = find_limits(candidates, MODEL, criterion, arrays, {"force_max": {"": 1e-3}})
        selection = select_candidates(table, MODEL, settings, 1, limits=limits, candidates=candidates)
        assert max(selection.report["flagged"].values()) == (11 if criterion.kind == "adaptive" else 7)


def test_adaptive_thresholds_come_from_the_errors_on_the_training_frames(make, opened):
    train = make.crystals(9, seed=3)
    for k, atoms in enumerate(train):
        atoms.info["config_type"] = "bulk" if k < 5 else "liquid"
    energies = np.array([0.01, 0.02, 0.03, 0.04, 0.05, 0.6, 0.7, 0.8, 0.9])

    class Off(make.OffTarget):
        def predict(self, frames, batch_size=32):
            found = super().predict(frames, batch_size)
            known = {atoms.positions.tobytes(): k for k, atoms in enumerate(train)}
            found.energy[:] += [4 * energies[known[atoms.positions.tobytes()]] for atoms in frames]
            return found

    committee = [Off(train, force=d) for d in (0.02, 0.04)]
    dataset = opened([*train, *make.crystals(3, seed=4)], split=["train"] * 9 + ["test"] * 3)
    found = adaptive_thresholds(committee, dataset, None)
    assert found["energy"] == {"": pytest.approx(compute_adaptive_threshold(energies))}
    assert found["force_max"] == {"": pytest.approx(np.sqrt(3) * 0.03)}
    found = adaptive_thresholds(committee, dataset, "config_type")
    assert found["energy"] == pytest.approx(
        {"bulk": compute_adaptive_threshold(energies[:5]), "liquid": compute_adaptive_threshold(energies[5:])}
    )


def test_training_frames_that_a_member_fails_to_predict_make_no_threshold(make, opened):
    train = make.crystals(9, seed=3)
    committee = [make.OffTarget(train, d, d, bad={train[0].info["group"]}) for d in (0.02, 0.04)]
    found = adaptive_thresholds(committee, opened(train, split=["train"] * 9), None)
    assert found == adaptive_thresholds(committee, opened(train[1:], split=["train"] * 8), None)


def test_a_kind_of_frames_without_errors_makes_no_threshold(make, opened):
    """As isolated atoms, whose forces vanish; a new kind would get the threshold zero."""
    train = make.crystals(10, seed=3)
    for k, atoms in enumerate(train):
        atoms.info["config_type"] = "bulk" if k < 5 else "isolated"
    exact = {atoms.positions.tobytes() for atoms in train[5:]}

    class Off(make.OffTarget):
        def predict(self, frames, batch_size=32):
            found = super().predict(frames, batch_size)
            for k, atoms in enumerate(frames):
                if atoms.positions.tobytes() in exact:
                    found.forces[found.offsets[k] : found.offsets[k + 1]] = atoms.get_forces()
            return found

    found = adaptive_thresholds(
        [Off(train, force=d) for d in (0.02, 0.04)], opened(train, split=["train"] * 10), "config_type"
    )
    assert found == {"force_max": {"bulk": pytest.approx(np.sqrt(3) * 0.03)}}


def test_the_adaptive_criterion_compares_the_largest_deviation_of_a_member(make, opened, frames):
    """Deviations of 2, −1 and −1 from the mean: the largest is 2, the standard deviation √2."""
    committee = [make.OffTarget(frames, 0.01 * d, 0.01 * d) for d in (2, -1, -1)]
    table, _ = build_table(opened(frames), committee, MODEL, EvaluateSettings(criterion=CriterionSettings("adaptive")))
    np.testing.assert_allclose(table.energy, 0.02)
    np.testing.assert_allclose(table.force_max, 0.02 * np.sqrt(3))
    assert np.isnan(table.force).all()
    assert np.isnan(table.stress).all()


def test_the_adaptive_criterion_needs_the_frames_of_the_training(make, opened, flagged):
    with pytest.raises(ValueError, match="needs the frames that were trained on; give the dataset"):
        flagged(kind="adaptive")
    few = opened(make.crystals(3, seed=4), split=["train"] * 3)
    with pytest.raises(ValueError, match="at least four labelled training frames"):
        adaptive_thresholds([make.OffTarget(make.crystals(3, seed=4))] * 2, few, None)


@pytest.mark.parametrize(
    ("criterion", "match"),
    [
        ({"kind": "fixed", "thresholds": {"forces": 0.1}}, "did you mean 'force'"),
        ({"kind": "fixed", "thresholds": {"force": -1.0}}, r"criterion.thresholds.force must be positive"),
        ({"kind": "fixed", "thresholds": {}}, "must name at least one property"),
        ({"element_factors": {"Xx": 2.0}}, "'Xx' is not the symbol of an element"),
        ({"element_factors": {"Xe": 0.0}}, r"criterion.element_factors.Xe must be positive"),
        ({"kind": "adaptive", "element_factors": {"Xe": 2.0}}, "training errors have none"),
        ({"column": "config_type"}, "needs the kind 'adaptive'"),
        ({"kind": "best"}, "kind"),
    ],
)
def test_a_criterion_that_makes_no_sense_is_refused(criterion, match):
    with pytest.raises(SettingsError, match=match):
        parse_settings(EvaluateSettings, {"criterion": criterion}, "evaluate.settings")
