"""Interstitial atoms: where, how many, and never in the vacuum."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, graphene, molecule
from ase.data import covalent_radii

from aiida_alpot.kernel.augmentation.base import DroppedFrameError, NotApplicableError
from aiida_alpot.kernel.augmentation.interstitial import InterstitialSettings, make_interstitials
from aiida_alpot.kernel.geometry import atoms_in_contact


def added(atoms: Atoms, seed: int = 0, **settings) -> Atoms:
    step = make_interstitials(atoms, InterstitialSettings(**settings), np.random.default_rng(seed))
    return step.atoms[len(atoms) :]


def test_atoms_of_a_crystal_stay_and_one_joins_them_in_a_void():
    atoms = bulk("Cu", a=3.6, cubic=True) * (2, 2, 2)
    step = make_interstitials(atoms, InterstitialSettings(), np.random.default_rng(0))
    assert (step.atoms.positions[:32] == atoms.positions).all()
    assert step.atoms.get_chemical_symbols() == ["Cu"] * 33
    distance = step.atoms.get_distances(32, range(32), mic=True).min()
    assert distance == pytest.approx(1.8) or distance == pytest.approx(1.8 * np.sqrt(3) / 2)
    assert step.text == "interstitial Cu"
    assert step.parameters == {"species": ["Cu"], "positions": [step.atoms.positions[32].tolist()]}


def test_voids_are_drawn_in_proportion_to_their_volume():
    # 4 octahedral voids of radius a/2 and 8 tetrahedral ones of radius √3a/4
    atoms = bulk("Cu", a=3.6, cubic=True)
    sites = np.array([added(atoms, seed, max_radius=2.0).positions[0] for seed in range(300)])
    in_octahedra = np.isclose(np.mod(sites / 1.8, 1.0), 0.0, atol=1e-6) | np.isclose(np.mod(sites / 1.8, 1.0), 1.0)
    expected = 4 / (4 + 8 * (np.sqrt(3) / 2) ** 3)
    assert in_octahedra.all(axis=1).mean() == pytest.approx(expected, abs=0.17)  # 6 standard deviations
    assert len(np.unique(sites.round(3), axis=0)) == 12


@pytest.mark.parametrize(("n_cells", "n_added"), [(1, 1), (2, 2), (4, 3)])
def test_number_is_that_asked_for_up_to_the_largest_share(n_cells, n_added):
    atoms = bulk("Cu", cubic=True) * (n_cells, 1, 1)
    assert len(added(atoms, per_frame=3)) == n_added


def test_added_atoms_keep_their_distance_from_each_other():
    atoms = bulk("Cu", cubic=True) * (2, 2, 2)
    for seed in range(10):
        step = make_interstitials(atoms, InterstitialSettings(per_frame=6), np.random.default_rng(seed))
        assert len(atoms_in_contact(step.atoms, 0.5 - 1e-9)) == 0


def test_atom_too_close_to_its_own_image_is_not_added():
    thin = Atoms("Cu8", [[0, 2.5 * i, 2.5 * j] for i in range(4) for j in range(2)], cell=[2.5, 10, 5], pbc=True)
    with pytest.raises(DroppedFrameError, match="close_contact"):
        added(thin, species=("Cs",), min_ratio=0.55)
    assert 0.55 * 2 * covalent_radii[55] > 2.5


def test_given_species_are_drawn_alike_and_others_are_not():
    atoms = bulk("Fe", cubic=True) * (2, 2, 1)
    symbols = [added(atoms, seed, species=("H", "C", "N"), max_radius=2.0).symbols[0] for seed in range(90)]
    assert {symbol: symbols.count(symbol) for symbol in sorted(set(symbols))} == pytest.approx(
        {"C": 30, "H": 30, "N": 30}, abs=27
    )


def test_species_of_a_compound_are_its_own():
    symbols = {added(bulk("NaCl", "rocksalt", a=5.6, cubic=True), seed).symbols[0] for seed in range(20)}
    assert symbols == {"Na", "Cl"}


@pytest.mark.parametrize("pbc", [(True, True, False), (True, True, True)])
def test_no_atom_is_put_into_the_vacuum_of_a_slab(pbc):
    slab = fcc111("Al", (2, 2, 3), vacuum=7.5)
    slab.pbc = pbc
    low, high = slab.positions[:, 2].min(), slab.positions[:, 2].max()
    for seed in range(30):
        step = make_interstitials(slab, InterstitialSettings(), np.random.default_rng(seed))
        assert low < step.atoms.positions[-1, 2] < high
        assert (step.atoms.cell == slab.cell).all()
        assert step.atoms.pbc.tolist() == list(pbc)


def test_columns_and_moments_stay_with_their_atoms():
    atoms = bulk("Fe", cubic=True) * (2, 2, 1)
    atoms.set_initial_magnetic_moments(np.arange(8.0))
    atoms.set_array("site", np.array(list("abcdefgh")))
    atoms.info["charge"] = 1.0
    filled = make_interstitials(atoms, InterstitialSettings(), np.random.default_rng(0)).atoms
    assert filled.get_initial_magnetic_moments().tolist() == [*range(8), 0.0]
    assert filled.arrays["site"].tolist() == [*"abcdefgh", ""]
    assert filled.info == {"charge": 1.0}
    assert atoms.arrays["site"].tolist() == [*"abcdefgh"]


@pytest.mark.parametrize(
    ("atoms", "code"),
    [
        (molecule("CH3CH2OH"), "no_periodic_axis"),
        (bulk("Si"), "too_few_atoms"),
        (graphene(size=(2, 2, 1), vacuum=5.0), "no_void"),
        (Atoms("Cu4", [[0, 0, 9.0 * i] for i in range(4)], cell=[9, 9, 36], pbc=True), "no_void"),
    ],
)
def test_frames_without_room_are_left_out(atoms, code):
    with pytest.raises(NotApplicableError, match=code):
        added(atoms)


@pytest.mark.parametrize(
    "bad",
    [
        {"fraction": 1.5},
        {"per_frame": 0},
        {"max_fraction": 0.0},
        {"species": ()},
        {"species": ("Qq",)},
        {"min_ratio": -0.1},
        {"max_radius": 0.0},
    ],
)
def test_settings_out_of_range_are_named(bad):
    with pytest.raises(ValueError, match=f"'{next(iter(bad))}'"):
        InterstitialSettings(**bad)
