"""Single atoms, whose energies are the zero of cohesive energies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from ase import Atoms

from aiida_alpot.kernel.augmentation.base import Step
from aiida_alpot.kernel.augmentation.species import check_symbols

ISOLATED_ATOM: Final = "IsolatedAtom"
"""``config_type`` of isolated atoms in other programs. Here they are recognised by having one atom and no periodic
axis."""


@dataclass(frozen=True)
class IsolatedSettings:
    """Which elements are made into isolated atoms, [TrainsPot] Sec. II A 2.

    :param elements: those of all inputs if omitted.
    """

    elements: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.elements is not None:
            check_symbols("elements", self.elements)
            if not self.elements:
                raise ValueError("'elements' must name an element, got none; omit it for those of the inputs")


def make_isolated(
    elements: Sequence[str], settings: IsolatedSettings, rng: np.random.Generator | None = None
) -> Iterator[Step]:
    """Yield one frame per element: the atom at the origin, not periodic, without a cell.

    Neither a moment is given, since labelling starts an isolated atom by Hund's rule, nor a box: that of ``vacuum``, or
    the one that an engine needs.

    :param rng: not used, nothing is random here.
    """
    del rng
    for symbol in settings.elements or elements:
        atom = Atoms(symbol, info={"config_type": ISOLATED_ATOM})
        yield Step(atom, f"isolated {symbol}", {"element": symbol})
