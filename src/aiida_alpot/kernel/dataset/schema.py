"""What a dataset file holds: its columns, their defaults and the version of the layout.

A file is one HDF5 file with flat columns, readable with plain h5py::

    offsets              int64 (n_frames + 1,): atoms of frame k are rows offsets[k]:offsets[k+1] of every atom column
    frame/<name>         one row per frame
    atom/<name>          one row per atom, all frames one after the other
    present/<name>       bool (n_frames,), only for user columns that some frames lack
    strings/<name>/...   the table behind a text column: the column holds uint32 codes, entry c of the table is the
                         UTF-8 text bytes[offsets[c]:offsets[c+1]]; entry 0 is the empty text
    digests/<name>       uint8 (n_frames, 32): the digests behind content_hash and usage_hash, see ids (absent in files
                         of early versions)

A column is stored only if some frame has a value. Names are percent-encoded where HDF5 needs it (``/``, ``.``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

FORMAT: Final = "aiida-alpot-dataset"
SCHEMA_VERSION: Final = 1

Per = Literal["frame", "atom"]
Kind = Literal["bool", "int", "float", "str"]
Role = Literal["science", "bookkeeping", "user"]
AnyArray = npt.NDArray[Any]

SPLITS: Final = ("train", "validation", "test", "calibration", "")
STATUSES: Final = ("labelled", "unlabelled", "failed", "quarantined")
DTYPES: Final[Mapping[str, Any]] = {
    "bool": np.dtype("?"),
    "int": np.dtype("<i8"),
    "float": np.dtype("<f8"),
    "str": np.dtype(object),
}
_KIND_OF_CODE: Final[Mapping[str, Kind]] = {"b": "bool", "i": "int", "f": "float"}


class DatasetError(ValueError):
    """A dataset file cannot be read: not a dataset, truncated, corrupt, or written by a newer version."""


@dataclass(frozen=True)
class ColumnSpec:
    """One column: its name, whether it has a row per frame or per atom, its type and the shape of a row."""

    name: str
    per: Per
    kind: Kind
    shape: tuple[int, ...] = ()
    role: Role = "user"
    default: Any = None
    unit: str = ""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values in memory (``object`` for text)."""
        dtype: np.dtype[Any] = DTYPES[self.kind]
        return dtype

    @property
    def fill(self) -> Any:
        """Value of a row that was never given."""
        if self.default is not None:
            return self.default
        return {"bool": False, "int": 0, "float": np.nan, "str": ""}[self.kind]

    @property
    def path(self) -> str:
        """Where the column lies in the file."""
        return f"{self.per}/{encode_name(self.name)}"

    def empty(self, n_rows: int) -> AnyArray:
        """Return *n_rows* rows that were never given."""
        return np.full((n_rows, *self.shape), self.fill, dtype=self.dtype)

    def is_same_type(self, other: ColumnSpec) -> bool:
        """Return whether two columns can be joined."""
        return (self.per, self.kind, self.shape) == (other.per, other.kind, other.shape)

    def describe(self) -> str:
        """Return the type in words, for messages."""
        return f"{self.kind} of shape {self.shape} per {self.per}"


def _column(name: str, per: Per, kind: Kind, shape: tuple[int, ...] = (), **rest: Any) -> ColumnSpec:
    return ColumnSpec(name, per, kind, shape, **{"role": "science", **rest})


def _note(name: str, kind: Kind, **rest: Any) -> ColumnSpec:
    return ColumnSpec(name, "frame", kind, (), role="bookkeeping", **rest)


