"""Disagreement and error of a committee against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from aiida_alpot.kernel.potentials.base import Predictions
from aiida_alpot.kernel.uncertainty.committee import (
    compute_abf,
    compute_adaptive_threshold,
    compute_cbe,
    compute_cbf,
    disagreement,
    error,
    mean_prediction,
)
from aiida_alpot.kernel.units import VOIGT

FIELDS = ("energy", "force", "force_max", "stress", "force_atom")


def make(rng, counts):
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return Predictions(
        rng.normal(size=len(counts)), rng.normal(size=(offsets[-1], 3)), rng.normal(size=(len(counts), 6)), offsets
    )


def make_committee(seed=0, counts=(3, 1, 5), n_members=4):
    rng = np.random.default_rng(seed)
    return [make(rng, counts) for _ in range(n_members)], make(rng, counts)


def tensor(voigt):
    full = np.empty((3, 3))
    for (i, j), value in zip(VOIGT, voigt, strict=True):
        full[i, j] = full[j, i] = value
    return full


def voigt(full):
    return np.array([full[i, j] for i, j in VOIGT])


def rotated(p, R):
    return Predictions(p.energy, p.forces @ R.T, [voigt(R @ tensor(s) @ R.T) for s in p.stress], p.offsets)


def test_disagreement_equals_the_written_out_sums():
    members, _ = make_committee()
    result = disagreement(members)
    M = len(members)
    for k in range(3):
        a, b = members[0].offsets[k : k + 2]
        N = b - a
        E = [m.energy[k] for m in members]
        assert result.energy[k] == pytest.approx(np.sqrt(sum((e - sum(E) / M) ** 2 for e in E) / M) / N)
        mean = sum(m.forces[a:b] for m in members) / M
        total = sum(np.linalg.norm(m.forces[a + i] - mean[i]) ** 2 for m in members for i in range(N))
        assert result.force[k] == pytest.approx(np.sqrt(total / (3 * N * M)))
        atoms = [np.sqrt(sum(np.linalg.norm(m.forces[a + i] - mean[i]) ** 2 for m in members) / M) for i in range(N)]
        np.testing.assert_allclose(result.force_atom[a:b], atoms)
        assert result.force_max[k] == pytest.approx(max(atoms))
        S = [tensor(m.stress[k]) for m in members]
        total = sum(np.linalg.norm(s - sum(S) / M) ** 2 for s in S)
        assert result.stress[k] == pytest.approx(np.sqrt(total / (9 * M)))


@given(seed=st.integers(0, 2**31), n_members=st.integers(2, 6), shift=st.floats(-1e4, 1e4))
def test_squared_error_is_squared_disagreement_plus_squared_bias(seed, n_members, shift):
    members, reference = make_committee(seed, n_members=n_members)
    reference = Predictions(reference.energy + shift, reference.forces, reference.stress, reference.offsets)
    D, e, bias = disagreement(members), error(members, reference), error(members, reference, "committee_mean")
    for name in ("energy", "force", "stress", "force_atom"):
        d, total, b = (getattr(x, name) for x in (D, e, bias))
        np.testing.assert_allclose(total**2, d**2 + b**2, rtol=1e-12, atol=1e-12)
        assert np.all(d <= total * (1 + 1e-12))
    assert np.all(D.force_max <= e.force_max * (1 + 1e-12))


@given(seed=st.integers(0, 2**31), n_core=st.integers(1, 5))
def test_of_a_frame_with_a_core_only_the_forces_on_the_core_count(seed, n_core):
    members, reference = make_committee(seed)
    core = np.arange(9) < 4 + n_core  # of the last frame of five atoms
    of_core = [Predictions(m.energy, m.forces[core], m.stress, [0, 3, 4, 4 + n_core]) for m in [*members, reference]]
    pairs = (
        (disagreement(members, core=core), disagreement(of_core[:-1])),
        (error(members, reference, core=core), error(of_core[:-1], of_core[-1])),
    )
    for found, expected in pairs:
        for name in ("force", "force_max"):
            np.testing.assert_allclose(found.value(name), expected.value(name), rtol=1e-12)
        for name in ("energy", "stress"):
            assert np.isnan(found.value(name)).tolist() == [False, False, n_core < 5]
            np.testing.assert_array_equal(found.value(name)[:2], expected.value(name)[:2])
    D, e = (found for found, _ in pairs)
    bias = error(members, reference, "committee_mean", core=core)
    np.testing.assert_allclose(e.force**2, D.force**2 + bias.force**2, rtol=1e-12)


def test_a_core_of_all_atoms_changes_nothing():
    members, reference = make_committee()
    for one, other in (
        (disagreement(members), disagreement(members, core=np.ones(9, dtype=bool))),
        (error(members, reference), error(members, reference, core=np.ones(9, dtype=bool))),
    ):
        for name in FIELDS:
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_a_frame_without_core_and_a_core_of_other_atoms_are_refused():
    members, _ = make_committee()
    with pytest.raises(ValueError, match="core: no atom of frame 1 counts"):
        disagreement(members, core=np.arange(9) != 3)
    with pytest.raises(ValueError, match=r"core: expected the shape \(9,\), got \(8,\)"):
        disagreement(members, core=np.ones(8, dtype=bool))


def test_disagreement_sees_opposite_forces_of_equal_length():
    F = np.array([[1.0, 2.0, 2.0]])
    members = [Predictions([0.0], sign * F, [[0.0] * 6], [0, 1]) for sign in (1, -1)]
    assert disagreement(members).force_atom[0] == pytest.approx(3.0)
    assert disagreement(members).force[0] == pytest.approx(np.sqrt(3.0))
    assert compute_abf(members)[0] == pytest.approx(3.0)


def test_one_bad_atom_among_200_shows_in_the_maximum():
    F = np.zeros((200, 3))
    bad = F.copy()
    bad[17, 1] = 2.0
    members = [Predictions([0.0], f, [[0.0] * 6], [0, 200]) for f in (F, bad)]
    result = disagreement(members)
    assert result.force_max[0] == pytest.approx(1.0)
    assert result.force[0] < 0.05


def test_energy_disagreement_does_not_grow_with_a_supercell():
    members, reference = make_committee(counts=(4,))
    double = [Predictions(2 * m.energy, np.tile(m.forces, (2, 1)), m.stress, [0, 8]) for m in members]
    twice = Predictions(2 * reference.energy, np.tile(reference.forces, (2, 1)), reference.stress, [0, 8])
    for small, large in (
        (disagreement(members), disagreement(double)),
        (error(members, reference), error(double, twice)),
    ):
        for name in ("energy", "force", "force_max", "stress"):
            np.testing.assert_allclose(getattr(small, name), getattr(large, name))


def test_nothing_changes_with_a_rotation_or_the_order_of_members_and_atoms():
    members, reference = make_committee()
    R = Rotation.random(rng=np.random.default_rng(3)).as_matrix()
    turned = [rotated(m, R) for m in reversed(members)]
    for a, b in (
        (disagreement(members), disagreement(turned)),
        (error(members, reference), error(turned, rotated(reference, R))),
        (error(members, reference, "committee_mean"), error(turned, rotated(reference, R), "committee_mean")),
    ):
        for name in FIELDS:
            np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-12)


def test_a_missing_label_gives_nan_for_its_frame_and_property_only():
    members, reference = make_committee()
    energy, forces, stress = reference.energy.copy(), reference.forces.copy(), reference.stress.copy()
    energy[1] = np.nan
    forces[5] = np.nan
    stress[0] = np.nan
    for target in ("member_rms", "committee_mean"):
        result = error(members, Predictions(energy, forces, stress, reference.offsets), target)
        assert np.isnan(result.energy).tolist() == [False, True, False]
        assert np.isnan(result.force).tolist() == [False, False, True]
        assert np.isnan(result.force_max).tolist() == [False, False, True]
        assert np.isnan(result.stress).tolist() == [True, False, False]
        assert np.flatnonzero(np.isnan(result.force_atom)).tolist() == [5]


def test_stress_is_nan_where_it_is_undefined():
    members, _ = make_committee()
    for member in members:
        member.stress[1] = np.nan
    assert np.isnan(disagreement(members).stress).tolist() == [False, True, False]
    assert np.isnan(disagreement(members, pbc=np.zeros((3, 3), bool)).stress).all()


def test_a_member_of_an_engine_without_stress_is_left_out_of_the_stress_alone():
    members, reference = make_committee(n_members=3)
    silent = with_value(members[1], "stress", slice(None), np.nan)
    mixed, others = [members[0], silent, members[2]], [members[0], members[2]]
    np.testing.assert_array_equal(disagreement(mixed).stress, disagreement(others).stress)
    np.testing.assert_array_equal(error(mixed, reference).stress, error(others, reference).stress)
    np.testing.assert_array_equal(mean_prediction(mixed).stress, mean_prediction(others).stress)
    for name in ("energy", "force", "force_max", "force_atom"):
        np.testing.assert_array_equal(getattr(disagreement(mixed), name), getattr(disagreement(members), name))


def test_a_stress_that_one_member_alone_predicts_has_a_mean_and_no_disagreement():
    members, reference = make_committee(n_members=2)
    mixed = [with_value(members[0], "stress", slice(None), np.nan), members[1]]
    assert np.isnan(disagreement(mixed).stress).all()
    np.testing.assert_array_equal(mean_prediction(mixed).stress, members[1].stress)
    np.testing.assert_array_equal(error(mixed, reference).stress, error(members[1:], reference).stress)


def test_stress_components_of_a_vacuum_axis_are_masked():
    a = Predictions([0.0], np.zeros((1, 3)), [[1.0, 2.0, 100.0, 50.0, 60.0, 3.0]], [0, 1])
    b = Predictions([0.0], np.zeros((1, 3)), [[-1.0, -2.0, -100.0, -50.0, -60.0, -3.0]], [0, 1])
    slab = disagreement([a, b], pbc=[[True, True, False]]).stress[0]
    assert slab == pytest.approx(np.sqrt((1 + 4 + 2 * 9) / 4))
    assert disagreement([a, b], pbc=[[False, True, False]]).stress[0] == pytest.approx(2.0)
    nan = Predictions([0.0], np.zeros((1, 3)), [[0.0, 0.0, np.nan, np.nan, np.nan, 0.0]], [0, 1])
    assert error([a], nan, pbc=[[True, True, False]]).stress[0] == pytest.approx(np.sqrt((1 + 4 + 2 * 9) / 4))


def with_value(p, name, at, value):
    array = getattr(p, name).copy()
    array[at] = value
    fields = {"energy": p.energy, "forces": p.forces, "stress": p.stress, "offsets": p.offsets, name: array}
    return Predictions(**fields)


@pytest.mark.parametrize(
    ("name", "at", "match"),
    [
        ("energy", 1, "member 2, frame 1: the energy"),
        ("forces", (8, 0), "member 2, frame 2: a force"),
        ("forces", (3, 0), "member 2, frame 1: a force"),
        ("stress", (0, 3), "member 2, frame 0: a stress component"),
        ("stress", 0, "member 2, frame 0: the stress is NaN for some members only"),
    ],
)
def test_a_member_that_is_not_finite_is_named(name, at, match):
    members, reference = make_committee()
    members[2] = with_value(members[2], name, at, np.nan)
    for call in (disagreement, mean_prediction, lambda m: error(m, reference), compute_cbe, compute_cbf):
        with pytest.raises(ValueError, match=match):
            call(members)


@pytest.mark.parametrize("n_members", [2, 30])
def test_disagreement_is_the_population_deviation_of_any_number_of_members(n_members):
    members, _ = make_committee(n_members=n_members)
    result, counts = disagreement(members), np.diff(members[0].offsets)
    forces = np.array([m.forces for m in members])
    np.testing.assert_allclose(result.energy, np.std([m.energy for m in members], axis=0) / counts)
    np.testing.assert_allclose(result.force_atom, np.sqrt(forces.var(axis=0).sum(axis=1)))
    assert np.all(compute_cbe(members) >= result.energy * (1 - 1e-12))
    assert np.all(compute_abf(members) >= result.force_atom * (1 - 1e-12))


def without_frames(p, *frames):
    """Return predictions of a member that failed on some frames."""
    energy, forces, stress = p.energy.copy(), p.forces.copy(), p.stress.copy()
    for k in frames:
        energy[k] = stress[k] = np.nan
        forces[p.offsets[k] : p.offsets[k + 1]] = np.nan
    return Predictions(energy, forces, stress, p.offsets)


def test_a_frame_that_a_member_misses_is_judged_by_the_others():
    members, _ = make_committee(n_members=4)
    broken = [without_frames(members[0], 1), without_frames(members[1], 0, 1), *members[2:]]
    for order in (broken, broken[::-1]):
        result = disagreement(order, allow_missing=True)
        for k, present in ((0, [0, 2, 3]), (1, [2, 3]), (2, [0, 1, 2, 3])):
            expected = disagreement([members[j].frame(k) for j in present])
            for name in ("energy", "force", "force_max", "stress"):
                np.testing.assert_allclose(getattr(result, name)[k], getattr(expected, name)[0], rtol=1e-12)
            np.testing.assert_allclose(
                result.force_atom[members[0].offsets[k] : members[0].offsets[k + 1]], expected.force_atom, rtol=1e-12
            )


def test_a_frame_that_one_member_alone_predicts_has_no_disagreement():
    members, _ = make_committee(n_members=2)
    result = disagreement([without_frames(members[0], 0), members[1]], allow_missing=True)
    for name in ("energy", "force", "force_max", "stress"):
        assert np.isnan(getattr(result, name)).tolist() == [True, False, False]
    assert np.flatnonzero(np.isnan(result.force_atom)).tolist() == [0, 1, 2]


def test_nothing_changes_if_no_member_misses_a_frame():
    members, _ = make_committee()
    a, b = disagreement(members), disagreement(members, allow_missing=True)
    assert all(np.array_equal(getattr(a, name), getattr(b, name)) for name in FIELDS)


def test_missing_frames_are_refused_unless_they_are_allowed_and_complete():
    members, _ = make_committee()
    with pytest.raises(ValueError, match="member 0, frame 1: the energy"):
        disagreement([without_frames(members[0], 1), *members[1:]])
    for name, at, match in (
        ("energy", 1, "frame 1: the energy"),
        ("forces", 3, "frame 1: a force"),
        ("stress", 1, "frame 1: the stress is NaN for some members only"),
    ):
        members, _ = make_committee()
        with pytest.raises(ValueError, match=match):
            disagreement([*members[:2], with_value(members[2], name, at, np.nan)], allow_missing=True)


def test_wrong_input_is_refused():
    members, reference = make_committee()
    other, _ = make_committee(counts=(4, 5))
    with pytest.raises(ValueError, match="at least two members, got 1"):
        disagreement(members[:1])
    with pytest.raises(ValueError, match="at least one member"):
        error([], reference)
    with pytest.raises(ValueError, match="member 1 is not of the same frames"):
        disagreement([members[0], other[0]])
    with pytest.raises(ValueError, match="reference is not of the same frames"):
        error(members, other[0])
    with pytest.raises(ValueError, match="infinite value in energy"):
        error(members, with_value(reference, "energy", 0, np.inf))
    with pytest.raises(ValueError, match="unknown target"):
        error(members, reference, "mean")
    with pytest.raises(ValueError, match="frame 1 has no atoms"):
        disagreement([Predictions(np.zeros(2), np.zeros((1, 3)), np.zeros((2, 6)), [0, 1, 1])] * 2)
    with pytest.raises(ValueError, match=r"expected the shape \(3, 3\)"):
        disagreement(members, pbc=[True, True, False])
    with pytest.raises(ValueError, match="unknown property"):
        disagreement(members).value("forces")


def test_no_frames_are_legal():
    empty = Predictions(np.zeros(0), np.zeros((0, 3)), np.zeros((0, 6)), [0])
    for result in (disagreement([empty, empty]), error([empty], empty)):
        assert result.n_frames == 0
        assert all(getattr(result, name).shape == (0,) for name in FIELDS)
    assert compute_cbf([empty]).shape == (0,)


def test_error_of_a_single_member_is_its_deviation():
    members, reference = make_committee(n_members=1)
    a, b = error(members, reference), error(members, reference, "committee_mean")
    for name in FIELDS:
        np.testing.assert_allclose(getattr(a, name), getattr(b, name))


def test_mean_prediction_is_the_mean():
    members, _ = make_committee()
    mean = mean_prediction(members)
    np.testing.assert_allclose(mean.forces, np.mean([m.forces for m in members], axis=0))
    np.testing.assert_allclose(mean.energy, np.mean([m.energy for m in members], axis=0))


def test_uq_ace_criteria_of_two_mirrored_models_are_the_shift():
    d = np.array([[3.0, 4.0, 0.0], [0.0, 0.0, 1.0]])
    members = [Predictions([10.0 + s * 4.0], 7.0 + s * d, [[0.0] * 6], [0, 2]) for s in (1, -1)]
    assert compute_cbe(members)[0] == 2.0
    np.testing.assert_allclose(compute_abf(members), [5.0, 1.0])
    assert compute_cbf(members)[0] == pytest.approx(5.0)


def test_uq_ace_criteria_of_three_models_by_hand():
    energies, x = (0.0, 3.0, 9.0), (0.0, 0.0, 6.0)
    members = [Predictions([E], [[f, 0.0, 0.0]], [[0.0] * 6], [0, 1]) for E, f in zip(energies, x, strict=True)]
    assert compute_cbe(members)[0] == pytest.approx(5.0)
    assert compute_abf(members)[0] == pytest.approx(4.0)


def test_adaptive_threshold_drops_the_outlier():
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 100.0])
    threshold = compute_adaptive_threshold(values)
    assert threshold == pytest.approx(8.5)
    assert values[values > threshold].tolist() == [100.0]
    assert compute_adaptive_threshold([*values, np.nan]) == pytest.approx(8.5)
    with pytest.raises(ValueError, match="at least one finite"):
        compute_adaptive_threshold([np.nan])
