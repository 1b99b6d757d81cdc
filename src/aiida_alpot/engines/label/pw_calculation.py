"""Finished ``PwCalculation``s as labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from aiida import orm
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress
from ase.units import GPa, Ry

from aiida_alpot.engines.label.finished import FinishedCalculation, by_symbol, comparable, describe_kpoints
from aiida_alpot.engines.label.pw_namelists import NO_LABEL
from aiida_alpot.kernel.dataset.code_output import CODES
from aiida_alpot.kernel.labelling.refusals import find_refusal
from aiida_alpot.kernel.labelling.results import Result

PROCESS_TYPE: Final = "aiida.calculations:quantumespresso.pw"
EXITS: Final = frozenset({0, 500, 501, 502, 520})
"""The electronic loops converged; in the others the relaxation did not."""
KINDS: Final = ("scf", "relax", "md", "vc-relax", "vc-md")
DEFAULT_CONV_THR: Final = 1e-6
"""Ry, where the input does not say."""
OF_THE_FRAME: Final[Mapping[str, frozenset[str]]] = {
    "CONTROL": frozenset({"nstep", "dt", "title", "prefix", "outdir", "pseudo_dir"}),
    "SYSTEM": frozenset({"tot_charge"}),
    "ELECTRONS": frozenset({"conv_thr"}),
}
"""Keys that change no label, or stand in a column of the frame."""

DEFAULTS: Final[Mapping[str, Any]] = {"nspin": 1.0, "noncolin": False, "lspinorb": False, "nosym": False}
"""What it means that a key is not given, for keys that are often given nevertheless."""


def inspect_pw(calculation: orm.CalcJobNode, neutral: Mapping[str, frozenset[str]]) -> FinishedCalculation:
    """Return a calculation of pw.x as a source of labels.

    :param neutral: keys of the namelists that change no label.
    :raises ValueError: if its output holds none.
    """
    inputs, outputs = calculation.inputs, calculation.outputs
    namelists = _upper(inputs.parameters.get_dict())
    kind = str(namelists.get("CONTROL", {}).get("calculation", "scf")).lower()
    if kind not in KINDS:
        raise ValueError(f"a calculation of the kind {kind!r} gives no forces")
    for name, rules in NO_LABEL.items():
        refusal = find_refusal(namelists.get(name, {}), rules)
        if refusal is not None:
            raise ValueError(f"its namelist {name} makes no label: {refusal}")
    if "settings" in inputs and "fixed_coords" in {key.lower() for key in inputs.settings.get_dict()}:
        raise ValueError("some of its atoms are fixed (FIXED_COORDS): pw.x sets their forces to zero")
    found = {name: outputs[name] for name in ("output_parameters", "output_trajectory", "retrieved") if name in outputs}
    for name in ("output_parameters", "output_trajectory"):
        if name not in found:
            raise ValueError(f"it has no output {name}")
    structure = inputs.structure
    columns, points = describe_kpoints(inputs.kpoints, structure)
    conv_thr = float(namelists.get("ELECTRONS", {}).get("conv_thr", DEFAULT_CONV_THR))
    columns["scf_threshold"] = conv_thr * Ry / len(structure.sites)
    details = {
        "kind": kind,
        "charge": float(namelists.get("SYSTEM", {}).get("tot_charge", 0.0)),
        "stdout": str(calculation.get_option("output_filename")),
    }
    settings = {
        "namelists": significant(namelists, neutral),
        "pseudos": by_symbol({name: pseudo.md5 for name, pseudo in inputs.pseudos.items()}, structure),
        "kpoints": points,
        "hubbard": structure.hubbard.to_list() if hasattr(structure, "hubbard") else None,
    }
    return FinishedCalculation({"structure": structure, **found}, details, settings, columns)


def significant(namelists: Mapping[str, Mapping[str, Any]], neutral: Mapping[str, frozenset[str]]) -> dict[str, Any]:
    """Return the keys of the namelists that tell labels apart.

    :param neutral: keys that do not, by namelist.
    """
    return {
        name: {
            key.lower(): comparable(value)
            for key, value in namelists.get(name, {}).items()
            if key.lower() not in neutral[name] | OF_THE_FRAME[name]
            and (key.lower() not in DEFAULTS or comparable(value) != DEFAULTS[key.lower()])
        }
        for name in neutral
    }


def _upper(parameters: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        name.upper(): {key.lower(): value for key, value in content.items()} for name, content in parameters.items()
    }


def read_pw_steps(atoms: Atoms, nodes: Mapping[str, orm.Node], details: Mapping[str, Any]) -> Sequence[Result | None]:
    """Return the labels of every ionic step, None for one whose electronic loop did not converge.

    :param atoms: what the calculation started from; the first step has its positions to the last digit.
    :raises ValueError: if energies, forces and positions are not of the same steps.
    """
    steps = nodes["output_trajectory"]
    names = set(steps.get_arraynames())
    missing = {"energy", "forces", "positions", "cells"} - names
    if missing:
        raise ValueError(f"its trajectory has no {min(missing)}; set tprnfor")
    energies, forces = steps.get_array("energy"), steps.get_array("forces")
    # of a relaxation of the cell, the energy after the last step is of a calculation begun anew in the final cell
    n_steps = len(steps.get_array("positions"))
    stress = steps.get_array("stress") if "stress" in names and all(atoms.pbc) else None
    if min(len(energies), len(forces)) < n_steps or (stress is not None and len(stress) < n_steps):
        raise ValueError(f"its trajectory has {n_steps} positions, but {len(energies)} energies, {len(forces)} forces")
    moments = steps.get_array("atomic_magnetic_moments") if "atomic_magnetic_moments" in names else []
    converged = _converged(nodes, details, n_steps)
    results: list[Result | None] = []
    for k in range(n_steps):
        labels: dict[str, Any] = {"energy": float(energies[k]), "forces": forces[k]}
        if stress is not None:
            # pw.x: GPa, positive when compressed
            labels["stress"] = full_3x3_to_voigt_6_stress(-stress[k] * GPa)
        if len(moments) == n_steps:
            labels["magmoms"] = moments[k]
        moved = {} if k == 0 else {"positions": steps.get_array("positions")[k], "cell": steps.get_array("cells")[k]}
        results.append(Result(labels, **moved) if converged[k] else None)
    return results


def _converged(nodes: Mapping[str, orm.Node], details: Mapping[str, Any], n_steps: int) -> list[bool]:
    """Return what pw.x said at the end of every electronic loop; without its text, the exit code has to do."""
    retrieved = nodes.get("retrieved")
    if not isinstance(retrieved, orm.FolderData) or details["stdout"] not in retrieved.list_object_names():
        return [True] * n_steps
    with retrieved.as_path() as folder:
        said = CODES["espresso-out"](folder / details["stdout"])
    if len(said) < n_steps:
        raise ValueError(f"its output tells of {len(said)} electronic loops, its trajectory has {n_steps} steps")
    return said[:n_steps]
