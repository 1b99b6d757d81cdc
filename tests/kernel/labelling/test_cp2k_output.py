"""What CP2K prints, in the formats of several releases."""

from __future__ import annotations

import numpy as np
import pytest
from ase.units import Bohr, GPa, Hartree

from aiida_alpot.kernel.labelling.cp2k_output import find_abort, parse_cp2k_output

COORDINATES = """
 MODULE QUICKSTEP: ATOMIC COORDINATES IN ANGSTROM

   Atom Kind Element         X             Y             Z       Z(eff)     Mass
      1    1 Fe   26      0.000000      0.500000      1.000000  16.0000  55.8450
      2    2 O     8      0.000000      0.500000     -1.000000   6.0000  15.9994
"""
CONVERGED = """
  *** SCF run converged in     9 steps ***
"""
MULLIKEN = """
                     Mulliken Population Analysis

 #  Atom  Element  Kind  Atomic population (alpha,beta) Net charge  Spin moment
       1     Fe       1          8.500000    6.500000     1.000000    2.000000
       2     O        2          3.500000    3.500000    -1.000000    0.000000
 # Total charge and spin        12.000000   10.000000     0.000000    2.000000
"""
OLD = """
 ENERGY| Total FORCE_EVAL ( QS ) energy [a.u.]:               -10.500000000000000

 ATOMIC FORCES in [a.u.]

 # Atom   Kind   Element          X              Y              Z
      1      1      Fe          0.00000000     0.10000000    -0.20000000
      2      2      O           0.00000000    -0.10000000     0.20000000
 SUM OF ATOMIC FORCES           0.00000000     0.00000000     0.00000000     0.00000000

 STRESS| Analytical stress tensor [GPa]
 STRESS|                        x                   y                   z
 STRESS|      x        1.00000000000E+00   0.60000000000E+01   0.50000000000E+01
 STRESS|      y        0.60000000000E+01   2.00000000000E+00   0.40000000000E+01
 STRESS|      z        0.50000000000E+01   0.40000000000E+01   3.00000000000E+00
 STRESS| 1/3 Trace                                             2.00000000000E+00
"""
NEW = """
 ENERGY| Total FORCE_EVAL ( QS ) energy [hartree]             -10.500000000000000

 FORCES| Atomic forces [hartree/bohr]
 FORCES|   Atom     x               y               z               |f|
 FORCES|      1  0.00000000E+00  1.00000000E-01 -2.00000000E-01   2.23606798E-01
 FORCES|      2  0.00000000E+00 -1.00000000E-01  2.00000000E-01   2.23606798E-01
 FORCES| Sum     0.00000000E+00  0.00000000E+00  0.00000000E+00   0.00000000E+00
 FORCES| Total atomic force                                       0.00000000E+00

 STRESS| Analytical stress tensor [bar]
 STRESS|                        x                   y                   z
 STRESS|      x        1.00000000000E+04   6.00000000000E+04   5.00000000000E+04
 STRESS|      y        6.00000000000E+04   2.00000000000E+04   4.00000000000E+04
 STRESS|      z        5.00000000000E+04   4.00000000000E+04   3.00000000000E+04
 STRESS| 1/3 Trace                                             2.00000000000E+04
"""
TIMING = """
 CP2K                                 1  1.0    0.018    0.018    3.250    3.250
"""


@pytest.mark.parametrize("printed", [OLD, NEW], ids=["2023", "2025"])
def test_labels_are_in_the_units_and_signs_of_ase(printed: str) -> None:
    found = parse_cp2k_output(COORDINATES + CONVERGED + MULLIKEN + printed + TIMING)
    assert found.symbols == ["Fe", "O"]
    np.testing.assert_allclose(found.positions, [[0, 0.5, 1], [0, 0.5, -1]])
    assert found.energy == pytest.approx(-10.5 * Hartree)
    np.testing.assert_allclose(found.forces, np.array([[0, 0.1, -0.2], [0, -0.1, 0.2]]) * Hartree / Bohr)
    np.testing.assert_allclose(found.stress, -np.arange(1, 7) * GPa)
    np.testing.assert_allclose(found.magmoms, [2, 0])
    assert found.cost == 3.25


def test_what_is_not_printed_is_none() -> None:
    found = parse_cp2k_output(COORDINATES + CONVERGED + OLD[: OLD.index(" STRESS")])
    assert found.stress is None
    assert found.magmoms is None
    assert np.isnan(found.cost)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "no coordinates, energy and forces"),
        (COORDINATES + OLD.replace("ENERGY|", ""), "no coordinates, energy and forces"),
        (
            COORDINATES + OLD.replace("-0.10000000     0.20000000", "************** 0.20000000"),
            "forces for 1 of 2 atoms",
        ),
        (COORDINATES + OLD.replace("[GPa]", "[furlong]"), "stress in furlong"),
        (
            COORDINATES + NEW.replace("6.00000000000E+04   2.0", "****************   2.0"),
            "1 readable rows of the stress",
        ),
        (COORDINATES + " *** WARNING in qs_scf.F:1 :: SCF run NOT converged ***" + OLD, "did not converge"),
        (COORDINATES + "Fermi-Dirac smearing includes the last MO => Add more MOs" + OLD, "raise ADDED_MOS"),
    ],
)
def test_an_output_that_holds_no_label_says_why(text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        parse_cp2k_output(text)


def test_the_last_words_of_cp2k_are_found_without_the_picture() -> None:
    text = """
 *******************************************************************************
 *   ___                                                                       *
 *  /   \\                                                                      *
 * [ABORT]                                                                     *
 *  \\___/   The requested basis set <X> for element <H> was not found in the   *
 *    |                   basis set files <BASIS_MOLOPT>                       *
 *  O/|                                                                        *
 * /| |                                                                        *
 * / \\                                                    basis_set_types.F:1509 *
 *******************************************************************************
"""
    words = "The requested basis set <X> for element <H> was not found in the basis set files <BASIS_MOLOPT>"
    assert find_abort(text) == f"{words} basis_set_types.F:1509"
    assert find_abort("nothing") == ""
    assert "did not converge" in find_abort("*** SCF run NOT converged ***")
