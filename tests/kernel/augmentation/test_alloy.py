"""Alloys: concentrations, sublattices and variety."""

from collections import Counter

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from hypothesis import given, settings
from hypothesis import strategies as st

from aiida_alpot.kernel.augmentation import augment
from aiida_alpot.kernel.augmentation.alloy import (
    AlloySettings,
    Mixture,
    alloy,
    design_compositions,
    draw_counts,
    largest_remainder,
)
from aiida_alpot.kernel.augmentation.base import DroppedFrameError, NotApplicableError
from aiida_alpot.kernel.settings import SettingsError, parse_settings

FCC = bulk("Cu", cubic=True) * (2, 2, 2)
ROCKSALT = bulk("TiN", "rocksalt", a=4.2, cubic=True) * (2, 2, 2)


def step_of(atoms: Atoms, seed: int = 0, **given_settings):
    return alloy(atoms, parse_settings(AlloySettings, given_settings, "alloy"), np.random.default_rng(seed))


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n_species=st.integers(2, 6), total=st.integers(1, 300))
def test_whole_numbers_are_the_nearest_to_the_shares_that_add_up(seed, n_species, total):
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(n_species, 0.5))
    counts = largest_remainder(shares, total, rng)
    assert counts.sum() == total
    assert (np.abs(counts - shares * total) < 1.0).all()
    remainders = shares * total - np.floor(shares * total)
    up = counts > np.floor(shares * total + 1e-9)
    assert up.all() or not up.any() or remainders[up].min() >= remainders[~up].max() - 1e-6


def test_equal_remainders_are_settled_by_lot():
    rng = np.random.default_rng(0)
    first = [largest_remainder(np.array([0.5, 0.5]), 3, rng)[0] for _ in range(400)]
    assert first.count(2) == pytest.approx(200, abs=60)  # 6 standard deviations


def test_exact_concentrations_are_met_exactly():
    counts = largest_remainder(np.array([0.1, 0.2, 0.7]), 30, np.random.default_rng(0))
    assert counts.tolist() == [3, 6, 21]


def test_given_composition_is_reached_and_told():
    step = step_of(FCC, alloy_species=["Cu", "Au"], compositions=[{"Cu": 0.75, "Au": 0.25}])
    assert Counter(step.atoms.symbols) == {"Cu": 24, "Au": 8}
    assert step.text == "alloy Au8Cu24"
    assert step.parameters == {"composition": {"alloy": {"Cu": 0.75, "Au": 0.25}}}
    assert (step.atoms.positions == FCC.positions).all()


def test_composition_that_a_cell_cannot_hold_is_told_as_it_is():
    step = step_of(bulk("Cu", cubic=True), alloy_species=["Cu", "Au"], compositions=[{"Cu": 0.9, "Au": 0.1}])
    assert step.parameters["composition"]["alloy"] == {"Cu": 1.0, "Au": 0.0}


def test_several_given_compositions_are_chosen_alike():
    compositions = [{"Cu": 1.0}, {"Cu": 0.5, "Au": 0.5}]
    counts = [
        Counter(step_of(FCC, seed, alloy_species=["Cu", "Au"], compositions=compositions).atoms.symbols)["Au"]
        for seed in range(100)
    ]
    assert Counter(counts) == pytest.approx({0: 50, 16: 50}, abs=30)


def test_flat_draw_covers_the_whole_range_of_a_binary_alike():
    mixture = Mixture(("Cu", "Au"))
    rng = np.random.default_rng(0)
    counts = np.array([draw_counts(mixture, 10, rng)["Au"] for _ in range(11_000)])
    found = np.bincount(counts, minlength=11)
    expected = np.array([550, *[1100] * 9, 550])  # rounding gives the ends half the range
    assert found == pytest.approx(expected, abs=200)


def test_flat_draw_of_a_ternary_has_the_moments_of_a_uniform_simplex():
    mixture = Mixture(("Cu", "Au", "Ag"))
    rng = np.random.default_rng(0)
    shares = np.array([list(draw_counts(mixture, 1000, rng).values()) for _ in range(5000)]) / 1000
    assert shares.mean(axis=0) == pytest.approx(np.full(3, 1 / 3), abs=0.02)
    assert np.cov(shares.T) == pytest.approx((3 * np.eye(3) - 1) / 36, abs=0.005)


def test_grid_has_all_compositions_alike_and_no_other():
    mixture = Mixture(("Cu", "Au", "Ag"), grid=2)
    rng = np.random.default_rng(0)
    drawn = Counter(tuple(draw_counts(mixture, 8, rng).values()) for _ in range(3000))
    assert drawn == pytest.approx(
        {(8, 0, 0): 500, (0, 8, 0): 500, (0, 0, 8): 500, (4, 4, 0): 500, (4, 0, 4): 500, (0, 4, 4): 500}, abs=125
    )


