"""Labels from a real pw.x."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida import orm
from aiida.common.links import LinkType
from aiida.engine import ProcessState, run_get_node
from ase import Atoms
from ase.build import bulk, fcc100
from ase.io import read, write
from click.testing import CliRunner

from aiida_alpot.calculations.functions.structure import frame_structure
from aiida_alpot.cli import main
from aiida_alpot.data.pes import PESData
from aiida_alpot.engines.label.quantumespresso import frame_parameters
from aiida_alpot.kernel.labelling.boxes import name_kinds, spin_moments
from aiida_alpot.kernel.labelling.identity import label_ids
from aiida_alpot.plugins import load_engine
from aiida_alpot.workflows.label import LabellingWorkChain

pytest.importorskip("aiida_quantumespresso")


@pytest.fixture
def label(pw_code: Any, pseudo_family: str, serial_options: dict[str, Any]) -> Callable[..., Any]:
    """Return a function that labels frames with pw.x and returns the node of the stage."""

    def run(frames: list[Atoms], code: Any = None, max_failed_fraction: float = 0.9, **parameters: Any) -> Any:
        given = {"protocol": "fast", "pseudo_family": pseudo_family, "kpoints_distance": 0.6, **parameters}
        _, node = run_get_node(
            LabellingWorkChain,
            code=code or pw_code,
            engine=orm.Str("quantumespresso"),
            frames=PESData.from_frames(frames),
            parameters=orm.Dict(given),
            options=orm.Dict(serial_options),
            max_failed_fraction=orm.Float(max_failed_fraction),
        )
        return node

    return run


def rattled(atoms: Atoms, seed: int = 0) -> Atoms:
    moved = atoms.copy()
    moved.rattle(0.05, seed=seed)
    return moved


def test_frames_are_labelled_and_what_is_nonsense_is_set_aside(label: Any) -> None:
    overlapping = Atoms("Si2", positions=[[0, 0, 0], [0.001, 0, 0]], cell=[5, 5, 5], pbc=True)
    frames = [rattled(bulk("Si")), overlapping, rattled(bulk("Al"))]
    node = label(frames)
    assert node.is_finished_ok, node.exit_message
    silicon, nonsense, aluminium = node.outputs.labelled
    assert [frame.info["status"] for frame in (silicon, nonsense, aluminium)] == ["labelled", "quarantined", "labelled"]
    assert "overlap" in nonsense.info["reason"]
    assert len({frame.info["fingerprint"] for frame in (silicon, aluminium)}) == 1
    assert silicon.info["cost"] > 0
    assert orm.load_node(silicon.info["parent"]).process_label == "PwCalculation"
    np.testing.assert_allclose(silicon.get_forces().sum(axis=0), 0, atol=1e-3)


def test_the_command_labels_a_file(
    aiida_profile: Any, pw_code: Any, pseudo_family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write("silicon.xyz", rattled(bulk("Si")), format="extxyz")
    Path("pw.yaml").write_text(f"protocol: fast\npseudo_family: {pseudo_family}\nkpoints_distance: 0.6\n")
    inputs = ["silicon.xyz", "--engine", "quantumespresso", "--parameters", "pw.yaml", "--code", str(pw_code.pk)]
    result = CliRunner().invoke(main, ["-p", aiida_profile.name, "label", *inputs, "--option", "withmpi=false"])
    assert result.exit_code == 0, result.output
    assert "1/1 jobs" in result.output
    assert "1 frames: 1 labelled" in result.output
    assert read("silicon-labelled.xyz", format="extxyz").arrays["REF_forces"].shape == (2, 3)


def triplet_oxygen() -> Atoms:
    """Return an oxygen molecule in its triplet state, in a small periodic cell."""
    atoms = Atoms("O2", positions=[[0, 0, 0], [0.1, 0.2, 1.25]], cell=[3.5, 3.6, 4.0], pbc=True)
    atoms.set_initial_magnetic_moments([1.0, 1.0])
    return atoms


@pytest.mark.parametrize(
    ("atoms", "cutoff", "kpoints_distance"),
    [
        pytest.param(rattled(bulk("Si")), 30.0, 0.6, id="Si2"),
        pytest.param(rattled(bulk("C")), 70.0, 0.9, id="C2"),
        pytest.param(bulk("Al", a=3.9), 30.0, 0.6, id="Al1"),
        pytest.param(triplet_oxygen(), 60.0, 2.0, id="O2-triplet"),
    ],
)
def test_forces_and_stress_are_the_derivatives_of_the_energy(
    label: Any, derivatives: Any, atoms: Atoms, cutoff: float, kpoints_distance: float
) -> None:
    """Energies of strained cells differ also by their plane waves (Pulay stress), which high cut-offs make small."""
    cutoffs = {"wavefunction": cutoff, "density": 8 * cutoff}
    node = label(derivatives.frames(atoms), cutoffs=cutoffs, kpoints_distance=kpoints_distance)
    frames = list(node.outputs.labelled)
    derivatives.check(frames, 0.02, 2e-3)
    if "initial_magmoms" in atoms.arrays:
        assert frames[0].get_magnetic_moments().sum() > 1


def test_an_isolated_atom_follows_hunds_rule(label: Any) -> None:
    node = label([Atoms("Si")], vacuum=6.0)
    assert node.is_finished_ok, node.exit_message
    (atom,) = node.outputs.labelled
    assert not any(atom.pbc)
    assert atom.calc.results.keys() == {"energy", "forces", "magmoms"}
    parameters = orm.load_node(atom.info["parent"]).inputs.parameters["SYSTEM"]
    assert parameters["tot_magnetization"] == 2.0
    assert parameters["assume_isolated"] == "martyna-tuckerman"


def test_what_pw_x_says_about_its_failure_is_the_reason(label: Any) -> None:
    node = label([fcc100("Al", (1, 1, 2), a=4.0, vacuum=2.0)], vacuum=6.0)
    assert "2D cutoff is smaller than pseudo cutoff radius" in next(iter(node.outputs.labelled)).info["reason"]


def test_the_moment_of_an_isolated_atom_is_kept_whatever_its_sign() -> None:
    atoms = Atoms("Si", magmoms=[-1.0])
    settings = {
        "parameters": {"CONTROL": {}, "SYSTEM": {}, "ELECTRONS": {}},
        "cutoffs": {"wavefunction": 20.0, "density": 80.0},
        **{"electronic_type": "metal", "magnetic_moments": None, "isolated": "martyna-tuckerman"},
        **{"vdw": None, "conv_thr_per_atom": 1e-9, "retries": []},
    }
    assert frame_parameters(atoms, settings, 0)["SYSTEM"]["tot_magnetization"] == 1.0  # -1 leaves it to pw.x
    assert name_kinds(["Si"], spin_moments(atoms))[1] == {"Si": 1.0}


ERROR = """ %%%%%%%%%%%%%%%%%%%%%%%%%%%%%%
     Error in routine electrons (1):
     charge is wrong
 %%%%%%%%%%%%%%%%%%%%%%%%%%%%%%
