"""Labelling: reference energies, forces and stresses for a whole dataset, with any ASE calculator."""

from __future__ import annotations

from aiida_alpot.kernel.labelling.gate import check_labels
from aiida_alpot.kernel.labelling.pool import CalculatorError
from aiida_alpot.kernel.labelling.runner import LabelReport, label_dataset, partial_pack
from aiida_alpot.kernel.labelling.settings import LabelSettings, label_fingerprint

__all__ = [
    "CalculatorError",
    "LabelReport",
    "LabelSettings",
    "check_labels",
    "label_dataset",
    "label_fingerprint",
    "partial_pack",
]
