"""From a batch of flat arrays to ``ase.Atoms``.

The constructors of ASE validate and copy several times over (140 µs a frame); the values here were checked when the
dataset was written. So one blank frame and one blank calculator are built by ASE and cloned for every frame, which
takes whatever attributes the installed ASE gives them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from aiida_alpot.kernel.dataset.batch import Batch, Column
from aiida_alpot.kernel.dataset.schema import INFO_COLUMNS, LABELS, SCHEMA, AnyArray

T = TypeVar("T")
_BLANK = Atoms("H", positions=np.zeros((1, 3)))
_BLANK_CALCULATOR = SinglePointCalculator(_BLANK)
_BLANK_CALCULATOR.atoms = None


def _clone(blank: T) -> T:
    """Return a copy of an object that shares no mutable attribute with it."""
    new = object.__new__(type(blank))
    new.__dict__.update({key: value.copy() if hasattr(value, "copy") else value for key, value in vars(blank).items()})
    return new


def _frame(arrays: dict[str, AnyArray], cell: AnyArray, pbc: AnyArray) -> Atoms:
    atoms = _clone(_BLANK)
    atoms.arrays = {name: values.copy() for name, values in arrays.items()}
    atoms.cell[:] = cell
    atoms.pbc = pbc
    return atoms


def frames_from_batch(batch: Batch) -> list[Atoms]:
    """Return the frames of a batch as ``Atoms`` that share no memory with it."""
    fields = _InfoFields(batch)
    labels = {name: (batch.columns[name], batch.present(name)) for name in LABELS if name in batch.columns}
    arrays = {
        name: (column, batch.present(name))
        for name, column in batch.columns.items()
        if column.spec.role == "user" and column.spec.per == "atom"
    }
    numbers, positions, cell, pbc = (batch.values(name) for name in ("numbers", "positions", "cell", "pbc"))
    bounds = batch.offsets.tolist()
    frames = []
    for k in range(batch.n_frames):
        rows = slice(bounds[k], bounds[k + 1])
        kept = {"numbers": numbers[rows], "positions": positions[rows]}
        for name, (column, present) in arrays.items():
            if present[k]:
                kept[name] = column.values[rows].astype(str) if column.spec.kind == "str" else column.values[rows]
        atoms = _frame(kept, cell[k], pbc[k])
        results = {name: _row(column, k, rows) for name, (column, present) in labels.items() if present[k]}
        if results:
            calculator = _clone(_BLANK_CALCULATOR)
            calculator.results = results
            calculator.atoms = _frame(kept, cell[k], pbc[k])
            atoms.calc = calculator
        atoms.info.update(fields.row(k))
        frames.append(atoms)
    return frames


def _row(column: Column, k: int, rows: slice) -> Any:
    if column.spec.per == "atom":
        return column.values[rows].copy()
    return column.values[k].copy() if column.spec.shape else column.values[k].item()


class _InfoFields:
    """What goes into ``atoms.info``: every book-keeping column, and the others where a frame has a value."""

    def __init__(self, batch: Batch) -> None:
        self._columns: list[tuple[str, Sequence[Any], Sequence[bool] | None]] = []
        names: Iterable[str] = dict.fromkeys([*INFO_COLUMNS, *batch.columns])
        for name in names:
            spec = SCHEMA[name] if name in SCHEMA else batch.columns[name].spec
            if spec.per != "frame" or (spec.role == "science" and name not in INFO_COLUMNS):
                continue
            values = batch.values(name) if name in SCHEMA else batch.columns[name].values
            always = spec.role == "bookkeeping" or name == "fingerprint"
            rows: Sequence[Any] = [row.copy() for row in values] if spec.shape else values.tolist()
            self._columns.append((name, rows, None if always else batch.present(name).tolist()))

    def row(self, k: int) -> dict[str, Any]:
        """Return the entries of frame *k*."""
        return {name: values[k] for name, values, present in self._columns if present is None or present[k]}
