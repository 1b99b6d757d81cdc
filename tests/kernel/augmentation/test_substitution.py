"""Substitution: fractions, elements and no frame that says nothing new."""

from collections import Counter

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from aiida_alpot.kernel.augmentation.base import DroppedFrameError, NotApplicableError
from aiida_alpot.kernel.augmentation.substitution import SubstitutionSettings, substitute

ROCKSALT = bulk("NaCl", "rocksalt", a=5.6, cubic=True)


def step_of(atoms: Atoms, seed: int = 0, **settings):
    return substitute(atoms, SubstitutionSettings(**settings), np.random.default_rng(seed))


def by_site(atoms: Atoms) -> dict[tuple[float, ...], str]:
    return {tuple(row): symbol for row, symbol in zip(atoms.positions.tolist(), atoms.symbols, strict=True)}


def n_changed(atoms: Atoms, changed: Atoms) -> int:
    old, new = by_site(atoms), by_site(changed)
    assert old.keys() == new.keys()
    return sum(old[site] != new[site] for site in old)


@pytest.mark.parametrize(("fraction", "n_sites"), [(0.01, 2), (0.2, 12), (0.25, 16), (0.5, 32), (1.0, 64)])
def test_exchange_changes_the_fraction_of_the_sites_and_keeps_the_composition(fraction, n_sites):
    atoms = ROCKSALT * (2, 2, 2)
    step = step_of(atoms, atom_fraction=fraction)
    assert n_changed(atoms, step.atoms) == n_sites
    assert Counter(step.atoms.symbols) == Counter(atoms.symbols)
    assert step.text == f"substitution exchange {n_sites}"
    assert step.parameters == {"mode": "exchange", "changes": {"Cl>Na": n_sites // 2, "Na>Cl": n_sites // 2}}


@pytest.mark.parametrize(("fraction", "n_sites"), [(0.001, 1), (0.2, 13), (0.5, 32), (1.0, 63)])
def test_replace_changes_the_fraction_of_the_sites_within_the_elements_of_the_frame(fraction, n_sites):
    atoms = ROCKSALT * (2, 2, 2)
    step = step_of(atoms, mode="replace", atom_fraction=fraction)
    assert n_changed(atoms, step.atoms) == n_sites
    assert set(step.atoms.symbols) == {"Na", "Cl"}


@pytest.mark.parametrize(("fraction", "n_sites"), [(0.001, 1), (0.2, 13), (1.0, 64)])
def test_foreign_elements_come_by_the_map(fraction, n_sites):
    atoms = bulk("Si", cubic=True) * (2, 2, 2)
    step = step_of(atoms, mode="foreign", elements={"Si": ("Ge", "C")}, atom_fraction=fraction)
    assert n_changed(atoms, step.atoms) == n_sites
    counts = Counter(step.atoms.symbols)
    assert counts["Ge"] + counts["C"] == n_sites
    assert step.parameters["changes"] == {f"Si>{symbol}": counts[symbol] for symbol in ("C", "Ge") if counts[symbol]}


def test_foreign_elements_replace_no_more_than_there_are():
    atoms = ROCKSALT * (2, 1, 1)
    changed = step_of(atoms, mode="foreign", elements={"Na": ("K",)}, atom_fraction=0.9).atoms
    assert Counter(changed.symbols) == {"K": 8, "Cl": 8}


def test_single_impurity_changes_places_with_each_host_atom():
    atoms = bulk("Cu", cubic=True) * (2, 1, 1)
    atoms.symbols[0] = "Au"
    partners = set()
    for seed in range(60):
        step = step_of(atoms, seed, atom_fraction=1.0)
        assert n_changed(atoms, step.atoms) == 2
        partners.add(tuple(step.atoms.positions[0]))
    assert len(partners) == 7


def test_as_many_disjoint_pairs_as_there_are_always_form():
    # A B C C: the pair A–B would leave C–C
    atoms = Atoms("AuCuAgAg", [[0, 0, 3 * i] for i in range(4)], cell=[9, 9, 12], pbc=True)
    for seed in range(40):
        assert n_changed(atoms, step_of(atoms, seed, atom_fraction=1.0).atoms) == 4


def test_only_chosen_species_take_part():
    atoms = bulk("BaTiO", crystalstructure="fluorite", a=5.0, cubic=True) * (2, 1, 1)
    fixed = [symbol == "O" for symbol in atoms.symbols]
    for mode in ("exchange", "replace"):
        changed = step_of(atoms, mode=mode, species=("Ba", "Ti"), atom_fraction=0.5).atoms
        assert (changed.positions[fixed] == atoms.positions[fixed]).all()
        assert [symbol == "O" for symbol in changed.symbols] == fixed


@pytest.mark.parametrize("mode", ["exchange", "replace"])
def test_unary_crystal_is_not_sent_as_its_own_duplicate(mode):
    with pytest.raises(NotApplicableError, match="single_species"):
        step_of(bulk("Cu", cubic=True), mode=mode)
    with pytest.raises(NotApplicableError, match="single_species"):
        step_of(ROCKSALT, mode=mode, species=("Na", "K"))


def test_two_atoms_are_not_exchanged_which_is_an_inversion():
    with pytest.raises(NotApplicableError, match="two_atoms"):
        step_of(bulk("NaCl", "rocksalt", a=5.6))


def test_no_atom_to_replace_is_told():
    with pytest.raises(NotApplicableError, match="no_such_species"):
        step_of(ROCKSALT, mode="foreign", elements={"Si": ("Ge",)})


def test_molecule_is_left_alone_unless_asked():
    with pytest.raises(NotApplicableError, match="no_periodic_axis"):
        step_of(molecule("CH3CH2OH"))
    assert Counter(step_of(molecule("CH3CH2OH"), molecules=True, min_ratio=0.0).atoms.symbols) == Counter("CCOHHHHHH")


def test_moments_follow_atoms_that_change_places_and_stay_on_sites_that_change_their_element():
    atoms = ROCKSALT.copy()
    atoms.set_initial_magnetic_moments(np.arange(8.0))
    for mode in ("exchange", "replace"):
        changed = step_of(atoms, mode=mode, atom_fraction=0.5).atoms
        assert changed.get_initial_magnetic_moments().tolist() == [*range(8)]
    assert (changed.positions == atoms.positions).all()


def test_elements_that_do_not_fit_are_drawn_anew_or_the_frame_is_dropped():
    atoms = bulk("C", cubic=True)
    with pytest.raises(DroppedFrameError, match="close_contact"):
        step_of(atoms, mode="foreign", elements={"C": ("Cs",)}, min_ratio=0.7)
    for seed in range(10):
        changed = step_of(atoms, seed, mode="foreign", elements={"C": ("Cs", "N")}, min_ratio=0.7).atoms
        assert set(changed.symbols) == {"C", "N"}


@pytest.mark.parametrize(
    "bad",
    [
        {"fraction": 1.5},
        {"atom_fraction": 0.0},
        {"elements": {"Si": ("Ge",)}},
        {"elements": {"Si": ("Si",)}, "mode": "foreign"},
        {"elements": {"Si": ()}, "mode": "foreign"},
        {"elements": {}, "mode": "foreign"},
        {"species": ("Na",)},
        {"species": ("Na", "Qq")},
        {"min_ratio": 1.0},
        {"max_tries": 0},
    ],
)
def test_settings_out_of_range_are_named(bad):
    with pytest.raises(ValueError, match=f"'{next(iter(bad))}'"):
        SubstitutionSettings(**bad)
