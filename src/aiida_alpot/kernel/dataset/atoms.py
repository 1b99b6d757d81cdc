"""From a batch of flat arrays to ``ase.Atoms``.

The constructors of ASE validate and copy several times over (20 µs a frame, and as much for the calculator); the values
here were checked when the dataset was written. So one blank frame and one blank calculator are built by ASE, and every
frame gets their attributes, whatever the installed ASE gives them, with its own cell, pbc, arrays and info.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.cell import Cell

from aiida_alpot.kernel.dataset.batch import Batch, Column
from aiida_alpot.kernel.dataset.schema import INFO_COLUMNS, LABELS, SCHEMA, AnyArray
from aiida_alpot.kernel.units import BoolArray


class _Blank:
    """The attributes of an object that ASE built: those that every clone shares and those it gets a copy of."""

    def __init__(self, blank: Any, skip: Sequence[str]) -> None:
        attributes = {name: value for name, value in vars(blank).items() if name not in skip}
        self._copied = [(name, value.copy) for name, value in attributes.items() if hasattr(value, "copy")]
        self._shared = {name: value for name, value in attributes.items() if not hasattr(value, "copy")}

    def clone(self) -> dict[str, Any]:
        """Return the attributes of a new object."""
        attributes = self._shared.copy()
        for name, copy in self._copied:
            attributes[name] = copy()
        return attributes


_ATOMS = Atoms("H", positions=np.zeros((1, 3)))
_CELL = next(name for name, value in vars(_ATOMS).items() if isinstance(value, Cell))
_PBC = next(name for name, value in vars(_ATOMS).items() if np.shape(value) == (3,) and value.dtype == bool)
_BLANK = _Blank(_ATOMS, skip=("arrays", "info", _CELL, _PBC))
_BLANK_CALCULATOR = _Blank(SinglePointCalculator(_ATOMS), skip=("atoms", "results"))


def build_frame(arrays: Mapping[str, AnyArray], cell: AnyArray, pbc: AnyArray, info: dict[str, Any]) -> Atoms:
    """Return a frame with copies of *arrays*, *cell* and *pbc*, which are not checked; *info* is not copied.

    :param arrays: per atom, ``numbers`` and ``positions`` among them.
    """
    atoms = Atoms.__new__(Atoms)
    attributes = _BLANK.clone()
    attributes["arrays"] = {name: values.copy() for name, values in arrays.items()}
    attributes["info"] = info
    attributes[_CELL] = Cell(cell.copy())
    attributes[_PBC] = pbc.copy()
    atoms.__dict__ = attributes
    return atoms


def _calculator(atoms: Atoms, results: dict[str, Any]) -> SinglePointCalculator:
    """Return a calculator that knows the results of *atoms*, its own copy of the frame."""
    calculator = SinglePointCalculator.__new__(SinglePointCalculator)
    calculator.__dict__ = _BLANK_CALCULATOR.clone()
    calculator.atoms, calculator.results = atoms, results
    return calculator


def frames_from_batch(batch: Batch) -> list[Atoms]:
    """Return the frames of a batch as ``Atoms`` that share no memory with it."""
    fields = _InfoFields(batch)
    labels = [_Label(batch.columns[name], batch.present(name)) for name in LABELS if name in batch.columns]
    arrays = [
        (name, column, batch.present(name))
        for name, column in batch.columns.items()
        if column.spec.role == "user" and column.spec.per == "atom"
    ]
    numbers, positions, cells, pbcs = (batch.values(name) for name in ("numbers", "positions", "cell", "pbc"))
    bounds = batch.offsets.tolist()
    frames = []
    for k in range(batch.n_frames):
        rows = slice(bounds[k], bounds[k + 1])
        kept = {"numbers": numbers[rows], "positions": positions[rows]}
        for name, column, present in arrays:
            if present[k]:
                kept[name] = column.values[rows].astype(str) if column.spec.kind == "str" else column.values[rows]
        atoms = build_frame(kept, cells[k], pbcs[k], fields.row(k))
        results = {label.name: label.value(k, rows) for label in labels if label.present[k]}
        if results:
            atoms.calc = _calculator(build_frame(kept, cells[k], pbcs[k], {}), results)
        frames.append(atoms)
    return frames


class _Label:
    """One label of all frames of a batch."""

    def __init__(self, column: Column, present: BoolArray) -> None:
        self.name, self._per_atom = column.spec.name, column.spec.per == "atom"
        self._is_number = not self._per_atom and not column.spec.shape
        self.present: list[bool] = present.tolist()
        self._values = column.values.tolist() if self._is_number else column.values

    def value(self, k: int, rows: slice) -> Any:
        """Return the label of frame *k*, a number or an array of its own."""
        return self._values[k] if self._is_number else self._values[rows if self._per_atom else k].copy()


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
