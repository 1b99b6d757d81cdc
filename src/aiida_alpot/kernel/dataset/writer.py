"""Writing a dataset: block by block, checked, hashed on the way, renamed into place at the end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import h5py
import numpy as np
from ase import Atoms

from aiida_alpot.kernel.dataset.batch import MAX_ATOMS, MAX_FRAMES, Batch, Column, replace_columns
from aiida_alpot.kernel.dataset.checks import check_batch
from aiida_alpot.kernel.dataset.frames import batch_from_frames, frame_column
from aiida_alpot.kernel.dataset.ids import DIGEST_BYTES, combine_digests, digest_pairs
from aiida_alpot.kernel.dataset.schema import (
    FORMAT,
    INFO_COLUMNS,
    SCHEMA,
    SCHEMA_VERSION,
    AnyArray,
    ColumnSpec,
    encode_name,
)
from aiida_alpot.kernel.dataset.storage import (
    ATOM_CHUNK,
    FRAME_CHUNK,
    ColumnWriter,
    PathLike,
    TextWriter,
    create_file,
    read_digests,
)


def write(path: PathLike | BinaryIO, frames: Iterable[Atoms], **columns: Any) -> None:
    """Write *frames* to a dataset file; equal frames give equal bytes.

    :param path: file name, or a seekable binary handle (left at its start). A file appears only when it is complete.
    :param frames: with labels in a SinglePointCalculator or under REF_ keys, book-keeping in ``info``.
    :param columns: per-frame columns that replace what ``info`` says: a sequence with one value per frame, or one
        number or text for all.
    :raises ValueError: naming the frame and what to do, if a frame or a column is not acceptable.
    """
    write_batches(path, _batches_of(frames), columns)


def _batches_of(frames: Iterable[Atoms]) -> Iterator[Batch]:
    block: list[Atoms] = []
    start = n_atoms = 0
    for atoms in frames:
        if not isinstance(atoms, Atoms):
            raise TypeError(f"frame {start + len(block)}: expected ase.Atoms, got {type(atoms).__name__}")
        block.append(atoms)
        n_atoms += len(atoms)
        if len(block) >= MAX_FRAMES or n_atoms >= MAX_ATOMS:
            yield batch_from_frames(block, start)
            start += len(block)
            block, n_atoms = [], 0
    if block:
        yield batch_from_frames(block, start)


def write_batches(
    target: PathLike | BinaryIO, batches: Iterable[Batch], columns: Mapping[str, Any] | None = None
) -> None:
    """Write blocks of frames; *columns* as in :func:`write`."""
    overrides = _Overrides(columns or {})
    with create_file(target) as file:
        sink = _Sink(file)
        for batch in batches:
            overrides.apply(batch, sink.n_frames)
            sink.append(batch)
        overrides.check_length(sink.n_frames)
        sink.close()


class _Overrides:
    """Per-frame columns given by the caller."""

    def __init__(self, columns: Mapping[str, Any]) -> None:
        self._all: dict[str, Any] = {}
        self._rows: dict[str, Sequence[Any] | AnyArray] = {}
        for name, values in columns.items():
            if name in SCHEMA and name not in INFO_COLUMNS:
                raise ValueError(f"column {name!r} describes the frames themselves and cannot be replaced here")
            if isinstance(values, str) or (np.ndim(values) == 0 and not isinstance(values, Iterable)):
                self._all[name] = values
            else:
                self._rows[name] = values if hasattr(values, "__getitem__") else list(values)

    def apply(self, batch: Batch, start: int) -> None:
        end = start + batch.n_frames
        found: dict[str, Column | None] = {}
        for name, value in self._all.items():
            rows = dict.fromkeys(range(batch.n_frames), value) if value is not None else {}
            found[name] = frame_column(name, rows, batch.n_frames, start)
        for name, values in self._rows.items():
            if len(values) < end:
                self._raise_length(name, f"at least {end}")
            rows = {k: value for k, value in enumerate(values[start:end]) if value is not None}
            found[name] = frame_column(name, rows, batch.n_frames, start)
        replace_columns(batch, {name: column for name, column in found.items() if column is not None})
        for name, column in found.items():
            if column is None:
                batch.columns.pop(name, None)

    def check_length(self, n_frames: int) -> None:
        for name, values in self._rows.items():
            if len(values) != n_frames:
                self._raise_length(name, str(n_frames))

    def _raise_length(self, name: str, n_frames: str) -> None:
        raise ValueError(
            f"column {name!r} has {len(self._rows[name])} values for {n_frames} frames; give one per frame"
        )


class _Sink:
    """The open file: columns appear when the first frame has a value."""

    def __init__(self, file: h5py.File) -> None:
        self._file = file
        self._columns: dict[str, tuple[ColumnSpec, ColumnWriter | TextWriter]] = {}
        self._masks: dict[str, ColumnWriter] = {}
        self.n_frames = self.n_atoms = 0
        for group in ("frame", "atom", "present", "strings", "digests"):
            file.create_group(group, track_order=False)
        self._content, self._usage = (
            ColumnWriter(file, f"digests/{name}", (DIGEST_BYTES,), "u1", 0, 0, FRAME_CHUNK)
            for name in ("content", "usage")
        )
        self._offsets = ColumnWriter(file, "offsets", (), "<i8", 0, 0, FRAME_CHUNK)
        self._offsets.append(np.zeros(1, dtype=np.int64))
        for name in ("numbers", "positions", "cell", "pbc"):
            self._open(SCHEMA[name])

    def append(self, batch: Batch) -> None:
        """Check a block and add it."""
        check_batch(batch, self.n_frames)
        pairs = digest_pairs(batch)
        self._content.append(pairs[:, :DIGEST_BYTES])
        self._usage.append(pairs[:, DIGEST_BYTES:])
        self._offsets.append(batch.offsets[1:] + self.n_atoms)
        for name in dict.fromkeys([*self._columns, *SCHEMA, *sorted(batch.columns)]):
            present = batch.present(name)
            if name in self._columns or present.any():
                self._append_column(name, batch, present)
        self.n_frames += batch.n_frames
        self.n_atoms += batch.n_atoms

    def _append_column(self, name: str, batch: Batch, present: AnyArray) -> None:
        column = batch.columns.get(name)
        if name not in self._columns:
            assert column is not None
            self._open(column.spec)
        spec, writer = self._columns[name]
        if column is not None and not column.spec.is_same_type(spec):
            raise ValueError(
                f"column {name!r} changes its type from {spec.describe()} to {column.spec.describe()} between frame 0 "
                f"and {self.n_frames + batch.n_frames - 1}; give it one type and shape in every frame"
            )
        writer.append(spec.empty(batch.n_rows(spec)) if column is None else column.values)
        if spec.role == "user":
            self._append_mask(name, present)

    def _append_mask(self, name: str, present: AnyArray) -> None:
        if name not in self._masks:
            if present.all():
                return
            self._open_mask(name, fill=True)
        self._masks[name].append(present)

    def _open_mask(self, name: str, fill: bool) -> None:
        path = f"present/{encode_name(name)}"
        self._masks[name] = ColumnWriter(self._file, path, (), "?", fill, self.n_frames, FRAME_CHUNK)

    def _open(self, spec: ColumnSpec) -> None:
        start, chunk = (self.n_frames, FRAME_CHUNK) if spec.per == "frame" else (self.n_atoms, ATOM_CHUNK)
        writer: ColumnWriter | TextWriter
        if spec.kind == "str":
            writer = TextWriter(self._file, spec, start, chunk)
        else:
            writer = ColumnWriter(self._file, spec.path, spec.shape, spec.dtype, spec.fill, start, chunk)
        if spec.unit:
            self._file[spec.path].attrs["unit"] = np.bytes_(spec.unit.encode())
        self._columns[spec.name] = (spec, writer)
        if spec.role == "user" and self.n_frames:
            self._open_mask(spec.name, fill=False)

    def close(self) -> None:
        """Write what is left, and the attributes."""
        columns = [writer for _, writer in self._columns.values()]
        for writer in (self._offsets, self._content, self._usage, *columns, *self._masks.values()):
            writer.close()
        content_hash, usage_hash = combine_digests(lambda: read_digests(self._file), self.n_frames)
        attributes = self._file.attrs
        attributes["format"] = np.bytes_(FORMAT.encode())
        attributes["schema_version"] = np.int64(SCHEMA_VERSION)
        attributes["n_frames"] = np.int64(self.n_frames)
        attributes["n_atoms"] = np.int64(self.n_atoms)
        attributes["content_hash"] = np.bytes_(content_hash.encode())
        attributes["usage_hash"] = np.bytes_(usage_hash.encode())
