"""calcfunctions between datasets and structures."""

from __future__ import annotations

from collections.abc import Sequence

from aiida import orm
from aiida.engine import calcfunction
from ase import Atoms

from aiida_alpot.data.pes import PESData
from aiida_alpot.kernel.labelling.boxes import group_species, name_kinds, put_into_box, starting_moments
from aiida_alpot.kernel.labelling.hubbard import HubbardU, parse_hubbard
from aiida_alpot.kernel.labelling.identity import label_ids


@calcfunction
def frame_structure(frames: PESData, identity: orm.Str, settings: orm.Dict) -> orm.StructureData:
    """Return one frame of a dataset as a structure.

    :param frames: the dataset.
    :param identity: of :func:`~aiida_alpot.kernel.labelling.identity.label_ids`: datasets that differ in
        the order of their rows only count as equal.
    :param settings: ``vacuum``, ``cubic`` and ``doubled`` of
        :func:`~aiida_alpot.kernel.labelling.boxes.put_into_box`, ``moments``: starting moments by element, by which
        atoms of one element fall into several kinds, ``grouped``: atoms in the order of
        :func:`~aiida_alpot.kernel.labelling.boxes.group_species`, for codes that want a species in one block,
        ``hubbard``: U by element and manifold, with which the structure is a ``HubbardStructureData``.
    """
    given = settings.get_dict()
    with frames.dataset() as reader:
        rows = [row for row, found in enumerate(label_ids(reader)) if found == identity.value]
        atoms = reader[rows[0]]
    moments = starting_moments(atoms, given.pop("moments", None))
    kinds, _ = name_kinds(list(atoms.symbols), moments)
    is_grouped, hubbard = given.pop("grouped", False), parse_hubbard(given.pop("hubbard", None))
    boxed = put_into_box(atoms, **given)
    if is_grouped:
        order = group_species(list(atoms.symbols))
        boxed, kinds = boxed[order], [kinds[k] for k in order]
    structure = to_structure(boxed, kinds)
    corrected = [u for u in hubbard if u.symbol in atoms.symbols]
    return to_hubbard_structure(structure, corrected) if corrected else structure


def to_structure(atoms: Atoms, kinds: list[str]) -> orm.StructureData:
    """Return a structure with sites in the order of the atoms and these kinds."""
    structure = orm.StructureData(cell=atoms.cell.array.tolist(), pbc=[bool(axis) for axis in atoms.pbc])
    for symbol, position, kind in zip(atoms.symbols, atoms.positions.tolist(), kinds, strict=True):
        structure.append_atom(symbols=symbol, position=position, name=kind)
    return structure


def to_hubbard_structure(structure: orm.StructureData, corrections: Sequence[HubbardU]) -> orm.StructureData:
    """Return a structure with the U of its elements, every kind of an element alike."""
    from aiida_quantumespresso.data.hubbard_structure import HubbardStructureData

    corrected = HubbardStructureData.from_structure(structure)
    names = [site.kind_name for site in structure.sites]
    for symbol, manifold, value in corrections:
        for kind in structure.kinds:
            if kind.symbol == symbol:
                k = names.index(kind.name)
                corrected.append_hubbard_parameter(k, manifold, k, manifold, value, (0, 0, 0), "Ueff")
    return corrected
