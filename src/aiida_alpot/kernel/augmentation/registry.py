"""The manipulations by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal

from aiida_alpot.kernel.augmentation.rattle import RattleSettings, rattle
from aiida_alpot.kernel.augmentation.strain import StrainSettings, strain
from aiida_alpot.kernel.augmentation.supercell import SupercellSettings, make_supercell
from aiida_alpot.kernel.augmentation.vacancy import VacancySettings, make_vacancies

Stage = Literal["source", "shape", "cell", "chain", "defect"]
"""Where a manipulation stands in the flow, and so the signature of its function.

``source``: ``(elements, settings, rng) -> Iterator[Step]``, frames that join the inputs as bases.
``shape``: ``(atoms, settings, rng) -> Iterator[Step]``, further bases from one input.
``cell``: ``(atoms, settings, rng) -> Step``, acts on every base, one to one.
``chain``: ``(atoms, settings, rng) -> Step``, acts on every distorted copy of a base, after those named before it.
``defect``: ``(atoms, settings, rng) -> Step``, acts on one more copy of a share, *settings.fraction*, of the copies.
"""


@dataclass(frozen=True)
class Manipulation:
    """The settings of a manipulation, its function, and its stage, which tells the signature.

    :param is_final: the bases it makes are neither distorted nor given defects, a ``source`` or a ``shape``.
    """

    settings: type[Any]
    function: Callable[..., Any]
    stage: Stage
    is_final: bool = False


MANIPULATIONS: Final[Mapping[str, Manipulation]] = MappingProxyType(
    {
        "supercell": Manipulation(SupercellSettings, make_supercell, "cell"),
        "strain": Manipulation(StrainSettings, strain, "chain"),
        "rattle": Manipulation(RattleSettings, rattle, "chain"),
        "vacancy": Manipulation(VacancySettings, make_vacancies, "defect"),
    }
)
"""In the order in which they are applied: source, shape, cell, chain, defect, and as named within a stage."""


def names_of(stage: Stage) -> list[str]:
    """Return the manipulations of a stage in their order."""
    return [name for name, manipulation in MANIPULATIONS.items() if manipulation.stage == stage]
