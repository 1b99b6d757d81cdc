"""Labels from what CP2K prints, in the formats of releases up to 2024 and of those from 2025 on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import numpy as np
from ase.stress import full_3x3_to_voigt_6_stress
from ase.units import Bohr, Hartree

from aiida_alpot.kernel.units import GPA, FloatArray

_NUMBER: Final = r"([-+]?\d*\.\d+(?:E[-+]?\d+)?)"
_ENERGY: Final = rf"ENERGY\| Total FORCE_EVAL \( \w+ \) energy \S+\s+{_NUMBER}\s*$"
_STRESS_UNITS: Final = {"GPa": GPA, "bar": 1e-4 * GPA, "kbar": 0.1 * GPA}
_PICTURE: Final = 8
"""Columns of the figure that CP2K draws at the left of its last words."""
NOT_CONVERGED: Final = "SCF run NOT converged"
U_ENERGY: Final = "DFT+U energy:"
"""What CP2K prints in every electronic loop with a Hubbard U."""
_UNUSABLE: Final = {
    NOT_CONVERGED: "the electronic loop of CP2K did not converge",
    "smearing includes the last MO": "there are too few orbitals for this smearing: raise ADDED_MOS",
}


@dataclass(frozen=True)
class Cp2kLabels:
    """What a single point of CP2K gave.

    :param symbols: of the atoms, as CP2K numbers them.
    :param positions: Å, shape (n_atoms, 3), to six decimals.
    :param energy: eV, the total one of FORCE_EVAL. With smearing it holds the electronic entropy, E - TS.
    :param forces: eV/Å, shape (n_atoms, 3).
    :param stress: eV/Å³, Voigt order xx yy zz yz xz xy, positive under tension; None if none was printed.
    :param magmoms: spin moments by Mulliken's analysis, μB, shape (n_atoms,); None without spin polarisation.
    :param cost: wall time, s.
    """

    symbols: list[str]
    positions: FloatArray
    energy: float
    forces: FloatArray
    stress: FloatArray | None
    magmoms: FloatArray | None
    cost: float


def parse_cp2k_output(text: str) -> Cp2kLabels:
    """Return the labels in the output of a single point with forces.

    :raises ValueError: if something is missing or cannot be read, or the electronic loop did not converge, whatever
        the exit status: CP2K up to 2023 goes on with forces of a density that is not the ground state.
    """
    for sign, problem in _UNUSABLE.items():
        if sign in text:
            raise ValueError(problem)
    atoms = _last_table(text, r"ATOMIC COORDINATES IN ANGSTROM", rf"\s+\d+\s+\d+\s+([A-Z][a-z]?)\s+\d+{_columns(3)}\s")
    energies = re.findall(_ENERGY, text, re.MULTILINE)
    forces = _forces(text)
    if not (atoms and energies and forces.size):
        raise ValueError("there are no coordinates, energy and forces in the output of CP2K")
    if len(forces) != len(atoms):
        raise ValueError(f"CP2K printed readable forces for {len(forces)} of {len(atoms)} atoms")
    times = re.findall(rf"^ CP2K\s+\d+\s+[\d.]+{_columns(4)}\s*$", text, re.MULTILINE)
    return Cp2kLabels(
        symbols=[symbol for symbol, *_ in atoms],
        positions=np.array([position for _, *position in atoms], dtype=np.float64),
        energy=float(energies[-1]) * Hartree,
        forces=forces,
        stress=_stress(text),
        magmoms=_magmoms(text, len(atoms)),
        cost=float(times[-1][-1]) if times else float("nan"),
    )


def find_abort(text: str) -> str:
    """Return what CP2K says in the box with its last words, in one line, or that it did not converge; else ``""``."""
    found = re.search(r"\n \*{70,}\n(( \*.*\*\n)*? \* \[ABORT\].*\*\n( \*.*\*\n)*?) \*{70,}", text)
    if found is None:
        return _UNUSABLE[NOT_CONVERGED] if NOT_CONVERGED in text else ""
    lines = [line[2:-1][_PICTURE:] for line in found[1].splitlines()]
    return " ".join(" ".join(lines).split())


def _columns(count: int) -> str:
    return rf"\s+{_NUMBER}" * count


def _last_table(text: str, header: str, row: str) -> list[tuple[str, ...]]:
    """Return the groups of the rows that follow the last header, to the first line that is none."""
    headers = list(re.finditer(header, text, re.IGNORECASE))
    rows: list[tuple[str, ...]] = []
    for line in text[headers[-1].end() :].splitlines() if headers else ():
        match = re.match(row, line)
        if match is not None:
            rows.append(match.groups())
        elif rows:
            break
    return rows


def _forces(text: str) -> FloatArray:
    """Return the forces, eV/Å: from a table with kinds and elements, or from one whose lines begin with their name."""
    rows = _last_table(text, r"FORCES\| Atomic forces \[hartree/bohr\]", rf" FORCES\|\s+\d+{_columns(3)}")
    if not rows:
        rows = _last_table(text, r"ATOMIC FORCES in \[a\.u\.\]", rf"\s+\d+\s+\d+\s+[A-Z]\w*{_columns(3)}\s*$")
    return np.array(rows, dtype=np.float64).reshape(-1, 3) * float(Hartree / Bohr)


def _stress(text: str) -> FloatArray | None:
    """Return the stress in ASE's unit and sign; CP2K's is positive when compressed."""
    units = re.findall(r"STRESS\| Analytical stress tensor \[(\w+)\]", text)
    if not units:
        return None
    if units[-1] not in _STRESS_UNITS:
        raise ValueError(f"CP2K printed the stress in {units[-1]}, expected one of {', '.join(_STRESS_UNITS)}")
    rows = _last_table(text, r"STRESS\| Analytical stress tensor", rf" STRESS\|\s+[xyz]{_columns(3)}\s*$")
    if len(rows) != 3:
        raise ValueError(f"CP2K printed {len(rows)} readable rows of the stress")
    tensor = -np.array(rows, dtype=np.float64) * _STRESS_UNITS[units[-1]]
    return np.asarray(full_3x3_to_voigt_6_stress(tensor), dtype=np.float64)


def _magmoms(text: str, n_atoms: int) -> FloatArray | None:
    rows = _last_table(text, r"Mulliken Population Analysis", rf"\s+\d+\s+[A-Z]\w*\s+\d+{_columns(4)}\s*$")
    return np.array([row[-1] for row in rows], dtype=np.float64) if len(rows) == n_atoms else None
