"""Filters: what they remove, and what they say."""

import pytest
from ase import Atoms
from ase.build import bulk, molecule

from aiida_alpot.kernel.augmentation import FilterSettings, augment
from aiida_alpot.kernel.augmentation.filters import mass_density
from aiida_alpot.kernel.geometry import closest_pair_ratio

INPUTS = [bulk("Cu"), bulk("Cu", cubic=True) * 2, molecule("H2O"), Atoms("H2", [[0, 0, 0], [0, 0, 0.2]])]


def removed(**filters):
    return augment(INPUTS, {"copies": 0, "filters": filters}, 0).report


def test_without_filters_nothing_but_duplicates_is_removed():
    assert augment([*INPUTS, bulk("Cu")], {"copies": 0}, 0).report["removed"] == {"duplicates": {"same_structure": 1}}


def test_close_pairs_are_removed_by_default_with_an_example():
    report = removed()
    assert report["removed"] == {"min_ratio": {"close_contact": 1}}
    assert report["examples"] == {"min_ratio: close_contact": "input 3: 0.32"}


def test_pairs_stay_if_the_test_is_off():
    assert removed(min_ratio=None)["removed"] == {}


def test_large_frames_are_removed_with_their_size():
    report = removed(max_atoms=10)
    assert report["removed"]["max_atoms"] == {"too_many_atoms": 1}
    assert report["examples"]["max_atoms: too_many_atoms"] == "input 1: 32"


def test_density_is_that_of_the_handbook_and_its_window_is_for_bulk_only():
    assert mass_density(bulk("Cu")) == pytest.approx(8.96, rel=0.01)
    assert mass_density(bulk("Si")) == pytest.approx(2.33, rel=0.01)
    assert removed(density=[9.5, 20.0])["removed"]["density"] == {"too_low": 2}
    assert removed(density=[0.0, 8.0])["removed"]["density"] == {"too_high": 2}
    assert removed(density=[8.0, 9.5])["removed"] == {"min_ratio": {"close_contact": 1}}


def test_copies_are_judged_by_their_distances_as_they_are_in_the_end():
    frame = bulk("NaCl", "rocksalt", a=5.6) * 2
    recipe = {"copies": 60, "keep_input": False, "strain": {"range": [-0.4, 0.1], "min_ratio": 0.3}}
    recipe |= {"rattle": {"amplitude": 0.3, "distribution": "normal", "min_ratio": 0.3}, "vacancy": {"fraction": 0.5}}
    made = augment([frame], recipe, 0).frames
    kept = augment([frame], {**recipe, "filters": {"min_ratio": 0.6}}, 0).frames
    expected = [atoms.positions.tobytes() for atoms in made if closest_pair_ratio(atoms) >= 0.6]
    assert [atoms.positions.tobytes() for atoms in kept] == expected
    assert 0 < len(kept) < len(made)


def test_every_frame_is_counted_once():
    recipe = {"copies": 40, "strain": {"range": [-0.3, 0.3], "min_ratio": 0.0}, "filters": {"density": [8.0, 10.0]}}
    report = augment([bulk("Cu")], recipe, 0).report
    assert report["n_output"] + sum(sum(found.values()) for found in report["removed"].values()) == 41
    assert report["n_output"] == sum(report["made"].values())


@pytest.mark.parametrize(
    "bad", [{"max_atoms": 0}, {"min_ratio": 1.0}, {"density": (2.0, 1.0)}, {"near_duplicates": 0.0}]
)
def test_settings_out_of_range_are_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        FilterSettings(**bad)
