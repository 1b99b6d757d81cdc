"""Frames and labels from the output of electronic-structure codes: as ASE reads it, but for what it passes over.

The energy is the one that the forces derive from, where ASE gives the one extrapolated to zero smearing. A step whose
electronic loop did not converge has no label. A stress of which VASP computed the trace alone is none, and frames of
VASP have the charge of their cell.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read

from aiida_alpot.kernel.dataset.vasp_run import VaspRun, read_outcar, read_vasprun
from aiida_alpot.kernel.units import FloatArray

NOT_CONVERGED: Final = "the electronic loop did not converge"
DEFAULT_NELM: Final = 60
"""Electronic steps that VASP allows where the INCAR does not say."""


def read_code_output(path: str | Path, kind: str) -> list[Atoms]:
    """Return the ionic steps of a run with their labels: energy (eV), forces (eV/Å), stress (eV/Å³, ASE's sign).

    From an OUTCAR, moments of the atoms too (μB, see :func:`read_vasp_moments`). A step that did not converge has the
    status ``failed`` and no label.

    :param kind: one of :data:`CODES`, a format of ASE.
    :raises ValueError: if the file is damaged or cut off in the middle of a step.
    """
    path = Path(path)
    converged = CODES[kind](path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frames = read(str(path.absolute()), index=":", format=kind, do_not_split_by_at_sign=True)
    if len(frames) != len(converged):
        raise ValueError(f"it has {len(converged)} steps, of which ASE finds {len(frames)}; it may be cut off")
    labelled = [_label(frame, is_converged) for frame, is_converged in zip(frames, converged, strict=True)]
    if kind in VASP:
        _complete_vasp(labelled, path, VASP[kind](path), has_moments=kind == "vasp-out")
    return labelled


def _complete_vasp(frames: list[Atoms], path: Path, run: VaspRun, *, has_moments: bool) -> None:
    """Add charge and, from an OUTCAR, the moments of the atoms; take away a stress of which only the trace is right."""
    moments = read_vasp_moments(path, len(frames[0])) if has_moments and frames else {}
    for step, frame in enumerate(frames, start=1):
        if run.charge:
            frame.info["charge"] = run.charge
        if frame.calc is None:
            continue
        if not run.has_stress:
            frame.calc.results.pop("stress", None)
        if "magmoms" in moments.get(step, {}):
            frame.calc.results["magmoms"] = moments[step]["magmoms"]


def _label(frame: Atoms, is_converged: bool) -> Atoms:
    found: dict[str, Any] = {} if frame.calc is None else frame.calc.results
    atoms = Atoms(frame.numbers, positions=frame.positions, cell=frame.cell, pbc=frame.pbc)
    if not is_converged:
        atoms.info.update(status="failed", reason=NOT_CONVERGED)
        return atoms
    labels: dict[str, Any] = {name: np.array(found[name]) for name in ("forces", "stress") if name in found}
    energy = found.get("free_energy", found.get("energy"))
    if energy is not None:
        labels["energy"] = float(energy)
    atoms.calc = SinglePointCalculator(atoms, **labels)
    return atoms


def _vasprun_steps(path: Path) -> list[bool]:
    """Return whether each ionic step used fewer electronic iterations than it was allowed."""
    root = ElementTree.parse(path).getroot()  # noqa: S314  a file of a calculation of the user
    # the one for electrons: response functions have an entry of the same name
    found = root.find("./parameters//separator[@name='electronic']//i[@name='NELM']")
    allowed = DEFAULT_NELM if found is None or found.text is None else int(found.text)
    # a step without any was predicted by a force field
    return [0 < len(step.findall("scstep")) < allowed for step in root.iterfind("calculation")]


def _outcar_steps(path: Path) -> list[bool]:
    """Return whether each ionic step used fewer electronic iterations than it was allowed.

    What VASP prints at the end of a loop does not tell: before version 6.3 it says that EDIFF is reached in any case.
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    found = re.search(r"NELM\s*=\s*(\d+)", text)
    allowed = DEFAULT_NELM if found is None else int(found.group(1))
    used: dict[int, int] = {}
    for ionic, electronic in re.findall(r"Iteration\s+(\d+)\(\s*(\d+)\)", text):
        used[int(ionic)] = int(electronic)
    return [n_used < allowed for _, n_used in sorted(used.items())]


def _pw_steps(path: Path) -> list[bool]:
    """Return what pw.x says at the end of every electronic loop."""
    text = path.read_text(encoding="utf-8", errors="replace")
    return [word == "has been" for word in re.findall(r"convergence (has been|NOT) achieved", text)]


def read_pw_moments(path: Path, n_atoms: int) -> FloatArray | None:
    """Return the last moments on the atoms that pw.x of any version printed, shape (n_atoms,), μB; None without any."""
    text = path.read_text(encoding="utf-8", errors="replace")
    found = re.findall(r"^\s*atom.*charge[:=].*magn[:=]\s*(-?\d+\.\d+)", text, re.MULTILINE)
    return np.array(found[-n_atoms:], dtype=np.float64) if len(found) >= n_atoms else None


def read_vasp_moments(path: Path, n_atoms: int) -> dict[int, dict[str, Any]]:
    """Return the moments that VASP prints at the end of every ionic step, by the number of the step from 1 on.

    Each has, in ASE's names, ``magmom`` (μB, of the cell) and with LORBIT ≥ 10 ``magmoms`` (μB, in the spheres of the
    atoms, shape (n_atoms,)); a step without spin polarisation, or with vectors as moments, nothing.

    :param path: of the OUTCAR.
    :raises ValueError: if a table of moments is cut off.
    """
    _, *parts = re.split(r"Iteration\s+(\d+)\(\s*\d+\)", path.read_text(encoding="utf-8", errors="replace"))
    last = dict(zip(map(int, parts[::2]), parts[1::2], strict=True))  # what follows the last electronic iteration
    return {step: _moments(text, n_atoms) for step, text in last.items()}


def _moments(text: str, n_atoms: int) -> dict[str, Any]:
    totals = re.findall(r"^ *number of electron .* magnetization(.*)$", text, re.MULTILINE)
    if not totals or len(totals[-1].split()) != 1:
        return {}
    found: dict[str, Any] = {"magmom": float(totals[-1])}
    _, head, table = text.partition("magnetization (x)")
    if head:
        rows = re.findall(r"^ *(\d+) .* (-?\d+\.\d+) *$", table.partition("tot")[2], re.MULTILINE)[:n_atoms]
        if [int(number) for number, _ in rows] != list(range(1, n_atoms + 1)):
            raise ValueError("the table of magnetic moments in OUTCAR is not of the atoms of the frame, or cut off")
        found["magmoms"] = np.array([moment for _, moment in rows], dtype=np.float64)
    return found


CODES: Final[dict[str, Callable[[Path], list[bool]]]] = {
    "vasp-xml": _vasprun_steps,
    "vasp-out": _outcar_steps,
    "espresso-out": _pw_steps,
}
"""Formats of ASE that are output of a code, each with a function that says which steps converged."""
VASP: Final[dict[str, Callable[[Path], VaspRun]]] = {"vasp-xml": read_vasprun, "vasp-out": read_outcar}
"""Those of VASP, each with a function that says what holds for all steps."""
