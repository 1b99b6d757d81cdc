"""One small file per labelled frame: what a killed run leaves behind, and what the next one starts from."""

from __future__ import annotations

import io
import os
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from aiida_alpot.kernel.labelling.residuals import drop_errors
from aiida_alpot.kernel.units import FloatArray

LABELS: Final = ("energy", "forces", "stress", "magmoms")


@dataclass(frozen=True)
class Shard:
    """The labels of one frame, or why it has none.

    :param structure_id: of :func:`~aiida_alpot.kernel.labelling.identity.label_ids`: a shard of another frame is not
        used.
    :param fingerprint: of the settings of the label.
    :param status: ``"labelled"``, ``"failed"`` or ``"quarantined"``.
    :param reason: one line, empty for a labelled frame.
    :param cost: seconds the calculator took.
    :param labels: ``energy`` (eV), ``forces`` (eV/Å), and where there are any ``stress`` (eV/Å³) and ``magmoms``.
    """

    structure_id: str
    fingerprint: str
    status: str
    reason: str = ""
    cost: float = float("nan")
    labels: dict[str, FloatArray] = field(default_factory=dict)

    def apply(self, atoms: Atoms) -> Atoms:
        """Return *atoms* with these labels and book-keeping in place of its own; ``parent`` stays."""
        frame = without_labels(atoms)
        if self.labels:
            labels: dict[str, Any] = dict(self.labels)
            labels["energy"] = float(labels["energy"])
            frame.calc = SinglePointCalculator(frame, **labels)
        frame.info.update(status=self.status, reason=self.reason, cost=self.cost, fingerprint=self.fingerprint)
        return frame


def without_labels(atoms: Atoms) -> Atoms:
    """Return a copy of *atoms* that has no labels, and no errors of a committee on them."""
    frame = atoms.copy()
    frame.calc = None
    drop_errors(frame)
    return frame


def shard_path(folder: Path, index: int) -> Path:
    """Return where the shard of frame *index* is."""
    return folder / f"frame-{index:06d}.npz"


def write_shard(folder: Path, index: int, shard: Shard) -> None:
    """Write a shard under a temporary name and rename it: a reader never sees half of one.

    :raises OSError: if it cannot be written; nothing is left of it.
    """
    path = shard_path(folder, index)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    values: dict[str, Any] = {f"label_{name}": np.asarray(label) for name, label in shard.labels.items()}
    values |= {name: np.array(getattr(shard, name)) for name in ("structure_id", "fingerprint", "status", "reason")}
    content = io.BytesIO()  # a zip file that cannot be written raises more than an OSError
    np.savez(content, cost=np.float64(shard.cost), **values)
    try:
        temporary.write_bytes(content.getvalue())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_shard(folder: Path, index: int) -> Shard | None:
    """Return the shard of frame *index*, None if there is none that can be read."""
    try:
        with shard_path(folder, index).open("rb") as file, np.load(file, allow_pickle=False) as stored:
            values = dict(stored)
        return Shard(
            structure_id=str(values["structure_id"]),
            fingerprint=str(values["fingerprint"]),
            status=str(values["status"]),
            reason=str(values["reason"]),
            cost=float(values["cost"]),
            labels={name: values[f"label_{name}"] for name in LABELS if f"label_{name}" in values},
        )
    except (FileNotFoundError, zipfile.BadZipFile, ValueError, KeyError, EOFError):
        # not there, or damaged by a full disk: the frame is labelled again
        return None


def read_matching_shard(folder: Path, index: int, structure_id: str, fingerprint: str | None) -> Shard | None:
    """Return the shard of frame *index* if it is about this structure and, unless None, has this fingerprint."""
    shard = read_shard(folder, index)
    if shard is None or shard.structure_id != structure_id:
        return None
    return shard if fingerprint in (None, shard.fingerprint) else None
