"""What a dataset refuses: a bad frame is named, with what to do about it."""

from __future__ import annotations

import difflib
from typing import Any, Final

import numpy as np

from aiida_alpot.kernel.dataset.batch import Batch
from aiida_alpot.kernel.dataset.schema import SPLITS, STATUSES
from aiida_alpot.kernel.geometry import smallest_heights
from aiida_alpot.kernel.units import BoolArray

MIN_CELL_HEIGHT: Final = 0.5
"""Å, smallest distance of an atom from its image along a periodic axis: two thirds of the bond in H2."""


def check_batch(batch: Batch, start: int) -> None:
    """Check every frame of a batch.

    :param start: number of the first frame of the batch in the dataset, for messages.
    :raises ValueError: naming the first bad frame, what is wrong with it and what to do.
    """
    counts = np.diff(batch.offsets)
    _refuse(counts == 0, start, "has no atoms; leave it out")
    _check_rows(batch)
    _check_words(batch, start)
    numbers = batch.values("numbers")
    bad: Any = (numbers < 1) | (numbers > 118)
    _refuse(_any_atom(batch, bad), start, "has an atomic number outside 1–118; replace dummy atoms by elements")
    bad = ~np.isfinite(batch.values("positions")).all(axis=1)
    _refuse(_any_atom(batch, bad), start, "has a position that is not finite; leave the frame out")
    cell, pbc = batch.values("cell"), batch.values("pbc")
    _refuse(~np.isfinite(cell).all(axis=(1, 2)), start, "has a cell that is not finite; leave the frame out")
    bad = (pbc & ~cell.any(axis=2)).any(axis=1)
    _refuse(bad, start, "is periodic along an axis whose cell vector is zero; set the cell, or pbc to False there")
    heights = smallest_heights(cell, pbc)
    bad = heights <= 0.0
    _refuse(bad, start, "has periodic cell vectors in one plane or line; correct the cell, or set pbc to False there")
    bad = heights < MIN_CELL_HEIGHT
    problem = f"repeats after less than {MIN_CELL_HEIGHT} Å along a periodic axis; is its cell in Å? Correct it"
    _refuse(bad, start, problem)
    _check_labels(batch, start)


def _refuse(bad: Any, start: int, problem: str) -> None:
    if bad.any():
        raise ValueError(f"frame {start + int(np.argmax(bad))} {problem}")


def _any_atom(batch: Batch, bad: Any) -> BoolArray:
    counts = np.concatenate([[0], np.cumsum(bad)])
    return np.asarray(counts[batch.offsets[1:]] > counts[batch.offsets[:-1]])


def _check_rows(batch: Batch) -> None:
    for name, column in batch.columns.items():
        expected = (batch.n_rows(column.spec), *column.spec.shape)
        if column.values.shape != expected:
            raise ValueError(f"column {name!r} has shape {column.values.shape}, expected {expected}")


def _check_words(batch: Batch, start: int) -> None:
    for name, valid in (("split", SPLITS), ("status", STATUSES)):
        values = batch.values(name)
        bad = ~np.isin(values.astype(str), valid)
        if bad.any():
            word = str(values[int(np.argmax(bad))])
            near = difflib.get_close_matches(word, valid, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"valid values: {', '.join(map(repr, valid))}"
            _refuse(bad, start, f"has the unknown {name} {word!r}; {hint}")


def _check_labels(batch: Batch, start: int) -> None:
    """Labels are complete and finite where the status says labelled; elsewhere they are kept as they are."""
    labelled = np.asarray(batch.values("status") == "labelled", dtype=bool)
    remedy = "give finite labels, or set its status to 'unlabelled' or 'failed'"
    bad: Any = ~np.isfinite(batch.values("energy"))
    _refuse(labelled & bad, start, f"is labelled but its energy is missing or not finite; {remedy}")
    bad = _any_atom(batch, ~np.isfinite(batch.values("forces")).all(axis=1))
    _refuse(labelled & bad, start, f"is labelled but its forces are missing or not finite; {remedy}")
    bad = batch.present("stress") & ~np.isfinite(batch.values("stress")).all(axis=1)
    _refuse(labelled & bad, start, f"is labelled but its stress is not finite; {remedy}")
    bad = batch.present("magmoms") & _any_atom(batch, ~np.isfinite(batch.values("magmoms")))
    _refuse(labelled & bad, start, f"is labelled but its magmoms are not finite; {remedy}")
    weight = batch.values("weight")
    _refuse(~np.isfinite(weight) | (weight < 0), start, "has a weight that is negative or not finite; use 0 to skip it")