def test_corners_are_included_as_asked():
    rng = np.random.default_rng(0)
    mixture = Mixture(("Cu", "Au", "Ag"), corners=0.3)
    pure = [max(draw_counts(mixture, 10_000, rng).values()) == 10_000 for _ in range(2000)]
    assert np.mean(pure) == pytest.approx(0.3, abs=0.06)


def test_a_hundred_copies_are_nearly_all_different():
    copies = {tuple(step_of(FCC, seed, alloy_species=["Cu", "Au"]).atoms.numbers) for seed in range(100)}
    assert len(copies) > 90


def test_other_elements_than_those_of_the_alloy_stay():
    step = step_of(ROCKSALT, alloy_species=["Ti", "Al"], compositions=[{"Ti": 0.5, "Al": 0.5}])
    assert Counter(step.atoms.symbols) == {"Ti": 16, "Al": 16, "N": 32}
    nitrogen = ROCKSALT.symbols == "N"
    assert (step.atoms.symbols[nitrogen] == "N").all()


def test_alloy_takes_all_sites_that_are_not_fixed():
    half = {"Cr": 0.5, "Al": 0.5}
    fixed = step_of(ROCKSALT, alloy_species=["Cr", "Al"], fixed_species=["N"], compositions=[half])
    assert Counter(fixed.atoms.symbols) == {"Cr": 16, "Al": 16, "N": 32}
    free = step_of(ROCKSALT, alloy_species=["Cr", "Al"], fixed_species=[], compositions=[half])
    assert Counter(free.atoms.symbols) == {"Cr": 32, "Al": 32}


def test_sublattices_have_their_own_mixtures():
    sublattices = {
        "Ti": {"species": ["Ti", "Al", "V"], "compositions": [{"Ti": 0.5, "Al": 0.25, "V": 0.25}]},
        "N": {"species": ["N", "C"], "grid": 1},
    }
    step = step_of(ROCKSALT, sublattices=sublattices)
    metal, other = (Counter(step.atoms.symbols[ROCKSALT.symbols == symbol]) for symbol in ("Ti", "N"))
    assert metal == {"Ti": 16, "Al": 8, "V": 8}
    assert len(other) == 1
    assert other.keys() <= {"N", "C"}
    assert step.parameters["composition"]["Ti"] == {"Ti": 0.5, "Al": 0.25, "V": 0.25}


@pytest.mark.parametrize("labels", [np.array([0, 1, 2, 2]), np.array(["0", "1", "2", "2"])])
def test_column_tells_the_sublattice(labels):
    atoms = bulk("Cu", cubic=True)
    atoms.set_array("site", labels)
    sublattices = {"2": {"species": ["Au", "Ag"]}}
    mixed = step_of(atoms, sublattices=sublattices, column="site").atoms
    assert mixed.get_chemical_symbols()[:2] == ["Cu", "Cu"]
    assert set(mixed.get_chemical_symbols()[2:]) <= {"Au", "Ag"}
    assert (mixed.arrays["site"] == labels).all()


def test_quasirandom_alloy_tells_how_far_its_pairs_are_off():
    step = step_of(FCC, alloy_species=["Cu", "Au"], compositions=[{"Cu": 0.5, "Au": 0.5}], arrangement="quasirandom")
    assert Counter(step.atoms.symbols) == {"Cu": 16, "Au": 16}
    assert len(step.parameters["pair_deviations"]) == 3
    assert max(step.parameters["pair_deviations"]) < 0.01


@pytest.mark.parametrize(
    ("atoms", "given_settings", "code"),
    [
        (molecule("H2O"), {"alloy_species": ["Cu", "Au"]}, "no_alloy_site"),
        (FCC, {"alloy_species": ["Au", "Ag"]}, "no_alloy_site"),
        (FCC, {"sublattices": {"Ti": {"species": ["Ti", "Al"]}}}, "no_alloy_site"),
        (FCC, {"sublattices": {"a": {"species": ["Ti", "Al"]}}, "column": "site"}, "no_column"),
    ],
)
def test_frames_without_the_alloy_are_left_as_they_are(atoms, given_settings, code):
    with pytest.raises(NotApplicableError, match=code):
        step_of(atoms, **given_settings)


