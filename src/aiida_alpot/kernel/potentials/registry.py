"""Find the adapter of an engine, load potentials, evaluate committees."""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ase import Atoms

from aiida_alpot.kernel.potentials.base import BATCH_SIZE, Potential, Predictions
from aiida_alpot.kernel.settings import unknown_key_message

BUILT_IN: Final = {
    "ase": "aiida_alpot.kernel.potentials.ase_calculator:AsePotential",
    "mace": "aiida_alpot.kernel.potentials.mace:MacePotential",
}
RESOURCE: Final = "adapters.json"
"""Adapters of third parties, a mapping of engine to ``"module:Class"``, put into the kernel archive beside them."""


def adapters() -> dict[str, str]:
    """Return every engine that can be loaded here, with the ``"module:Class"`` of its adapter.

    :raises ValueError: if the adapters of third parties in the kernel archive are malformed, or one takes the name
        of a built-in engine.
    """
    try:
        text = pkgutil.get_data("aiida_alpot.kernel", RESOURCE)
    except OSError:
        # the usual case: nothing but the built-in engines travels with the job
        return dict(BUILT_IN)
    extra = json.loads(text or b"{}")
    if not isinstance(extra, dict) or not all(isinstance(value, str) and ":" in value for value in extra.values()):
        raise ValueError(f"{RESOURCE}: expected a mapping of engine to 'module:Class', got {extra!r}")
    taken = sorted(set(extra) & set(BUILT_IN))
    if taken:
        raise ValueError(f"{RESOURCE}: {', '.join(taken)} is an engine of the kernel itself")
    return BUILT_IN | extra


def load(path: str | Path, engine: str, device: str = "cpu", dtype: str = "float64", **options: Any) -> Potential:
    """Return the potential in a model file.

    :param path: the model file.
    :param engine: the model family, e.g. ``"mace"``.
    :param device: where it is evaluated, e.g. ``"cpu"`` or ``"cuda"``.
    :param dtype: ``"float64"`` or ``"float32"``.
    :param options: further arguments of the adapter, e.g. ``head`` of MACE.
    :raises ValueError: if the engine is unknown (the message lists the known ones) or the file not one of its models.
    :raises MissingPackageError: if the package of the engine is not installed.
    """
    adapter = _adapter(engine)
    potential = adapter(path, device=device, dtype=dtype, **options)
    if not isinstance(potential, Potential):
        raise TypeError(f"the adapter of {engine!r} gives a {type(potential).__name__}, not a Potential")
    return potential


def predict_committee(
    potentials: Sequence[Potential], frames: Sequence[Atoms], batch_size: int = BATCH_SIZE
) -> list[Predictions]:
    """Return the predictions of every member on the same frames, in the order of the members.

    Members of one kind that agree on cutoff, species, heads, dtype and device share their neighbour graphs.
    """
    groups: dict[Any, list[int]] = {}
    for index, potential in enumerate(potentials):
        key = potential.graph_key()
        groups.setdefault(("alone", index) if key is None else (type(potential), key), []).append(index)
    done: dict[int, Predictions] = {}
    for indices in groups.values():
        members = [potentials[index] for index in indices]
        done.update(zip(indices, type(members[0]).predict_members(members, frames, batch_size), strict=True))
    return [done[index] for index in range(len(potentials))]


def feature_member(potentials: Sequence[Potential], kind: str) -> Potential:
    """Return the member whose features a committee goes by: the first that has features of this kind.

    A committee may be of several families, of which some have no features at all.

    :raises ValueError: if no member has any; the message names the engines and the remedy.
    """
    for potential in potentials:
        if kind in potential.feature_kinds:
            return potential
    engines = ", ".join(sorted({potential.engine for potential in potentials})) or "none"
    raise ValueError(
        f"no member of the committee has features of kind {kind!r} (engines: {engines}); take features that need "
        "no potential (calibrate.settings.feature_kind and evaluate.settings.features: soap), do without grades "
        "(feature_kind null) and without distances between features, or add a member that has them"
    )


def _adapter(engine: str) -> Any:
    known = adapters()
    if engine not in known:
        raise ValueError(unknown_key_message(engine, known, f"engines ({', '.join(sorted(known))})"))
    module_name, _, class_name = known[engine].partition(":")
    module = importlib.import_module(module_name)
    if not hasattr(module, class_name):
        raise ValueError(f"the adapter of {engine!r} is not there: {known[engine]}")
    return getattr(module, class_name)
