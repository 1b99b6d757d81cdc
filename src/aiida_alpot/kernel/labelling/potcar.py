"""What the head of a POTCAR says."""

from __future__ import annotations

import re


def read_valence(potcar: str) -> float:
    """Return how many electrons of an atom are treated explicitly (ZVAL).

    :param potcar: text of the POTCAR of one element.
    :raises ValueError: if it does not say.
    """
    found = re.search(r"^\s*POMASS\s*=[^;]*;\s*ZVAL\s*=\s*(\d+\.?\d*)", potcar, re.MULTILINE)
    if found is None:
        raise ValueError("there is no ZVAL in the POTCAR: it is damaged, or the file of no potential")
    return float(found.group(1))
