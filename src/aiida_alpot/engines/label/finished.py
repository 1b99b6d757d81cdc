"""What a finished calculation of the profile offers as labels, whichever code made it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from aiida import orm
from ase import Atoms

from aiida_alpot.kernel.labelling.boxes import spin_moments
from aiida_alpot.kernel.labelling.hubbard import parse_hubbard

Columns = dict[str, float]


@dataclass(frozen=True)
class FinishedCalculation:
    """A calculation whose labels can be read.

    :param nodes: inputs and outputs that hold them, by name; one is ``structure``, what the calculation started from.
    :param details: what else of its inputs is needed to read them, plain data; ``charge`` (e) if it has one.
    :param settings: all that changes the labels, but for ``columns``, plain data. The fingerprint is made of it.
    :param columns: what follows from cell and number of atoms in each calculation, so that it tells no settings apart:
        ``kpoints_distance``, the largest along periodic axes (1/Å), and ``scf_threshold`` (eV/atom).
    """

    nodes: Mapping[str, orm.Data]
    details: Mapping[str, Any]
    settings: Mapping[str, Any]
    columns: Columns = field(default_factory=dict)


def to_atoms(structure: orm.StructureData, charge: float = 0.0) -> Atoms:
    """Return a structure as a frame, with nothing but what a calculation starts from.

    :param charge: e.
    :raises ValueError: if a site is shared by several elements, or partly empty.
    """
    kinds = {kind.name: kind for kind in structure.kinds}
    for kind in kinds.values():
        if kind.is_alloy or kind.has_vacancies:
            raise ValueError(f"a site of its structure is no atom but {kind.get_symbols_string()}")
    atoms = Atoms(
        [kinds[site.kind_name].symbol for site in structure.sites],
        positions=[site.position for site in structure.sites],
        cell=structure.cell,
        pbc=structure.pbc,
    )
    if charge:
        atoms.info["charge"] = float(charge)
    return atoms


def by_symbol(potentials: Mapping[str, str], structure: orm.StructureData) -> dict[str, str]:
    """Return the pseudopotential of every element.

    :param potentials: by name of the kind, or by symbol.
    :raises ValueError: if two kinds of an element have different ones: a label tells atoms apart by element only.
    """
    symbols = {kind.name: kind.symbol for kind in structure.kinds}
    found: dict[str, str] = {}
    for name, potential in potentials.items():
        symbol = symbols.get(name, name)
        if found.setdefault(symbol, potential) != potential:
            raise ValueError(f"its atoms of {symbol} have different pseudopotentials, as if they were two elements")
    return found


def describe_kpoints(kpoints: orm.KpointsData, structure: orm.StructureData) -> tuple[Columns, list[Any]]:
    """Return the largest distance of a mesh along periodic axes (1/Å) as a column, and what tells settings apart.

    These are the offset of a mesh, if it has one, or the points of a list with their weights.
    """
    try:
        mesh, offset = kpoints.get_kpoints_mesh()
    except AttributeError:
        points = np.asarray(kpoints.get_kpoints())
        weighted = "weights" in kpoints.get_arraynames()
        weights = kpoints.get_array("weights")[:, None] if weighted else np.ones((len(points), 1))
        return {}, np.round(np.hstack([points, weights]), 6).tolist()
    reciprocal = 2 * np.pi * np.linalg.inv(np.array(structure.cell)).T
    distances = np.linalg.norm(reciprocal, axis=1) / np.array(mesh)
    periodic = distances[np.array(structure.pbc, dtype=bool)]
    shift = [float(value) for value in offset] if any(offset) else []
    return ({"kpoints_distance": float(periodic.max())} if len(periodic) else {}), shift


def expect_kpoints(
    structure: orm.StructureData, distance: float, mesh: Sequence[int] | None = None
) -> tuple[Columns, list[Any]]:
    """Return what :func:`describe_kpoints` says of the mesh that settings ask for.

    :param distance: largest one between k-points, 1/Å.
    :param mesh: instead of a distance.
    """
    kpoints = orm.KpointsData()
    kpoints.set_cell_from_structure(structure)
    if mesh is None:
        kpoints.set_kpoints_mesh_from_density(distance)
    else:
        kpoints.set_kpoints_mesh(mesh)
    return describe_kpoints(kpoints, structure)


def refuse_to_compare(atoms: Atoms, settings: Mapping[str, Any]) -> None:
    """Refuse to compare a calculation with settings of which a part does not stand in its input as it stands in theirs.

    :raises ValueError: if they ask for a Hubbard U or starting moments, or for a box around what is not periodic.
    """
    if any(u.symbol in atoms.symbols for u in parse_hubbard(settings["hubbard"])):
        raise ValueError("these settings give it a Hubbard U, which is not compared")
    if spin_moments(atoms, settings["magnetic_moments"]) is not None:
        raise ValueError("these settings give it starting moments, which are not compared")
    if not all(atoms.pbc):
        raise ValueError("it is not periodic along all axes: its box is not compared")


def comparable(value: Any) -> Any:
    """Return a setting so that equal ones are equal: numbers as floats, text in lower case."""
    if isinstance(value, Mapping):
        return {str(key): comparable(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [comparable(entry) for entry in value]
    if isinstance(value, str):
        return value.strip().lower()
    return value if value is None or isinstance(value, bool) else float(value)
