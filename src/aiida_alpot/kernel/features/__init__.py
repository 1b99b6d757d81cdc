"""Features of atoms, whoever computes them: the potential, SOAP without any potential, or a function of the user.

A room of its own between ``potentials``, which know the kinds of their own engine, and everything that needs features
(active sets, distances, grades on the fly): those ask a :class:`FeatureSpec` and never a potential.
"""

from __future__ import annotations

from aiida_alpot.kernel.features.rows import FeatureFunction
from aiida_alpot.kernel.features.soap import SoapSettings
from aiida_alpot.kernel.features.spec import SORTED_DISTANCES, FeatureSpec

__all__ = ["SORTED_DISTANCES", "FeatureFunction", "FeatureSpec", "SoapSettings"]
