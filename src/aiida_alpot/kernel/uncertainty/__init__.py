"""Uncertainty of a committee: disagreement, calibrated error, extrapolation grade."""

from __future__ import annotations

from aiida_alpot.kernel.uncertainty.active_set import OUT_OF_SPAN, ActiveSet, compute_frame_grade
from aiida_alpot.kernel.uncertainty.calibration import Calibration
from aiida_alpot.kernel.uncertainty.committee import (
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
from aiida_alpot.kernel.uncertainty.criteria import (
    QUERY_THRESHOLDS,
    assign_thresholds,
    compute_adaptive_thresholds,
    compute_query_flags,
    rate_by_element,
)
from aiida_alpot.kernel.uncertainty.failures import describe_failures, find_failures
from aiida_alpot.kernel.uncertainty.frame_clusters import FrameClusters, FrameClusterSettings, mean_over_atoms
from aiida_alpot.kernel.uncertainty.local import ClusterSettings, LocalActiveSet
from aiida_alpot.kernel.uncertainty.maxvol import MaxvolResult
from aiida_alpot.kernel.uncertainty.model import UncertaintyModel
from aiida_alpot.kernel.uncertainty.rates import compute_ppv, compute_tpr, report_rates
from aiida_alpot.kernel.units import PROPERTIES

__all__ = [
    "OUT_OF_SPAN",
    "PROPERTIES",
    "QUERY_THRESHOLDS",
    "ActiveSet",
    "Calibration",
    "ClusterSettings",
    "Disagreement",
    "Error",
    "FrameClusterSettings",
    "FrameClusters",
    "LocalActiveSet",
    "MaxvolResult",
    "UncertaintyModel",
    "assign_thresholds",
    "compute_abf",
    "compute_adaptive_threshold",
    "compute_adaptive_thresholds",
    "compute_cbe",
    "compute_cbf",
    "compute_frame_grade",
    "compute_ppv",
    "compute_query_flags",
    "compute_tpr",
    "describe_failures",
    "disagreement",
    "error",
    "find_failures",
    "mean_over_atoms",
    "mean_prediction",
    "rate_by_element",
    "report_rates",
]
