"""The uncertainty model of a committee: thresholds, flags, the file, and whose committee it is."""

from __future__ import annotations

import json
import time

import h5py
import numpy as np
import pytest
from ase import Atoms

from aiida_alpot.kernel.features import FeatureSpec
from aiida_alpot.kernel.potentials.base import Features
from aiida_alpot.kernel.uncertainty.active_set import ActiveSet
from aiida_alpot.kernel.uncertainty.calibration import Calibration
from aiida_alpot.kernel.uncertainty.committee import Disagreement
from aiida_alpot.kernel.uncertainty.local import LocalActiveSet
from aiida_alpot.kernel.uncertainty.model import UncertaintyModel

HASHES = ("a" * 64, "b" * 64)


def make_features(n=60, seed=0):
    rng = np.random.default_rng(seed)
    return Features(rng.normal(size=(n, 4)), rng.choice([29, 79], n), np.repeat(np.arange(n // 2), 2))


def make_model(active_set=ActiveSet, **options):
    rng = np.random.default_rng(0)
    D = rng.lognormal(size=300)
    pairs = (D, 2.0 * D)
    return UncertaintyModel(
        **{
            "calibrations": {
                "force": Calibration.fit(*pairs),
                "stress": Calibration.fit(*pairs, "isotonic"),
                "energy": Calibration.fit(*pairs),
            },
            "tolerances": {"force": 0.1, "stress": 0.002, "force_max": 0.3},
            "active_set": active_set.build(make_features()) if active_set else None,
            "gamma_save": 2.0,
            "gamma_break": 10.0,
            "model_hashes": HASHES,
            "points": {"force": pairs},
        }
        | options
    )


def make_disagreement():
    nan = np.nan
    return Disagreement(
        energy=np.array([1.0, 1.0, 1.0]),
        force=np.array([0.04, 0.05, 0.06]),
        force_max=np.array([9.0, 9.0, 9.0]),
        stress=np.array([nan, 0.0005, 0.002]),
        force_atom=np.zeros(3),
        offsets=np.array([0, 1, 2, 3]),
    )


def test_thresholds_exist_where_calibration_and_tolerance_do():
    thresholds = make_model().thresholds
    assert set(thresholds) == {"force", "stress"}
    assert thresholds["force"] == pytest.approx(0.05)
    assert all(np.isfinite(value) for value in thresholds.values())


def test_categories_of_the_points_survive_the_file(tmp_path):
    points = {"force": (np.ones(3), np.arange(3.0))}
    model = make_model(None, points=points, category_column="kind", point_categories=np.array(["α", "", "liquid"]))
    model.save(tmp_path / "u.h5")
    assert UncertaintyModel.load(tmp_path / "u.h5").point_categories.tolist() == ["α", "", "liquid"]
    with pytest.raises(ValueError, match=r"one for each of the 3 points of force, got the shape \(2,\)"):
        make_model(None, points=points, point_categories=np.array(["a", "b"]))


def test_thresholds_are_of_properties_with_calibration_and_tolerance():
    assert set(make_model(tolerances={"force": 0.11, "stress": 0.002}).thresholds) == {"force", "stress"}


def test_predicted_errors_are_per_calibrated_property():
    errors = make_model().predict_error(make_disagreement())
    assert set(errors) == {"energy", "force", "stress"}
    np.testing.assert_allclose(errors["force"], [0.08, 0.1, 0.12])
    assert np.isnan(errors["stress"]).tolist() == [True, False, False]


def test_frame_grade_is_the_largest_of_the_atoms():
    model, new = make_model(), make_features(20, seed=1)
    np.testing.assert_array_equal(model.frame_grade(new, 10), model.grade(new).reshape(10, 2).max(axis=1))
    with pytest.raises(ValueError, match="no active set"):
        make_model(None).grade(new)


def make_model_with_categories():
    calibration = Calibration("conformal", scale=2.0, categories={"liquid": 8.0}, calibrated=True)
    return make_model(None, calibrations={"force": calibration}, tolerances={"force": 0.1}, category_column="kind")


def test_each_frame_has_error_and_threshold_of_its_category():
    model, D = make_model_with_categories(), make_disagreement()
    frames = [Atoms(info={"kind": "liquid"}), Atoms(info={"kind": "gas"}), Atoms()]
    categories = model.frame_categories(frames)
    np.testing.assert_allclose(model.predict_error(D, categories)["force"], [0.32, 0.1, 0.12])
    np.testing.assert_allclose(model.predict_error(D)["force"], [0.08, 0.1, 0.12])
    np.testing.assert_allclose(model.frame_thresholds(categories)["force"], [0.0125, 0.05, 0.05])
    assert make_model().frame_categories(frames) is None


def test_categories_survive_the_file(tmp_path):
    model = make_model_with_categories()
    model.save(tmp_path / "a.h5")
    loaded = UncertaintyModel.load(tmp_path / "a.h5")
    assert loaded.calibrations == model.calibrations
    assert loaded.category_column == "kind"


def test_a_file_from_before_categories_is_read(tmp_path):
    model = make_model()
    model.save(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        header = json.loads(file["header"][()].tobytes())
        del header["category_column"], header["feature_parameters"]
        for values in header["calibrations"].values():
            del values["categories"], values["largest_disagreement"]
        del file["header"]
        file["header"] = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
    loaded = UncertaintyModel.load(tmp_path / "a.h5")
    assert loaded.thresholds == model.thresholds
    assert loaded.frame_categories([]) is None
    assert loaded.feature_spec == FeatureSpec("last_layer")


@pytest.mark.parametrize("kind", [ActiveSet, LocalActiveSet, None])
def test_a_model_survives_its_file_and_the_bytes_repeat(tmp_path, kind):
    model = make_model(kind)
    model.save(tmp_path / "a.h5")
    time.sleep(1.1)
    loaded = UncertaintyModel.load(tmp_path / "a.h5")
    loaded.save(tmp_path / "b.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    for name in ("calibrations", "tolerances", "feature_kind", "gamma_save", "gamma_break", "model_hashes"):
        assert getattr(loaded, name) == getattr(model, name)
    assert loaded.thresholds == model.thresholds
    np.testing.assert_array_equal(loaded.points["force"], model.points["force"])
    if kind:
        np.testing.assert_array_equal(loaded.grade(make_features(20, 1)), model.grade(make_features(20, 1)))


def test_bytes_do_not_depend_on_the_order_of_the_properties(tmp_path):
    model = make_model()
    turned = make_model(
        calibrations=dict(reversed(model.calibrations.items())), tolerances=dict(reversed(model.tolerances.items()))
    )
    model.save(tmp_path / "a.h5")
    turned.save(tmp_path / "b.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_parameters_of_the_features_survive_the_file(tmp_path):
    parameters = {"species": ["Cu", "Au"], "r_cut": 4.0, "nested": {"a": [1, 2.5, None]}}
    make_model(feature_kind="module:function", feature_parameters=parameters).save(tmp_path / "a.h5")
    assert UncertaintyModel.load(tmp_path / "a.h5").feature_spec == FeatureSpec("module:function", parameters)


def test_an_empty_model_survives_its_file(tmp_path):
    UncertaintyModel().save(tmp_path / "a.h5")
    loaded = UncertaintyModel.load(tmp_path / "a.h5")
    assert loaded.thresholds == {}


def test_an_unknown_schema_or_kind_is_refused(tmp_path):
    path = tmp_path / "a.h5"
    make_model().save(path)
    with pytest.raises(ValueError, match="expected a file of kind 'active_set'"):
        ActiveSet.load(path)
    with h5py.File(path, "r+") as file:
        file.attrs["schema_version"] = 99
    with pytest.raises(ValueError, match="unknown schema version 99"):
        UncertaintyModel.load(path)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.h5"
    make_model().save(path)
    before = path.read_bytes()
    broken = make_model(points={"force": (np.array(["x"]), np.array(["y"]))})
    with pytest.raises(ValueError, match="could not convert"):
        broken.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]


def test_models_of_another_committee_are_refused():
    model = make_model()
    model.require_models(HASHES)
    with pytest.raises(ValueError, match="missing bbbbbbbbbbbb, not expected cccccccccccc"):
        model.require_models((HASHES[0], "c" * 64))
    with pytest.raises(ValueError, match="missing bbbbbbbbbbbb, not expected nothing"):
        model.require_models(HASHES[:1])
    with pytest.raises(
        ValueError, match="the members are in another order: expected aaaaaaaaaaaa, bbbbbbbbbbbb, got bbbbbbbbbbbb"
    ):
        model.require_models(HASHES[::-1])
    make_model(None).require_models(HASHES[::-1])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"tolerances": {"forces": 0.1}}, "unknown property 'forces'"),
        ({"tolerances": {"force": -1.0}}, "tolerances: force must be positive"),
        ({"gamma_save": 5.0, "gamma_break": 2.0}, "gamma_break = 2.0 is below"),
        ({"gamma_save": np.nan}, "gamma_save must be positive"),
        ({"points": {"force": (np.ones(2), np.ones(3))}}, "two 1-d arrays"),
    ],
)
def test_wrong_values_are_refused(options, match):
    with pytest.raises(ValueError, match=match):
        make_model(**options)
