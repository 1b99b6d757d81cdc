"""Voids against crystals whose voids are known, and against a search by brute force."""

import itertools

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, graphene
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from aiida_alpot.kernel.voids import find_voids, images_within

OCTAHEDRAL, TETRAHEDRAL = 0.5, np.sqrt(3) / 4
"""Radii in fcc over the lattice constant."""


def nearest_distances(points: np.ndarray, atoms: Atoms, n_images: int = 5) -> np.ndarray:
    """Return the distance from each point to the nearest image of an atom, by listing images."""
    ranges = [range(-n_images, n_images + 1) if periodic else range(1) for periodic in atoms.pbc]
    shifts = np.array(list(itertools.product(*ranges))) @ atoms.cell.array
    images = (atoms.positions[:, None] + shifts[None]).reshape(-1, 3)
    return KDTree(images).query(points.reshape(-1, 3))[0]


def random_atoms(seed: int, n_atoms: int, pbc: tuple[bool, bool, bool]) -> Atoms:
    """Return a frame in a skewed cell; its atoms lie in the cell."""
    rng = np.random.default_rng(seed)
    cell = np.eye(3) * rng.uniform(2.5, 5.0, 3) + rng.uniform(-0.8, 0.8, (3, 3))
    return Atoms(f"H{n_atoms}", rng.random((n_atoms, 3)) @ cell, cell=cell, pbc=pbc)


@pytest.mark.parametrize(
    ("atoms", "radii"),
    [
        (bulk("Cu", a=3.6), [TETRAHEDRAL * 3.6] * 2 + [OCTAHEDRAL * 3.6]),
        (bulk("Fe", a=2.87), [np.sqrt(5) / 4 * 2.87] * 6),
        (bulk("Po", "sc", a=3.4), [np.sqrt(3) / 2 * 3.4]),
        (bulk("NaCl", "rocksalt", a=5.6), [np.sqrt(3) / 4 * 5.6] * 2),
        (bulk("Si", a=5.43), [np.sqrt(11) / 8 * 5.43] * 4 + [np.sqrt(3) / 4 * 5.43] * 2),
    ],
    ids=["fcc", "bcc", "sc", "rocksalt", "diamond"],
)
def test_voids_of_a_lattice_are_those_of_the_textbook(atoms, radii):
    assert np.sort(find_voids(atoms, 4.0).radii) == pytest.approx(radii, abs=1e-6)


def test_octahedral_void_of_fcc_lies_in_the_centre_of_the_cube():
    voids = find_voids(bulk("Cu", a=3.6, cubic=True), 4.0)
    large = voids.positions[voids.radii > 1.7]
    assert any(position == pytest.approx(np.full(3, 1.8), abs=1e-6) for position in large)
    assert len(large) == 4


@pytest.mark.parametrize("noise", [1e-12, 1e-8])
def test_rounding_of_positions_neither_makes_nor_loses_voids(noise):
    atoms = bulk("Cu", cubic=True) * (2, 2, 2)
    moved = atoms.copy()
    moved.positions += noise * np.random.default_rng(0).normal(size=(32, 3))
    assert np.sort(find_voids(moved, 4.0).radii) == pytest.approx(np.sort(find_voids(atoms, 4.0).radii), abs=1e-6)


def test_voids_do_not_depend_on_the_choice_of_the_cell_or_the_axes():
    atoms = random_atoms(3, 4, (True, True, True))
    radii = np.sort(find_voids(atoms, 4.0).radii)
    turned = atoms.copy()
    turned.set_cell(atoms.cell.array @ Rotation.random(random_state=0).as_matrix(), scale_atoms=True)
    skewed = atoms.copy()
    skewed.set_cell(np.array([[1, 0, 0], [1, 1, 0], [0, -2, 1]]) @ atoms.cell.array)
    shifted = atoms.copy()
    shifted.translate([7.0, -20.0, 3.3])
    for other in (turned, skewed, shifted):
        assert np.sort(find_voids(other, 4.0).radii) == pytest.approx(radii, abs=1e-6)
    assert np.sort(find_voids(atoms * (2, 1, 1), 4.0).radii) == pytest.approx(np.repeat(radii, 2), abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), n_atoms=st.integers(1, 6), pbc=st.tuples(*[st.booleans()] * 3))
def test_every_void_is_a_maximum_of_the_distance_to_the_nearest_atom(seed, n_atoms, pbc):
    atoms = random_atoms(seed, n_atoms, pbc)
    voids = find_voids(atoms, 3.0)
    assert nearest_distances(voids.positions, atoms) == pytest.approx(voids.radii, abs=1e-6)
    assert (voids.radii <= 3.0).all()
    steps = 0.01 * np.random.default_rng(seed).normal(size=(20, 3))
    for position, radius in zip(voids.positions, voids.radii, strict=True):
        assert (nearest_distances(position + steps, atoms) < radius + 1e-6).all()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), n_atoms=st.integers(1, 6))
def test_no_point_of_a_crystal_is_farther_from_all_atoms_than_the_largest_void(seed, n_atoms):
    atoms = random_atoms(seed, n_atoms, (True, True, True))
    grid = np.array(list(itertools.product(np.arange(12) / 12, repeat=3))) @ atoms.cell.array
    largest = nearest_distances(grid, atoms, 3).max()
    radii = find_voids(atoms, 10.0).radii
    spacing = np.linalg.norm(atoms.cell.array, axis=1).sum() / 24
    assert largest <= radii.max() + 1e-9
    assert radii.max() <= largest + spacing


def test_larger_spheres_are_not_listed():
    atoms = bulk("Cu", a=3.6)
    assert len(find_voids(atoms, 1.7).radii) == 2
    assert len(find_voids(atoms, 1.5).radii) == 0


@pytest.mark.parametrize("pbc", [(True, True, False), (True, True, True)])
def test_slab_has_voids_between_its_layers_only(pbc):
    slab = fcc111("Cu", (2, 2, 4), vacuum=6.0)
    slab.pbc = pbc
    heights = find_voids(slab, 4.0).positions[:, 2]
    assert len(heights) == 36
    assert heights.min() > slab.positions[:, 2].min()
    assert heights.max() < slab.positions[:, 2].max()


@pytest.mark.parametrize("atoms", [graphene(vacuum=5.0), Atoms("H", cell=[3, 3, 3], pbc=[True, False, False])])
def test_frames_one_atom_thin_have_no_void(atoms):
    assert len(find_voids(atoms, 4.0).radii) == 0


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), pbc=st.tuples(*[st.booleans()] * 3), distance=st.floats(0.1, 6.0))
def test_no_near_image_is_missing(seed, pbc, distance):
    atoms = random_atoms(seed, 3, pbc)
    outside = atoms.copy()
    periodic = np.asarray(pbc)
    outside.positions += np.where(periodic, [3, -2, 1], 0) @ atoms.cell.array
    points, owner = images_within(outside, distance)
    shifts = points - outside.positions[owner]
    scaled = atoms.cell.scaled_positions(shifts)
    assert scaled == pytest.approx(np.round(scaled), abs=1e-6)
    probes = np.random.default_rng(seed + 1).uniform(-5.0, 5.0, size=(10, 3))
    vectors = atoms.cell.array[periodic]
    probes -= np.floor(probes @ np.linalg.pinv(vectors)) @ vectors
    for probe, nearest in zip(probes, nearest_distances(probes, atoms), strict=True):
        if nearest <= distance:
            assert np.linalg.norm(points - probe, axis=1).min() == pytest.approx(nearest)
