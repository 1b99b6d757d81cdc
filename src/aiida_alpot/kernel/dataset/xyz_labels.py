"""Entries and columns of extended xyz that look like labels and would be read as none, or as other ones.

ASE takes T for 1 eV, keeps the last of two entries of one name, leaves the lower half of a stress out, and keeps what
is called ``virial`` or ``force`` as a column like any other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

from aiida_alpot.kernel.dataset.frames import REF_PREFIX, check_symmetric
from aiida_alpot.kernel.dataset.schema import LABELS

_LIKE: Final = {
    "energy": re.compile(r"((ref|dft)_)?((free|total)_)?energy", re.IGNORECASE),
    "forces": re.compile(r"((ref|dft)_)?forces?", re.IGNORECASE),
    "stress": re.compile(r"((ref|dft)_)?(stress|virials?)", re.IGNORECASE),
}
_QUOTED: Final = re.compile(r"\"[^\"]*\"|'[^']*'|\{[^}]*\}|\[[^]]*\]")
_ENTRY: Final = re.compile(r"([^\s=]+)\s*=\s*\S*")
_HOLE: Final = "\0"
"""Stands for a quoted text."""


def looks_like_label(name: str) -> bool:
    """Return whether an entry or column of this name would be taken for a misspelt label."""
    return any(pattern.fullmatch(name) for pattern in _LIKE.values())


def check_entries_once(comment: str, where: str) -> None:
    """Refuse a second line that gives an entry twice.

    :param comment: the second line of a frame.
    :param where: names the frame in messages.
    :raises ValueError: naming the entry.
    """
    bare = _QUOTED.sub(_HOLE, re.sub(r"\\.", _HOLE, comment))
    seen = set()
    for key in _ENTRY.findall(bare):
        if key in seen and _HOLE not in key:
            raise ValueError(f"{where}: the entry {key!r} is given twice; remove one of the two")
        seen.add(key)


def check_label_entries(entries: Mapping[str, Any], columns: Mapping[str, str], where: str) -> None:
    """Refuse labels of a frame that would be lost or changed.

    :param entries: of the second line, as ASE parses them.
    :param columns: name and type (R, I, S or L) of the columns of the atoms.
    :param where: names the frame in messages.
    :raises ValueError: naming the entry or column and what to do.
    """
    for name, kind in _label_kinds(entries, columns):
        if kind in ("b", "L"):
            raise ValueError(f"{where}: {name} is T or F, expected a number; correct or remove it")
    for name in ("stress", REF_PREFIX + "stress"):
        stress = np.asarray(entries.get(name, 0.0))
        if stress.shape == (3, 3):
            check_symmetric(stress.astype(np.float64), f"{where}: {name}")
    names = [*(name for name, value in entries.items() if value is not True), *columns]  # prose has no values
    _check_prefixes(names, where)
    for label, pattern in _LIKE.items():
        alike = [name for name in names if pattern.fullmatch(name)]
        if alike and not {label, REF_PREFIX + label} & set(alike):
            raise ValueError(f"{where}: {alike[0]!r} is not read as {label}; {_remedy(label, alike[0])}")


def _label_kinds(entries: Mapping[str, Any], columns: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield labels with the kind of their values, of NumPy for entries and of extended xyz for columns."""
    for label in LABELS:
        for name in (label, REF_PREFIX + label):
            if name in entries:
                yield name, np.asarray(entries[name]).dtype.kind
            if name in columns:
                yield name, columns[name]


def _check_prefixes(names: list[str], where: str) -> None:
    """Refuse a label without prefix that REF_ labels would push out.

    A whole set of results beside REF_ labels is that of a potential, and is left out on purpose.
    """
    prefixed = {label for label in LABELS if REF_PREFIX + label in names}
    plain = {label for label in LABELS if label in names}
    lost = [label for label in LABELS if label in plain - prefixed]
    if prefixed and lost and (not plain & prefixed or {"energy", "forces"} & set(lost)):
        beside = REF_PREFIX + next(label for label in LABELS if label in prefixed)
        raise ValueError(
            f"{where}: {lost[0]} would be left out beside {beside}; "
            f"name it {REF_PREFIX}{lost[0]} if it is of the same reference, or remove it"
        )


def _remedy(label: str, name: str) -> str:
    if "virial" in name.lower():
        return "give stress, which is −virial/volume (3×3, eV/Å³), or remove it"
    return f"rename it to {label} or {REF_PREFIX}{label} (eV, Å), or to something else if it is none"
