"""Matrices to choose rows of."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations_with_replacement
from typing import Literal

import numpy as np
import numpy.typing as npt

Kind = Literal["monomials", "gauss"]
Array = npt.NDArray[np.float64]
CHUNK = 1024


def make_matrix(kind: Kind, n_rows: int, n_columns: int, seed: int = 0) -> Array:
    """Return a tall matrix, shape (n_rows, n_columns).

    ``monomials``: products of up to four of twelve latent variables that lie in four clusters: ill-conditioned and with
    heavy tails, as the basis of an atomic cluster expansion. ``gauss``: independent normal numbers, the easy case.
    """
    if kind == "gauss":
        return np.random.default_rng(seed).normal(size=(n_rows, n_columns))
    matrix = np.empty((n_rows, n_columns))
    for k, chunk in enumerate(monomial_chunks(n_rows, n_columns, seed)):
        matrix[k * CHUNK : k * CHUNK + len(chunk)] = chunk
    return matrix


def monomial_chunks(n_rows: int, n_columns: int, seed: int = 0) -> Iterator[Array]:
    """Yield the rows of the matrix of monomials, the same ones every time."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(4, 12))
    powers = [picks for degree in range(1, 5) for picks in combinations_with_replacement(range(12), degree)]
    chosen = [powers[k] for k in rng.choice(len(powers), n_columns, replace=False)]
    for first in range(0, n_rows, CHUNK):
        size = min(CHUNK, n_rows - first)
        part = np.random.default_rng([seed, first])
        latent = centres[part.integers(0, 4, size)] + 0.3 * part.normal(size=(size, 12))
        yield np.stack([latent[:, picks].prod(axis=1) for picks in chosen], axis=1)