"""


@pytest.mark.parametrize(
    ("files", "is_lost", "said"),
    [
        pytest.param({"aiida.out": "Program PWSCF v.7.2 starts\n iteration # 1"}, True, "", id="cut-off"),
        pytest.param({"aiida.out": f"Program PWSCF\n{ERROR}"}, False, "charge is wrong", id="error"),
        pytest.param({"aiida.out": "Program PWSCF", "CRASH": ERROR}, False, "charge is wrong", id="crash-file"),
        pytest.param({"aiida.out": "Program PWSCF", "CRASH": "no frame"}, False, "no frame", id="odd-crash-file"),
        pytest.param({"aiida.out": ""}, False, "", id="silent"),
        pytest.param({}, False, "", id="no-file"),
    ],
)
def test_a_job_without_readable_output_is_lost_only_if_pw_x_stopped_in_its_work_without_an_error(
    localhost: orm.Computer, files: dict[str, str], is_lost: bool, said: str
) -> None:
    job = orm.WorkChainNode().store()
    calculation = orm.CalcJobNode(computer=localhost)
    calculation.set_option("output_filename", "aiida.out")
    calculation.set_process_state(ProcessState.FINISHED)
    calculation.set_exit_status(305)
    calculation.base.links.add_incoming(job, LinkType.CALL_CALC, "iteration_01")
    calculation.store()
    folder = orm.FolderData()
    for name, text in files.items():
        folder.base.repository.put_object_from_bytes(text.encode(), name)
    folder.base.links.add_incoming(calculation, LinkType.CREATE, "retrieved")
    folder.store()
    engine = load_engine("label", "quantumespresso")
    assert engine.was_lost(job) is is_lost
    assert said in engine.explain(job)
    assert bool(engine.explain(job)) == bool(said)


def test_a_slab_has_one_k_point_across_and_no_stress(label: Any) -> None:
    slab = fcc100("Al", (1, 1, 2), a=4.0, vacuum=2.0)
    node = label([slab], vacuum=12.0)
    assert node.is_finished_ok, node.exit_message
    (frame,) = node.outputs.labelled
    assert "stress" not in frame.calc.results
    np.testing.assert_array_equal(frame.positions, slab.positions)
    calculation = orm.load_node(frame.info["parent"])
    assert calculation.inputs.kpoints.get_kpoints_mesh()[0][2] == 1
    assert calculation.inputs.parameters["SYSTEM"]["assume_isolated"] == "2D"


def test_a_frame_that_does_not_converge_is_tried_again_another_way_and_keeps_its_reason(label: Any) -> None:
    too_few = {"ELECTRONS": {"electron_maxstep": 2}}
    node = label([rattled(bulk("Si"))], parameters=too_few, retries=[{"mixing_beta": 0.1}], max_restarts=1)
    assert node.exit_status == 402
    (frame,) = node.outputs.labelled
    assert frame.info["status"] == "failed"
    assert "exit status 401" in frame.info["reason"]
    attempts = [call for call in node.called if call.process_label == "PwBaseWorkChain"]
    assert [call.inputs.pw.parameters["ELECTRONS"]["mixing_beta"] for call in attempts] == [0.4, 0.1]


def test_an_executable_that_fails_costs_its_frames_with_a_reason(label: Any, code_of: Any) -> None:
    node = label([rattled(bulk("Si"))], code=code_of("false", "/bin/false", "quantumespresso.pw"))
    assert node.exit_status == 402
    assert "exit status" in next(iter(node.outputs.labelled)).info["reason"]


def test_a_label_of_these_settings_is_not_computed_again_one_of_others_is(label: Any) -> None:
    first = label([rattled(bulk("Si"))])
    known = list(first.outputs.labelled)
    again = label([*known, rattled(bulk("Al"))])
    assert [call.process_label for call in again.called].count("PwBaseWorkChain") == 1
    finer = label(known, cutoffs={"wavefunction": 20.0, "density": 80.0})
    labels = list(finer.outputs.labelled)
    assert len({frame.info["fingerprint"] for frame in labels}) == 2
    assert labels[0].get_potential_energy() == known[0].get_potential_energy()


def test_hubbard_u_goes_with_the_structure_and_a_program_that_passes_over_it_gives_no_label(label: Any) -> None:
    node = label([rattled(bulk("Si"))], hubbard={"Si-3p": 2.0})
    (frame,) = node.outputs.labelled
    (calculation,) = [call for call in node.called_descendants if call.process_label == "PwCalculation"]
    assert type(calculation.inputs.structure).__name__ == "HubbardStructureData"
    assert "U\tSi-3p\t2.0" in calculation.base.repository.get_object_content("aiida.in")
    is_new = calculation.outputs.output_parameters.get_dict().get("lda_plus_u_calculation", False)
    assert frame.info["status"] == ("labelled" if is_new else "failed")
    assert is_new or "without the Hubbard U: it is older than 7.1" in frame.info["reason"]


def test_the_card_of_hubbard_u_is_as_pw_x_7_describes_it() -> None:
    """INPUT_PW of pw.x 7.1 on: ``HUBBARD projectors``, then a line ``U label-manifold value`` for each species in eV.

    No pw.x newer than 6.7 was there to run it: that the card is read is not proved.
    """
    from aiida_quantumespresso.utils.hubbard import HubbardUtils

    atoms = bulk("NiO", "rocksalt", a=4.2).repeat((1, 1, 2))
    atoms.set_initial_magnetic_moments([2.0, 0.0, -2.0, 0.0])
    frames = PESData.from_frames([atoms]).store()
    settings = orm.Dict({"hubbard": {"Ni-3d": 6.3, "Fe-3d": 4.0}})
    with frames.dataset() as reader:
        (identity,) = label_ids(reader)
    structure = frame_structure(frames, orm.Str(str(identity)), settings)
    head, *rows = HubbardUtils(structure).get_hubbard_card().strip().splitlines()
    name, projectors = head.split()
    assert name == "HUBBARD"
    assert projectors in ("atomic", "ortho-atomic")  # of the five, those with forces and stress
    nickel = {kind.name for kind in structure.kinds if kind.symbol == "Ni"}
    assert len(nickel) == 2
    assert {tuple(row.split()) for row in rows} == {("U", f"{label}-3d", "6.3") for label in nickel}
    assert len(rows) == 2


PSEUDOS = "/usr/share/espresso/pseudo"
DIRECT = """&CONTROL
  calculation = 'scf', tprnfor = .true., outdir = './out', pseudo_dir = '{pseudos}'
