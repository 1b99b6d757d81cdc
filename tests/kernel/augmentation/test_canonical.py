"""Frames that are exactly the same, however they are written down."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from hypothesis import given, settings
from hypothesis import strategies as st

from aiida_alpot.kernel.augmentation import augment
from aiida_alpot.kernel.augmentation.base import Done
from aiida_alpot.kernel.augmentation.canonical import canonical_key
from aiida_alpot.kernel.augmentation.draft import Draft
from aiida_alpot.kernel.augmentation.filters import Filters
from aiida_alpot.kernel.augmentation.report import Report

PBC = st.tuples(*[st.booleans()] * 3)
SEED = st.integers(0, 2**32 - 1)


def rewritten(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """Return the same frame: its atoms in another order, moved together, and each to another image."""
    other = atoms[rng.permutation(len(atoms))]
    other.positions += rng.uniform(-5.0, 5.0, 3)
    images = rng.integers(-2, 3, (len(atoms), 3)) * other.pbc
    other.positions += images @ other.cell.array
    return other


@settings(max_examples=60, deadline=None)
@given(n_atoms=st.integers(1, 60), pbc=PBC, seed=SEED)
def test_order_origin_and_images_make_no_difference(random_frame, n_atoms, pbc, seed):
    atoms = random_frame(n_atoms, pbc, seed)
    for magnetic in (True, False):
        if not magnetic:
            del atoms.arrays["initial_magmoms"]
        other = rewritten(atoms, np.random.default_rng(seed))
        assert canonical_key(other) == canonical_key(atoms)
        if all(pbc):
            other.wrap()
            assert canonical_key(other) == canonical_key(atoms)


@settings(max_examples=60, deadline=None)
@given(n_atoms=st.integers(2, 60), pbc=PBC, seed=SEED)
def test_one_atom_displaced_by_a_thousandth_is_another_frame(random_frame, n_atoms, pbc, seed):
    atoms, rng = random_frame(n_atoms, pbc, seed), np.random.default_rng(seed)
    other, step = rewritten(atoms, rng), rng.normal(size=3)
    other.positions[rng.integers(n_atoms)] += 1e-3 * step / np.linalg.norm(step)
    assert canonical_key(other) != canonical_key(atoms)


@settings(max_examples=60, deadline=None)
@given(n_atoms=st.integers(2, 60), pbc=PBC, seed=SEED, decimals=st.integers(3, 9))
def test_positions_that_a_file_has_rounded_make_no_difference(random_frame, n_atoms, pbc, seed, decimals):
    atoms, rng = random_frame(n_atoms, pbc, seed), np.random.default_rng(seed)
    atoms.positions = atoms.positions.round(decimals)
    other = atoms[rng.permutation(n_atoms)]
    other.positions += rng.uniform(-5.0, 5.0, 3).round(decimals)
    assert canonical_key(other) == canonical_key(atoms)


def test_a_molecule_of_seven_decimals_that_was_moved_is_the_same():
    atoms = molecule("C60")
    other = atoms.copy()
    other.positions += 5.3
    assert canonical_key(other) == canonical_key(atoms)


@settings(max_examples=20, deadline=None)
@given(seed=SEED, frame=st.sampled_from(["fcc", "rocksalt", "slab", "supercell"]))
def test_crystals_in_which_many_atoms_are_alike_are_known_again(seed, frame):
    frames = {
        "fcc": bulk("Cu", cubic=True) * 2,
        "rocksalt": bulk("NaCl", "rocksalt", a=5.6) * 3,
        "slab": fcc111("Al", (3, 3, 3), vacuum=6.0),
        "supercell": bulk("W", cubic=True) * (7, 1, 3),
    }
    atoms = frames[frame]
    assert canonical_key(rewritten(atoms, np.random.default_rng(seed))) == canonical_key(atoms)


@settings(max_examples=20, deadline=None)
@given(first=st.integers(0, 31), second=st.integers(0, 31))
def test_vacancies_of_a_perfect_crystal_are_one_frame(first, second):
    one, other = bulk("Cu", cubic=True) * 2, bulk("Cu", cubic=True) * 2
    del one[first]
    del other[second]
    assert canonical_key(one) == canonical_key(other)


def test_what_a_calculation_starts_from_tells_frames_apart():
    atoms = bulk("NaCl", "rocksalt", a=5.6) * 2
    changes = [
        lambda a: a.set_cell(a.cell.array * (1.0 + 1e-7), scale_atoms=True),
        lambda a: a.pbc.__setitem__(0, False),
        lambda a: a.numbers.__setitem__(0, 19),
        lambda a: a.info.update(charge=1.0),
        lambda a: a.set_initial_magnetic_moments([1.0] + [0.0] * 15),
        lambda a: a.set_initial_magnetic_moments([1.0, 0.0, -1.0] + [0.0] * 13),
        lambda a: a.set_positions(-a.positions + 0.1 * np.arange(48).reshape(16, 3)),
    ]
    keys = {canonical_key(atoms)}
    for change in changes:
        other = atoms.copy()
        change(other)
        keys.add(canonical_key(other))
    assert len(keys) == 1 + len(changes)
    assert canonical_key(molecule("H2O")) != canonical_key(molecule("CH4"))


def test_a_mirror_image_is_another_frame():
    chiral = Atoms("CHFClBr", positions=np.random.default_rng(5).normal(size=(5, 3)))
    mirrored = chiral.copy()
    mirrored.positions[:, 0] *= -1
    assert canonical_key(chiral) != canonical_key(mirrored)


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_the_filter_removes_what_is_only_written_differently(shift):
    atoms = bulk("NaCl", "rocksalt", a=5.6)
    other = atoms[[1, 0]]
    other.positions += shift + 2 * other.cell.array[0]
    report = augment([atoms, other], {"copies": 0}, 0).report
    assert report["removed"] == {"duplicates": {"same_structure": 1}}


def test_of_frames_displaced_at_random_only_copies_are_duplicates():
    """No other frame has their displacements: the search for another order is spared."""
    filters = Filters(None, Report())
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=1)
    assert filters.accept(atoms, "first", is_drawn=True)
    assert not filters.accept(atoms.copy(), "copy", is_drawn=True)
    draft = Draft(atoms, "0", "input 0", 0)
    assert not draft.is_drawn
    assert draft.after("rattle", Done("rattle", {"scale": 0.1})).is_drawn
    assert not draft.after("rattle", Done("rattle", {"scale": 0.0})).is_drawn
