"""The strategies by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from aiida_alpot.kernel.selection.best_first import pick_best_first
from aiida_alpot.kernel.selection.context import Picker
from aiida_alpot.kernel.selection.direct import pick_direct
from aiida_alpot.kernel.selection.fps import pick_farthest
from aiida_alpot.kernel.selection.greedy_diverse import pick_greedy_diverse
from aiida_alpot.kernel.selection.ladder import pick_ladder
from aiida_alpot.kernel.selection.random import pick_random
from aiida_alpot.kernel.selection.threshold import pick_uniform
from aiida_alpot.kernel.selection.top import pick_top
from aiida_alpot.kernel.settings import unknown_key_message


@dataclass(frozen=True)
class Strategy:
    """How rows are chosen, among which candidates, and what that needs.

    :param pool: the flagged candidates or all healthy ones.
    :param needs_features: whether the table has features per frame.
    :param needs_active_set: whether the uncertainty model has an active set, and atoms of candidates can be graded.
    """

    pick: Picker
    pool: Literal["flagged", "healthy"]
    needs_features: bool = False
    needs_active_set: bool = False


STRATEGIES: Final[Mapping[str, Strategy]] = MappingProxyType(
    {
        "threshold": Strategy(pick_uniform, "flagged"),
        "top": Strategy(pick_top, "flagged"),
        "greedy_diverse": Strategy(pick_greedy_diverse, "flagged", needs_features=True),
        "fps": Strategy(pick_farthest, "flagged", needs_features=True),
        "direct": Strategy(pick_direct, "flagged", needs_features=True),
        "ladder": Strategy(pick_ladder, "healthy", needs_active_set=True),
        "best_first": Strategy(pick_best_first, "healthy", needs_active_set=True),
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
