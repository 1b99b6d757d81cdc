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
from aiida_alpot.kernel.settings import SettingsError
from aiida_alpot.kernel.tasks.entries import TASK_FILE, find_file, read_entry
from aiida_alpot.kernel.uncertainty import UncertaintyModel

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
    entries: Mapping[str, Any] = read_entry(task, "potentials", dict[str, Any])
    if not entries:
        raise ValueError("the job has no potential")
    names = tuple(sorted(entries))
    device = str(task.get("device", "cpu"))
    potentials = []
    for name in names:
        where = f"{TASK_FILE}: potentials.{name}"
        path = require_file(folder, entries[name], where)
        engine, dtype = (read_entry(entries[name], key, str, where) for key in ("engine", "dtype"))
        potentials.append(load(path, engine, device=device, dtype=dtype))
    return Committee(names, tuple(potentials), tuple(str(entries[name]["sha256"]) for name in names))


def load_uncertainty(task: Mapping[str, Any], folder: Path, committee: Committee) -> UncertaintyModel:
    """Load the error bars of a committee, and import what the features of its grades need.

    :raises ValueError: if they belong to another committee.
    :raises MissingPackageError: if a package of the features is not installed.
    """
    model = UncertaintyModel.load(find_file(task, "uncertainty", folder))
    model.require_models(committee.hashes)
    if model.active_set is not None:
        model.feature_spec.require()
    return model


def require_file(folder: Path, entry: Any, where: str) -> Path:
    """Return the path of a model file whose content has the hash it should have: loading it runs code in it.

    :param entry: ``file`` and ``sha256``.
    :param where: names the entry in messages.
    :raises ValueError: if an entry or the file is missing, or the content is another.
    """
    path, expected = find_file(entry, "file", folder, where), read_entry(entry, "sha256", str, where)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != expected:
        raise ValueError(f"the model file {path.name} has sha256 {found}, expected {expected}; copy it again")
    return path


def compute_deadline(task: Mapping[str, Any]) -> float | None:
    """Return the monotonic time at which the task should end in good order, or None without a walltime."""
    walltime = read_walltime(task)
    return None if walltime is None else time.monotonic() + STOP_SHARE * walltime


def read_walltime(task: Mapping[str, Any]) -> float | None:
    """Return the walltime of the job in seconds, None without one.

    :raises SettingsError: if it is no number of at least 0.
    """
    if task.get("walltime_s") is None:
        return None
    walltime = read_entry(task, "walltime_s", float)
    if walltime < 0:
        raise SettingsError(f"{TASK_FILE}: walltime_s must not be negative, got {walltime:g}")
    return walltime


def read_seed(task: Mapping[str, Any]) -> int:
    """Return the seed of the job.

    :raises SettingsError: if it is no integer of at least 0.
    """
    seed = read_entry(task, "seed", int)
    if seed < 0:
        raise SettingsError(f"{TASK_FILE}: seed must be at least 0, got {seed}")
    return seed


def read_labelled(dataset: Dataset, split: str | None) -> list[Atoms]:
    """Return the labelled frames of one split (of all if None) in the order of their ids: row order changes nothing."""
    wanted = dataset.column("status") == "labelled"
    if split is not None:
        wanted &= dataset.column("split") == split
    ids = dataset.frame_ids()
    return [dataset[int(i)] for i in np.argsort(ids, kind="stable") if wanted[i]]
