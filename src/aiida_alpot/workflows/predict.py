"""PredictionWorkChain: what a committee says of frames, with error bars."""

from __future__ import annotations

from aiida_alpot.calculations.predict import PredictCalculation
from aiida_alpot.workflows.base import SingleJobWorkChain


class PredictionWorkChain(SingleJobWorkChain):
    """Evaluates a committee on frames, with calibrated errors, conformal radii and extrapolation grades."""

    STAGE = "predict"
    CALCULATION = PredictCalculation
    INPUTS = ("potentials", "uncertainty", "frames", "settings")
    OUTPUTS = ("predicted", "report")
