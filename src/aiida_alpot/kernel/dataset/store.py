"""Open dataset files: their columns, their offsets, and the reading of rows into batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from typing import BinaryIO

import h5py
import numpy as np

from aiida_alpot.kernel.dataset.batch import Batch, Column
from aiida_alpot.kernel.dataset.ids import DIGEST_BYTES, Digests
from aiida_alpot.kernel.dataset.schema import (
    FORMAT,
    GEOMETRY,
    SCHEMA,
    SCHEMA_VERSION,
    AnyArray,
    ColumnSpec,
    DatasetError,
    Kind,
    Layout,
    Per,
    StoredColumn,
    decode_name,
    migrate,
    with_role,
)
from aiida_alpot.kernel.dataset.storage import (
    FRAME_CHUNK,
    PathLike,
    TextTable,
    expand,
    open_for_reading,
    read_rows,
    reading,
    source_name,
)
from aiida_alpot.kernel.hdf5 import find_outside
from aiida_alpot.kernel.units import BoolArray, IntArray

_CACHED_CHUNKS = 512


def sort_layout(layout: Layout) -> Layout:
    """Return the columns in the order of the schema, those of users by name behind them."""
    order = {name: k for k, name in enumerate(SCHEMA)}
    return dict(sorted(layout.items(), key=lambda item: (order.get(item[0], len(order)), item[0])))


class BaseStore(ABC):
    """Frames that can be read by row: columns, offsets, batches.

    ``hashes`` are content hash and usage hash as they were stored, None for several files; ``has_digests`` says
    whether the digests behind them are stored.
    """

    name: str
    layout: Layout
    offsets: IntArray
    hashes: tuple[str, str] | None
    has_digests: bool

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return len(self.offsets) - 1

    def spec(self, name: str) -> ColumnSpec:
        """Return the column *name*, stored or known.

        :raises KeyError: if there is none; the message lists the columns.
        """
        if name in self.layout:
            return self.layout[name].spec
        if name in SCHEMA:
            return SCHEMA[name]
        raise KeyError(f"the dataset has no column {name!r}; it has {', '.join(self.layout)}")

    def n_rows(self, spec: ColumnSpec) -> int:
        """Return the number of rows of a column."""
        return self.n_frames if spec.per == "frame" else int(self.offsets[-1])

    def rows_of(self, spec: ColumnSpec, frames: IntArray | None) -> IntArray | None:
        """Return the rows of *frames* in a column; None means all."""
        if frames is None or spec.per == "frame":
            return frames
        return expand(self.offsets[frames], self.offsets[frames + 1] - self.offsets[frames])

    def batch(self, frames: IntArray) -> Batch:
        """Return *frames* as a batch of every stored column."""
        counts = self.offsets[frames + 1] - self.offsets[frames]
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        atom_rows = expand(self.offsets[frames], counts)
        batch = Batch(offsets)
        for name, stored in self.layout.items():
            rows = frames if stored.spec.per == "frame" else atom_rows
            mask = self.read_mask(name, frames) if stored.spec.role == "user" else None
            batch.columns[name] = Column(stored.spec, self.read(name, rows), mask)
        return batch

    @abstractmethod
    def read(self, name: str, rows: IntArray | None) -> AnyArray:
        """Return rows of a column; None means all."""

    @abstractmethod
    def read_mask(self, name: str, frames: IntArray | None) -> BoolArray | None:
        """Return which frames have a value of the user; None means all."""

    @abstractmethod
    def read_digests(self, frames: IntArray) -> Digests:
        """Return the digests behind the hashes, shape (n_frames, 64)."""

    @abstractmethod
    def one(self, frame: int) -> Batch:
        """Return a single frame as a batch, fast also for frames far apart."""

    @abstractmethod
    def close(self) -> None:
        """Close the file or files."""


class Store(BaseStore):
    """One open file."""

    def __init__(self, source: PathLike | BinaryIO, name: str | None = None) -> None:
        self.name = name or source_name(source)
        self.file = open_for_reading(source)
        try:
            with reading(self.name, "(structure of the file)"):
                self._read_structure()
        except DatasetError:
            self.file.close()
            raise

    def _read_structure(self) -> None:
        attributes = self.file.attrs
        if attributes.get("format") != FORMAT.encode():
            raise DatasetError(f"{self.name} is an HDF5 file but no aiida-alpot dataset; import it with read_frames")
        outside = find_outside(self.file)
        if outside is not None:
            raise DatasetError(f"{self.name}: {outside} lies outside the file; write it again with what it points to")
        self.hashes = (attributes["content_hash"].decode(), attributes["usage_hash"].decode())
        version = int(attributes["schema_version"])
        self.layout = migrate(self._scan(), version)
        self.has_digests = version == SCHEMA_VERSION and "digests" in self.file
        self._tables: dict[str, TextTable] = {}
        self._datasets: dict[str, h5py.Dataset | None] = {}
        self._chunks: OrderedDict[tuple[str, int], AnyArray] = OrderedDict()
        with reading(self.name, "offsets"):
            self.offsets = self.file["offsets"][...]
        sizes = (int(attributes["n_frames"]), int(attributes["n_atoms"]))
        if (len(self.offsets) - 1, int(self.offsets[-1])) != sizes or (np.diff(self.offsets) < 0).any():
            raise DatasetError(f"{self.name}: column 'offsets' does not fit the size of the dataset; restore the file")
        self._check_sizes()

    def _check_sizes(self) -> None:
        for name in GEOMETRY:
            if name not in self.layout:
                raise DatasetError(f"{self.name}: column {name!r} is missing; restore the file from a copy")
        for name, stored in self.layout.items():
            if self.file[stored.path].shape != (self.n_rows(stored.spec), *stored.spec.shape):
                raise DatasetError(f"{self.name}: column {name!r} has a wrong number of rows; restore the file")
        for name in ("content", "usage") if self.has_digests else ():
            if self.file[f"digests/{name}"].shape != (self.n_frames, DIGEST_BYTES):
                raise DatasetError(f"{self.name}: the {name} digests do not fit the frames; restore the file")

    def _scan(self) -> Layout:
        layout: Layout = {}
        pers: tuple[Per, ...] = ("frame", "atom")
        for per in pers:
            for encoded, dataset in self.file[per].items():
                if not isinstance(dataset, h5py.Dataset):
                    raise DatasetError(f"{self.name}: column {decode_name(encoded)!r} is corrupt; restore the file")
                spec = ColumnSpec(decode_name(encoded), per, self._kind(encoded, dataset), tuple(dataset.shape[1:]))
                layout[spec.name] = StoredColumn(with_role(spec), dataset.name, encoded)
        return sort_layout(layout)

    def _kind(self, encoded: str, dataset: h5py.Dataset) -> Kind:
        if encoded in self.file["strings"]:
            return "str"
        kinds: dict[str, Kind] = {"b": "bool", "i": "int", "f": "float"}
        return kinds[dataset.dtype.kind]

    def read(self, name: str, rows: IntArray | None) -> AnyArray:
        """Return rows of a column; None means all."""
        spec = self.spec(name)
        if name not in self.layout:
            return spec.empty(self.n_rows(spec) if rows is None else len(rows))
        stored = self.layout[name]
        with reading(self.name, name):
            dataset = self._dataset(stored.path)
            assert dataset is not None
            values: AnyArray = dataset[...] if rows is None else read_rows(dataset, rows)
            if spec.kind != "str":
                return values
            if name not in self._tables:
                self._tables[name] = TextTable(self.file, stored.stored_name)
            return self._tables[name].lookup(values)

    def read_mask(self, name: str, frames: IntArray | None) -> BoolArray | None:
        """Return which frames have a value of the user; None means all."""
        path = f"present/{self.layout[name].stored_name}"
        with reading(self.name, name):
            dataset = self._dataset(path)
            if dataset is None:
                return None
            return np.asarray(dataset[...] if frames is None else read_rows(dataset, frames), dtype=bool)

    def _dataset(self, path: str) -> h5py.Dataset | None:
        if path not in self._datasets:
            self._datasets[path] = self.file[path] if path in self.file else None  # noqa: SIM401  get hides damage
        return self._datasets[path]

    def one(self, frame: int) -> Batch:
        """Return a single frame as a batch; chunks of per-frame columns are kept, a random access costs three reads."""
        low, high = int(self.offsets[frame]), int(self.offsets[frame + 1])
        batch = Batch(np.array([0, high - low], dtype=np.int64))
        number, within = divmod(frame, FRAME_CHUNK)
        rows = np.arange(low, high)
        for name, stored in self.layout.items():
            spec, mask = stored.spec, None
            if spec.role == "user":
                found = self._cached_chunk(name, number, mask=True)
                mask = found[within : within + 1] if len(found) else None
            if spec.per == "frame":
                values = self._cached_chunk(name, number)[within : within + 1]
            else:
                values = self.read(name, rows)
            batch.columns[name] = Column(spec, values, mask)
        return batch

    def _cached_chunk(self, name: str, number: int, mask: bool = False) -> AnyArray:
        """Return a chunk of a per-frame column, or of a mask (empty if there is none)."""
        key = (f"present/{name}" if mask else name, number)
        if key not in self._chunks:
            rows = np.arange(number * FRAME_CHUNK, min((number + 1) * FRAME_CHUNK, self.n_frames))
            found = self.read_mask(name, rows) if mask else self.read(name, rows)
            self._chunks[key] = np.zeros(0, dtype=bool) if found is None else found
            if len(self._chunks) > _CACHED_CHUNKS:
                self._chunks.popitem(last=False)
        return self._chunks[key]

    def read_digests(self, frames: IntArray) -> Digests:
        """Return the digests behind the hashes, shape (n_frames, 64)."""
        with reading(self.name, "digests"):
            found = [read_rows(self.file[f"digests/{name}"], frames) for name in ("content", "usage")]
        return np.concatenate(found, axis=1)

    def close(self) -> None:
        """Close the file."""
        self.file.close()
