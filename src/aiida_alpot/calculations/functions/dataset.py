"""calcfunctions on datasets: import, merge, select, split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from aiida import orm
from aiida.engine import calcfunction
from ase import Atoms

from aiida_alpot.data.pes import PESData
from aiida_alpot.kernel.dataset import Dataset, DatasetView, write
from aiida_alpot.kernel.labelling.identity import label_ids
from aiida_alpot.kernel.labelling.residuals import keep_errors
from aiida_alpot.kernel.labelling.results import COMPUTED, find_known_labels, find_same_structures, take_label
from aiida_alpot.kernel.splitting import split_columns


@calcfunction
def import_frames(file: orm.SinglefileData, file_format: orm.Str | None = None) -> PESData:
    """Return the frames of a file of structures.

    :param file: extended xyz, an ASE database, this package's HDF5, or what else ASE reads.
    :param file_format: name of the format if the ending of the file does not tell.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / Path(file.filename).name
        path.write_bytes(file.get_content(mode="rb"))
        return PESData.from_file(path, None if file_format is None else file_format.value)


@calcfunction
def merge_datasets(**datasets: PESData) -> PESData:
    """Return the frames of several datasets, in the order of the names under which they are given."""
    return PESData.join([datasets[name] for name in sorted(datasets)])


@calcfunction
def select_frames(dataset: PESData, query: orm.Dict) -> PESData:
    """Return the frames that match all entries of a query, in their order.

    :param dataset: the frames to select from.
    :param query: ``{column: value or list of values}``, e.g. ``{"split": "test"}``, or ``{"ids": [...]}`` of
        :meth:`~aiida_alpot.kernel.dataset.Dataset.frame_ids`. There are no row numbers: datasets that differ in the
        order of their rows only count as equal.
    """
    with dataset.dataset() as reader:
        mask = np.ones(len(reader), dtype=bool)
        for column, wanted in query.get_dict().items():
            found = reader.frame_ids() if column == "ids" else reader.column(column)
            values: Sequence[Any] = wanted if isinstance(wanted, list) else [wanted]
            mask &= np.isin(found, values)
        return store_view(reader[mask])


@calcfunction
def select_unknown(frames: PESData, dataset: PESData) -> PESData:
    """Return those of *frames* whose structure, with its starting moments, has no label in *dataset*.

    :param frames: the frames to choose from.
    :param dataset: frames, some of them labelled.
    """
    with dataset.dataset() as known, frames.dataset() as reader:
        labelled = label_ids(known[known.column("status") == "labelled"])
        return store_view(reader[~np.isin(label_ids(reader), labelled)])


@calcfunction
def take_known_labels(frames: PESData, known: PESData, fingerprint: orm.Str) -> PESData:
    """Return *frames* with the labels of these settings that *known* has of the same structures.

    :param frames: frames to be labelled.
    :param known: labels that were accepted before.
    :param fingerprint: of the settings.
    """
    with frames.dataset() as reader, known.dataset() as before:
        found = find_known_labels(reader, before, fingerprint.value)
        return PESData.from_frames(_with_known(reader, before, found))


def _with_known(frames: Dataset, known: Dataset, found: Mapping[int, int]) -> Iterator[Atoms]:
    """Yield frames, with the known label in place of none and behind one of other settings."""
    for k, atoms in enumerate(frames):
        if k not in found or atoms.info.get("status") in COMPUTED:
            yield atoms
        if k in found:
            yield take_label(atoms, known[found[k]])


@calcfunction
def select_same(frames: PESData, known: PESData) -> PESData:
    """Return those of *known* that have a label, of whatever settings, of a structure in *frames*.

    :param frames: frames to be labelled.
    :param known: labels that were accepted before.
    """
    with frames.dataset() as reader, known.dataset() as before:
        return store_view(before[find_same_structures(reader, before)])


@calcfunction
def select_new(frames: PESData, **known: PESData) -> PESData:
    """Return those of *frames* whose structure is in none of the datasets *known*, with a label or without.

    :param frames: the frames to choose from.
    :param known: frames that are left out.
    """
    ids = [_structures(node)[0] for node in known.values()]
    with frames.dataset() as reader:
        return store_view(reader[~np.isin(label_ids(reader), np.concatenate(ids))])


@calcfunction
def merge_structures(**datasets: PESData) -> PESData:
    """Return the frames of several datasets, in the order of their names, without those that occur in two of them.

    Of a structure that occurs in two, a frame with a label stays, or else the one of the first dataset. Copies within
    one dataset stay as they are.

    :param datasets: frames, some of them labelled.
    """
    nodes = [datasets[name] for name in sorted(datasets)]
    structures = [_structures(node) for node in nodes]
    labelled = np.concatenate([ids[has_label] for ids, has_label in structures])
    taken = labelled[:0]
    with TemporaryDirectory() as folder:
        sources: list[PESData | Path] = []
        for k, (node, (ids, has_label)) in enumerate(zip(nodes, structures, strict=True)):
            stays = (has_label | ~np.isin(ids, labelled)) & ~np.isin(ids, taken)
            taken = np.concatenate([taken, ids[stays]])
            sources.append(node if stays.all() else _write_rows(node, stays, Path(folder) / f"{k}.h5"))
        return PESData.join(sources)


def _structures(node: PESData) -> tuple[Any, Any]:
    """Return the id of structure and starting moments of each frame, and whether it has a label, both (n_frames,)."""
    with node.dataset() as reader:
        return label_ids(reader), reader.column("status") == "labelled"


def _write_rows(node: PESData, rows: Any, path: Path) -> Path:
    with node.dataset() as reader:
        reader[rows].write(path)
    return path


@calcfunction
def split_dataset(dataset: PESData, settings: orm.Dict, seed: orm.Int) -> PESData:
    """Return the dataset with a split for every frame that has none; whole groups, fixed for life.

    :param dataset: the frames; only labelled ones take part in the shares.
    :param settings: shares by split, see :class:`~aiida_alpot.kernel.splitting.SplitSettings`.
    :param seed: seed of the draw.
    """
    with dataset.dataset() as reader:
        columns = split_columns(reader, settings.get_dict(), seed.value)
        return store_view(reader[:], **columns)


def store_view(view: DatasetView, **columns: Sequence[Any]) -> PESData:
    """Return a dataset of the frames of a view, with some columns replaced."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / PESData.FILENAME
        view.write(path, **columns)
        return PESData.from_hdf5(path)


@calcfunction
def extend_dataset(dataset: PESData, labelled: PESData) -> PESData:
    """Return *dataset* with newly labelled frames behind it.

    Of the predictions that selected frames carry the errors stay, which later labels are compared with. The files of
    *dataset* become parts of the new one: only the new frames are written.

    :param dataset: the frames there are.
    :param labelled: the frames to put behind them.
    """
    with TemporaryDirectory() as folder:
        addition = Path(folder) / PESData.FILENAME
        write(addition, _with_errors(labelled))
        return PESData.join([dataset, addition])


def _with_errors(labelled: PESData) -> Iterator[Atoms]:
    for atoms in labelled:
        keep_errors(atoms)
        yield atoms
