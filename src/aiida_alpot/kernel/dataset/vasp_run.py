"""What a run of VASP says about all of its ionic steps: its charge, and whether its stress is a whole one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

FIRST_WITH_STRESS: Final = 2
"""ISIF from which on VASP computes the whole stress; with 1 only its trace is right, with 0 there is none."""

PARTIAL: Final = 1e-3
"""Electrons by which an occupation is neither full nor empty."""


@dataclass(frozen=True)
class VaspRun:
    """Facts of a run, None for those that the file does not tell.

    :param isif: which VASP went by.
    :param n_electrons: NELECT.
    :param n_valence: electrons of the neutral cell, by the POTCARs (ZVAL).
    :param is_insulator: whether every band is full or empty at every k-point.
    """

    isif: int | None = None
    n_electrons: float | None = None
    n_valence: float | None = None
    is_insulator: bool | None = None

    @property
    def has_stress(self) -> bool:
        """Whether a stress in its output is right in all components."""
        return self.isif is None or self.isif >= FIRST_WITH_STRESS

    @property
    def charge(self) -> float | None:
        """Charge of the cell, e, to the digits that both files have."""
        if self.n_electrons is None or self.n_valence is None:
            return None
        return round(self.n_valence - self.n_electrons, 2) + 0.0


def read_vasprun(path: Path) -> VaspRun:
    """Read a vasprun.xml.

    :raises ElementTree.ParseError: if it is damaged.
    """
    root = ElementTree.parse(path).getroot()  # noqa: S314  a file of a calculation of the user

    def number(name: str) -> float | None:
        found = root.find(f"./parameters//i[@name='{name}']")
        return None if found is None or found.text is None else float(found.text)

    rows = [[cell.text or "" for cell in row] for row in root.findall("./atominfo/array[@name='atomtypes']/set/rc")]
    n_valence = sum(int(n_atoms) * float(valence) for n_atoms, _, _, valence, *_ in rows) if rows else None
    isif = number("ISIF")
    occupations = [float(row.text.split()[1]) for row in root.findall("./calculation/eigenvalues/array//r") if row.text]
    is_insulator = all(abs(value - round(value)) < PARTIAL for value in occupations) if occupations else None
    return VaspRun(None if isif is None else int(isif), number("NELECT"), n_valence, is_insulator)


def read_outcar(path: Path) -> VaspRun:
    """Read an OUTCAR."""
    text = path.read_text(encoding="utf-8", errors="replace")

    def last(pattern: str) -> str | None:
        found = re.findall(pattern, text, re.MULTILINE)
        return found[-1] if found else None

    # each with what follows it in the table of what VASP goes by; before that, lines of the INCAR may stand
    isif = last(r"^ *ISIF *= *(\d+) +stress")
    n_electrons = last(r"^ *NELECT *= *([\d.]+) +total")
    n_atoms, valence = last(r"^ *ions per type *=(.*)$"), last(r"^ *ZVAL *=((?: +\d+\.\d+)+) *$")
    n_valence = None
    if n_atoms is not None and valence is not None and len(n_atoms.split()) == len(valence.split()):
        n_valence = sum(int(n) * float(value) for n, value in zip(n_atoms.split(), valence.split(), strict=True))
    return VaspRun(None if isif is None else int(isif), None if n_electrons is None else float(n_electrons), n_valence)
