"""The input of CP2K for one frame: what follows from its elements, charge, moments and periodicity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from ase import Atoms

from aiida_alpot.kernel.labelling.boxes import is_isolated_atom, name_kinds, put_into_box, spin_moments
from aiida_alpot.kernel.labelling.hubbard import HubbardU, parse_hubbard
from aiida_alpot.kernel.settings import merge_recursively

LONG_TZVP: Final = frozenset({"H", "C", "N", "O", "F", "Si", "P", "S", "Cl", "Br"})
"""Elements with TZVP-MOLOPT-GTH in BASIS_MOLOPT; others have TZVP-MOLOPT-SR-GTH in BASIS_MOLOPT_UCL."""
WITHOUT_TZVP: Final = frozenset({"He", "Ne", "Na", "Mg", "Ar", "Kr", "Xe", "Rn"})
ORBITAL: Final = ("OT", "OUTER_SCF")
"""Sections of SCF of the orbital transformation, which needs a gap and has no k-points."""
DIAGONAL: Final = ("DIAGONALIZATION", "MIXING", "SMEAR", "ADDED_MOS")
"""Those of diagonalisation."""
CLOSED_SHELL: Final = {"MINIMIZER": "DIIS", "PRECONDITIONER": "FULL_SINGLE_INVERSE"}
OPEN_SHELL: Final = {"MINIMIZER": "CG", "LINESEARCH": "3PNT", "PRECONDITIONER": "FULL_ALL"}
"""Section OT: that of closed shells is faster, and does not converge for open ones, e.g. the carbon atom."""
GAMMA: Final = (1, 1, 1)
LARGEST_SHIFT: Final = 1e-4
"""Å, between an atom as it was written and as CP2K prints it, with six decimals."""
LARGEST_ODD_MOMENT: Final = 0.1
"""μB, by which starting moments of a frame without smearing may miss a moment that its electrons allow."""


def frame_input(atoms: Atoms, mesh: Sequence[int], settings: Mapping[str, Any], n_before: int) -> dict[str, Any]:
    """Return the input of CP2K for one frame: a single point with forces and, if it is periodic, stress.

    :param mesh: of k-points; Γ alone needs no diagonalisation.
    :param n_before: attempts before this one, each with its own way to converge.
    :raises ValueError: if it is charged or oriented in a way that CP2K gets wrong, its moments are none that its
        electrons can have, or it has a Hubbard U and k-points.
    """
    moments = spin_moments(atoms, settings["magnetic_moments"])
    is_isolated = is_isolated_atom(atoms)
    is_smeared = settings["electronic_type"] == "metal" and not is_isolated
    is_orbital = tuple(mesh) == GAMMA and not is_smeared
    has_stress = gives_stress(atoms, settings)
    if tuple(mesh) != GAMMA and corrections(atoms, settings):
        raise ValueError("CP2K has no Hubbard U with k-points: set kpoints_distance to gamma, in cells that allow it")
    spin = _spin(atoms, moments, is_smeared=is_smeared)
    orbital = (OPEN_SHELL if spin else CLOSED_SHELL) if is_orbital else None
    force_eval = {
        "METHOD": "QUICKSTEP",
        "STRESS_TENSOR": "ANALYTICAL" if has_stress else "NONE",
        "PRINT": {"FORCES": {"_": "ON"}, "STRESS_TENSOR": {"_": "ON" if has_stress else "OFF"}},
        "SUBSYS": {"CELL": {"PERIODIC": _periodicity(atoms)}, "KIND": _kinds(atoms, moments, settings)},
        "DFT": {
            "BASIS_SET_FILE_NAME": list(settings["basis_set_files"]),
            "POTENTIAL_FILE_NAME": settings["potential_file"],
            "CHARGE": _charge(atoms),
            **spin,
            "MGRID": {"CUTOFF": settings["cutoff"], "REL_CUTOFF": settings["rel_cutoff"]},
            "QS": {"EPS_DEFAULT": 1e-12},
            "POISSON": {"PERIODIC": _periodicity(atoms), "POISSON_SOLVER": _poisson_solver(atoms, settings)},
            "XC": {"XC_FUNCTIONAL": settings["functional"], **_dispersion(settings)},
            "SCF": _scf(settings, orbital, is_smeared=is_smeared),
        },
    }
    tree = merge_recursively({"GLOBAL": {"RUN_TYPE": "ENERGY_FORCE"}, "FORCE_EVAL": force_eval}, settings["parameters"])
    scf = tree["FORCE_EVAL"]["DFT"]["SCF"]
    if n_before and settings["retries"]:
        scf = merge_recursively(scf, settings["retries"][min(n_before, len(settings["retries"])) - 1])
    unused = DIAGONAL if is_orbital else ORBITAL
    tree["FORCE_EVAL"]["DFT"]["SCF"] = {key: value for key, value in scf.items() if key not in unused}
    return tree


def _spin(atoms: Atoms, moments: np.ndarray | None, *, is_smeared: bool) -> dict[str, Any]:
    """Return UKS and MULTIPLICITY; nothing for a closed shell."""
    # the core of every GTH pseudopotential has an even number of electrons
    parity = (int(atoms.numbers.sum()) - _charge(atoms)) % 2
    if moments is None:
        return {"UKS": True, "MULTIPLICITY": 2} if parity else {}
    total = abs(float(moments.sum()))
    allowed = parity + 2 * round((total - parity) / 2)
    if not is_smeared and abs(total - allowed) > LARGEST_ODD_MOMENT:
        raise ValueError(
            f"the starting moments add up to {total:g} μB, which is the moment of the frame where the occupations are "
            f"fixed, and its electrons allow only {'odd' if parity else 'even'} ones"
        )
    return {"UKS": True, "MULTIPLICITY": allowed + 1}


def orientation(moments: np.ndarray | None) -> int:
    """Return -1 for a frame whose moments are turned round for CP2K, which knows no negative total, else 1."""
    return -1 if moments is not None and moments.sum() < 0 else 1


def _kinds(atoms: Atoms, moments: np.ndarray | None, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    names, of_kind = name_kinds(list(atoms.symbols), moments)
    corrected = corrections(atoms, settings)
    kinds = []
    for name, symbol in dict(zip(names, atoms.symbols, strict=True)).items():
        kind: dict[str, Any] = {"_": name, **kind_of_element(symbol, settings)}
        if name in of_kind:
            kind["MAGNETIZATION"] = orientation(moments) * of_kind[name]
        if symbol in corrected:
            u = corrected[symbol]
            kind["DFT_PLUS_U"] = {"L": "spdf".index(u.manifold[-1]), "U_MINUS_J": f"[eV] {u.value!r}"}
        kinds.append(kind)
    return kinds


def corrections(atoms: Atoms, settings: Mapping[str, Any]) -> dict[str, HubbardU]:
    """Return the Hubbard U of the elements of a frame, by symbol."""
    return {u.symbol: u for u in parse_hubbard(settings["hubbard"]) if u.symbol in atoms.symbols}


def gives_stress(atoms: Atoms, settings: Mapping[str, Any]) -> bool:
    """Return whether a frame gets a stress: if it is periodic, and without a Hubbard U.

    That of CP2K 2023.1 with U is not the derivative of the energy: the part of U is about twice too large.
    """
    return bool(all(atoms.pbc)) and not corrections(atoms, settings)


def kind_of_element(symbol: str, settings: Mapping[str, Any]) -> dict[str, str]:
    """Return basis set and pseudopotential of an element.

    :param settings: completed.
    :raises ValueError: if there is none by default and none is given.
    """
    quality, potential = settings["basis"], settings["potential"].get(symbol, settings["pseudopotentials"])
    basis = f"{quality}-MOLOPT-GTH" if quality == "TZVP" and symbol in LONG_TZVP else f"{quality}-MOLOPT-SR-GTH"
    if symbol not in settings["basis_set"] and quality == "TZVP" and symbol in WITHOUT_TZVP:
        raise ValueError(f"there is no basis set TZVP-MOLOPT of {symbol}: give one in label.parameters.basis_set")
    if potential is None:
        raise ValueError(f"there is no pseudopotential of {symbol}: give one in label.parameters.potential")
    return {"ELEMENT": symbol, "BASIS_SET": settings["basis_set"].get(symbol, basis), "POTENTIAL": potential}


def _charge(atoms: Atoms) -> int:
    """Return the charge of a frame.

    :raises ValueError: if it is none that CP2K computes: a fraction, or one that would repeat along one or two axes.
    """
    charge = float(atoms.info.get("charge", 0.0) or 0.0)
    if charge != round(charge):
        raise ValueError(f"the frame has the charge {charge:g}, but CP2K takes only whole ones")
    if charge and any(atoms.pbc) and not all(atoms.pbc):
        raise ValueError(f"the frame has the charge {charge:g} and is periodic along some axes: its energy diverges")
    return int(charge)


def _periodicity(atoms: Atoms) -> str:
    return "".join(axis for axis, repeats in zip("XYZ", atoms.pbc, strict=True) if repeats) or "NONE"


def _poisson_solver(atoms: Atoms, settings: Mapping[str, Any]) -> str:
    """Return the solver for the periodicity of a frame.

    :raises ValueError: if an axis that is not periodic is not that of the coordinate of its number, or not
        perpendicular to the others: CP2K takes it to be.
    """
    if all(atoms.pbc):
        return "PERIODIC"
    cell = put_into_box(atoms, **box_settings(settings)).cell.array
    for axis in np.flatnonzero(~atoms.pbc):
        others = np.arange(3) != axis
        if np.any(np.abs(cell[axis, others]) > LARGEST_SHIFT) or np.any(np.abs(cell[others, axis]) > LARGEST_SHIFT):
            raise ValueError(
                f"axis {'abc'[axis]} of the cell is not periodic and must lie along {'xyz'[axis]}, perpendicular to "
                "the others: turn the frame"
            )
    return "ANALYTIC" if sum(atoms.pbc) == 1 else "MT"


def _dispersion(settings: Mapping[str, Any]) -> dict[str, Any]:
    if settings["vdw"] is None:
        return {}
    pairs = {"TYPE": settings["vdw"], "PARAMETER_FILE_NAME": "dftd3.dat"}
    pairs["REFERENCE_FUNCTIONAL"] = settings["d3_functional"]
    return {"VDW_POTENTIAL": {"POTENTIAL_TYPE": "PAIR_POTENTIAL", "PAIR_POTENTIAL": pairs}}


def _scf(settings: Mapping[str, Any], orbital: Mapping[str, Any] | None, *, is_smeared: bool) -> dict[str, Any]:
    """Return the section SCF.

    :param orbital: section OT, None for diagonalisation.
    """
    scf: dict[str, Any] = {"EPS_SCF": settings["eps_scf"]}
    if orbital is not None:
        return {**scf, "MAX_SCF": 30, "OT": orbital, "OUTER_SCF": {"MAX_SCF": 10, "EPS_SCF": settings["eps_scf"]}}
    scf |= {"MAX_SCF": 200, "DIAGONALIZATION": {"ALGORITHM": "STANDARD"}}
    scf["MIXING"] = {"METHOD": "BROYDEN_MIXING", "ALPHA": 0.2, "NBROYDEN": 8}
    if is_smeared:
        temperature = settings["electronic_temperature"]
        scf["SMEAR"] = {"_": "ON", "METHOD": "FERMI_DIRAC", "ELECTRONIC_TEMPERATURE": temperature}
        scf["ADDED_MOS"] = "-1 -1"  # all that the basis has, for both spins
    return scf


def box_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return how frames get a box: twice as long as they are, for the solver of Martyna and Tuckerman."""
    return {"vacuum": settings["vacuum"], "cubic": True, "doubled": True}
