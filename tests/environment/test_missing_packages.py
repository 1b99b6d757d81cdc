"""A job whose Python lacks a package says which, and how to get it, in exit code 310."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest
from aiida import orm
from aiida.engine import run_get_node
from aiida.manage.caching import enable_caching

from aiida_alpot.calculations.augment import AugmentCalculation
from aiida_alpot.calculations.calibrate import CalibrateCalculation
from aiida_alpot.calculations.label_ase import LabelAseCalculation
from aiida_alpot.calculations.train_mace import TrainMaceCalculation
from aiida_alpot.data.pes import PESData
from aiida_alpot.data.potential import PotentialData
from aiida_alpot.kernel.archive import FILENAME, build_archive
from aiida_alpot.kernel.tasks import TASKS

TORCH = ("torch", "mace", "e3nn")


@pytest.fixture(scope="session")
def bare_node(make_environment: Callable[..., Path]) -> Path:
    """The Python of a compute node without any engine."""
    return make_environment("bare-node", without=(*TORCH, "tblite"))


@pytest.fixture
def run_in(localhost: orm.Computer, fast_options: dict[str, Any]) -> Callable[..., tuple[dict[str, Any], Any]]:
    """Run a CalcJob through a code that points at another Python."""

    def run(python: Path, process: type, **inputs: Any) -> tuple[dict[str, Any], Any]:
        code = orm.InstalledCode(label="elsewhere", computer=localhost, filepath_executable=str(python))
        code.prepend_text = "unset PYTHONPATH"
        plain = {"parameters", "settings", "seed"}
        nodes = {key: orm.to_aiida_type(value) if key in plain else value for key, value in inputs.items()}
        return run_get_node(process, code=code.store(), metadata={"options": fast_options}, **nodes)

    return run


def run_python(python: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([python, *arguments], capture_output=True, text=True, check=False, env={})


@pytest.mark.parametrize("name", ["aiida", "aiida_alpot", "plumpy", "kiwipy"])
def test_a_compute_node_has_neither_aiida_nor_this_package(compute_node: Path, name: str) -> None:
    done = run_python(compute_node, "-c", f"import {name}")
    assert f"No module named '{name}'" in done.stderr


def test_a_compute_node_has_the_engines(compute_node: Path) -> None:
    assert run_python(compute_node, "-c", "import ase, h5py, mace, scipy, tblite").returncode == 0


def test_a_training_without_mace_names_it(run_in: Callable[..., Any], bare_node: Path, copper_dataset: PESData) -> None:
    outputs, node = run_in(bare_node, TrainMaceCalculation, dataset=copper_dataset, parameters={}, seed=1)
    assert node.exit_status == 310, node.exit_message
    assert "lacks the package mace" in node.exit_message
    assert "pip install 'mace-torch>=" in node.exit_message
    assert outputs["report"]["package"] == "mace"


@pytest.mark.slow
def test_a_training_with_mace_but_without_what_mace_needs_names_it(
    run_in: Callable[..., Any], make_environment: Callable[..., Path], copper_dataset: PESData
) -> None:
    python = make_environment("no-e3nn", without=("e3nn",))
    hyperparameters = {"max_num_epochs": 1}
    _, node = run_in(
        python, TrainMaceCalculation, dataset=copper_dataset, parameters={"hyperparameters": hyperparameters}, seed=1
    )
    assert node.exit_status == 310, node.exit_message
    assert "lacks the package e3nn" in node.exit_message


def test_a_committee_that_cannot_be_loaded_names_its_package(
    run_in: Callable[..., Any], bare_node: Path, copper_dataset: PESData, tiny_committee: dict[str, PotentialData]
) -> None:
    _, node = run_in(bare_node, CalibrateCalculation, dataset=copper_dataset, potentials=tiny_committee)
    assert node.exit_status == 310, node.exit_message
    assert "lacks the package mace" in node.exit_message


def test_a_calibration_by_soap_without_dscribe_names_it(
    run_in: Callable[..., Any],
    make_environment: Callable[..., Path],
    copper_dataset: PESData,
    tiny_committee: dict[str, PotentialData],
) -> None:
    python = make_environment("no-dscribe", without=("dscribe",))
    inputs = {"dataset": copper_dataset, "potentials": tiny_committee, "settings": {"feature_kind": "soap"}}
    outputs, node = run_in(python, CalibrateCalculation, **inputs)
    assert node.exit_status == 310, node.exit_message
    assert "lacks the package dscribe" in node.exit_message
    assert "pip install 'dscribe>=" in node.exit_message
    assert "uncertainty" not in outputs


def test_a_labelling_without_its_calculator_names_it(
    run_in: Callable[..., Any], bare_node: Path, copper: PESData
) -> None:
    parameters = {"calculator": "tblite.ase:TBLite", "parameters": {"method": "GFN2-xTB"}}
    outputs, node = run_in(bare_node, LabelAseCalculation, frames=copper, parameters=parameters)
    assert node.exit_status == 310, node.exit_message
    assert "lacks the package tblite" in node.exit_message
    assert "pip install 'tblite>=" in node.exit_message
    assert "labelled" not in outputs


def test_a_job_without_a_package_that_all_need_names_it(
    run_in: Callable[..., Any], make_environment: Callable[..., Path], copper: PESData
) -> None:
    python = make_environment("no-h5py", without=("h5py",))
    _, node = run_in(python, AugmentCalculation, frames=copper, settings={"copies": 1, "rattle": {}}, seed=1)
    assert node.exit_status == 310, node.exit_message
    assert "lacks the package h5py" in node.exit_message
    assert "pip install 'ase>=" in node.exit_message


def test_a_job_runs_again_with_caching_once_the_package_is_there(
    run_in: Callable[..., Any], make_environment: Callable[..., Path], copper: PESData
) -> None:
    python = make_environment("h5py-comes-later", without=("h5py",))
    inputs = {"frames": copper, "settings": {"copies": 1, "rattle": {}}, "seed": 1}
    with enable_caching():
        _, refused = run_in(python, AugmentCalculation, **inputs)
        for entry in Path(h5py.__file__).parents[1].glob("h5py*"):
            (Path(next(python.parents[1].glob("lib/python*/site-packages"))) / entry.name).symlink_to(entry)
        _, node = run_in(python, AugmentCalculation, **inputs)
        _, again = run_in(python, AugmentCalculation, **inputs)
    assert refused.exit_status == 310, refused.exit_message
    assert node.is_finished_ok, node.exit_message
    assert node.base.caching.compute_hash() == refused.base.caching.compute_hash()
    assert again.base.caching.get_cache_source() == node.uuid


@pytest.fixture(scope="module")
def incomplete(make_environment: Callable[..., Path]) -> dict[str, Path]:
    """Pythons that lack one of the packages that every job needs."""
    return {name: make_environment(f"no-{name}", without=(name,)) for name in ("ase", "h5py", "numpy", "scipy")}


@pytest.mark.parametrize("package", ["ase", "h5py", "numpy", "scipy"])
@pytest.mark.parametrize("task", sorted(TASKS))
def test_every_task_names_the_package_that_it_lacks(
    incomplete: dict[str, Path], tmp_path: Path, task: str, package: str
) -> None:
    (tmp_path / FILENAME).write_bytes(build_archive())
    (tmp_path / "task.json").write_text("{}")
    done = run_python(incomplete[package], tmp_path / FILENAME, task, tmp_path / "task.json")
    report = json.loads((tmp_path / "report.json").read_text())
    assert (done.returncode, report["status"], report["package"]) == (1, "missing_package", package), done.stderr
    assert f"'{package}>=" in report["message"]
