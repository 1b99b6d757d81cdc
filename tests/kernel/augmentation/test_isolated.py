"""Isolated atoms: one per element, as labelling and training recognise them."""

import json

import numpy as np
import pytest
from ase.build import bulk, molecule

from aiida_alpot.kernel.augmentation import augment
from aiida_alpot.kernel.augmentation.isolated import IsolatedSettings, make_isolated
from aiida_alpot.kernel.labelling import boxes
from aiida_alpot.kernel.training import mace


def test_one_atom_per_element_without_cell_or_images():
    atoms = [step.atoms for step in make_isolated(["H", "Fe"], IsolatedSettings())]
    assert [str(atom.symbols) for atom in atoms] == ["H", "Fe"]
    for atom in atoms:
        assert atom.positions.tolist() == [[0.0, 0.0, 0.0]]
        assert not atom.pbc.any()
        assert not atom.cell.array.any()
        assert atom.info == {"config_type": "IsolatedAtom"}


def test_given_elements_win_over_those_of_the_inputs():
    (step,) = make_isolated(["H", "Fe"], IsolatedSettings(elements=("Pt",)))
    assert (str(step.atoms.symbols), step.text, step.parameters) == ("Pt", "isolated Pt", {"element": "Pt"})


def test_labelling_and_training_recognise_them_and_start_from_the_moment_of_the_atom():
    (step,) = make_isolated(["Fe"], IsolatedSettings())
    assert boxes.is_isolated_atom(step.atoms)
    assert mace.is_isolated_atom(step.atoms)
    assert boxes.spin_moments(step.atoms).tolist() == [4.0]


def test_training_file_has_none_of_them(tmp_path):
    frames = {"train": [step.atoms for step in make_isolated(["H"], IsolatedSettings())]}
    with pytest.raises(ValueError, match="no labelled frame in split 'train'"):
        mace.write_mace_input(frames, tmp_path)


def test_atoms_of_all_inputs_are_neither_repeated_nor_distorted():
    on = {"copies": 3, "rattle": {}, "strain": {"molecules": True}, "supercell": {"min_length": 5.0}, "vacancy": {}}
    frames = augment([bulk("NaCl", "rocksalt", a=5.64), molecule("H2O")], {**on, "isolated": {}}, 0).frames
    made = [atoms for atoms in frames if atoms.info["config_type"] == "IsolatedAtom"]
    assert [atoms.info["origin"] for atoms in made] == [f"isolated {symbol}" for symbol in ("H", "O", "Na", "Cl")]
    assert {len(atoms) for atoms in made} == {1}
    assert {atoms.info["parent_index"] for atoms in made} == {-1}
    assert json.loads(made[0].info["parameters"]) == {"isolated": {"element": "H"}}


def test_vacuum_gives_them_a_box():
    frames = augment([bulk("Cu")], {"copies": 0, "isolated": {}, "vacuum": {"thickness": 12.0}}, 0).frames
    assert np.array_equal(frames[-1].cell.array, 12.0 * np.eye(3))
    assert not frames[-1].pbc.any()


@pytest.mark.parametrize("elements", [(), ("Qq",), ("H", "H"), ("X",)])
def test_what_is_no_list_of_elements_is_named(elements):
    with pytest.raises(ValueError, match="'elements'"):
        IsolatedSettings(elements=elements)
