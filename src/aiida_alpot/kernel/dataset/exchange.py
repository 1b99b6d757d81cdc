"""Exchange formats: extended xyz, the database of ASE, and whatever ASE reads."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal, cast

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read
from ase.io.formats import UnknownFileTypeError, filetype, get_compression

from aiida_alpot.kernel.dataset.code_output import CODES, read_code_output
from aiida_alpot.kernel.dataset.extxyz import EXTRA_KEY, pack, restore, visible_info, write_extxyz
from aiida_alpot.kernel.dataset.frames import REF_PREFIX, read_labels
from aiida_alpot.kernel.dataset.reader import Dataset
from aiida_alpot.kernel.dataset.schema import LABELS, SCHEMA
from aiida_alpot.kernel.dataset.storage import PathLike
from aiida_alpot.kernel.dataset.writer import write
from aiida_alpot.kernel.dataset.xyz_check import XyzError, check_xyz

Format = Literal["extxyz", "db", "hdf5"]
_SUFFIXES: Final[dict[str, Format]] = {
    ".xyz": "extxyz",
    ".extxyz": "extxyz",
    ".db": "db",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
}


def read_frames(path: PathLike, format: str | None = None) -> list[Atoms]:  # noqa: A002
    """Read the frames of a file, with labels in a SinglePointCalculator.

    Labels come from REF_ keys if the file has them, else from what ASE takes for results of a calculator. A user
    column that has whole numbers in some frames and fractions in others becomes float in all. Text may be compressed
    (.gz, .bz2, .xz).

    :param format: "extxyz", "db" (ASE's database), "hdf5" (a dataset) or a format of ``ase.io``; None: by the suffix.
    :raises FileNotFoundError: if there is no such file.
    :raises ValueError: if a label has a wrong shape, or the file says something else than what ASE would read.
    """
    source = Path(path)
    if not source.is_file():
        raise FileNotFoundError(f"no file at {source}")
    name, compression = get_compression(source.name)
    kind = _format(Path(name), format)
    if compression and kind in ("db", "hdf5"):
        raise ValueError(f"{source.name}: a compressed file cannot be read as {kind}; decompress it first")
    if kind == "hdf5":
        with Dataset.open(source) as dataset:
            return list(dataset)
    frames = _read_db(source) if kind == "db" else _read_ase(source, kind)
    for number, atoms in enumerate(frames):
        where = f"{source}, frame {number}"
        try:
            restore(atoms)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{where}: the entry {EXTRA_KEY!r} is damaged ({error!r}); remove it") from error
        _attach_labels(atoms, where)
    _harmonise(frames)
    return frames


def write_frames(frames: Dataset | Iterable[Atoms], path: PathLike, format: str | None = None) -> None:  # noqa: A002
    """Write frames with every column to another format; the file appears when it is complete.

    :param frames: a dataset, a view or any iterable of frames.
    :param format: "extxyz", "db" (ASE's database) or "hdf5" (a dataset); None: by the suffix.
    :raises ValueError: if the format is not one of these.
    """
    target = Path(path)
    writer = _WRITERS[export_format(target, format)]
    with _replacing(target) as temporary:
        writer(temporary, frames)


def export_format(path: PathLike, format: str | None = None) -> Format:  # noqa: A002
    """Return the format in which :func:`write_frames` writes a file of this name.

    :raises ValueError: if it cannot.
    """
    kind = _format(Path(path), format)
    if kind not in _WRITERS:
        raise ValueError(f"cannot write {kind or Path(path).suffix!r}; formats: extxyz, db, hdf5")
    return cast(Format, kind)


def _format(path: Path, name: str | None) -> str | None:
    return _SUFFIXES.get(path.suffix.lower()) if name is None else {"h5": "hdf5", "xyz": "extxyz"}.get(name, name)


@contextlib.contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    temporary = target.with_name(f".{target.stem}.{os.getpid()}-{secrets.token_hex(4)}{target.suffix or '.tmp'}")
    try:
        yield temporary
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _write_extxyz(path: Path, frames: Iterable[Atoms]) -> None:
    with path.open("w", encoding="ascii", newline="\n") as file:
        for number, atoms in enumerate(frames):
            write_extxyz(file, atoms, f"frame {number}")


def _write_db(path: Path, frames: Iterable[Atoms]) -> None:
    from ase.db import connect

    with connect(path, type="db", append=False) as database:
        for number, atoms in enumerate(frames):
            labels = read_labels(atoms, f"frame {number}")
            bare = Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
            if labels:
                bare.calc = SinglePointCalculator(bare, **_scalars(labels))
            arrays = {name: pack(values) for name, values in atoms.arrays.items() if not _is_core(name)}
            info = {name: pack(value) for name, value in visible_info(atoms).items()}
            database.write(bare, data={EXTRA_KEY: json.dumps({"info": info, "arrays": arrays})})


_WRITERS: Final[dict[str, Callable[[Path, Iterable[Atoms]], None]]] = {
    "extxyz": _write_extxyz,
    "db": _write_db,
    "hdf5": write,
}


def _is_core(name: str) -> bool:
    return name in ("numbers", "positions") or name in {REF_PREFIX + label for label in LABELS}


def _read_db(path: Path) -> list[Atoms]:
    from ase.db import connect

    frames = []
    try:
        with connect(path, type="db") as database:
            for row in database.select(sort="id"):
                atoms = row.toatoms()
                data: Any = row.data
                if EXTRA_KEY in data:
                    atoms.info = {EXTRA_KEY: json.loads(data[EXTRA_KEY])}
                else:
                    atoms.info = {name: value for name, value in row.key_value_pairs.items() if not _is_clash(name)}
                frames.append(atoms)
    except Exception as error:  # SQLite, JSON and ASE each have errors of their own for a damaged file
        raise _unreadable(path, "db", error) from error
    return frames


def _unreadable(path: Path, kind: str | None, error: Exception) -> ValueError:
    reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    what = kind or "a file of frames"
    return ValueError(f"{path.name} cannot be read as {what}, it is damaged or of another format: {reason}")


def _is_clash(name: str) -> bool:
    return name in LABELS or name in ("numbers", "positions", "cell", "pbc")


def _read_ase(path: Path, kind: str | None) -> list[Atoms]:
    if path.stat().st_size == 0:
        return []
    name = str(path.absolute())  # ASE takes some relative names for something else, "-" for the standard input
    try:
        kind = filetype(name) if kind is None else kind
        if kind in CODES:
            return read_code_output(path, kind)
        if kind == "extxyz":
            check_xyz(path)
        frames = read(name, index=":", format=kind, do_not_split_by_at_sign=True)
    except XyzError:
        raise
    except UnknownFileTypeError as error:
        raise ValueError(f"{path.name}: no known format of frames ({error}); name one, e.g. extxyz") from error
    except Exception as error:  # the readers of ASE raise whatever a damaged file makes them stumble over
        raise _unreadable(path, kind, error) from error
    return [frames] if isinstance(frames, Atoms) else list(frames)


def _attach_labels(atoms: Atoms, where: str) -> None:
    """Make the calculator hold the labels; REF_ keys win over other results, which may come from a potential."""
    found = {label: (atoms.info, REF_PREFIX + label) for label in LABELS if REF_PREFIX + label in atoms.info}
    found |= {label: (atoms.arrays, REF_PREFIX + label) for label in LABELS if REF_PREFIX + label in atoms.arrays}
    if found:
        atoms.calc = None
    labels = read_labels(atoms, where)
    for source, key in found.values():
        del source[key]
    atoms.calc = SinglePointCalculator(atoms, **_scalars(labels)) if labels else None


def _scalars(labels: dict[str, Any]) -> dict[str, Any]:
    return {
        name: float(value) if SCHEMA[name].shape == () and np.ndim(value) == 0 else value
        for name, value in labels.items()
    }


def _harmonise(frames: Sequence[Atoms]) -> None:
    """Make user numbers float in every frame if they are float in one: a file writes 300.0 K as 300."""
    for part in ("info", "arrays"):
        kinds: dict[str, set[str]] = {}
        for atoms in frames:
            for name, value in getattr(atoms, part).items():
                kinds.setdefault(name, set()).add(_number_kind(value))
        for name in (name for name, found in kinds.items() if found == {"i", "f"}):
            for atoms in frames:
                values = getattr(atoms, part)
                if name in values:
                    values[name] = np.asarray(values[name], dtype=np.float64)[()]


def _number_kind(value: Any) -> str:
    if isinstance(value, (np.generic, np.ndarray)):
        return str(value.dtype.kind)
    return {int: "i", float: "f"}.get(type(value), "other")
