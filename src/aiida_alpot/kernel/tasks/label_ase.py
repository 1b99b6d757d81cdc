"""Task ``label_ase``: reference labels of a whole dataset by an ASE calculator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from aiida_alpot.kernel.labelling import LabelSettings, label_dataset
from aiida_alpot.kernel.settings import parse_settings
from aiida_alpot.kernel.tasks import TaskInterruptedError
from aiida_alpot.kernel.tasks.entries import find_file, read_entry
from aiida_alpot.kernel.tasks.inputs import STOP_SHARE, read_walltime

OUTPUT = "labelled.h5"
SHARDS = "shards"


def run(task: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Write ``labelled.h5`` with every frame of the input: labelled, failed, or not reached (time, too many failed)."""
    settings = parse_settings(LabelSettings, read_entry(task, "settings", dict[str, Any]), "label.parameters")
    walltime = read_walltime(task)
    if walltime is not None:
        settings = replace(settings, walltime_s=STOP_SHARE * walltime)
    frames = find_file(task, "frames", folder)
    known = find_file(task, "known", folder) if "known" in task else None
    report = label_dataset(frames, folder / OUTPUT, settings, folder / SHARDS, folder / "progress.json", known)
    results = asdict(report)
    if report.n_unlabelled and not report.is_given_up:
        raise TaskInterruptedError(f"{report.n_unlabelled} frames are left: the walltime was near", results)
    return results
