"""HDF5 underneath: opening, reading rows by chunk, writing columns in whole chunks, replacing a file in one step."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from aiida_alpot.kernel.dataset.schema import AnyArray, ColumnSpec, DatasetError, encode_name
from aiida_alpot.kernel.units import IntArray

FRAME_CHUNK = 1024
ATOM_CHUNK = 2048
BYTE_CHUNK = 65536
MAX_DICTIONARY = 65536
"""Distinct texts the writer remembers per column; beyond, the table may repeat an entry, and memory stays flat."""
_MAX_BLOCK = 32
"""Chunks read in one go for scattered rows."""
_CACHED_TABLE = 131072
_READ_CACHE, _WRITE_CACHE = 2**20, 2**18  # bytes per column; the 8 MB of HDF5 2.0 would fill up as a dataset grows
_LIBVER = ("v110", "v110")  # checksummed metadata, and bytes that do not depend on the newest format known

PathLike = str | os.PathLike[str]


def source_name(source: Any) -> str:
    """Return how a file is called in messages."""
    if isinstance(source, (str, os.PathLike)):
        return str(source)
    name = getattr(source, "name", None)
    return str(name) if isinstance(name, str) else f"<{type(source).__name__}>"


def open_for_reading(source: PathLike | BinaryIO) -> h5py.File:
    """Open an HDF5 file by path or from a seekable binary handle.

    :raises FileNotFoundError: if the path does not exist.
    :raises DatasetError: if it is not HDF5, truncated or corrupt.
    """
    name = source_name(source)
    is_path = isinstance(source, (str, os.PathLike))
    if is_path and not Path(source).is_file():  # type: ignore[arg-type]
        raise FileNotFoundError(f"no dataset file at {name}")
    try:
        # readers never lock: a dataset is never changed in place, and locks fail on some cluster file systems
        return h5py.File(source, "r", rdcc_nbytes=_READ_CACHE, **({"locking": False} if is_path else {}))
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise DatasetError(
            f"{name} cannot be opened as a dataset: it is truncated, corrupt or no HDF5 file ({error}); "
            "fetch or write it again"
        ) from error


@contextlib.contextmanager
def reading(name: str, what: str) -> Iterator[None]:
    """Turn the errors of h5py into one that names the file and the column."""
    try:
        yield
    except DatasetError:
        raise
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, OverflowError, MemoryError) as error:
        raise DatasetError(
            f"{name}: column {what!r} is corrupt, its checksum or structure does not hold ({error}); "
            "restore the file from a copy"
        ) from error


@contextlib.contextmanager
def create_file(target: PathLike | BinaryIO) -> Iterator[h5py.File]:
    """Yield a new HDF5 file that takes the place of *target* only when the block ends without an error."""
    if not isinstance(target, (str, os.PathLike)):
        with _create_in_handle(target) as file:
            yield file
        return
    path = Path(target)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} does not exist; create it first")
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with h5py.File(temporary, "w-", libver=_LIBVER, rdcc_nbytes=_WRITE_CACHE, locking=False) as file:
            yield file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _create_in_handle(handle: BinaryIO) -> Iterator[h5py.File]:
    try:
        with h5py.File(handle, "w", libver=_LIBVER, rdcc_nbytes=_WRITE_CACHE) as file:
            yield file
    except BaseException:
        handle.seek(0)
        handle.truncate()
        raise
    handle.seek(0)


class ColumnWriter:
    """Appends rows to one dataset, in whole chunks; what is left over goes with :meth:`close`."""

    def __init__(
        self, file: h5py.File, path: str, shape: tuple[int, ...], dtype: Any, fill: Any, start: int, chunk: int
    ) -> None:
        self._chunk = chunk
        self._pending: list[AnyArray] = []
        self._n_pending = 0
        self._n_written = start
        self._dataset = file.create_dataset(
            path,
            shape=(start, *shape),
            maxshape=(None, *shape),
            chunks=(chunk, *(max(1, size) for size in shape)),
            dtype=dtype,
            fillvalue=fill,
            compression="gzip",
            compression_opts=1,
            shuffle=True,
            fletcher32=True,
            track_times=False,
            track_order=False,
        )

    def append(self, rows: AnyArray) -> None:
        """Add rows at the end."""
        self._pending.append(np.asarray(rows))
        self._n_pending += len(rows)
        end = (self._n_written + self._n_pending) // self._chunk * self._chunk
        if end > self._n_written:
            self._flush(end - self._n_written)

    def close(self) -> None:
        """Write what is left."""
        if self._n_pending:
            self._flush(self._n_pending)

    def _flush(self, n_rows: int) -> None:
        rows = np.concatenate(self._pending) if len(self._pending) > 1 else self._pending[0]
        self._dataset.resize(self._n_written + n_rows, axis=0)
        self._dataset[self._n_written : self._n_written + n_rows] = rows[:n_rows]
        rest = rows[n_rows:].copy()
        self._n_written += n_rows
        self._pending, self._n_pending = ([rest] if len(rest) else []), len(rest)


class TextWriter:
    """Appends texts to a column of codes and its table."""

    def __init__(self, file: h5py.File, spec: ColumnSpec, start: int, chunk: int) -> None:
        table = f"strings/{encode_name(spec.name)}"
        self._bytes = ColumnWriter(file, f"{table}/bytes", (), "u1", 0, 0, BYTE_CHUNK)
        self._ends = ColumnWriter(file, f"{table}/offsets", (), "<i8", 0, 0, FRAME_CHUNK)
        self._ends.append(np.zeros(2, dtype=np.int64))
        self._codes: dict[str, int] = {"": 0}
        self._n_entries, self._end = 1, 0
        fill = 0
        if spec.fill != "":
            self._add([spec.fill])
            fill = 1
        self._column = ColumnWriter(file, spec.path, spec.shape, "<u4", fill, start, chunk)

    def append(self, rows: AnyArray) -> None:
        """Add rows of texts at the end."""
        texts = rows.ravel().tolist()
        new = [text for text in dict.fromkeys(texts) if text not in self._codes]
        if new:
            if len(self._codes) + len(new) > MAX_DICTIONARY:
                self._codes = {"": 0}
                new = [text for text in dict.fromkeys(texts) if text]
            self._add(new)
        codes = np.fromiter((self._codes[text] for text in texts), dtype=np.uint32, count=len(texts))
        self._column.append(codes.reshape(rows.shape))

    def _add(self, texts: list[str]) -> None:
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        ends = self._end + np.cumsum([len(data) for data in encoded], dtype=np.int64)
        self._codes.update({text: self._n_entries + k for k, text in enumerate(texts)})
        self._n_entries += len(texts)
        self._end = int(ends[-1])
        self._ends.append(ends)
        self._bytes.append(np.frombuffer(b"".join(encoded), dtype=np.uint8))

    def close(self) -> None:
        """Write what is left."""
        for writer in (self._column, self._bytes, self._ends):
            writer.close()


def expand(starts: IntArray, counts: IntArray) -> IntArray:
    """Return the row numbers of segments, one after the other."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    rows: IntArray = np.arange(total, dtype=np.int64) + np.repeat(starts - (ends - counts), counts)
    return rows