/
&SYSTEM
  ibrav = 0, nat = 2, ntyp = 1, ecutwfc = 24.0, ecutrho = 160.0, occupations = 'fixed'{hubbard}
/
&ELECTRONS
  conv_thr = 1e-9
/
ATOMIC_SPECIES
C 12.011 C.pz-rrkjus.UPF
CELL_PARAMETERS angstrom
{cell}
ATOMIC_POSITIONS angstrom
{positions}
K_POINTS automatic
2 2 2 0 0 0
"""


def run_pw(atoms: Atoms, folder: Path, hubbard: str = "") -> Atoms:
    """Run pw.x with an input of this file's own, and return ASE's reading of its output."""
    rows = [" ".join(f"{x:.12f}" for x in row) for row in [*atoms.cell.array, *atoms.positions]]
    positions = "\n".join(f"C {row}" for row in rows[3:])
    text = DIRECT.format(pseudos=PSEUDOS, hubbard=hubbard, cell="\n".join(rows[:3]), positions=positions)
    (folder / "pw.in").write_text(text)
    done = subprocess.run(
        ["pw.x", "-in", "pw.in"],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=True,
    )
    (folder / "pw.out").write_bytes(done.stdout)
    return read(folder / "pw.out", format="espresso-out")


def test_hubbard_u_of_an_old_pw_x_goes_by_its_namelist(label: Any, pw_code: Any, tmp_path: Path) -> None:
    """As the how-to says for a pw.x before 7.1, against input that is not this package's."""
    version = subprocess.run(["pw.x", "--version"], cwd=tmp_path, capture_output=True, check=False).stdout
    if b"PWSCF v.6" not in version:
        pytest.skip("pw.x from 7.1 on takes the card HUBBARD")
    diamond = rattled(bulk("C"))
    system = {"occupations": "fixed", "lda_plus_u": True, "hubbard_u": {"C": 2.0}}
    node = label([diamond], kpoints_distance=1.6, conv_thr_per_atom=1e-9, parameters={"SYSTEM": system})
    (frame,) = node.outputs.labelled
    assert frame.info["status"] == "labelled", frame.info["reason"]
    mesh = orm.load_node(frame.info["parent"]).inputs.kpoints.get_kpoints_mesh()[0]
    assert mesh == [2, 2, 2]
    expected = run_pw(diamond, tmp_path, ", lda_plus_u = .true., Hubbard_U(1) = 2.0")
    assert frame.get_potential_energy() == pytest.approx(expected.get_potential_energy(), abs=1e-5)
    np.testing.assert_allclose(frame.get_forces(), expected.get_forces(), atol=1e-4)
    assert frame.get_potential_energy() > run_pw(diamond, tmp_path).get_potential_energy() + 0.1


