"""Task ``augment``: more frames from a few by manipulations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from aiida_alpot.kernel.augmentation import AugmentSettings, augment
from aiida_alpot.kernel.dataset import Dataset, write
from aiida_alpot.kernel.settings import parse_settings
from aiida_alpot.kernel.tasks.entries import find_file, read_entry
from aiida_alpot.kernel.tasks.inputs import read_seed

OUTPUT = "augmented.h5"


def run(task: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Write ``augmented.h5`` and return the report of the manipulations."""
    settings = parse_settings(AugmentSettings, read_entry(task, "settings", dict[str, Any]), "augment.settings")
    seed = read_seed(task)
    with Dataset.open(find_file(task, "frames", folder)) as dataset:
        ids = dataset.frame_ids(labels=False)
        frames = [dataset[int(i)] for i in np.argsort(ids, kind="stable")]  # row order changes nothing
    result = augment(frames, settings, seed)
    write(folder / OUTPUT, result.frames)
    return {"n_frames": len(result.frames), **result.report}
