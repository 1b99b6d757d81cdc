"""Predictions with error bars as a job, and as a command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida import orm
from ase import Atoms
from ase.io import read, write
from click.testing import CliRunner, Result

from aiida_alpot.calculations.predict import PredictCalculation
from aiida_alpot.cli import main
from aiida_alpot.data.pes import PESData
from aiida_alpot.data.potential import PotentialData


@pytest.fixture
def frames(make_copper: Callable[..., list[Atoms]]) -> list[Atoms]:
    return make_copper(3, seed=31)


def test_a_job_gives_every_frame_its_error_bars(
    run_job: Any, calibrated: Any, committee: dict[str, PotentialData], frames: list[Atoms]
) -> None:
    uncertainty = calibrated[0]["uncertainty"]
    outputs, node = run_job(
        PredictCalculation, potentials=committee, uncertainty=uncertainty, frames=PESData.from_frames(frames)
    )
    assert node.is_finished_ok, node.exit_message
    predicted = list(outputs["predicted"])
    model = uncertainty.model()
    for atoms, given in zip(predicted, frames, strict=True):
        np.testing.assert_array_equal(atoms.positions, given.positions)
        for name in ("energy", "force", "force_max", "stress"):
            expected = model.calibrations[name].predict_error(atoms.info[f"disagreement_{name}"])
            assert atoms.info[f"error_{name}"] == pytest.approx(float(expected))
            assert atoms.info[f"radius_{name}"] > 0
        assert atoms.info["grade"] == pytest.approx(atoms.arrays["atom_grade"].max())
        assert atoms.info["status"] == "unlabelled"
    results = outputs["report"]["results"]
    assert results["n_frames"] == 3
    assert set(results["above_tolerance"]) == {"energy", "force", "stress"}
    assert any("too few" in text for text in results["warnings"])  # of four held-out frames


def test_error_bars_of_another_committee_are_refused(
    run_job: Any, calibrated: Any, committee: dict[str, PotentialData], frames: list[Atoms]
) -> None:
    others = {name: committee[name] for name in sorted(committee)[:2]}
    with pytest.raises(ValueError, match="calibrated with other potentials"):
        run_job(
            PredictCalculation,
            potentials=others,
            uncertainty=calibrated[0]["uncertainty"],
            frames=PESData.from_frames(frames),
        )


@pytest.fixture
def call(
    aiida_profile: Any, python_code: Any, frames: list[Atoms], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., Result]:
    """Return a function that predicts ``in.xyz`` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    write("in.xyz", frames, format="extxyz")

    def run(*arguments: object) -> Result:
        given = ["-p", aiida_profile.name, "predict", "in.xyz", "--code", python_code.pk, *arguments]
        return CliRunner().invoke(main, [str(argument) for argument in given])

    return run


@pytest.mark.parametrize("what", ["node", "process"])
def test_the_command_finds_the_committee_and_leaves_a_file(
    call: Callable[..., Result], calibrated: Any, what: str
) -> None:
    outputs, node = calibrated
    result = call("--from", outputs["uncertainty"].pk if what == "node" else node.pk)
    assert result.exit_code == 0, result.output
    assert "predicting 3 frames of in.xyz" in result.output
    assert "by 3 potentials" in result.output
    assert "within 90 %" in result.output
    assert "frames above 0.05" in result.output
    predicted = read("in-predicted.xyz", index=":", format="extxyz")
    assert all(atoms.info["radius_force"] >= atoms.info["error_force"] > 0 for atoms in predicted)
    assert predicted[0].arrays["committee_forces"].shape == (len(predicted[0]), 3)
    pk = int(result.output.rsplit("predicted frames PESData <", 1)[1].split(">")[0])
    assert orm.load_node(pk).creator.inputs.frames.creator.inputs.file.filename == "in.xyz"


def test_what_is_wrong_is_said_before_anything_is_stored(
    call: Callable[..., Result], calibrated: Any, committee: dict[str, PotentialData]
) -> None:
    before = orm.QueryBuilder().append(orm.Node).count()
    pk = calibrated[0]["uncertainty"].pk
    potential = committee[min(committee)].pk
    for arguments, message in (
        (("--from", "no-such-node"), "--from: "),
        (("--from", potential), "expected an UncertaintyData"),
        (("--from", calibrated[1].inputs.dataset.pk), "expected an UncertaintyData"),
        (("--from", pk, "--confidence", 1.5), "confidence must be in (0, 1)"),
        (("--from", pk, "--output", "there/out.xyz"), "there is no folder there"),
        (("--from", pk, "--option", "withmpi"), "--option: expected KEY=VALUE"),
    ):
        result = call(*arguments)
        assert result.exit_code == 1, result.output
        assert message in result.output
        assert "Traceback" not in result.output
    assert orm.QueryBuilder().append(orm.Node).count() == before
