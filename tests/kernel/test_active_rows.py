"""What enters an active set of training frames, and what the report says."""

import json

import numpy as np
import pytest

from aiida_alpot.kernel.active_rows import find_force_outliers
from aiida_alpot.kernel.calibrating import CalibrateSettings, assess, fit_uncertainty
from aiida_alpot.kernel.cutouts import CORE
from aiida_alpot.kernel.exploration.monitor import Monitor
from aiida_alpot.kernel.features import spool
from aiida_alpot.kernel.predicting import Predictor, PredictSettings
from aiida_alpot.kernel.uncertainty import ClusterSettings, UncertaintyModel

STRAY = (2, 3)
"""Frame and atom that are out of all proportion."""


def set_force(frames, size):
    """Give every atom a force of its own size, and the stray one another."""
    for k, atoms in enumerate(frames):
        forces = np.zeros((len(atoms), 3))
        forces[:, 0] = 1.0 + 0.01 * (4 * k + np.arange(len(atoms)))
        if k == STRAY[0]:
            forces[STRAY[1], 0] = size
        atoms.calc.results["forces"] = forces


def fit(make, frames, committee=None, **settings):
    committee = committee or [make.OffTarget(frames, force=d) for d in (0.1, -0.1)]
    settings = CalibrateSettings(**settings)
    return fit_uncertainty(committee, ["a", "b"], assess(committee, frames, settings), frames, settings)


@pytest.fixture
def frames(make):
    frames = make.crystals(8)
    set_force(frames, 50.0)
    return frames


def test_an_atom_with_a_force_out_of_proportion_is_left_out_and_reported(make, frames, tmp_path):
    plain, filtered = fit(make, frames), fit(make, frames, force_outliers="force")
    frames[STRAY[0]].positions[STRAY[1]] += 100.0
    frames[STRAY[0]].calc.atoms = frames[STRAY[0]].copy()
    far, without = fit(make, frames), fit(make, frames, force_outliers="force")
    # the far atom decides what is known, unless its force keeps it out
    assert STRAY[0] in far.active_set.owners[29]
    np.testing.assert_array_equal(without.active_set.blocks[29].rows, filtered.active_set.blocks[29].rows)
    assert plain.active_set_report == far.active_set_report == {"mode": "neighbourhood"}
    report = filtered.active_set_report["outliers"]
    sizes = np.sort([*(1.0 + 0.01 * np.delete(np.arange(32.0), 11)), 50.0])
    low, high = np.quantile(sizes, [0.25, 0.75])
    assert report["limits"] == {"Cu": pytest.approx(high + 1.5 * (high - low))}
    assert (report["by"], report["n_atoms"], report["n_frames"], report["n_unknown"]) == ("force", 1, 1, 0)
    assert report["shares"] == {"Cu": 1 / 32}
    assert report["frames"] == [{"frame": 2, "group": "crystal-0-2", "n_left_out": 1, "n_atoms": 4}]
    filtered.save(tmp_path / "u.h5")
    loaded = UncertaintyModel.load(tmp_path / "u.h5")
    assert loaded.active_set_report == filtered.active_set_report == json.loads(json.dumps(filtered.active_set_report))


def test_the_error_of_a_force_is_that_of_the_mean_of_the_committee(make, frames):
    committee = [make.OffTarget(frames, force=d) for d in (0.1, -0.1)]
    # all forces are hit exactly by the mean, but for one that is missed and is not large
    set_force(frames, 1.1)
    for potential in committee:
        for k, atoms in enumerate(frames):
            labels = potential.labels[atoms.positions.tobytes()]
            labels["forces"] = atoms.calc.results["forces"].copy()
            labels["forces"][:, 1] += 0.001 * (4 * k + np.arange(4))
            if k == STRAY[0]:
                labels["forces"][STRAY[1], 2] += 3.0
    by_error = find_force_outliers(committee, frames, "force_error", batch_size=3)
    assert np.flatnonzero(by_error.mask).tolist() == [4 * STRAY[0] + STRAY[1]]
    assert not find_force_outliers(committee, frames, "force", batch_size=3).mask.any()


def test_atoms_around_the_core_of_a_piece_are_not_judged(make, frames):
    frames[STRAY[0]].arrays[CORE] = np.arange(4) != STRAY[1]
    found = find_force_outliers([], frames, "force", batch_size=5)
    assert (found.mask.any(), found.n_unknown) == (False, 1)


def test_the_filter_needs_an_active_set():
    with pytest.raises(ValueError, match="force_outliers: needs the active set"):
        CalibrateSettings(feature_kind=None, force_outliers="force")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mode": "configuration", "force_outliers": "force"}, "set mode to 'neighbourhood'"),
        ({"mode": "configuration", "clusters": ClusterSettings()}, r"clusters\.level: .* set it to 'frame'"),
        ({"scale_grades": True, "active_set_start": "strict"}, "set active_set_start to 'eps'"),
        ({"feature_kind": None, "mode": "configuration"}, "mode: needs the active set"),
    ],
)
def test_settings_that_do_not_go_together_are_named(values, message):
    with pytest.raises(ValueError, match=message):
        CalibrateSettings(**values)


@pytest.mark.parametrize("clusters", [None, ClusterSettings(n_clusters=2, rows_per_rank=0.0)])
def test_grades_in_units_of_left_out_frames(make, clusters, tmp_path):
    frames, new = make.crystals(12), make.crystals(3, seed=7)
    committee = [make.OffTarget(frames + new, force=d) for d in (0.1, -0.1)]
    plain = fit(make, frames, committee, clusters=clusters)
    scaled = fit(make, frames, committee, clusters=clusters, scale_grades=True)
    report = scaled.active_set_report["scaling"]
    assert (report["n_folds"], report["n_groups"]) == (10, 12)
    assert len(report["units"]) == (1 if clusters is None else 2)
    members = [model.active_set.members if clusters else (model.active_set,) for model in (plain, scaled)]
    features = committee[0].features(new)
    expected = np.min(
        [member.grade(features) / units["Cu"] for member, units in zip(members[0], report["units"], strict=True)],
        axis=0,
    )
    scaled.save(tmp_path / "u.h5")
    np.testing.assert_allclose(UncertaintyModel.load(tmp_path / "u.h5").grade(features), expected)
    np.testing.assert_allclose(
        Monitor(committee, scaled).assess(new).grade, np.maximum.reduceat(expected, [0, 4, 8]), rtol=1e-12
    )
    predicted = Predictor(committee, scaled, PredictSettings()).predict(new)
    np.testing.assert_allclose(np.concatenate([atoms.arrays["atom_grade"] for atoms in predicted]), expected)


@pytest.mark.parametrize("values", [{}, {"mode": "configuration"}, {"scale_grades": True, "force_outliers": "force"}])
def test_features_beyond_the_memory_give_the_same_active_set(make, frames, monkeypatch, values):
    expected = fit(make, frames, batch_size=3, **values)
    monkeypatch.setattr(spool, "IN_MEMORY", 0)
    found = fit(make, frames, batch_size=3, **values)
    for number, block in expected.active_set.blocks.items():
        np.testing.assert_array_equal(found.active_set.blocks[number].rows, block.rows)
    assert found.active_set.units == pytest.approx(expected.active_set.units)
