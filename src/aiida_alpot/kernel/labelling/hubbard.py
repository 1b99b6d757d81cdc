"""Hubbard U of the manifolds of elements, as settings of a label: ``{"Fe-3d": 4.0}``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from ase.data import atomic_numbers


class HubbardU(NamedTuple):
    """The correction on one manifold of one element.

    :param symbol: chemical symbol.
    :param manifold: e.g. ``"3d"``.
    :param value: effective U (Dudarev), eV.
    """

    symbol: str
    manifold: str
    value: float


def parse_hubbard(values: Mapping[str, float] | None) -> list[HubbardU]:
    """Return the corrections that settings name, sorted by element and manifold.

    :param values: U in eV by element and manifold, ``"Fe-3d"``.
    :raises ValueError: naming the key that is none, or a second manifold of an element.
    """
    found: list[HubbardU] = []
    for key, value in sorted((values or {}).items()):
        match = re.fullmatch(r"([A-Z][a-z]?)-([1-7][spdf])", key)
        if match is None or match.group(1) not in atomic_numbers:
            raise ValueError(f"hubbard: expected element and manifold as 'Fe-3d', got {key!r}")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"hubbard.{key}: expected eV, got {value!r}")
        if any(match.group(1) == other.symbol for other in found):
            raise ValueError(f"hubbard: {match.group(1)} has a second manifold; one of an element is corrected")
        found.append(HubbardU(match.group(1), match.group(2), float(value)))
    return found
