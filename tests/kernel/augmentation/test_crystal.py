"""Primitive cells, distinct planes, layers and cuts against known crystals and pymatgen."""

import itertools
import math

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, graphene, molecule
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from aiida_alpot.kernel.augmentation import NotApplicableError
from aiida_alpot.kernel.augmentation.crystal import (
    distinct_planes,
    distinct_shifts,
    find_crystal,
    find_cuts,
    format_indices,
    stack_along,
    transformed,
)
from aiida_alpot.kernel.geometry import nearest_neighbour_distance

pytest.importorskip("spglib")

CRYSTALS = {
    "fcc": bulk("Cu", a=3.6),
    "bcc": bulk("Fe", a=2.87),
    "diamond": bulk("Si", a=5.43),
    "rocksalt": bulk("NaCl", "rocksalt", a=5.64),
    "zincblende": bulk("ZnS", "zincblende", a=5.41),
    "hcp": bulk("Ti", a=2.95, c=4.68),
    "wurtzite": bulk("ZnO", "wurtzite", a=3.25, c=5.2, u=0.382),
    "tetragonal": bulk("In", "bct", a=3.25, c=4.95),
}
CUBIC = ("fcc", "bcc", "diamond", "rocksalt", "zincblende")


def rotated(atoms, seed):
    return transformed(atoms, Rotation.random(rng=np.random.default_rng(seed)).as_matrix())


@pytest.mark.parametrize("name", CRYSTALS)
def test_primitive_cell_of_a_rotated_supercell_is_that_of_the_crystal(name):
    crystal = CRYSTALS[name]
    larger = rotated(crystal * (1, 2, 3), 1)
    larger.info["charge"] = 6.0
    found = find_crystal(larger, 0.01)
    assert len(found.atoms) == len(crystal)
    assert found.atoms.get_volume() == pytest.approx(crystal.get_volume())
    assert found.atoms.info["charge"] == pytest.approx(1.0)
    assert len(found.rotations) == len(find_crystal(crystal, 0.01).rotations)
    assert nearest_neighbour_distance(found.atoms) == pytest.approx(nearest_neighbour_distance(crystal))


def test_antiferromagnet_keeps_its_magnetic_cell_and_user_columns_follow_their_atoms():
    atoms = bulk("Fe", cubic=True)
    atoms.set_array("site", np.array([4, 5]))
    assert len(find_crystal(atoms, 0.01).atoms) == 1
    atoms.set_initial_magnetic_moments([2.0, -2.0])
    primitive = find_crystal(atoms, 0.01).atoms
    assert dict(zip(primitive.arrays["site"], primitive.get_initial_magnetic_moments(), strict=True)) == {
        4: 2.0,
        5: -2.0,
    }


@pytest.mark.parametrize(
    ("atoms", "reason"),
    [
        (fcc111("Cu", (1, 1, 3), vacuum=5.0), "not_a_crystal"),
        (fcc111("Cu", (1, 1, 3), vacuum=6.0, periodic=True), "holds_vacuum"),
        (graphene(vacuum=8.0), "not_a_crystal"),
        (molecule("H2O", cell=[15, 15, 15], pbc=True), "holds_vacuum"),
        (molecule("H2O"), "not_a_crystal"),
        (Atoms("H2", [[0, 0, 0], [0, 0, 1e-6]], cell=[3, 3, 3], pbc=True), "no_symmetry_found"),
    ],
    ids=["slab", "slab-in-box", "sheet", "molecule-in-box", "molecule", "coincident"],
)
def test_what_is_no_crystal_is_named(atoms, reason):
    with pytest.raises(NotApplicableError, match=reason):
        find_crystal(atoms, 0.01)


def test_layered_crystal_is_a_crystal():
    graphite = Atoms("C4", cell=[2.46, 2.46, 6.71, 90, 90, 120], pbc=True)
    graphite.set_scaled_positions([[0, 0, 0.25], [0, 0, 0.75], [1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]])
    assert len(find_crystal(graphite, 0.01).atoms) == 4


@pytest.mark.parametrize("name", CUBIC)
def test_cubic_crystals_have_three_distinct_planes_up_to_index_one(name):
    crystal = find_crystal(rotated(CRYSTALS[name], 2), 0.01)
    assert distinct_planes(crystal, None, 1) == [(1, 0, 0), (1, 1, 0), (1, 1, 1)]


def test_planes_given_are_taken_once_each_in_their_order():
    crystal = find_crystal(CRYSTALS["fcc"], 0.01)
    assert distinct_planes(crystal, [(1, 1, 0), (0, 2, -2), (0, 0, -1), (1, 0, 0)], 1) == [(1, 1, 0), (0, 0, -1)]


@pytest.mark.parametrize("name", CRYSTALS)
def test_distinct_planes_agree_with_pymatgen(name):
    surface = pytest.importorskip("pymatgen.core.surface")
    adaptor = pytest.importorskip("pymatgen.io.ase").AseAtomsAdaptor
    conventional = _conventional(CRYSTALS[name])
    theirs = surface.get_symmetrically_distinct_miller_indices(adaptor.get_structure(conventional), 2)
    # pymatgen's symmetry is that of the lattice, ours that of the crystal, but opposite sides of a plane are one
    assert len(distinct_planes(find_crystal(CRYSTALS[name], 0.01), None, 2)) == len(theirs)


def _conventional(atoms):
    crystal = find_crystal(atoms, 0.01)
    return Atoms(
        numbers=atoms.numbers[:1], cell=crystal.conventional @ crystal.atoms.cell.array, positions=[[0, 0, 0]], pbc=True
    )