def read_rows(dataset: h5py.Dataset, rows: IntArray) -> AnyArray:
    """Return rows in any order, reading each chunk that is needed once."""
    out: AnyArray = np.empty((len(rows), *dataset.shape[1:]), dtype=dataset.dtype)
    if not len(rows):
        return out
    if rows[-1] - rows[0] == len(rows) - 1 and (len(rows) < 2 or bool((np.diff(rows) == 1).all())):
        return np.asarray(dataset[int(rows[0]) : int(rows[-1]) + 1])
    order = None if bool((np.diff(rows) >= 0).all()) else np.argsort(rows, kind="stable")
    ordered = rows if order is None else rows[order]
    size = dataset.chunks[0] if dataset.chunks else FRAME_CHUNK
    for first, last in _runs(np.unique(ordered // size)):
        low, high = first * size, min((last + 1) * size, dataset.shape[0])
        block = dataset[low:high]
        a, b = np.searchsorted(ordered, [low, high])
        out[slice(a, b) if order is None else order[a:b]] = block[ordered[a:b] - low]
    return out


def _runs(chunks: IntArray) -> Iterator[tuple[int, int]]:
    """Yield runs of neighbouring chunks (first, last)."""
    first = last = int(chunks[0])
    for chunk in chunks[1:].tolist():
        if chunk != last + 1 or chunk - first >= _MAX_BLOCK:
            yield first, last
            first = chunk
        last = chunk
    yield first, last


def read_digests(file: h5py.File) -> Iterator[AnyArray]:
    """Yield frame ids and usage digests side by side, in blocks of shape (n, 64)."""
    content, usage = file["digests/content"], file["digests/usage"]
    for start in range(0, content.shape[0], FRAME_CHUNK):
        rows = slice(start, start + FRAME_CHUNK)
        yield np.concatenate([content[rows], usage[rows]], axis=1)


class TextTable:
    """Reads the texts behind codes; a small table is decoded once and kept."""

    def __init__(self, file: h5py.File, name: str) -> None:
        self._bytes = file[f"strings/{name}/bytes"]
        self._offsets = file[f"strings/{name}/offsets"]
        self._texts: AnyArray | None = None

    def lookup(self, codes: AnyArray) -> AnyArray:
        """Return the text of each code, shape of *codes*, dtype object."""
        n_entries = self._offsets.shape[0] - 1
        if codes.size and int(codes.max()) >= n_entries:
            raise DatasetError(f"{self._bytes.file.filename}: {self._bytes.name} lacks entries; the file is corrupt")
        if n_entries <= _CACHED_TABLE:
            if self._texts is None:
                self._texts = self._read(np.arange(n_entries))
            return np.asarray(self._texts[codes])
        wanted, inverse = np.unique(codes, return_inverse=True)
        return np.asarray(self._read(wanted.astype(np.int64))[inverse].reshape(codes.shape))

    def _read(self, entries: IntArray) -> AnyArray:
        starts = read_rows(self._offsets, entries)
        counts = read_rows(self._offsets, entries + 1) - starts
        data = read_rows(self._bytes, expand(starts, counts)).tobytes()
        ends = np.cumsum(counts).tolist()
        texts = np.empty(len(entries), dtype=object)
        for k, (a, b) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            texts[k] = data[a:b].decode("utf-8", "surrogatepass")
        return texts
