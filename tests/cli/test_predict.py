"""Which potentials ``aiida-alpot predict`` takes for error bars."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiida import orm
from aiida.common.links import LinkType

from aiida_alpot.cli.predict import find_committee
from aiida_alpot.data.potential import PotentialData
from aiida_alpot.data.uncertainty import UncertaintyData
from aiida_alpot.kernel.uncertainty import UncertaintyModel

pytestmark = pytest.mark.usefixtures("aiida_profile")


@pytest.fixture
def copies(tmp_path: Path) -> list[PotentialData]:
    """Three potentials of one file, the oldest first."""
    path = tmp_path / "potential.model"
    path.write_text("one of three")
    return [PotentialData.from_file(path, engine="mace", symbols=["Cu"], cutoff=4.0, seed=1).store() for _ in range(3)]


@pytest.fixture
def bars(tmp_path: Path, copies: list[PotentialData]) -> UncertaintyData:
    """Unstored error bars of that file."""
    UncertaintyModel(tolerances={"force": 0.1}, model_hashes=(copies[0].sha256,)).save(tmp_path / "bars.h5")
    return UncertaintyData.from_hdf5(tmp_path / "bars.h5")


@pytest.mark.parametrize("used", [0, 1])
def test_the_potential_is_the_one_of_the_calibration(
    copies: list[PotentialData], bars: UncertaintyData, used: int
) -> None:
    calibration = orm.CalcFunctionNode()
    calibration.base.links.add_incoming(copies[used], LinkType.INPUT_CALC, "potentials__m000")
    calibration.store()
    bars.base.links.add_incoming(calibration, LinkType.CREATE, "uncertainty")
    assert find_committee(bars.store())["member_00"].pk == copies[used].pk


def test_without_a_calibration_it_is_the_newest(copies: list[PotentialData], bars: UncertaintyData) -> None:
    assert find_committee(bars.store())["member_00"].pk == copies[2].pk


def test_a_potential_that_is_not_there_is_named(tmp_path: Path) -> None:
    UncertaintyModel(tolerances={"force": 0.1}, model_hashes=("f" * 64,)).save(tmp_path / "bars.h5")
    with pytest.raises(ValueError, match=r"the potential 0 of the committee \(sha256 ffffffffffff…\) is not in this"):
        find_committee(UncertaintyData.from_hdf5(tmp_path / "bars.h5"))
