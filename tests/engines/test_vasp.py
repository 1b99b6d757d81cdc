"""Labels from VASP: genuine recorded output behind the strict mock of aiida-vasp, which checks every input."""

from __future__ import annotations

import json
import re
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
from ase.build import bulk, fcc111
from ase.io import read

from aiida_alpot.data.pes import PESData
from aiida_alpot.engines.job import JobResources
from aiida_alpot.engines.label.base import LabelRequest
from aiida_alpot.engines.label.vasp import R2SCAN, first_incar
from aiida_alpot.plugins import load_engine
from aiida_alpot.workflows.label import LabellingWorkChain

pytest.importorskip("aiida_vasp")

HERE = Path(__file__).parent / "vasp"
FAMILY = "stubs"
STATIC = {
    "potential_family": FAMILY,
    "kpoints_mesh": [7, 7, 7],
    "incar": {
        "encut": 250,
        "ediff": 2e-6,
        "prec": "normal",
        "nedos": 100,
        "algo": "fast",
        "lcharg": False,
        "lorbit": None,
    },
}
"""What silicon_static was computed with, on top of the protocol."""
STEPS = {
    "potential_family": FAMILY,
    "kpoints_mesh": [10, 10, 10],
    "ionic_steps": 2,
    "incar": {
        **dict.fromkeys(("prec", "lreal", "ispin", "algo", "nwrite", "lwave", "nelm", "nelmin", "lasph", "lvhar")),
        **dict.fromkeys(("lorbit", "nedos", "gga", "ediff")),
        "ediffg": -1e-4,
        "encut": 240,
        "isif": 1,
        "sigma": 0.1,
    },
}
"""What silicon_steps was computed with."""
SMALL = {
    "potential_family": FAMILY,
    "kpoints_mesh": [8, 8, 8],
    "incar": {
        **STEPS["incar"],
        **dict.fromkeys(("ediffg", "nelm")),
        "ediff": 1e-9,
        "ibrion": 1,
        "isif": 3,
        "nelm": 15,
        "potim": 0.1,
    },
}
"""What steps_used_up was computed with, but for the number of steps."""
SPIN = {**SMALL, "incar": {**SMALL["incar"], "ispin": 2, "nupdown": 2, "lorbit": 10}}
"""What spin_steps was computed with."""


@pytest.fixture
def family(vasp_family: str) -> str:
    return vasp_family


@pytest.fixture
def label(code_of: Any, family: str, serial_options: dict[str, Any]) -> Callable[..., Any]:
    """Return a function that labels frames by the mock and returns the node of the stage."""
    program = Path(sys.executable).with_name("mock-vasp")

    def run(frames: list[Atoms], records: Path = HERE / "records", **parameters: Any) -> Any:
        registry = f"export MOCK_VASP_REG_BASE={records}"
        name = f"mock-vasp-{records.name}"
        _, node = run_get_node(
            LabellingWorkChain,
            code=code_of(name, shutil.which("mock-vasp") or str(program), "vasp.vasp", registry),
            engine=orm.Str("vasp"),
            frames=PESData.from_frames(frames),
            parameters=orm.Dict({**STATIC, **parameters}),
            options=orm.Dict(serial_options),
            max_iterations=orm.Int(1),
            max_failed_fraction=orm.Float(0.9),
        )
        return node

    return run


def recorded(name: str) -> Atoms:
    """Return the structure of a record."""
    return read(HERE / "records" / name / "inp" / "POSCAR", format="vasp")


def stub_family(label: str, folder: Path, **names: str) -> str:
    """Upload a family of POTCARs without potentials, by element the name of each, and return its label."""
    from aiida_vasp.data.potcar import PotcarData

    stub = (HERE / "potcar" / "Si" / "POTCAR").read_text()
    for element, name in names.items():
        (folder / label / name).mkdir(parents=True)
        text = stub.replace("PAW_PBE Si", f"PAW_PBE {name}").replace("=Si:", f"={element}:")
        (folder / label / name / "POTCAR").write_text(text)
    PotcarData.upload_potcar_family(str(folder / label), label, "without potentials", stop_if_existing=False)
    return label


