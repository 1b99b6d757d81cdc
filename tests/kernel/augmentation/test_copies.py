"""Copies in blocks: the same as one by one, and as a search through all pairs."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from hypothesis import given, settings
from hypothesis import strategies as st

from aiida_alpot.kernel.augmentation import RattleSettings, StrainSettings, augment, chain, rattle, strain
from aiida_alpot.kernel.augmentation.copies import Base, Copies
from aiida_alpot.kernel.augmentation.rattle import rattle_copies
from aiida_alpot.kernel.augmentation.strain import strain_copies
from aiida_alpot.kernel.geometry import atoms_in_contact, nearest_neighbour_distance

N_ATOMS = st.one_of(st.integers(1, 12), st.integers(13, 200))
PBC = st.tuples(st.booleans(), st.booleans(), st.booleans())
SEED = st.integers(0, 2**32 - 1)


def distorted(atoms: Atoms, seed: int, n_copies: int = 3, strength: float = 0.3, amplitude: float = 0.6) -> Copies:
    rng = np.random.default_rng(seed)
    copies = Copies(Base(atoms), [atoms] * n_copies)
    copies.deformations = np.eye(3) + rng.uniform(-strength, strength, (n_copies, 3, 3))
    copies.displacements = rng.normal(scale=amplitude, size=(n_copies, len(atoms), 3))
    return copies


@settings(max_examples=30, deadline=None)
@given(n_atoms=N_ATOMS, pbc=PBC, seed=SEED, ratio=st.floats(0.2, 0.99))
def test_contacts_are_those_of_a_search_through_each_copy(random_frame, n_atoms, pbc, seed, ratio):
    copies = distorted(random_frame(n_atoms, pbc, seed), seed)
    rows, atoms = copies.contacts(np.arange(len(copies)), ratio)
    for k in range(len(copies)):
        assert atoms[rows == k].tolist() == atoms_in_contact(copies.atoms(k), ratio).tolist()


@settings(max_examples=30, deadline=None)
@given(n_atoms=N_ATOMS.filter(lambda n: n > 1), pbc=PBC, seed=SEED)
def test_nearest_distances_are_those_of_each_deformed_copy(random_frame, n_atoms, pbc, seed):
    copies = distorted(random_frame(n_atoms, pbc, seed), seed)
    copies.displacements = None
    expected = [nearest_neighbour_distance(copies.atoms(k)) for k in range(len(copies))]
    assert copies.nearest_distances() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("strength", [0.05, 0.6])
def test_contacts_beyond_the_list_of_pairs_are_found_too(strength):
    copies = distorted(bulk("Cu", cubic=True), 4, n_copies=12, strength=strength, amplitude=2.5)
    rows, atoms = copies.contacts(np.arange(12), 0.7)
    for k in range(12):
        assert atoms[rows == k].tolist() == atoms_in_contact(copies.atoms(k), 0.7).tolist()


def test_contacts_follow_the_species_of_each_copy():
    base = Atoms("H2", [[0, 0, 0], [1.0, 0, 0]])
    copies = Copies(Base(base), [base, Atoms("Cs2", base.positions)])
    assert copies.contacts(np.arange(2), 0.8)[0].tolist() == [1, 1]


@pytest.mark.parametrize("pbc", [(True, True, True), (True, False, True), (False, False, True)])
@pytest.mark.parametrize("one", [(strain_copies, strain, StrainSettings()), (rattle_copies, rattle, RattleSettings())])
def test_a_copy_is_bit_by_bit_what_it_is_alone(random_frame, pbc, one):
    many, single, given = one
    atoms = random_frame(40, pbc, 3)
    copies = Copies(Base(atoms), [atoms] * 8)
    many(copies, given, [np.random.default_rng(seed) for seed in range(8)])
    for seed in range(8):
        alone = single(atoms, given, np.random.default_rng(seed)).atoms
        assert copies.atoms(seed).positions.tobytes() == alone.positions.tobytes()
        assert copies.atoms(seed).cell.tobytes() == alone.cell.tobytes()


@pytest.mark.parametrize("n_atoms", [1, 100, 301])
def test_results_do_not_depend_on_the_size_of_blocks(n_atoms, monkeypatch):
    frames = [bulk("NaCl", "rocksalt", a=5.6) * 2, molecule("CH3CH2OH"), fcc111("Al", (2, 2, 3), vacuum=6.0)]
    recipe = {
        "copies": 23,
        "strain": {"molecules": True, "sampling": "latin_hypercube", "range": [-0.3, 0.3]},
        "rattle": {"remove_drift": True, "min_ratio": 0.6},
        "vacancy": {},
    }
    whole = augment(frames, recipe, 4)
    monkeypatch.setattr(chain, "BLOCK_ATOMS", n_atoms)
    pieces = augment(frames, recipe, 4)
    assert whole.report == pieces.report
    for one, other in zip(whole.frames, pieces.frames, strict=True):
        assert one.info == other.info
        assert one.positions.tobytes() == other.positions.tobytes()
        assert one.cell.tobytes() == other.cell.tobytes()
