"""Boxes around what is not periodic, kinds by starting moment."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule

from aiida_alpot.kernel.labelling.boxes import (
    from_groups,
    group_species,
    name_kinds,
    put_into_box,
    starting_moments,
)


def gap(atoms: Atoms, axis: int) -> float:
    """Return the vacuum along an axis, Å."""
    normal = np.cross(atoms.cell[(axis + 1) % 3], atoms.cell[(axis + 2) % 3])
    normal /= np.linalg.norm(normal)
    return abs(atoms.cell[axis] @ normal) - np.ptp(atoms.positions @ normal)


def test_a_periodic_frame_stays_as_it_is() -> None:
    atoms = bulk("Si")
    boxed = put_into_box(atoms)
    np.testing.assert_array_equal(boxed.cell.array, atoms.cell.array)
    np.testing.assert_array_equal(boxed.positions, atoms.positions)


def test_a_molecule_without_cell_gets_a_box_with_vacuum_on_all_sides() -> None:
    boxed = put_into_box(molecule("CH3CH2OH"), vacuum=8.0)
    assert [gap(boxed, axis) for axis in range(3)] == pytest.approx([8.0, 8.0, 8.0])
    np.testing.assert_allclose((boxed.positions.min(0) + boxed.positions.max(0)) / 2, boxed.cell.array.sum(0) / 2)


def test_vacuum_that_is_larger_is_never_cut() -> None:
    atoms = molecule("H2O", cell=[30, 31, 32])
    np.testing.assert_array_equal(put_into_box(atoms, vacuum=8.0).cell.array, atoms.cell.array)


def test_distances_do_not_change() -> None:
    atoms = molecule("C6H6")
    np.testing.assert_allclose(put_into_box(atoms).get_all_distances(), atoms.get_all_distances())


def test_a_slab_keeps_its_periodic_vectors_and_grows_along_the_other() -> None:
    atoms = fcc111("Al", (2, 2, 3), vacuum=1.0)
    boxed = put_into_box(atoms, vacuum=12.0)
    np.testing.assert_array_equal(boxed.cell.array[:2], atoms.cell.array[:2])
    assert gap(boxed, 2) == pytest.approx(12.0)


def test_a_tilted_slab_keeps_the_direction_of_its_third_vector() -> None:
    atoms = fcc111("Al", (1, 1, 3), vacuum=1.0)
    atoms.cell[2] += [1.0, 0.5, 0.0]
    boxed = put_into_box(atoms, vacuum=9.0)
    np.testing.assert_allclose(np.cross(boxed.cell[2], atoms.cell[2]), 0, atol=1e-9)
    assert gap(boxed, 2) == pytest.approx(9.0)


def test_an_isolated_atom_lies_in_the_middle_of_a_cube() -> None:
    boxed = put_into_box(Atoms("O"), vacuum=7.0, cubic=True)
    np.testing.assert_allclose(boxed.cell.array, 7.0 * np.eye(3))
    np.testing.assert_allclose(boxed.positions[0], [3.5, 3.5, 3.5])


def test_a_cube_leaves_as_much_room_as_the_molecule_is_long() -> None:
    atoms = Atoms("C2", positions=[[0, 0, 0], [0, 0, 20.0]])
    boxed = put_into_box(atoms, vacuum=8.0, cubic=True)
    assert boxed.cell.cellpar()[:3] == pytest.approx([46.0, 46.0, 46.0])


def test_atoms_of_one_element_share_a_kind_unless_their_moments_differ() -> None:
    kinds, moments = name_kinds(["Fe", "O", "Fe", "Fe"], np.array([2.0, 0.0, -2.0, 2.0]))
    assert kinds == ["Fe1", "O", "Fe2", "Fe1"]
    assert moments == {"Fe1": 2.0, "O": 0.0, "Fe2": -2.0}
    assert name_kinds(["Fe", "Fe"], np.array([2.0, 2.0])) == (["Fe", "Fe"], {"Fe": 2.0})
    assert name_kinds(["Fe", "O"], None) == (["Fe", "O"], {})


def test_moments_of_a_frame_go_before_those_of_its_elements() -> None:
    atoms = Atoms("FeO", positions=[[0, 0, 0], [0, 0, 2]])
    assert starting_moments(atoms) is None
    np.testing.assert_array_equal(starting_moments(atoms, {"Fe": 3.0}), [3.0, 0.0])
    atoms.set_initial_magnetic_moments([1.0, 0.5])
    np.testing.assert_array_equal(starting_moments(atoms, {"Fe": 3.0}), [1.0, 0.5])


def test_atoms_are_grouped_by_species_and_values_come_back_in_the_order_of_the_frame() -> None:
    atoms = Atoms("OHHOC", positions=np.arange(15.0).reshape(5, 3))
    order = group_species(list(atoms.symbols))
    assert [atoms.symbols[k] for k in order] == ["O", "O", "H", "H", "C"]
    np.testing.assert_array_equal(from_groups(atoms, atoms.positions[order]), atoms.positions)


def test_a_doubled_slab_has_a_cell_twice_as_thick_as_itself() -> None:
    atoms = fcc111("Al", (1, 1, 8), vacuum=1.0)
    thickness = np.ptp(atoms.positions[:, 2])
    assert put_into_box(atoms, vacuum=8.0, doubled=True).cell[2, 2] == pytest.approx(2 * thickness + 6.0)
    assert put_into_box(atoms, vacuum=40.0, doubled=True).cell[2, 2] == pytest.approx(thickness + 40.0)
