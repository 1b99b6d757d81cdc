"""Rows of largest volume: known answers, certificates, invariances."""

from __future__ import annotations

from itertools import combinations, combinations_with_replacement

import numpy as np
import pytest
from scipy.linalg import lu_factor

from aiida_alpot.kernel.uncertainty.maxvol import Pool, compute_log_volume, maxvol


def make_monomials(n_rows, n_columns, seed=0):
    """Return products of up to four clustered latent variables: ill-conditioned, heavy tails."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(4, 12))
    latent = centres[rng.integers(0, 4, n_rows)] + 0.3 * rng.normal(size=(n_rows, 12))
    powers = [picks for degree in range(1, 5) for picks in combinations_with_replacement(range(12), degree)]
    chosen = rng.choice(len(powers), n_columns, replace=False)
    return np.stack([latent[:, powers[k]].prod(axis=1) for k in chosen], axis=1)


def grades(B, indices):
    return np.abs(np.linalg.solve(B[indices].T, B.T)).max(axis=0)


def reference_maxvol(B, tol):
    """Textbook square maxvol: pivots of an LU, then the largest coefficient swaps, on all rows."""
    permutation = np.arange(len(B))
    for k, pivot in enumerate(lu_factor(B)[1]):
        permutation[[k, pivot]] = permutation[[pivot, k]]
    index = permutation[: B.shape[1]].copy()
    while True:
        C = np.linalg.solve(B[index].T, B.T).T
        row, column = np.unravel_index(np.argmax(np.abs(C)), C.shape)
        if abs(C[row, column]) <= tol:
            return np.sort(index)
        index[column] = row


@pytest.mark.parametrize("seed", range(5))
def test_cross_polytope_gives_the_unit_vectors(seed):
    rng = np.random.default_rng(seed)
    inside = rng.laplace(size=(200, 5))
    inside *= rng.uniform(0.0, 0.99, (200, 1)) / np.abs(inside).sum(axis=1, keepdims=True)
    B = np.concatenate([inside, np.eye(5)])
    R = rng.normal(size=(5, 5))
    for matrix in (B, B * rng.uniform(0.01, 100.0, 5), B @ R, 1e150 * B, 1e-150 * B):
        result = maxvol(matrix)
        assert result.indices.tolist() == [200, 201, 202, 203, 204]
        assert result.converged
    order = rng.permutation(205)
    assert sorted(order[maxvol(B[order]).indices]) == [200, 201, 202, 203, 204]
    np.testing.assert_allclose(grades(B, np.arange(200, 205)), np.abs(B).max(axis=1))


def test_legendre_polynomials_give_the_gauss_lobatto_nodes():
    x = np.linspace(-1.0, 1.0, 2001)
    result = maxvol(np.polynomial.legendre.legvander(x, 4), tol=1.0 + 1e-9)
    nodes = [-1.0, -np.sqrt(3 / 7), 0.0, np.sqrt(3 / 7), 1.0]
    np.testing.assert_allclose(x[result.indices], nodes, atol=1e-3)


def test_volume_is_close_to_the_brute_force_maximum():
    best_hits = 0
    for seed in range(100):
        B = np.random.default_rng(seed).normal(size=(12, 3))
        best = max(abs(np.linalg.det(B[list(rows)])) for rows in combinations(range(12), 3))
        result = maxvol(B)
        assert result.grade_max <= 1.01
        assert grades(B, result.indices).max() <= 1.01 + 1e-12
        found = abs(np.linalg.det(B[result.indices]))
        assert found >= best / 3**1.5
        best_hits += found >= best * (1 - 1e-9)
    assert best_hits >= 80


def test_every_swap_multiplies_the_determinant_by_its_coefficient():
    rng = np.random.default_rng(0)
    B = rng.normal(size=(500, 10))
    pool = Pool(np.arange(500), B, np.eye(10), np.arange(10))
    before = compute_log_volume(B[pool.active])
    n_swaps = 0
    while True:
        C = B @ np.linalg.inv(B[pool.active])
        if pool.swap(1.01, 1) == 0:
            break
        n_swaps += 1
        after = compute_log_volume(B[pool.active])
        assert after - before == pytest.approx(np.log(np.abs(C).max()), abs=1e-10)
        before = after
    assert n_swaps > 5
    assert np.abs(B @ np.linalg.inv(B[pool.active])).max() <= 1.01


def test_log_det_is_the_one_of_the_rows_over_the_column_rms():
    B = make_monomials(2000, 20)
    result = maxvol(B)
    scaled = B / np.sqrt(np.mean(B**2, axis=0))
    assert result.log_det == pytest.approx(np.linalg.slogdet(scaled[result.indices])[1], abs=1e-9)
    np.testing.assert_array_equal(result.rows, B[result.indices])


@pytest.mark.parametrize("make", [make_monomials, lambda N, n: np.random.default_rng(0).normal(size=(N, n))])
def test_volume_is_not_below_the_textbook_algorithm(make):
    B = make(3000, 40)
    result = maxvol(B)
    scaled = B / np.sqrt(np.mean(B**2, axis=0))
    assert result.converged
    assert result.log_det >= np.linalg.slogdet(scaled[reference_maxvol(scaled, 1.01)])[1] - 1e-9


def test_chunks_of_any_size_give_the_rows_of_the_array():
    B = make_monomials(3000, 30)
    whole = maxvol(B)
    for size in (7, 500, 3000, 10_000):
        calls = []

        def chunks(size=size, calls=calls):
            calls.append(1)
            return (B[k : k + size] for k in range(0, len(B), size))

        streamed = maxvol(chunks)
        assert streamed.indices.tolist() == whole.indices.tolist()
        assert streamed.grade_max == pytest.approx(whole.grade_max, abs=1e-10)
        assert len(calls) == streamed.n_passes
        assert streamed.n_rows == 3000


def test_order_of_the_rows_does_not_matter():
    B = make_monomials(3000, 30)
    whole = maxvol(B)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(3000)
        other = maxvol(B[order])
        assert sorted(order[other.indices]) == whole.indices.tolist()
        assert other.log_det == pytest.approx(whole.log_det, abs=1e-8)


def test_single_precision_rows_are_accepted():
    B = make_monomials(1000, 15).astype(np.float32)
    result = maxvol(B)
    assert result.converged
    assert grades(B.astype(float), result.indices).max() <= 1.01 + 1e-9


def test_duplicate_and_zero_columns_lower_the_rank():
    rng = np.random.default_rng(0)
    B = rng.normal(size=(300, 6))
    B[:, 5] = B[:, 2]
    duplicate = maxvol(B)
    B[:, 4] = 0.0
    zero = maxvol(B)
    assert (duplicate.rank, zero.rank) == (5, 4)
    for result in (duplicate, zero):
        assert result.converged
        assert len(result.indices) == result.rank
        assert np.isfinite(result.log_det)
    assert maxvol(np.zeros((5, 3))).rank == 0


def test_fewer_rows_than_columns_give_all_rows():
    B = np.random.default_rng(0).normal(size=(4, 10))
    result = maxvol(B)
    assert result.indices.tolist() == [0, 1, 2, 3]
    assert result.grade_max == pytest.approx(1.0)
    assert maxvol(B[:1]).indices.tolist() == [0]


def test_a_direction_that_no_row_of_high_leverage_has_is_found():
    rng = np.random.default_rng(0)
    heavy = np.column_stack([rng.normal(size=(400, 2)) * 50.0, np.zeros(400)])
    light = np.column_stack([1e-3 * rng.normal(size=(20_000, 2)), np.ones(20_000)])
    result = maxvol(np.concatenate([heavy, light]))
    assert result.rank == 3
    assert result.converged
    assert np.count_nonzero(result.indices >= 400) == 1


def test_a_cap_is_reported():
    B = make_monomials(3000, 40)
    result = maxvol(B, tol=1.0 + 1e-12, max_passes=1, max_swaps=1)
    assert not result.converged
    assert result.grade_max > 1.0 + 1e-12
    assert result.grade_max == pytest.approx(grades(B, result.indices).max(), rel=1e-6)


def test_wrong_input_is_refused():
    B = np.ones((4, 2))
    with pytest.raises(ValueError, match="tol must be above 1"):
        maxvol(B, tol=1.0)
    with pytest.raises(ValueError, match="rank_cutoff"):
        maxvol(B, rank_cutoff=0.0)
    with pytest.raises(ValueError, match="at least one row"):
        maxvol(B[:0])
    with pytest.raises(ValueError, match="expected a matrix"):
        maxvol(B[0])
    B[3, 1] = np.nan
    with pytest.raises(ValueError, match="row 3 has a feature"):
        maxvol(B)


@pytest.mark.slow
def test_1e5_rows_of_300_features_are_certified_and_beat_the_anchor():
    B = np.random.default_rng(0).standard_normal((100_000, 300))
    result = maxvol(B)
    assert result.converged
    assert result.log_det >= 774.32
