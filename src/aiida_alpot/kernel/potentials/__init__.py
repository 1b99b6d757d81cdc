"""Potentials: one adapter per model family behind one contract, :class:`~.base.Potential`."""

from __future__ import annotations

from aiida_alpot.kernel.potentials.base import (
    BATCH_SIZE,
    Features,
    Potential,
    PotentialCalculator,
    Predictions,
    check_species,
    concatenate,
    concatenate_features,
    has_stress,
    offsets_of,
    reference_predictions,
    voigt_stress,
)
from aiida_alpot.kernel.potentials.calculators import CalculatorSpec, build_calculator
from aiida_alpot.kernel.potentials.finite_difference import finite_difference_check
from aiida_alpot.kernel.potentials.registry import adapters, feature_member, load, predict_committee

__all__ = [
    "BATCH_SIZE",
    "CalculatorSpec",
    "Features",
    "Potential",
    "PotentialCalculator",
    "Predictions",
    "adapters",
    "build_calculator",
    "check_species",
    "concatenate",
    "concatenate_features",
    "feature_member",
    "finite_difference_check",
    "has_stress",
    "load",
    "offsets_of",
    "predict_committee",
    "reference_predictions",
    "voigt_stress",
]
