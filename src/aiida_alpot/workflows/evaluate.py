"""EvaluationWorkChain: which candidates are worth a label."""

from __future__ import annotations

from aiida_alpot.calculations.evaluate import EvaluateCalculation
from aiida_alpot.workflows.base import SingleJobWorkChain


class EvaluationWorkChain(SingleJobWorkChain):
    """Evaluates the committee on all candidates and selects within a budget."""

    STAGE = "evaluate"
    CALCULATION = EvaluateCalculation
    INPUTS = ("potentials", "uncertainty", "candidates", "dataset", "settings", "seed")
    OUTPUTS = ("selected", "table", "report")
