"""From ``ase.Atoms`` to a batch of flat arrays.

Labels are read from the calculator of a frame (a ``SinglePointCalculator``, or any calculator whose results belong to
the atoms as they are; nothing is ever calculated), else from the keys REF_energy, REF_forces, REF_stress, REF_magmoms.
They are the raw results: constraints are not applied to forces, and constraints are not kept. Entries of ``info`` that
are not plain values (dictionaries, objects) and other results of the calculator are not kept either.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import full_3x3_to_voigt_6_stress

from aiida_alpot.kernel.dataset.batch import Batch, Column
from aiida_alpot.kernel.dataset.schema import (
    INFO_COLUMNS,
    LABELS,
    SCHEMA,
    AnyArray,
    ColumnSpec,
    user_spec,
)

_LOGGER = logging.getLogger(__name__)
REF_PREFIX = "REF_"
_ASYMMETRY = 0.01
"""Largest difference of two opposite components of a stress, over its largest component."""
_REF_KEYS = tuple(REF_PREFIX + name for name in LABELS)


def read_labels(atoms: Atoms, where: str) -> dict[str, Any]:
    """Return the labels of a frame: energy (), forces (n_atoms, 3), stress (6,), magmoms (n_atoms,).

    :param where: names the frame in messages.
    :raises ValueError: if the results belong to another geometry, calculator and REF_ keys differ, or a shape is wrong.
    """
    found = _calculator_results(atoms, where)
    reference = {name: _reference_value(atoms, name) for name in LABELS}
    for name, value in reference.items():
        if value is None:
            continue
        if name in found and not np.array_equal(
            _shaped(name, found[name], len(atoms), where), _shaped(name, value, len(atoms), where), equal_nan=True
        ):
            raise ValueError(
                f"{where}: the calculator and {REF_PREFIX}{name} give different labels; remove one of the two"
            )
    if not found:
        found = {name: value for name, value in reference.items() if value is not None}
    return {name: _shaped(name, value, len(atoms), where) for name, value in found.items()}


def _calculator_results(atoms: Atoms, where: str) -> dict[str, Any]:
    calc = atoms.calc
    results = getattr(calc, "results", None)
    if not results:
        return {}
    if isinstance(calc, SinglePointCalculator):
        if not _same_geometry(calc.atoms, atoms):
            raise ValueError(
                f"{where}: the labels belong to another geometry (the atoms changed after they were attached); "
                "attach new labels, or set atoms.calc = None"
            )
    elif getattr(calc, "atoms", None) is None or calc.check_state(atoms):
        return {}
    return {name: results[name] for name in LABELS if results.get(name) is not None}


def _same_geometry(first: Atoms, second: Atoms) -> bool:
    return (
        _same_values(first.positions, second.positions)
        and _same_values(first.numbers, second.numbers)
        and _same_values(first.cell.array, second.cell.array)
        and _same_values(first.pbc, second.pbc)
    )


def _same_values(first: AnyArray, second: AnyArray) -> bool:
    same_bytes = first.dtype == second.dtype and first.tobytes() == second.tobytes()  # four times as fast
    return (same_bytes and first.shape == second.shape) or np.array_equal(first, second, equal_nan=True)


def _reference_value(atoms: Atoms, name: str) -> Any:
    source = atoms.arrays if SCHEMA[name].per == "atom" else atoms.info
    return source.get(REF_PREFIX + name)


def _shaped(name: str, value: Any, n_atoms: int, where: str) -> AnyArray:
    try:
        array: AnyArray = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {name} is no number: {value!r:.60}; correct or remove it") from error
    if name == "stress" and array.size == 9 and array.shape in ((3, 3), (9,)):
        check_symmetric(array.reshape(3, 3), f"{where}: stress")
        array = full_3x3_to_voigt_6_stress(array.reshape(3, 3))
    if name == "energy" and array.size == 1:
        array = array.reshape(())
    expected = (n_atoms, *SCHEMA[name].shape) if SCHEMA[name].per == "atom" else SCHEMA[name].shape
    if array.shape != expected:
        raise ValueError(f"{where}: {name} has shape {array.shape}, expected {expected} for {n_atoms} atoms")
    return array


def check_symmetric(stress: AnyArray, where: str) -> None:
    """Refuse a stress of which six numbers would be another one.

    :param stress: shape (3, 3), eV/Å³.
    :param where: names it in messages.
    :raises ValueError: if opposite components differ by more than noise.
    """
    with np.errstate(invalid="ignore"):  # one that is not finite is refused elsewhere
        worst = np.abs(stress - stress.T).max()
    if worst > _ASYMMETRY * np.abs(stress).max() + 1e-6:
        raise ValueError(f"{where} is not symmetric, by {worst:.3g} eV/Å³; correct or remove it")


def batch_from_frames(frames: Sequence[Atoms], start: int = 0) -> Batch:
    """Return *frames* as flat arrays.

    :param start: number of the first frame, for messages.
    :raises ValueError: naming the frame, if an array has a wrong length or a column changes its type.
    """
    _check_lengths(frames, start)
    offsets = np.zeros(len(frames) + 1, dtype=np.int64)
    np.cumsum([len(atoms) for atoms in frames], out=offsets[1:])
    batch = Batch(offsets)
    _put(batch, "numbers", np.concatenate([_NO_INTS, *(atoms.numbers for atoms in frames)]))
    _put(batch, "positions", np.concatenate([_NO_ROWS, *(atoms.positions for atoms in frames)]))
    _put(batch, "cell", np.array([atoms.cell.array for atoms in frames], dtype=np.float64).reshape(-1, 3, 3))
    _put(batch, "pbc", np.array([atoms.pbc for atoms in frames], dtype=bool).reshape(-1, 3))
    labels = [read_labels(atoms, f"frame {start + k}") for k, atoms in enumerate(frames)]
    _put_labels(batch, labels)
    _put_info(batch, frames, labels, start)
    _put_arrays(batch, frames, start)
    return batch


_NO_INTS = np.empty(0, dtype=np.int64)
_NO_ROWS = np.empty((0, 3))


def _put(batch: Batch, name: str, values: AnyArray) -> None:
    batch.columns[name] = Column(SCHEMA[name], values)


def _check_lengths(frames: Sequence[Atoms], start: int) -> None:
    for k, atoms in enumerate(frames):
        if not isinstance(atoms, Atoms):
            raise TypeError(f"frame {start + k}: expected ase.Atoms, got {type(atoms).__name__}")
        for name, values in atoms.arrays.items():
            if len(values) != len(atoms.numbers):
                raise ValueError(
                    f"frame {start + k}: the per-atom array {name!r} has {len(values)} rows for "
                    f"{len(atoms.numbers)} atoms; give one row per atom"
                )


def _put_labels(batch: Batch, labels: Sequence[Mapping[str, Any]]) -> None:
    for name in LABELS:
        if not any(name in label for label in labels):
            continue
        spec = SCHEMA[name]
        values = spec.empty(batch.n_rows(spec))
        for k, label in enumerate(labels):
            if name in label:
                rows = slice(batch.offsets[k], batch.offsets[k + 1]) if spec.per == "atom" else k
                values[rows] = label[name]
        _put(batch, name, values)


def _put_info(batch: Batch, frames: Sequence[Atoms], labels: Sequence[Mapping[str, Any]], start: int) -> None:
    collected: dict[str, dict[int, Any]] = {}
    for k, atoms in enumerate(frames):
        for name, value in atoms.info.items():
            if name not in _REF_KEYS and value is not None:
                collected.setdefault(str(name), {})[k] = value
    status = collected.setdefault("status", {})
    for k, label in enumerate(labels):
        if status.get(k) in (None, ""):
            status[k] = "labelled" if "energy" in label and "forces" in label else "unlabelled"
    for name, values in collected.items():
        column = frame_column(name, values, batch.n_frames, start)
        if column is not None:
            batch.columns[name] = column


def frame_column(name: str, values: Mapping[int, Any], n_frames: int, start: int = 0) -> Column | None:
    """Return the per-frame column *name* of *n_frames* rows, or None if the values are not plain.

    :param values: value of each row that has one.
    :param start: number of the first frame, for messages.
    :raises ValueError: if a value has a type or shape that differs from the first.
    """
    if name in SCHEMA and name not in INFO_COLUMNS:
        raise ValueError(
            f"frame {start + min(values, default=0)}: {name!r} stands in info, where it is no label; put labels into a "
            f"SinglePointCalculator or under {REF_PREFIX}{name}, or rename the entry"
        )
    arrays = {k: _plain(value) for k, value in values.items()}
    plain = {k: array for k, array in arrays.items() if array is not None}
    if len(plain) < len(arrays):
        if plain or name in SCHEMA:
            bad = next(k for k, array in arrays.items() if array is None)
            raise ValueError(f"frame {start + bad}: info[{name!r}] is not a plain value: {values[bad]!r:.80}")
        _LOGGER.info("info[%r] is not a plain value and is not kept in the dataset", name)
        return None
    if not plain:
        return None
    first = next(iter(plain.values()))
    spec = SCHEMA[name] if name in SCHEMA else user_spec(name, "frame", first.dtype, first.shape)
    rows = spec.empty(n_frames)
    for k, array in plain.items():
        rows[k] = _fit(array, spec, f"frame {start + k}: info[{name!r}]")[()]
    if spec.role != "user" or len(plain) == n_frames:
        return Column(spec, rows)
    present = np.zeros(n_frames, dtype=bool)
    present[list(plain)] = True
    return Column(spec, rows, present)


def _plain(value: Any) -> AnyArray | None:
    """Return *value* as an array of bool, int64, float64 or text (object), or None if it is none of these."""
    if isinstance(value, str):
        text = np.empty((), dtype=object)
        text[()] = str(value)
        return text
    if not isinstance(value, (bool, int, float, np.generic, np.ndarray, list, tuple)):
        return None
    if isinstance(value, (list, tuple)) and len({isinstance(item, str) for item in value}) > 1:
        return None
    try:
        array = np.asarray(value)
    except ValueError:
        return None
    if array.dtype.kind == "O":
        return array if array.size and all(isinstance(item, str) for item in array.ravel()) else None
    if array.dtype.kind == "U":
        return np.array(array.tolist(), dtype=object).reshape(array.shape)
    if array.dtype.kind == "u":
        return array.astype(np.int64) if not array.size or array.max() <= np.iinfo(np.int64).max else None
    kinds = {"b": np.bool_, "i": np.int64, "f": np.float64}
    return array.astype(kinds[array.dtype.kind]) if array.dtype.kind in kinds else None


def _fit(array: AnyArray, spec: ColumnSpec, where: str) -> AnyArray:
    """Return one value in the type of its column."""
    widens = spec.role != "user" and spec.kind == "float" and array.dtype.kind == "i"
    if array.shape != spec.shape or (array.dtype != spec.dtype and not widens):
        raise ValueError(
            f"{where} is {array.dtype} of shape {array.shape}, but the column holds {spec.kind} of shape {spec.shape}; "
            "give it one type and shape in every frame"
        )
    return array


def _put_arrays(batch: Batch, frames: Sequence[Atoms], start: int) -> None:
    names: dict[str, None] = {}
    for atoms in frames:
        names.update(dict.fromkeys(atoms.arrays))
    for name in names:
        if name in ("numbers", "positions") or name in _REF_KEYS:
            continue
        if name in batch.columns and name not in SCHEMA:
            raise ValueError(f"{name!r} stands in info and in arrays; rename one of them (first frame {start})")
        batch.columns[name] = _atom_column(name, batch, frames, start)


def _atom_column(name: str, batch: Batch, frames: Sequence[Atoms], start: int) -> Column:
    spec: ColumnSpec | None = None
    values: AnyArray = np.empty(0)
    present = np.zeros(batch.n_frames, dtype=bool)
    for k, atoms in enumerate(frames):
        if name not in atoms.arrays:
            continue
        array = _plain(atoms.arrays[name])
        where = f"frame {start + k}: arrays[{name!r}]"
        if array is None:
            raise ValueError(f"{where} has dtype {atoms.arrays[name].dtype}; expected bool, int, float or text")
        if name in SCHEMA:
            raise ValueError(
                f"{where} is no label there; put labels into a SinglePointCalculator or under {REF_PREFIX}{name}"
            )
        if spec is None:
            spec = user_spec(name, "atom", array.dtype, array.shape[1:])
            values = spec.empty(batch.n_atoms)
        values[batch.offsets[k] : batch.offsets[k + 1]] = _fit_rows(array, spec, where)
        present[k] = True
    assert spec is not None
    return Column(spec, values, None if present.all() else present)


def _fit_rows(array: AnyArray, spec: ColumnSpec, where: str) -> AnyArray:
    if array.shape[1:] != spec.shape or array.dtype != spec.dtype:
        raise ValueError(
            f"{where} is {array.dtype} of row shape {array.shape[1:]}, but the column holds {spec.kind} of row shape "
            f"{spec.shape}; give it one type and shape in every frame"
        )
    return array
