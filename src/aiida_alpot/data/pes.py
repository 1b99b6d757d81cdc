"""PESData: frames with or without labels, in one or several columnar HDF5 files in the repository."""

from __future__ import annotations

import contextlib
import shutil
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
from ase.data import atomic_numbers, chemical_symbols

from aiida_alpot.kernel.dataset import (
    Dataset,
    DatasetError,
    check_types,
    find_parts,
    group_parts,
    merge,
    part_names,
    read_frames,
    write,
    write_frames,
)


class PESCaching(NodeCaching):
    """Hash a dataset by what it holds, not by the bytes of its file."""

    def get_objects_to_hash(self) -> dict[str, Any]:
        """Return the content hash (science) and the usage hash (split, group, status, weight and user columns)."""
        attributes = self._node.base.attributes
        return {"class": "alpot.pes", **{key: attributes.get(key) for key in ("content_hash", "usage_hash")}}


class PESData(orm.Data):
    """Frames of a potential-energy surface.

    Made by :meth:`from_frames`, :meth:`from_file`, :meth:`from_hdf5` or :meth:`join`, read through :meth:`dataset`,
    indexing or iteration. Two nodes of equal content have equal hashes, whatever the order or the names of their files
    and however many they are.
    """

    FILENAME: ClassVar[str] = "dataset.h5"
    """File of a dataset in one part; one in several parts has no file of this name, see :attr:`filenames`."""
    _CLS_NODE_CACHING = PESCaching

    class AttributesModel(orm.Data.AttributesModel):
        """What can be queried without opening the file."""

        n_frames: int = OrmMetadataField(description="Number of frames", read_only=True)
        n_labelled: int = OrmMetadataField(description="Number of frames with a label", read_only=True)
        n_atoms: int = OrmMetadataField(description="Number of atoms of all frames", read_only=True)
        symbols: list[str] = OrmMetadataField(description="Chemical symbols that occur", read_only=True)
        content_hash: str = OrmMetadataField(description="Hash of the science columns", read_only=True)
        usage_hash: str = OrmMetadataField(description="Hash of the book-keeping that changes results", read_only=True)
        parts: list[dict[str, Any]] | None = OrmMetadataField(
            default=None, description="Sizes and hashes of the files of a dataset in several parts", read_only=True
        )

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

    @classmethod
    def join(cls, sources: Sequence[PESData | Path]) -> PESData:
        """Return an unstored node with the frames of nodes and files, one after the other.

        The files of the nodes become parts of the new one as they are, so that the repository, which keeps equal
        content once, stores only what is new. Beyond :data:`~aiida_alpot.kernel.dataset.MAX_PARTS` parts, the newest
        are written anew as one, see :func:`~aiida_alpot.kernel.dataset.group_parts`.

        :raises ValueError: if a file is damaged, or a column has different types in two sources.
        """
        with contextlib.ExitStack() as stack:
            nodes = [source if isinstance(source, PESData) else cls.from_hdf5(source) for source in sources]
            readers = [stack.enter_context(node.dataset()) for node in nodes]
            check_types((reader.source, reader.specs.values()) for reader in readers)
            files = [
                (part, node, name)
                for node, reader in zip(nodes, readers, strict=True)
                for part, name in zip(reader.parts, node.filenames, strict=True)
            ]
            files = [file for file in files if len(file[0])] or files[:1]
            groups = [[files[k] for k in group] for group in group_parts([part.n_atoms for part, _, _ in files])]
            new = cls()
            for group, name in zip(groups, part_names(len(groups)), strict=True):
                with _joined(group) as handle:
                    new.base.repository.put_object_from_filelike(handle, name)
        new.base.attributes.set_many(new._describe(nodes))
        return new

    def _describe(self, sources: Sequence[PESData]) -> dict[str, Any]:
        """Return the attributes of the frames of *sources*, without reading these frames."""
        with self._open_parts() as dataset:
            numbers = {atomic_numbers[symbol] for node in sources for symbol in node.symbols}
            attributes = {
                "n_frames": len(dataset),
                "n_labelled": sum(node.n_labelled for node in sources),
                "n_atoms": dataset.n_atoms,
                "symbols": [chemical_symbols[number] for number in sorted(numbers)],
                "content_hash": dataset.content_hash,
                "usage_hash": dataset.usage_hash,
            }
            return attributes if len(dataset.parts) == 1 else attributes | {"parts": _part_records(dataset)}

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

    @property
    def filenames(self) -> list[str]:
        """Names of the files in the repository, in the order of the frames.

        :raises DatasetError: if one is missing.
        """
        return find_parts(self.base.repository.list_object_names(), f"PESData<{self.uuid}>")

    def dataset(self) -> Dataset:
        """Return a lazy reader on the stored files, which it shows as one; nothing is copied to memory.

        Use it in a ``with`` statement, or drop it: the files are closed with it.

        :raises DatasetError: if a file is missing or is not the one that the node was made with.
        """
        dataset = self._open_parts()
        try:
            self._check_parts(dataset)
        except DatasetError:
            dataset.close()
            raise
        return dataset

    def _open_parts(self) -> Dataset:
        names = self.filenames
        with contextlib.ExitStack() as stack:
            handles = [stack.enter_context(self.base.repository.open(name, "rb")) for name in names]
            dataset = Dataset.open(handles, [f"PESData<{self.uuid}> {name}" for name in names])
            weakref.finalize(dataset, stack.pop_all().close)
        return dataset

    def _check_parts(self, dataset: Dataset) -> None:
        """Compare sizes and hashes of the files with those the node was made with."""
        attributes = self.base.attributes
        records = attributes.get("parts", None) or [
            {key: attributes.get(key, None) for key in ("n_frames", "n_atoms", "content_hash", "usage_hash")}
        ]
        found = _part_records(dataset)
        if len(found) != len(records):
            raise DatasetError(
                f"PESData<{self.uuid}> has {len(found)} files instead of {len(records)}; import it again"
            )
        for name, record, expected in zip(self.filenames, found, records, strict=True):
            wrong = [key for key, value in record.items() if expected.get(key) != value]
            if wrong:
                raise DatasetError(
                    f"PESData<{self.uuid}>: {name} is not the file the node was made with ({', '.join(wrong)} differ); "
                    "import it again from the original archive"
                )

    def export(  # type: ignore[override]
        self, path: str | Path, file_format: str | None = None, *, only_labelled: bool = False
    ) -> None:
        """Write the frames to a file in extended xyz, ASE db or this package's HDF5; every column goes along.

        :param only_labelled: leave out frames that have no label or one that must not be trained on.
        """
        path = Path(path)
        is_hdf5 = file_format == "hdf5" or (file_format is None and path.suffix in {".h5", ".hdf5"})
        if is_hdf5 and not only_labelled:
            self._export_hdf5(path)
            return
        with self.dataset() as dataset:
            frames = dataset[dataset.column("status") == "labelled"] if only_labelled else dataset
            write_frames(frames, path, file_format)

    def _export_hdf5(self, path: Path) -> None:
        """Write one file, whatever the number of parts."""
        with self.dataset() as dataset:
            if len(dataset.parts) > 1:
                dataset.write(path)
                return
        with self.base.repository.open(self.FILENAME, "rb") as handle, path.open("wb") as target:
            shutil.copyfileobj(handle, target)

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
        names = self.base.repository.list_object_names()
        if not names:
            raise ValidationError(f"a PESData needs its file {self.FILENAME}; make it with from_frames or from_file")
        try:
            self.filenames  # noqa: B018  says what is missing
        except DatasetError as error:
            raise ValidationError(str(error)) from error
        if self.base.attributes.get("content_hash", None) is None:
            raise ValidationError("a PESData needs its attributes; make it with from_frames or from_file")
        return True


@contextlib.contextmanager
def _joined(files: Sequence[tuple[Dataset, PESData, str]]) -> Iterator[Any]:
    """Yield one file as it is, or several written as one."""
    if len(files) == 1:
        _, node, name = files[0]
        with node.base.repository.open(name, "rb") as handle:
            yield handle
        return
    with tempfile.TemporaryFile() as handle:
        merge([part for part, _, _ in files], handle)
        yield handle


def _part_records(dataset: Dataset) -> list[dict[str, Any]]:
    return [
        {
            "n_frames": len(part),
            "n_atoms": part.n_atoms,
            "content_hash": part.content_hash,
            "usage_hash": part.usage_hash,
        }
        for part in dataset.parts
    ]


def _attributes(dataset: Dataset) -> dict[str, Any]:
    return {
        "n_frames": len(dataset),
        "n_labelled": dataset.n_labelled,
        "n_atoms": dataset.n_atoms,
        "symbols": [chemical_symbols[number] for number in dataset.species],
        "content_hash": dataset.content_hash,
        "usage_hash": dataset.usage_hash,
    }
