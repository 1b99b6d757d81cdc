"""What an exploration has done so far, in files that stay whole when the job is killed: the next attempt goes on."""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from ase import Atoms

from aiida_alpot.kernel.dataset import Dataset, write
from aiida_alpot.kernel.jsonio import plain
from aiida_alpot.kernel.units import FloatArray

from .schedule import TrajectoryPlan

SAVE_INTERVAL: Final = 30.0
"""Seconds between two snapshots of a running trajectory."""


class StateError(OSError):
    """The state cannot be kept: that says nothing of the trajectory, and must not count as its failure."""


@dataclass(frozen=True)
class Snapshot:
    """A running trajectory between two steps.

    :param arrays: of float64: what the dynamics and its statistics need.
    :param numbers: the same for what JSON holds: counters, state of the random numbers.
    :param frames: kept so far.
    """

    arrays: Mapping[str, FloatArray]
    numbers: Mapping[str, Any]
    frames: Sequence[Atoms]


class ExplorationState:
    """The finished trajectories of an exploration, and the last snapshot of the one that runs.

    One file per trajectory, written under a temporary name and renamed. A file that is damaged, or that belongs to
    another exploration, is as good as none: its trajectory runs anew.

    :param folder: where the files are; it must exist.
    :param context: JSON-able; all that trajectories depend on beside their plan. Files of another context are ignored.
    """

    def __init__(self, folder: Path, context: Mapping[str, Any]) -> None:
        self._folder = folder
        self._context = context
        self._last_saved = time.monotonic()

    def load_finished(self, plan: TrajectoryPlan) -> tuple[list[Atoms], dict[str, Any]] | None:
        """Return the frames of a finished trajectory and its entry in the report, or None."""
        found = self._read(plan, "finished")
        return None if found is None else (list(found.frames), dict(found.numbers))

    def save_finished(self, plan: TrajectoryPlan, frames: Sequence[Atoms], entry: Mapping[str, Any]) -> None:
        """Keep a finished trajectory; its snapshot is not needed any more."""
        self._write(plan, "finished", Snapshot({}, entry, frames))
        self._path(plan, "running").unlink(missing_ok=True)

    def load_snapshot(self, plan: TrajectoryPlan) -> Snapshot | None:
        """Return the last snapshot of a trajectory, or None."""
        self._last_saved = time.monotonic()
        return self._read(plan, "running")

    def is_due(self) -> bool:
        """Return whether the last snapshot is old enough for a new one."""
        return time.monotonic() - self._last_saved >= SAVE_INTERVAL

    def save_snapshot(self, plan: TrajectoryPlan, snapshot: Snapshot) -> None:
        """Keep the state of a running trajectory."""
        self._write(plan, "running", snapshot)
        self._last_saved = time.monotonic()

    def _path(self, plan: TrajectoryPlan, kind: str) -> Path:
        return self._folder / f"{kind}-{plan.index:05d}.npz"

    def _key(self, plan: TrajectoryPlan) -> str:
        text = json.dumps([plain(self._context), asdict(plan)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def _write(self, plan: TrajectoryPlan, kind: str, snapshot: Snapshot) -> None:
        path = self._path(plan, kind)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        values = {f"array_{name}": values for name, values in snapshot.arrays.items()}
        numbers = json.dumps(dict(snapshot.numbers))
        try:
            with temporary.open("wb") as file:
                np.savez(
                    file,
                    key=self._key(plan),
                    numbers=numbers,
                    frames=_pack(snapshot.frames),
                    allow_pickle=False,
                    **values,
                )
            temporary.replace(path)
        except OSError as error:
            raise StateError(f"cannot write {path.name}: {error}; make room on the disk of the jobs") from error
        finally:
            temporary.unlink(missing_ok=True)

    def _read(self, plan: TrajectoryPlan, kind: str) -> Snapshot | None:
        try:
            with self._path(plan, kind).open("rb") as file, np.load(file, allow_pickle=False) as stored:
                if str(stored["key"]) != self._key(plan):
                    return None
                arrays = {
                    name.removeprefix("array_"): stored[name] for name in stored.files if name.startswith("array_")
                }
                return Snapshot(arrays, json.loads(str(stored["numbers"])), _unpack(stored["frames"]))
        except (OSError, zipfile.BadZipFile, ValueError, KeyError, EOFError):
            return None


def _pack(frames: Sequence[Atoms]) -> Any:
    handle = io.BytesIO()
    if frames:
        write(handle, frames)
    return np.frombuffer(handle.getvalue(), dtype=np.uint8)


def _unpack(content: Any) -> list[Atoms]:
    if not content.size:
        return []
    with Dataset.open(io.BytesIO(content.tobytes())) as dataset:
        return list(dataset)
