"""The strategies by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

import numpy as np

from aiida_alpot.kernel.selection.fps import pick_farthest
from aiida_alpot.kernel.selection.greedy_diverse import pick_greedy_diverse
from aiida_alpot.kernel.selection.random import pick_random
from aiida_alpot.kernel.selection.table import CandidateTable
from aiida_alpot.kernel.selection.threshold import pick_uniform
from aiida_alpot.kernel.settings import unknown_key_message
from aiida_alpot.kernel.units import FloatArray, IntArray

Picker = Callable[[CandidateTable, IntArray, int, np.random.Generator, FloatArray | None], IntArray]


@dataclass(frozen=True)
class Strategy:
    """How rows are chosen, and among which candidates: the flagged ones or all healthy ones."""

    pick: Picker
    pool: Literal["flagged", "healthy"]


STRATEGIES: Final[Mapping[str, Strategy]] = MappingProxyType(
    {
        "threshold": Strategy(pick_uniform, "flagged"),
        "greedy_diverse": Strategy(pick_greedy_diverse, "flagged"),
        "fps": Strategy(pick_farthest, "flagged"),
        "random": Strategy(pick_random, "healthy"),
    }
)


def get_strategy(name: str) -> Strategy:
    """Return the strategy called *name*.

    :raises ValueError: if there is none; the message names the nearest one.
    """
    if name not in STRATEGIES:
        raise ValueError(unknown_key_message(name, STRATEGIES, "strategy"))
    return STRATEGIES[name]
