"""The manipulations by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from aiida_alpot.kernel.augmentation.base import Step
from aiida_alpot.kernel.augmentation.rattle import RattleSettings, rattle
from aiida_alpot.kernel.augmentation.strain import StrainSettings, strain
from aiida_alpot.kernel.augmentation.supercell import SupercellSettings, make_supercell
from aiida_alpot.kernel.augmentation.vacancy import VacancySettings, make_vacancies


@dataclass(frozen=True)
class Manipulation:
    """The settings of a manipulation and its function ``(atoms, settings, rng) -> Step``."""

    settings: type[Any]
    function: Callable[..., Step]


MANIPULATIONS: Final[Mapping[str, Manipulation]] = MappingProxyType(
    {
        "supercell": Manipulation(SupercellSettings, make_supercell),
        "strain": Manipulation(StrainSettings, strain),
        "rattle": Manipulation(RattleSettings, rattle),
        "vacancy": Manipulation(VacancySettings, make_vacancies),
    }
)
"""In the order in which they are applied."""
