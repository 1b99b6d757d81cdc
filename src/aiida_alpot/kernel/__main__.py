"""The job runner: ``python alpot-kernel.pyz TASK task.json`` on a compute node.

A task reads the files named in ``task.json``, writes its results beside it and returns numbers. What became of it
goes into ``report.json``, which the parser reads: ``status`` is ``ok``, ``interrupted`` (stopped before the walltime,
partial results written), ``missing_package``, ``invalid_input`` or ``failed``.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import re
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from aiida_alpot import __version__
from aiida_alpot.kernel._extras import MissingPackageError, describe_missing
from aiida_alpot.kernel.disk import is_disk_error
from aiida_alpot.kernel.jsonio import read_json, write_json
from aiida_alpot.kernel.tasks import TASKS, TaskError, TaskInterruptedError

REPORT = "report.json"
_PACKAGES = ("ase", "dscribe", "e3nn", "h5py", "mace", "numpy", "scipy", "torch")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one task and write its report.

    :return: exit status of the process: 0 if the results are complete, 1 otherwise, 2 for a wrong call.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if len(arguments) != 2 or arguments[0] not in TASKS:
        sys.stderr.write(f"usage: python alpot-kernel.pyz TASK task.json, with TASK one of {', '.join(TASKS)}\n")
        return 2
    name, task_file = arguments
    start = time.monotonic()
    folder = Path(task_file).resolve().parent
    task: Mapping[str, Any] = {}
    try:
        task = _read_task(Path(task_file))
        report = _run(name, task, folder)
    except ValueError as error:
        report = {"status": "invalid_input", "message": str(error)}
    report.update(task=name, version=__version__, seconds=time.monotonic() - start, **_environment(task))
    try:
        write_json(folder / REPORT, report)
    except OSError as error:
        sys.stderr.write(f"cannot write {REPORT}: {error}; what it would say: {report['message']}\n")
        return 1
    return 0 if report["status"] == "ok" else 1


def _read_task(path: Path) -> Mapping[str, Any]:
    """Return the content of the task file.

    :raises ValueError: if it cannot be read or is no object of JSON.
    """
    try:
        return read_json(path)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"the task file {path.name} cannot be read as a JSON object: {error}; write it again"
        ) from error


def _environment(task: Mapping[str, Any]) -> dict[str, Any]:
    """Return the version of Python and of the packages that the task ran with: the hash of a job knows neither.

    These are the packages that were imported, and those that the task names by a path: calculators are imported in
    processes of their own.
    """
    found: dict[str, str] = {}
    for name in set(sys.modules).intersection(_PACKAGES) | _named_packages(task):
        version = getattr(sys.modules.get(name), "__version__", None)
        with contextlib.suppress(metadata.PackageNotFoundError, ValueError):  # a module of the user has no version
            found[name] = str(version or metadata.version(name))
    return {"python": sys.version.split()[0], "packages": found}


def _named_packages(task: Mapping[str, Any]) -> set[str]:
    """Return the packages of all calculators and feature functions named in a task, those within others too."""
    found: set[str] = set()
    left: list[Any] = [task]
    while left:
        value = left.pop()
        if isinstance(value, Mapping):
            paths = [value.get(key) for key in ("calculator", "feature_kind", "features")]
            found |= {re.split("[.:]", path)[0] for path in paths if isinstance(path, str)}
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)
    return found


def _run(name: str, task: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the report of one task; whatever goes wrong becomes a status and a message."""
    try:
        module = importlib.import_module(TASKS[name])
        return {"status": "ok", "message": "", "results": module.run(task, folder)}
    except MissingPackageError as error:
        return {"status": "missing_package", "package": error.package, "message": str(error)}
    except TaskInterruptedError as error:
        return {"status": "interrupted", "message": str(error), "results": error.results}
    except TaskError as error:
        return {"status": "failed", "code": error.code, "message": str(error), "results": error.results}
    except ModuleNotFoundError as error:
        package, message = describe_missing(error)
        return {"status": "missing_package", "package": package, "message": message}
    except (ValueError, TypeError, KeyError) as error:
        traceback.print_exc()
        return {"status": "invalid_input", "message": f"{type(error).__name__}: {error}"}
    except Exception as error:  # noqa: BLE001  the report is how an unforeseen failure reaches the parser
        if isinstance(error, OSError) or is_disk_error(error):
            return {"status": "failed", "code": "files", "message": describe_file_error(error)}
        traceback.print_exc()
        return {"status": "failed", "code": "exception", "message": f"{type(error).__name__}: {error}"}


def describe_file_error(error: Exception) -> str:
    """Return what went wrong with a file of the job and what to look at."""
    return f"a file of the job cannot be read or written: {error}; look at the quota and permissions of its folder"


if __name__ == "__main__":
    exit_status = main()
    # the search for cycles at the end of Python takes longer than a second once torch is loaded; nothing needs it
    gc.freeze()
    raise SystemExit(exit_status)
