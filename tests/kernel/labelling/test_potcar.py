"""The head of a POTCAR: the potentials themselves may not be distributed."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiida_alpot.kernel.labelling.potcar import read_valence

STUB = Path(__file__).parents[2] / "engines" / "vasp" / "potcar" / "Si" / "POTCAR"


def test_the_number_of_valence_electrons_stands_behind_the_mass() -> None:
    assert read_valence(STUB.read_text()) == 1.111
    assert read_valence("   POMASS =   55.847; ZVAL   =   14.000    mass and valenz\n") == 14.0


def test_a_file_without_it_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no ZVAL in the POTCAR"):
        read_valence("PAW_PBE Si\n ZVAL = ****\n")