def with_nelm(name: str, nelm: int, folder: Path) -> Path:
    """Return a registry with a copy of a record as if it had been allowed fewer electronic steps."""
    registry = folder / f"{name}_nelm_{nelm}"
    shutil.copytree(HERE / "records" / name, registry / name)
    for file in ("inp/INCAR", "out/OUTCAR", "out/vasprun.xml"):
        path = registry / name / file
        text, n_changed = re.subn(r"(NELM(\s*=|\">)\s*)\d+\b", rf"\g<1>{nelm}", path.read_text())
        assert n_changed
        path.write_text(text)
    return registry


def test_a_label_equals_ases_reading_of_the_same_files_and_other_input_costs_its_frame_only(label: Any) -> None:
    moved = bulk("Si", a=5.4)
    moved.rattle(0.05, seed=1)
    node = label([recorded("silicon_static"), moved])
    assert node.is_finished_ok, node.exit_message
    silicon, unmatched = node.outputs.labelled
    expected = read(HERE / "records" / "silicon_static" / "out" / "vasprun.xml", format="vasp-xml")
    assert silicon.info["status"] == "labelled"
    assert silicon.get_potential_energy() == expected.get_potential_energy(force_consistent=True)
    np.testing.assert_array_equal(silicon.get_forces(), expected.get_forces())
    np.testing.assert_allclose(silicon.get_stress(), expected.get_stress(), rtol=1e-12)
    assert unmatched.info["status"] == "failed"
    assert "exit status" in unmatched.info["reason"]


def test_an_incar_that_differs_in_one_key_matches_no_record(label: Any) -> None:
    node = label([recorded("silicon_static")], incar={**STATIC["incar"], "encut": 251})
    assert node.exit_status == 402


def test_ionic_steps_are_labels_each_with_its_structure(label: Any) -> None:
    node = label([recorded("silicon_steps")], **STEPS)
    assert node.is_finished_ok, node.exit_message
    frames = list(node.outputs.labelled)
    expected = read(HERE / "records" / "silicon_steps" / "out" / "vasprun.xml", index=":", format="vasp-xml")
    assert len(frames) == len(expected)
    for frame, other in zip(frames, expected, strict=True):
        assert frame.get_potential_energy() == other.get_potential_energy(force_consistent=True)
        np.testing.assert_array_equal(frame.get_forces(), other.get_forces())
        np.testing.assert_allclose(frame.positions, other.positions, atol=1e-12)
    assert abs(frames[0].get_forces()).max() > 0.3
    assert "stress" not in frames[0].calc.results  # ISIF = 1: only its trace is right


def test_a_run_that_uses_up_its_ionic_steps_gives_those_that_converged(label: Any) -> None:
    node = label([recorded("steps_used_up")], **SMALL, ionic_steps=5)
    assert node.is_finished_ok, node.exit_message
    frames = list(node.outputs.labelled)
    steps = read(HERE / "records" / "steps_used_up" / "out" / "vasprun.xml", index=":", format="vasp-xml")
    converged = steps[1:]  # the electronic loop of the first ran out of steps
    assert len(frames) == len(converged) == 4
    for frame, step in zip(frames, converged, strict=True):
        assert frame.get_potential_energy() == step.get_potential_energy(force_consistent=True)
        np.testing.assert_allclose(frame.cell.array, step.cell.array, atol=1e-12)


def test_moments_are_labels_too(label: Any) -> None:
    node = label([recorded("spin_steps")], **SPIN, ionic_steps=5)
    assert node.is_finished_ok, node.exit_message
    frames = list(node.outputs.labelled)
    steps = read(HERE / "records" / "spin_steps" / "out" / "OUTCAR", index=":", format="vasp-out")
    for frame, step in zip(frames, [steps[1], steps[2], steps[4]], strict=True):
        assert frame.get_potential_energy() == pytest.approx(step.get_potential_energy(force_consistent=True), abs=1e-7)
        np.testing.assert_array_equal(frame.get_magnetic_moments(), step.get_magnetic_moments())


def test_the_step_that_did_not_converge_takes_no_other_with_it(label: Any, tmp_path: Path) -> None:
    """In the copy only the second of five loops is below the limit, and so the calculation counts as failed."""
    records = with_nelm("spin_steps", 14, tmp_path)
    incar = {**SPIN["incar"], "nelm": 14}
    node = label([recorded("spin_steps")], records, **{**SPIN, "incar": incar}, ionic_steps=5, max_restarts=1)
    assert node.is_finished_ok, node.exit_message
    (frame,) = node.outputs.labelled
    second = read(HERE / "records" / "spin_steps" / "out" / "vasprun.xml", index=1, format="vasp-xml")
    assert frame.get_potential_energy() == second.get_potential_energy(force_consistent=True)


