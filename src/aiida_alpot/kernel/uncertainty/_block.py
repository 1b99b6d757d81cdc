"""The active rows of one species and the grades they give; :mod:`.active_set` puts the blocks together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from scipy.linalg import null_space, qr

from aiida_alpot.kernel.uncertainty.maxvol import (
    MAX_PASSES,
    RANK_CUTOFF,
    ChunkSource,
    Pool,
    absolute_maximum,
    compute_log_volume,
    compute_operator,
    exchange,
    maxvol,
)
from aiida_alpot.kernel.units import FloatArray, IntArray

Start = Literal["strict", "eps"]

EPS: Final = 1e-5
"""Size of an artificial row in units of the rms of its column."""
SPAN_TOLERANCE: Final = 1e-6
"""A part outside the span below this share of the row is roundoff."""
REFACTOR_EVERY: Final = 100
"""Rank-1 updates between two factorisations."""
DRIFT: Final = 1e-8
"""Largest deviation of ``A A⁻¹`` from 1 before a factorisation."""
SINGLE_ERROR: Final = 1e-3
"""Round-off of a grade in single precision that is accepted."""
SWAPS_PER_ROW: Final = 200
"""Most exchanges of one absorption per active row; they end long before unless the features are ill-conditioned."""


@dataclass
class Block:
    """Active rows A of one species.

    The grade of a row b is ``max |b A⁺|``. In a strict block a row outside the span of A has an infinite grade; an eps
    block starts with artificial rows ``eps · rms_j e_j`` along the directions that no training row has.

    :ivar rows: A, shape (n_rows, n_features), features in their own units.
    :ivar owners: tag of the atom each row came from, shape (n_rows,); −1 for an artificial one.
    :ivar scale: rms of each column over the training rows, shape (n_features,).
    :ivar start: ``"strict"`` or ``"eps"``.
    :ivar tol: largest coefficient that is left after an exchange.
    :ivar span_tolerance: relative part outside the span from which a row counts as outside.
    :ivar grade_max: largest grade of the training rows when the block was built.
    :ivar converged: whether it is at most *tol*, and every absorption ended below its cap.
    """

    rows: FloatArray
    owners: IntArray
    scale: FloatArray
    start: Start
    tol: float
    span_tolerance: float = SPAN_TOLERANCE
    grade_max: float = 0.0
    converged: bool = True

    def __post_init__(self) -> None:
        self._single: npt.NDArray[np.floating] | None = None
        self._factorise()

    @property
    def n_features(self) -> int:
        """Number of columns, the constant one included."""
        return len(self.scale)

    @property
    def rank(self) -> int:
        """Number of rows that came from an atom."""
        return int(np.count_nonzero(self.owners >= 0))

    @property
    def log_det(self) -> float:
        """Logarithm of the volume of the rows in units of the rms of the columns."""
        return compute_log_volume(self.rows / self.scale)

    def grade(self, values: npt.NDArray[np.floating]) -> FloatArray:
        """Return the extrapolation grade of each row, shape (n,); infinite for a row that is not finite.

        :param values: some thousand rows at most, shape (n, n_features); the last feature is 1 for all if it is left
            out. Single precision is graded in single precision if the active rows are independent enough for that.
        """
        grades = np.zeros(len(values))
        if len(self.rows):
            with np.errstate(invalid="ignore"):
                grades[:] = absolute_maximum(self._coefficients(values))
        # a product with a number that is not finite is not finite, and rarely there is one
        finite = np.isfinite(grades)
        if not finite.all() or not len(self.rows):
            finite = np.asarray(np.isfinite(values).all(axis=1))
            grades[~np.isfinite(grades)] = np.inf
        if self.start == "strict" and self.rank < self.n_features:
            known = np.ones((len(values), self.n_features))
            known[:, : values.shape[1]] = np.where(finite[:, None], values, 0.0)
            grades[self._beyond(known) > self.span_tolerance] = np.inf
        grades[~finite] = np.inf
        return grades

    def residual(self, values: FloatArray) -> FloatArray:
        """Return the share of each row outside the span of the rows that came from atoms, within [0, 1].

        Lengths are measured in units of the rms of the columns.
        """
        scaled = values / self.scale
        length = np.linalg.norm(scaled, axis=1)
        outside = np.linalg.norm(self._outside(scaled), axis=1)
        share = np.divide(outside, length, out=np.zeros(len(values)), where=length > 0.0)
        return np.asarray(share, dtype=np.float64)

    def absorb(self, values: FloatArray, tags: IntArray) -> int:
        """Exchange rows until no grade of *values* exceeds ``tol`` and return how many rows entered.

        A cap that is reached sets ``converged`` to False.
        """
        entered = 0
        while self.start == "strict" and len(self.rows) < self.n_features:
            beyond = self._beyond(values)
            if beyond.max(initial=0.0) <= self.span_tolerance:
                break
            best = int(np.argmax(beyond))
            self.rows = np.concatenate([self.rows, values[best : best + 1]])
            self.owners = np.append(self.owners, tags[best])
            self._factorise()
            entered += 1
        if len(self.rows):
            entered += self._swap(values, tags)
        return entered

    def add_columns(self, n: int) -> None:
        """Add features that are zero in every row so far; artificial rows along them if the start is ``"eps"``.

        :param n: number of columns, put behind the others.
        """
        unit = float(self.scale.mean())
        self.rows = np.pad(self.rows, ((0, 0), (0, n)))
        self.scale = np.append(self.scale, np.full(n, unit))
        if self.start == "eps":
            artificial = np.pad(EPS * unit * np.eye(n), ((0, 0), (self.rows.shape[1] - n, 0)))
            self.rows = np.concatenate([self.rows, artificial])
            self.owners = np.append(self.owners, np.full(n, -1))
        self._factorise()

    def certify(self, source: ChunkSource, tags: IntArray) -> None:
        """Measure a block of deficient rank against all training rows, and exchange rows where it falls short.

        The rank was cut in the Gram matrix, and the span of the rows picked differs from that one by what was cut.
        No training row may be outside of it, so that the tolerance follows from the largest part that is.
        """
        for _ in range(MAX_PASSES):
            first, entered, outside, self.grade_max = 0, 0, 0.0, 0.0
            for chunk in source():
                values = np.asarray(chunk, dtype=np.float64)
                outside = max(outside, float(self._beyond(values).max(initial=0.0)))
                if len(self.rows) and len(values):
                    self.grade_max = max(self.grade_max, float(absolute_maximum(values @ self._operator).max()))
                    entered += self._swap(values, tags[first : first + len(values)])
                first += len(values)
            if not entered:
                break
            self._factorise()
        self.converged = self.converged and self.grade_max <= self.tol
        self.span_tolerance = max(SPAN_TOLERANCE, 2.0 * outside)

    def invertibility(self) -> float:
        """Return the largest deviation of ``A A⁺`` from 1."""
        return float(np.abs(self.rows @ self._operator - np.eye(len(self.rows))).max(initial=0.0))

    def _swap(self, values: FloatArray, tags: IntArray) -> int:
        coefficients = values @ self._operator
        for n_swaps in range(SWAPS_PER_ROW * len(self.rows)):
            row, column = divmod(int(np.argmax(np.abs(coefficients))), coefficients.shape[1])
            pivot = coefficients[row, column]
            if abs(pivot) <= self.tol:
                self._orient()
                return n_swaps
            change = coefficients[row].copy()
            change[column] -= 1.0
            change /= pivot
            # Sherman-Morrison: the new row takes the place of the old one
            self._operator -= np.outer(self._operator[:, column], change)
            self._single = None
            coefficients -= np.outer(coefficients[:, column], change)
            self.rows[column] = values[row]
            self.owners[column] = tags[row]
            if self._is_stale(column):
                self._factorise()
                coefficients = values @ self._operator
        # features so large that the inverse is roundoff: reported, as a selection should not end here
        self.converged = False
        self._orient()
        return n_swaps + 1

    def _is_stale(self, column: int) -> bool:
        self._n_updates += 1
        unit = self.rows[column] @ self._operator
        unit[column] -= 1.0
        return bool(self._n_updates >= REFACTOR_EVERY or np.abs(unit).max() > DRIFT)

    def _factorise(self) -> None:
        operator, self._basis = compute_operator(self.rows / self.scale)
        self._operator = np.ascontiguousarray(operator / self.scale[:, None])
        self._single = None
        self._n_updates = 0
        self._orient()

    def _orient(self) -> None:
        """Find the span of the rows that came from atoms again, if there are others."""
        real = self.owners >= 0
        if not real.all():
            self._basis = compute_operator(self.rows[real] / self.scale)[1]

    def _outside(self, scaled: FloatArray) -> FloatArray:
        if self.rank == self.n_features:
            return np.zeros_like(scaled)
        return np.asarray(scaled - (scaled @ self._basis) @ self._basis.T, dtype=np.float64)

    def _beyond(self, values: FloatArray) -> FloatArray:
        """Return the part outside the span over the row's length, or over 1 for a row shorter than one rms."""
        scaled = values / self.scale
        length = np.maximum(np.linalg.norm(scaled, axis=1), 1.0)
        return np.asarray(np.linalg.norm(self._outside(scaled), axis=1) / length, dtype=np.float64)

    def _coefficients(self, values: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """Return the rows in terms of the active ones; a constant feature enters the product without a copy of them."""
        operator = self._operator_for(values)
        coefficients = values @ operator[: values.shape[1]]
        if values.shape[1] < len(operator):
            coefficients += operator[-1]
        return np.asarray(coefficients)

    def _operator_for(self, values: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """Return the operator in the precision of *values*, in double precision if single would not do."""
        if values.dtype != np.float32:
            return self._operator
        if self._single is None:
            # round-off of a row of usual size, by column of the product
            error = float(np.finfo(np.float32).eps) * (self.scale @ np.abs(self._operator)).max(initial=0.0)
            self._single = self._operator.astype(np.float32 if error < SINGLE_ERROR else np.float64)
        return self._single


def build_block(source: ChunkSource, tags: IntArray, start: Start, tol: float) -> Block:
    """Return the block of the rows of largest volume.

    :param source: chunks of the features of one species, at least one row.
    :param tags: one tag per row, not negative.
    :raises ValueError: if a feature is not finite or an option is out of range.
    """
    # what an artificial row covers at full length is no part of the span
    cutoff = max(RANK_CUTOFF, EPS**2) if start == "eps" else RANK_CUTOFF
    result = maxvol(source, tol, rank_cutoff=cutoff)
    if start == "eps" and result.rank < len(result.scale):
        return _build_eps(source, tags, tol, result.indices, result.rows, result.scale)
    block = Block(
        rows=result.rows,
        owners=tags[result.indices],
        scale=result.scale,
        start=start,
        tol=tol,
        grade_max=result.grade_max,
        converged=result.converged,
    )
    if result.rank < block.n_features:
        block.certify(source, tags)
    return block


def _build_eps(
    source: ChunkSource, tags: IntArray, tol: float, indices: IntArray, rows: FloatArray, scale: FloatArray
) -> Block:
    """Return a block with artificial rows along the missing directions."""
    missing = null_space(rows / scale) if len(rows) else np.eye(len(scale))
    columns = qr(missing.T, mode="r", pivoting=True)[1][: missing.shape[1]]
    artificial = np.zeros((len(columns), len(scale)))
    artificial[np.arange(len(columns)), columns] = EPS * scale[columns]
    pool = Pool(
        index=np.concatenate([indices, -1 - np.asarray(columns, dtype=np.int64)]),
        rows=np.concatenate([rows, artificial]),
        transform=np.diag(1.0 / scale),
        active=np.arange(len(scale)),
    )
    outcome = exchange(source, pool, tol)
    index = pool.index[pool.active]
    order = np.argsort(np.where(index < 0, len(tags) - index, index), kind="stable")
    index = index[order]
    owners = np.where(index < 0, -1, tags[np.maximum(index, 0)])
    return Block(
        rows=pool.rows[pool.active[order]],
        owners=owners,
        scale=scale,
        start="eps",
        tol=tol,
        grade_max=outcome.grade_max,
        converged=outcome.grade_max <= tol,
    )
