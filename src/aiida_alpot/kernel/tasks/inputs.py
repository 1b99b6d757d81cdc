"""What the tasks read alike: potentials, labelled frames, deadlines."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from aiida_alpot.kernel.dataset import Dataset
from aiida_alpot.kernel.potentials import Potential, load

STOP_SHARE = 0.9
"""Share of the walltime after which a task ends in good order."""


@dataclass(frozen=True)
class Committee:
    """The potentials of a job with the hashes of their files, in the order of their names."""

    names: tuple[str, ...]
    potentials: tuple[Potential, ...]
    hashes: tuple[str, ...]


def load_committee(task: Mapping[str, Any], folder: Path) -> Committee:
    """Load the potentials that ``task["potentials"]`` names: ``{name: {file, engine, sha256, dtype}}``.

    :raises ValueError: if a file is not the one its hash says, or there is none.
    """
    entries: Mapping[str, Mapping[str, Any]] = task["potentials"]
    if not entries:
        raise ValueError("the job has no potential")
    names = tuple(sorted(entries))
    device = str(task.get("device", "cpu"))
    potentials = []
    for name in names:
        entry = entries[name]
        path = require_file(folder, entry)
        potentials.append(load(path, entry["engine"], device=device, dtype=entry["dtype"]))
    return Committee(names, tuple(potentials), tuple(entries[name]["sha256"] for name in names))


def require_file(folder: Path, entry: Mapping[str, Any]) -> Path:
    """Return the path of a model file whose content has the hash it should have: loading it runs code in it.

    :param entry: ``file`` and ``sha256``.
    :raises ValueError: if the content is another.
    """
    path = folder / str(entry["file"])
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != entry["sha256"]:
        raise ValueError(f"the model file {path.name} has sha256 {found}, expected {entry['sha256']}")
    return path


def compute_deadline(task: Mapping[str, Any]) -> float | None:
    """Return the monotonic time at which the task should end in good order, or None without a walltime."""
    walltime = task.get("walltime_s")
    return None if walltime is None else time.monotonic() + STOP_SHARE * float(walltime)


def read_labelled(dataset: Dataset, split: str | None) -> list[Atoms]:
    """Return the labelled frames of one split (of all if None) in the order of their ids: row order changes nothing."""
    wanted = dataset.column("status") == "labelled"
    if split is not None:
        wanted &= dataset.column("split") == split
    ids = dataset.frame_ids()
    return [dataset[int(i)] for i in np.argsort(ids, kind="stable") if wanted[i]]
