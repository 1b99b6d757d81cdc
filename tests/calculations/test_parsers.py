"""How a job ended becomes an exit code with its detail, whatever the job left behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from aiida.plugins import CalculationFactory, ParserFactory

from aiida_alpot.engines.job import REPEATABLE
from aiida_alpot.kernel.tasks import TASKS

pytestmark = pytest.mark.usefixtures("aiida_profile")
Parse = Callable[..., tuple[dict[str, Any], int, str]]

NAMES = [f"alpot.{task}" for task in TASKS]


@pytest.mark.parametrize("name", NAMES)
def test_a_job_without_report_was_killed(parse: Parse, name: str) -> None:
    stderr = b"warning\nslurmstepd: error: Exceeded job memory limit\n"
    outputs, status, message = parse(name, None, files={"_scheduler-stderr.txt": stderr})
    assert (outputs, status) == ({}, 302)
    assert "Exceeded job memory limit" in message


@pytest.mark.parametrize("content", [b"", b'{"status": "o', b"[]", b"{}"])
def test_a_report_that_was_cut_off_counts_as_none(parse: Parse, content: bytes) -> None:
    assert parse("alpot.augment", None, files={"report.json": content})[1] == 302


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_package_is_named(parse: Parse, name: str) -> None:
    report = {"status": "missing_package", "package": "mace", "message": "no module"}
    outputs, status, message = parse(name, report)
    assert status == 310
    assert "lacks the package mace: no module" in message
    assert outputs["report"]["package"] == "mace"


@pytest.mark.parametrize("name", NAMES)
def test_refused_input_says_why(parse: Parse, name: str) -> None:
    _, status, message = parse(name, {"status": "invalid_input", "message": "ValueError: seed is odd"})
    assert status == 320
    assert "seed is odd" in message


@pytest.mark.parametrize("name", NAMES)
def test_an_unforeseen_failure_keeps_its_message(parse: Parse, name: str) -> None:
    _, status, message = parse(name, {"status": "failed", "code": "exception", "message": "ZeroDivisionError: by 0"})
    assert status == 400
    assert "ZeroDivisionError: by 0" in message


@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk_has_an_exit_code_of_its_own_that_is_tried_again(parse: Parse, name: str) -> None:
    _, status, message = parse(name, {"status": "failed", "code": "files", "message": "No space left on device"})
    assert status == 305
    assert status in REPEATABLE
    assert "No space left on device" in message


FAILURES = {
    ("alpot.train_mace", "training"): 410,
    ("alpot.train_mace", "diverged"): 411,
    ("alpot.train_mace", "inconsistent_forces"): 412,
    ("alpot.train_mace", "out_of_memory"): 413,
    ("alpot.train_mace", "no_model"): 414,
    ("alpot.calibrate", "no_held_out_frames"): 420,
    ("alpot.explore_ase", "no_frames"): 430,
}


@pytest.mark.parametrize(("name", "failure"), FAILURES)
def test_a_known_failure_has_its_own_exit_code_and_keeps_its_numbers(parse: Parse, name: str, failure: str) -> None:
    report = {"status": "failed", "code": failure, "message": "because", "results": {"n": 3}}
    outputs, status, message = parse(name, report)
    assert status == FAILURES[name, failure]
    assert "because" in message
    assert outputs["report"]["results"] == {"n": 3}
    assert set(outputs) == {"report"}


@pytest.mark.parametrize("name", NAMES)
def test_every_failure_of_a_task_is_listed_here(name: str) -> None:
    parser = ParserFactory(name)
    assert set(parser.FAILURES) == {failure for entry, failure in FAILURES if entry == name}
    assert set(parser.FAILURES.values()) <= set(CalculationFactory(name).exit_codes)


FILES = {
    "alpot.augment": "augmented.h5",
    "alpot.label_ase": "labelled.h5",
    "alpot.calibrate": "uncertainty.h5",
    "alpot.explore_ase": "candidates.h5",
    "alpot.evaluate": "table.npz",
    "alpot.predict": "predicted.h5",
}


@pytest.mark.parametrize(("name", "file"), FILES.items())
@pytest.mark.parametrize("content", [None, b"\x89HDF\r\n cut off"])
def test_a_file_that_is_missing_or_cut_off_is_named(parse: Parse, name: str, file: str, content: bytes | None) -> None:
    files = {} if content is None else {file: content}
    outputs, status, message = parse(name, {"status": "ok", "message": "", "results": {}}, files=files)
    assert status == 303
    assert f"no usable file {file}" in message
    assert set(outputs) == {"report"}


def test_a_training_that_ended_well_without_its_model_is_not_ok(parse: Parse) -> None:
    from aiida import orm

    results = {"atomic_energies": {"29": -1.0}, "cutoff": 4.0}
    inputs = {"parameters": orm.Dict({}).store(), "seed": orm.Int(1).store()}
    outputs, status, message = parse(
        "alpot.train_mace", {"status": "ok", "message": "", "results": results}, inputs=inputs
    )
    assert status == 303
    assert "potential.model" in message
    assert set(outputs) == {"report"}


def test_an_exploration_interrupted_before_its_first_frame_gives_no_candidates(parse: Parse) -> None:
    report = {"status": "interrupted", "message": "the walltime was near", "results": {"n_frames": 0}}
    outputs, status, message = parse("alpot.explore_ase", report, files={"candidates.h5": b"no frame"})
    assert status == 500
    assert "the walltime was near" in message
    assert set(outputs) == {"report"}


def test_an_interrupted_training_gives_no_potential(parse: Parse) -> None:
    outputs, status, message = parse(
        "alpot.train_mace", {"status": "interrupted", "message": "the walltime was near", "results": {}}
    )
    assert status == 500
    assert "the walltime was near" in message
    assert set(outputs) == {"report"}