@pytest.mark.parametrize(
    ("symbols", "moments", "expected"),
    [
        ("FeO", None, {"lda_plus_u": True, "hubbard_u": {"Fe": 4.0}}),
        ("Fe2", {"Fe": 2.0}, {"lda_plus_u": True, "hubbard_u": {"Fe": 4.0}}),
        ("O2", None, {}),
    ],
)
def test_the_namelist_of_a_frame_has_the_values_of_its_own_species_only(
    symbols: str, moments: dict[str, float] | None, expected: dict[str, Any]
) -> None:
    """pw.x counts the species: a plugin finds no number for one that a frame does not have."""
    system = {"lda_plus_u": True, "hubbard_u": {"Fe": 4.0}}
    atoms = Atoms(symbols, positions=[[0, 0, 0], [0, 0, 2]], cell=[5, 5, 5], pbc=True)
    assert u_of(atoms, system, moments) == expected


def test_a_value_of_an_element_holds_for_all_its_kinds() -> None:
    atoms = Atoms("Fe2", positions=[[0, 0, 0], [0, 0, 2]], cell=[5, 5, 5], pbc=True)
    atoms.set_initial_magnetic_moments([2.0, -2.0])
    system = {"lda_plus_u": True, "hubbard_u": {"Fe": 4.0}}
    assert u_of(atoms, system)["hubbard_u"] == {"Fe1": 4.0, "Fe2": 4.0}


