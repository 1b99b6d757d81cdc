"""Parser of CalibrateCalculation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from aiida.engine import ExitCode

from aiida_alpot.data.uncertainty import UncertaintyData, validate_committee
from aiida_alpot.kernel.tasks.calibrate import OUTPUT
from aiida_alpot.parsers.base import KernelParser


class CalibrateParser(KernelParser):
    """Attaches calibration and active sets."""

    FAILURES: ClassVar[Mapping[str, str]] = {"no_held_out_frames": "ERROR_NO_HELD_OUT_FRAMES"}

    def parse_files(self, folder: Path, report: Mapping[str, Any]) -> ExitCode | None:  # noqa: ARG002
        """Attach ``uncertainty``."""
        try:
            uncertainty = UncertaintyData.from_hdf5(folder / OUTPUT)
        except (OSError, ValueError) as error:
            return self.missing_output(OUTPUT, error)
        problem = validate_committee(uncertainty, self.node.inputs.potentials)
        if problem is not None:
            return self.missing_output(OUTPUT, problem)
        self.out("uncertainty", uncertainty)
        return None
