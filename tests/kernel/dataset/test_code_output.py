"""Labels from files of VASP (their origin: tests/engines/vasp/README.md) and pw.x (pw.out is of our own pw.x 6.7)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase.io import read

from aiida_alpot.kernel.dataset import read_frames

OUTPUTS = Path(__file__).parent / "outputs"
RECORDS = Path(__file__).parents[2] / "engines" / "vasp" / "records"


def test_the_energy_is_the_one_that_forces_derive_from() -> None:
    frames = read_frames(OUTPUTS / "relaxation.xml", "vasp-xml")
    assert len(frames) == 19
    assert frames[0].get_potential_energy() == pytest.approx(-42.91231666, abs=1e-8)
    extrapolated = read(OUTPUTS / "relaxation.xml", index=0, format="vasp-xml").get_potential_energy()
    assert extrapolated == pytest.approx(-42.91113348, abs=1e-6)


def test_vasprun_and_outcar_of_one_run_give_the_same_labels() -> None:
    folder = RECORDS / "silicon_steps" / "out"
    (xml,), (outcar,) = read_frames(folder / "vasprun.xml"), read_frames(folder / "OUTCAR")
    assert outcar.get_potential_energy() == pytest.approx(xml.get_potential_energy(), abs=1e-7)
    np.testing.assert_allclose(outcar.get_forces(), xml.get_forces(), atol=1e-5)
    np.testing.assert_allclose(outcar.get_stress(), xml.get_stress(), atol=1e-5)


@pytest.mark.parametrize(("name", "kind"), [("unconverged.xml", "vasp-xml"), ("OUTCAR-unconverged", "vasp-out")])
def test_an_electronic_loop_that_ran_out_of_steps_is_no_label(name: str, kind: str) -> None:
    (frame,) = read_frames(OUTPUTS / name, kind)
    assert frame.calc is None
    assert (frame.info["status"], frame.info["reason"]) == ("failed", "the electronic loop did not converge")


def test_pw_x_gives_the_total_energy_with_smearing() -> None:
    (frame,) = read_frames(OUTPUTS / "pw.out")
    assert frame.get_potential_energy() == pytest.approx(-8.24018081 * 13.605693, abs=1e-4)
    assert frame.get_forces().shape == (2, 3)


def test_a_pw_x_run_that_did_not_converge_is_no_label(tmp_path: Path) -> None:
    text = (OUTPUTS / "pw.out").read_text().replace("convergence has been achieved", "convergence NOT achieved")
    (tmp_path / "pw.out").write_text(text)
    (frame,) = read_frames(tmp_path / "pw.out")
    assert (frame.info["status"], frame.calc) == ("failed", None)


@pytest.mark.parametrize("size", [100, 5000, 40000])
def test_a_file_that_is_cut_off_is_refused_by_name(tmp_path: Path, size: int) -> None:
    (tmp_path / "cut.xml").write_bytes((OUTPUTS / "relaxation.xml").read_bytes()[:size])
    with pytest.raises(ValueError, match=r"cut\.xml cannot be read as vasp-xml"):
        read_frames(tmp_path / "cut.xml", "vasp-xml")
