"""The engine ase driving the calculators of pw.x, CP2K and VASP: many small DFT runs share one scheduler job."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida import orm
from aiida.engine import run_get_node
from ase import Atoms
from ase.build import bulk
from ase.io import read

from aiida_alpot.data.pes import PESData
from aiida_alpot.workflows.label import LabellingWorkChain

PSEUDOS = "/usr/share/espresso/pseudo"
RECORDS = Path(__file__).parent / "vasp" / "records"


def espresso(command: str, **system: Any) -> dict[str, Any]:
    """Return parameters of the engine for pw.x, as the how-to gives them."""
    return {
        "calculator": "ase.calculators.espresso:Espresso",
        "parameters": {
            "profile": {
                "calculator": "ase.calculators.espresso:EspressoProfile",
                "parameters": {"command": command, "pseudo_dir": PSEUDOS},
            },
            "pseudopotentials": {"Al": "Al.pz-vbc.UPF", "Si": "Si.pz-vbc.UPF", "O": "O.pz-rrkjus.UPF"},
            "kspacing": 0.1,
            "input_data": {
                "control": {"tprnfor": True, "tstress": True},
                "electrons": {"conv_thr": 1e-9},
                "system": {"ecutwfc": 15, "occupations": "smearing", "smearing": "cold", "degauss": 0.02, **system},
            },
        },
        "vacuum": 6.0,
        "charge_parameter": "input_data.system.tot_charge",
    }


@pytest.fixture
def label(python_code: Any) -> Callable[..., Any]:
    """Return a function that labels frames in one job and returns the node of the stage."""

    def run(frames: list[Atoms], parameters: dict[str, Any], n_workers: int = 1) -> Any:
        resources = {"num_machines": 1, "num_mpiprocs_per_machine": n_workers}
        _, node = run_get_node(
            LabellingWorkChain,
            code=python_code,
            engine=orm.Str("ase"),
            frames=PESData.from_frames(frames),
            parameters=orm.Dict(parameters),
            options=orm.Dict({"resources": resources, "max_wallclock_seconds": 600}),
            max_failed_fraction=orm.Float(0.9),
        )
        return node

    return run


def rattled(atoms: Atoms, seed: int) -> Atoms:
    moved = atoms.copy()
    moved.rattle(0.05, seed=seed)
    return moved


def test_labels_of_pw_x_in_one_job_take_a_tenth_of_a_process_each(label: Any, program: Any) -> None:
    frames = [rattled(bulk("Al", a=3.95 + 0.005 * k), k) for k in range(44)]
    node = label(frames, espresso(program("pw.x")), n_workers=2)
    assert node.is_finished_ok, node.exit_message
    labelled = list(node.outputs.labelled)
    assert {frame.info["status"] for frame in labelled} == {"labelled"}
    assert all("stress" in frame.calc.results for frame in labelled)
    n_processes = 1 + len(node.called_descendants)
    assert n_processes / len(frames) <= 0.1


def test_labels_in_one_job_are_those_of_a_job_a_frame(
    label: Any, program: Any, pw_code: Any, pseudo_family: str, serial_options: Any
) -> None:
    """Same input, same program: also the energy that the forces derive from, and the sign of the stress."""
    frames = [rattled(bulk("Al", cubic=True), seed) for seed in (1, 2)]
    parameters = espresso(program("pw.x"), ecutwfc=16, ecutrho=64)
    parameters["parameters"]["kpts"] = [3, 3, 3]
    del parameters["parameters"]["kspacing"]
    ours = list(label(frames, parameters).outputs.labelled)
    given = {
        "protocol": "stringent",
        "pseudo_family": pseudo_family,
        "cutoffs": {"wavefunction": 16, "density": 64},
        "kpoints_distance": 0.6,
        "parameters": {"SYSTEM": {"degauss": 0.02, "smearing": "cold"}},
    }
    _, node = run_get_node(
        LabellingWorkChain,
        code=pw_code,
        engine=orm.Str("quantumespresso"),
        frames=PESData.from_frames(frames),
        parameters=orm.Dict(given),
        options=orm.Dict(serial_options),
    )
    theirs = list(node.outputs.labelled)
    for frame, other in zip(ours, theirs, strict=True):
        assert orm.load_node(other.info["parent"]).inputs.kpoints.get_kpoints_mesh()[0] == [3, 3, 3]
        assert frame.get_potential_energy() == pytest.approx(other.get_potential_energy(), abs=1e-4)
        np.testing.assert_allclose(frame.get_forces(), other.get_forces(), atol=1e-3)
        np.testing.assert_allclose(frame.get_stress(), other.get_stress(), atol=1e-5)


def test_pw_x_frames_of_all_kinds_share_a_job(label: Any, program: Any) -> None:
    """Bulk, a slab, a charged and a spin-polarised molecule: none is labelled as another kind or as the one before."""
    slab = Atoms("Al2", positions=[[0, 0, 0], [1.4, 1.4, 2.0]], cell=[2.8, 2.8, 0], pbc=[True, True, False])
    triplet = Atoms("O2", positions=[[0, 0, 0], [0, 0, 1.25]])
    triplet.set_initial_magnetic_moments([1.0, 1.0])
    charged = Atoms("Al", info={"charge": 1.0})
    neutral = Atoms("Al")
    parameters = espresso(program("pw.x"), ecutwfc=20, ecutrho=160)
    node = label([bulk("Al", cubic=True), triplet, slab, charged, neutral], parameters)
    assert node.is_finished_ok, node.outputs.report.get_dict()
    solid, molecule, surface, ion, atom = node.outputs.labelled
    assert [frame.info["status"] for frame in (solid, molecule, surface, ion, atom)] == ["labelled"] * 5
    assert [("stress" in frame.calc.results) for frame in (solid, molecule, surface)] == [True, False, False]
    np.testing.assert_allclose(molecule.positions, triplet.positions)
    assert molecule.get_magnetic_moments().sum() > 0.5
    assert "magmoms" not in solid.calc.results or not np.any(solid.get_magnetic_moments())
    assert ion.get_potential_energy() > atom.get_potential_energy() + 1


def test_an_scf_of_pw_x_that_ran_out_of_steps_is_no_label(label: Any, program: Any) -> None:
    parameters = espresso(program("pw.x"))
    parameters["parameters"]["input_data"]["electrons"]["electron_maxstep"] = 2
    node = label([bulk("Al")], parameters)
    assert node.exit_status == 402
    assert "did not converge" in node.exit_message or "CalledProcessError" in node.exit_message


def cp2k(program: str, **parameters: Any) -> dict[str, Any]:
    """Return parameters of the engine for CP2K, as the how-to gives them."""
    given = {"command": f"{program} --shell", "xc": "PADE", "basis_set": "SZV-MOLOPT-SR-GTH", "cutoff": 4000}
    return {
        "calculator": "ase.calculators.cp2k:CP2K",
        "parameters": {**given, "potential_file": "GTH_POTENTIALS", **parameters},
        "charge_parameter": "charge",
        "vacuum": 6.0,
        "cubic": True,
    }


def test_forces_of_cp2k_are_the_derivatives_of_its_energy(label: Any, program: Any) -> None:
    step = 0.02
    frames = [Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.8 + d]]) for d in (0, step, -step)]
    node = label(frames, cp2k(program("cp2k.psmp")))
    assert node.is_finished_ok, node.exit_message
    still, longer, shorter = node.outputs.labelled
    force = -(longer.get_potential_energy() - shorter.get_potential_energy()) / (2 * step)
    assert still.get_forces()[1, 2] == pytest.approx(force, abs=0.03)
    assert "stress" not in still.calc.results


def test_what_cp2k_refuses_or_does_not_converge_is_no_label_and_the_next_frame_is_labelled(
    label: Any, program: Any
) -> None:
    odd, even = Atoms("H"), Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.75]])
    doublet = Atoms("H", positions=[[0, 0, 0.1]], magmoms=[1.0])
    node = label([odd, even, doublet], cp2k(program("cp2k.psmp")))
    assert [frame.info["status"] for frame in node.outputs.labelled] == ["failed", "labelled", "labelled"]
    node = label([even], cp2k(program("cp2k.psmp"), max_scf=2))
    assert node.exit_status == 402


def test_vasp_in_one_job_gives_the_energy_that_forces_derive_from(
    label: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind the strict mock, which checks INCAR, KPOINTS and POSCAR; the second frame matches no record."""
    pytest.importorskip("aiida_vasp")
    monkeypatch.setenv("MOCK_VASP_REG_BASE", str(RECORDS))
    potentials = tmp_path / "Si"
    potentials.mkdir()
    shutil.copy(RECORDS.parent / "potcar" / "Si" / "POTCAR", potentials)
    monkeypatch.setenv("VASP_PP_PATH", str(tmp_path))
    record = RECORDS / "silicon_static"
    incar = dict(line.split(" = ") for line in (record / "inp" / "INCAR").read_text().splitlines() if " = " in line)
    program = shutil.which("mock-vasp") or str(Path(sys.executable).with_name("mock-vasp"))
    parameters = {
        "calculator": "ase.calculators.vasp:Vasp",
        "parameters": {"command": program, "pp": "", "kpts": [7, 7, 7], "gamma": True, "custom": incar},
    }
    other = bulk("Si", a=5.3)
    node = label([read(record / "inp" / "POSCAR", format="vasp"), other], parameters)
    silicon, unmatched = node.outputs.labelled
    expected = read(record / "out" / "vasprun.xml", format="vasp-xml")
    assert silicon.info["status"] == "labelled", silicon.info["reason"]
    assert silicon.get_potential_energy() == expected.get_potential_energy(force_consistent=True)
    np.testing.assert_allclose(silicon.get_stress(), expected.get_stress(), rtol=1e-9)
    assert unmatched.info["status"] == "failed"
