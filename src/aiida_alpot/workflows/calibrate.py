"""CalibrationWorkChain: error bars for a committee."""

from __future__ import annotations

from aiida_alpot.calculations.calibrate import CalibrateCalculation
from aiida_alpot.workflows.base import SingleJobWorkChain


class CalibrationWorkChain(SingleJobWorkChain):
    """Fits disagreement against error on held-out frames and builds active sets."""

    STAGE = "calibrate"
    CALCULATION = CalibrateCalculation
    INPUTS = ("potentials", "dataset", "test_frames", "previous", "settings")
    OUTPUTS = ("uncertainty", "report")
