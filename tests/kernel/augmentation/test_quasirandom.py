"""Quasirandom structures against the correlation functions of a random alloy."""

import itertools

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from ase.neighborlist import neighbor_list

from aiida_alpot.kernel.augmentation.base import NotApplicableError
from aiida_alpot.kernel.augmentation.quasirandom import arrange, shell_weights

NO_GROUPS = np.zeros(1000, dtype=int)


def random_numbers(counts: dict[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).permutation(np.repeat(list(counts), list(counts.values())))


def quasirandom(atoms: Atoms, counts: dict[int, int], n_shells: int = 3, n_steps: int = 5000, seed: int = 0) -> Atoms:
    numbers = random_numbers(counts, seed)
    arranged = atoms.copy()
    groups = NO_GROUPS[: len(atoms)]
    arranged.numbers, _ = arrange(atoms, numbers, groups, n_shells, n_steps, np.random.default_rng(seed))
    return arranged


def correlation(atoms: Atoms, low: float, high: float, element: int) -> float:
    """Return the mean of σ_i σ_j over pairs and images at these distances, σ being 1 for *element* and −1 else."""
    first, second, distance = neighbor_list("ijd", atoms, high)
    spin = np.where(atoms.numbers == element, 1.0, -1.0)
    return float((spin[first] * spin[second])[distance > low].mean())


FCC_SHELLS = [(2.0, 3.0), (3.2, 4.0), (4.2, 4.6)]
"""Å, bounds of the first three shells of fcc with a lattice constant of 3.6 Å, at 2.55, 3.6 and 4.41."""


@pytest.mark.parametrize("cells", [(2, 2, 2), (3, 2, 2), (2, 2, 4)])
def test_equal_parts_on_fcc_have_pair_correlations_near_zero(cells):
    atoms = bulk("Cu", a=3.6, cubic=True) * cells
    half = len(atoms) // 2
    mixed = quasirandom(atoms, {29: half, 79: half})
    assert [correlation(mixed, *shell, 79) for shell in FCC_SHELLS] == pytest.approx([0.0] * 3, abs=0.03)


def test_other_compositions_have_the_square_of_the_mean_spin():
    mixed = quasirandom(bulk("Cu", a=3.6, cubic=True) * (2, 2, 2), {29: 24, 79: 8})
    assert [correlation(mixed, *shell, 79) for shell in FCC_SHELLS] == pytest.approx([0.25] * 3, abs=0.05)


def test_five_elements_have_all_pairs_as_often_as_by_chance():
    atoms = bulk("W", a=3.2, cubic=True) * (3, 3, 3)
    counts = {73: 11, 74: 11, 42: 11, 41: 11, 23: 10}
    mixed = quasirandom(atoms, counts, n_shells=2, n_steps=3000)
    first, second = neighbor_list("ij", mixed, 2.9)
    for a, b in itertools.product(counts, repeat=2):
        share = ((mixed.numbers[first] == a) & (mixed.numbers[second] == b)).mean()
        assert share == pytest.approx(counts[a] * counts[b] / 54**2, abs=0.008)


@pytest.mark.parametrize("seed", range(3))
def test_it_is_nearer_to_the_random_alloy_than_a_random_arrangement(seed):
    atoms = bulk("Cu", a=3.6, cubic=True) * (2, 2, 2)
    numbers = random_numbers({29: 16, 79: 16}, seed)
    rng = np.random.default_rng(seed)
    _, before = arrange(atoms, numbers, NO_GROUPS[:32], 3, 0, rng)
    _, after = arrange(atoms, numbers, NO_GROUPS[:32], 3, 5000, rng)
    assert np.abs(after).max() < 0.2 * np.abs(before).max()


def test_annealing_finds_the_best_of_all_arrangements_of_a_small_cell():
    atoms = bulk("Cu", a=3.6) * (2, 2, 2)
    shells = shell_weights(atoms, 2)

    def objective(spins: np.ndarray) -> float:
        # every entry of Δ of two elements is a quarter of the deviation of <σσ>, with equal parts
        return sum(4 * ((spins @ shell @ spins) / 4) ** 2 / (s + 1) for s, shell in enumerate(shells))

    arrangements = [np.where(np.isin(range(8), up), 1.0, -1.0) for up in itertools.combinations(range(8), 4)]
    best = min(objective(spins) for spins in arrangements)
    mixed = quasirandom(atoms, {29: 4, 79: 4}, n_shells=2, n_steps=1000)
    assert objective(np.where(mixed.numbers == 79, 1.0, -1.0)) == pytest.approx(best)


@pytest.mark.parametrize("cells", [(1, 2, 3), (1, 1, 4)])
def test_images_of_an_atom_count_as_neighbours(cells):
    # a search among nearest images calls cells like these perfect while their second shell is at 0.39 and 0.67
    atoms = bulk("Cu", a=3.6, cubic=True) * cells
    half = len(atoms) // 2
    mixed = quasirandom(atoms, {29: half, 79: half}, n_shells=2)
    weights = shell_weights(atoms, 2)
    spins = np.where(mixed.numbers == 79, 1.0, -1.0)
    for shell, (low, high) in zip(weights, FCC_SHELLS[:2], strict=True):
        assert spins @ shell @ spins == pytest.approx(correlation(mixed, low, high, 79))
    own = 1 / 3 if cells[0] == 1 and cells[1] > 1 else 2 / 3  # pairs of the second shell that are an atom and its image
    assert np.trace(weights[1]) == pytest.approx(own)


def test_shells_have_the_coordination_numbers_of_their_lattice():
    for atoms, coordination in ((bulk("Cu", cubic=True), [12, 6, 24]), (bulk("Fe", cubic=True), [8, 6, 12])):
        cell = atoms * (4, 4, 4)
        counts = (shell_weights(cell, 3) > 0).sum(axis=2)
        assert (counts == np.array(coordination)[:, None]).all()


def test_vacuum_of_a_slab_is_not_crossed():
    slab = fcc111("Cu", (4, 4, 3), a=3.6, vacuum=0.5)
    n_neighbours = (shell_weights(slab, 1)[0] > 0).sum(axis=1)
    assert sorted(set(n_neighbours.tolist())) == [9, 12]


def test_shells_are_found_in_a_crystal_that_is_a_little_distorted_and_in_an_amorphous_frame():
    crystal = bulk("Cu", a=3.6, cubic=True) * (3, 3, 3)
    rattled = crystal.copy()
    rattled.rattle(0.03, seed=0)
    assert ((shell_weights(rattled, 3) > 0) == (shell_weights(crystal, 3) > 0)).all()
    amorphous = crystal.copy()
    amorphous.rattle(0.4, seed=0)
    numbers = random_numbers({29: 54, 79: 54})
    rng = np.random.default_rng(0)
    _, before = arrange(amorphous, numbers, NO_GROUPS[:108], 3, 0, rng)
    _, after = arrange(amorphous, numbers, NO_GROUPS[:108], 3, 1000, rng)
    assert len(after) == 3
    assert after.max() < 0.3 * before.max()


def test_elements_stay_on_their_sublattices():
    atoms = bulk("TiN", "rocksalt", a=4.2, cubic=True) * (2, 2, 2)
    groups = (atoms.numbers == 7).astype(int)
    numbers = np.where(groups == 0, 22, 7)
    numbers[np.flatnonzero(groups == 0)[:16]] = 13
    numbers[np.flatnonzero(groups == 1)[:8]] = 6
    arranged, deviations = arrange(atoms, numbers, groups, 2, 3000, np.random.default_rng(0))
    for group in (0, 1):
        assert sorted(arranged[groups == group]) == sorted(numbers[groups == group])
    assert deviations.max() < 0.01
    # first shell: pairs between the sublattices
    first, second = neighbor_list("ij", atoms, 2.3)
    share = ((arranged[first] == 13) & (arranged[second] == 6)).mean()
    assert share == pytest.approx(0.5 * 0.25 / 2, abs=0.01)


def test_more_sites_than_one_can_search_are_told():
    atoms = bulk("Cu", cubic=True) * (8, 8, 8)
    numbers = random_numbers({29: 1024, 79: 1024})
    with pytest.raises(NotApplicableError, match="too_many_sites"):
        arrange(atoms, numbers, np.zeros(2048, dtype=int), 3, 10, np.random.default_rng(0))


def test_what_cannot_be_arranged_is_returned():
    pure = np.full(4, 29)
    arranged, deviations = arrange(bulk("Cu", cubic=True), pure, NO_GROUPS[:4], 2, 100, np.random.default_rng(0))
    assert arranged.tolist() == pure.tolist()
    assert deviations.tolist() == [0.0, 0.0]
    coincident = Atoms("Cu2", np.zeros((2, 3)))
    assert arrange(coincident, np.array([29, 79]), NO_GROUPS[:2], 2, 9, np.random.default_rng(0))[1].tolist() == []
    arranged, deviations = arrange(Atoms("Cu"), pure[:1], NO_GROUPS[:1], 2, 100, np.random.default_rng(0))
    assert (arranged.tolist(), deviations.tolist()) == ([29], [])


@pytest.mark.timeout(60)
def test_shells_do_not_depend_on_the_choice_of_the_cell():
    atoms = bulk("Cu", a=3.6, cubic=True)
    skew = atoms.copy()
    skew.set_cell(np.array([[1, 0, 0], [0, 1, 0], [370, 530, 1]]) @ atoms.cell.array)
    assert shell_weights(skew, 3) == pytest.approx(shell_weights(atoms, 3))
