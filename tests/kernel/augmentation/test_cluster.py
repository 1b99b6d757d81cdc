"""Clusters: distances per pair of elements, connected, of any size and composition."""

import math

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_numbers, covalent_radii
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components

from aiida_alpot.kernel.augmentation import DroppedFrameError, augment, cluster
from aiida_alpot.kernel.augmentation.base import NotApplicableError
from aiida_alpot.kernel.augmentation.cluster import ClusterSettings, make_clusters, pair_distances


def clusters_of(elements, seed=0, **values):
    return list(make_clusters(elements, ClusterSettings(**values), np.random.default_rng(seed)))


def scaled_distances(atoms, distances=None):
    """Distance of every two atoms over that of their elements, infinite on the diagonal."""
    radii = covalent_radii[atoms.numbers]
    closest = np.add.outer(radii, radii)
    for key, distance in (distances or {}).items():
        first, second = (atoms.numbers == atomic_numbers[symbol] for symbol in key.split("-"))
        closest[np.outer(first, second) | np.outer(second, first)] = distance
    return atoms.get_all_distances() / closest + np.diag(np.full(len(atoms), np.inf))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    elements=st.lists(st.sampled_from(["H", "C", "O", "Cu", "Cs"]), min_size=1, max_size=4, unique=True),
    min_atoms=st.integers(2, 12),
    more=st.integers(0, 18),
    distances=st.dictionaries(st.sampled_from(["H-H", "O-Cu", "Cs-C"]), st.floats(0.5, 4.0)),
)
def test_nearest_neighbours_lie_between_the_bounds_and_the_cluster_is_connected(
    seed, elements, min_atoms, more, distances
):
    values = {"count": 3, "min_atoms": min_atoms, "max_atoms": min_atoms + more, "distances": distances}
    for step in clusters_of(elements, seed, **values):
        atoms = step.atoms
        scaled = scaled_distances(atoms, distances)
        assert min_atoms <= len(atoms) == step.parameters["n_atoms"] <= min_atoms + more
        assert set(atoms.symbols) <= set(elements)
        assert scaled.min() >= 1.0 - 1e-9
        assert scaled.min(axis=1).max() <= math.sqrt(3.0) + 1e-9
        assert connected_components(scaled <= math.sqrt(3.0) + 1e-9)[0] == 1
        assert not atoms.pbc.any()
        assert not atoms.cell.array.any()
        assert atoms.positions.mean(axis=0) == pytest.approx(np.zeros(3), abs=1e-9)


def test_defaults_make_twenty_clusters_of_up_to_thirty_atoms():
    steps = clusters_of(["Cu", "O"])
    sizes = [len(step.atoms) for step in steps]
    assert len(steps) == 20
    assert 2 <= min(sizes) < max(sizes) <= 30
    assert steps[0].text == f"cluster {steps[0].atoms.get_chemical_formula()}"


def test_carbon_has_the_distance_of_the_paper_and_pairs_are_given_in_either_order():
    assert pair_distances(["C"], {}) == pytest.approx(np.array([[1.5]]), abs=0.03)
    expected = np.array([[2.64, 1.9], [1.9, 1.2]])
    assert pair_distances(["Cu", "O"], {"O-Cu": 1.9, "O-O": 1.2}) == pytest.approx(expected)
    assert pair_distances(["Cu", "O"], {"Cu-O": 1.9, "O-O": 1.2}) == pytest.approx(expected)


def test_dimers_fill_the_range_of_distances_in_all_directions():
    steps = clusters_of(["Cu"], count=2000, min_atoms=2, max_atoms=2, distances={"Cu-Cu": 2.0})
    vectors = np.array([step.atoms.get_distance(0, 1, vector=True) for step in steps])
    lengths = np.linalg.norm(vectors, axis=1)
    assert lengths.min() == pytest.approx(2.0, abs=0.01)
    assert lengths.max() == pytest.approx(2.0 * math.sqrt(3.0), abs=0.01)
    directions = vectors / lengths[:, None]
    assert directions.T @ directions / len(directions) == pytest.approx(np.eye(3) / 3.0, abs=0.04)


def test_concentrations_cover_the_whole_range():
    steps = clusters_of(["Cu", "Au"], count=200, min_atoms=20, max_atoms=20)
    shares = np.histogram([np.mean(step.atoms.symbols == "Cu") for step in steps], bins=4, range=(0, 1))[0]
    assert (shares > 30).all()


def test_seed_alone_decides():
    first, again, other = (clusters_of(["Cu", "O"], seed, count=3) for seed in (1, 1, 2))
    assert [step.atoms for step in first] == [step.atoms for step in again]
    assert [step.atoms for step in first] != [step.atoms for step in other]


def test_cluster_for_which_no_room_is_found_is_counted(monkeypatch):
    monkeypatch.setattr(cluster, "_TRIES", 1)
    made = clusters_of(["Cu"], count=10, min_atoms=30, max_atoms=30)
    assert len(made) == 10
    assert {str(reason) for reason in made if isinstance(reason, DroppedFrameError)} == {"no_room"}


def test_clusters_of_the_elements_of_all_inputs_are_distorted_as_inputs_are():
    on = {"copies": 2, "rattle": {}, "cluster": {"count": 3}}
    frames = augment([bulk("Cu"), bulk("Al")], on, 0).frames
    made = [atoms for atoms in frames if atoms.info["parent_index"] == -1]
    assert [atoms.info["config_type"] for atoms in made] == ["cluster", "cluster+rattle", "cluster+rattle"] * 3
    assert {symbol for atoms in made for symbol in atoms.symbols} == {"Cu", "Al"}


@pytest.mark.parametrize(
    "bad",
    [
        {"count": 0},
        {"min_atoms": 1},
        {"max_atoms": 1},
        {"max_ratio": 0.9},
        {"max_ratio": math.nan},
        {"elements": ()},
        {"elements": ("Qq",)},
        {"distances": {"Cu": 2.0}},
        {"distances": {"Cu-Qq": 2.0}},
        {"distances": {"Cu-O": 0.0}},
        {"distances": {"Cu-O": math.nan}},
        {"distances": {"Cu-O": 2.0, "O-Cu": 2.1}},
    ],
)
def test_settings_out_of_range_are_named(bad):
    with pytest.raises(ValueError, match=f"'{next(iter(bad))}'"):
        ClusterSettings(**bad)


def test_elements_without_a_covalent_radius_need_their_distances():
    given = {"Bk-Bk": 3.4, "O-Bk": 2.2}
    assert len(clusters_of(["Bk", "O"], count=3, distances=given)) == 3
    for distances in ({}, {"Bk-Bk": 3.4}):
        with pytest.raises(NotApplicableError, match="no_covalent_radius_of_Bk"):
            clusters_of(["Bk", "O"], count=3, distances=distances)
    report = augment([bulk("Cu"), Atoms("Bk")], {"copies": 0, "cluster": {}, "scan": {"kinds": ["dimer"]}}, 0).report
    assert report["skipped"]["cluster"] == {"no_covalent_radius_of_Bk": 1}
    assert report["skipped"]["scan"] == {"no_covalent_radius_of_Bk": 1}
