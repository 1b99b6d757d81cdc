"""What ASE reads of an extended-xyz file without complaint although it is not what the file says.

ASE's reader ends at the first empty line and leaves out all that follows, counts to whatever number of atoms a file
claims, takes any word of ``pbc`` for true, puts atoms without positions at the origin and skips surplus columns.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from ase.data import atomic_numbers
from ase.io.extxyz import key_val_str_to_dict

_DEFAULT_PROPERTIES: Final = "species:S:1:pos:R:3"
_CASED: Final = {name.lower(): name for name in ("Lattice", "Properties", "pbc")}
_FOREIGN_UNIT: Final = re.compile(r"kcal|kj|hartree|rydberg|a\.u\.|atomic|bohr|\b(ha|ry|au|nm|pm)\b", re.IGNORECASE)

Lines = Iterator[tuple[int, str]]


def check_xyz(path: Path) -> None:
    """Refuse a file whose frames ASE would read as something else, or never finish to read.

    :raises ValueError: naming the file, the frame, the line and what to do.
    """
    with path.open(encoding="utf-8") as file:
        try:
            _check_lines(enumerate(file, start=1), path.name)
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{path.name} is no text in UTF-8 ({error}); name its format, or convert it, e.g. with iconv -t utf-8"
            ) from error


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
    n_columns = sum(columns.values())
    names = list(columns)
    symbol = sum(columns[name] for name in names[: names.index("species")]) if "species" in columns else None
    for row in range(int(text)):
        number, line = next(lines, (0, ""))
        if not number:
            raise ValueError(f"{where}: the file ends after {row} of {text} atoms; fetch it again, leave the frame out")
        values = line.split()
        if len(values) != n_columns:
            raise ValueError(
                f"{where}: line {number} has {len(values)} values, Properties tells of {n_columns}; correct either"
            )
        if symbol is not None and values[symbol].capitalize() not in atomic_numbers:
            raise ValueError(f"{where}: line {number}: {values[symbol]!r:.20} is no chemical symbol; correct it")


def _read_columns(comment: str, where: str) -> dict[str, int]:
    """Check the second line of a frame and return the columns of the lines of its atoms with their widths."""
    try:
        entries: Mapping[str, Any] = key_val_str_to_dict(comment) if comment else {}
    except ValueError as error:
        raise ValueError(f"{where}: the second line is malformed ({error}); correct it") from error
    for key, value in entries.items():
        if _CASED.get(key.lower(), key) != key and value is not True:  # a word of plain prose has no value
            raise ValueError(f"{where}: the entry {key!r} is not understood; write {_CASED[key.lower()]}")
        if re.search(r"units?$", key, re.IGNORECASE) and _FOREIGN_UNIT.search(str(value)):
            raise ValueError(
                f"{where}: {key}={value!s:.40}, but numbers are read as eV, Å and eV/Å; convert them, remove the entry"
            )
    pbc = np.asarray(entries.get("pbc", [True] * 3))
    if pbc.shape != (3,) or not np.isin(pbc, [0, 1]).all():
        raise ValueError(f"{where}: pbc is {entries['pbc']!s:.60}; expected T or F for each of three axes")
    return _parse_properties(str(entries.get("Properties", _DEFAULT_PROPERTIES)), where)


def _parse_properties(properties: str, where: str) -> dict[str, int]:
    fields = properties.split(":")
    columns = dict(zip(fields[::3], zip(fields[1::3], fields[2::3], strict=False), strict=False))
    is_list = len(fields) == 3 * len(columns) and all(kind in "RISL" and n.isdigit() for kind, n in columns.values())
    if not is_list:
        raise ValueError(f"{where}: Properties={properties:.80} is not a list of name:type:columns; correct it")
    if columns.get("pos") != ("R", "3") or not {"species", "Z"} & set(columns):
        raise ValueError(f"{where}: Properties={properties:.80} lacks species:S:1 or pos:R:3; a frame needs both")
    return {name: int(n) for name, (_, n) in columns.items()}
