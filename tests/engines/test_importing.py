"""Finished calculations of the profile as labels."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida import orm
from aiida.common.links import LinkType
from aiida.engine import run_get_node
from ase import Atoms
from ase.build import bulk
from ase.io import read
from click.testing import CliRunner
from plumpy.process_states import ProcessState

from aiida_alpot.cli import main
from aiida_alpot.data.pes import PESData
from aiida_alpot.engines.label import importing
from aiida_alpot.engines.label.finished import by_symbol, describe_kpoints
from aiida_alpot.engines.label.importing import import_finished
from aiida_alpot.plugins import load_engine
from aiida_alpot.workflows.label import LabellingWorkChain

OUTPUTS = Path(__file__).parents[1] / "kernel" / "dataset" / "outputs"
RECORDS = Path(__file__).parent / "vasp" / "records"
PARAMETERS = {"protocol": "fast", "kpoints_distance": 0.6}


def rattled(atoms: Atoms, seed: int = 0) -> Atoms:
    moved = atoms.copy()
    moved.rattle(0.05, seed=seed)
    return moved


def mesh(structure: orm.StructureData, *points: int) -> orm.KpointsData:
    kpoints = orm.KpointsData()
    kpoints.set_cell_from_structure(structure)
    kpoints.set_kpoints_mesh(points)
    return kpoints


class TestPw:
    """Real calculations of pw.x."""

    @pytest.fixture
    def run_pw(self, pw_code: Any, pseudo_family: str, serial_options: dict[str, Any]) -> Callable[..., Any]:
        """Return a function that runs pw.x on a structure and returns the node of the calculation."""
        pytest.importorskip("aiida_quantumespresso")
        from aiida_quantumespresso.calculations.pw import PwCalculation

        family = orm.load_group(pseudo_family)

        def run(atoms: Atoms, points: tuple[int, int, int] = (2, 2, 2), **namelists: dict[str, Any]) -> orm.CalcJobNode:
            structure = orm.StructureData(ase=atoms)
            parameters = {
                "CONTROL": {"calculation": "scf", "tprnfor": True, "tstress": True, **namelists.get("CONTROL", {})},
                "SYSTEM": {"ecutwfc": 14.0, "ecutrho": 56.0, "occupations": "fixed", **namelists.get("SYSTEM", {})},
                "ELECTRONS": {"conv_thr": 1e-8, **namelists.get("ELECTRONS", {})},
            }
            parameters |= {name: namelists[name] for name in ("IONS", "CELL") if name in namelists}
            _, node = run_get_node(
                PwCalculation,
                code=pw_code,
                structure=structure,
                kpoints=mesh(structure, *points),
                parameters=orm.Dict(parameters),
                pseudos=family.get_pseudos(structure=structure),
                metadata={"options": serial_options},
            )
            return node

        return run

    def test_a_single_point_equals_ases_reading_of_its_text(self, run_pw: Any, tmp_path: Path) -> None:
        node = run_pw(rattled(bulk("Si")))
        imported = import_finished([node])
        assert (imported.n_calculations, imported.skipped) == (1, {})
        (frame,) = imported.dataset
        expected = ase_reading(node, tmp_path)[-1]
        assert frame.get_potential_energy() == pytest.approx(expected.get_potential_energy(), abs=1e-5)
        np.testing.assert_allclose(frame.get_forces(), expected.get_forces(), atol=1e-5)
        np.testing.assert_allclose(frame.get_stress(), expected.get_stress(), atol=1e-6)
        assert abs(frame.get_stress()).max() > 1e-4
        np.testing.assert_array_equal(frame.positions, node.inputs.structure.get_ase().positions)
        assert all(frame.pbc)
        assert frame.info["parent"] == node.uuid
        assert frame.info["kpoints_distance"] == pytest.approx(np.pi / 5.43 * np.sqrt(3), rel=1e-3)
        assert imported.dataset.creator.process_label == "import_calculations"
        used = {link.link_label for link in imported.dataset.creator.base.links.get_incoming().all()}
        assert {f"c{node.pk}__output_trajectory", f"c{node.pk}__structure"} <= used

    @pytest.mark.parametrize("kind", ["relax", "md"])
    def test_every_ionic_step_is_a_label_of_its_own_structure(self, run_pw: Any, tmp_path: Path, kind: str) -> None:
        dynamics = {"dt": 40.0} if kind == "md" else {}
        node = run_pw(rattled(bulk("Si")), CONTROL={"calculation": kind, "nstep": 3, **dynamics})
        imported = import_finished([node])
        frames = list(imported.dataset)
        expected = ase_reading(node, tmp_path)
        assert len(frames) == len(expected) > 1
        for k, (frame, other) in enumerate(zip(frames, expected, strict=True)):
            assert frame.info["ionic_step"] == k
            assert frame.get_potential_energy() == pytest.approx(other.get_potential_energy(), abs=1e-5)
            np.testing.assert_allclose(frame.get_forces(), other.get_forces(), atol=1e-5)
            np.testing.assert_allclose(frame.positions, other.positions, atol=1e-5)
        assert len({frame.info["group"] for frame in frames}) == 1

    def test_failed_and_unknown_calculations_are_left_out_with_their_reason(self, run_pw: Any, localhost: Any) -> None:
        failed = run_pw(bulk("Si"), ELECTRONS={"electron_maxstep": 1})
        bands = run_pw(bulk("Si"), ELECTRONS={"conv_thr": 1e-4})
        other = orm.CalcJobNode(computer=localhost, process_type="aiida.calculations:core.arithmetic.add").store()
        imported = import_finished([failed, bands, other])
        assert imported.n_calculations == 1
        assert imported.skipped[failed.pk].startswith("exit status 410")
        assert "no calculation that an engine reads" in imported.skipped[other.pk]

    def test_the_later_of_two_labels_of_one_structure_stays_and_a_mesh_tells_nothing_apart(self, run_pw: Any) -> None:
        first, second = run_pw(bulk("Si")), run_pw(bulk("Si"), points=(1, 1, 1))
        imported = import_finished([second, first])
        (frame,) = imported.dataset
        assert imported.n_replaced == 1
        assert frame.info["parent"] == second.uuid
        other = run_pw(rattled(bulk("Si")))
        both = import_finished([second, other])
        assert len({frame.info["fingerprint"] for frame in both.dataset}) == 1
        assert "kpoints_distance of the labels" in both.warnings[0]

    def test_what_changes_a_label_changes_the_fingerprint_how_it_converges_does_not(self, run_pw: Any) -> None:
        nodes = [run_pw(bulk("Si")), run_pw(rattled(bulk("Si")), ELECTRONS={"mixing_beta": 0.3, "conv_thr": 1e-7})]
        nodes.append(run_pw(rattled(bulk("Si"), 1), SYSTEM={"ecutwfc": 12.0}))
        imported = import_finished(nodes)
        first, same, other = [frame.info["fingerprint"] for frame in imported.dataset]
        assert first == same != other

    def test_frames_in_chunks_read_as_one_dataset(self, run_pw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(importing, "CHUNK", 1)
        nodes = [run_pw(bulk("Si")), run_pw(rattled(bulk("Si")))]
        imported = import_finished(nodes)
        assert imported.dataset.creator.process_label == "merge_datasets"
        assert [frame.info["parent"] for frame in imported.dataset] == [node.uuid for node in nodes]

    def test_labels_of_the_same_settings_are_not_computed_again(
        self, pw_code: Any, pseudo_family: str, serial_options: dict[str, Any]
    ) -> None:
        """Two elements: each calculation alone does not know which family its pseudopotentials are of."""
        parameters = {**PARAMETERS, "pseudo_family": pseudo_family}

        def label(frames: PESData) -> Any:
            inputs = {"code": pw_code, "engine": orm.Str("quantumespresso"), "options": orm.Dict(serial_options)}
            _, node = run_get_node(LabellingWorkChain, frames=frames, parameters=orm.Dict(parameters), **inputs)
            return node

        frames = [rattled(bulk("Si")), rattled(bulk("Al"))]
        stage = label(PESData.from_frames(frames))
        imported = import_finished([stage], ("quantumespresso", parameters))
        assert imported.others == {}
        labelled = list(stage.outputs.labelled)
        for frame, other in zip(imported.dataset, labelled, strict=True):
            assert frame.info["fingerprint"] == other.info["fingerprint"]
            assert frame.get_potential_energy() == other.get_potential_energy()
        again = label(imported.dataset)
        assert not any(call.process_label == "PwBaseWorkChain" for call in again.called)
        finer = import_finished([stage], ("quantumespresso", {**parameters, "kpoints_distance": 0.3}))
        assert len(finer.others) == 2
        assert all(reason.startswith("kpoints_distance is") for reason in finer.others.values())


def ase_reading(node: orm.CalcJobNode, folder: Path) -> list[Atoms]:
    """Return the steps that ASE finds in what pw.x printed."""
    (folder / "pw.out").write_text(node.outputs.retrieved.get_object_content("aiida.out"))
    return read(folder / "pw.out", index=":", format="espresso-out")


class TestVasp:
    """Genuine output of VASP behind planted nodes."""

    @pytest.fixture
    def plant_vasp(self, localhost: orm.Computer) -> Callable[..., orm.CalcJobNode]:
        """Return a function that plants a finished calculation with the files of a record."""
        pytest.importorskip("aiida_vasp")
        from aiida_vasp.data.potcar import PotcarData

        family = "stubs"
        if PotcarData.get_potcar_group(family) is None:
            stubs = str(RECORDS.parent / "potcar")
            PotcarData.upload_potcar_family(stubs, family, "without potentials", stop_if_existing=False)
        potcar = PotcarData.get_potcars_dict(["Si"], family, {"Si": "Si"})["Si"]

        def plant(record: str, exit_status: int = 0, moved: float = 0.0, **incar: Any) -> orm.CalcJobNode:
            vasprun = RECORDS / record / "out" / "vasprun.xml"
            atoms = read(vasprun, index=0, format="vasp-xml")
            atoms.positions += moved
            structure = orm.StructureData(ase=atoms).store()
            inputs = {
                "structure": structure,
                "kpoints": mesh(structure, 7, 7, 7).store(),
                "parameters": orm.Dict({"encut": 250, **incar}).store(),
                "potential__Si": potcar,
            }
            node = orm.CalcJobNode(computer=localhost, process_type="aiida.calculations:vasp.vasp")
            node.set_process_label("VaspCalculation")
            for label, value in inputs.items():
                node.base.links.add_incoming(value, LinkType.INPUT_CALC, label)
            node.set_process_state(ProcessState.FINISHED)
            node.set_exit_status(exit_status)
            node.store()
            retrieved = orm.FolderData()
            retrieved.put_object_from_file(str(vasprun), "vasprun.xml")
            retrieved.base.links.add_incoming(node, LinkType.CREATE, "retrieved")
            retrieved.store()
            return node

        return plant

    @pytest.mark.parametrize("record", ["silicon_static", "silicon_steps", "pbe_steps"])
    def test_steps_equal_ases_reading_of_the_same_file(self, plant_vasp: Any, record: str) -> None:
        imported = import_finished([plant_vasp(record)])
        frames = list(imported.dataset)
        expected = read(RECORDS / record / "out" / "vasprun.xml", index=":", format="vasp-xml")
        assert len(frames) == len(expected)
        for frame, other in zip(frames, expected, strict=True):
            assert frame.get_potential_energy() == other.get_potential_energy(force_consistent=True)
            np.testing.assert_array_equal(frame.get_forces(), other.get_forces())
            if record == "silicon_steps":  # ISIF = 1: only the trace of its stress is right
                assert "stress" not in frame.calc.results
            else:
                np.testing.assert_allclose(frame.get_stress(), other.get_stress(), rtol=1e-12)
            moved = other.cell.scaled_positions(frame.positions - other.positions)
            np.testing.assert_allclose(moved - np.round(moved), 0, atol=1e-7)

    def test_steps_of_a_cell_that_changes_are_labels_with_a_warning(
        self, plant_vasp: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "cell" / "out").mkdir(parents=True)
        shutil.copy(OUTPUTS / "relaxation.xml", tmp_path / "cell" / "out" / "vasprun.xml")
        monkeypatch.setattr(sys.modules[__name__], "RECORDS", tmp_path)
        imported = import_finished([plant_vasp("cell")])
        frames = list(imported.dataset)
        assert [frame.info["ionic_step"] for frame in frames] == list(range(19))
        assert frames[1].get_volume() != frames[0].get_volume()
        assert "in 1 calculations the cell changes" in imported.warnings[0]

    def test_a_relaxation_that_did_not_converge_has_labels_one_that_failed_has_none(self, plant_vasp: Any) -> None:
        relaxation, failed = plant_vasp("silicon_steps", 702), plant_vasp("silicon_static", 703)
        imported = import_finished([relaxation, failed])
        assert imported.n_calculations == 1
        assert imported.skipped == {failed.pk: "exit status 703: no message"}

    @pytest.mark.parametrize(
        ("incar", "reason"),
        [
            ({"NELECT": 9}, "NELECT"),
            ({"icharg": 11}, "not self-consistent"),
            ({"ibrion": 6}, "phonons"),
            ({"ALGO": "CHI"}, "algo cannot be 'CHI'"),
            ({"pstress": 50}, "pstress cannot be 50"),
            ({"ismear": -4}, "ismear cannot be -4"),
        ],
    )
    def test_what_gives_no_labels_is_left_out_by_name(self, plant_vasp: Any, incar: Any, reason: str) -> None:
        node = plant_vasp("silicon_static", **incar)
        imported = import_finished([node])
        assert imported.dataset is None
        assert reason in imported.skipped[node.pk]

    def test_tetrahedra_are_taken_for_an_insulator_and_refused_for_a_metal(
        self, plant_vasp: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """In the copy the highest band is filled in part."""
        assert import_finished([plant_vasp("silicon_static", ismear=-5)]).n_calculations == 1
        text = (RECORDS / "silicon_static" / "out" / "vasprun.xml").read_text()
        (tmp_path / "metal" / "out").mkdir(parents=True)
        copy = text.replace("5.9790    1.0000", "5.9790    0.8000", 1)
        assert copy != text
        (tmp_path / "metal" / "out" / "vasprun.xml").write_text(copy)
        monkeypatch.setattr(sys.modules[__name__], "RECORDS", tmp_path)
        node = plant_vasp("metal", ISMEAR=-5)
        assert "it is a metal" in import_finished([node]).skipped[node.pk]

    def test_the_electrons_of_the_neutral_cell_are_no_charge_and_others_are(
        self, plant_vasp: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """In the copy half an electron is taken away."""
        (neutral,) = import_finished([plant_vasp("silicon_static", NELECT=8)]).dataset
        assert "charge" not in neutral.info
        text = (RECORDS / "silicon_static" / "out" / "vasprun.xml").read_text()
        (tmp_path / "charged" / "out").mkdir(parents=True)
        copy = text.replace('"NELECT">      8.0', '"NELECT">      7.5')
        (tmp_path / "charged" / "out" / "vasprun.xml").write_text(copy)
        monkeypatch.setattr(sys.modules[__name__], "RECORDS", tmp_path)
        (charged,) = import_finished([plant_vasp("charged", NELECT=7.5)]).dataset
        assert charged.info["charge"] == 0.5
        assert charged.info["fingerprint"] == neutral.info["fingerprint"]

    def test_atoms_that_are_not_those_of_the_structure_are_refused(self, plant_vasp: Any) -> None:
        node = plant_vasp("silicon_static", moved=0.1)
        assert "not where those of its structure are" in import_finished([node]).skipped[node.pk]

    def test_the_cut_off_and_the_functional_tell_labels_apart_the_steps_do_not(self, plant_vasp: Any) -> None:
        engine = load_engine("label", "vasp")

        def settings(**incar: Any) -> Any:
            return engine.inspect_calculation(plant_vasp("silicon_static", **incar)).settings

        assert settings(ALGO="all", nsw=3, ediff=1e-6) == settings()
        assert settings(encut=300) != settings()
        assert settings(metagga="R2SCAN") != settings()
        assert settings(magmom=[1.0, 1.0]) != settings()

    def test_the_command_says_what_became_of_the_calculations(self, plant_vasp: Any, aiida_profile: Any) -> None:
        nodes = [plant_vasp("silicon_static"), plant_vasp("silicon_static"), plant_vasp("silicon_static", 703)]
        group = orm.Group(label=f"runs-{nodes[0].pk}").store()
        group.add_nodes(nodes)
        arguments = ["-p", aiida_profile.name, "import-calculations", "--group", group.label]
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, result.output
        for text in (
            f"skipped <{nodes[2].pk}>: exit status 703",
            "left out: 1 labels of which a later calculation has the structure and fingerprint",
            "review: 0 of 1 labels are put into quarantine",
            "1 frames: 1 labelled",
            "of 1 calculations",
        ):
            assert text in result.output
        nothing = CliRunner().invoke(main, ["-p", aiida_profile.name, "import-calculations", str(nodes[2].pk)])
        assert nothing.exit_code == 1
        assert "none of the calculations gives a label" in nothing.output


def test_kinds_of_an_element_share_a_pseudopotential_or_are_refused() -> None:
    structure = orm.StructureData(cell=[[4, 0, 0], [0, 4, 0], [0, 0, 4]], pbc=True)
    for name in ("Fe1", "Fe2"):
        structure.append_atom(position=(0, 0, 0), symbols="Fe", name=name)
    assert by_symbol({"Fe1": "a", "Fe2": "a"}, structure) == by_symbol({"Fe": "a"}, structure) == {"Fe": "a"}
    with pytest.raises(ValueError, match="atoms of Fe have different pseudopotentials"):
        by_symbol({"Fe1": "a", "Fe2": "b"}, structure)


def test_the_distance_of_a_mesh_is_that_along_periodic_axes() -> None:
    structure = orm.StructureData(cell=[[2, 0, 0], [0, 4, 0], [0, 0, 20]], pbc=[True, True, False])
    columns, points = describe_kpoints(mesh(structure, 4, 1, 1), structure)
    assert columns == {"kpoints_distance": pytest.approx(2 * np.pi / 4)}
    assert points == []