ONE_POINT = {"ionic_steps": 0, "incar": {**SMALL["incar"], "ibrion": -1, "potim": 0.01}}
"""What nelm_7 and nelm_150 were computed with, but for the number of electronic steps."""


def test_a_frame_whose_electronic_loop_runs_out_of_steps_alone_has_no_label_and_says_why(
    label: Any, tmp_path: Path
) -> None:
    """The other record is of 13 steps, of which its copy was allowed no more."""
    registry, records = with_nelm("silicon_static", 13, tmp_path), HERE / "records"
    shutil.copytree(records / "nelm_150", registry / "nelm_150")
    for file in ("INCAR", "KPOINTS"):
        shutil.copy(records / "nelm_150" / "inp" / file, registry / "silicon_static" / "inp" / file)
    enough = {**SMALL, **ONE_POINT, "incar": {**ONE_POINT["incar"], "nelm": 150}}
    node = label([recorded("nelm_150"), recorded("silicon_static")], registry, **enough, max_restarts=1)
    assert node.is_finished_ok, node.exit_message
    good, bad = node.outputs.labelled
    assert good.info["status"] == "labelled"
    assert (bad.info["status"], bad.calc) == ("failed", None)
    assert "The electronic structure is not converged" in bad.info["reason"]


def test_with_more_electronic_steps_the_same_frame_has_a_label(label: Any) -> None:
    """aiida-vasp allows 150 where few were not enough, and the second record is the answer to that."""
    few = {**SMALL, **ONE_POINT, "incar": {**ONE_POINT["incar"], "nelm": 7}}
    node = label([recorded("nelm_7")], **few, max_restarts=2)
    assert node.is_finished_ok, node.exit_message
    (frame,) = node.outputs.labelled
    expected = read(HERE / "records" / "nelm_150" / "out" / "vasprun.xml", format="vasp-xml")
    assert frame.get_potential_energy() == expected.get_potential_energy(force_consistent=True)


def test_forces_come_back_to_atoms_that_the_poscar_groups_by_species(label: Any, tmp_path: Path) -> None:
    grouped, order = recorded("ammonia"), [0, 3, 1, 2]
    frame = grouped[order]
    assert str(frame.symbols) == "HNH2"
    potcars = stub_family("stubs-ammonia", tmp_path, H="H", N="N")
    incar = {
        **SMALL["incar"],
        **dict.fromkeys(("ediff", "ibrion", "isif", "potim", "encut", "sigma", "ismear", "nelm")),
    }
    node = label([frame], incar={**incar, "algo": "normal"}, potential_family=potcars, kpoints_mesh=[1, 1, 1])
    assert node.is_finished_ok, node.exit_message
    (labelled,) = node.outputs.labelled
    expected = read(HERE / "records" / "ammonia" / "out" / "vasprun.xml", format="vasp-xml")
    assert list(labelled.symbols) == list(frame.symbols)
    np.testing.assert_allclose(labelled.positions, expected.positions[order], atol=1e-9)
    np.testing.assert_array_equal(labelled.get_forces(), expected.get_forces()[order])


def test_there_is_one_k_point_along_axes_that_are_not_periodic(label: Any) -> None:
    slab = fcc111("Si", (1, 1, 2), a=5.4, vacuum=4.0)
    node = label([slab, Atoms("Si")], kpoints_mesh=None, kpoints_distance=0.5)
    runs = [call for call in node.called_descendants if call.process_label == "VaspCalculation"]
    meshes = {len(run.inputs.structure.sites): run.base.repository.get_object_content("KPOINTS") for run in runs}
    length = 2 * np.pi / (slab.cell.lengths()[0] * np.sqrt(3) / 2)
    along = int(np.ceil(length / 0.5))
    assert along > 1
    assert {n: [int(word) for word in text.splitlines()[3].split()] for n, text in meshes.items()} == {
        1: [1, 1, 1],
        2: [along, along, 1],
    }


