"""HDF5 files that hold their own content: a file may also point to others, which are then read in its place."""

from __future__ import annotations

import h5py

_MAX_DEPTH = 4


def find_outside(group: h5py.Group, depth: int = 0) -> str | None:
    """Return the path of the first member whose values lie elsewhere, None if the file holds them all.

    These are soft and external links, datasets with external storage, and virtual datasets.

    :raises ValueError: if groups are nested deeper than any file of this package.
    """
    if depth > _MAX_DEPTH:
        raise ValueError(f"groups are nested deeper than {_MAX_DEPTH} levels at {group.name}")
    for key in group:
        path = f"{group.name.rstrip('/')}/{key}"
        if not isinstance(group.get(key, getlink=True), h5py.HardLink):
            return path
        member = group[key]
        if isinstance(member, h5py.Group):
            found = find_outside(member, depth + 1)
            if found is not None:
                return found
        elif isinstance(member, h5py.Dataset) and (member.external or member.is_virtual):
            return path
    return None
