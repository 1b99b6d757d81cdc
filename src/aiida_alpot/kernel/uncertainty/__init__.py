"""Uncertainty of a committee: disagreement, calibrated error, extrapolation grade."""

from __future__ import annotations

from aiida_alpot.kernel.uncertainty.active_set import ActiveSet, compute_frame_grade
from aiida_alpot.kernel.uncertainty.calibration import Calibration
from aiida_alpot.kernel.uncertainty.committee import (
    PROPERTIES,
    Disagreement,
    Error,
    compute_abf,
    compute_adaptive_threshold,
    compute_cbe,
    compute_cbf,
    disagreement,
    error,
    mean_prediction,
)
from aiida_alpot.kernel.uncertainty.local import LocalActiveSet
from aiida_alpot.kernel.uncertainty.maxvol import MaxvolResult
from aiida_alpot.kernel.uncertainty.model import UncertaintyModel
from aiida_alpot.kernel.uncertainty.rates import compute_ppv, compute_tpr, report_rates

__all__ = [
    "PROPERTIES",
    "ActiveSet",
    "Calibration",
    "Disagreement",
    "Error",
    "LocalActiveSet",
    "MaxvolResult",
    "UncertaintyModel",
    "compute_abf",
    "compute_adaptive_threshold",
    "compute_cbe",
    "compute_cbf",
    "compute_frame_grade",
    "compute_ppv",
    "compute_tpr",
    "disagreement",
    "error",
    "mean_prediction",
    "report_rates",
]
