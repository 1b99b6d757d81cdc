"""AugmentWorkChain: more frames from a few."""

from __future__ import annotations

from aiida_alpot.calculations.augment import AugmentCalculation
from aiida_alpot.workflows.base import SingleJobWorkChain


class AugmentWorkChain(SingleJobWorkChain):
    """Makes supercells, strained, rattled and defective frames from given ones."""

    STAGE = "augment"
    CALCULATION = AugmentCalculation
    INPUTS = ("frames", "settings", "seed", "potentials")
    OUTPUTS = ("frames", "report")
