"""Remove a few atoms at random sites."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from aiida_alpot.kernel.augmentation.base import NotApplicableError, Step
from aiida_alpot.kernel.defaults import VACANCIES_PER_FRAME, VACANCY_FRACTION


@dataclass(frozen=True)
class VacancySettings:
    """Neutral vacancies, [TrainsPot] Sec. II A 2.

    :param fraction: share of the copies that a frame with vacancies is made from.
    :param per_frame: atoms removed.
    :param max_fraction: largest share of the atoms of a frame that may be removed; small cells lose fewer atoms, and
        none if that leaves none to remove.
    :param molecules: make vacancies in frames without a periodic axis too.
    """

    fraction: float = VACANCY_FRACTION
    per_frame: int = VACANCIES_PER_FRAME
    max_fraction: float = 0.25
    molecules: bool = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.fraction <= 1.0:
            raise ValueError(f"'fraction' must lie in [0, 1], got {self.fraction}")
        if self.per_frame < 1:
            raise ValueError(f"'per_frame' must be at least 1, got {self.per_frame}")
        if not 0.0 < self.max_fraction < 1.0:
            raise ValueError(f"'max_fraction' must lie between 0 and 1, got {self.max_fraction}")


def count_vacancies(atoms: Atoms, settings: VacancySettings) -> int:
    """Return how many atoms may be removed from the frame.

    :raises NotApplicableError: if none may.
    """
    if not settings.molecules and not atoms.pbc.any():
        raise NotApplicableError("no_periodic_axis")
    n_removed = min(settings.per_frame, math.floor(settings.max_fraction * len(atoms) + 1e-9))
    if len(atoms) <= 2 or n_removed == 0:
        raise NotApplicableError("too_few_atoms")
    return n_removed


def make_vacancies(atoms: Atoms, settings: VacancySettings, rng: np.random.Generator) -> Step:
    """Return the frame without some of its atoms; the parameter ``removed`` has their indices in the parent.

    :raises NotApplicableError: if the frame is too small, or a molecule.
    """
    n_removed = count_vacancies(atoms, settings)
    defective = atoms.copy()
    removed = np.sort(rng.choice(len(atoms), size=n_removed, replace=False)).tolist()
    del defective[removed]
    return Step(defective, f"vacancy {n_removed}", {"removed": removed})
