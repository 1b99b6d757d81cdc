"""What is made of the input frames: the settings of all manipulations together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from aiida_alpot.kernel.augmentation.alloy import AlloySettings
from aiida_alpot.kernel.augmentation.cluster import ClusterSettings
from aiida_alpot.kernel.augmentation.filters import FilterSettings
from aiida_alpot.kernel.augmentation.interstitial import InterstitialSettings
from aiida_alpot.kernel.augmentation.isolated import IsolatedSettings
from aiida_alpot.kernel.augmentation.prototype import DecorateSettings, PrototypeSettings
from aiida_alpot.kernel.augmentation.random_crystal import RandomSettings
from aiida_alpot.kernel.augmentation.rattle import RattleSettings
from aiida_alpot.kernel.augmentation.scan import ScanSettings
from aiida_alpot.kernel.augmentation.slab import SlabSettings
from aiida_alpot.kernel.augmentation.stacking_fault import StackingFaultSettings
from aiida_alpot.kernel.augmentation.strain import StrainSettings
from aiida_alpot.kernel.augmentation.substitution import SubstitutionSettings
from aiida_alpot.kernel.augmentation.supercell import SupercellSettings
from aiida_alpot.kernel.augmentation.swap import SwapSettings
from aiida_alpot.kernel.augmentation.twin import TwinSettings
from aiida_alpot.kernel.augmentation.vacancy import VacancySettings
from aiida_alpot.kernel.augmentation.vacuum import VacuumSettings

MAX_COPIES: Final = 100_000
"""Most distorted copies of one frame: each is to be labelled."""


@dataclass(frozen=True)
class AugmentSettings:
    """What is made of the input frames; a manipulation is switched on by giving its settings.

    :param keep_input: keep the undistorted input (its supercell if there is one).
    :param copies: distorted copies of every input, and of every frame that is cut from one or made of the elements;
        20 make about a thousand of the 48 inputs in [TrainsPot].
    :param combined: apply strain and rattle to the same copy; otherwise each has its own *copies*.
    :param device: where the potentials are evaluated, for those that ask for energies: ``cpu`` or ``cuda``.
    :param filters: which of the frames made are left out; without it exact duplicates alone.
    """

    keep_input: bool = True
    copies: int = 20
    combined: bool = True
    isolated: IsolatedSettings | None = None
    cluster: ClusterSettings | None = None
    prototype: PrototypeSettings | None = None
    random: RandomSettings | None = None
    decorate: DecorateSettings | None = None
    slab: SlabSettings | None = None
    stacking_fault: StackingFaultSettings | None = None
    twin: TwinSettings | None = None
    scan: ScanSettings | None = None
    vacuum: VacuumSettings | None = None
    supercell: SupercellSettings | None = None
    alloy: AlloySettings | None = None
    swap: SwapSettings | None = None
    strain: StrainSettings | None = None
    rattle: RattleSettings | None = None
    vacancy: VacancySettings | None = None
    interstitial: InterstitialSettings | None = None
    substitution: SubstitutionSettings | None = None
    device: str = "cpu"
    filters: FilterSettings | None = None

    def __post_init__(self) -> None:
        if self.copies < 0:
            raise ValueError(f"'copies' must not be negative, got {self.copies}")
        if self.copies > MAX_COPIES:
            raise ValueError(f"'copies' must be at most {MAX_COPIES} of each input frame, got {self.copies}")
