"""Parser of TrainMaceCalculation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from aiida.engine import ExitCode
from ase.data import chemical_symbols

from aiida_alpot.calculations.base import REPORT_FILE
from aiida_alpot.data.potential import PotentialData
from aiida_alpot.kernel.tasks.train_mace import OUTPUT
from aiida_alpot.parsers.base import KernelParser


class TrainMaceParser(KernelParser):
    """Attaches the trained potential."""

    FAILURES: ClassVar[Mapping[str, str]] = {
        "training": "ERROR_TRAINING_FAILED",
        "diverged": "ERROR_DIVERGED",
        "inconsistent_forces": "ERROR_INCONSISTENT_FORCES",
        "out_of_memory": "ERROR_OUT_OF_MEMORY",
        "no_model": "ERROR_NO_MODEL",
    }

    def parse_files(self, folder: Path, report: Mapping[str, Any]) -> ExitCode | None:
        """Attach ``potential``, if the training came to its end."""
        if report["status"] != "ok":
            return None
        results = report["results"]
        parameters = self.node.inputs.parameters.get_dict()
        try:
            energies, cutoff = results["atomic_energies"], float(results["cutoff"])
            symbols = [chemical_symbols[int(number)] for number in energies]
        except (IndexError, KeyError, TypeError, ValueError) as error:
            return self.missing_output(REPORT_FILE, f"atomic_energies or cutoff is unusable ({error!r})")
        try:
            potential = PotentialData.from_file(
                folder / OUTPUT,
                engine="mace",
                symbols=symbols,
                cutoff=cutoff,
                seed=self.node.inputs.seed.value,
                dtype=parameters.get("dtype", "float64"),
            )
        except ValueError as error:
            return self.missing_output(OUTPUT, error)
        self.out("potential", potential)
        return None
