"""Task ``augment``: more frames from a few by manipulations."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from aiida_alpot.kernel.augmentation import (
    AugmentSettings,
    Report,
    check_potential,
    find_asking,
    stream_augmented,
)
from aiida_alpot.kernel.dataset import Dataset, DatasetView, write
from aiida_alpot.kernel.potentials import Potential
from aiida_alpot.kernel.settings import parse_settings
from aiida_alpot.kernel.tasks.entries import find_file, read_entry
from aiida_alpot.kernel.tasks.inputs import load_committee, read_seed

OUTPUT = "augmented.h5"
REMEDY = "give the job 'potentials', one or more"


def run(task: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Write ``augmented.h5`` and return the report of the manipulations.

    Inputs are numbered, in ``parent_index`` and ``origin``, by the order of their ids without labels, so that the rows
    of the dataset may stand in any order; ``parent_id`` tells the input itself.

    :raises ValueError: if a setting or an input is wrong, or no frame is left.
    """
    settings = parse_settings(AugmentSettings, read_entry(task, "settings", dict[str, Any]), "augment.settings")
    seed = read_seed(task)
    check_potential(settings, is_given=bool(task.get("potentials")), remedy=REMEDY)
    energy = None
    if find_asking(settings):
        energy = mean_energy(load_committee({**task, "device": settings.device}, folder).potentials)
    report = Report()
    with Dataset.open(find_file(task, "frames", folder)) as dataset:
        write(folder / OUTPUT, stream_augmented(order_inputs(dataset), settings, seed, report, energy))
    require_frames(report)
    return {"n_frames": report.n_output, **report.to_dict()}


def mean_energy(potentials: Sequence[Potential]) -> Callable[[Atoms], float]:
    """Return a function that gives the energy of a frame, the mean of the potentials, eV."""

    def compute(atoms: Atoms) -> float:
        return float(np.mean([potential.predict([atoms]).energy[0] for potential in potentials]))

    return compute


def order_inputs(dataset: Dataset) -> DatasetView:
    """Return the frames in the order of their ids without labels, so that the order of rows changes nothing."""
    return dataset[np.argsort(dataset.frame_ids(labels=False), kind="stable")]


def require_frames(report: Report) -> None:
    """Refuse an augmentation that left nothing.

    :raises ValueError: telling what was skipped, dropped and removed.
    """
    if report.n_output == 0:
        raise ValueError(f"no frame is left of {report.n_input}: {json.dumps(report.losses())}")
