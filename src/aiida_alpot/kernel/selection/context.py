"""What a strategy is given beside the table of candidates, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from aiida_alpot.kernel.potentials.base import Features
from aiida_alpot.kernel.selection.flags import Limit
from aiida_alpot.kernel.selection.table import CandidateTable
from aiida_alpot.kernel.uncertainty.active_set import ActiveSet
from aiida_alpot.kernel.uncertainty.local import LocalActiveSet
from aiida_alpot.kernel.units import FloatArray, IntArray

AtomFeatures: TypeAlias = Callable[[IntArray], Features]
"""Returns the per-atom features of the candidates at some rows; ``frame_index`` counts these rows from 0."""


@dataclass(frozen=True, eq=False)
class PickContext:
    """What a strategy may use; each uses what it needs.

    :param limits: limit of the disagreement per property, and of the ``grade``, where there is one: a number, or
        one for each row of the table.
    :param reference: features of the training frames, like those of the table, shape (n_reference, n_features).
    :param active_set: active set of the training atoms; a strategy that takes atoms in works on a copy.
    :param atom_features: per-atom features of candidates, of the kind that the active set was built with.
    """

    limits: Mapping[str, Limit] = field(default_factory=dict)
    reference: FloatArray | None = None
    active_set: ActiveSet | LocalActiveSet | None = None
    atom_features: AtomFeatures | None = None


@dataclass(frozen=True, eq=False)
class Picks:
    """What a strategy chose.

    :param rows: rows of the table in the order of choice, shape (n_picked,).
    :param reasons: why, for the rows of which the strategy has more to say than its name.
    """

    rows: IntArray
    reasons: Mapping[int, str] = field(default_factory=dict)


Picker: TypeAlias = Callable[[CandidateTable, IntArray, int, np.random.Generator, PickContext], Picks]
"""Chooses at most so many of the rows of the pool, with a generator of random numbers that is its own."""
