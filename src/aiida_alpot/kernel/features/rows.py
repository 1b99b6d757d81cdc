"""What a function must give whose features come from no potential, and the checks of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
from ase import Atoms

from aiida_alpot.kernel._extras import MissingObjectPackageError, MissingPackageError
from aiida_alpot.kernel.potentials.base import Features
from aiida_alpot.kernel.units import FloatArray

FeatureFunction = Callable[[Sequence[Atoms]], Features]
"""Returns the features of the atoms of some frames, at least one frame."""

RowFunction = Callable[[Sequence[Atoms]], npt.ArrayLike]
"""Returns one row per atom of some frames, frame after frame: real numbers, always as many columns.

A row of NaN says that the features are not defined for the atom: its grade is infinite. The rows of a frame must not
depend on the other frames.
"""


class CheckedFeatures:
    """A :data:`FeatureFunction` made of a :data:`RowFunction`: batched, and checked.

    :param compute: gets copies of frames, without labels.
    :param name: of the features, for messages: the setting and its value.
    :param batch_size: frames handed over at once.
    """

    def __init__(self, compute: RowFunction, name: str, batch_size: int) -> None:
        self._compute = compute
        self._name = name
        self._batch_size = batch_size

    def __call__(self, frames: Sequence[Atoms]) -> Features:
        """Return the features of *frames*, at least one.

        :raises ValueError: if the function fails, or gives another shape than one row per atom, or numbers that are not
            finite in a row that is not NaN altogether.
        :raises MissingPackageError: if it imports a package that is not installed.
        """
        starts = range(0, len(frames), self._batch_size)
        parts = [self._rows(frames[start : start + self._batch_size], start) for start in starts]
        sizes = sorted({part.shape[1] for part in parts})
        if len(sizes) > 1:
            raise ValueError(
                f"{self._name} gives {sizes[0]} columns for some frames and {sizes[-1]} for others; a column must mean "
                "the same for all, so fix by parameters what their number depends on, such as a list of species"
            )
        index = np.repeat(np.arange(len(frames)), [len(atoms) for atoms in frames])
        return Features(np.concatenate(parts), np.concatenate([atoms.numbers for atoms in frames]), index)

    def _rows(self, frames: Sequence[Atoms], first: int) -> FloatArray:
        with code_of_user(f"{self._name} failed"):
            given = self._compute([atoms.copy() for atoms in frames])
            rows: FloatArray = np.asarray(given, dtype=np.float64)
        n_atoms = sum(len(atoms) for atoms in frames)
        if rows.ndim != 2 or len(rows) != n_atoms or rows.shape[1] == 0:
            raise ValueError(
                f"{self._name} gives an array of the shape {rows.shape} for {len(frames)} frames with {n_atoms} atoms; "
                "it must give one row per atom, frame after frame, and at least one column"
            )
        broken = np.flatnonzero(~np.isfinite(rows).all(axis=1) & ~np.isnan(rows).all(axis=1))
        if broken.size:
            raise ValueError(
                f"{self._name} gives a number that is not finite for {_describe(frames, int(broken[0]), first)}; a row "
                "is finite, or NaN altogether for an atom that the features are not defined for"
            )
        return rows


@contextmanager
def code_of_user(what: str) -> Iterator[None]:
    """Turn whatever code of a user raises into an error that says so: what can be changed are it and its parameters.

    :param what: what went wrong with which setting.
    :raises MissingPackageError: if a package is not installed.
    :raises ValueError: for anything else.
    """
    try:
        yield
    except MissingPackageError:
        raise
    except ImportError as error:
        raise MissingObjectPackageError((error.name or str(error)).partition(".")[0], f"{what}, it") from error
    except Exception as error:
        raise ValueError(f"{what}: {type(error).__name__}: {error}") from error


def _describe(frames: Sequence[Atoms], row: int, first: int) -> str:
    """Return which atom a row belongs to; *first* is the number of the first frame."""
    for k, atoms in enumerate(frames):
        if row < len(atoms):
            return f"atom {row} ({atoms.symbols[row]}) of frame {first + k} ({atoms.symbols})"
        row -= len(atoms)
    raise IndexError(row)
