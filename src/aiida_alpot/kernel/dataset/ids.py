"""Frame ids and hashes that depend on content only.

Definition (version 1). The digest of a frame over a set of columns is the SHA-256 of the following, for every column
of the set in which the frame has a value, in a fixed order: ``name``, NUL, ``kind``, NUL, the shape of a row as
``3,3``, NUL, the length of the value in bytes as little-endian uint64, the bytes of the value. Numbers are
little-endian int64 and float64, booleans one byte, text UTF-8; −0.0 is hashed as 0.0 and every NaN as the same NaN;
several texts (per atom) are each preceded by their length.

- structure id: numbers, positions, cell, pbc, charge. Frame id: all science columns.
- ``content_hash``: SHA-256 of ``alpot-content-1``, NUL, and the frame ids in ascending order (a multiset).
- ``usage_hash``: SHA-256 of ``alpot-usage-1``, NUL, and frame id + digest over split, group, weight, config_type,
  status, iteration and every user column by name, in ascending order of the pair.

Neither depends on row order, chunks, compression or the version of HDF5, nor on cost, parent, reason and origin. A file
keeps the digests of its frames, so that the hashes of several files together follow without reading the frames again.
"""

from __future__ import annotations

import hashlib
import itertools
import struct
from collections.abc import Callable, Iterable
from typing import Final

import numpy as np
import numpy.typing as npt
from ase import Atoms

from aiida_alpot.kernel.dataset.batch import Batch, Column
from aiida_alpot.kernel.dataset.frames import batch_from_frames
from aiida_alpot.kernel.dataset.schema import SCIENCE, STRUCTURE, USAGE
from aiida_alpot.kernel.units import BoolArray, IntArray

Digests = npt.NDArray[np.uint8]
DIGEST_BYTES: Final = 32
PAIR_BYTES: Final = 64
SORTED_AT_ONCE: Final = 32768
"""Digests sorted in memory in one go (2 MB, and three times that on the way)."""


def frame_digests(batch: Batch, names: Iterable[str]) -> list[bytes]:
    """Return the digest of each frame over the columns *names*, 32 bytes each."""
    hashers = [hashlib.sha256() for _ in range(batch.n_frames)]
    for name in names:
        if name not in batch.columns:
            continue
        column = batch.columns[name]
        shape = ",".join(map(str, column.spec.shape))
        head = f"{name}\0{column.spec.kind}\0{shape}\0".encode("utf-8", "surrogatepass")
        present = batch.present(name)
        parts = _text_parts(column, batch.offsets) if column.spec.kind == "str" else _parts(column, batch.offsets)
        for k in np.flatnonzero(present).tolist():
            data = parts[k]
            hashers[k].update(head + struct.pack("<Q", len(data)))
            hashers[k].update(data)
    return [hasher.digest() for hasher in hashers]


def structure_digests(batch: Batch) -> list[bytes]:
    """Return the structure id of each frame: no labels."""
    return frame_digests(batch, STRUCTURE)


def structure_id(atoms: Atoms) -> str:
    """Return the id of a frame without its labels, as :meth:`~aiida_alpot.kernel.dataset.Dataset.frame_ids` does."""
    return structure_digests(batch_from_frames([atoms]))[0].hex()


def content_digests(batch: Batch) -> list[bytes]:
    """Return the frame id of each frame: all science columns."""
    return frame_digests(batch, SCIENCE)


def usage_digests(batch: Batch) -> list[bytes]:
    """Return the digest of each frame over what decides how it is used."""
    users = sorted(name for name, column in batch.columns.items() if column.spec.role == "user")
    return frame_digests(batch, (*USAGE, *users))


def digest_pairs(batch: Batch) -> Digests:
    """Return frame id and usage digest of each frame, side by side, shape (n_frames, 64)."""
    pairs = zip(content_digests(batch), usage_digests(batch), strict=True)
    return np.frombuffer(b"".join(a + b for a, b in pairs), dtype=np.uint8).reshape(-1, PAIR_BYTES)


def combine_digests(blocks: Callable[[], Iterable[Digests]], n_frames: int) -> tuple[str, str]:
    """Return ``content_hash`` and ``usage_hash`` of frames by their digests.

    The digests are sorted range by range, with one pass over the blocks per range, so that memory does not grow with
    the number of frames.

    :param blocks: returns an iterator over blocks of :func:`digest_pairs`; called once per pass.
    :param n_frames: number of frames in all blocks together.
    """
    content, usage = hashlib.sha256(b"alpot-content-1\0"), hashlib.sha256(b"alpot-usage-1\0")
    bounds = np.linspace(0, 2**16, max(1, -(-n_frames // SORTED_AT_ONCE)) + 1).astype(np.int64)
    for low, high in itertools.pairwise(bounds.tolist()):
        chosen = [pairs[_in_range(pairs, low, high)] for pairs in blocks()]
        joined = np.concatenate([np.empty((0, PAIR_BYTES), dtype=np.uint8), *chosen])
        ordered = np.sort(joined.view(f"S{PAIR_BYTES}"), axis=0).view(np.uint8).reshape(-1, PAIR_BYTES)
        content.update(ordered[:, :DIGEST_BYTES].tobytes())
        usage.update(ordered.tobytes())
    return content.hexdigest(), usage.hexdigest()


def _in_range(pairs: Digests, low: int, high: int) -> BoolArray:
    """Return which digests have their first two bytes in a range."""
    first = pairs[:, 0].astype(np.int64) * 256 + pairs[:, 1]
    return np.asarray((first >= low) & (first < high))


def _bounds(column: Column, offsets: IntArray) -> list[int]:
    rows = offsets if column.spec.per == "atom" else np.arange(len(offsets))
    return [int(row) for row in rows]


def _parts(column: Column, offsets: IntArray) -> list[memoryview]:
    """Return the canonical bytes of each frame."""
    values = np.ascontiguousarray(column.values, dtype=column.spec.dtype)
    if column.spec.kind == "float":
        values = values + 0.0  # −0.0 becomes 0.0
        values[np.isnan(values)] = np.nan
    width = values.dtype.itemsize * int(np.prod(column.spec.shape, dtype=np.int64))
    view = memoryview(values.tobytes())
    bounds = _bounds(column, offsets)
    return [view[a * width : b * width] for a, b in itertools.pairwise(bounds)]


def _text_parts(column: Column, offsets: IntArray) -> list[bytes]:
    texts = [str(text).encode("utf-8", "surrogatepass") for text in column.values.ravel()]
    if column.spec.per == "frame" and not column.spec.shape:
        return texts
    width = int(np.prod(column.spec.shape, dtype=np.int64))
    bounds = [row * width for row in _bounds(column, offsets)]
    packed = [struct.pack("<Q", len(text)) + text for text in texts]
    return [b"".join(packed[a:b]) for a, b in itertools.pairwise(bounds)]
