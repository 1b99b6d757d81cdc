"""KernelParser: from the report of a task to outputs and an exit code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from aiida import orm
from aiida.engine import ExitCode
from aiida.parsers import Parser

from aiida_alpot.calculations.base import REPORT_FILE
from aiida_alpot.data.pes import PESData


class KernelParser(Parser):
    """Reads ``report.json``; subclasses turn files into nodes in :meth:`parse_files`."""

    FAILURES: ClassVar[Mapping[str, str]] = {}
    """Exit code label for each code of a :class:`~aiida_alpot.kernel.tasks.TaskError`."""

    def parse(self, **kwargs: Any) -> ExitCode | None:
        """Attach the outputs there are and return why they are not complete, if so."""
        report = self._read_report()
        temporary = kwargs.get("retrieved_temporary_folder")
        with TemporaryDirectory() as folder:
            self.retrieved.base.repository.copy_tree(folder)
            paths = [Path(folder), *([Path(temporary)] if temporary else [])]
            if report is None:
                return self.parse_killed(paths)
            self.out("report", orm.Dict({key: value for key, value in report.items() if key != "message"}))
            problem = None
            if report["status"] in ("ok", "interrupted"):
                problem = self.parse_files(paths[0], report)
            return problem or self._exit_code(report)

    def parse_files(self, folder: Path, report: Mapping[str, Any]) -> ExitCode | None:
        """Attach the nodes of a task that ended well or in good order; return an exit code if a file is unusable."""
        raise NotImplementedError

    def parse_killed(self, folders: list[Path]) -> ExitCode:
        """Return the exit code of a job that left no report, after saving what it left."""
        detail = ""
        for folder in folders:
            for name in ("_scheduler-stderr.txt",):
                if (folder / name).is_file():
                    lines = (folder / name).read_text(errors="replace").strip().splitlines()
                    detail = lines[-1] if lines else detail
        return self.exit_codes.ERROR_NO_REPORT.format(detail=detail)

    def attach_dataset(self, label: str, path: Path) -> ExitCode | None:
        """Attach the dataset file at *path* as output *label*, or return what is wrong with it."""
        try:
            self.out(label, PESData.from_hdf5(path))
        except (OSError, ValueError) as error:
            return self.missing_output(path.name, error)
        return None

    def missing_output(self, name: str, detail: object) -> ExitCode:
        """Return the exit code for a file that is missing or unusable."""
        return self.exit_codes.ERROR_OUTPUT_MISSING.format(file=name, detail=str(detail))

    def _read_report(self) -> dict[str, Any] | None:
        try:
            report = json.loads(self.retrieved.base.repository.get_object_content(REPORT_FILE, "r"))
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return report if isinstance(report, dict) and "status" in report else None

    def _exit_code(self, report: Mapping[str, Any]) -> ExitCode | None:
        detail = report["message"]
        codes = self.exit_codes
        if report["status"] == "ok":
            return None
        if report["status"] == "interrupted":
            return codes.ERROR_INTERRUPTED.format(detail=detail)
        if report["status"] == "missing_package":
            return codes.ERROR_MISSING_PACKAGE.format(package=report.get("package", "?"), detail=detail)
        if report["status"] == "invalid_input":
            return codes.ERROR_INVALID_INPUT.format(detail=detail)
        label = self.FAILURES.get(report.get("code", ""), "ERROR_TASK_FAILED")
        return codes[label].format(detail=detail)
