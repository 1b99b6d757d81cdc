"""Active sets whose rows are configurations: exact small cases, sizes, species, storage."""

from itertools import combinations

import numpy as np
import pytest

from aiida_alpot.kernel.potentials import Features
from aiida_alpot.kernel.uncertainty import ActiveSet, ClusterSettings, LocalActiveSet, compute_frame_grade
from aiida_alpot.kernel.uncertainty.configurations import sum_configurations

CU, AU, AG = 29, 79, 47


def frames(*atoms):
    """Return the features of frames given as lists of (species, features)."""
    flat = [(species, row, k) for k, frame in enumerate(atoms) for species, row in frame]
    species, rows, index = zip(*flat, strict=True)
    return Features(np.array(rows, dtype=float), species, index)


def build(features, **options):
    return ActiveSet.build(features, **{"constant_column": False, "mode": "configuration", **options})


PAIR = frames([(CU, [1.0]), (CU, [2.0])], [(CU, [1.0]), (AU, [5.0])])
"""The rows (3, 0) and (1, 5) in the columns of Cu and Au."""


def test_a_row_is_the_sum_over_atoms_with_a_block_for_each_species():
    rows, row_of = sum_configurations(PAIR, [CU, AU], count=False)
    np.testing.assert_array_equal(rows.values, [[3.0, 0.0], [1.0, 5.0]])
    assert row_of.tolist() == [0, 0, 1, 1]
    counted, _ = sum_configurations(PAIR, [CU, AU], count=True)
    np.testing.assert_array_equal(counted.values, [[3.0, 2.0, 0.0, 0.0], [1.0, 1.0, 5.0, 1.0]])


def test_grades_are_the_coefficients_of_the_rows():
    active = build(PAIR)
    assert (active.columns, active.species) == ((CU, AU), (CU, AU))
    assert active.owners[0].tolist() == [0, 1]
    # (2, 5) = 1/3 (3, 0) + (1, 5); (6, 0) = 2 (3, 0); (0, 10) = -2/3 (3, 0) + 2 (1, 5)
    asked = frames([(CU, [2.0]), (AU, [5.0])], [(CU, [3.0])] * 2, [(AU, [4.0]), (AU, [6.0])])
    grades = active.grade(asked)
    np.testing.assert_allclose(grades, [1.0, 1.0, 2.0, 2.0, 2.0, 2.0])
    np.testing.assert_allclose(compute_frame_grade(grades, asked.frame_index, 3), [1.0, 2.0, 2.0])


def random_frames(n, n_atoms=6, n_features=3, seed=0, species=(CU, AU)):
    rng = np.random.default_rng(seed)
    return Features(
        rng.normal(size=(n * n_atoms, n_features)), rng.choice(species, n * n_atoms), np.repeat(np.arange(n), n_atoms)
    )


def test_the_determinant_is_the_largest_of_all_choices():
    features = random_frames(9, n_features=1)
    rows = sum_configurations(features, [CU, AU], count=False)[0].values
    best = max(combinations(range(9), 2), key=lambda pair: abs(np.linalg.det(rows[list(pair)])))
    assert build(features, tol=1.0 + 1e-9).owners[0].tolist() == list(best)


def test_a_supercell_has_as_many_times_the_grade_as_it_has_cells():
    active, asked = build(random_frames(40)), random_frames(1, seed=5)
    double = Features(*(np.concatenate([part, part]) for part in (asked.values, asked.species, asked.frame_index)))
    np.testing.assert_allclose(active.grade(double)[0], 2.0 * active.grade(asked)[0], rtol=1e-10)


def test_the_order_of_atoms_does_not_matter():
    active, asked = build(random_frames(40)), random_frames(1, seed=5)
    order = np.random.default_rng(0).permutation(6)
    other = Features(asked.values[order], asked.species[order], asked.frame_index)
    np.testing.assert_allclose(active.grade(other), active.grade(asked), rtol=1e-10)


def test_no_training_frame_exceeds_tol_and_chunks_of_frames_change_nothing():
    features = random_frames(60)
    active = build(features)
    assert active.grade(features).max() <= 1.01 + 1e-9

    def source():
        for k in range(0, 60, 7):
            inside = (features.frame_index >= k) & (features.frame_index < k + 7)
            yield Features(features.values[inside], features.species[inside], features.frame_index[inside])

    streamed = build(source)
    np.testing.assert_array_equal(streamed.blocks[0].rows, active.blocks[0].rows)
    np.testing.assert_array_equal(streamed.owners[0], active.owners[0])


@pytest.mark.parametrize("start", ["strict", "eps"])
def test_an_unseen_species_is_infinitely_new_until_it_is_absorbed(start):
    active = build(random_frames(60), start=start)
    new = frames([(CU, [1.0, 0.0, 0.0]), (AG, [0.0, 2.0, 1.0])])
    before = active.grade(random_frames(5, seed=3))
    assert np.isinf(active.grade(new)).all()
    assert active.residual(new).tolist() == [1.0, 1.0]
    assert active.absorb(new, tags=[77, 77]) >= 1
    assert active.columns == (CU, AU, AG)
    assert active.grade(new).max() <= 1.01 + 1e-8
    np.testing.assert_allclose(active.grade(random_frames(5, seed=3)), before, rtol=1e-6)
    assert 77 in active.owners[0]


@pytest.mark.parametrize("start", ["strict", "eps"])
def test_few_frames_do_not_span_the_columns(start):
    active = build(random_frames(4), start=start)
    grades = active.grade(random_frames(3, seed=9))
    assert active.blocks[0].rank == 4
    assert (np.isinf(grades) if start == "strict" else (grades > 1e3) & np.isfinite(grades)).all()


def test_save_and_load_keep_grades(tmp_path):
    active, asked = build(random_frames(40), constant_column=True), random_frames(4, seed=2)
    active.save(tmp_path / "a.h5")
    loaded = ActiveSet.load(tmp_path / "a.h5")
    assert (loaded.mode, loaded.columns, loaded.n_features) == ("configuration", active.columns, 3)
    np.testing.assert_array_equal(loaded.grade(asked), active.grade(asked))
    with pytest.raises(ValueError, match="expected 3 features per atom, got 2"):
        loaded.grade(random_frames(2, n_features=2))


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="'neighbourhood' or 'configuration', got 'config'"):
        build(PAIR, mode="config")


def test_clusters_of_configurations_are_of_frames(tmp_path):
    features, asked = random_frames(80), random_frames(6, seed=1)
    settings = ClusterSettings(level="frame", n_clusters=2, rows_per_rank=0.0)
    local = LocalActiveSet.build(features, None, settings, constant_column=False, mode="configuration")
    assert len(local.members) == 2
    smallest = np.min([member.grade(asked) for member in local.members], axis=0)
    np.testing.assert_array_equal(local.grade(asked), smallest)
    local.save(tmp_path / "l.h5")
    assert LocalActiveSet.load(tmp_path / "l.h5").mode == "configuration"
    whole = LocalActiveSet.build(
        features, None, ClusterSettings(level="frame", rows_per_rank=100.0), constant_column=False, mode="configuration"
    )
    np.testing.assert_array_equal(whole.members[0].blocks[0].rows, build(features).blocks[0].rows)
    with pytest.raises(ValueError, match=r"set clusters\.level to 'frame'"):
        LocalActiveSet.build(features, mode="configuration")
    with pytest.raises(ValueError, match="of one cluster, got several"):
        LocalActiveSet.build(features, np.arange(480) % 2, mode="configuration")
