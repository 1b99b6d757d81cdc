"""What all manipulations share: the result of one step, the reason for none, and clean children."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator

BOOKKEEPING = frozenset(
    {"split", "group", "origin", "iteration", "parent", "cost", "status", "reason", "fingerprint"}
    | {"parent_index", "parent_id", "parameters"}
)
"""Columns of a parent that say nothing true about a child."""

_LABEL = re.compile(
    r"(.*[_-])?(energy|energies|free_energy|forces?|stress|stresses|virials?|magmoms?|dipole|polarizability|momenta)",
    re.IGNORECASE,
)
_PLAIN = (str, bool, int, float, list, tuple, np.generic, np.ndarray)
_KEPT = frozenset({"initial_magmoms"})


Energy: TypeAlias = Callable[[Atoms], float] | BaseCalculator
"""The total energy of a frame, eV: a function, or an ASE calculator."""


class Step(NamedTuple):
    """A manipulated frame, the words that its origin gets, and what was drawn for it.

    :ivar parameters: numbers, text and lists of them, as JSON can hold them: a strain tensor, Miller indices, a shift.
    """

    atoms: Atoms
    text: str
    parameters: Mapping[str, Any] = MappingProxyType({})


class Done(NamedTuple):
    """What a manipulation says of a copy that it has changed, see :class:`Step`."""

    text: str
    parameters: Mapping[str, Any] = MappingProxyType({})


class NotApplicableError(ValueError):
    """A manipulation has no meaning for this frame, which is left as it was; the message is a short code."""


class DroppedFrameError(ValueError):
    """No acceptable frame was found within the number of tries; the message is a short code."""


Outcome = Done | NotApplicableError | DroppedFrameError
"""What became of one of many copies."""

Made = Step | NotApplicableError | DroppedFrameError
"""What a ``source`` or a ``shape`` yields: a frame, or the reason why there is none in its place."""


def clean_child(atoms: Atoms) -> Atoms:
    """Return a copy without calculator, constraints, labels, velocities and book-keeping of the parent.

    Constraints go because a constrained atom would be labelled with a force of zero, and objects that are no column
    (e.g. the ``spacegroup`` of a CIF file, which the child breaks). User columns, ``charge``, ``weight``,
    ``config_type`` and initial magnetic moments stay.
    """
    child = atoms.copy()
    child.calc = None
    child.set_constraint()
    child.info = {
        key: value
        for key, value in child.info.items()
        if isinstance(value, _PLAIN) and key not in BOOKKEEPING and not _is_label(key)
    }
    for key in [key for key in child.arrays if _is_label(key)]:
        del child.arrays[key]
    return child


def copy_info(atoms: Atoms) -> dict[str, Any]:
    """Return the entries of ``info``, plain values, for another frame."""
    return {key: value.copy() if hasattr(value, "copy") else value for key, value in atoms.info.items()}


def _is_label(key: object) -> bool:
    return isinstance(key, str) and key not in _KEPT and _LABEL.fullmatch(key) is not None


def energy_function(energy: Energy) -> Callable[[Atoms], float]:
    """Return a function of a frame that gives its energy, eV."""
    if callable(energy):
        return lambda atoms: float(energy(atoms))
    return lambda atoms: float(energy.get_potential_energy(atoms))
