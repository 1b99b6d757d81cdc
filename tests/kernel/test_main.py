"""The job runner turns whatever becomes of a task into a report that a parser can read."""

import errno
import json
import sys
import types
from importlib import metadata

import numpy as np
import pytest

from aiida_alpot import __version__
from aiida_alpot.kernel import __main__ as runner
from aiida_alpot.kernel._extras import MissingPackageError, require
from aiida_alpot.kernel.exploration.state import StateError
from aiida_alpot.kernel.tasks import TASKS, TaskError, TaskInterruptedError


@pytest.fixture
def run_task(tmp_path, monkeypatch):
    """Run *function* as if it were the task ``augment``; give the exit status and the report."""

    def run(function, **entries):
        module = types.SimpleNamespace(run=function)
        monkeypatch.setitem(sys.modules, TASKS["augment"], module)
        (tmp_path / "task.json").write_text(json.dumps({"seed": 3, **entries}))
        status = runner.main(["augment", str(tmp_path / "task.json")])
        text = (tmp_path / "report.json").read_text()
        return status, json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))

    return run


def raising(error):
    def run(task, folder):
        raise error

    return run


def test_results_of_a_task_are_reported(run_task, tmp_path):
    status, report = run_task(lambda task, folder: {"seed": task["seed"], "folder": str(folder)})
    assert status == 0
    assert report.pop("seconds") >= 0
    assert report.pop("python").count(".") >= 2
    assert report.pop("packages")["numpy"] == np.__version__
    results = {"seed": 3, "folder": str(tmp_path)}
    assert report == {"status": "ok", "message": "", "results": results, "task": "augment", "version": __version__}


def test_the_packages_of_calculators_are_reported_although_other_processes_import_them(run_task):
    inner = {"calculator": "hypothesis.core:Nothing", "parameters": {}}
    entries = {"calculator": "pytest:Class", "parameters": {"calcs": [inner, {"calculator": "no_such_package:X"}]}}
    _, report = run_task(lambda task, folder: {}, settings=entries)
    assert report["packages"]["pytest"] == pytest.__version__
    assert report["packages"]["hypothesis"] == metadata.version("hypothesis")
    assert "no_such_package" not in report["packages"]


def test_the_packages_of_feature_functions_are_reported(run_task):
    settings = {"feature_kind": "pytest:function", "features": "hypothesis.core:other"}
    _, report = run_task(lambda task, folder: {}, settings=settings)
    assert report["packages"]["pytest"] == pytest.__version__
    assert report["packages"]["hypothesis"] == metadata.version("hypothesis")


def test_an_interrupted_task_reports_what_it_has(run_task):
    status, report = run_task(raising(TaskInterruptedError("the walltime was near", {"n_done": 2})))
    assert status == 1
    assert (report["status"], report["message"], report["results"]) == (
        "interrupted",
        "the walltime was near",
        {"n_done": 2},
    )


def test_a_package_of_an_extra_that_is_missing_is_named(run_task):
    status, report = run_task(lambda task, folder: require("no_such_package", extra="mace"))
    assert status == 1
    assert (report["status"], report["package"]) == ("missing_package", "no_such_package")
    assert "aiida-alpot[mace]" in report["message"]


def test_any_module_that_is_missing_is_named_by_its_package(run_task):
    def run(task, folder):
        import no_such_package.inner  # type: ignore[import-not-found]  # noqa: F401

    _, report = run_task(run)
    assert (report["status"], report["package"]) == ("missing_package", "no_such_package")


@pytest.mark.parametrize("error", [ValueError("bad 7"), TypeError("bad 7"), KeyError("bad 7")])
def test_refused_input_is_reported_with_its_reason(run_task, error, capsys):
    status, report = run_task(raising(error))
    assert (status, report["status"]) == (1, "invalid_input")
    assert type(error).__name__ in report["message"]
    assert "bad 7" in report["message"]
    assert "Traceback" in capsys.readouterr().err


def test_a_known_failure_keeps_its_code_and_results(run_task):
    status, report = run_task(raising(TaskError("diverged", "lower lr", {"rmse": 1.0})))
    assert (status, report["status"], report["code"]) == (1, "failed", "diverged")
    assert (report["message"], report["results"]) == ("lower lr", {"rmse": 1.0})


def test_an_unforeseen_failure_is_reported_too(run_task, capsys):
    status, report = run_task(raising(ZeroDivisionError("by zero")))
    assert (status, report["status"], report["code"]) == (1, "failed", "exception")
    assert report["message"] == "ZeroDivisionError: by zero"
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        StateError("cannot write running-00000.npz"),
        RuntimeError("Can't decrement id ref count (file write failed: errno = 28, error message = 'No space left')"),
    ],
)
def test_a_full_disk_is_told_from_a_failure_of_the_task(run_task, error):
    _, report = run_task(raising(error))
    assert (report["status"], report["code"]) == ("failed", "files")
    assert str(error) in report["message"]
    assert "look at the quota" in report["message"]


def test_numbers_that_are_not_finite_become_null(run_task):
    _, report = run_task(lambda task, folder: {"a": np.nan, "b": [np.float64(np.inf)], "c": np.array([1.0, np.nan])})
    assert report["results"] == {"a": None, "b": [None], "c": [1.0, None]}


def test_an_old_report_survives_a_report_that_cannot_be_written(run_task, tmp_path):
    run_task(lambda task, folder: {})
    before = (tmp_path / "report.json").read_text()
    with pytest.raises(TypeError, match="object"):
        run_task(lambda task, folder: {"unserialisable": object()})
    assert (tmp_path / "report.json").read_text() == before


@pytest.mark.parametrize("arguments", [[], ["augment"], ["augment", "a", "b"], ["augmentt", "task.json"]])
def test_a_wrong_call_ends_with_status_2_and_the_tasks(arguments, capsys):
    assert runner.main(arguments) == 2
    message = capsys.readouterr().err
    assert all(name in message for name in TASKS)


def test_the_command_line_is_read_when_no_arguments_are_given(monkeypatch):
    monkeypatch.setattr(runner.sys, "argv", ["k.pyz", "augment"])
    assert runner.main() == 2


def test_every_task_has_a_module_with_run():
    import importlib

    for name, module in TASKS.items():
        assert callable(importlib.import_module(module).run), name


def test_missing_package_error_is_an_import_error():
    error = MissingPackageError("mace", "mace", "detail 7")
    assert isinstance(error, ImportError)
    assert error.package == "mace"
    assert "detail 7" in str(error)


def test_require_gives_the_module_itself():
    import math

    assert require("math", extra="mace") is math
