"""Finished ``VaspCalculation``s as labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any, Final, cast

import numpy as np
from aiida import orm
from ase import Atoms

from aiida_alpot.engines.label.finished import FinishedCalculation, by_symbol, comparable, describe_kpoints
from aiida_alpot.engines.label.vasp_incar import NO_LABEL
from aiida_alpot.kernel.dataset import read_frames
from aiida_alpot.kernel.dataset.code_output import read_vasp_moments
from aiida_alpot.kernel.dataset.vasp_run import VaspRun, read_vasprun
from aiida_alpot.kernel.labelling.boxes import group_species
from aiida_alpot.kernel.labelling.refusals import find_refusal
from aiida_alpot.kernel.labelling.results import Result
from aiida_alpot.kernel.units import IntArray

PROCESS_TYPE: Final = "aiida.calculations:vasp.vasp"
EXITS: Final = frozenset({0, 702})
"""In the other one the relaxation did not converge, the electronic loops did."""
ELECTRONS_NOT_CONVERGED: Final = 701
"""Exit status of a calculation whose last electronic loop did not converge."""
SECOND: Final = "second"
"""Label of that WorkChain of the two steps which gives the labels."""
IONIC: Final = frozenset(
    {"nsw", "ibrion", "isif", "ediffg", "potim", "smass", "tebeg", "teend", "nblock", "kblock", "mdalgo", "isym"}
    | {"langevin_gamma", "langevin_gamma_l", "pmass", "andersen_prob", "random_seed", "iopt", "nfree", "symprec"}
)
"""Keys that move atoms: they change which frames there are, not their labels."""
BY_ATOM: Final = ("forces", "magmoms")
"""Labels in the order of the atoms."""
OF_THE_FRAME: Final = frozenset({"ediff", "kspacing", "kgamma", "magmom", "nelect"})
DEFAULT_EDIFF: Final = 1e-4
"""eV, where the INCAR does not say."""
TETRAHEDRA: Final = -5
"""ISMEAR with which forces are right if every band is full or empty."""
LARGEST_ROUNDING: Final = 1e-3
"""Between a number of electrons in the INCAR and in vasprun.xml."""
LARGEST_SHIFT: Final = 1e-4
"""In fractions of the cell, between an atom as it was written and as VASP gives it back."""


def inspect_vasp(calculation: orm.CalcJobNode, neutral: Set[str]) -> FinishedCalculation:
    """Return a calculation of VASP as a source of labels.

    :param neutral: keys of the INCAR that change no label.
    :raises ValueError: if its output holds none.
    """
    inputs = calculation.inputs
    incar = {key.lower(): value for key, value in inputs.parameters.get_dict().items()}
    _check_incar(incar)
    if "dynamics" in inputs:
        raise ValueError("some of its atoms may be fixed (input dynamics): their forces may be set to zero")
    retrieved = calculation.outputs.retrieved if "retrieved" in calculation.outputs else None
    if retrieved is None or "vasprun.xml" not in retrieved.list_object_names():
        raise ValueError("it has no vasprun.xml among its retrieved files")
    if incar.get("ismear") == TETRAHEDRA:
        _check_insulator(retrieved)
    structure = inputs.structure
    if not isinstance(structure, orm.StructureData):
        raise ValueError(f"its structure is of the type {type(structure).__name__}, expected StructureData")
    columns, points = describe_kpoints(inputs.kpoints, structure)
    columns["scf_threshold"] = float(incar.get("ediff", DEFAULT_EDIFF)) / len(structure.sites)
    settings = {
        "incar": significant(incar, neutral),
        "potentials": by_symbol({name: describe_potential(node) for name, node in inputs.potential.items()}, structure),
        "kpoints": points,
    }
    details = {"charge": _find_charge(retrieved, float(incar["nelect"]))} if "nelect" in incar else {}
    if details.get("charge") and not all(structure.pbc):
        raise ValueError("it is charged and not periodic along all axes: its energy depends on the box")
    return FinishedCalculation({"structure": structure, "retrieved": retrieved}, details, settings, columns)


def _read_run(retrieved: orm.FolderData) -> VaspRun:
    with retrieved.as_path() as folder:
        return read_vasprun(folder / "vasprun.xml")


def _find_charge(retrieved: orm.FolderData, n_electrons: float) -> float:
    """Return the charge of a calculation whose INCAR sets the number of electrons.

    :raises ValueError: if vasprun.xml does not tell the valence of its atoms, or is of another number of electrons.
    """
    run = _read_run(retrieved)
    if run.charge is None:
        raise ValueError("it sets NELECT, and its vasprun.xml does not tell how many electrons the neutral cell has")
    if run.n_electrons is None or abs(run.n_electrons - n_electrons) > LARGEST_ROUNDING:
        raise ValueError(f"it sets NELECT = {n_electrons:g}, but its vasprun.xml has {run.n_electrons:g} electrons")
    return run.charge


def _check_insulator(retrieved: orm.FolderData) -> None:
    """Refuse a calculation with tetrahedra of which some band is filled in part: its forces are not derivatives then.

    :raises ValueError: if it is so, or vasprun.xml does not tell.
    """
    run = _read_run(retrieved)
    if not run.is_insulator:
        raise ValueError(
            "it is a metal, or its vasprun.xml has no occupations, and forces of metals are not the derivative of the "
            f"energy with ISMEAR = {TETRAHEDRA}"
        )


def _check_incar(incar: Mapping[str, Any]) -> None:
    rules = dict(NO_LABEL)
    if incar.get("ismear") == TETRAHEDRA:
        del rules["ismear"]
    refusal = find_refusal(incar, rules)
    if refusal is not None:
        raise ValueError(f"its INCAR makes no label: {refusal}")


def significant(incar: Mapping[str, Any], neutral: Set[str]) -> dict[str, Any]:
    """Return the keys of the INCAR that tell labels apart, of MAGMOM the values that occur.

    :param neutral: keys that do not.
    """
    left = neutral | IONIC | OF_THE_FRAME
    kept = {key.lower(): comparable(value) for key, value in incar.items() if key.lower() not in left}
    moments = incar.get("magmom")
    if moments is not None:
        kept["magmom"] = sorted({float(moment) for moment in moments}) if isinstance(moments, list) else str(moments)
    return kept


def describe_potential(potential: Any) -> str:
    """Return the name of a POTCAR and the beginning of its hash."""
    return f"{potential.full_name} {potential.sha512[:16]}"


def find_unconverged(job: orm.ProcessNode) -> dict[str, orm.Node]:
    """Return the files of the last calculation of a job that failed in the electronic loop of its last ionic step.

    :param job: a ``VaspWorkChain``, or one of two, of which only the second has labels.
    """
    seconds = [call for call in job.called if call.label == SECOND]
    calls = (seconds[-1] if seconds else job).called
    failed = [call for call in calls if call.exit_status == ELECTRONS_NOT_CONVERGED and "retrieved" in call.outputs]
    return {"retrieved": failed[-1].outputs.retrieved} if failed else {}


def read_steps(retrieved: orm.FolderData) -> list[Atoms]:
    """Return the ionic steps of a calculation with their labels, of which those from OUTCAR are the moments.

    :raises ValueError: if a file is damaged.
    """
    with retrieved.as_path() as folder:
        steps = read_frames(folder / "vasprun.xml", "vasp-xml")
        outcar = folder / "OUTCAR"
        moments = read_vasp_moments(outcar, len(steps[0])) if outcar.exists() else {}
    for k, step in enumerate(steps, start=1):
        if step.calc is not None:
            step.calc.results |= moments.get(k, {})
    return steps


def read_vasp_steps(atoms: Atoms, nodes: Mapping[str, orm.Node]) -> Sequence[Result | None]:
    """Return the labels of every ionic step, None for one whose electronic loop did not converge.

    :param atoms: what the calculation started from; the first step has its positions to the last digit.
    :raises ValueError: if the atoms of vasprun.xml are not those of the structure.
    """
    steps = read_steps(cast(orm.FolderData, nodes["retrieved"]))
    order = _find_order(steps[0], atoms)
    results: list[Result | None] = []
    for k, step in enumerate(steps):
        if step.calc is None:
            results.append(None)
            continue
        by_atom = {name: _reorder(step.calc.results[name], order) for name in BY_ATOM if name in step.calc.results}
        labels = {**step.calc.results, **by_atom}
        if not all(atoms.pbc):
            labels.pop("stress", None)
        moved = {} if k == 0 else {"positions": _reorder(step.positions, order), "cell": step.cell.array}
        results.append(Result(labels, **moved))
    return results


def _find_order(first: Atoms, atoms: Atoms) -> IntArray:
    """Return which atom of the structure each atom of vasprun.xml is: as they are, or grouped by species.

    :raises ValueError: rather than give an atom the force of another.
    """
    for order in (np.arange(len(atoms)), group_species(list(atoms.symbols))):
        written = atoms[order]
        if list(first.symbols) != list(written.symbols):
            continue
        moved = first.get_scaled_positions(wrap=False) - written.get_scaled_positions(wrap=False)
        if np.max(np.abs(moved - np.round(moved))) < LARGEST_SHIFT:
            return order
    raise ValueError("the atoms in vasprun.xml are not where those of its structure are, or in another order")


def _reorder(values: np.ndarray, order: IntArray) -> np.ndarray:
    ordered = np.empty_like(values)
    ordered[order] = values
    return ordered
