"""calcfunctions between datasets and structures."""

from __future__ import annotations

from aiida import orm
from aiida.engine import calcfunction
from ase import Atoms

from aiida_alpot.data.pes import PESData
from aiida_alpot.kernel.labelling.boxes import group_species, name_kinds, put_into_box, starting_moments


@calcfunction
def frame_structure(frames: PESData, identity: orm.Str, settings: orm.Dict) -> orm.StructureData:
    """Return one frame of a dataset as a structure.

    :param frames: the dataset.
    :param identity: structure id of the frame: datasets that differ in the order of their rows only count as equal.
    :param settings: ``vacuum``, ``cubic`` and ``doubled`` of
        :func:`~aiida_alpot.kernel.labelling.boxes.put_into_box`, ``moments``: starting moments by element, by which
        atoms of one element fall into several kinds, ``grouped``: atoms in the order of
        :func:`~aiida_alpot.kernel.labelling.boxes.group_species`, for codes that want a species in one block.
    """
    given = settings.get_dict()
    with frames.dataset() as reader:
        rows = [row for row, found in enumerate(reader.frame_ids(labels=False)) if found == identity.value]
        atoms = reader[rows[0]]
    moments = starting_moments(atoms, given.pop("moments", None))
    kinds, _ = name_kinds(list(atoms.symbols), moments)
    is_grouped = given.pop("grouped", False)
    boxed = put_into_box(atoms, **given)
    if is_grouped:
        order = group_species(list(atoms.symbols))
        boxed, kinds = boxed[order], [kinds[k] for k in order]
    return to_structure(boxed, kinds)


def to_structure(atoms: Atoms, kinds: list[str]) -> orm.StructureData:
    """Return a structure with sites in the order of the atoms and these kinds."""
    structure = orm.StructureData(cell=atoms.cell.array.tolist(), pbc=[bool(axis) for axis in atoms.pbc])
    for symbol, position, kind in zip(atoms.symbols, atoms.positions.tolist(), kinds, strict=True):
        structure.append_atom(symbols=symbol, position=position, name=kind)
    return structure
