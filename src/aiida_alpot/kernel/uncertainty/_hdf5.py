"""Write flat arrays and a few words to one HDF5 file whose bytes depend on nothing else."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import h5py
import numpy as np
import numpy.typing as npt

from aiida_alpot.kernel.hdf5 import find_outside

SCHEMA_VERSION: Final = 1
"""Version of the files of this room; raised when a reader of the old one would go wrong."""


def write_arrays(path: str | Path, arrays: Mapping[str, npt.NDArray[np.generic]], words: Mapping[str, str]) -> None:
    """Write arrays and words to *path*, under a temporary name first.

    :param arrays: keys may contain ``/`` for groups; they are written in alphabetical order.
    :param words: attributes of the file; ``kind`` is what the reader asks for.
    """
    path = Path(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    temporary = Path(name)
    try:
        with h5py.File(temporary, "w", libver=("v110", "v110"), track_order=False) as file:
            file.attrs["schema_version"] = SCHEMA_VERSION
            for key in sorted(words):
                file.attrs[key] = words[key]
            for key in sorted(arrays):
                file.create_dataset(key, data=arrays[key], track_times=False)
        # mkstemp makes the file private to the user
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_arrays(path: str | Path, kind: str) -> tuple[dict[str, npt.NDArray[np.generic]], dict[str, str]]:
    """Return what :func:`write_arrays` wrote.

    :param kind: the kind the file must be of.
    :raises FileNotFoundError: if there is no file.
    :raises ValueError: if it is no HDF5 file or damaged, of another kind or of an unknown schema version.
    """
    arrays: dict[str, npt.NDArray[np.generic]] = {}

    def collect(key: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            arrays[key] = np.asarray(item[()])

    with _opened(path) as file:
        words = {str(key): value for key, value in file.attrs.items()}
        if words.get("kind") != kind:
            raise ValueError(f"{path}: expected a file of kind {kind!r}, got {words.get('kind')!r}")
        version = words.pop("schema_version", -1)
        if version != SCHEMA_VERSION:
            raise ValueError(f"{path}: unknown schema version {version}; this reader knows {SCHEMA_VERSION}")
        outside = find_outside(file)
        if outside is not None:
            raise ValueError(f"{path}: {outside} lies outside the file; write it again with what it points to")
        file.visititems(collect)
    return arrays, {key: str(value) for key, value in words.items()}


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[h5py.File]:
    """Open a file and turn the errors of h5py into one that names it."""
    try:
        with h5py.File(path, "r") as file:
            yield file
    except FileNotFoundError:
        raise
    except (KeyError, OSError, OverflowError, RuntimeError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: it is truncated, corrupt or no HDF5 file ({error})") from error
