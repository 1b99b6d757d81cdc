"""Extrapolation grades: exact cases, invariances, out-of-span candidates, small training sets."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiida_alpot.kernel.potentials.base import Features
from aiida_alpot.kernel.uncertainty import active_set
from aiida_alpot.kernel.uncertainty.active_set import ActiveSet, compute_frame_grade


def features(values, species=29, frame_index=None):
    values = np.asarray(values, dtype=float)
    number = np.broadcast_to(species, len(values))
    return Features(values, number, np.zeros(len(values)) if frame_index is None else frame_index)


def build(values, **options):
    return ActiveSet.build(features(values), **{"constant_column": False, **options})


def random(n, d, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


@pytest.mark.parametrize("start", ["strict", "eps"])
@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("n_atoms", [1, 3, 10, 11, 50, 500])
def test_no_training_atom_exceeds_tol(start, constant, n_atoms):
    values = random(n_atoms, 10)
    active = build(values, start=start, constant_column=constant)
    assert active.converged
    assert active.grade(features(values)).max() <= 1.01 + 1e-8
    assert np.all(active.residual(features(values)) < 1e-6)
    assert active.blocks[29].rank == min(n_atoms, 10 + constant)


def test_grade_is_the_largest_coefficient():
    values = random(300, 5)
    active = build(values)
    A = values[[np.flatnonzero((values == row).all(axis=1))[0] for row in active.blocks[29].rows]]
    new = 3.0 * random(50, 5, seed=1)
    np.testing.assert_allclose(active.grade(features(new)), np.abs(new @ np.linalg.inv(A)).max(axis=1), rtol=1e-9)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_grade_is_invariant_to_a_regular_map_of_the_features(seed):
    rng = np.random.default_rng(seed)
    values, new = rng.normal(size=(200, 6)), 3.0 * rng.normal(size=(20, 6))
    R = np.linalg.qr(rng.normal(size=(6, 6)))[0] * rng.uniform(0.1, 10.0, 6)
    np.testing.assert_allclose(
        build(values).grade(features(new)), build(values @ R).grade(features(new @ R)), rtol=1e-6
    )


def test_a_constant_column_makes_the_grade_invariant_to_a_shift():
    values, new, shift = random(200, 4), 3.0 * random(20, 4, seed=1), np.array([3.0, -2.0, 0.5, 1.0])
    a = build(values, constant_column=True).grade(features(new))
    b = build(values + shift, constant_column=True).grade(features(new + shift))
    np.testing.assert_allclose(a, b, rtol=1e-8)
    assert ActiveSet.build(features(values)).constant_column
    assert not ActiveSet.build(features(values), kind="ace").constant_column


def test_grades_do_not_depend_on_chunks(monkeypatch):
    active, new = build(random(300, 8)), features(random(100, 8, seed=1))
    whole = active.grade(new)
    monkeypatch.setattr(active_set, "CHUNK_SIZE", 7)
    np.testing.assert_allclose(active.grade(new), whole, rtol=1e-10)


@pytest.mark.parametrize("defect", ["duplicate", "zero"])
def test_a_candidate_along_a_missing_direction_is_flagged(defect):
    values = random(300, 6)
    values[:, 5] = values[:, 2] if defect == "duplicate" else 0.0
    new = values[:3].copy()
    new[1, 5] += 1.0
    strict, eps = build(values), build(values, start="eps")
    assert strict.blocks[29].rank == eps.blocks[29].rank == 5
    assert np.isfinite(strict.grade(features(new))).tolist() == [True, False, True]
    grades = eps.grade(features(new))
    assert grades[[0, 2]].max() <= 1.01 + 1e-8
    assert 1e4 < grades[1] < 1e6
    for active in (strict, eps):
        assert active.grade(features(values)).max() <= 1.01 + 1e-8
        residual = active.residual(features(new))
        assert residual[1] > 0.1
        assert residual[[0, 2]].max() < 1e-7


def test_fewer_atoms_than_features_flag_everything_new():
    values = random(4, 20)
    new = random(5, 20, seed=1)
    mixed = np.array([[0.5, 0.2, 0.1, -0.3]]) @ values
    assert np.all(np.isinf(build(values).grade(features(new))))
    eps = build(values, start="eps").grade(features(new))
    assert np.all((eps > 1e3) & (eps < 1e7))
    for start in ("strict", "eps"):
        assert build(values, start=start).grade(features(mixed))[0] <= 1.0


def test_an_unseen_species_is_infinite():
    for start in ("strict", "eps"):
        active = build(random(50, 4), start=start)
        mixed = Features(random(4, 4), [29, 79, 29, 13], [0, 0, 1, 1])
        assert np.isinf(active.grade(mixed)).tolist() == [False, True, False, True]
        assert active.residual(mixed)[[1, 3]].tolist() == [1.0, 1.0]


def test_an_active_set_without_atoms_is_legal():
    empty = Features(np.zeros((0, 4)), [], [])
    active = ActiveSet.build(empty)
    assert active.species == ()
    assert np.all(np.isinf(active.grade(features(random(3, 4)))))
    assert active.absorb(features(random(3, 4))) == 3
    assert active.grade(features(random(3, 4))).max() <= 1.01
    assert active.grade(empty).shape == (0,)


def test_species_are_independent_of_each_other_and_of_their_order():
    copper, gold = random(60, 4), random(80, 4, seed=1)
    values = np.concatenate([copper, gold])
    numbers = np.repeat([29, 79], [60, 80])
    order = np.random.default_rng(2).permutation(140)
    together = ActiveSet.build(Features(values[order], numbers[order], np.zeros(140)), constant_column=False)
    new = random(30, 4, seed=3)
    np.testing.assert_allclose(together.grade(features(new, 29)), build(copper).grade(features(new)), rtol=1e-9)
    alone = ActiveSet.build(features(gold, 79), constant_column=False)
    np.testing.assert_allclose(together.grade(features(new, 79)), alone.grade(features(new, 79)), rtol=1e-9)
    assert together.species == (29, 79)


def test_features_that_are_not_finite_are_infinitely_new():
    for start in ("strict", "eps"):
        active = build(random(50, 4), start=start)
        new = random(3, 4)
        new[1, 2] = np.nan
        assert np.isinf(active.grade(features(new))).tolist() == [False, True, False]
        with pytest.raises(ValueError, match="not finite"):
            active.absorb(features(new))
    with pytest.raises(ValueError, match="row 1 has a feature"):
        build(new)


@pytest.mark.parametrize("start", ["strict", "eps"])
def test_chunked_features_give_the_same_set(start):
    rng = np.random.default_rng(0)
    whole = Features(rng.normal(size=(200, 5)), rng.choice([29, 79], 200), np.repeat(np.arange(20), 10))

    def chunks():
        for k in range(0, 200, 30):
            yield Features(whole.values[k : k + 30], whole.species[k : k + 30], whole.frame_index[k : k + 30])

    a, b = ActiveSet.build(whole, start=start), ActiveSet.build(chunks, start=start)
    for number in (29, 79):
        np.testing.assert_array_equal(a.blocks[number].rows, b.blocks[number].rows)
        np.testing.assert_array_equal(a.owners[number], b.owners[number])


def test_owners_are_the_tags_of_the_active_atoms():
    values = random(100, 3)
    active = ActiveSet.build(features(values), constant_column=False, tags=np.arange(100))
    np.testing.assert_array_equal(values[active.owners[29]], active.blocks[29].rows)
    eps = ActiveSet.build(features(values[:2]), start="eps", constant_column=False, tags=[7, 8])
    assert sorted(eps.owners[29]) == [7, 8]


@pytest.mark.parametrize("start", ["strict", "eps"])
@pytest.mark.parametrize("n_atoms", [0, 3, 40])
def test_absorbed_frames_are_known_afterwards(start, n_atoms):
    active = build(random(n_atoms, 10), start=start)
    for k in range(20):
        frame = features((1.0 + k) * random(8, 10, seed=k + 1))
        before = active.grade(frame).max()
        entered = active.absorb(frame, tags=np.full(8, 100 + k))
        assert active.grade(frame).max() <= 1.01 + 1e-8
        assert (entered > 0) == (before > 1.01)
        assert active.blocks[29].invertibility() < 1e-8
    assert active.blocks[29].rank == 10
    assert active.owners[29].max() >= 100


def test_inverse_stays_exact_over_500_absorbs():
    rng = np.random.default_rng(0)
    active = build(rng.normal(size=(400, 100)))
    entered, drift = 0, 0.0
    for k in range(500):
        entered += active.absorb(features((1.0 + 0.01 * k) * rng.normal(size=(4, 100))))
        drift = max(drift, active.blocks[29].invertibility())
    assert entered >= 500
    assert drift < 1e-8


def test_a_swap_multiplies_the_determinant_by_its_coefficient():
    active = build(random(200, 8))
    new = 5.0 * random(1, 8, seed=1)
    before, grade = active.log_det, active.grade(features(new))[0]
    assert active.absorb(features(new)) == 1
    assert active.log_det - before == pytest.approx(np.log(grade), abs=1e-9)


def test_a_copy_is_independent():
    active = build(random(200, 8))
    new = features(5.0 * random(4, 8, seed=1))
    other = active.copy()
    other.absorb(new)
    assert other.grade(new).max() <= 1.01 < active.grade(new).max()


@pytest.mark.parametrize("start", ["strict", "eps"])
def test_save_and_load_keep_grades_and_bytes(tmp_path, start):
    rng = np.random.default_rng(0)
    active = ActiveSet.build(Features(rng.normal(size=(40, 30)), rng.choice([1, 8], 40), np.zeros(40)), start=start)
    active.save(tmp_path / "a.h5")
    time.sleep(1.1)
    loaded = ActiveSet.load(tmp_path / "a.h5")
    loaded.save(tmp_path / "b.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.h5", "b.h5"]
    new = Features(rng.normal(size=(10, 30)), rng.choice([1, 8], 10), np.zeros(10))
    np.testing.assert_array_equal(loaded.grade(new), active.grade(new))
    np.testing.assert_array_equal(loaded.residual(new), active.residual(new))
    with pytest.raises(ValueError, match="rows' is missing"):
        ActiveSet.from_arrays({k: v for k, v in active.to_arrays().items() if k != "8/rows"})


def test_a_different_number_of_features_is_refused():
    active = ActiveSet.build(features(random(50, 4)))
    for call in (active.grade, active.residual, active.absorb):
        with pytest.raises(ValueError, match="expected 4 features per atom, got 5"):
            call(features(random(3, 5)))


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="'strict' or 'eps'"):
        build(random(5, 2), start="loose")
    with pytest.raises(ValueError, match="tol must be above 1"):
        build(random(5, 2), tol=1.0)
    with pytest.raises(ValueError, match="tags: expected 5"):
        ActiveSet.build(features(random(5, 2)), tags=[1, 2])


def test_frame_grade_is_the_largest_of_its_atoms():
    grades = np.array([1.0, 5.0, 2.0, np.inf])
    assert compute_frame_grade(grades, np.array([0, 0, 1, 2]), 3).tolist() == [5.0, 2.0, np.inf]
    with pytest.raises(ValueError, match="frame 1 has no atom"):
        compute_frame_grade(grades, np.array([0, 0, 2, 2]), 3)
    with pytest.raises(ValueError, match="outside"):
        compute_frame_grade(grades, np.array([0, 0, 2, 3]), 3)


def ladder(values, thresholds):
    """Sweep all frames with each threshold in turn, the last one until none exceeds it; return who was absorbed."""
    frames = [features(frame) for frame in values]
    active = ActiveSet.build(frames[0], start="eps", constant_column=False)
    taken = set()
    for level in [*thresholds, None]:
        threshold = thresholds[-1] if level is None else level
        while True:
            found = False
            for k, frame in enumerate(frames):
                if active.grade(frame).max() > threshold:
                    active.absorb(frame)
                    taken.add(k)
                    found = True
            if level is not None or not found:
                break
    return taken, max(active.grade(frame).max() for frame in frames)


@pytest.mark.parametrize("order", ["ascending", "random"])
def test_a_ladder_selects_no_more_than_a_single_threshold(order):
    rng = np.random.default_rng(0)
    size = np.sort(rng.lognormal(0.0, 1.0, 400)) if order == "ascending" else rng.lognormal(0.0, 1.0, 400)
    values = size[:, None, None] * rng.normal(size=(400, 8, 25))
    single, rest = ladder(values, [2.0])
    steps, left = ladder(values, [1e5, 1e3, 1e2, 10.0, 2.0])
    assert rest <= 2.0
    assert left <= 2.0
    assert len(steps) <= len(single)


@pytest.mark.parametrize("start", ["strict", "eps"])
@pytest.mark.parametrize("seed", range(8))
def test_no_training_atom_exceeds_tol_when_the_spectrum_runs_through_the_rank_cutoff(start, seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(160, 14)) * np.geomspace(1e-7, 1e3, 14) @ rng.normal(size=(14, 23))
    active = build(values * 10.0 ** rng.uniform(-8, 8, 23), start=start)
    assert active.converged
    assert active.blocks[29].rank < 14


@pytest.mark.parametrize("start", ["strict", "eps"])
def test_an_exploded_frame_does_not_break_the_set(start):
    active = build(random(5, 10), start=start)
    exploded = features(1e12 * random(6, 10, seed=1))
    assert active.grade(exploded).min() > 1e6
    active.absorb(exploded)
    assert active.grade(exploded).max() <= 1.01 + 1e-6


def test_features_in_single_precision_have_the_same_grades_to_three_digits():
    rng = np.random.default_rng(0)
    training = Features(rng.normal(size=(500, 20)), np.full(500, 29), np.arange(500))
    active = ActiveSet.build(training, kind="last_layer")
    new = 2.0 * rng.normal(size=(3000, 20))
    double, single = (Features(new.astype(t), np.full(3000, 29), np.arange(3000)) for t in (np.float64, np.float32))
    assert single.values.dtype == np.float32
    np.testing.assert_allclose(active.grade(single), active.grade(double), rtol=1e-3)


def test_single_precision_is_left_where_rows_are_too_dependent_for_it():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(500, 5))
    rows[:, 4] = rows[:, 3] + 1e-5 * rng.normal(size=500)
    rows = rows.astype(np.float32)
    active = ActiveSet.build(Features(rows, np.full(500, 29), np.arange(500)), kind="invariants")
    assert active.grade(Features(rows, np.full(500, 29), np.arange(500))).max() <= 1.01 + 1e-8


def test_a_feature_that_is_not_finite_is_infinitely_new_and_spoils_no_other_row():
    rng = np.random.default_rng(0)
    training = Features(rng.normal(size=(200, 4)), np.full(200, 29), np.arange(200))
    active = ActiveSet.build(training)
    values = training.values[:4].copy()
    expected = active.grade(Features(values, np.full(4, 29), np.arange(4)))
    values[1, 0], values[2, 3] = np.nan, np.inf
    found = active.grade(Features(values, np.full(4, 29), np.arange(4)))
    np.testing.assert_array_equal(found[[0, 3]], expected[[0, 3]])
    assert np.isinf(found[[1, 2]]).all()


def test_a_chunk_with_several_species_is_graded_row_by_row():
    rng = np.random.default_rng(1)
    values, species = rng.normal(size=(2500, 6)), rng.choice([1, 6, 8, 9], 2500)
    active = ActiveSet.build(Features(values[species < 9], species[species < 9], np.arange(np.sum(species < 9))))
    every = active.grade(Features(values, species, np.arange(2500)))
    for number in (1, 6, 8, 9):
        mask = species == number
        np.testing.assert_allclose(
            every[mask], active.grade(Features(values[mask], species[mask], np.arange(mask.sum())))
        )
    assert np.isinf(every[species == 9]).all()


@pytest.mark.parametrize("start", ["strict", "eps"])
def test_an_atom_whose_features_are_not_defined_is_wholly_outside(start):
    rows = np.random.default_rng(0).normal(size=(20, 4))
    built = ActiveSet.build(Features(rows, np.full(20, 29), np.zeros(20)), start)
    asked = Features(np.array([rows[0], np.full(4, np.nan)]), [29, 29], [0, 1])
    assert np.isfinite(built.grade(asked)).tolist() == [True, False]
    np.testing.assert_allclose(built.residual(asked), [0.0, 1.0], atol=1e-12)
