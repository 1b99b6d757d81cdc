"""Criteria without calibration, by hand: MP-ALOE, thresholds by element and by cluster."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_alpot.kernel.potentials.base import Predictions
from aiida_alpot.kernel.uncertainty.committee import compute_adaptive_threshold, disagreement
from aiida_alpot.kernel.uncertainty.criteria import (
    FEWEST_ERRORS,
    assign_thresholds,
    compute_adaptive_thresholds,
    compute_query_flags,
    rate_by_element,
)

CU, AU, XE = 29, 79, 54


def mirrored(energy, forces, stress, offsets):
    """Two members whose standard deviations are the numbers given."""
    spread = np.asarray(energy) * np.diff(offsets), np.asarray(forces), np.asarray(stress)
    return [Predictions(*(sign * value for value in spread), offsets) for sign in (1.0, -1.0)]


def isotropic(values):
    """Voigt stress whose rms over the nine components is the number given."""
    return np.sqrt(3.0) * np.outer(values, [1, 1, 1, 0, 0, 0])


@pytest.fixture
def members():
    """Three frames of one copper atom, each beyond 0.1 in one property, and one that is below in all."""
    force = np.outer([0.05, 0.2, 0.05, 0.09], np.ones(3))
    return mirrored([0.2, 0.05, 0.05, 0.09], force, isotropic([0.05, 0.05, 0.2, 0.09]), [0, 1, 2, 3, 4])


def test_each_property_flags_on_its_own(members):
    flags = compute_query_flags(members, [CU] * 4)
    assert {name: np.flatnonzero(mask).tolist() for name, mask in flags.items()} == {
        "energy": [0],
        "force": [1],
        "stress": [2],
    }


def test_order_of_the_members_does_not_matter(members):
    a, b = (compute_query_flags(committee, [CU] * 4) for committee in (members, members[::-1]))
    assert all(np.array_equal(a[name], b[name]) for name in a)


def test_an_element_raises_the_thresholds_of_its_frames(members):
    flags = compute_query_flags(members, [XE, XE, CU, CU], multipliers={"Xe": 3.0})
    assert [int(mask.sum()) for mask in flags.values()] == [0, 0, 1]
    flags = compute_query_flags(members, [XE, XE, XE, XE], multipliers={"Xe": 1.5})
    assert [int(mask.sum()) for mask in flags.values()] == [1, 1, 1]


def test_the_largest_factor_of_the_elements_of_a_frame_counts():
    members = mirrored([0.2], np.zeros((3, 3)), [[0.0] * 6], [0, 3])
    assert compute_query_flags(members, [CU, AU, CU], multipliers={"Cu": 1.5})["energy"].all()
    assert not compute_query_flags(members, [CU, AU, CU], multipliers={"Au": 2.5, "Cu": 1.5})["energy"].any()


def test_the_largest_force_is_compared_atom_by_atom():
    force = np.array([[0.3, 0.0, 0.0], [0.0, 0.15, 0.0]])
    members = mirrored([0.0], force, [[0.0] * 6], [0, 2])
    for factors, expected in (({"Xe": 4.0}, True), ({"Xe": 4.0, "Cu": 2.0}, False), ({"Cu": 2.0}, True)):
        flags = compute_query_flags(members, [XE, CU], {"force_max": 0.1}, factors)
        assert flags["force_max"].tolist() == [expected]


def test_what_is_not_defined_is_not_flagged():
    members = mirrored([0.0], [[0.0] * 3], [[np.nan] * 6], [0, 1])
    assert not compute_query_flags(members, [CU])["stress"].any()


def test_the_force_to_compare_is_that_of_the_atom_furthest_above_its_threshold():
    force = np.array([[0.3, 0.0, 0.0], [0.0, 0.15, 0.0], [0.4, 0.0, 0.0]])
    found = disagreement(mirrored([0.0, 0.0], force, [[0.0] * 6] * 2, [0, 2, 3]))
    values, factors = rate_by_element(found, [XE, CU, CU], {"Xe": 4.0})
    np.testing.assert_allclose(values["force_max"], [0.15, 0.4])
    np.testing.assert_array_equal(factors["force_max"], [1.0, 1.0])
    np.testing.assert_array_equal(factors["energy"], [4.0, 1.0])
    values, factors = rate_by_element(found, [XE, CU, CU], {"Xe": 4.0}, core=[True, False, True])
    np.testing.assert_allclose(values["force_max"], [0.3, 0.4])
    np.testing.assert_array_equal(factors["force_max"], [4.0, 1.0])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"multipliers": {"Xx": 1.0}}, "'Xx' is not the symbol"),
        ({"multipliers": {"Xe": 0.0}}, "multipliers: Xe must be positive"),
        ({"thresholds": {"forces": 0.1}}, "did you mean 'force'"),
        ({"thresholds": {"force": -0.1}}, "thresholds: force must be positive"),
        ({"species": [CU] * 3}, "expected 4 atomic numbers"),
    ],
)
def test_wrong_criteria_are_refused(members, options, match):
    with pytest.raises(ValueError, match=match):
        compute_query_flags(**{"members": members, "species": [CU] * 4, **options})


def test_each_cluster_has_the_threshold_of_its_own_errors():
    bulk, liquid = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 100.0]), np.array([10.0, 20.0, 30.0, 40.0])
    errors, clusters = np.concatenate([bulk, liquid]), ["bulk"] * 6 + ["liquid"] * 4
    thresholds = compute_adaptive_thresholds(errors, clusters)
    assert thresholds == pytest.approx({"bulk": 8.5, "liquid": 32.5 + 1.5 * 15.0})
    np.testing.assert_allclose(assign_thresholds(thresholds, ["liquid", "bulk", "liquid"]), [55.0, 8.5, 55.0])
    assert compute_adaptive_thresholds(errors, ["one"] * 10)["one"] == compute_adaptive_threshold(errors)


def test_a_threshold_by_cluster_sees_what_the_pooled_one_hides():
    rng = np.random.default_rng(0)
    errors = np.concatenate([rng.uniform(0.0, 0.1, 100), rng.uniform(5.0, 10.0, 100)])
    clusters = np.repeat([0, 1], 100)
    new, pooled = 1.0, compute_adaptive_threshold(errors)
    assert new < pooled
    assert new > assign_thresholds(compute_adaptive_thresholds(errors, clusters), [0])[0]


def test_a_new_cluster_has_the_smallest_threshold():
    np.testing.assert_array_equal(assign_thresholds({"a": 3.0, "b": 2.0}, ["c", "a"]), [2.0, 3.0])


def test_a_cluster_without_quartiles_has_no_threshold():
    errors = [*range(FEWEST_ERRORS), 1.0, np.nan, np.nan, np.nan]
    assert set(compute_adaptive_thresholds(errors, ["a"] * FEWEST_ERRORS + ["b"] * 4)) == {"a"}
    with pytest.raises(ValueError, match="at least 4 finite errors"):
        assign_thresholds(compute_adaptive_thresholds([1.0], ["a"]), ["a"])
    with pytest.raises(ValueError, match="expected a 1-d array"):
        compute_adaptive_thresholds([[1.0]], ["a"])
