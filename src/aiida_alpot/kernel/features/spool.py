"""Features that are more than the memory: written to a temporary file once, read chunk by chunk as often as needed."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Final

import numpy as np
import numpy.typing as npt

from aiida_alpot.kernel.potentials.base import Features
from aiida_alpot.kernel.units import IntArray

IN_MEMORY: Final = 2**25
"""Most numbers that are kept in memory, 256 MiB in double precision."""


class SpooledFeatures:
    """A source of the same chunks again and again; species and frames stay in memory, 16 bytes an atom.

    The file has no name and is gone with the object.

    :param chunks: with frame indices that never decrease from one to the next.
    :param folder: for the file; that of the system if None, which may itself be memory.
    """

    def __init__(self, chunks: Iterable[Features], folder: Path | None = None) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._parts: list[tuple[int, npt.DTypeLike, IntArray, IntArray]] = []
        self._n_features = 0
        for chunk in chunks:
            self._parts.append((self._file.tell(), chunk.values.dtype, chunk.species, chunk.frame_index))
            self._n_features = chunk.n_features
            self._file.write(np.ascontiguousarray(chunk.values).data)

    def __call__(self) -> Iterator[Features]:
        """Return a new iterator over the chunks."""
        for start, kind, species, frame_index in self._parts:
            self._file.seek(start)
            size = len(species) * self._n_features * np.dtype(kind).itemsize
            values = np.frombuffer(self._file.read(size), dtype=kind)
            yield Features(values.reshape(len(species), self._n_features), species, frame_index)


def gather_features(chunks: Iterable[Features], n_atoms: int, folder: Path | None = None) -> Features | SpooledFeatures:
    """Return the features of all chunks together, in memory if they are at most :data:`IN_MEMORY` numbers.

    :param chunks: at least one.
    :param n_atoms: of all chunks together.
    :param folder: see :class:`SpooledFeatures`.
    """
    iterator = iter(chunks)
    first = next(iterator)
    every = chain((first,), iterator)
    if n_atoms * first.n_features > IN_MEMORY:
        return SpooledFeatures(every, folder)
    return join_features(every)


def join_features(chunks: Iterable[Features]) -> Features:
    """Return the features of all chunks, at least one, as one piece; frames keep their numbers."""
    parts = [(chunk.values, chunk.species, chunk.frame_index) for chunk in chunks]
    return Features(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
