"""ASE calculators that run a program: a folder of their own, nothing left of the frame before, a look at the output."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Final

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.calculators.genericfileio import GenericFileIOCalculator

from aiida_alpot.kernel.dataset.code_output import CODES, NOT_CONVERGED, read_pw_moments
from aiida_alpot.kernel.dataset.vasp_run import read_vasprun

OUTPUTS: Final = {"espresso": ("espresso.pwo", "espresso-out"), "vasp": ("vasprun.xml", "vasp-xml")}
"""Output file and its format, by the name of the calculator."""
LARGEST_ODD_MOMENT: Final = 0.1
"""μB, by which the moments of a frame may miss a whole number."""
CP2K_FAILURE: Final = "SCF run NOT converged"


def runs_program(calculator: Any) -> bool:
    """Return whether a calculator writes the input of a program, which must not find what is left of another frame."""
    writes = isinstance(calculator, GenericFileIOCalculator) or hasattr(calculator, "write_input")
    return writes or _name(calculator) == "cp2k"


def _name(calculator: Any) -> str:
    name = str(getattr(calculator, "name", "") or "")
    return name.lower()


def give_folder(calculator: Any, folder: Path) -> None:
    """Let a calculator work in a folder of its own, empty if it runs a program: two must not write into one."""
    if not isinstance(calculator, (Calculator, GenericFileIOCalculator)):
        return
    if runs_program(calculator):
        shutil.rmtree(folder, ignore_errors=True)  # wave functions of another frame would be read
    folder.mkdir(parents=True, exist_ok=True)
    # a path from here: CP2K takes no name of more than 80 characters
    short = os.path.relpath(folder)
    calculator.directory = Path(short) if isinstance(calculator, GenericFileIOCalculator) else short


def find_failure(calculator: Any) -> str | None:
    """Return why the numbers of a calculator are no label although it gave some, None if nothing speaks against them.

    :param calculator: one that has just calculated; those of Quantum ESPRESSO, VASP and CP2K leave an output that says
        whether the electronic loop converged.
    """
    name = _name(calculator)
    if name in OUTPUTS:
        file, kind = OUTPUTS[name]
        converged = CODES[kind](Path(calculator.directory) / file)
        return None if converged and all(converged) else NOT_CONVERGED
    if name == "cp2k":
        path = Path(f"{calculator.label}.out")
        return NOT_CONVERGED if CP2K_FAILURE in path.read_text(encoding="utf-8", errors="replace") else None
    return None


def mend_labels(calculator: Any, labels: dict[str, Any]) -> dict[str, Any]:
    """Return the labels with what ASE reads wrongly mended.

    Moments of pw.x before version 7 are read again, which ASE takes for zero. A stress of VASP that is not a whole one
    (ISIF 0 or 1) is taken away.
    """
    if _name(calculator) == "vasp" and "stress" in labels:
        file, _ = OUTPUTS["vasp"]
        if not read_vasprun(Path(calculator.directory) / file).has_stress:
            return {name: value for name, value in labels.items() if name != "stress"}
    if _name(calculator) == "espresso" and "magmoms" in labels:
        file, _ = OUTPUTS["espresso"]
        moments = read_pw_moments(Path(calculator.directory) / file, len(labels["forces"]))
        others = {name: value for name, value in labels.items() if name != "magmoms"}
        return others if moments is None else {**others, "magmoms": moments}
    return labels


def set_spin(calculator: Any, atoms: Atoms) -> None:
    """Have CP2K start from the moments of a frame, which ASE does not tell it: unrestricted, of their multiplicity.

    :raises ValueError: if the moments point both ways or do not add up to a whole number: only the total reaches CP2K.
    """
    moments = atoms.get_initial_magnetic_moments()
    if _name(calculator) != "cp2k" or not np.any(moments):
        return
    total = abs(float(np.sum(moments)))
    if total < np.sum(np.abs(moments)) - LARGEST_ODD_MOMENT or abs(total - round(total)) > LARGEST_ODD_MOMENT:
        raise ValueError(
            f"the moments of the frame ({total:g} μB in all) point both ways or are no whole number, and ASE's "
            "calculator of CP2K takes their sum only: use the label engine cp2k"
        )
    calculator.set(uks=True, multiplicity=round(total) + 1)