class TestInputs:
    """What is written for a frame; nothing is run."""

    engine = load_engine("label", "vasp")

    def build(self, atoms: Atoms, python_code: Any, n_before: int = 0, *, job: bool = False, **parameters: Any) -> Any:
        given = {"potential_family": FAMILY, **parameters}
        frames = PESData.from_frames([atoms]).store()
        request = LabelRequest(frames, orm.Dict(given), self.engine.complete(given, frames.symbols))
        kernel = orm.SinglefileData.from_string("kernel", filename="kernel.pyz")
        options = {"resources": {"num_machines": 1}}
        (key,) = self.engine.plan_jobs(request)
        resources = JobResources(python_code, kernel, options, key, n_before=n_before)
        prepared = self.engine.prepare_job(key, request, resources, None)
        return prepared if job else prepared.inputs

    def test_the_protocol_gives_what_is_not_given(self, family: str, python_code: Any) -> None:
        incar = self.build(bulk("Si"), python_code).parameters["incar"]
        assert (incar["encut"], incar["ediff"]) == (550, pytest.approx(2e-6))
        assert "nsw" not in incar

    def test_starting_moments_of_a_frame_become_kinds(self, family: str, python_code: Any) -> None:
        atoms = bulk("Si")
        atoms.set_initial_magnetic_moments([1.0, -1.0])
        inputs = self.build(atoms, python_code)
        assert inputs.magmom_mapping.get_dict() == {"Si1": 1.0, "Si2": -1.0}
        assert inputs.potential_mapping.get_dict() == {"Si1": "Si", "Si2": "Si"}
        assert inputs.parameters["incar"]["ispin"] == 2

    def test_an_isolated_atom_follows_hunds_rule_in_a_box(self, family: str, python_code: Any) -> None:
        inputs = self.build(Atoms("Si"), python_code, vacuum=9.0)
        assert inputs.parameters["incar"]["nupdown"] == 2.0
        assert inputs.structure.cell[0][0] == pytest.approx(9.0)

    def test_the_moment_of_an_isolated_atom_is_kept_whatever_its_sign(self, family: str, python_code: Any) -> None:
        atoms = Atoms("Si", magmoms=[-1.0])
        inputs = self.build(atoms, python_code)
        assert inputs.parameters["incar"]["nupdown"] == 1.0  # -1 leaves it to VASP
        assert inputs.magmom_mapping.get_dict() == {"Si": 1.0}

    def test_hubbard_u_goes_to_every_kind_of_its_element(self, family: str, python_code: Any) -> None:
        atoms = bulk("Si")
        atoms.set_initial_magnetic_moments([1.0, -1.0])
        inputs = self.build(atoms, python_code, hubbard={"Si-3p": 2.5, "Fe-3d": 4.0})
        assert inputs.ldau_mapping["mapping"] == {"Si1": ["p", 2.5], "Si2": ["p", 2.5]}
        assert "ldau_mapping" not in self.build(atoms, python_code, hubbard={"Fe-3d": 4.0})

    def test_the_charge_of_a_frame_is_taken_from_the_electrons_of_its_potcars(
        self, family: str, python_code: Any
    ) -> None:
        atoms = bulk("Si")
        atoms.info["charge"] = 0.5
        inputs = self.build(atoms, python_code, **R2SCAN)
        assert inputs.parameters["incar"]["nelect"] == pytest.approx(2 * 1.111 - 0.5)
        assert inputs.preconverge["incar"]["nelect"] == inputs.parameters["incar"]["nelect"]
        assert "nelect" not in self.build(bulk("Si"), python_code).parameters["incar"]

    def test_a_charged_frame_whose_energy_depends_on_its_box_is_refused(self, family: str, python_code: Any) -> None:
        for atoms in (fcc111("Si", (1, 1, 2), a=5.4, vacuum=4.0), Atoms("Si")):
            atoms.info["charge"] = -1.0
            with pytest.raises(ValueError, match="has the charge -1 and is not periodic along all axes"):
                self.build(atoms, python_code)

    def test_a_charge_that_leaves_no_electrons_is_refused(self, family: str, python_code: Any) -> None:
        atoms = bulk("Si")
        atoms.info["charge"] = 3.0
        with pytest.raises(ValueError, match=r"has the charge 3, but its POTCARs have 2\.222 electrons"):
            self.build(atoms, python_code)

    def test_output_with_its_atoms_in_another_order_is_refused(self, family: str) -> None:
        retrieved = orm.FolderData(tree=str(HERE / "records" / "silicon_static" / "out"))
        settings = self.engine.complete({"potential_family": FAMILY}, ("Si",))
        atoms = recorded("silicon_static")
        with pytest.raises(ValueError, match="or in another order"):
            self.engine.read(atoms[[1, 0]], {"retrieved": retrieved}, settings)

    def test_a_run_that_is_cut_off_begins_again_from_the_frame(self, family: str, python_code: Any) -> None:
        steps = self.build(bulk("Si"), python_code, ionic_steps=3)
        assert steps.handler_overrides.get_dict() == {"handler_unfinished_calc_ionic": {"enabled": False}}
        assert "handler_overrides" not in self.build(bulk("Si"), python_code)

    def test_a_further_attempt_converges_another_way(self, family: str, python_code: Any) -> None:
        assert self.build(bulk("Si"), python_code).parameters["incar"]["algo"] == "normal"
        assert self.build(bulk("Si"), python_code, n_before=1).parameters["incar"]["algo"] == "all"

    def test_what_is_missing_is_named(self, family: str) -> None:
        with pytest.raises(ValueError, match="there is no POTCAR family 'PBE'"):
            self.engine.complete({"potential_family": "PBE"}, ("Si",))
        with pytest.raises(ValueError, match="'stubs' lacks a potential"):
            self.engine.complete({"potential_family": FAMILY}, ("Cu",))

    def test_a_further_attempt_goes_before_the_keys_of_the_first_of_two_steps(self, family: str) -> None:
        settings = self.engine.complete({"potential_family": FAMILY, **R2SCAN}, ("Si",))
        tried = [first_incar(bulk("Si"), settings, n_before) for n_before in (0, 1, 2)]
        assert [incar["algo"] for incar in tried] == ["normal", "all", "normal"]
        assert [incar.get("amix") for incar in tried] == [None, None, 0.1]
        assert all(incar["lwave"] and incar["gga"] == "PE" for incar in tried)

    @pytest.mark.parametrize("wrong", [{"kpoints_spacin": 0.05}, {"calc": {"metadatas": {}}}])
    def test_a_misspelt_input_of_the_two_steps_is_refused(
        self, family: str, python_code: Any, wrong: dict[str, Any]
    ) -> None:
        job = self.build(bulk("Si"), python_code, job=True, **R2SCAN)
        ports, given = job.process.spec().inputs, job.inputs._inputs(prune=True)
        assert ports.validate(given) is None
        wrong = {**wrong, "calc": {**given["calc"], **wrong.get("calc", {})}}
        problem = ports.validate({**given, **wrong})
        assert problem is not None
        assert "metadatas" in problem.message or "kpoints_spacin" in problem.message

    @pytest.mark.parametrize(
        ("parameters", "expected"),
        [
            ({}, "'potential_family' is required"),
            (
                {"potential_family": "x", "incar": {"NSW": 3}},
                "incar.NSW cannot be set: give",
            ),
            ({"potential_family": "x", "retries": [{"encut": 300}]}, "'encut' would change the label"),
            ({"potential_family": "x", "kpoints_mesh": [0, 1, 1]}, "kpoints_mesh must be positive"),
            ({"potential_family": "x", "ionic_steps": -1}, "ionic_steps must not be negative, got -1"),
            (
                {"potential_family": "x", "ionic_steps": 3, "incar": {"ibrion": -1}},
                "incar.ibrion cannot be -1: no atom moves in 3 ionic steps",
            ),
            ({"potential_family": "x", "preconverge": {"NSW": 3}}, "preconverge.NSW cannot be set: give"),
            ({"potential_family": "x", "retries": [{"algo": "none"}]}, "retries: algo cannot be 'none'"),
        ],
    )
    def test_bad_settings_are_named(self, parameters: dict[str, Any], expected: str) -> None:
        assert expected in self.engine.validate(parameters)

    @pytest.mark.parametrize("where", ["incar", "preconverge"])
    @pytest.mark.parametrize(
        ("key", "value", "remedy"),
        [
            ("icharg", 11, "leave it out"),
            ("ICHARG", "12", "leave it out"),
            *(("algo", word, "give normal") for word in ("None", "Nothing", "Eigenval", "CHI", "GW0", "exact", 3)),
            ("ialgo", 2, "give algo"),
            ("nelm", 1, "at least 2"),
            ("ediff", 0.1, "in eV"),
            ("ediff", 0, "in eV"),
            ("ediff", "tight", "in eV"),
            ("encut", 38.2, "in eV"),
            ("encut", -1, "in eV"),
            ("isif", 9, "give 2"),
            ("ibrion", 5, "phonons"),
            ("ibrion", 44, "saddle points"),
            *(("ismear", value, "give 0") for value in (-2, -3, -4, "-5", -14, -15)),
            ("sigma", 5, "in eV"),
            ("sigma", 0, "in eV"),
            ("SIGMA", -0.05, "in eV"),
            ("i_constrained_m", 1, "penalty"),
            ("lsorbit", True, "collinear"),
            ("LNONCOLLINEAR", ".TRUE.", "collinear"),
            ("pstress", 100, "leave it out"),
            ("images", 4, "leave it out"),
        ],
    )
    def test_a_value_that_makes_no_label_is_refused_with_its_tag_and_the_remedy(
        self, where: str, key: str, value: Any, remedy: str
    ) -> None:
        problem = self.engine.validate({"potential_family": "x", where: {key: value}})
        assert f"{where}.{key} cannot be {value!r}: " in problem
        assert remedy in problem

    def test_values_that_make_a_label_are_free(self) -> None:
        incar = {"icharg": 1, "ALGO": "VeryFast", "nelm": 7, "ediff": "1E-7", "encut": "520", "isif": 1, "ibrion": 2}
        incar |= {"lsorbit": False, "ismear": -1, "sigma": 1.0, "i_constrained_m": 0, "pstress": 0, "images": None}
        assert self.engine.validate({"potential_family": "x", "incar": incar}) is None

    def test_how_it_converges_does_not_tell_labels_apart_but_the_cut_off_does(self, family: str) -> None:
        def fingerprint(**incar: Any) -> str:
            return self.engine.fingerprint(self.engine.complete({"potential_family": FAMILY, "incar": incar}, ("Si",)))

        assert fingerprint(algo="all", nelm=300) == fingerprint()
        assert fingerprint(encut=400) != fingerprint()
        assert fingerprint(metagga="R2SCAN") != fingerprint()


