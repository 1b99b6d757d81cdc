"""Parser of EvaluateCalculation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from aiida import orm
from aiida.engine import ExitCode

from aiida_alpot.kernel.tasks.evaluate import OUTPUT, TABLE
from aiida_alpot.parsers.base import KernelParser


class EvaluateParser(KernelParser):
    """Attaches the selected frames and the table of all candidates."""

    def parse_files(self, folder: Path, report: Mapping[str, Any]) -> ExitCode | None:
        """Attach ``selected`` and ``table``."""
        try:
            with (folder / TABLE).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                columns = {name: arrays[name] for name in arrays.files}
            if not all(isinstance(values, np.ndarray) for values in columns.values()):
                return self.missing_output(TABLE, "it holds something that is no array")
            table = orm.ArrayData(columns)
        except Exception as error:  # noqa: BLE001  numpy and zipfile have errors of their own for a damaged file
            return self.missing_output(TABLE, f"{type(error).__name__}: {error}")
        self.out("table", table)
        return self.attach_dataset("selected", folder / OUTPUT, report["results"].get("n_selected"))
