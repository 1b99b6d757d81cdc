"""Rattling: isotropy, scale and contacts."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from hypothesis import given, settings
from hypothesis import strategies as st

from aiida_alpot.kernel.augmentation import (
    DroppedFrameError,
    NotApplicableError,
    RattleSettings,
    draw_displacements,
    rattle,
)
from aiida_alpot.kernel.geometry import closest_pair_ratio, nearest_neighbour_distance

DISTRIBUTIONS = ("uniform", "magnitude", "normal")


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_displacements_fill_all_octants_alike(distribution):
    moves = draw_displacements(16_000, 0.5, distribution, np.random.default_rng(0))
    octant = (moves > 0.0) @ np.array([1, 2, 4])
    counts = np.bincount(octant, minlength=8)
    assert counts == pytest.approx(np.full(8, 2000), abs=250)  # 6 standard deviations
    assert moves.mean(axis=0) == pytest.approx(np.zeros(3), abs=0.02)


@pytest.mark.parametrize(("distribution", "variance"), [("uniform", 3 / 5), ("magnitude", 1 / 3), ("normal", 3.0)])
def test_displacements_have_the_variance_of_their_distribution(distribution, variance):
    moves = draw_displacements(40_000, 2.0, distribution, np.random.default_rng(1))
    assert (moves**2).sum(axis=1).mean() == pytest.approx(4.0 * variance, rel=0.03)
    covariance = moves.T @ moves / len(moves)
    assert covariance == pytest.approx(np.eye(3) * 4.0 * variance / 3.0, abs=0.1 * variance)


def test_uniform_displacements_stay_within_the_fraction_of_the_neighbour_distance():
    atoms = bulk("Cu", cubic=True) * (3, 3, 3)
    moved = rattle(atoms, RattleSettings(fraction=0.3), np.random.default_rng(2)).atoms
    lengths = np.linalg.norm(moved.positions - atoms.positions, axis=1)
    limit = 0.3 * nearest_neighbour_distance(atoms)
    assert lengths.max() <= limit
    assert lengths.max() > 0.9 * limit


def test_amplitude_in_angstrom_overrides_the_fraction():
    atoms = bulk("Cu", cubic=True) * (4, 4, 4)
    settings = RattleSettings(amplitude=0.05, distribution="normal")
    moved = rattle(atoms, settings, np.random.default_rng(3)).atoms
    assert (moved.positions - atoms.positions).std() == pytest.approx(0.05, rel=0.1)


def test_drift_is_removed_only_when_asked():
    atoms = bulk("Cu", cubic=True)
    moved = rattle(atoms, RattleSettings(), np.random.default_rng(4)).atoms
    centred = rattle(atoms, RattleSettings(remove_drift=True), np.random.default_rng(4)).atoms
    assert np.abs((moved.positions - atoms.positions).mean(axis=0)).max() > 1e-3
    assert (centred.positions - atoms.positions).mean(axis=0) == pytest.approx(np.zeros(3), abs=1e-12)


def test_one_atom_cell_is_not_translated_for_nothing():
    with pytest.raises(NotApplicableError, match="single_atom"):
        rattle(bulk("Cu"), RattleSettings(), np.random.default_rng(0))


def test_two_atom_cell_gives_finite_displacements():
    moved = rattle(bulk("Si"), RattleSettings(), np.random.default_rng(0)).atoms
    assert np.isfinite(moved.positions).all()


@pytest.mark.parametrize("seed", range(5))
def test_atoms_never_come_closer_than_the_limit(seed):
    atoms = bulk("Cu", cubic=True) * (3, 3, 3)
    settings = RattleSettings(amplitude=0.6, distribution="normal", min_ratio=0.5, max_tries=500)
    assert closest_pair_ratio(rattle(atoms, settings, np.random.default_rng(seed)).atoms) >= 0.5


def test_hopeless_frame_is_dropped():
    atoms = Atoms("H2", [[0, 0, 0], [0.1, 0, 0]])
    with pytest.raises(DroppedFrameError, match="close_contact"):
        rattle(atoms, RattleSettings(min_ratio=0.9), np.random.default_rng(0))


@pytest.mark.parametrize(
    "bad", [{"fraction": 0.0}, {"amplitude": -1.0}, {"amplitude": 50.0}, {"min_ratio": 1.0}, {"max_tries": 0}]
)
def test_settings_out_of_range_are_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        RattleSettings(**bad)


@settings(max_examples=40, deadline=None)
@given(
    n_atoms=st.one_of(st.integers(2, 12), st.integers(13, 200)),
    pbc=st.tuples(*[st.booleans()] * 3),
    distribution=st.sampled_from(DISTRIBUTIONS),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_frame_is_rattled_within_the_bounds(random_frame, n_atoms, pbc, distribution, seed):
    atoms = random_frame(n_atoms, pbc, seed)
    given_settings = RattleSettings(fraction=0.2, distribution=distribution, min_ratio=0.35, max_tries=500)
    rattled, again = (rattle(atoms, given_settings, np.random.default_rng(seed)).atoms for _ in range(2))
    assert rattled.positions.tobytes() == again.positions.tobytes()
    assert (rattled.pbc == atoms.pbc).all()
    assert (rattled.cell.array == atoms.cell.array).all()
    assert (rattled.numbers == atoms.numbers).all()
    assert (rattled.get_initial_magnetic_moments() == atoms.get_initial_magnetic_moments()).all()
    assert closest_pair_ratio(rattled) >= 0.35
    if distribution != "normal":
        lengths = np.linalg.norm(rattled.positions - atoms.positions, axis=1)
        assert lengths.max() <= 0.2 * nearest_neighbour_distance(atoms) * (1 + 1e-12)


@settings(max_examples=20, deadline=None)
@given(distribution=st.sampled_from(DISTRIBUTIONS), seed=st.integers(0, 2**32 - 1))
def test_displacements_of_any_seed_have_no_preferred_direction(distribution, seed):
    moves = draw_displacements(4000, 1.0, distribution, np.random.default_rng(seed))
    units = moves / np.linalg.norm(moves, axis=1, keepdims=True)
    assert units.mean(axis=0) == pytest.approx(np.zeros(3), abs=6 / np.sqrt(3 * 4000))
    assert units.T @ units / 4000 == pytest.approx(np.eye(3) / 3, abs=6 * 0.3 / np.sqrt(4000))
