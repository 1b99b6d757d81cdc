"""What a finished calculation of the profile offers as labels, whichever code made it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from aiida import orm
from ase import Atoms

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


def describe_kpoints(kpoints: orm.KpointsData, structure: orm.StructureData) -> tuple[Columns, list[Any]]:
    """Return the largest distance of a mesh along periodic axes (1/Å) as a column, or the points of a list."""
    try:
        mesh, _ = kpoints.get_kpoints_mesh()
    except AttributeError:
        return {}, np.round(kpoints.get_kpoints(), 6).tolist()
    reciprocal = 2 * np.pi * np.linalg.inv(np.array(structure.cell)).T
    distances = np.linalg.norm(reciprocal, axis=1) / np.array(mesh)
    periodic = distances[np.array(structure.pbc, dtype=bool)]
    return ({"kpoints_distance": float(periodic.max())} if len(periodic) else {}), []


def comparable(value: Any) -> Any:
    """Return a setting so that equal ones are equal: numbers as floats, text in lower case."""
    if isinstance(value, Mapping):
        return {str(key): comparable(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [comparable(entry) for entry in value]
    if isinstance(value, str):
        return value.strip().lower()
    return value if value is None or isinstance(value, bool) else float(value)
