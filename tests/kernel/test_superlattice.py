"""The best cells of a lattice against an exhaustive search over Hermite normal forms."""

import itertools

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.geometry import minkowski_reduce
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from aiida_alpot.kernel.geometry import nearest_neighbour_distance, perpendicular_heights
from aiida_alpot.kernel.superlattice import find_superlattice, repeat_cell


def hermite_forms(n_cells):
    """All sublattices of an index, each once."""
    for a in range(1, n_cells + 1):
        for b in range(1, n_cells // a + 1):
            if n_cells % (a * b):
                continue
            c = n_cells // (a * b)
            for d, e, f in itertools.product(range(b), range(c), range(c)):
                yield np.array([[a, d, e], [0, b, f], [0, 0, c]])


def largest_height(vectors):
    """The largest smallest height of all cells of a lattice: one over the last successive minimum of its dual."""
    dual, _ = minkowski_reduce(np.linalg.inv(vectors).T)
    return 1.0 / np.linalg.norm(dual, axis=1).max()


def random_cell(seed):
    rng = np.random.default_rng(seed)
    return np.diag(rng.uniform(1.0, 4.0, 3)) + rng.uniform(-1.5, 1.5, (3, 3))


def heights_of(matrix, cell, pbc=True):
    return perpendicular_heights(matrix @ cell, np.broadcast_to(pbc, 3))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), length=st.floats(1.5, 4.0))
def test_no_sublattice_of_fewer_cells_reaches_the_length(seed, length):
    cell = random_cell(seed)
    assume(largest_height(cell) > 0.7)
    best = {n: max(largest_height(form @ cell) for form in hermite_forms(n)) for n in range(1, 7)}
    enough = [n for n, height in best.items() if height >= length * (1.0 - 1e-9)]
    matrix = find_superlattice(cell, True, length, 6)
    assume(matrix is not None)  # a cell with too many short vectors to list
    n_cells = round(np.linalg.det(matrix))
    if enough:
        assert n_cells == enough[0]
        assert heights_of(matrix, cell).min() >= length * (1.0 - 1e-8)
        assert heights_of(matrix, cell).min() == pytest.approx(best[n_cells], rel=1e-6)
    else:
        assert n_cells <= 6
        assert heights_of(matrix, cell).min() == pytest.approx(max(best.values()), rel=1e-6)


@pytest.mark.parametrize(
    ("atoms", "fewest"),
    [(bulk("Cu"), 500), (bulk("Si"), 308), (bulk("NaCl", "rocksalt", a=5.64), 288), (bulk("Cu", cubic=True), 500)],
    ids=["fcc", "diamond", "rocksalt", "fcc-conventional"],
)
def test_known_crystals_at_18_angstrom(atoms, fewest):
    matrix = find_superlattice(atoms.cell.array, atoms.pbc, 18.0, 10_000)
    assert heights_of(matrix, atoms.cell.array).min() >= 18.0
    assert round(np.linalg.det(matrix)) * len(atoms) == fewest


def test_primitive_and_conventional_cells_give_equally_many_atoms_where_the_conventional_one_allows():
    fine = find_superlattice(bulk("Fe").cell.array, True, 12.0, 10_000)
    coarse = find_superlattice(bulk("Fe", cubic=True).cell.array, True, 12.0, 10_000)
    assert np.linalg.det(fine) <= 2.0 * np.linalg.det(coarse) + 1e-9


def test_a_lattice_that_is_large_enough_is_kept_whole():
    matrix = find_superlattice(np.diag([19.0, 20.0, 30.0]), True, 18.0, 100)
    assert round(np.linalg.det(matrix)) == 1


def test_axes_that_are_not_periodic_are_left_alone():
    cell = np.array([[2.5, 0.0, 0.0], [1.25, 2.165, 0.0], [3.0, 4.0, 30.0]])
    matrix = find_superlattice(cell, (True, True, False), 10.0, 1000)
    assert matrix[2].tolist() == [0, 0, 1]
    assert matrix[:, 2].tolist() == [0, 0, 1]
    assert heights_of(matrix, cell, (True, True, False)).min() >= 10.0
    assert np.linalg.det(matrix) == pytest.approx(21)  # instead of 25 of the diagonal cell


def test_a_wire_is_repeated_along_its_axis():
    cell = np.diag([10.0, 3.0, 10.0])
    assert find_superlattice(cell, (False, True, False), 10.0, 100).tolist() == np.diag([1, 4, 1]).tolist()
    assert find_superlattice(cell, (False, True, False), 10.0, 3).tolist() == np.diag([1, 3, 1]).tolist()


def test_a_molecule_has_nothing_to_repeat():
    assert find_superlattice(np.zeros((3, 3)), False, 10.0, 100).tolist() == np.eye(3).tolist()


def test_sizes_beyond_the_search_are_given_up_at_once():
    assert find_superlattice(np.eye(3), True, 500.0, 10**9) is None


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_repeated_cell_is_the_same_crystal(seed):
    rng = np.random.default_rng(seed)
    matrix = rng.integers(-3, 4, (3, 3))
    assume(0 < round(np.linalg.det(matrix)) < 30)
    n_cells = round(np.linalg.det(matrix))
    atoms = Atoms("HHe", rng.uniform(0.0, 3.0, (2, 3)), cell=random_cell(seed), pbc=True, info={"charge": -1.0})
    assume(nearest_neighbour_distance(atoms) > 0.3)
    atoms.set_array("site", np.array([7, 8]))
    atoms.set_initial_magnetic_moments([1.0, -2.0])
    larger = repeat_cell(atoms, matrix)
    assert len(larger) == n_cells * len(atoms)
    assert larger.get_volume() == pytest.approx(n_cells * atoms.get_volume())
    assert nearest_neighbour_distance(larger) == pytest.approx(nearest_neighbour_distance(atoms), abs=1e-6)
    assert larger.info["charge"] == -n_cells
    assert (larger.arrays["site"] == np.where(larger.numbers == 1, 7, 8)).all()
    assert (larger.get_initial_magnetic_moments() == np.where(larger.numbers == 1, 1.0, -2.0)).all()
    # every atom sits on a site of the lattice of its species
    offsets = (larger.positions - atoms.positions[larger.numbers - 1]) @ np.linalg.inv(atoms.cell.array)
    assert offsets == pytest.approx(np.rint(offsets), abs=1e-6)
