"""Calibrate and evaluate by builders alone, as docs/how-to/start-anywhere.md says, with a committee of two families."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiida import orm
from aiida.engine import run_get_node
from aiida.plugins import WorkflowFactory
from ase import Atoms

from aiida_alpot.data.pes import PESData
from aiida_alpot.data.potential import PotentialData
from aiida_alpot.kernel.potentials import load

pytestmark = pytest.mark.slow


@pytest.fixture
def committee(aiida_profile: Any, tiny_models: list[Path], tmp_path: Path) -> dict[str, PotentialData]:
    """The first member has neither features nor the species that the second knows only."""
    text = tmp_path / "emt.json"
    text.write_text(json.dumps({"calculator": "ase.calculators.emt:EMT"}))
    return {
        "m000": PotentialData.from_file(text, engine="ase", symbols=["Cu", "Ag"]),
        "m001": PotentialData.from_file(tiny_models[0], engine="mace", symbols=["Cu"], cutoff=4.0),
    }


def test_error_bars_and_a_choice_among_own_frames_need_no_campaign(
    committee: dict[str, PotentialData],
    python_code: orm.InstalledCode,
    copper_dataset: PESData,
    make_copper: Callable[..., list[Atoms]],
    tiny_models: list[Path],
) -> None:
    calibrate = WorkflowFactory("alpot.calibrate").get_builder()
    calibrate.code = python_code
    calibrate.potentials = committee
    calibrate.dataset = copper_dataset
    calibrate.settings = orm.Dict({"tolerances": {"energy": 0.001, "force": 0.05}, "n_min": 2})
    calibrated = run_get_node(calibrate)[1]
    assert calibrated.is_finished_ok, calibrated.exit_message
    uncertainty = calibrated.outputs.uncertainty
    assert uncertainty.model_hashes == [committee[name].sha256 for name in ("m000", "m001")]
    assert set(uncertainty.thresholds) == {"energy", "force"}

    evaluate = WorkflowFactory("alpot.evaluate").get_builder()
    evaluate.code = python_code
    evaluate.potentials = calibrated.inputs.potentials
    evaluate.uncertainty = uncertainty
    evaluate.candidates = {"mine": PESData.from_frames([*make_copper(6, seed=7), *list(copper_dataset)[:2]])}
    evaluate.dataset = calibrated.inputs.dataset
    evaluate.settings = orm.Dict({"strategy": "best_first", "budget": 4})
    evaluate.seed = orm.Int(1)
    evaluated = run_get_node(evaluate)[1]
    assert evaluated.is_finished_ok, evaluated.exit_message
    results = evaluated.outputs.report["results"]
    assert (results["n_candidates"], results["n_known"]) == (8, 2)
    assert 0 < len(evaluated.outputs.selected) <= 4
    assert all("grade" in atoms.info["selection_reason"] for atoms in evaluated.outputs.selected if not control(atoms))

    # grades are those of the features of the second member
    model, member = uncertainty.model(), load(tiny_models[0], "mace")
    frames = list(evaluated.outputs.selected)
    expected = sorted(model.frame_grade(member.features(frames), len(frames)))
    table = evaluated.outputs.table
    assert sorted(table.get_array("grade")[table.get_array("selected")]) == pytest.approx(expected, rel=1e-6)


def control(atoms: Atoms) -> bool:
    return bool(atoms.info["control"])
