"""The elastic constants of the silicon example, on a potential for which they were published."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from aiida_alpot.kernel.potentials import Predictions, reference_predictions

FOLDER = Path(__file__).parents[2] / "examples" / "silicon_dft"


@pytest.fixture
def properties(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of the example, which is not installed."""
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("properties")


def stillinger_weber(frames: Sequence[Atoms]) -> Predictions:
    manybody = pytest.importorskip("matscipy.calculators.manybody")
    forms = pytest.importorskip("matscipy.calculators.manybody.explicit_forms.stillinger_weber")
    labelled = []
    for atoms in frames:
        copy = atoms.copy()
        copy.calc = manybody.Manybody(**forms.StillingerWeber(forms.Stillinger_Weber_PRB_31_5262_Si))
        results = {"energy": copy.get_potential_energy(), "forces": copy.get_forces(), "stress": copy.get_stress()}
        copy.calc = SinglePointCalculator(copy, **results)
        labelled.append(copy)
    return reference_predictions(labelled)


@pytest.mark.parametrize("lattice_constant", [5.38, 5.431, 5.48])
def test_stillinger_weber_has_its_published_constants(properties: Any, lattice_constant: float) -> None:
    """E. R. Cowley, Phys. Rev. Lett. 60, 2379 (1988), in GPa."""
    found = properties.compute_properties(stillinger_weber, "Si", lattice_constant)
    np.testing.assert_allclose([found.c11, found.c12, found.c44], [151.4, 76.4, 56.4], rtol=0.005)
    assert found.a0 == pytest.approx(5.431, abs=0.001)
    assert found.b0 == pytest.approx((found.c11 + 2 * found.c12) / 3, rel=0.01)
    assert found.c44_clamped == pytest.approx(109.7, rel=0.005)
    assert found.zeta == pytest.approx(0.63, abs=0.005)
