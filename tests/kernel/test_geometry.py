"""Distances and heights against lattices whose answers are known, and against brute force."""

import itertools

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, make_supercell, molecule
from ase.data import covalent_radii
from ase.neighborlist import primitive_neighbor_list
from hypothesis import given, settings
from hypothesis import strategies as st

from aiida_alpot.kernel.geometry import (
    atoms_in_contact,
    closest_pair,
    closest_pair_ratio,
    compact_cell,
    list_neighbours,
    nearest_neighbour_distance,
    perpendicular_heights,
    smallest_heights,
)


def brute_force(atoms: Atoms, n_images: int = 4) -> float:
    """Return the shortest distance by listing images."""
    ranges = [range(-n_images, n_images + 1) if periodic else range(1) for periodic in atoms.pbc]
    shifts = np.array(list(itertools.product(*ranges))) @ atoms.cell.array
    vectors = atoms.positions[:, None, None] - atoms.positions[None, :, None] + shifts
    distances = np.linalg.norm(vectors, axis=-1)
    own = (shifts == 0.0).all(axis=1)
    for i in range(len(atoms)):
        distances[i, i, own] = np.inf
    return float(distances.min())


def test_one_atom_cell_has_the_distance_of_its_lattice():
    assert nearest_neighbour_distance(bulk("Cu", a=3.6)) == pytest.approx(3.6 / np.sqrt(2))
    assert nearest_neighbour_distance(bulk("Fe", a=2.87)) == pytest.approx(2.87 * np.sqrt(3) / 2)


def test_isolated_atom_has_no_neighbour():
    assert nearest_neighbour_distance(Atoms("H")) == np.inf
    assert nearest_neighbour_distance(Atoms("H", cell=[1, 1, 1])) == np.inf
    assert closest_pair(Atoms("H")) is None
    assert closest_pair_ratio(Atoms("H")) == np.inf


def test_image_far_away_is_found():
    assert nearest_neighbour_distance(Atoms("H", cell=[70, 300, 500], pbc=True)) == pytest.approx(70.0)
    assert nearest_neighbour_distance(Atoms("H2", [[0, 0, 0], [0, 0, 123.0]])) == pytest.approx(123.0)


def test_only_periodic_axes_have_images():
    atoms = Atoms("H", cell=[2.0, 9.0, 5.0], pbc=[False, True, True])
    assert nearest_neighbour_distance(atoms) == pytest.approx(5.0)


def test_coincident_atoms_are_at_distance_zero():
    assert nearest_neighbour_distance(Atoms("H2", [[1, 1, 1], [1, 1, 1]])) == 0.0
    assert nearest_neighbour_distance(Atoms("H2", [[0, 0, 0], [3, 0, 0]], cell=[3, 4, 4], pbc=True)) == 0.0


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), n_atoms=st.integers(1, 4), pbc=st.tuples(*[st.booleans()] * 3))
def test_distance_matches_brute_force_in_small_skewed_cells(seed, n_atoms, pbc):
    rng = np.random.default_rng(seed)
    cell = np.eye(3) * rng.uniform(1.5, 6.0, 3) + rng.uniform(-0.6, 0.6, (3, 3))
    atoms = Atoms(f"H{n_atoms}", rng.uniform(-8.0, 8.0, (n_atoms, 3)), cell=cell, pbc=pbc)
    inside = atoms.copy()
    inside.wrap()
    assert nearest_neighbour_distance(atoms) == pytest.approx(brute_force(inside, 5))


def test_ratio_finds_the_worst_pair_not_the_shortest():
    # H–H at 0.8 Å is a long bond, Cs–Cs at 2.5 Å is half of one
    atoms = Atoms("HHCsCs", [[0, 0, 0], [0.8, 0, 0], [50, 0, 0], [52.5, 0, 0]])
    assert closest_pair(atoms)[:2] == (0, 1)
    assert closest_pair_ratio(atoms) == pytest.approx(2.5 / (2 * covalent_radii[55]))
    assert atoms_in_contact(atoms, 0.6).tolist() == [2, 3]
    assert atoms_in_contact(atoms, 0.4).tolist() == []


def test_bonds_of_a_molecule_have_a_ratio_near_one():
    assert 0.9 < closest_pair_ratio(molecule("CH3CH2OH")) < 1.1


def test_heights_of_an_fcc_primitive_cell_are_shorter_than_its_vectors():
    cell = bulk("Cu", a=3.6).cell
    assert perpendicular_heights(cell) == pytest.approx(np.full(3, 3.6 / np.sqrt(3)))
    assert (perpendicular_heights(cell) < cell.lengths()).all()