def u_of(atoms: Atoms, system: dict[str, Any], moments: dict[str, float] | None = None) -> dict[str, Any]:
    """Return the keys of the Hubbard U in the namelist of a frame."""
    settings = {
        "parameters": {"SYSTEM": system, "ELECTRONS": {}},
        "cutoffs": {"wavefunction": 30.0, "density": 120.0},
        "electronic_type": "metal",
        "vdw": None,
        "isolated": "none",
        "conv_thr_per_atom": 1e-8,
        "retries": [],
        "magnetic_moments": moments,
    }
    found = frame_parameters(atoms, settings, 0)["SYSTEM"]
    return {key: value for key, value in found.items() if key in ("lda_plus_u", "hubbard_u")}


def test_dispersion_is_in_energy_and_forces(label: Any, derivatives: Any) -> None:
    frames = derivatives.frames(rattled(bulk("Si")))
    cutoffs = {"wavefunction": 30.0, "density": 120.0}
    found = list(label(frames, cutoffs=cutoffs, vdw="grimme-d2").outputs.labelled)
    derivatives.check(found, 0.02, 2e-3)
    (without,) = label(frames[:1], cutoffs=cutoffs).outputs.labelled
    assert found[0].get_potential_energy() < without.get_potential_energy() - 0.1
    assert found[0].info["fingerprint"] != without.info["fingerprint"]


def test_copies_of_a_structure_are_computed_once(label: Any) -> None:
    atoms = rattled(bulk("Al"))
    node = label([atoms, atoms.copy()])
    assert [call.process_label for call in node.called].count("PwBaseWorkChain") == 1
    assert node.outputs.report["n_labelled"] == 2


def test_a_family_that_is_not_installed_is_named_with_the_remedy(label: Any) -> None:
    node = label([bulk("Si")], pseudo_family="SSSP/9.9")
    assert node.exit_status == 401
    assert "there is no pseudopotential family 'SSSP/9.9'" in node.exit_message
    assert "aiida-pseudo install" in node.exit_message


def test_a_species_without_pseudopotential_is_named(label: Any) -> None:
    node = label([bulk("Cu")])
    assert node.exit_status == 401
    assert "has none for Cu" in node.exit_message


