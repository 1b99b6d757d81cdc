"""Scales and thresholds by clusters of frames are those by a column that names the same frames."""

import numpy as np
import pytest

from aiida_alpot.kernel import evaluating
from aiida_alpot.kernel.calibrating import CalibrateSettings, assess, fit_uncertainty, rates
from aiida_alpot.kernel.criterion import CriterionSettings, adaptive_thresholds, find_limits
from aiida_alpot.kernel.evaluating import EvaluateSettings, build_table
from aiida_alpot.kernel.exploration.monitor import Monitor
from aiida_alpot.kernel.predicting import Predictor, PredictSettings
from aiida_alpot.kernel.settings import SettingsError, parse_settings
from aiida_alpot.kernel.uncertainty import compute_adaptive_threshold

BIAS, SPREAD = 0.03, 0.04
HARD = 10.0
"""Errors of the forces of far frames are larger by this factor."""


def two_kinds(make, n, seed):
    """Frames near the origin and frames far from it, by which their features differ; ``kind`` says which is which."""
    frames = [*make.crystals(n, seed=2 * seed, kind="near"), *make.crystals(n, seed=2 * seed + 1, kind="far")]
    for atoms in frames[n:]:
        atoms.positions += 50.0
        make.label(atoms)
    return frames


@pytest.fixture
def train(make):
    return two_kinds(make, 10, 0)


@pytest.fixture
def held_out(make):
    return two_kinds(make, 20, 1)


@pytest.fixture
def committee(make, train, held_out):
    """Two members whose forces are off by BIAS ± SPREAD, on far frames by HARD times BIAS."""
    members = [make.OffTarget([*train, *held_out], *[BIAS + sign * SPREAD] * 3) for sign in (1, -1)]
    for atoms in [*train, *held_out]:
        if atoms.info["kind"] == "far":
            for member in members:
                labels = member.labels[atoms.positions.tobytes()]
                labels["forces"] = labels["forces"] + (HARD - 1.0) * BIAS
    return members


def calibrate(committee, train, held_out, **values):
    settings = parse_settings(
        CalibrateSettings, {"tolerances": {"force": 0.2}, "method": "conformal", **values}, "calibrate"
    )
    found = assess(committee, held_out, settings)
    return fit_uncertainty(committee, ["a", "b"], found, train, settings), found


@pytest.fixture
def by_cluster(committee, train, held_out):
    return calibrate(committee, train, held_out, frame_clusters={"n_clusters": 2})[0]


def test_each_cluster_has_the_scale_of_its_kind(committee, train, held_out, by_cluster):
    by_column, found = calibrate(committee, train, held_out, category_column="kind")
    expected = by_column.calibrations["force"]
    scales = by_cluster.calibrations["force"].categories
    assert set(scales) == {"cluster 0", "cluster 1"}
    assert sorted(scales.values()) == pytest.approx(sorted(expected.categories.values()))
    assert by_cluster.calibrations["force"].scale == expected.scale
    assert set(rates(by_cluster, found)["force"]["coverage_by_category"]) == set(scales)


@pytest.mark.parametrize("method", ["kmeans", "birch"])
def test_new_frames_have_the_error_of_their_cluster_without_any_column(committee, train, held_out, method):
    model, _ = calibrate(committee, train, held_out, frame_clusters={"method": method, "n_clusters": 2})
    new = [held_out[0], held_out[-1]]
    for atoms in new:
        del atoms.info["kind"]
    expected = [np.hypot(BIAS, SPREAD), np.hypot(HARD * BIAS, SPREAD)]
    assert Monitor(committee, model).assess(new).error["force"] == pytest.approx(expected)
    predicted = Predictor(committee, model, PredictSettings()).predict(new)
    assert [atoms.info["error_force"] for atoms in predicted] == pytest.approx(expected)
    assert [atoms.info["radius_force"] for atoms in predicted] == pytest.approx(expected)


def test_candidates_have_the_calibrated_limit_of_their_cluster(opened, committee, held_out, by_cluster):
    candidates = opened(held_out)
    table, arrays = build_table(candidates, committee, by_cluster, EvaluateSettings())
    limits = find_limits(candidates, by_cluster, CriterionSettings(), arrays)["force"]
    near, far = 0.2 * SPREAD / np.hypot(BIAS, SPREAD), 0.2 * SPREAD / np.hypot(HARD * BIAS, SPREAD)
    assert limits == pytest.approx([near] * 20 + [far] * 20)
    assert np.flatnonzero(table.force > limits).tolist() == list(range(20, 40))
    assert len(set(arrays["cluster"][:20])) == len(set(arrays["cluster"][20:])) == 1


