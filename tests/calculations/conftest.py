"""Jobs that ran once and are looked at by many tests, and planted jobs for the parsers."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from aiida import orm
from aiida.engine import run_get_node
from aiida.plugins import CalculationFactory
from ase import Atoms

from aiida_alpot.calculations.calibrate import CalibrateCalculation
from aiida_alpot.calculations.evaluate import EvaluateCalculation
from aiida_alpot.calculations.explore_ase import ExploreAseCalculation
from aiida_alpot.data.pes import PESData
from aiida_alpot.data.potential import PotentialData

Run = Callable[..., tuple[dict[str, Any], orm.CalcJobNode]]


@pytest.fixture(scope="session")
def make_code(aiida_profile: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., orm.InstalledCode]:
    """Make this Python a code, with lines of shell before it."""
    computer = orm.Computer(
        label="calculations",
        hostname="localhost",
        transport_type="core.local",
        scheduler_type="core.direct",
        workdir=str(tmp_path_factory.mktemp("jobs")),
    ).store()
    computer.configure(use_login_shell=False, safe_interval=0.0)
    computer.set_minimum_job_poll_interval(0)

    def make(label: str, prepend_text: str = "") -> orm.InstalledCode:
        code = orm.InstalledCode(label=label, computer=computer, filepath_executable=sys.executable)
        code.prepend_text = f"export OMP_NUM_THREADS=1\n{prepend_text}"
        return code.store()

    return make


@pytest.fixture(scope="session")
def code(make_code: Callable[..., orm.InstalledCode]) -> orm.InstalledCode:
    """This Python as a code that outlives a test."""
    return make_code("calculations")


@pytest.fixture(scope="session")
def run_job(code: orm.InstalledCode) -> Run:
    """Run a CalcJob here and now; plain values become nodes."""

    def run(process: type, *, n_processes: int = 1, walltime_s: int = 600, **inputs: Any) -> Any:
        options = {
            "resources": {"num_machines": 1, "num_mpiprocs_per_machine": n_processes},
            "max_wallclock_seconds": walltime_s,
        }
        plain = {"settings", "parameters", "trajectories", "seed"}
        nodes = {name: orm.to_aiida_type(value) if name in plain else value for name, value in inputs.items()}
        return run_get_node(process, **{"code": code, "metadata": {"options": options}, **nodes})

    return run


@pytest.fixture
def parse(parse_files: Callable[..., Any]) -> Callable[..., Any]:
    """Parse what a job left: the report (None: it was killed), files, and files that are not kept."""

    def run_parser(
        name: str, report: Mapping[str, Any] | None, *, files: Mapping[str, bytes] | None = None, **others: Any
    ) -> tuple[dict[str, Any], int, str]:
        assert CalculationFactory(name).spec().inputs["metadata"]["options"]["parser_name"].default == name
        return parse_files(
            name, {**(files or {}), **({} if report is None else {"report.json": _json(report)})}, **others
        )

    return run_parser


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content).encode()


@pytest.fixture(scope="session")
def committee(aiida_profile: Any, tiny_models: list[Path]) -> dict[str, PotentialData]:
    """Three untrained potentials of copper that outlive a test."""
    return {
        path.stem: PotentialData.from_file(path, engine="mace", symbols=["Cu"], cutoff=4.0, seed=seed).store()
        for seed, path in enumerate(tiny_models)
    }


@pytest.fixture(scope="session")
def starting_frames(aiida_profile: Any, make_copper: Callable[..., list[Atoms]]) -> PESData:
    """Two unlabelled frames of copper."""
    return PESData.from_frames(make_copper(2, seed=21, stdev=0.02)).store()


@pytest.fixture(scope="session")
def dataset(aiida_profile: Any, make_copper: Callable[..., list[Atoms]], label_emt: Any) -> PESData:
    """Eight labelled frames to train on and one to three in every other split."""
    splits = ["train"] * 8 + ["validation"] * 2 + ["test"] + ["calibration"] * 3
    return PESData.from_frames(label_emt(make_copper(len(splits), seed=5)), split=splits).store()


CALIBRATE_SETTINGS = {"tolerances": {"energy": 0.001, "force": 0.05, "stress": 0.001}, "n_min": 2}
EXPLORE_SETTINGS = {
    "ensemble": "nvt",
    "temperatures": [300.0],
    "pressures": [0.0],
    "n_steps": 20,
    "sample_every": 5,
    "check_every": 5,
    "health": {"max_force": 1000.0, "max_temperature_ratio": 100.0},
}
EVALUATE_SETTINGS = {"budget": 4, "control_share": 0.25, "validation_share": 0.0}


@pytest.fixture(scope="session")
def calibrated(run_job: Run, committee: dict[str, PotentialData], dataset: PESData) -> Any:
    """Outputs and node of a calibration."""
    return run_job(CalibrateCalculation, potentials=committee, dataset=dataset, settings=CALIBRATE_SETTINGS)


@pytest.fixture(scope="session")
def explore_inputs(calibrated: Any, committee: dict[str, PotentialData], starting_frames: PESData) -> dict[str, Any]:
    """Inputs of an exploration of two trajectories."""
    return {
        "potentials": committee,
        "uncertainty": calibrated[0]["uncertainty"],
        "frames": starting_frames,
        "settings": EXPLORE_SETTINGS,
        "seed": 3,
        "trajectories": {"first": 0, "last": 2, "iteration": 1},
    }


@pytest.fixture(scope="session")
def explored(run_job: Run, explore_inputs: dict[str, Any]) -> Any:
    """Outputs and node of an exploration."""
    return run_job(ExploreAseCalculation, **explore_inputs)


@pytest.fixture(scope="session")
def evaluate_inputs(
    calibrated: Any, explored: Any, committee: dict[str, PotentialData], dataset: PESData
) -> dict[str, Any]:
    """Inputs of an evaluation of the explored frames."""
    return {
        "potentials": committee,
        "uncertainty": calibrated[0]["uncertainty"],
        "candidates": {"j000": explored[0]["candidates"]},
        "dataset": dataset,
        "settings": EVALUATE_SETTINGS,
        "seed": 4,
    }


@pytest.fixture(scope="session")
def evaluated(run_job: Run, evaluate_inputs: dict[str, Any]) -> Any:
    """Outputs and node of an evaluation."""
    return run_job(EvaluateCalculation, **evaluate_inputs)
