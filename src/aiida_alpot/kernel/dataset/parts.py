"""Datasets of several files: parts that lie one after the other and are read as one.

A dataset that grows gets a new part and keeps the old ones as they are, so that whoever stores equal bytes once stores
only what is new. A file never says to which dataset it belongs; its name says which part of how many it is, so that a
missing part is noticed.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

from aiida_alpot.kernel.dataset.batch import Batch
from aiida_alpot.kernel.dataset.ids import PAIR_BYTES, Digests
from aiida_alpot.kernel.dataset.schema import AnyArray, ColumnSpec, DatasetError, Layout
from aiida_alpot.kernel.dataset.storage import PathLike
from aiida_alpot.kernel.dataset.store import BaseStore, Store, sort_layout
from aiida_alpot.kernel.units import BoolArray, IntArray

MAX_PARTS: Final = 32
"""Most parts of a dataset; with one more, the newest become one."""
WHOLE: Final = "dataset.h5"
"""Name of the file of a dataset in one part."""
_PART = re.compile(r"dataset-(\d{3})-of-(\d{3})\.h5")

OneSource = PathLike | BinaryIO


def part_names(n_parts: int) -> list[str]:
    """Return the file names of a dataset in *n_parts* parts, in the order of the frames."""
    if n_parts == 1:
        return [WHOLE]
    return [f"dataset-{number:03d}-of-{n_parts:03d}.h5" for number in range(1, n_parts + 1)]


def find_parts(names: Iterable[str], where: str) -> list[str]:
    """Return those of the file names that are parts of a dataset, in the order of the frames.

    :param where: names the place in messages.
    :raises DatasetError: if there is none, one is missing, or the parts of two datasets are mixed.
    """
    found = sorted(name for name in names if name == WHOLE or _PART.fullmatch(name))
    if not found:
        raise DatasetError(f"{where} holds no dataset: there is neither {WHOLE} nor a part dataset-001-of-….h5")
    match = _PART.fullmatch(found[0])
    expected = part_names(int(match[2]) if match else 1)
    missing = [name for name in expected if name not in found]
    if missing:
        raise DatasetError(f"{where} lacks {', '.join(missing)} of its {len(expected)} parts; fetch it again")
    if len(found) > len(expected):
        raise DatasetError(f"{where} mixes the parts of several datasets: {', '.join(found)}; keep those of one")
    return expected


def group_parts(sizes: Sequence[int], limit: int = MAX_PARTS) -> list[list[int]]:
    """Return which parts become one so that at most *limit* are left, each a run of neighbours.

    Up to the limit nothing is joined. Beyond it the newest parts are, as many as it takes that the part before them is
    larger than all of them together. A frame is therefore written again only when its part at least doubles.

    :param sizes: size of each part, in any unit.
    """
    if len(sizes) <= limit:
        return [[k] for k in range(len(sizes))]
    first = limit - 1
    while first and sizes[first - 1] <= sum(sizes[first:]):
        first -= 1
    return [*([k] for k in range(first)), list(range(first, len(sizes)))]


def open_store(source: OneSource | Sequence[OneSource], names: Sequence[str] | None = None) -> BaseStore:
    """Open a file, a folder of parts, or a sequence of files as one dataset; *names* are those for messages."""
    if isinstance(source, (list, tuple)):
        sources: Sequence[OneSource] = source
        if not sources:
            raise ValueError("a dataset has at least one file, got an empty list")
    elif isinstance(source, (str, Path)) and Path(source).is_dir():
        folder = Path(source)
        sources = [folder / name for name in find_parts((path.name for path in folder.iterdir()), str(folder))]
    else:
        sources = [source]  # type: ignore[list-item]  # what is no list is one source
    with ExitStack() as stack:
        stores: list[Store] = []
        for k, one in enumerate(sources):
            stores.append(Store(one, None if names is None else names[k]))
            stack.callback(stores[-1].close)
        store = stores[0] if len(stores) == 1 else PartedStore(stores)
        stack.pop_all()
    return store


def check_types(layouts: Iterable[tuple[str, Iterable[ColumnSpec]]]) -> None:
    """Check that the columns of several files can be joined.

    :param layouts: name for messages and columns of each file.
    :raises DatasetError: if a column has different types in two of them.
    """
    seen: dict[str, tuple[str, ColumnSpec]] = {}
    for here, specs in layouts:
        for spec in specs:
            there, known = seen.setdefault(spec.name, (here, spec))
            if not known.is_same_type(spec):
                raise DatasetError(
                    f"column {spec.name!r} is {known.describe()} in {there} and {spec.describe()} in {here}; "
                    "rename or convert it in one of them"
                )


class PartedStore(BaseStore):
    """Several open files, one after the other. A column that a part lacks is filled as in a merge."""

    def __init__(self, stores: Sequence[Store]) -> None:
        self.stores = tuple(stores)
        self.name = f"{self.stores[0].name} and {len(stores) - 1} more"
        self.hashes = None
        self.has_digests = all(store.has_digests for store in stores)
        specs = ([stored.spec for stored in store.layout.values()] for store in stores)
        check_types(zip((store.name for store in stores), specs, strict=True))
        layout: Layout = {}
        for store in stores:
            layout |= {name: stored for name, stored in store.layout.items() if name not in layout}
        self.layout = sort_layout(layout)
        self._frame_starts = _starts([store.n_frames for store in stores])
        self._atom_starts = _starts([int(store.offsets[-1]) for store in stores])
        shifted = (store.offsets[:-1] + start for store, start in zip(stores, self._atom_starts, strict=False))
        self.offsets = np.concatenate([*shifted, self._atom_starts[-1:]])

    def read(self, name: str, rows: IntArray | None) -> AnyArray:
        """Return rows of a column; None means all."""
        spec = self.spec(name)
        if name not in self.layout:
            return spec.empty(self.n_rows(spec) if rows is None else len(rows))
        out: AnyArray = np.empty((self.n_rows(spec) if rows is None else len(rows), *spec.shape), dtype=spec.dtype)
        starts = self._frame_starts if spec.per == "frame" else self._atom_starts
        for k, chosen, local in _by_part(starts, rows):
            store = self.stores[k]
            out[chosen] = store.read(name, local) if name in store.layout else spec.fill
        return out

    def read_mask(self, name: str, frames: IntArray | None) -> BoolArray | None:
        """Return which frames have a value of the user; None means all."""
        out = np.ones(self.n_frames if frames is None else len(frames), dtype=bool)
        for k, chosen, local in _by_part(self._frame_starts, frames):
            store = self.stores[k]
            mask = store.read_mask(name, local) if name in store.layout else np.False_
            if mask is not None:
                out[chosen] = mask
        return out

    def read_digests(self, frames: IntArray) -> Digests:
        """Return the digests behind the hashes, shape (n_frames, 64)."""
        out = np.empty((len(frames), PAIR_BYTES), dtype=np.uint8)
        for k, chosen, local in _by_part(self._frame_starts, frames):
            assert local is not None
            out[chosen] = self.stores[k].read_digests(local)
        return out

    def one(self, frame: int) -> Batch:
        """Return a single frame as a batch, fast also for frames far apart."""
        k = int(np.searchsorted(self._frame_starts, frame, side="right")) - 1
        return self.stores[k].one(frame - int(self._frame_starts[k]))

    def close(self) -> None:
        """Close the files."""
        for store in self.stores:
            store.close()


def _starts(counts: Sequence[int]) -> IntArray:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _by_part(starts: IntArray, rows: IntArray | None) -> Iterable[tuple[int, slice | BoolArray, IntArray | None]]:
    """Yield for every part that is needed its number, where its rows go, and which of its rows they are."""
    if rows is None:
        yield from ((k, slice(a, b), None) for k, (a, b) in enumerate(itertools.pairwise(starts.tolist())))
        return
    if not len(rows):
        return
    low, high = np.searchsorted(starts, [rows.min(), rows.max()], side="right") - 1
    for k in range(int(low), int(high) + 1):
        if low == high:
            yield k, slice(None), rows - starts[k]
            return
        chosen = (rows >= starts[k]) & (rows < starts[k + 1])
        if chosen.any():
            yield k, chosen, rows[chosen] - starts[k]
