"""What ASE reads of an extended-xyz file without complaint although it is not what the file says.

ASE's reader ends at the first empty line and leaves out all that follows, counts to whatever number of atoms a file
claims, takes any word of ``pbc`` for true, puts atoms without positions at the origin, skips surplus columns and
forgets ``species`` beside ``Z``.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from ase.data import atomic_numbers
from ase.io.extxyz import REV_PROPERTY_NAME_MAP, key_val_str_to_dict
from ase.io.formats import open_with_compression

from aiida_alpot.kernel.dataset.xyz_labels import check_entries_once, check_label_entries, looks_like_label

_DEFAULT_PROPERTIES: Final = "species:S:1:pos:R:3"
_CASED: Final = {"lattice": "Lattice", "cell": "Lattice", "properties": "Properties", "pbc": "pbc"}
_UNIT: Final = re.compile(r"units?$", re.IGNORECASE)
_FOREIGN_UNIT: Final = re.compile(r"kcal|kj|hartree|rydberg|a\.u\.|atomic|bohr|\b(ha|ry|au|nm|pm)\b", re.IGNORECASE)

Lines = Iterator[tuple[int, str]]


class XyzError(ValueError):
    """A file of extended xyz says something else than what ASE would read."""


class _Column(NamedTuple):
    """A column of the lines of the atoms: type (R, I, S or L), where it begins, how wide it is."""

    kind: str
    start: int
    width: int


def may_be_refused(name: str) -> bool:
    """Return whether an entry of this name can be refused, since it looks like another one."""
    return name.lower() in _CASED or _UNIT.search(name) is not None or looks_like_label(name)


def check_xyz(path: Path) -> None:
    """Refuse a file whose frames ASE would read as something else, or never finish to read.

    :param path: may be compressed (.gz, .bz2, .xz).
    :raises XyzError: naming the file, the frame, the line and what to do.
    """
    with io.TextIOWrapper(open_with_compression(str(path), "rb"), encoding="utf-8") as file:
        try:
            _check_lines(enumerate(file, start=1), path.name)
        except UnicodeDecodeError as error:
            raise XyzError(
                f"{path.name} is no text in UTF-8 ({error}); name its format, or convert it, e.g. with iconv -t utf-8"
            ) from error
        except XyzError:
            raise
        except ValueError as error:
            raise XyzError(str(error)) from error


def _check_lines(lines: Lines, name: str) -> None:
    frame = 0
    for number, line in lines:
        if line.startswith("VEC") and frame:
            continue
        if not line.strip():
            _check_end(lines, f"{name}, line {number}")
            return
        _check_frame(line, lines, f"{name}, frame {frame} (line {number})")
        frame += 1


def _check_end(lines: Lines, where: str) -> None:
    for number, line in lines:
        if line.strip():
            raise ValueError(
                f"{where} is empty, but line {number} is not: the frames behind it would be lost; remove the empty line"
            )


def _check_frame(header: str, lines: Lines, where: str) -> None:
    text = header.strip()
    if not re.fullmatch(r"[0-9]{1,12}", text) or int(text) == 0:
        raise ValueError(f"{where}: expected the number of atoms, got {text!r:.60}; correct the line or leave it out")
    columns = _read_columns(next(lines, (0, ""))[1].strip(), where)
    n_columns = sum(column.width for column in columns.values())
    check_species = _species_check(columns)
    for row in range(int(text)):
        number, line = next(lines, (0, ""))
        if not number:
            raise ValueError(f"{where}: the file ends after {row} of {text} atoms; fetch it again, leave the frame out")
        values = line.split()
        if len(values) != n_columns:
            raise ValueError(
                f"{where}: line {number} has {len(values)} values, Properties tells of {n_columns}; correct either"
            )
        problem = check_species(values)
        if problem:
            raise ValueError(f"{where}: line {number}: {problem}; correct it")


def _species_check(columns: Mapping[str, _Column]) -> Callable[[Sequence[str]], str]:
    """Return a function that tells what is wrong with the species in the words of a line, or ''."""
    symbol = next((columns[name].start for name in ("species", "symbols") if name in columns), None)
    number = next((columns[name].start for name in ("Z", "numbers") if name in columns), None)

    def check(values: Sequence[str]) -> str:
        if symbol is None:
            return ""
        expected = atomic_numbers.get(values[symbol].capitalize())
        if expected is None:
            return f"{values[symbol]!r:.20} is no chemical symbol"
        if number is not None and values[number] != str(expected):
            return f"species {values[symbol]} and atomic number {values[number]:.20} contradict each other"
        return ""

    return check


def _read_columns(comment: str, where: str) -> dict[str, _Column]:
    """Check the second line of a frame and return the columns of the lines of its atoms."""
    try:
        entries: Mapping[str, Any] = key_val_str_to_dict(comment) if comment else {}
    except ValueError as error:
        raise ValueError(f"{where}: the second line is malformed ({error}); correct it") from error
    check_entries_once(comment, where)
    for key, value in entries.items():
        if _CASED.get(key.lower(), key) != key and value is not True:  # a word of plain prose has no value
            raise ValueError(f"{where}: the entry {key!r} is not understood; write {_CASED[key.lower()]}")
        if _UNIT.search(key) and _FOREIGN_UNIT.search(str(value)):
            raise ValueError(
                f"{where}: {key}={value!s:.40}, but numbers are read as eV, Å and eV/Å; convert them, remove the entry"
            )
    pbc = np.asarray(entries.get("pbc", [True] * 3))
    if pbc.shape != (3,) or not np.isin(pbc, [0, 1]).all():
        raise ValueError(f"{where}: pbc is {entries['pbc']!s:.60}; expected T or F for each of three axes")
    columns = _parse_properties(str(entries.get("Properties", _DEFAULT_PROPERTIES)), where)
    check_label_entries(entries, {name: column.kind for name, column in columns.items()}, where)
    return columns


def _parse_properties(properties: str, where: str) -> dict[str, _Column]:
    fields = properties.split(":")
    columns = dict(zip(fields[::3], zip(fields[1::3], fields[2::3], strict=False), strict=False))
    is_list = len(fields) == 3 * len(columns) and all(kind in "RISL" and n.isdigit() for kind, n in columns.values())
    is_list &= len({REV_PROPERTY_NAME_MAP.get(name, name) for name in columns}) == len(columns)  # "Z" is "numbers"
    if not is_list:
        raise ValueError(f"{where}: Properties={properties:.80} is not a list of name:type:columns; correct it")
    if columns.get("pos") != ("R", "3") or not {"species", "Z"} & set(columns):
        raise ValueError(f"{where}: Properties={properties:.80} lacks species:S:1 or pos:R:3; a frame needs both")
    widths = [int(n) for _, n in columns.values()]
    starts = [sum(widths[:k]) for k in range(len(widths))]
    return {
        name: _Column(kind, start, width)
        for (name, (kind, _)), start, width in zip(columns.items(), starts, widths, strict=True)
    }