class TestSettings:
    """What tells labels apart and what does not; no calculation is run."""

    engine = load_engine("label", "quantumespresso")

    def fingerprint(self, symbols: tuple[str, ...] = ("Si",), **parameters: Any) -> str:
        return self.engine.fingerprint(self.engine.complete({"pseudo_family": "LDA-cheap", **parameters}, symbols))

    @pytest.mark.parametrize(
        "change",
        [
            {"cutoffs": {"wavefunction": 30.0, "density": 120.0}},
            {"kpoints_distance": 0.2},
            {"electronic_type": "insulator"},
            {"vdw": "grimme-d3"},
            {"hubbard": {"Si-3p": 2.0}},
            {"magnetic_moments": {"Si": 1.0}},
            {"parameters": {"SYSTEM": {"degauss": 0.001}}},
            {"parameters": {"SYSTEM": {"input_dft": "PBE"}}},
            {"protocol": "stringent"},
        ],
    )
    def test_what_changes_a_label_changes_the_fingerprint(self, pseudo_family: str, change: dict[str, Any]) -> None:
        assert self.fingerprint(**change) != self.fingerprint()

    @pytest.mark.parametrize(
        "change",
        [
            {"parameters": {"ELECTRONS": {"mixing_beta": 0.1}}},
            {"retries": []},
            {"max_restarts": 5},
            {"parameters": {"CONTROL": {"disk_io": "none"}}},
        ],
    )
    def test_how_it_converges_does_not(self, pseudo_family: str, change: dict[str, Any]) -> None:
        assert self.fingerprint(**change) == self.fingerprint()

    def test_all_frames_have_the_largest_cut_offs_of_their_species(self, pseudo_family: str) -> None:
        settings = self.engine.complete({"pseudo_family": pseudo_family}, ("Si", "C"))
        assert settings["cutoffs"] == {"wavefunction": 24.0, "density": 160.0}

    @pytest.mark.parametrize(
        ("parameters", "expected"),
        [
            ({"cutoffs": {"ecutwfc": 30}}, "expected 'wavefunction' and 'density'"),
            ({"cutoffs": {"wavefunction": 30, "density": 10}}, "0 < wavefunction <= density"),
            ({"parameters": {"SYSTEMS": {}}}, "did you mean 'SYSTEM'"),
            ({"parameters": {"SYSTEM": {"ecutwfc": 30}}}, "parameters.SYSTEM.ecutwfc"),
            ({"parameters": {"CONTROL": {"calculation": "relax"}}}, "parameters.CONTROL.calculation"),
            ({"retries": [{"conv_thr": 1e-3}]}, "'conv_thr' would change the label"),
            ({"kpoints_distance": -1}, "kpoints_distance must be positive"),
            ({"magnetic_moments": {"Xx": 1}}, "'Xx' is not a chemical symbol"),
            ({"parameters": {"ELECTRONS": {"conv_thr": 1e-9}}}, "parameters.ELECTRONS.conv_thr"),
            ({"parameters": {"SYSTEM": {"ECUTWFC": 30}}}, "parameters.SYSTEM.ecutwfc"),
            (
                {"electronic_type": "insulator", "parameters": {"SYSTEM": {"degauss": 0.1}}},
                "parameters.SYSTEM.degauss",
            ),
            ({"parameters": {"SYSTEM": {"hubbard_u": {"Xx": 4.0}}}}, "SYSTEM.hubbard_u: 'Xx' is neither an element"),
            ({"hubbard": {"Fe3d": 4.0}}, "expected element and manifold as 'Fe-3d', got 'Fe3d'"),
            ({"hubbard": {"Fe-3d": 4.0, "Fe-4s": 1.0}}, "Fe has a second manifold"),
            ({"protocol": "quick"}, "label.parameters.protocol"),
            ({"conv_thr_per_atom": 10}, "conv_thr_per_atom cannot be 10.0: it is in Ry/atom"),
            ({"cutoffs": {"wavefunction": 680, "density": 5440}}, "cutoffs.wavefunction cannot be 680.0: it is in Ry"),
            ({"cutoffs": {"wavefunction": 4, "density": 16}}, "cutoffs.wavefunction cannot be 4.0: it is in Ry"),
            ({"cutoffs": {"wavefunction": 60, "density": 60}}, "cutoffs.density cannot be 60.0: the square of wave"),
            (
                {"parameters": {"SYSTEM": {"occupations": "tetrahedra"}}},
                "parameters.SYSTEM.occupations cannot be 'tetrahedra': forces are not the derivative",
            ),
            (
                {"parameters": {"ELECTRONS": {"scf_must_converge": False}}},
                "scf_must_converge cannot be False: a loop that did not converge is no label",
            ),
            ({"parameters": {"SYSTEM": {"degauss": 0.2}}}, "SYSTEM.degauss cannot be 0.2: it is in Ry, at most 0.1"),
            ({"parameters": {"SYSTEM": {"DEGAUSS": -0.01}}}, "SYSTEM.DEGAUSS cannot be -0.01: it is in Ry"),
            ({"parameters": {"ELECTRONS": {"electron_maxstep": 0}}}, "electron_maxstep cannot be 0: without"),
        ],
    )
    def test_bad_settings_are_named(self, parameters: dict[str, Any], expected: str) -> None:
        assert expected in self.engine.validate(parameters)
