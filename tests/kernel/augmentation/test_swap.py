"""Monte-Carlo swaps: the Boltzmann distribution, exactly."""

import itertools
from collections import Counter

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.neighborlist import neighbor_list

from aiida_alpot.kernel.augmentation.base import DroppedFrameError, NotApplicableError
from aiida_alpot.kernel.augmentation.swap import SwapSettings, swap
from aiida_alpot.kernel.units import KB

TEMPERATURE = 600.0


def toy_chain() -> Atoms:
    """Return six sites on a line, of three elements: 60 arrangements."""
    return Atoms("CuCuCuAuAuAg", [[2.5 * k, 0, 0] for k in range(6)], cell=[15, 9, 9], pbc=[True, False, False])


def by_site(atoms: Atoms) -> tuple[str, ...]:
    order = np.argsort(atoms.positions[:, 0])
    return tuple(np.array(atoms.get_chemical_symbols())[order])


def toy_energy(atoms: Atoms) -> float:
    """Return −0.04 eV for each like pair of neighbours, and a field that no two sites feel alike."""
    symbols = by_site(atoms)
    bonds = sum(one == other for one, other in zip(symbols, symbols[1:] + symbols[:1], strict=True))
    field = sum(0.01 * k for k, symbol in enumerate(symbols) if symbol == "Ag")
    return -0.04 * bonds + field


def test_frames_at_the_end_have_boltzmann_weights():
    # exact: all 60 arrangements; the walk starts anew from each frame it ends in
    arrangements = sorted(set(itertools.permutations(["Cu", "Cu", "Cu", "Au", "Au", "Ag"])))
    energies = np.array([toy_energy(Atoms(list(s), toy_chain().positions)) for s in arrangements])
    weights = np.exp(-(energies - energies.min()) / (KB * TEMPERATURE))
    weights /= weights.sum()
    rng = np.random.default_rng(0)
    atoms, n_samples = toy_chain(), 3000
    found: Counter[tuple[str, ...]] = Counter()
    for _ in range(n_samples):
        atoms = swap(atoms, SwapSettings(TEMPERATURE, attempts=4), rng, toy_energy).atoms
        found[by_site(atoms)] += 1
    frequencies = np.array([found[symbols] for symbols in arrangements]) / n_samples
    assert weights.max() > 4 * weights.min()
    tolerance = 6 * np.sqrt(weights * 3 / n_samples)  # 6 standard deviations of every third sample
    assert (np.abs(frequencies - weights) < tolerance).all()
    assert frequencies @ energies == pytest.approx(weights @ energies, abs=0.004)


def test_one_attempt_obeys_detailed_balance():
    # π(a) P(a→b) = π(b) P(b→a), counted for one pair of neighbouring arrangements
    settings = SwapSettings(TEMPERATURE, attempts=1)
    one = Atoms("CuCuAu", [[2.5 * k, 0, 0] for k in range(3)], cell=[7.5, 9, 9], pbc=[True, False, False])
    other = Atoms("CuAuCu", one.positions, cell=one.cell, pbc=one.pbc)

    def energy(atoms: Atoms) -> float:
        return 0.05 * by_site(atoms).index("Au")

    def rate(start: Atoms, end: Atoms) -> float:
        rng = np.random.default_rng(1)
        return float(np.mean([by_site(swap(start, settings, rng, energy).atoms) == by_site(end) for _ in range(1500)]))

    ratio = np.exp((energy(one) - energy(other)) / (KB * TEMPERATURE))
    assert rate(one, other) / rate(other, one) == pytest.approx(ratio, rel=0.2)
    assert rate(other, one) == pytest.approx(0.5 / ratio, abs=0.06)


def test_cold_walk_only_goes_down_and_a_hot_one_wanders():
    atoms = toy_chain()
    cold = swap(atoms, SwapSettings(1.0, attempts=200), np.random.default_rng(0), toy_energy)
    assert cold.parameters["energy_end"] <= cold.parameters["energy_start"]
    hot = swap(atoms, SwapSettings(1e6, attempts=200), np.random.default_rng(0), toy_energy)
    assert hot.parameters["accepted"] > 190
    assert hot.text == f"swap {hot.parameters['accepted']}"


