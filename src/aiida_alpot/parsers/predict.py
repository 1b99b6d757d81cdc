"""Parser of PredictCalculation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiida.engine import ExitCode

from aiida_alpot.kernel.tasks.predict import OUTPUT
from aiida_alpot.parsers.base import KernelParser


class PredictParser(KernelParser):
    """Attaches the frames with their predictions."""

    def parse_files(self, folder: Path, report: Mapping[str, Any]) -> ExitCode | None:
        """Attach ``predicted``."""
        return self.attach_dataset("predicted", folder / OUTPUT, report["results"].get("n_frames"))
