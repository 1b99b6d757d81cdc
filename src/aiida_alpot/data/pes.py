"""PESData: frames with or without labels, one columnar HDF5 file in the repository."""

from __future__ import annotations

import contextlib
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from aiida import orm
from aiida.common.exceptions import ValidationError
from aiida.orm.nodes.caching import NodeCaching
from aiida.orm.pydantic import OrmMetadataField
from ase import Atoms
from ase.data import chemical_symbols

from aiida_alpot.kernel.dataset import Dataset, read_frames, write, write_frames


class PESCaching(NodeCaching):
    """Hash a dataset by what it holds, not by the bytes of its file."""

    def get_objects_to_hash(self) -> dict[str, Any]:
        """Return the content hash (science) and the usage hash (split, group, status, weight and user columns)."""
        attributes = self._node.base.attributes
        return {"class": "alpot.pes", **{key: attributes.get(key) for key in ("content_hash", "usage_hash")}}


class PESData(orm.Data):
    """Frames of a potential-energy surface.

    Made by :meth:`from_frames`, :meth:`from_file` or :meth:`from_hdf5`, read through :meth:`dataset`, indexing or
    iteration. Two nodes of equal content have equal hashes, whatever the order or the names of their files.
    """

    FILENAME: ClassVar[str] = "dataset.h5"
    _CLS_NODE_CACHING = PESCaching

    class AttributesModel(orm.Data.AttributesModel):
        """What can be queried without opening the file."""

        n_frames: int = OrmMetadataField(description="Number of frames", read_only=True)
        n_labelled: int = OrmMetadataField(description="Number of frames with a label", read_only=True)
        n_atoms: int = OrmMetadataField(description="Number of atoms of all frames", read_only=True)
        symbols: list[str] = OrmMetadataField(description="Chemical symbols that occur", read_only=True)
        content_hash: str = OrmMetadataField(description="Hash of the science columns", read_only=True)
        usage_hash: str = OrmMetadataField(description="Hash of the book-keeping that changes results", read_only=True)

    @classmethod
    def from_frames(cls, frames: Iterable[Atoms], **columns: Sequence[Any]) -> PESData:
        """Return an unstored node with *frames*.

        :param frames: labels in a ``SinglePointCalculator``, book-keeping in ``info``.
        :param columns: per-frame columns that replace those of the frames.
        :raises ValueError: if a frame is unusable; the message names it.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / cls.FILENAME
            write(path, frames, **columns)
            return cls.from_hdf5(path)

    @classmethod
    def from_file(cls, path: str | Path, file_format: str | None = None) -> PESData:
        """Return an unstored node with the frames of a file.

        :param path: this package's HDF5, extended xyz, an ASE database, or what else ASE reads.
        :param file_format: name of the format if the ending of the file does not tell.
        :raises ValueError: if the file is missing, unreadable or empty.
        """
        path = Path(path)
        if not path.is_file():
            raise ValueError(f"there is no file {path}")
        if file_format == "hdf5" or (file_format is None and path.suffix in {".h5", ".hdf5"}):
            return cls.from_hdf5(path)
        frames = read_frames(path, file_format)
        if not frames:
            raise ValueError(f"{path.name} holds no frame")
        return cls.from_frames(frames)

    @classmethod
    def from_hdf5(cls, path: str | Path) -> PESData:
        """Return an unstored node with a file that :func:`aiida_alpot.kernel.dataset.write` made, checked throughout.

        :raises ValueError: if it is not such a file or damaged.
        """
        path = Path(path)
        with Dataset.open(path) as dataset:
            dataset.verify()
            attributes = _attributes(dataset)
        node = cls()
        node.base.repository.put_object_from_file(str(path), cls.FILENAME)
        node.base.attributes.set_many(attributes)
        return node

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return int(self.base.attributes.get("n_frames"))

    @property
    def n_labelled(self) -> int:
        """Number of frames with a label."""
        return int(self.base.attributes.get("n_labelled"))

    @property
    def n_atoms(self) -> int:
        """Number of atoms of all frames together."""
        return int(self.base.attributes.get("n_atoms"))

    @property
    def symbols(self) -> list[str]:
        """Chemical symbols that occur, by atomic number."""
        return list(self.base.attributes.get("symbols"))

    @property
    def content_hash(self) -> str:
        """Hash of the science columns, independent of row order and book-keeping."""
        return str(self.base.attributes.get("content_hash"))

    @property
    def usage_hash(self) -> str:
        """Hash of the book-keeping that changes what a job makes of the frames."""
        return str(self.base.attributes.get("usage_hash"))

    def dataset(self) -> Dataset:
        """Return a lazy reader on the stored file; nothing is copied to memory.

        Use it in a ``with`` statement, or drop it: the file is closed with it.
        """
        with contextlib.ExitStack() as stack:
            handle = stack.enter_context(self.base.repository.open(self.FILENAME, "rb"))
            dataset = Dataset.open(handle)
            weakref.finalize(dataset, stack.pop_all().close)
        return dataset

    def export(self, path: str | Path, file_format: str | None = None) -> None:  # type: ignore[override]
        """Write the frames to a file in extended xyz, ASE db or this package's HDF5; every column goes along."""
        path = Path(path)
        if file_format == "hdf5" or (file_format is None and path.suffix in {".h5", ".hdf5"}):
            with self.base.repository.open(self.FILENAME, "rb") as handle:
                path.write_bytes(handle.read())
            return
        with self.dataset() as dataset:
            write_frames(dataset, path, file_format)

    def __len__(self) -> int:
        return self.n_frames

    def __getitem__(self, index: int) -> Atoms:
        with self.dataset() as dataset:
            return dataset[index]

    def __iter__(self) -> Iterator[Atoms]:
        with self.dataset() as dataset:
            yield from dataset

    def _validate(self) -> bool:
        super()._validate()
        if self.FILENAME not in self.base.repository.list_object_names():
            raise ValidationError(f"a PESData needs its file {self.FILENAME}; make it with from_frames or from_file")
        if self.base.attributes.get("content_hash", None) is None:
            raise ValidationError("a PESData needs its attributes; make it with from_frames or from_file")
        return True


def _attributes(dataset: Dataset) -> dict[str, Any]:
    return {
        "n_frames": len(dataset),
        "n_labelled": int((dataset.column("status") == "labelled").sum()),
        "n_atoms": int(dataset.offsets[-1]),
        "symbols": [chemical_symbols[number] for number in dataset.species],
        "content_hash": dataset.content_hash,
        "usage_hash": dataset.usage_hash,
    }
