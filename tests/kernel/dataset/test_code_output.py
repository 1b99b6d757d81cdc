"""Labels from files of VASP (their origin: tests/engines/vasp/README.md) and pw.x (pw.out is of our own pw.x 6.7)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase.io import read

from aiida_alpot.kernel.dataset import read_frames
from aiida_alpot.kernel.dataset.code_output import read_vasp_moments
from aiida_alpot.kernel.dataset.vasp_run import read_outcar, read_vasprun

OUTPUTS = Path(__file__).parent / "outputs"
RECORDS = Path(__file__).parents[2] / "engines" / "vasp" / "records"


def test_the_energy_is_the_one_that_forces_derive_from() -> None:
    frames = read_frames(OUTPUTS / "relaxation.xml", "vasp-xml")
    assert len(frames) == 19
    assert frames[0].get_potential_energy() == pytest.approx(-42.91231666, abs=1e-8)
    extrapolated = read(OUTPUTS / "relaxation.xml", index=0, format="vasp-xml").get_potential_energy()
    assert extrapolated == pytest.approx(-42.91113348, abs=1e-6)


def test_vasprun_and_outcar_of_one_run_give_the_same_labels() -> None:
    for record in ("silicon_steps", "pbe_steps"):
        folder = RECORDS / record / "out"
        (xml, *_), (outcar, *_) = read_frames(folder / "vasprun.xml"), read_frames(folder / "OUTCAR")
        assert outcar.get_potential_energy() == pytest.approx(xml.get_potential_energy(), abs=1e-7)
        np.testing.assert_allclose(outcar.get_forces(), xml.get_forces(), atol=1e-5)
    np.testing.assert_allclose(outcar.get_stress(), xml.get_stress(), atol=1e-5)


@pytest.mark.parametrize("name", ["vasprun.xml", "OUTCAR"])
def test_a_stress_of_which_only_the_trace_is_right_is_no_label(name: str) -> None:
    path = RECORDS / "silicon_steps" / "out" / name
    assert "only pressure is correct" in path.with_name("OUTCAR").read_text()
    kind = {"vasprun.xml": "vasp-xml", "OUTCAR": "vasp-out"}[name]
    assert "stress" in read(path, index=0, format=kind).calc.results
    assert read_frames(path)[0].calc.results.keys() == {"energy", "forces"}


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


def test_moments_of_every_ionic_step_are_those_that_ase_reads() -> None:
    path = RECORDS / "spin_steps" / "out" / "OUTCAR"
    moments = read_vasp_moments(path, 1)
    steps = read(path, index=":", format="vasp-out")
    assert list(moments) == [1, 2, 3, 4, 5]
    for found, step in zip(moments.values(), steps, strict=True):
        assert found["magmom"] == step.calc.results["magmom"]
        np.testing.assert_array_equal(found["magmoms"], step.calc.results["magmoms"])
    assert steps[0].calc.results["magmoms"] != steps[4].calc.results["magmoms"]


def test_an_outcar_that_is_read_as_a_file_keeps_the_moments_of_its_atoms() -> None:
    path = RECORDS / "spin_steps" / "out" / "OUTCAR"
    for frame, step in zip(read_frames(path), read(path, index=":", format="vasp-out"), strict=True):
        if frame.calc is not None:
            np.testing.assert_array_equal(frame.get_magnetic_moments(), step.get_magnetic_moments())
    assert [frame.calc is not None for frame in read_frames(path)] == [False, True, True, False, True]


@pytest.mark.parametrize("record", ["silicon_static", "ammonia", "spin_steps"])
def test_every_record_is_neutral_by_its_own_count(record: str) -> None:
    folder = RECORDS / record / "out"
    for run in (read_vasprun(folder / "vasprun.xml"), read_outcar(folder / "OUTCAR")):
        assert (run.charge, run.n_electrons) == (0.0, run.n_valence)
    assert all("charge" not in frame.info for frame in read_frames(folder / "vasprun.xml"))


@pytest.mark.parametrize(
    ("name", "line"), [("vasprun.xml", '"NELECT">      {}0000</i>'), ("OUTCAR", "NELECT =       {}    total")]
)
def test_a_charge_is_the_valence_of_the_atoms_less_the_electrons(tmp_path: Path, name: str, line: str) -> None:
    """In the copy half an electron is taken away."""
    text = (RECORDS / "ammonia" / "out" / name).read_text()
    assert line.format("8.0000") in text
    (tmp_path / name).write_text(text.replace(line.format("8.0000"), line.format("7.5000")))
    assert read_frames(tmp_path / name)[0].info["charge"] == 0.5


def test_every_atom_has_its_moment_and_the_cell_has_more_than_their_sum() -> None:
    """The numbers are those that ASE reads from the whole file."""
    found = read_vasp_moments(OUTPUTS / "OUTCAR-cobalt", 4)[1]
    np.testing.assert_array_equal(found["magmoms"], [1.621, 1.619, 1.64, 1.64])
    assert found["magmom"] == 6.4424922


def test_moments_that_are_vectors_or_not_printed_are_none(tmp_path: Path) -> None:
    text = (OUTPUTS / "OUTCAR-cobalt").read_text()
    vectors = text.replace("magnetization       6.4424922", "magnetization       0.1  0.2   6.4424922")
    tables = "\n".join(line for line in text.splitlines() if "magnetization (x)" not in line)
    for name, content in (("vectors", vectors), ("no_tables", tables)):
        (tmp_path / name).write_text(content)
    assert read_vasp_moments(tmp_path / "vectors", 4)[1] == {}
    assert read_vasp_moments(tmp_path / "no_tables", 4)[1] == {"magmom": 6.4424922}
    assert read_vasp_moments(RECORDS / "nelm_150" / "out" / "OUTCAR", 1) == {1: {}}


def test_a_table_of_moments_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    text = (OUTPUTS / "OUTCAR-cobalt").read_text()
    (tmp_path / "OUTCAR").write_text(text[: text.index("    3       -0.014  -0.053")])
    with pytest.raises(ValueError, match="table of magnetic moments in OUTCAR is not of the atoms"):
        read_vasp_moments(tmp_path / "OUTCAR", 4)
