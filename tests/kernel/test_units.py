"""Units and Voigt order against ASE."""

import numpy as np
from ase import units as ase_units
from ase.stress import voigt_6_to_full_3x3_stress

from aiida_alpot.kernel.units import FS, GPA, KB, VOIGT, VOIGT_WEIGHTS


def test_units_are_those_of_ase():
    assert (ase_units.fs, ase_units.GPa, ase_units.kB) == (FS, GPA, KB)
    np.testing.assert_allclose(GPA, 1 / 160.21766208, rtol=1e-7)


def test_voigt_order_is_that_of_ase():
    full = voigt_6_to_full_3x3_stress(np.arange(1.0, 7.0))
    assert [full[i, j] for i, j in VOIGT] == [1, 2, 3, 4, 5, 6]


def test_weights_give_the_frobenius_norm():
    stress = np.random.default_rng(0).normal(size=6)
    full = voigt_6_to_full_3x3_stress(stress)
    np.testing.assert_allclose(VOIGT_WEIGHTS @ stress**2, np.sum(full**2), rtol=1e-14)
