"""Reading a dataset: lazy, by frame, slice, mask, chunk or column."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, BinaryIO, overload

import numpy as np
import numpy.typing as npt
from ase import Atoms

from aiida_alpot.kernel.dataset.atoms import frames_from_batch
from aiida_alpot.kernel.dataset.batch import MAX_ATOMS, MAX_FRAMES, Batch, Column
from aiida_alpot.kernel.dataset.ids import DIGEST_BYTES, Digests, combine_digests, digest_pairs, structure_digests
from aiida_alpot.kernel.dataset.parts import OneSource, PartedStore, open_store
from aiida_alpot.kernel.dataset.schema import AnyArray, ColumnSpec, DatasetError
from aiida_alpot.kernel.dataset.storage import PathLike
from aiida_alpot.kernel.dataset.store import BaseStore
from aiida_alpot.kernel.dataset.writer import write_batches
from aiida_alpot.kernel.units import BoolArray, IntArray

_ITER_FRAMES = 512
_BLOCK = 32

Selector = slice | Sequence[int] | Sequence[bool] | npt.NDArray[Any]


class _Frames:
    """The reading interface that a dataset and a view share."""

    def __init__(self, store: BaseStore, indices: IntArray | None) -> None:
        self._store = store
        self._indices = indices
        self._block: tuple[int, Batch] | None = None  # read ahead for loops over ds[i]
        self._last = -2

    def __len__(self) -> int:
        return self._store.n_frames if self._indices is None else len(self._indices)

    @overload
    def __getitem__(self, key: int | np.integer[Any]) -> Atoms: ...

    @overload
    def __getitem__(self, key: Selector) -> DatasetView: ...

    def __getitem__(self, key: int | np.integer[Any] | Selector) -> Atoms | DatasetView:
        if isinstance(key, (int, np.integer)) and not isinstance(key, bool):
            return self._frame(int(key))
        return DatasetView(self._store, self._rows(np.arange(len(self))[_selector(key, len(self))]))

    def __iter__(self) -> Iterator[Atoms]:
        for chunk in self.iter_chunks(_ITER_FRAMES):
            yield from chunk

    def iter_chunks(self, n: int) -> Iterator[list[Atoms]]:
        """Yield the frames in lists of *n* (the last may be shorter); each call is independent."""
        if n < 1:
            raise ValueError(f"a chunk has at least one frame, got {n}")
        for start in range(0, len(self), n):
            yield frames_from_batch(self._store.batch(self._rows(np.arange(start, min(start + n, len(self))))))

    def iter_batches(self) -> Iterator[Batch]:
        """Yield the frames as flat arrays in blocks of bounded size."""
        for rows in self._blocks():
            yield self._store.batch(rows)

    def iter_column(self, name: str) -> Iterator[AnyArray]:
        """Yield a column as :meth:`column` returns it, in blocks of bounded size."""
        spec = self._store.spec(name)
        for rows in self._blocks():
            yield self._store.read(name, self._store.rows_of(spec, rows))

    def _blocks(self) -> Iterator[IntArray]:
        """Yield the rows of the frames in blocks of bounded size."""
        start = 0
        while start < len(self):
            rows = self._rows(np.arange(start, min(start + MAX_FRAMES, len(self))))
            within = np.cumsum(self._store.offsets[rows + 1] - self._store.offsets[rows]) <= MAX_ATOMS
            n_frames = max(1, int(within.sum()))
            yield rows[:n_frames]
            start += n_frames

    def _rows(self, positions: IntArray) -> IntArray:
        return positions if self._indices is None else self._indices[positions]

    def _frame(self, i: int) -> Atoms:
        if not -len(self) <= i < len(self):
            raise IndexError(f"frame {i} does not exist, the dataset has {len(self)} frames")
        i %= len(self)
        sequential, self._last = i == self._last + 1, i
        if self._block is not None and 0 <= i - self._block[0] < self._block[1].n_frames:
            return frames_from_batch(_take(self._block[1], i - self._block[0]))[0]
        if not sequential:
            row = i if self._indices is None else int(self._indices[i])
            return frames_from_batch(self._store.one(row))[0]
        rows = self._rows(np.arange(i, min(i + _BLOCK, len(self))))
        self._block = (i, self._store.batch(rows))
        return frames_from_batch(_take(self._block[1], 0))[0]

    def column(self, name: str) -> AnyArray:
        """Return a column: (n_frames, …), or flat (n_atoms, …) for a per-atom one.

        A known column that is not stored is filled with its default (NaN, "", weight 1, iteration −1). Text is an
        array of ``str`` (dtype object). For a user column that some frames lack see :meth:`present`.

        :raises KeyError: if there is no such column.
        :raises DatasetError: if its bytes are corrupt.
        """
        return self._store.read(name, self._store.rows_of(self._store.spec(name), self._indices))

    def present(self, name: str) -> BoolArray:
        """Return which frames have a value in column *name*, shape (n_frames,)."""
        if name not in self._store.layout:
            self._store.spec(name)
            return np.zeros(len(self), dtype=bool)
        spec = self._store.spec(name)
        mask = self._store.read_mask(name, self._indices) if spec.role == "user" else None
        return Batch(self.offsets, {name: Column(spec, self.column(name), mask)}).present(name)

    @property
    def offsets(self) -> IntArray:
        """Atoms of frame k are rows ``offsets[k]:offsets[k+1]`` of a per-atom column, shape (n_frames + 1,)."""
        if self._indices is None:
            return self._store.offsets.copy()
        counts = self._store.offsets[self._indices + 1] - self._store.offsets[self._indices]
        return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that are stored."""
        return tuple(self._store.layout)

    @property
    def source(self) -> str:
        """Name of the file, for messages."""
        return self._store.name

    @property
    def specs(self) -> dict[str, ColumnSpec]:
        """Type of every stored column."""
        return {name: stored.spec for name, stored in self._store.layout.items()}

    @property
    def species(self) -> tuple[int, ...]:
        """Atomic numbers that occur, ascending."""
        found: set[int] = set()
        for numbers in self.iter_column("numbers"):
            found.update(np.unique(numbers).tolist())
        return tuple(sorted(found))

    @property
    def n_atoms(self) -> int:
        """Number of atoms of all frames."""
        return int(self._store.offsets[-1]) if self._indices is None else int(self.offsets[-1])

    @property
    def n_labelled(self) -> int:
        """Number of frames with the status ``labelled``."""
        return sum(int((status == "labelled").sum()) for status in self.iter_column("status"))

    def _count(self, name: str) -> dict[str, int]:
        counts: Counter[Any] = Counter()
        for values in self.iter_column(name):
            counts.update(values.tolist())
        return {str(key): counts[key] for key in sorted(counts)}

    def frame_ids(self, labels: bool = True) -> AnyArray:
        """Return an id of each frame that depends on its content only, 64 hexadecimal digits, shape (n_frames,).

        :param labels: over all science columns; otherwise over the structure (and charge) alone.
        """
        if labels:
            found: Iterator[bytes] = (pairs[:, :DIGEST_BYTES].tobytes() for pairs in self._digest_blocks())
        else:
            found = (b"".join(structure_digests(batch)) for batch in self.iter_batches())
        ids = "".join(digests.hex() for digests in found)
        return np.frombuffer(ids.encode("ascii"), dtype=f"S{2 * DIGEST_BYTES}").astype(f"<U{2 * DIGEST_BYTES}")

    def _digest_blocks(self) -> Iterator[Digests]:
        """Yield the digests behind the hashes in blocks, from the file if it has them."""
        for rows in self._blocks():
            yield self._store.read_digests(rows) if self._store.has_digests else digest_pairs(self._store.batch(rows))

    def _compute_hashes(self) -> tuple[str, str]:
        if self._store.has_digests:
            return combine_digests(self._digest_blocks, len(self))
        blocks = list(self._digest_blocks())
        return combine_digests(lambda: blocks, len(self))

    @property
    def content_hash(self) -> str:
        """Hash of the science columns, see :mod:`aiida_alpot.kernel.dataset.ids`."""
        return self._compute_hashes()[0]

    @property
    def usage_hash(self) -> str:
        """Hash of how the frames are used, see :mod:`aiida_alpot.kernel.dataset.ids`."""
        return self._compute_hashes()[1]

    def write(self, path: PathLike | BinaryIO, **columns: Any) -> None:
        """Write these frames to a new dataset, block by block; *columns* as in :func:`~.writer.write`."""
        write_batches(path, self.iter_batches(), columns)

    def summary(self) -> dict[str, Any]:
        """Return sizes, counts and hashes as plain values that JSON can hold."""
        counts = np.diff(self.offsets)
        return {
            "n_frames": len(self),
            "n_atoms": int(counts.sum()),
            "species": list(self.species),
            "n_labelled": self.n_labelled,
            "atoms_per_frame": [int(counts.min()), int(counts.max())] if len(counts) else [0, 0],
            "n_groups": len(set().union(*(block.tolist() for block in self.iter_column("group"))) - {""}),
            **{f"count_{name}": self._count(name) for name in ("split", "status", "config_type", "iteration")},
            "columns": list(self.columns),
            "content_hash": self.content_hash,
            "usage_hash": self.usage_hash,
        }