def test_heights_of_a_slab_ignore_its_vacuum_vector():
    slab = fcc111("Cu", (1, 1, 3), vacuum=6.0)
    expected = perpendicular_heights(slab.cell, slab.pbc)
    slab.cell[2] += 2.0 * slab.cell[0] + slab.cell[1]
    assert perpendicular_heights(slab.cell, slab.pbc) == pytest.approx(expected)
    assert expected[2] == np.inf


def test_heights_times_face_area_is_the_volume():
    cell = np.array([[3.0, 0.1, 0.2], [1.0, 4.0, -0.4], [0.3, 0.6, 5.0]])
    areas = [np.linalg.norm(np.cross(cell[(i + 1) % 3], cell[(i + 2) % 3])) for i in range(3)]
    assert perpendicular_heights(cell) * areas == pytest.approx(np.full(3, abs(np.linalg.det(cell))))


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (Atoms(), "without atoms"),
        (Atoms("H", [[np.nan, 0, 0]]), "not finite"),
        (Atoms("H", pbc=True), r"without a cell vector: \[0, 1, 2\]"),
    ],
)
def test_impossible_frames_are_refused(atoms, message):
    with pytest.raises(ValueError, match=message):
        nearest_neighbour_distance(atoms)


def test_dependent_cell_vectors_are_refused():
    with pytest.raises(ValueError, match="linearly dependent"):
        perpendicular_heights([[1, 0, 0], [2, 0, 0], [0, 0, 1]])


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(1e-3, 1e3))
def test_heights_of_many_cells_are_those_of_each(seed, scale):
    rng = np.random.default_rng(seed)
    cells, pbc = scale * rng.normal(size=(8, 3, 3)), rng.random((8, 3)) < 0.7
    expected = [perpendicular_heights(cell, axes).min() for cell, axes in zip(cells, pbc, strict=True)]
    assert smallest_heights(cells, pbc) == pytest.approx(expected, rel=1e-6)


def test_dependent_or_missing_vectors_have_no_height():
    flat = [[3.0, 0, 0], [0, 3.0, 0], [3.0, 3.0, 0]]
    cells = np.array([flat, flat, np.zeros((3, 3)), np.eye(3) * 1e200])
    pbc = np.array([[1, 1, 1], [1, 1, 0], [0, 0, 1], [1, 1, 1]], dtype=bool)
    assert smallest_heights(cells, pbc).tolist() == [0.0, 3.0, 0.0, 1e200]


@pytest.mark.parametrize("n", [1, 3, 30, 1000])
def test_a_skew_cell_has_the_distances_of_its_lattice(n):
    plain = bulk("NaCl", "rocksalt", a=5.6)
    plain.positions[1] += 0.3
    skew = make_supercell(plain, [[1, 0, 0], [n, 1, 0], [-n, 2, 1]])
    assert nearest_neighbour_distance(skew) == pytest.approx(nearest_neighbour_distance(plain))
    assert atoms_in_contact(skew, 0.9).tolist() == atoms_in_contact(plain, 0.9).tolist()
    plain.pbc = (True, True, False)
    slab = plain.copy()
    slab.set_cell(np.array([[1, 0, 0], [n, 1, 0], [0, 0, 1]]) @ plain.cell.array)
    assert nearest_neighbour_distance(slab) == pytest.approx(nearest_neighbour_distance(plain))
    assert compact_cell(slab.cell.array, slab.pbc)[2] == pytest.approx(slab.cell.array[2])


def test_a_cell_that_is_not_skew_stays():
    cell = bulk("Cu").cell.array
    assert compact_cell(cell, True) is cell


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), n_atoms=st.integers(1, 6), pbc=st.tuples(*[st.booleans()] * 3))
def test_listed_neighbours_are_those_of_a_search_with_the_cell_as_it_is(seed, n_atoms, pbc):
    rng = np.random.default_rng(seed)
    cell = 4.0 * np.eye(3) + rng.uniform(-1.0, 1.0, (3, 3))
    atoms = Atoms(n_atoms * "H", rng.uniform(-9.0, 9.0, (n_atoms, 3)), cell=cell, pbc=pbc)
    expected = primitive_neighbor_list("ijd", pbc, cell, atoms.positions, 5.0)
    found = list_neighbours("ijd", atoms, 5.0)
    order, other = np.lexsort(found[::-1]), np.lexsort(expected[::-1])
    for values, references in zip(found, expected, strict=True):
        assert values[order] == pytest.approx(references[other])


@pytest.mark.timeout(60)
def test_a_distant_atom_and_a_leaning_box_cost_no_time():
    far = Atoms("H3", [[0, 0, 0], [0, 0, 0.7], [1e6, 1e6, 1e6]], cell=[[9, 0, 0], [1e6, 1, 0], [0, 0, 1e6]])
    assert list_neighbours("d", far, 3.0)[0] == pytest.approx([0.7, 0.7])
