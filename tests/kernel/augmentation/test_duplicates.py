"""Frames that are the same, nearly the same, and different."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, make_supercell, molecule
from ase.geometry import minkowski_reduce
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from aiida_alpot.kernel.augmentation import augment
from aiida_alpot.kernel.augmentation.duplicates import NearDuplicates, structure_key

TOLERANCE = 0.02
SEED = st.integers(0, 2**32 - 1)


def are_near(one: Atoms, other: Atoms, tolerance: float = TOLERANCE) -> bool:
    near = NearDuplicates(tolerance)
    assert not near.is_known(one)
    return near.is_known(other)


def moved(atoms: Atoms, rng: np.random.Generator, *, shake: float = 0.5 * TOLERANCE) -> Atoms:
    """Return the same frame: turned, shifted, wrapped, its atoms in another order and displaced a little."""
    other = atoms[rng.permutation(len(atoms))]
    turn = Rotation.random(random_state=int(rng.integers(2**31))).as_matrix()
    other.set_cell(other.cell.array @ turn, scale_atoms=False)
    directions = rng.normal(size=(len(atoms), 3))
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    other.positions = other.positions @ turn + rng.uniform(-3, 3, 3) + shake * directions / lengths
    other.wrap()
    return other


@settings(max_examples=25, deadline=None)
@given(n_atoms=st.integers(1, 40), pbc=st.tuples(*[st.booleans()] * 3), seed=SEED)
def test_a_frame_is_known_however_it_is_turned_shifted_and_ordered(random_frame, n_atoms, pbc, seed):
    atoms = random_frame(n_atoms, pbc, seed)
    assert are_near(atoms, moved(atoms, np.random.default_rng(seed)))


@settings(max_examples=25, deadline=None)
@given(n_atoms=st.integers(8, 40), pbc=st.tuples(*[st.booleans()] * 3), seed=SEED)
def test_a_rattled_frame_is_another(random_frame, n_atoms, pbc, seed):
    """A pair of atoms may be displaced at right angles to what joins them, which changes no distance."""
    atoms = random_frame(n_atoms, pbc, seed)
    other = atoms.copy()
    other.positions += np.random.default_rng(seed).normal(scale=0.3, size=(n_atoms, 3))
    assert not are_near(atoms, other)


def test_other_cell_vectors_of_the_same_lattice_make_no_difference():
    atoms = bulk("NaCl", "rocksalt", a=5.6) * 2
    atoms.positions += np.random.default_rng(0).normal(scale=0.2, size=atoms.positions.shape)
    skew = make_supercell(atoms, [[1, 1, 0], [0, 1, 0], [2, 0, 1]])
    assert not np.allclose(minkowski_reduce(skew.cell)[0], skew.cell)
    assert are_near(atoms, skew)


@pytest.mark.parametrize("frame", [bulk("Cu") * 3, fcc111("Al", (3, 3, 3), vacuum=6.0), molecule("C60")])
def test_defects_at_equivalent_sites_are_the_same_and_others_are_not(frame):
    one, other = frame.copy(), frame.copy()
    del one[0]
    del other[4]
    assert are_near(one, other)
    pair, distant = frame.copy(), frame.copy()
    order = np.argsort(frame.get_distances(0, range(len(frame)), mic=True))
    del pair[[0, order[1]]]
    del distant[[0, order[-1]]]
    assert not are_near(pair, distant)


def test_orderings_that_symmetry_relates_are_the_same():
    atoms = bulk("Cu", cubic=True) * 2
    along = [np.flatnonzero(np.isclose(atoms.positions[:, axis], 0.0)) for axis in range(3)]
    ordered = []
    for sites in along:
        ordered.append(atoms.copy())
        ordered[-1].numbers[sites] = 79
    assert are_near(ordered[0], ordered[1])
    assert are_near(ordered[0], ordered[2])
    mixed = atoms.copy()
    mixed.numbers[np.random.default_rng(0).permutation(32)[:8]] = 79
    assert not are_near(ordered[0], mixed)


def test_moments_and_charge_tell_frames_apart():
    up, mixed, charged = (bulk("Fe", cubic=True) * (2, 1, 1) for _ in range(3))
    up.set_initial_magnetic_moments([2, 2, 2, 2])
    mixed.set_initial_magnetic_moments([2, -2, 2, -2])
    charged.set_initial_magnetic_moments([2, 2, 2, 2])
    charged.info["charge"] = 1.0
    assert not are_near(up, mixed)
    assert not are_near(up, charged)
    assert structure_key(up) not in {structure_key(mixed), structure_key(charged)}


def test_mirror_images_count_as_the_same_as_documented():
    rng = np.random.default_rng(5)
    chiral = Atoms("CHFClBr", positions=rng.normal(size=(5, 3)))
    mirrored = chiral.copy()
    mirrored.positions[:, 0] *= -1
    assert are_near(chiral, mirrored)


def test_one_atom_frames_are_told_apart_by_their_lattice():
    assert are_near(bulk("Cu"), bulk("Cu", a=3.62))
    assert not are_near(bulk("Cu"), bulk("Cu", a=3.8))
    assert are_near(Atoms("H"), Atoms("H", [[3, 2, 1]]))


def test_vacancies_of_turned_crystals_are_one_frame():
    recipe = {"copies": 0, "keep_input": False, "vacancy": {"fraction": 1.0, "per_frame": 1}}
    frames = []
    for angle in range(5):
        frames.append(bulk("Cu", cubic=True) * 2)
        frames[-1].rotate(10 * angle, "z", rotate_cell=True)
    assert augment(frames, recipe, 0).report["n_output"] == 5
    report = augment(frames, {**recipe, "filters": {"near_duplicates": TOLERANCE}}, 0).report
    assert report["n_output"] == 1
    assert report["removed"] == {"near_duplicates": {"within_tolerance": 4}}


def test_many_different_frames_are_all_kept():
    recipe = {"copies": 300, "rattle": {}, "filters": {"near_duplicates": TOLERANCE}}
    assert augment([bulk("Cu") * 2], recipe, 0).report["n_output"] == 301


def test_key_differs_by_every_part_that_a_calculation_starts_from():
    atoms = bulk("NaCl", "rocksalt", a=5.6)
    changes = [lambda a: a.positions.__iadd__(1e-6), lambda a: a.cell.array.__imul__(1.0 + 1e-7)]
    keys = {structure_key(atoms)}
    for change in changes:
        other = atoms.copy()
        change(other)
        keys.add(structure_key(other))
    other = atoms.copy()
    other.pbc[0] = False
    keys.add(structure_key(other))
    assert len(keys) == 4
    close = atoms.copy()
    close.positions += 1e-10
    assert structure_key(close) == structure_key(atoms)


def test_primitive_cells_of_different_lattices_are_not_confused():
    # equal shortest distances: what tells them apart is the second shell, or the third
    edges = {"sc": 2.5, "bcc": 5.0 / np.sqrt(3.0), "fcc": 2.5 * np.sqrt(2.0)}
    seen = NearDuplicates(0.02)
    assert [seen.is_known(bulk("Cu", lattice, a=a)) for lattice, a in edges.items()] == [False] * 3
    assert seen.is_known(bulk("Cu", "fcc", a=edges["fcc"] + 0.02))
    ideal = bulk("ZnS", "wurtzite", a=4.0, c=4.0 * np.sqrt(8.0 / 3.0))
    assert not seen.is_known(ideal)
    assert not seen.is_known(bulk("ZnS", "zincblende", a=4.0 * np.sqrt(2.0)) * (2, 1, 1))
