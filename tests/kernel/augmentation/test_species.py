"""Counts, pairs and sites that manipulations of the species share."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_masses

from aiida_alpot.kernel.augmentation import augment
from aiida_alpot.kernel.augmentation.prototype import DecorateSettings, PrototypeSettings
from aiida_alpot.kernel.augmentation.random_crystal import RandomSettings
from aiida_alpot.kernel.augmentation.species import (
    UnlikePairs,
    change_species,
    check_symbols,
    exchange_places,
    round_count,
)


def test_every_unlike_pair_of_a_group_is_drawn_alike():
    numbers = np.array([29, 79, 29, 47, 79, 29, 79])
    groups = np.array(["a", "a", "a", "a", "b", "b", "b"])
    pairs = UnlikePairs(numbers, groups)
    rng = np.random.default_rng(0)
    drawn = [tuple(sorted(pairs.draw(rng))) for _ in range(7000)]
    expected = {
        (i, j) for i in range(7) for j in range(i + 1, 7) if groups[i] == groups[j] and numbers[i] != numbers[j]
    }
    assert pairs.n_pairs == len(expected) == 7
    assert set(drawn) == expected
    counts = [drawn.count(pair) for pair in expected]
    assert counts == pytest.approx(np.full(7, 1000), abs=180)  # 6 standard deviations


def test_like_atoms_form_no_pair():
    assert UnlikePairs(np.array([29, 29, 29])).n_pairs == 0
    assert UnlikePairs(np.array([29, 79]), np.array([0, 1])).n_pairs == 0
    assert UnlikePairs(np.array([], dtype=int)).n_pairs == 0


def test_counts_are_rounded_half_up_and_never_zero():
    assert [round_count(0.2, n) for n in (1, 2, 4, 7, 8, 10, 12, 13)] == [1, 1, 1, 1, 2, 2, 2, 3]
    assert round_count(0.5, 5) == 3
    assert round_count(0.29, 100) == 29  # 0.29 · 100 < 29 in floating point


def test_new_elements_bring_their_mass_and_leave_the_columns_of_the_site():
    atoms = bulk("NaCl", "rocksalt", a=5.6)
    atoms.set_masses([24.0, 36.0])
    atoms.set_array("site", np.array([7, 8]))
    changed = change_species(atoms, [1], [35])
    assert changed.get_chemical_symbols() == ["Na", "Br"]
    assert changed.get_masses() == pytest.approx([24.0, atomic_masses[35]])
    assert changed.arrays["site"].tolist() == [7, 8]
    assert atoms.get_chemical_symbols() == ["Na", "Cl"]


def test_atoms_that_change_places_take_their_columns_along():
    atoms = Atoms("FeCoC", [[0, 0, 0], [1, 0, 0], [2, 0, 0]])
    atoms.set_initial_magnetic_moments([2.0, 1.0, 0.0])
    changed = exchange_places(atoms, [0], [2])
    assert changed.positions[:, 0].tolist() == [2, 1, 0]
    assert changed.get_initial_magnetic_moments().tolist() == [2.0, 1.0, 0.0]
    assert changed.get_chemical_symbols() == atoms.get_chemical_symbols()


@pytest.mark.parametrize(("symbols", "message"), [(["Cu", "Xx"], "'Xx'"), (["X"], "'X'"), (["Cu", "Cu"], "twice")])
def test_what_is_no_element_is_named(symbols, message):
    with pytest.raises(ValueError, match=f"'species'.*{message}"):
        check_symbols("species", symbols)


@pytest.mark.parametrize("make", [PrototypeSettings, DecorateSettings, RandomSettings])
def test_crystals_of_elements_without_a_covalent_radius_are_refused_by_name(make):
    make(elements=("Cm",))
    with pytest.raises(ValueError, match=r"'elements' must have covalent radii.* none of Bk, Cf"):
        make(elements=("Cu", "Bk", "Cf"))


def test_elements_of_the_inputs_without_a_covalent_radius_are_a_skip_that_names_them():
    report = augment([Atoms("Bk", cell=[9, 9, 9])], {"copies": 0, "prototype": {}}, 0).report
    assert report["skipped"] == {"prototype": {"no_covalent_radius_of_Bk": 1}}
