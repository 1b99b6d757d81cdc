"""The manipulations by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np
from ase import Atoms

from aiida_alpot.kernel.augmentation.alloy import AlloySettings, alloy, design_compositions
from aiida_alpot.kernel.augmentation.base import Outcome
from aiida_alpot.kernel.augmentation.cluster import ClusterSettings, make_clusters
from aiida_alpot.kernel.augmentation.copies import Copies
from aiida_alpot.kernel.augmentation.interstitial import InterstitialSettings, make_interstitials
from aiida_alpot.kernel.augmentation.isolated import IsolatedSettings, make_isolated
from aiida_alpot.kernel.augmentation.prototype import (
    DecorateSettings,
    PrototypeSettings,
    decorate,
    make_prototypes,
)
from aiida_alpot.kernel.augmentation.random_crystal import RandomSettings, make_random_crystals
from aiida_alpot.kernel.augmentation.rattle import RattleSettings, rattle, rattle_copies
from aiida_alpot.kernel.augmentation.scan import ScanSettings, make_scans
from aiida_alpot.kernel.augmentation.slab import SlabSettings, make_slabs
from aiida_alpot.kernel.augmentation.stacking_fault import StackingFaultSettings, make_stacking_faults
from aiida_alpot.kernel.augmentation.strain import StrainSettings, design_strains, strain, strain_copies
from aiida_alpot.kernel.augmentation.substitution import SubstitutionSettings, substitute
from aiida_alpot.kernel.augmentation.supercell import SupercellSettings, make_supercell
from aiida_alpot.kernel.augmentation.swap import SwapSettings, swap
from aiida_alpot.kernel.augmentation.twin import TwinSettings, make_twins
from aiida_alpot.kernel.augmentation.vacancy import VacancySettings, make_vacancies
from aiida_alpot.kernel.augmentation.vacuum import VacuumSettings, make_vacuum
from aiida_alpot.kernel.units import FloatArray

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

    :param is_final: of a ``source`` or a ``shape``: the bases it makes are neither distorted nor given defects.
    :param is_repeated: of a ``shape``: the bases it makes are primitive cells, repeated as inputs and sources are.
    :param many: of the ``chain``: the same for many copies at once that differ in species only.
    :param design: what is drawn for all copies of a base together, one row each; the function has a row as one more
        argument.
    :param takes_energy: the function has one more argument, the energy of a potential; ``None`` unless the
        ``needs_energy`` of its settings is true.
    """

    settings: type[Any]
    function: Callable[..., Any]
    stage: Stage
    is_final: bool = False
    is_repeated: bool = False
    many: Callable[[Copies, Any, Sequence[np.random.Generator], FloatArray | None], list[Outcome]] | None = None
    design: Callable[[Atoms, Any, int, np.random.Generator], FloatArray | None] | None = None
    takes_energy: bool = False


MANIPULATIONS: Final[Mapping[str, Manipulation]] = MappingProxyType(
    {
        "isolated": Manipulation(IsolatedSettings, make_isolated, "source", is_final=True),
        "cluster": Manipulation(ClusterSettings, make_clusters, "source"),
        "prototype": Manipulation(PrototypeSettings, make_prototypes, "source", takes_energy=True),
        "random": Manipulation(RandomSettings, make_random_crystals, "source", takes_energy=True),
        "decorate": Manipulation(DecorateSettings, decorate, "shape", is_repeated=True, takes_energy=True),
        "slab": Manipulation(SlabSettings, make_slabs, "shape"),
        "stacking_fault": Manipulation(StackingFaultSettings, make_stacking_faults, "shape"),
        "twin": Manipulation(TwinSettings, make_twins, "shape"),
        "scan": Manipulation(ScanSettings, make_scans, "shape", is_final=True),
        "vacuum": Manipulation(VacuumSettings, make_vacuum, "cell"),
        "supercell": Manipulation(SupercellSettings, make_supercell, "cell"),
        "alloy": Manipulation(AlloySettings, alloy, "chain", design=design_compositions),
        "swap": Manipulation(SwapSettings, swap, "chain", takes_energy=True),
        "strain": Manipulation(StrainSettings, strain, "chain", many=strain_copies, design=design_strains),
        "rattle": Manipulation(RattleSettings, rattle, "chain", many=rattle_copies),
        "vacancy": Manipulation(VacancySettings, make_vacancies, "defect"),
        "interstitial": Manipulation(InterstitialSettings, make_interstitials, "defect"),
        "substitution": Manipulation(SubstitutionSettings, substitute, "defect"),
    }
)
"""In the order in which they are applied: source, shape, cell, chain, defect, and as named within a stage."""


def names_of(stage: Stage) -> list[str]:
    """Return the manipulations of a stage in their order."""
    return [name for name, manipulation in MANIPULATIONS.items() if manipulation.stage == stage]


def find_asking(settings: Any) -> list[str]:
    """Return the manipulations that are switched on and ask a potential for energies.

    :param settings: :class:`~aiida_alpot.kernel.augmentation.settings.AugmentSettings`.
    """
    candidates = [name for name, manipulation in MANIPULATIONS.items() if manipulation.takes_energy]
    return [name for name in candidates if getattr(getattr(settings, name), "needs_energy", False)]


def check_potential(settings: Any, *, is_given: bool, remedy: str) -> None:
    """Refuse manipulations that lack their potential, and a potential that nothing asks.

    :param settings: as in :func:`find_asking`.
    :param remedy: how a potential is given.
    :raises ValueError: naming the manipulations.
    """
    asking = find_asking(settings)
    if asking and not is_given:
        raise ValueError(f"{', '.join(asking)}: the energies of a potential are needed, got none; {remedy}")
    if is_given and not asking:
        candidates = ", ".join(name for name, manipulation in MANIPULATIONS.items() if manipulation.takes_energy)
        raise ValueError(
            f"potentials are given and no manipulation asks them: switch one on ({candidates}; all but swap with "
            "'volume: potential'), or leave them out"
        )