def test_potcars_tell_labels_apart_the_name_of_their_family_does_not(family: str) -> None:
    from aiida_vasp.data.potcar import PotcarGroup

    engine = load_engine("label", "vasp")
    nodes = list(PotcarGroup.collection.get(label=family).nodes)

    def settings(label: str, members: list[Any]) -> dict[str, Any]:
        group = PotcarGroup.collection.get_or_create(label=label)[0]
        group.clear()
        group.add_nodes(members)
        return engine.complete({"potential_family": label}, ())

    first = settings(family, nodes)
    assert engine.fingerprint(settings("same-potcars", nodes)) == engine.fingerprint(first)
    assert engine.fingerprint(settings("other-potcars", nodes[1:])) != engine.fingerprint(first)


def test_a_potcar_that_no_element_takes_makes_no_other_labels_of_those_that_are_there(
    aiida_profile: Any, tmp_path: Path
) -> None:
    engine = load_engine("label", "vasp")

    def fingerprint(family: str, symbols: tuple[str, ...] = ("Si",), **mapping: str) -> str:
        given = {"potential_family": family, "potential_mapping": mapping}
        return engine.fingerprint(engine.complete(given, symbols))

    small = stub_family("stubs-one", tmp_path, Si="Si", N="N")
    large = stub_family("stubs-more", tmp_path, Si="Si", N="N", Fe="Fe_sv")  # the protocol takes Fe_pv
    assert fingerprint(large) == fingerprint(small)
    assert fingerprint(large, ("Si", "N")) == fingerprint(large)
    assert fingerprint(large, Fe="Fe_sv") != fingerprint(large)
    assert fingerprint(large, Fe="no-such", N="N") == fingerprint(large)


