"""What calculators that run a program are told and asked beside what ASE does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from aiida_alpot.kernel.dataset.code_output import read_pw_moments
from aiida_alpot.kernel.labelling.codes import mend_labels, set_spin

RECORDS = Path(__file__).parents[2] / "engines" / "vasp" / "records"
"""Recorded runs of VASP."""


class Cp2k:
    """Remembers what it was set to."""

    name = "CP2K"

    def __init__(self):
        self.parameters = {}

    def set(self, **parameters):
        self.parameters |= parameters


@pytest.mark.parametrize(
    ("moments", "expected"),
    [
        ([0.0, 0.0], {}),
        ([1.0, 1.0], {"uks": True, "multiplicity": 3}),
        ([-1.0, 0.0], {"uks": True, "multiplicity": 2}),
    ],
)
def test_cp2k_hears_of_the_total_moment(moments, expected):
    calculator = Cp2k()
    set_spin(calculator, Atoms("O2", magmoms=moments))
    assert calculator.parameters == expected


@pytest.mark.parametrize("moments", [[1.0, -1.0], [2.0, -1.0], [0.7, 0.7]])
def test_moments_that_cp2k_would_not_hear_of_are_refused(moments):
    with pytest.raises(ValueError, match="use the label engine cp2k"):
        set_spin(Cp2k(), Atoms("O2", magmoms=moments))


class Vasp:
    """Has run in a folder."""

    name = "vasp"

    def __init__(self, directory):
        self.directory = directory


@pytest.mark.parametrize(
    ("record", "isif", "has_stress"),
    [("silicon_static", 2, True), ("pbe_steps", 3, True), ("silicon_steps", 1, False), ("silicon_steps", 0, False)],
)
def test_a_stress_of_vasp_of_which_the_trace_alone_is_right_is_no_label(tmp_path, record, isif, has_stress):
    text = (RECORDS / record / "out" / "vasprun.xml").read_text()
    if isif == 0:
        text = text.replace('name="ISIF">     1<', 'name="ISIF">     0<')
    assert f'name="ISIF">     {isif}<' in text
    (tmp_path / "vasprun.xml").write_text(text)
    labels = {"energy": -1.0, "forces": np.zeros((2, 3)), "stress": np.ones(6)}
    found = mend_labels(Vasp(str(tmp_path)), labels)
    assert found.keys() == labels.keys() - (set() if has_stress else {"stress"})


@pytest.mark.parametrize(
    "line",
    [
        "     atom:    {}    charge:    2.9894    magn:    {}    constr:    0.0000",
        "     atom   {} (R=0.411)  charge=  2.9894  magn= {}",
    ],
    ids=["6.7", "7.2"],
)
def test_the_last_moments_are_read_whatever_the_version(tmp_path, line):
    first, last = (("0.1000", "0.2000"), ("0.5678", "-0.5678"))
    text = "\n".join(line.format(k, moment) for moments in (first, last) for k, moment in enumerate(moments, start=1))
    (tmp_path / "espresso.pwo").write_text(text)
    np.testing.assert_array_equal(read_pw_moments(tmp_path / "espresso.pwo", 2), [0.5678, -0.5678])
    assert read_pw_moments(tmp_path / "espresso.pwo", 5) is None