# spacing of lattice planes over the lattice constant, atoms per area times its square, distinct cuts: textbook values
@pytest.mark.parametrize(
    ("name", "plane", "spacing", "density", "n_cuts"),
    [
        ("fcc", (1, 1, 1), 1 / math.sqrt(3), 4 / math.sqrt(3), 1),
        ("fcc", (1, 0, 0), 1 / 2, 2, 1),
        ("fcc", (1, 1, 0), 1 / math.sqrt(8), math.sqrt(2), 1),
        ("bcc", (1, 1, 0), 1 / math.sqrt(2), math.sqrt(2), 1),
        ("bcc", (1, 0, 0), 1 / 2, 1, 1),
        ("bcc", (1, 1, 1), 1 / math.sqrt(12), 1 / math.sqrt(3), 1),
        ("bcc", (1, 1, 2), 1 / math.sqrt(6), math.sqrt(2 / 3), 1),
        ("diamond", (1, 1, 1), 1 / math.sqrt(3), 8 / math.sqrt(3), 2),
        ("diamond", (1, 0, 0), 1 / 2, 4, 2),
        ("diamond", (1, 1, 0), 1 / math.sqrt(8), 2 * math.sqrt(2), 1),
        ("rocksalt", (1, 0, 0), 1 / 2, 4, 1),
        ("rocksalt", (1, 1, 0), 1 / math.sqrt(8), 2 * math.sqrt(2), 1),
        ("rocksalt", (1, 1, 1), 1 / math.sqrt(3), 8 / math.sqrt(3), 2),
    ],
)
def test_spacings_and_densities_of_planes_are_those_of_the_textbook(name, plane, spacing, density, n_cuts):
    a = {"fcc": 3.6, "bcc": 2.87, "diamond": 5.43, "rocksalt": 5.64}[name]
    stack = stack_along(find_crystal(rotated(CRYSTALS[name] * (1, 1, 2), 3), 0.01), plane)
    area = np.linalg.norm(np.cross(*stack.atoms.cell[:2]))
    assert stack.spacing == pytest.approx(spacing * a)
    assert len(stack.atoms) / area == pytest.approx(density / a**2)
    assert len(find_cuts(stack, 0.2)) == n_cuts


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), plane=st.tuples(*[st.integers(-4, 4)] * 3))
def test_cell_along_any_plane_is_a_cell_of_the_same_crystal(seed, plane):
    assume(math.gcd(*plane) == 1)
    rng = np.random.default_rng(seed)
    cell = np.diag(rng.uniform(2.5, 5.0, 3)) + rng.uniform(-1.0, 1.0, (3, 3))
    atoms = Atoms("HHeLi", rng.uniform(0.0, 5.0, (3, 3)), cell=cell, pbc=True)
    assume(nearest_neighbour_distance(atoms) > 0.5)
    crystal = find_crystal(atoms, 0.01)
    stack = stack_along(crystal, plane)
    assert abs(round(np.linalg.det(stack.basis))) == 1
    assert nearest_neighbour_distance(stack.atoms) == pytest.approx(nearest_neighbour_distance(atoms))
    # the first two vectors have no component along the normal, a reciprocal vector of the conventional cell
    normal = np.linalg.inv(crystal.conventional @ crystal.atoms.cell.array) @ plane
    assert stack.atoms.cell[:2] @ normal == pytest.approx(np.zeros(2), abs=1e-9)
    u, v, w = stack.atoms.cell.array
    assert np.cross(u, v) @ w > 0.0
    assert abs(u @ v) <= 0.5 * min(u @ u, v @ v) + 1e-9
    widths = [cut.gap for cut in find_cuts(stack, 0.0)]
    assert sum(widths) == pytest.approx(stack.spacing)


def test_layers_closer_than_the_tolerance_are_not_cut_apart():
    atoms = Atoms("HHeLi", [[0, 0, 0.0], [1.5, 1.5, 0.1], [0, 0, 2.0]], cell=[3, 3, 5], pbc=True)
    stack = stack_along(find_crystal(atoms, 0.01), (0, 0, 1))
    assert [round(cut.gap, 3) for cut in find_cuts(stack, 0.2)] == [3.0, 1.9]
    assert [round(cut.gap, 3) for cut in find_cuts(stack, 0.05)] == [3.0, 1.9, 0.1]
    assert len(find_cuts(stack, 100.0)) == 1


def test_shifts_on_a_square_mesh_fall_into_orbits():
    turn = np.array([[0, -1], [1, 0]])
    operations = [np.linalg.matrix_power(turn, n) for n in range(4)]
    grid = list(itertools.product(range(2), repeat=2))
    assert distinct_shifts(grid, 2, operations) == [(0.0, 0.5), (0.5, 0.5)]
    assert len(distinct_shifts(grid, 2, operations[:1])) == 3


def test_reflection_keeps_axial_moments_normal_to_the_mirror():
    atoms = Atoms("Fe", [[1.0, 2.0, 3.0]], cell=[4, 4, 4], pbc=True)
    atoms.set_initial_magnetic_moments([[1.0, 0.0, 2.0]])
    image = transformed(atoms, np.diag([1.0, 1.0, -1.0]))
    assert image.positions.tolist() == [[1.0, 2.0, -3.0]]
    assert image.get_initial_magnetic_moments() == pytest.approx(np.array([[-1.0, 0.0, 2.0]]))


@pytest.mark.parametrize(("indices", "text"), [((1, 1, 1), "111"), ((1, -1, 0), "1-10"), ((1, -12, 3), "1_-12_3")])
def test_indices_read_unambiguously(indices, text):
    assert format_indices(indices) == text