def test_elements_too_large_for_their_sites_drop_the_frame():
    half = {"C": 0.5, "Cs": 0.5}
    with pytest.raises(DroppedFrameError, match="close_contact"):
        step_of(bulk("C", cubic=True), alloy_species=["C", "Cs"], compositions=[half], min_ratio=0.6)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({}, "'alloy_species' or 'sublattices'"),
        ({"alloy_species": ["Cu"]}, "'species' must name two"),
        ({"alloy_species": ["Cu", "Xy"]}, "'alloy_species'.*'Xy'"),
        ({"alloy_species": ["Cu", "Au"], "fixed_species": ["Xy"]}, "'fixed_species'.*'Xy'"),
        ({"alloy_species": ["Cu", "Au"], "column": "site"}, "'column'"),
        ({"alloy_species": ["Cu", "Au"], "compositions": [{"Cu": 0.5, "Ag": 0.5}]}, "'compositions'"),
        ({"alloy_species": ["Cu", "Au"], "compositions": [{"Cu": 0.5, "Au": 0.4}]}, "'compositions'"),
        ({"alloy_species": ["Cu", "Au"], "compositions": [{"Cu": 1.5, "Au": -0.5}]}, "'compositions'"),
        ({"alloy_species": ["Cu", "Au"], "compositions": []}, "'compositions'"),
        ({"alloy_species": ["Cu", "Au"], "compositions": [{"Cu": 1.0}], "grid": 4}, "'compositions'"),
        ({"alloy_species": ["Cu", "Au"], "grid": 0}, "'grid'"),
        ({"alloy_species": ["Cu", "Au"], "corners": 1.5}, "'corners'"),
        ({"alloy_species": ["Cu", "Au"], "shells": 0}, "'shells'"),
        ({"alloy_species": ["Cu", "Au"], "min_ratio": 1.0}, "'min_ratio'"),
        ({"sublattices": {"Cu": {"species": ["Cu", "Au"]}}, "grid": 4}, "'grid'"),
        ({"sublattices": {"Xy": {"species": ["Cu", "Au"]}}}, "'sublattices'.*'Xy'"),
        ({"sublattices": {"Cu": {"species": ["Cu", "Au"], "gird": 4}}}, "did you mean 'grid'"),
    ],
)
def test_settings_out_of_range_are_named(bad, message):
    with pytest.raises(SettingsError, match=message):
        parse_settings(AlloySettings, bad, "alloy")


def compositions_of(listed: dict, copies: int, seed: int = 0) -> list[int]:
    """Return the number of gold atoms of 16 in each copy."""
    cell = bulk("Cu", a=3.8, cubic=True) * (2, 2, 1)
    chosen = {"copies": copies, "keep_input": False, "alloy": {"alloy_species": ["Cu", "Au"], **listed}}
    chosen["rattle"] = {"fraction": 0.02}  # two equal arrangements are two frames
    frames = augment([cell], chosen, seed).frames
    return [Counter(atoms.get_chemical_symbols())["Au"] for atoms in frames]


@settings(max_examples=15, deadline=None)
@given(n_compositions=st.integers(1, 5), rounds=st.integers(1, 2), seed=st.integers(0, 1000))
def test_copies_take_the_compositions_in_turn_in_an_order_of_the_seed(n_compositions, rounds, seed):
    wanted = [2 * k + 2 for k in range(n_compositions)]
    listed = [{"Au": n / 16, "Cu": 1 - n / 16} for n in wanted]
    found = compositions_of({"compositions": listed}, rounds * n_compositions, seed)
    assert len(found) == rounds * n_compositions
    for start in range(0, len(found), n_compositions):
        assert sorted(found[start : start + n_compositions]) == wanted


def test_the_points_of_a_grid_are_taken_in_turn_and_seeds_differ():
    found = compositions_of({"grid": 4}, 5)
    assert sorted(found) == [0, 4, 8, 12, 16]
    assert len({tuple(compositions_of({"grid": 4}, 5, seed)) for seed in range(6)}) > 1


def test_sublattices_have_turns_of_their_own_and_a_flat_draw_has_none():
    cations = Mixture(("Ti", "Al"), compositions=({"Ti": 1.0}, {"Ti": 0.5, "Al": 0.5}))
    given_settings = AlloySettings(sublattices={"Ti": cations, "N": Mixture(("N", "C", "O"), grid=1)})
    rows = design_compositions(Atoms(), given_settings, 6, np.random.default_rng(0))
    assert rows.shape == (6, 5)
    assert Counter(map(tuple, rows[:, :3].tolist())) == {(1, 0, 0): 2, (0, 1, 0): 2, (0, 0, 1): 2}
    assert Counter(map(tuple, rows[:, 3:].tolist())) == {(1, 0): 3, (0.5, 0.5): 3}
    for flat in ({}, {"grid": 3, "corners": 0.2}, {"grid": 200}):
        free = AlloySettings(("Cu", "Au", "Ag", "Pd"), **flat)
        assert np.isnan(design_compositions(Atoms(), free, 2, np.random.default_rng(0))).all()
