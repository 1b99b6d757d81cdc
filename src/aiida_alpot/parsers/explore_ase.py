"""Parser of ExploreAseCalculation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from aiida.engine import ExitCode

from aiida_alpot.kernel.tasks.explore_ase import OUTPUT
from aiida_alpot.parsers.base import KernelParser


class ExploreAseParser(KernelParser):
    """Attaches the frames that the trajectories left."""

    FAILURES: ClassVar[Mapping[str, str]] = {"no_frames": "ERROR_NO_FRAMES"}

    def parse_files(self, folder: Path, report: Mapping[str, Any]) -> ExitCode | None:
        """Attach ``candidates``, unless the walltime came before the first of them."""
        n_frames = report["results"].get("n_frames")
        if n_frames == 0:
            return None
        return self.attach_dataset("candidates", folder / OUTPUT, n_frames)
