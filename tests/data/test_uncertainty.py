"""UncertaintyData: error bars that belong to one committee."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida import orm
from aiida.common.exceptions import ValidationError

from aiida_alpot.data.potential import PotentialData
from aiida_alpot.data.uncertainty import UncertaintyData, validate_committee
from aiida_alpot.kernel.uncertainty import Calibration, UncertaintyModel

pytestmark = pytest.mark.usefixtures("aiida_profile")


@pytest.fixture
def model_file(tmp_path: Path, tiny_committee: dict[str, PotentialData]) -> Path:
    """Error bars of the tiny committee: errors twice the disagreement."""
    d = np.linspace(0.01, 0.1, 20)
    model = UncertaintyModel(
        calibrations={"force": Calibration.fit(d, 2 * d, "median_ratio", tolerance=0.1)},
        tolerances={"force": 0.1},
        active_set=None,
        feature_kind="",
        gamma_save=None,
        gamma_break=None,
        model_hashes=tuple(tiny_committee[name].sha256 for name in sorted(tiny_committee)),
        points={},
    )
    model.save(tmp_path / "bars.h5")
    return tmp_path / "bars.h5"


def test_attributes_are_those_of_the_model(model_file: Path, tiny_committee: dict[str, Any]) -> None:
    node = orm.load_node(UncertaintyData.from_hdf5(model_file).store().uuid)
    assert node.model_hashes == [tiny_committee[name].sha256 for name in sorted(tiny_committee)]
    assert node.tolerances == {"force": 0.1}
    assert node.thresholds["force"] == pytest.approx(0.05)


def test_the_model_comes_back(model_file: Path) -> None:
    model = UncertaintyData.from_hdf5(model_file).store().model()
    assert model.tolerances == {"force": 0.1}
    np.testing.assert_allclose(model.calibrations["force"].predict_error(np.array([0.03])), [0.06])


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "noise.h5").write_bytes(b"noise")
    with pytest.raises(ValueError, match=r"noise\.h5"):
        UncertaintyData.from_hdf5(tmp_path / "noise.h5")


def test_a_dataset_is_no_uncertainty(tmp_path: Path, copper: Any) -> None:
    copper.export(tmp_path / "frames.h5")
    with pytest.raises(ValueError, match=r"frames\.h5"):
        UncertaintyData.from_hdf5(tmp_path / "frames.h5")


def test_a_node_without_file_cannot_be_stored() -> None:
    with pytest.raises(ValidationError, match=r"needs its file uncertainty\.h5; make it with from_hdf5"):
        UncertaintyData().store()


def test_its_own_committee_is_accepted_whatever_the_order_of_the_mapping(
    model_file: Path, tiny_committee: dict[str, PotentialData]
) -> None:
    node = UncertaintyData.from_hdf5(model_file)
    assert validate_committee(node, tiny_committee) is None
    assert validate_committee(node, dict(reversed(tiny_committee.items()))) is None


def test_another_committee_is_refused(model_file: Path, tiny_committee: dict[str, PotentialData]) -> None:
    node = UncertaintyData.from_hdf5(model_file)
    smaller = {name: tiny_committee[name] for name in list(tiny_committee)[:2]}
    swapped = dict(zip(tiny_committee, reversed(tiny_committee.values()), strict=True))
    for committee in (smaller, swapped):
        message = validate_committee(node, committee)
        assert message is not None
        assert message.startswith("uncertainty: it was calibrated with other potentials")


def test_hashes_are_queryable(model_file: Path, tiny_committee: dict[str, PotentialData]) -> None:
    node = UncertaintyData.from_hdf5(model_file).store()
    found = orm.QueryBuilder().append(
        UncertaintyData,
        filters={UncertaintyData.fields.uuid: node.uuid},
        project=UncertaintyData.fields.model_hashes,
    )
    assert found.all(flat=True) == [[tiny_committee[name].sha256 for name in sorted(tiny_committee)]]


def test_a_node_serialises_with_its_thresholds(model_file: Path) -> None:
    attributes = UncertaintyData.from_hdf5(model_file).store().serialize()["attributes"]
    assert attributes["thresholds"]["force"] == pytest.approx(0.05)
