"""Manipulations that make an initial dataset of a few structures: one per file, all seeded, one registry."""

from aiida_alpot.kernel.augmentation.base import DroppedFrameError, Energy, NotApplicableError, Step
from aiida_alpot.kernel.augmentation.filters import FilterSettings
from aiida_alpot.kernel.augmentation.pipeline import AugmentResult, augment, stream_augmented
from aiida_alpot.kernel.augmentation.rattle import RattleSettings, draw_displacements, rattle
from aiida_alpot.kernel.augmentation.registry import MANIPULATIONS, Manipulation, Stage, check_potential, find_asking
from aiida_alpot.kernel.augmentation.report import Report
from aiida_alpot.kernel.augmentation.settings import AugmentSettings
from aiida_alpot.kernel.augmentation.strain import StrainSettings, apply_stretch, draw_stretch, strain
from aiida_alpot.kernel.augmentation.supercell import SupercellSettings, make_supercell, supercell_repeats
from aiida_alpot.kernel.augmentation.swap import SwapSettings, swap
from aiida_alpot.kernel.augmentation.vacancy import VacancySettings, make_vacancies

__all__ = [
    "MANIPULATIONS",
    "AugmentResult",
    "AugmentSettings",
    "DroppedFrameError",
    "Energy",
    "FilterSettings",
    "Manipulation",
    "NotApplicableError",
    "RattleSettings",
    "Report",
    "Stage",
    "Step",
    "StrainSettings",
    "SupercellSettings",
    "SwapSettings",
    "VacancySettings",
    "apply_stretch",
    "augment",
    "check_potential",
    "draw_displacements",
    "draw_stretch",
    "find_asking",
    "make_supercell",
    "make_vacancies",
    "rattle",
    "strain",
    "stream_augmented",
    "supercell_repeats",
    "swap",
]