class DatasetView(_Frames):
    """Some frames of an open dataset, in any order and possibly repeated; valid while the dataset is open."""

    def __init__(self, store: BaseStore, indices: IntArray) -> None:
        super().__init__(store, np.asarray(indices, dtype=np.int64))

    @property
    def indices(self) -> IntArray:
        """Rows of the frames in the file, shape (n_frames,)."""
        assert self._indices is not None
        return self._indices.copy()


class Dataset(_Frames):
    """An open dataset. Frames are read when asked for; several iterators do not disturb each other."""

    @classmethod
    def open(cls, source: OneSource | Sequence[OneSource], names: Sequence[str] | None = None) -> Dataset:
        """Open a dataset: one file, or several parts that are read one after the other as if they were one file.

        :param source: a path, a folder with the parts of one dataset, a seekable binary handle, which must stay open
            as long as the dataset, or a sequence of paths and handles.
        :param names: what the files are called in messages, by default their own names.
        :raises FileNotFoundError: if a path does not exist.
        :raises DatasetError: if a file is no dataset, truncated, corrupt or of a newer version, if a part is missing,
            or if the parts have a column of different types.
        """
        return cls(open_store(source, names))

    def __init__(self, store: BaseStore) -> None:
        super().__init__(store, None)

    def close(self) -> None:
        """Close the files; views become unusable."""
        self._store.close()

    def __enter__(self) -> Dataset:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def parts(self) -> tuple[Dataset, ...]:
        """The files of the dataset, each as a dataset; valid while this one is open."""
        return (
            tuple(Dataset(store) for store in self._store.stores) if isinstance(self._store, PartedStore) else (self,)
        )

    def _stored_hashes(self) -> tuple[str, str]:
        if self._store.hashes is None:
            self._store.hashes = self._compute_hashes()
        return self._store.hashes

    @property
    def content_hash(self) -> str:
        """Hash of the science columns as stored when the files were written."""
        return self._stored_hashes()[0]

    @property
    def usage_hash(self) -> str:
        """Hash of how the frames are used as stored when the files were written."""
        return self._stored_hashes()[1]

    def verify(self) -> None:
        """Read everything, checksums included, and compare digests and hashes with the stored ones.

        :raises DatasetError: naming the file and the column that is corrupt, or the hash that differs.
        """
        for part in self.parts:
            part._verify_file()

    def _verify_file(self) -> None:
        if self._store.has_digests:
            self._verify_digests()
        for name, a, b in zip(
            ("content_hash", "usage_hash"), self._compute_hashes(), self._stored_hashes(), strict=True
        ):
            if a != b:
                raise DatasetError(
                    f"{self._store.name}: {name} is {a}, stored is {b}; the file was changed after it was written"
                )

    def _verify_digests(self) -> None:
        for rows in self._blocks():
            if not np.array_equal(digest_pairs(self._store.batch(rows)), self._store.read_digests(rows)):
                raise DatasetError(
                    f"{self._store.name}: the digests of frames {rows[0]}–{rows[-1]} are not those of their content; "
                    "the file was changed after it was written"
                )


def _take(batch: Batch, k: int) -> Batch:
    """Return frame *k* of a batch as a batch."""
    low, high = int(batch.offsets[k]), int(batch.offsets[k + 1])
    rows = {"frame": slice(k, k + 1), "atom": slice(low, high)}
    columns = {
        name: Column(c.spec, c.values[rows[c.spec.per]], None if c.present is None else c.present[k : k + 1])
        for name, c in batch.columns.items()
    }
    return Batch(np.array([0, high - low], dtype=np.int64), columns)


def _selector(key: Any, n_frames: int) -> Any:
    """Return a slice, mask or integer array that is safe to index with."""
    if isinstance(key, slice):
        return key
    array = np.asarray(key)
    if array.ndim != 1:
        raise TypeError(f"frames are chosen by an integer, a slice, or a 1-d mask or list of integers, got {key!r:.80}")
    if not array.size and array.dtype != bool:
        return np.zeros(0, dtype=np.int64)
    if array.dtype == bool and len(array) != n_frames:
        raise IndexError(f"the mask has {len(array)} entries for {n_frames} frames")
    if array.dtype.kind not in "biu":
        raise TypeError(f"frames are chosen by integers or a mask, got dtype {array.dtype}")
    return array
