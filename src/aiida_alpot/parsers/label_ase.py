"""Parser of LabelAseCalculation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from aiida.engine import ExitCode

from aiida_alpot.kernel.dataset import Dataset
from aiida_alpot.kernel.labelling import partial_pack
from aiida_alpot.kernel.tasks.label_ase import OUTPUT, SHARDS
from aiida_alpot.parsers.base import KernelParser


class LabelAseParser(KernelParser):
    """Attaches the labelled frames; those of a killed job are packed from what it left."""

    def parse_files(self, folder: Path, report: Mapping[str, Any]) -> ExitCode | None:
        """Attach ``labelled``."""
        problem = self._find_lie(folder / OUTPUT)
        if problem is not None:
            return self.missing_output(OUTPUT, problem)
        return self.attach_dataset("labelled", folder / OUTPUT, report["results"].get("n_frames"))

    def _find_lie(self, path: Path) -> str | None:
        """Return what is wrong if the file does not hold the frames that the job was given."""
        try:
            with Dataset.open(path) as found, self.node.inputs.frames.dataset() as given:
                same = sorted(found.frame_ids(labels=False)) == sorted(given.frame_ids(labels=False))
        except (OSError, ValueError) as error:
            return str(error)
        return None if same else "its frames are not those that the job was given; look into its folder"

    def parse_killed(self, folders: list[Path], damage: str = "") -> ExitCode:
        """Save the frames that a killed job had finished."""
        code = super().parse_killed(folders, damage)
        shards = next((folder / SHARDS for folder in folders if any((folder / SHARDS).glob("frame-*"))), None)
        if shards is None:
            return code
        source = self.node.inputs.frames
        with TemporaryDirectory() as scratch, source.base.repository.as_path() as path:
            try:
                partial_pack(path, shards, Path(scratch) / OUTPUT)
            except (KeyError, OSError, ValueError) as error:
                return self.missing_output(SHARDS, error)
            problem = self.attach_dataset("labelled", Path(scratch) / OUTPUT)
        return problem or self.exit_codes.ERROR_KILLED_WITH_LABELS.format(detail=code.message)
