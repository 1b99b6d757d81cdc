"""Extended xyz that loses nothing and that every code of the field can read.

Labels stand under REF_energy, REF_forces, REF_stress (3×3, nine numbers) and REF_magmoms; numbers have as many digits
as they need to come back bit by bit. What plain extended xyz cannot carry (texts that look like numbers, line breaks,
Unicode, empty texts, arrays of rank three …) goes into one more entry, ``alpot="_JSON {…}"``, which other readers skip.
A file is plain ASCII. :func:`write_extxyz` writes it, :func:`restore` puts the extra entry back after ASE has read it.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from typing import Any, TextIO

import numpy as np
from ase import Atoms
from ase.calculators.calculator import all_properties
from ase.io.extxyz import key_val_str_to_dict
from ase.stress import voigt_6_to_full_3x3_stress

from aiida_alpot.kernel.dataset.frames import REF_PREFIX, read_labels
from aiida_alpot.kernel.dataset.schema import SCHEMA, AnyArray
from aiida_alpot.kernel.dataset.xyz_check import may_be_refused

EXTRA_KEY = "alpot"
_RESERVED = {
    *all_properties, "Lattice", "Properties", "pbc", "virial", "uid", "species", "symbols", "pos", "positions", "Z",
    "numbers", "charge", "charges", "move_mask", EXTRA_KEY,
}  # fmt: skip
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_CODES = {"b": "L", "i": "I", "f": "R", "U": "S"}


def pack(value: Any) -> Any:
    """Return a plain value or array as something JSON can hold and :func:`unpack` turns back bit by bit."""
    if isinstance(value, np.ndarray):
        return {"dtype": value.dtype.kind, "shape": list(value.shape), "data": value.ravel().tolist()}
    return value.item() if isinstance(value, np.generic) else value


def unpack(value: Any) -> Any:
    """Return what :func:`pack` was given."""
    if isinstance(value, Mapping):
        kind = {"b": np.bool_, "i": np.int64, "f": np.float64, "U": np.str_, "O": object}[value["dtype"]]
        return np.array(value["data"], dtype=kind).reshape(value["shape"])
    return value


def visible_info(atoms: Atoms) -> dict[str, Any]:
    """Return the entries of ``info`` that say more than the default of their column, without REF_ labels."""
    found = {}
    for name, value in atoms.info.items():
        if value is None or isinstance(value, dict) or name in {REF_PREFIX + label for label in SCHEMA}:
            continue
        spec = SCHEMA.get(name)
        is_default = spec is not None and (value == spec.fill or (isinstance(value, float) and np.isnan(value)))
        if name == "status" or not is_default:
            found[str(name)] = value
    return found


def write_extxyz(file: TextIO, atoms: Atoms, where: str = "frame") -> None:
    """Append one frame.

    :param where: names the frame in messages.
    """
    labels = read_labels(atoms, where)
    extra: dict[str, dict[str, Any]] = {"info": {}, "arrays": {}}
    columns = _columns(atoms, labels, extra["arrays"])
    entries = [
        _lattice(atoms),
        "Properties=" + ":".join(f"{name}:{_shape(values)}" for name, values in columns.items()),
    ]
    if "energy" in labels:
        entries.append(f"{REF_PREFIX}energy={float(labels['energy'])!r}")
    if "stress" in labels:
        numbers = voigt_6_to_full_3x3_stress(labels["stress"]).ravel().tolist()
        entries.append(f'{REF_PREFIX}stress="{" ".join(map(repr, numbers))}"')
    for name, value in visible_info(atoms).items():
        entry = _entry(name, value)
        if entry is None:
            extra["info"][name] = pack(value)
        else:
            entries.append(entry)
    kept = {part: values for part, values in extra.items() if values}
    if kept:
        text = "_JSON " + json.dumps(kept)
        entries.append(f"{EXTRA_KEY}={_quote(text)}")
    file.write(f"{len(atoms)}\n{' '.join(entry for entry in entries if entry)}\n")
    cells = [_cells(values) for values in columns.values()]
    file.writelines(" ".join(row) + "\n" for row in zip(*cells, strict=True))


def restore(atoms: Atoms) -> None:
    """Put what the extra entry of a frame holds back into ``info`` and ``arrays``."""
    extra = atoms.info.pop(EXTRA_KEY, None)
    if not isinstance(extra, Mapping):
        return
    atoms.info.update({name: unpack(value) for name, value in extra.get("info", {}).items()})
    for name, value in extra.get("arrays", {}).items():
        atoms.arrays[name] = unpack(value)


def _lattice(atoms: Atoms) -> str:
    pbc = " ".join("T" if axis else "F" for axis in atoms.pbc)
    cell = " ".join(map(repr, atoms.cell.array.ravel().tolist()))
    return (f'Lattice="{cell}" ' if atoms.cell.array.any() else "") + f'pbc="{pbc}"'


def _columns(atoms: Atoms, labels: Mapping[str, Any], extra: dict[str, Any]) -> dict[str, AnyArray]:
    columns: dict[str, AnyArray] = {"species": np.array(atoms.get_chemical_symbols()), "pos": atoms.positions}
    for name in ("forces", "magmoms"):
        if name in labels:
            columns[REF_PREFIX + name] = labels[name]
    for name, values in atoms.arrays.items():
        if name in ("numbers", "positions") or name in columns:
            continue
        if _is_plain_array(name, values):
            columns[name] = values
        else:
            extra[name] = pack(values)
    return columns


def _is_plain_array(name: str, values: AnyArray) -> bool:
    if name in _RESERVED or may_be_refused(name) or not _NAME.fullmatch(name) or values.dtype.kind not in _CODES:
        return False
    if values.ndim != 1 and (values.ndim != 2 or values.shape[1] < 2):
        return False
    if values.dtype.kind == "U":
        return all(re.fullmatch(r"[!-~]+", text) for text in values.ravel().tolist())
    return True


def _shape(values: AnyArray) -> str:
    return f"{_CODES[values.dtype.kind]}:{values.shape[1] if values.ndim == 2 else 1}"


def _cells(values: AnyArray) -> list[str]:
    rows = values.reshape(len(values), -1)
    if values.dtype.kind == "b":
        return [" ".join("T" if item else "F" for item in row) for row in rows.tolist()]
    if values.dtype.kind == "U":
        return [" ".join(row) for row in rows.tolist()]
    return [" ".join(map(repr, row)) for row in rows.tolist()]


def _entry(name: str, value: Any) -> str | None:
    """Return ``key=value`` if ASE reads the same value back from it, else None."""
    is_reserved = (name in _RESERVED and name != "charge") or name.startswith(REF_PREFIX) or may_be_refused(name)
    if is_reserved or not _NAME.fullmatch(name):
        return None
    if isinstance(value, str):
        return f"{name}={_quote(value)}" if _is_safe_text(value) else None
    if isinstance(value, (bool, np.bool_)):
        return f"{name}={'T' if value else 'F'}"
    if isinstance(value, (int, float, np.integer, np.floating)):
        return f"{name}={value.item() if isinstance(value, np.generic) else value!r}"
    if isinstance(value, np.ndarray) and value.ndim == 1 and value.size > 1 and value.dtype.kind in "if":
        return f'{name}="{" ".join(map(repr, value.tolist()))}"'
    return None


@functools.lru_cache(maxsize=4096)
def _is_safe_text(text: str) -> bool:
    if not re.fullmatch(r"[ -~]+", text) or text.startswith("_JSON"):
        return False
    found = key_val_str_to_dict(f"key={_quote(text)}").get("key")
    return isinstance(found, str) and found == text


def _quote(text: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9_.:/+-]+", text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