def test_a_charged_frame_is_labelled_with_its_electrons(label: Any, tmp_path: Path) -> None:
    """The output is that of the neutral cell."""
    shutil.copytree(HERE / "records" / "silicon_static", tmp_path / "charged" / "silicon_static")
    with (tmp_path / "charged" / "silicon_static" / "inp" / "INCAR").open("a") as incar:
        incar.write("NELECT = 1.722\n")
    atoms = recorded("silicon_static")
    atoms.info["charge"] = 0.5
    node = label([atoms], tmp_path / "charged")
    assert node.is_finished_ok, node.exit_message
    (frame,) = node.outputs.labelled
    assert (frame.info["charge"], frame.info["status"]) == (0.5, "labelled")


def test_the_second_of_two_steps_gives_the_labels_and_the_first_is_its_parent(label: Any) -> None:
    """Two recorded calculations of one structure: a single point, and a relaxation begun from it."""
    common = {**STATIC["incar"], "gga": "pe"}
    steps = {"ionic_steps": 60, "preconverge": {"lwave": False, "isif": None, "ediffg": None}}
    node = label([recorded("pbe_steps")], incar={**common, "isif": 3, "ediffg": -0.03}, **steps)
    assert node.is_finished_ok, node.exit_message
    frames = list(node.outputs.labelled)
    expected = read(HERE / "records" / "pbe_steps" / "out" / "vasprun.xml", index=":", format="vasp-xml")
    energies = [frame.get_potential_energy() for frame in frames]
    assert energies == [other.get_potential_energy(force_consistent=True) for other in expected]
    second = orm.load_node(frames[0].info["parent"])
    first = second.inputs.restart_folder.creator
    assert "nsw" not in first.inputs.parameters.get_dict()
    assert second.inputs.parameters["nsw"] == 60
    assert first.outputs.remote_folder.is_empty


