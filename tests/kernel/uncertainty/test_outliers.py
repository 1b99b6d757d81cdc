"""Outliers of the forces: exact small cases, and that chunks, order and units change nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiida_alpot.kernel.uncertainty.outliers import N_MIN, find_outliers

CU, AU = 29, 79


def of(sizes, number=CU):
    return find_outliers([(np.full(len(sizes), number), sizes)])


def test_the_limit_is_q3_and_one_and_a_half_times_the_interquartile_range():
    # linear quantiles of 0 … 20 are 5 and 15: the limit is 30, and what equals it stays
    sizes = np.arange(21.0)
    found = of(sizes)
    assert found.limits == {CU: 30.0}
    assert not found.mask.any()
    found = of([*range(19), 29.9, 30.0])
    assert found.limits == {CU: 30.0}
    assert not found.mask.any()
    found = of([*range(19), 30.0, 30.1])
    assert np.flatnonzero(found.mask).tolist() == [20]


def test_six_numbers_of_the_reference_repeated_until_there_are_enough():
    # [1, 2, 3, 4, 5, 100] four times: Q1 = 2 and Q3 = 5 of 24 numbers, so that 9.5 is the limit
    found = of([1, 2, 3, 4, 5, 100] * 4)
    assert found.limits == {CU: pytest.approx(9.5)}
    assert np.flatnonzero(found.mask).tolist() == [5, 11, 17, 23]


def test_every_species_has_its_own_quartiles():
    light, heavy = np.arange(21.0), 100.0 * np.arange(21.0)
    light[3] = 50.0
    found = find_outliers([(np.repeat([CU, AU], 21), np.concatenate([light, heavy]))])
    assert np.flatnonzero(found.mask).tolist() == [3]
    assert found.limits[AU] == 3000.0


def test_few_atoms_and_equal_forces_are_not_judged():
    assert of([1.0] * (N_MIN - 2) + [99.0]).limits == {}
    assert of([0.0] * 40 + [99.0]).limits == {}
    assert not of([0.0] * 40 + [99.0]).mask.any()
    assert find_outliers([]).mask.shape == (0,)


def test_atoms_without_label_are_neither_outliers_nor_part_of_the_quartiles():
    sizes = np.concatenate([np.full(10, np.nan), np.arange(19.0), [30.0, 30.1], [np.nan]])
    found = of(sizes)
    assert (found.n_unknown, found.limits) == (11, {CU: 30.0})
    assert np.flatnonzero(found.mask).tolist() == [30]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_chunks_do_not_matter(size):
    rng = np.random.default_rng(0)
    species, sizes = rng.choice([CU, AU], 500), rng.lognormal(size=500)
    whole = find_outliers([(species, sizes)])
    parts = find_outliers((species[k : k + size], sizes[k : k + size]) for k in range(0, 500, size))
    np.testing.assert_array_equal(parts.mask, whole.mask)
    assert parts.limits == whole.limits
    assert whole.mask.any()


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=80), st.integers(0, 1000))
def test_at_most_a_quarter_is_left_out_and_the_order_does_not_matter(sizes, seed):
    found = of(sizes)
    assert found.mask.sum() <= 0.25 * len(sizes)
    order = np.random.default_rng(seed).permutation(len(sizes))
    np.testing.assert_array_equal(of(np.array(sizes)[order]).mask, found.mask[order])


def test_the_unit_of_force_does_not_matter():
    sizes = np.random.default_rng(1).lognormal(size=300)
    np.testing.assert_array_equal(of(1024.0 * sizes).mask, of(sizes).mask)


def test_sizes_that_are_none_are_refused():
    with pytest.raises(ValueError, match=r"must not be negative, got -1\.0"):
        of([-1.0])
    with pytest.raises(ValueError, match="expected one for each"):
        find_outliers([([CU, CU], [1.0])])
