"""LabelAseCalculation: labels, reasons for those that have none, and nothing done twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from aiida_alpot.calculations.label_ase import LabelAseCalculation
from aiida_alpot.data.pes import PESData
from aiida_alpot.kernel.__main__ import main

PARAMETERS = {"calculator": "ase.calculators.emt:EMT"}

DEADLY = """
import os
from ase.calculators.emt import EMT


class Deadly(EMT):
    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        if len(atoms) == 2:
            os._exit(9)
        super().calculate(atoms, properties, system_changes)
"""


@pytest.fixture(scope="module")
def mixed(aiida_profile: Any, make_copper: Callable[..., list[Atoms]]) -> PESData:
    """Three frames of copper and, second, one of iron, which EMT does not know."""
    frames = make_copper(3, seed=11)
    iron = bulk("Fe", cubic=True)
    iron.info["group"] = "iron"
    return PESData.from_frames([frames[0], iron, *frames[1:]]).store()


@pytest.fixture(scope="module")
def labelled(run_job: Callable[..., Any], mixed: PESData) -> Any:
    return run_job(LabelAseCalculation, frames=mixed, parameters=PARAMETERS, n_processes=2)


def test_labels_are_those_of_the_calculator_in_the_order_of_the_frames(labelled: Any, mixed: PESData) -> None:
    outputs, node = labelled
    assert node.is_finished_ok, node.exit_message
    for source, atoms in zip(mixed, outputs["labelled"], strict=True):
        np.testing.assert_array_equal(atoms.positions, source.positions)
        if atoms.info["status"] == "labelled":
            source.calc = EMT()
            assert atoms.calc.results["energy"] == pytest.approx(source.get_potential_energy(), abs=1e-10)
            np.testing.assert_allclose(atoms.calc.results["forces"], source.get_forces(), atol=1e-10)
            np.testing.assert_allclose(atoms.calc.results["stress"], source.get_stress(), atol=1e-12)


def test_a_frame_that_cannot_be_labelled_says_why_and_the_others_are_labelled(labelled: Any) -> None:
    with labelled[0]["labelled"].dataset() as dataset:
        assert dataset.column("status").tolist() == ["labelled", "failed", "labelled", "labelled"]
        reasons = dataset.column("reason").tolist()
    assert "Fe" in reasons[1]
    assert reasons[0] == reasons[2] == reasons[3] == ""


def test_the_report_counts(labelled: Any) -> None:
    results = labelled[0]["report"]["results"]
    assert (results["n_labelled"], results["n_failed"], results["n_unlabelled"]) == (3, 1, 0)


def test_as_many_workers_as_mpi_slots(labelled: Any) -> None:
    task = json.loads(labelled[1].base.repository.get_object_content("task.json"))
    assert task["settings"]["n_workers"] == 2


def test_a_partial_output_is_only_completed(
    run_job: Callable[..., Any], labelled: Any, make_copper: Callable[..., list[Atoms]]
) -> None:
    done = list(labelled[0]["labelled"])
    kept = [atoms for atoms in done if atoms.info["status"] == "labelled"]
    kept[0].calc.results["energy"] = 123.0  # would not survive a second labelling
    new = make_copper(1, seed=12)
    outputs, node = run_job(
        LabelAseCalculation, frames=PESData.from_frames([*kept, *new]).store(), parameters=PARAMETERS
    )
    assert node.is_finished_ok, node.exit_message
    assert outputs["labelled"].n_labelled == 4
    assert outputs["labelled"][0].calc.results["energy"] == 123.0


def test_known_labels_of_the_same_structures_are_taken(run_job: Callable[..., Any], labelled: Any, mixed: Any) -> None:
    known = [atoms for atoms in labelled[0]["labelled"] if atoms.info["status"] == "labelled"][:2]
    known[1].calc.results["energy"] = 123.0  # would not survive a second labelling
    outputs, node = run_job(
        LabelAseCalculation, frames=mixed, known=PESData.from_frames(known).store(), parameters=PARAMETERS
    )
    assert node.is_finished_ok, node.exit_message
    assert outputs["report"]["results"]["n_reused"] == 2
    assert outputs["labelled"][2].calc.results["energy"] == 123.0


@pytest.fixture(scope="module")
def killed(
    run_job: Callable[..., Any],
    make_code: Callable[..., Any],
    make_copper: Callable[..., list[Atoms]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Any:
    """A job whose process dies at its third frame of four."""
    folder = tmp_path_factory.mktemp("deadly")
    (folder / "deadly_calculator.py").write_text(DEADLY)
    frames = make_copper(4, seed=13)
    del frames[2][[0, 1]]
    return run_job(
        LabelAseCalculation,
        code=make_code("deadly", f"export PYTHONPATH={folder}"),
        frames=PESData.from_frames(frames).store(),
        parameters={"calculator": "deadly_calculator:Deadly", "isolated": False},
    )


def test_the_labels_of_a_killed_job_are_kept(killed: Any) -> None:
    outputs, node = killed
    assert node.exit_status == 501, (node.exit_status, node.exit_message)
    assert "report" not in outputs
    with outputs["labelled"].dataset() as dataset:
        assert dataset.column("status").tolist() == ["labelled", "labelled", "unlabelled", "unlabelled"]
        assert set(dataset.column("reason")[2:]) == {"not reached"}


def test_shards_are_not_kept_in_the_repository(killed: Any) -> None:
    _, node = killed
    assert not any("shard" in name for name in node.outputs.retrieved.base.repository.list_object_names())


def test_a_job_killed_before_its_first_label_leaves_no_output(parse: Callable[..., Any], mixed: PESData) -> None:
    outputs, status, _ = parse("alpot.label_ase", None, inputs={"frames": mixed})
    assert (outputs, status) == ({}, 302)


def test_a_job_killed_right_after_its_start_has_no_labels_to_keep(
    parse: Callable[..., Any], mixed: PESData, tmp_path: Path
) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "labelling.json").write_text('{"fingerprint": "0"}')
    outputs, status, _ = parse("alpot.label_ase", None, inputs={"frames": mixed}, temporary=tmp_path)
    assert (outputs, status) == ({}, 302)


def test_a_damaged_shard_is_not_taken_for_a_label(parse: Callable[..., Any], mixed: PESData, tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "labelling.json").write_text('{"fingerprint": "0"}')
    (tmp_path / "shards" / "frame-000000.npz").write_bytes(b"half a sha")
    outputs, status, _ = parse("alpot.label_ase", None, inputs={"frames": mixed}, temporary=tmp_path)
    assert status == 501
    assert outputs["labelled"].n_labelled == 0


def test_a_killed_job_on_a_dataset_in_parts_hands_over_every_frame(
    parse: Callable[..., Any], mixed: PESData, make_copper: Callable[..., list[Atoms]], tmp_path: Path
) -> None:
    parts = PESData.join([mixed, PESData.from_frames(make_copper(2, seed=12)).store()]).store()
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "labelling.json").write_text('{"fingerprint": "0"}')
    (tmp_path / "shards" / "frame-000000.npz").write_bytes(b"half a sha")
    outputs, status, _ = parse("alpot.label_ase", None, inputs={"frames": parts}, temporary=tmp_path)
    assert status == 501
    assert [atoms.info["group"] for atoms in outputs["labelled"]] == [atoms.info["group"] for atoms in parts]


def test_shards_of_an_unknown_run_are_named(parse: Callable[..., Any], mixed: PESData, tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "frame-000000.npz").write_bytes(b"half a sha")
    outputs, status, message = parse("alpot.label_ase", None, inputs={"frames": mixed}, temporary=tmp_path)
    assert (outputs, status) == ({}, 303)
    assert "labelling.json" in message


def test_a_job_near_its_walltime_hands_over_what_it_has(
    parse: Callable[..., Any], mixed: PESData, tmp_path: Path
) -> None:
    mixed.export(tmp_path / "frames.h5")
    task = {"settings": {**PARAMETERS, "isolated": False}, "frames": "frames.h5", "walltime_s": 1e-6}
    (tmp_path / "task.json").write_text(json.dumps(task))
    assert main(["label_ase", str(tmp_path / "task.json")]) == 1
    report = json.loads((tmp_path / "report.json").read_text())
    outputs, status, message = parse(
        "alpot.label_ase",
        report,
        files={"labelled.h5": (tmp_path / "labelled.h5").read_bytes()},
        inputs={"frames": mixed},
    )
    assert status == 500
    assert "4 frames are left" in message
    assert len(outputs["labelled"]) == 4
    assert outputs["labelled"].n_labelled == 0


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"calculator": "ase.calculators.emt:EMT", "n_worker": 2}, "unknown key 'n_worker'; did you mean 'n_workers'"),
        ({}, "label.parameters: 'calculator' is required"),
        ({"calculator": "EMT"}, "EMT"),
        ({**PARAMETERS, "n_workers": 0}, "n_workers must be positive, got 0"),
    ],
)
def test_wrong_parameters_are_refused_by_name(
    run_job: Callable[..., Any], mixed: PESData, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run_job(LabelAseCalculation, frames=mixed, parameters=parameters)


def test_an_empty_dataset_is_refused(run_job: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="frames: the dataset has no frame"):
        run_job(LabelAseCalculation, frames=PESData.from_frames([]), parameters=PARAMETERS)
