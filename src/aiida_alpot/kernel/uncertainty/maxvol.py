"""Rows of largest volume of a tall matrix, found without holding the matrix in memory.

Square maxvol (Goreinov et al. 2010; the D-optimality criterion of moment tensor potentials and ACE) picks n of N rows
such that every row is a combination of them with coefficients of at most ``tol``. Here the exchange runs on a pool of
a few thousand rows, first the ones of largest leverage; a pass over all rows then either certifies the result or adds
the offenders to the pool. Every pass reads chunks, so that N may exceed the memory, and the result does not depend on
the order of the rows except for ties.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.linalg import blas, qr, solve_triangular

from aiida_alpot.kernel.units import FloatArray, IntArray

ChunkSource = Callable[[], Iterable[npt.NDArray[np.floating]]]
"""Returns a new iterator over the same chunks of rows, shape (any, n_features), every time it is called."""

RANK_CUTOFF: Final = 1e-12
"""Directions whose mean square is below this share of the largest one are no part of the span."""
CHUNK_SIZE: Final = 1024
"""Rows of an array that are treated at once; the fastest size for products with a few hundred columns."""
MAX_PASSES: Final = 50
MAX_SWAPS: Final = 20_000
POOL_ROWS: Final = 3000
"""The first pool has ten rows per column, but not more than this unless that is fewer than four per column."""
NEAR: Final = 0.7
"""Rows above this grade join the pool together with the offenders; it saves passes."""


@dataclass(frozen=True)
class MaxvolResult:
    """Rows of (locally) largest volume.

    :param indices: their positions in the matrix, shape (rank,), ascending.
    :param grade_max: largest coefficient of any row of the whole matrix, measured in the last pass.
    :param log_det: logarithm of the volume of the rows after division of each column by its rms.
    :param converged: whether *grade_max* is at most *tol*; False if a cap was reached first.
    :param rank: number of rows picked: the numerical rank of the matrix.
    :param rows: the rows, shape (rank, n_features).
    :param scale: rms of each column (of the others, where it is zero), shape (n_features,).
    :param n_rows: rows of the matrix.
    :param n_swaps: exchanges made.
    :param n_passes: passes over the matrix, the ones for rank and leverage included.
    """

    indices: IntArray
    grade_max: float
    log_det: float
    converged: bool
    rank: int
    rows: FloatArray
    scale: FloatArray
    n_rows: int
    n_swaps: int
    n_passes: int


@dataclass(frozen=True)
class Span:
    """Column scale and numerical rank of a matrix.

    :param scale: rms of each column, shape (n_features,); of a zero column the mean rms of the others.
    :param whitening: matrix T, shape (n_features, rank), such that B T has orthogonal columns of rms 1.
    :param n_rows: rows of the matrix.
    """

    scale: FloatArray
    whitening: FloatArray
    n_rows: int

    @property
    def rank(self) -> int:
        """Number of independent directions."""
        return int(self.whitening.shape[1])


def maxvol(
    matrix: npt.ArrayLike | ChunkSource,
    tol: float = 1.01,
    *,
    rank_cutoff: float = RANK_CUTOFF,
    max_passes: int = MAX_PASSES,
    max_swaps: int = MAX_SWAPS,
) -> MaxvolResult:
    """Return rows of largest volume, such that no coefficient of any row exceeds *tol*.

    Deterministic. The grade is invariant to ``B → B R`` with a regular R, scaled columns included.

    :param matrix: array of shape (n_rows, n_features), or a function that returns a new iterator over its chunks.
    :param tol: largest coefficient that is left, above 1.
    :param rank_cutoff: see :data:`RANK_CUTOFF`; a rank below n_features gives that many rows.
    :param max_passes: most passes of verification.
    :param max_swaps: most exchanges; a cap that is reached shows in ``converged`` and ``grade_max``.
    :raises ValueError: if there are no rows, a value is not finite, or an option is out of range.
    """
    if not tol > 1.0:
        raise ValueError(f"tol must be above 1, got {tol!r}")
    if not 0.0 < rank_cutoff < 1.0:
        raise ValueError(f"rank_cutoff must be in (0, 1), got {rank_cutoff!r}")
    source = as_source(matrix)
    span = compute_span(source, rank_cutoff)
    if span.n_rows == 0:
        raise ValueError("maxvol needs at least one row, got none")
    if span.rank == 0:
        empty = np.empty((0, len(span.scale)))
        return MaxvolResult(np.empty(0, np.int64), 0.0, 0.0, True, 0, empty, span.scale, span.n_rows, 0, 1)
    pool, n_passes = _start_pool(source, span)
    outcome = exchange(source, pool, tol, max_passes=max_passes, max_swaps=max_swaps)
    order = np.argsort(pool.index[pool.active], kind="stable")
    active = pool.active[order]
    rows = pool.rows[active]
    return MaxvolResult(
        indices=pool.index[active],
        grade_max=outcome.grade_max,
        log_det=compute_log_volume(rows / span.scale),
        converged=outcome.grade_max <= tol,
        rank=span.rank,
        rows=rows,
        scale=span.scale,
        n_rows=span.n_rows,
        n_swaps=outcome.n_swaps,
        n_passes=outcome.n_passes + n_passes + 1,
    )


def as_source(matrix: npt.ArrayLike | ChunkSource) -> ChunkSource:
    """Return a source of chunks, itself if it is one already.

    :raises ValueError: if it is neither callable nor a two-dimensional array.
    """
    if callable(matrix):
        return matrix
    values = np.asarray(matrix)
    if values.ndim != 2:
        raise ValueError(f"expected a matrix or a function that returns chunks, got an array of shape {values.shape}")
    return lambda: (values[k : k + CHUNK_SIZE] for k in range(0, len(values), CHUNK_SIZE))


def compute_span(source: ChunkSource, cutoff: float = RANK_CUTOFF) -> Span:
    """Return column scale and whitening transformation from the Gram matrix, one pass.

    :param cutoff: see :data:`RANK_CUTOFF`.
    :raises ValueError: if a value is not finite; the message names the row.
    """
    gram, n_rows = np.zeros((0, 0)), 0
    for first, chunk in _iterate(source):
        bad = np.flatnonzero(~np.isfinite(chunk).all(axis=1))
        if bad.size:
            raise ValueError(f"row {first + int(bad[0])} has a feature that is not finite")
        product = chunk.T @ chunk
        gram = product if n_rows == 0 else gram + product
        n_rows = first + len(chunk)
    if n_rows == 0:
        return Span(np.ones(gram.shape[0]), np.empty((gram.shape[0], 0)), 0)
    scale = np.sqrt(np.diag(gram) / n_rows)
    used = scale > 0.0
    scale[~used] = scale[used].mean() if used.any() else 1.0
    power, vectors = np.linalg.eigh(gram / n_rows / scale[:, None] / scale[None, :])
    keep = power > cutoff * max(float(power[-1]), 0.0) if used.any() else np.zeros(len(scale), dtype=bool)
    keep[: max(len(scale) - n_rows, 0)] = False
    # largest power first
    whitening = (vectors[:, keep] / np.sqrt(power[keep]))[:, ::-1] / scale[:, None]
    return Span(scale, np.ascontiguousarray(whitening), n_rows)


def compute_log_volume(rows: FloatArray) -> float:
    """Return ``log sqrt(det(A Aᵀ))`` of independent rows, shape (n_rows, n_features)."""
    if not len(rows):
        return 0.0
    triangle = qr(rows.T, mode="r")[0][: len(rows)]
    return float(np.log(np.abs(np.diag(triangle))).sum())


class Pool:
    """The rows an exchange works on, and the ones among them that are active.

    :ivar index: position of each row in the matrix, shape (n,); negative for an artificial one.
    :ivar rows: shape (n, n_features).
    :ivar transform: shape (n_features, rank); coefficients are computed for ``rows @ transform``.
    :ivar active: positions of the active rows in the pool, shape (rank,).
    """

    def __init__(self, index: IntArray, rows: FloatArray, transform: FloatArray, active: IntArray) -> None:
        self.index = index
        self.rows = rows
        self.transform = transform
        self.active = active

    def add(self, index: IntArray, rows: FloatArray) -> int:
        """Add rows that are not in the pool yet and return how many there were."""
        new = ~np.isin(index, self.index)
        self.index = np.concatenate([self.index, index[new]])
        self.rows = np.concatenate([self.rows, rows[new]])
        return int(np.count_nonzero(new))

    def operator(self) -> FloatArray:
        """Return the matrix that turns features into coefficients of the active rows, (n_features, rank)."""
        return np.asarray(self.transform @ np.linalg.inv(self.rows[self.active] @ self.transform), dtype=np.float64)

    def swap(self, tol: float, max_swaps: int) -> int:
        """Exchange rows until no coefficient of the pool exceeds *tol* and return how many exchanges that took."""
        n_swaps = 0
        while True:
            coefficients = np.asfortranarray(self.rows @ self.operator())
            done = self._swap_incrementally(coefficients, tol, max_swaps - n_swaps)
            n_swaps += done
            # coefficients drift in the rank-1 updates: the last word is had by fresh ones
            if done == 0 or n_swaps >= max_swaps:
                return n_swaps

    def _swap_incrementally(self, coefficients: FloatArray, tol: float, max_swaps: int) -> int:
        flat = coefficients.reshape(-1, order="F")
        for n_swaps in range(max_swaps):
            column, row = divmod(int(blas.idamax(flat)), len(coefficients))
            pivot = coefficients[row, column]
            if abs(pivot) <= tol:
                return n_swaps
            difference = coefficients[row].copy()
            difference[column] -= 1.0
            blas.dger(-1.0 / pivot, coefficients[:, column].copy(), difference, a=coefficients, overwrite_a=1)
            self.active[column] = row
        return max_swaps


@dataclass(frozen=True)
class Outcome:
    """How an exchange ended.

    :param grade_max: largest coefficient of any row of the matrix.
    """

    grade_max: float
    n_swaps: int
    n_passes: int


def exchange(
    source: ChunkSource,
    pool: Pool,
    tol: float,
    *,
    max_passes: int = MAX_PASSES,
    max_swaps: int = MAX_SWAPS,
) -> Outcome:
    """Exchange rows until no coefficient of any row of the matrix exceeds *tol*; *pool* is changed in place."""
    n_swaps, n_passes, grade_max = 0, 0, np.inf
    for _ in range(max(max_passes, 1)):
        n_passes += 1
        n_swaps += pool.swap(tol, max_swaps - n_swaps)
        grade_max, index, rows = _verify(source, pool)
        if grade_max <= tol or n_swaps >= max_swaps or not pool.add(index, rows):
            break
    return Outcome(grade_max, n_swaps, n_passes)


class _TopRows:
    """Keeps the rows of highest score of a stream; a tie goes to the row that comes first."""

    def __init__(self, capacity: int, lowest: float) -> None:
        self._capacity = capacity
        self._lowest = lowest
        self._parts: list[tuple[FloatArray, IntArray, FloatArray]] = []
        self._size = 0

    def push(self, first: int, scores: FloatArray, rows: FloatArray) -> None:
        use = np.flatnonzero(scores > self._lowest)
        if use.size:
            self._parts.append((scores[use], first + use, rows[use]))
            self._size += len(use)
        if self._size > 2 * self._capacity:
            self._cut()

    def result(self) -> tuple[IntArray, FloatArray]:
        if not self._parts:
            return np.empty(0, np.int64), np.empty((0, 0))
        self._cut()
        return self._parts[0][1], self._parts[0][2]

    def _cut(self) -> None:
        scores, index, rows = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        order = np.argsort(-scores, kind="stable")[: self._capacity]
        if len(order) == self._capacity:
            self._lowest = float(scores[order[-1]])
        self._parts = [(scores[order], index[order], rows[order])]
        self._size = len(order)


def _iterate(source: ChunkSource) -> Iterator[tuple[int, FloatArray]]:
    first = 0
    for chunk in source():
        values = np.asarray(chunk, dtype=np.float64)
        yield first, values
        first += len(values)


def _verify(source: ChunkSource, pool: Pool) -> tuple[float, IntArray, FloatArray]:
    """Return the largest coefficient of the matrix and the rows closest to, or beyond, entering."""
    operator = pool.operator()
    grade_max = 0.0
    top = _TopRows(4 * len(pool.active), NEAR)
    for first, chunk in _iterate(source):
        if len(chunk):
            grades = absolute_maximum(chunk @ operator)
            grade_max = max(grade_max, float(grades.max()))
            top.push(first, grades, chunk)
    return grade_max, *top.result()


def absolute_maximum(coefficients: npt.NDArray[np.floating]) -> FloatArray:
    """Return the largest absolute value of each row."""
    return np.asarray(np.maximum(coefficients.max(axis=1), -coefficients.min(axis=1)), dtype=np.float64)


def _start_pool(source: ChunkSource, span: Span) -> tuple[Pool, int]:
    """Return the rows of highest leverage with a greedy choice of active ones, and the passes it took."""
    rank = span.rank
    top = _TopRows(max(4 * rank, min(10 * rank, POOL_ROWS)), -1.0)
    for first, chunk in _iterate(source):
        white = chunk @ span.whitening
        top.push(first, np.einsum("ij,ij->i", white, white), chunk)
    index, rows = top.result()
    pool = Pool(index, rows, span.whitening, np.empty(0, np.int64))
    n_passes = 0
    for _ in range(rank + 1):
        n_passes += 1
        white = pool.rows @ span.whitening
        triangle, order = qr(white.T, mode="r", pivoting=True)
        diagonal = np.abs(np.diag(triangle))
        # columns have rms 1, so that there is a row of length 1 or more along every direction
        n_found = int(np.count_nonzero(diagonal > 1e-3))
        if n_found == rank:
            break
        pool.add(*_missing_rows(source, span, white[order[:n_found]]))
    pool.active = np.asarray(order[:rank], dtype=np.int64)
    return pool, n_passes


def _missing_rows(source: ChunkSource, span: Span, found: FloatArray) -> tuple[IntArray, FloatArray]:
    """Return rows with the largest part outside the span of *found*: high leverage may leave a direction out."""
    basis = qr(found.T, mode="economic")[0]
    top = _TopRows(4 * span.rank, 0.0)
    for first, chunk in _iterate(source):
        white = chunk @ span.whitening
        outside = white - (white @ basis) @ basis.T
        top.push(first, np.einsum("ij,ij->i", outside, outside), chunk)
    return top.result()


def compute_operator(rows: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return pseudo-inverse and orthonormal span of independent rows.

    :param rows: A, shape (n_rows, n_features), n_rows ≤ n_features.
    :return: ``A⁺`` and Q, both of shape (n_features, n_rows), with ``A A⁺ = 1`` and ``Q Qᵀ`` the projector on the rows.
    """
    if not len(rows):
        return np.empty(rows.shape[::-1]), np.empty(rows.shape[::-1])
    basis, triangle = qr(rows.T, mode="economic")
    if np.any(np.diag(triangle) == 0.0):
        # rows that became dependent by roundoff, after features that are larger by many orders of magnitude
        return np.asarray(np.linalg.pinv(rows), dtype=np.float64), basis
    return solve_triangular(triangle, basis.T).T, basis