PROTOCOL = {
    **{"PREC": "accurate", "ENCUT": "550", "LREAL": ".FALSE.", "ISMEAR": "0", "SIGMA": "0.05", "ISPIN": "2"},
    **{"NWRITE": "1", "NELM": "200", "NELMIN": "4", "LASPH": ".TRUE.", "LVHAR": ".TRUE.", "LORBIT": "11"},
    **{"NEDOS": "2000", "EDIFF": "2e-06"},
}
"""INCAR of the protocol for two atoms, without the functional, the algorithm and LWAVE."""


def with_incar(name: str, incar: dict[str, str], registry: Path) -> None:
    """Add a copy of a record to a registry as if it were the answer to another INCAR."""
    shutil.copytree(HERE / "records" / name, registry / name)
    (registry / name / "inp" / "INCAR").write_text("".join(f"{key} = {value}\n" for key, value in incar.items()))


def written_incar(calculation: Any) -> dict[str, str]:
    """Return the INCAR that a calculation was submitted with."""
    lines = calculation.base.repository.get_object_content("INCAR").splitlines()
    return {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines if "=" in line)}


def test_the_r2scan_preset_submits_pbe_and_then_three_r2scan_steps_from_its_wavecar_and_labels_by_these_only(
    label: Any, tmp_path: Path
) -> None:
    """What is submitted, in which order, and whose output the label is: not a number of r²SCAN.

    There is no genuine output of r²SCAN to be had. That of the second calculation is of PBE, and of one ionic step; the
    WAVECAR of the first is a text. That VASP goes on from it is its default where neither ISTART nor ICHARG is given.
    """
    registry = tmp_path / "r2scan"
    with_incar("pbe_static", {**PROTOCOL, "GGA": "PE", "ALGO": "normal", "LWAVE": ".TRUE."}, registry)
    (registry / "pbe_static" / "out" / "WAVECAR").write_text("wave functions of PBE")
    r2scan = {"METAGGA": "R2SCAN", "ALGO": "all", "LWAVE": ".FALSE.", "NSW": "3", "IBRION": "2"}
    with_incar("pbe_steps", {**PROTOCOL, **r2scan}, registry)
    node = label([recorded("pbe_steps")], registry, **R2SCAN)
    assert node.is_finished_ok, node.exit_message
    (frame,) = node.outputs.labelled
    expected = read(HERE / "records" / "pbe_steps" / "out" / "vasprun.xml", format="vasp-xml")
    assert frame.get_potential_energy() == expected.get_potential_energy(force_consistent=True)
    second = orm.load_node(frame.info["parent"])
    first = second.inputs.restart_folder.creator
    incar = written_incar(second)
    assert incar.items() >= {**r2scan, "LASPH": ".TRUE."}.items()
    assert not {"GGA", "ISTART", "ICHARG", "ISIF"} & incar.keys()
    assert written_incar(first)["GGA"] == "PE"
    assert not {"METAGGA", "NSW"} & written_incar(first).keys()
    copied = json.loads(second.base.repository.get_object_content(".aiida/calcinfo.json"))["remote_copy_list"]
    assert [Path(path).name for _, path, _ in copied] == ["WAVECAR"]
    assert copied[0][1].startswith(first.outputs.remote_folder.get_remote_path())
