"""KernelParser: from the report of a task to outputs and an exit code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from aiida import orm
from aiida.engine import ExitCode
from aiida.parsers import Parser

from aiida_alpot.calculations.base import REPORT_FILE
from aiida_alpot.data.pes import PESData
from aiida_alpot.kernel.jsonio import parse_json

STATUSES = ("ok", "interrupted", "missing_package", "invalid_input", "failed")
"""What became of a task, see :mod:`aiida_alpot.kernel.__main__`."""


class KernelParser(Parser):
    """Reads ``report.json``; subclasses turn files into nodes in :meth:`parse_files`."""

    FAILURES: ClassVar[Mapping[str, str]] = {}
    """Exit code label for each code of a :class:`~aiida_alpot.kernel.tasks.TaskError` that is of one task only."""

    def parse(self, **kwargs: Any) -> ExitCode | None:
        """Attach the outputs there are and return why they are not complete, if so."""
        report, damage = self._read_report()
        temporary = kwargs.get("retrieved_temporary_folder")
        with TemporaryDirectory() as folder:
            self.retrieved.base.repository.copy_tree(folder)
            paths = [Path(folder), *([Path(temporary)] if temporary else [])]
            if report is None:
                return self.parse_killed(paths, damage)
            self.out("report", orm.Dict({key: value for key, value in report.items() if key != "message"}))
            problem = None
            if report["status"] in ("ok", "interrupted"):
                problem = self.parse_files(paths[0], report)
            return problem or self._exit_code(report)

    def parse_files(self, folder: Path, report: Mapping[str, Any]) -> ExitCode | None:
        """Attach the nodes of a task that ended well or in good order; return an exit code if a file is unusable."""
        raise NotImplementedError

    def parse_killed(self, folders: list[Path], damage: str = "") -> ExitCode:
        """Return the exit code of a job that left no usable report, after saving what it left.

        :param damage: what is wrong with the report, empty if there is none.
        """
        detail = damage
        for folder in folders:
            for name in ("_scheduler-stderr.txt",):
                if (folder / name).is_file():
                    lines = (folder / name).read_text(errors="replace").strip().splitlines()
                    detail = lines[-1] if lines else detail
        return self.exit_codes.ERROR_NO_REPORT.format(detail=detail)

    def attach_dataset(self, label: str, path: Path, n_frames: object = None) -> ExitCode | None:
        """Attach the dataset file at *path* as output *label*, or return what is wrong with it.

        :param n_frames: number of frames that the report tells of, None if it tells none.
        """
        try:
            dataset = PESData.from_hdf5(path)
        except (OSError, ValueError) as error:
            return self.missing_output(path.name, error)
        if n_frames is not None and n_frames != len(dataset):
            return self.missing_output(path.name, f"it holds {len(dataset)} frames, the report tells of {n_frames}")
        self.out(label, dataset)
        return None

    def missing_output(self, name: str, detail: object) -> ExitCode:
        """Return the exit code for a file that is missing or unusable."""
        return self.exit_codes.ERROR_OUTPUT_MISSING.format(file=name, detail=str(detail))

    def _read_report(self) -> tuple[dict[str, Any] | None, str]:
        """Return the report, or None and what is wrong with the one there is."""
        try:
            content = self.retrieved.base.repository.get_object_content(REPORT_FILE, "rb")
            report = parse_json(content, REPORT_FILE)
        except FileNotFoundError:
            return None, ""
        except (OSError, ValueError, RecursionError) as error:
            return None, f"{REPORT_FILE} cannot be read: {error}"
        for key, kind in (("status", str), ("message", str), ("results", dict)):
            if not isinstance(report.get(key, kind()), kind) or report.get("status", "") not in STATUSES:
                return None, f"{REPORT_FILE} is no report of a task: {key} is {report.get(key)!r:.60}"
        return {"message": "", "results": {}, **report}, ""

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
        label = {**self.FAILURES, "files": "ERROR_FILES"}.get(report.get("code", ""), "ERROR_TASK_FAILED")
        return codes[label].format(detail=detail)