SCHEMA: Final[Mapping[str, ColumnSpec]] = {
    spec.name: spec
    for spec in (
        _column("numbers", "atom", "int"),
        _column("positions", "atom", "float", (3,), unit="angstrom"),
        _column("cell", "frame", "float", (3, 3), unit="angstrom"),
        _column("pbc", "frame", "bool", (3,)),
        _column("charge", "frame", "float", unit="e"),
        _column("energy", "frame", "float", unit="eV"),
        _column("forces", "atom", "float", (3,), unit="eV/angstrom"),
        _column("stress", "frame", "float", (6,), unit="eV/angstrom^3"),
        _column("magmoms", "atom", "float", unit="mu_B"),
        _column("fingerprint", "frame", "str"),
        _note("split", "str"),
        _note("group", "str"),
        _note("origin", "str"),
        _note("iteration", "int", default=-1),
        _note("config_type", "str"),
        _note("weight", "float", default=1.0),
        _note("parent", "str"),
        _note("cost", "float", unit="s"),
        _note("status", "str", default="unlabelled"),
        _note("reason", "str"),
    )
}
"""Columns the package knows. The order is the order in the hashes: a change needs a new schema version."""

GEOMETRY: Final = ("numbers", "positions", "cell", "pbc")
"""Columns every frame has."""
STRUCTURE: Final = (*GEOMETRY, "charge")
"""Columns behind the frame id without labels: what a calculation starts from."""
LABELS: Final = ("energy", "forces", "stress", "magmoms")
SCIENCE: Final = tuple(name for name, spec in SCHEMA.items() if spec.role == "science")
BOOKKEEPING: Final = tuple(name for name, spec in SCHEMA.items() if spec.role == "bookkeeping")
INFO_COLUMNS: Final = ("charge", "fingerprint", *BOOKKEEPING)
"""Known columns that live in ``atoms.info`` and may be replaced by ``write(..., **columns)``."""
USAGE: Final = ("split", "group", "weight", "config_type", "status", "iteration")
"""Book-keeping columns behind the usage hash, with every user column."""


def user_spec(name: str, per: Per, dtype: np.dtype[Any], shape: tuple[int, ...]) -> ColumnSpec:
    """Return the column of a user for values of *dtype*.

    :raises ValueError: if the name belongs to a known column, or is no text in UTF-8.
    """
    if name in SCHEMA:
        raise ValueError(f"{name!r} is a column of the dataset and cannot be a user column per {per}; rename it")
    if not is_utf8(name):
        raise ValueError(f"the column name {name!a} cannot be written as UTF-8; rename the column")
    kind = _KIND_OF_CODE.get(dtype.kind, "str")
    return ColumnSpec(name, per, kind, shape)


def is_utf8(text: str) -> bool:
    """Return whether a text can be written as UTF-8; a file name that is not holds surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def encode_name(name: str) -> str:
    """Return *name* as one component of an HDF5 path."""
    return name.replace("%", "%25").replace("/", "%2F").replace(".", "%2E").replace("\0", "%00")


def decode_name(name: str) -> str:
    """Return the column name behind a component of an HDF5 path."""
    return name.replace("%00", "\0").replace("%2E", ".").replace("%2F", "/").replace("%25", "%")


@dataclass(frozen=True)
class StoredColumn:
    """A column as found in a file: what it is now, and where and under which name it was stored."""

    spec: ColumnSpec
    path: str
    stored_name: str


Layout = dict[str, StoredColumn]
MIGRATIONS: Final[dict[int, Callable[[Layout], Layout]]] = {}
"""Entry ``v`` turns a layout of version ``v`` into one of version ``v + 1`` when a file is opened; files stay as is."""


def migrate(layout: Layout, version: int) -> Layout:
    """Return the layout of a file of *version* in terms of today's columns.

    :raises DatasetError: if the file is newer than this package, or no step leads here.
    """
    if version > SCHEMA_VERSION:
        raise DatasetError(
            f"the dataset has schema version {version}, this aiida-alpot reads up to {SCHEMA_VERSION}; "
            "upgrade aiida-alpot, or export the dataset to extxyz with the version that wrote it"
        )
    for step in range(version, SCHEMA_VERSION):
        if step not in MIGRATIONS:
            raise DatasetError(f"no migration leads from schema version {step} to {step + 1}; the file is not usable")
        layout = MIGRATIONS[step](layout)
    return layout


def with_role(spec: ColumnSpec) -> ColumnSpec:
    """Return the known column of that name if the types agree, otherwise the column of a user."""
    known = SCHEMA.get(spec.name)
    return known if known is not None and known.is_same_type(spec) else replace(spec, role="user")