def test_energies_and_counts_are_told():
    step = swap(toy_chain(), SwapSettings(TEMPERATURE, attempts=30), np.random.default_rng(0), toy_energy)
    assert step.parameters["energy_start"] == pytest.approx(toy_energy(toy_chain()))
    assert step.parameters["energy_end"] == pytest.approx(toy_energy(step.atoms))
    assert step.parameters["temperature"] == TEMPERATURE
    assert step.parameters["attempts"] == 30


def test_calculator_serves_as_energy_and_unlike_atoms_seek_each_other():
    atoms = bulk("Cu", a=3.9, cubic=True) * (2, 2, 1)
    atoms.symbols[:8] = "Au"
    step = swap(atoms, SwapSettings(300.0, attempts=60), np.random.default_rng(0), EMT())
    assert step.atoms.calc is None
    assert step.parameters["energy_end"] < step.parameters["energy_start"]

    def n_unlike(frame: Atoms) -> int:
        first, second = neighbor_list("ij", frame, 3.0)
        return int((frame.numbers[first] != frame.numbers[second]).sum())

    assert n_unlike(step.atoms) > n_unlike(atoms)  # Cu–Au mixes in EMT, and orders


def test_only_chosen_species_and_equal_values_of_a_column_change_places():
    atoms = bulk("TiN", "rocksalt", a=4.2, cubic=True) * (2, 1, 1)
    atoms.symbols[[0, 8]] = "Al"
    atoms.set_array("layer", np.arange(16) // 8)
    settings = SwapSettings(1e6, attempts=50, species=("Ti", "Al"), column="layer")
    step = swap(atoms, settings, np.random.default_rng(0), lambda _: 0.0)
    nitrogen = atoms.symbols == "N"
    assert (step.atoms.positions[nitrogen] == atoms.positions[nitrogen]).all()
    assert step.parameters["accepted"] > 0
    for layer in (0, 1):
        sites, moved = (
            {tuple(row) for row in frame.positions[frame.arrays["layer"] == layer]} for frame in (atoms, step.atoms)
        )
        assert sites == moved


def test_moments_follow_their_atoms():
    atoms = toy_chain()
    atoms.set_initial_magnetic_moments(np.arange(6.0))
    swapped = swap(atoms, SwapSettings(1e6, attempts=20), np.random.default_rng(0), lambda _: 0.0).atoms
    assert swapped.get_initial_magnetic_moments().tolist() == list(range(6))
    assert swapped.get_chemical_symbols() == atoms.get_chemical_symbols()
    assert (swapped.positions != atoms.positions).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_energy_that_is_not_finite_is_never_accepted(bad):
    start = by_site(toy_chain())

    def energy(atoms: Atoms) -> float:
        return 0.0 if by_site(atoms) == start else bad

    step = swap(toy_chain(), SwapSettings(attempts=20), np.random.default_rng(0), energy)
    assert step.parameters["accepted"] == 0
    with pytest.raises(DroppedFrameError, match="energy_not_finite"):
        swap(toy_chain(), SwapSettings(), np.random.default_rng(0), lambda _: bad)


@pytest.mark.parametrize(
    ("atoms", "settings", "code"),
    [
        (bulk("Cu", cubic=True), SwapSettings(), "single_species"),
        (bulk("TiN", "rocksalt", a=4.2), SwapSettings(species=("Ti", "Al")), "single_species"),
        (molecule("H2O"), SwapSettings(), "no_periodic_axis"),
        (bulk("TiN", "rocksalt", a=4.2), SwapSettings(column="layer"), "no_column"),
    ],
)
def test_frames_without_unlike_atoms_are_left_as_they_are(atoms, settings, code):
    with pytest.raises(NotApplicableError, match=code):
        swap(atoms, settings, np.random.default_rng(0), lambda _: 0.0)


@pytest.mark.parametrize(
    "bad", [{"temperature": 0.0}, {"attempts": 0}, {"species": ("Cu",)}, {"species": ("Cu", "Qq")}]
)
def test_settings_out_of_range_are_named(bad):
    with pytest.raises(ValueError, match=f"'{next(iter(bad))}'"):
        SwapSettings(**bad)
