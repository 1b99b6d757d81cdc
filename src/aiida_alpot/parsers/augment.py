"""Parser of AugmentCalculation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiida.engine import ExitCode

from aiida_alpot.kernel.tasks.augment import OUTPUT
from aiida_alpot.parsers.base import KernelParser


class AugmentParser(KernelParser):
    """Attaches the augmented frames."""

    def parse_files(self, folder: Path, report: Mapping[str, Any]) -> ExitCode | None:
        """Attach ``frames``."""
        return self.attach_dataset("frames", folder / OUTPUT, report["results"].get("n_frames"))
