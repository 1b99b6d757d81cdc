"""Joining and filtering datasets: arrays go from file to file in blocks, memory does not grow with the atoms."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np

from aiida_alpot.kernel.dataset.batch import Batch
from aiida_alpot.kernel.dataset.parts import check_types
from aiida_alpot.kernel.dataset.reader import Dataset, DatasetView
from aiida_alpot.kernel.dataset.schema import AnyArray, ColumnSpec
from aiida_alpot.kernel.dataset.storage import PathLike
from aiida_alpot.kernel.dataset.writer import write_batches

Source = PathLike | BinaryIO | Dataset | DatasetView


def merge(sources: Sequence[Source], out: PathLike | BinaryIO, **columns: Any) -> None:
    """Write the frames of all *sources*, one after the other, to a new dataset.

    Columns that a source lacks are filled (NaN, "", the default); frames that occur twice are kept twice.

    :param sources: paths (of files, or of folders with parts), seekable binary handles, open datasets or views.
    :param out: where to; may be one of the sources.
    :param columns: per-frame columns that replace those of the sources, as in :func:`~.writer.write`.
    :raises ValueError: if a user column has different types in two sources.
    """
    check_types(_layouts(sources))
    write_batches(out, _batches(sources), columns)


def filter_frames(
    source: Source,
    select: Callable[[Dataset | DatasetView], AnyArray] | AnyArray | Sequence[int],
    out: PathLike | BinaryIO,
    **columns: Any,
) -> None:
    """Write the selected frames of one source to a new dataset.

    :param select: a mask, indices, or a function that gets the source and returns one of these.
    :param columns: per-frame columns of the frames that stay, as in :func:`~.writer.write`.
    """
    with _opened(source) as reader:
        chosen = select(reader) if callable(select) else select
        reader[np.asarray(chosen)].write(out, **columns)


@contextlib.contextmanager
def _opened(source: Source) -> Iterator[Dataset | DatasetView]:
    if isinstance(source, (Dataset, DatasetView)):
        yield source
        return
    if not isinstance(source, (str, os.PathLike)) and not hasattr(source, "read"):
        raise TypeError(f"expected a path, a binary handle, a Dataset or a DatasetView, got {type(source).__name__}")
    with Dataset.open(source) as dataset:
        yield dataset


def _layouts(sources: Sequence[Source]) -> Iterator[tuple[str, Iterable[ColumnSpec]]]:
    for number, source in enumerate(sources):
        with _opened(source) as reader:
            yield f"dataset {number} ({reader.source})", reader.specs.values()


def _batches(sources: Sequence[Source]) -> Iterator[Batch]:
    # one file is open at a time: a campaign may join more files than a process may open
    for source in sources:
        with _opened(source) as reader:
            yield from reader.iter_batches()