def test_adaptive_thresholds_by_cluster_are_those_by_kind(opened, committee, train, held_out, by_cluster):
    dataset, candidates = opened(train, split=["train"] * 20), opened(held_out)
    criterion = CriterionSettings("adaptive", by="cluster")
    adaptive = adaptive_thresholds(committee, dataset, None, clusters_of=by_cluster)
    named = adaptive_thresholds(committee, dataset, "kind")
    assert sorted(adaptive["force_max"].values()) == pytest.approx(sorted(named["force_max"].values()))
    _, arrays = build_table(candidates, committee, by_cluster, EvaluateSettings(criterion=criterion))
    found = find_limits(candidates, by_cluster, criterion, arrays, adaptive)
    expected = find_limits(candidates, by_cluster, CriterionSettings("adaptive", column="kind"), arrays, named)
    for name in ("energy", "force_max"):
        assert found[name] == pytest.approx(expected[name])


def test_a_candidate_that_is_not_predicted_is_of_no_cluster(opened, make, committee, held_out, by_cluster):
    broken = [committee[0], make.OffTarget(held_out, bad={held_out[3].info["group"]})]
    _, arrays = build_table(opened(held_out), broken, by_cluster, EvaluateSettings())
    assert np.flatnonzero(arrays["cluster"] == "").tolist() == [3]


@pytest.mark.parametrize("n_failed", [2, "all"])
def test_candidates_of_a_chunk_that_is_not_predicted_are_of_no_cluster(
    opened, make, committee, held_out, by_cluster, monkeypatch, n_failed
):
    monkeypatch.setattr(evaluating, "_CHUNK", 2)
    failed = held_out[2:4] if n_failed == 2 else held_out
    broken = [committee[0], make.OffTarget(held_out, bad={atoms.info["group"] for atoms in failed})]
    candidates = opened(held_out)
    _, arrays = build_table(candidates, broken, by_cluster, EvaluateSettings())
    assert len(arrays["cluster"]) == len(held_out)
    assert np.count_nonzero(arrays["cluster"] == "") == len(failed)
    limits = find_limits(candidates, by_cluster, CriterionSettings(), arrays)
    assert limits["force"].shape == (len(held_out),)


def test_thresholds_by_atom_are_quartiles_over_the_atoms(opened, make):
    """Of each frame one atom has a force error, so that the largest of a frame is no measure of those of atoms."""
    train = make.crystals(9, seed=3)
    errors = np.random.default_rng(0).uniform(0.1, 1.0, size=(9, 4))
    member = make.OffTarget(train)
    for k, atoms in enumerate(train):
        labels = member.labels[atoms.positions.tobytes()]
        labels["forces"] = labels["forces"] + errors[k][:, None] * [1.0, 0.0, 0.0]
    dataset = opened(train, split=["train"] * 9)
    by_atom = adaptive_thresholds([member, member], dataset, None, "atom")["force_max"][""]
    by_frame = adaptive_thresholds([member, member], dataset, None)["force_max"][""]
    assert by_atom == pytest.approx(compute_adaptive_threshold(errors))
    assert by_frame == pytest.approx(compute_adaptive_threshold(errors.max(axis=1)))


def test_clusters_that_the_calibration_lacks_are_refused_with_the_remedy(opened, committee, train, held_out):
    model, _ = calibrate(committee, train, held_out)
    with pytest.raises(ValueError, match=r"criterion\.by 'cluster': .* calibrate with 'frame_clusters' set"):
        adaptive_thresholds(committee, opened(train, split=["train"] * 20), None, clusters_of=model)


def test_scales_of_other_clusters_are_not_kept_with_the_previous_one(committee, train, held_out, by_cluster):
    settings = CalibrateSettings(
        tolerances={"force": 0.2}, method="conformal", frame_clusters=by_cluster_settings(), feature_kind="last_layer"
    )
    found = assess(committee, held_out[:2], settings)
    kept = fit_uncertainty(committee, ["a", "b"], found, train, settings, by_cluster).calibrations["force"]
    assert kept.scale == by_cluster.calibrations["force"].scale
    assert kept.categories == {}


def by_cluster_settings():
    return parse_settings(CalibrateSettings, {"frame_clusters": {"n_clusters": 2}}, "calibrate").frame_clusters


@pytest.mark.parametrize(
    ("settings", "values", "match"),
    [
        (CalibrateSettings, {"frame_clusters": {}, "feature_kind": None}, "frame_clusters: needs the active set"),
        (
            CalibrateSettings,
            {"frame_clusters": {}, "category_column": "kind", "method": "conformal"},
            "category_column and frame_clusters",
        ),
        (CriterionSettings, {"by": "cluster"}, "need the kind 'adaptive'"),
        (CriterionSettings, {"force_level": "atom"}, "need the kind 'adaptive'"),
        (CriterionSettings, {"kind": "adaptive", "by": "cluster", "column": "kind"}, "need no column"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, values, match):
    with pytest.raises((SettingsError, ValueError), match=match):
        parse_settings(settings, values, "settings")
