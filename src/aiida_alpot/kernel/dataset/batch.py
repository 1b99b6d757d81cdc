"""A batch: a block of frames as flat arrays, the form in which frames move between files and ``ase.Atoms``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from aiida_alpot.kernel.dataset.schema import SCHEMA, AnyArray, ColumnSpec
from aiida_alpot.kernel.units import BoolArray, IntArray

MAX_FRAMES = 1024
"""Frames in one block."""
MAX_ATOMS = 131072
"""Atoms in one block, unless a single frame has more."""


@dataclass(frozen=True)
class Column:
    """Values of one column in a batch; ``present`` says which frames have one (None: all)."""

    spec: ColumnSpec
    values: AnyArray
    present: BoolArray | None = None


@dataclass
class Batch:
    """Frames as arrays: ``offsets`` (n_frames + 1,) starts at 0, a column has a row per frame or per atom."""

    offsets: IntArray
    columns: dict[str, Column] = field(default_factory=dict)

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return len(self.offsets) - 1

    @property
    def n_atoms(self) -> int:
        """Number of atoms of all frames."""
        return int(self.offsets[-1])

    def n_rows(self, spec: ColumnSpec) -> int:
        """Return how many rows a column of this kind has."""
        return self.n_frames if spec.per == "frame" else self.n_atoms

    def values(self, name: str) -> AnyArray:
        """Return the values of a known column, defaults where it is absent."""
        if name in self.columns:
            return self.columns[name].values
        spec = SCHEMA[name]
        return spec.empty(self.n_rows(spec))

    def present(self, name: str) -> BoolArray:
        """Return which frames have a value in column *name*, shape (n_frames,)."""
        column = self.columns.get(name)
        if column is None:
            return np.zeros(self.n_frames, dtype=bool)
        if column.spec.role == "user":
            return np.ones(self.n_frames, dtype=bool) if column.present is None else column.present
        return has_value(column.spec, column.values, self.offsets)


def has_value(spec: ColumnSpec, values: AnyArray, offsets: IntArray) -> BoolArray:
    """Return which frames have a value in a known column: not all NaN, not the default, shape (n_frames,)."""
    if spec.name in ("numbers", "positions", "cell", "pbc"):
        return np.ones(len(offsets) - 1, dtype=bool)
    if spec.kind == "float" and np.isnan(spec.fill):
        missing: BoolArray = np.asarray(np.isnan(values), dtype=bool)
    else:
        missing = np.asarray(values == spec.fill, dtype=bool)
    given: BoolArray = np.asarray(~missing.reshape(len(values), math.prod(spec.shape)).all(axis=1), dtype=bool)
    if spec.per == "frame":
        return given
    counts = np.concatenate([[0], np.cumsum(given)])
    return np.asarray(counts[offsets[1:]] > counts[offsets[:-1]])


def replace_columns(batch: Batch, columns: Mapping[str, Any]) -> None:
    """Put *columns* (already :class:`Column` per name) into the batch, over what it held."""
    for name, column in columns.items():
        old = batch.columns.get(name)
        if old is not None and old.spec.per != column.spec.per:
            raise ValueError(f"column {name!r} is per {old.spec.per} in the frames and per {column.spec.per} here")
        batch.columns[name] = column
