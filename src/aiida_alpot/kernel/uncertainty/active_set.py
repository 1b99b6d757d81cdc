"""Active set of the training atoms and extrapolation grade γ of any atom: D-optimality per species.

γ of an atom with features b is the largest coefficient of ``b A⁻¹`` (Podryabinkin and Shapeev 2017; Lysogorskiy et al.
2023), where A are the training rows of largest volume of its species. It does not change with a regular linear map of
the features, and at most ``tol`` for every atom trained on.

In the mode ``"configuration"`` the rows are frames instead, see :mod:`.configurations`, and an atom has the grade of
its frame.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from aiida_alpot.kernel.potentials.base import Features
from aiida_alpot.kernel.uncertainty._block import Block, Start, build_block
from aiida_alpot.kernel.uncertainty._hdf5 import read_arrays, write_arrays
from aiida_alpot.kernel.uncertainty.configurations import CONFIGURATION, sum_configurations
from aiida_alpot.kernel.uncertainty.maxvol import CHUNK_SIZE, ChunkSource
from aiida_alpot.kernel.units import FloatArray, IntArray

FeatureSource = Callable[[], Iterable[Features]]
"""Returns a new iterator over the same chunks of features every time it is called."""

OUT_OF_SPAN = 1e-4
"""Share of the features of an atom outside the span of the training atoms above which it counts as outside."""

Mode = Literal["neighbourhood", "configuration"]

TOL = 1.01
"""Largest coefficient that is left by an exchange (pace's default of the command line)."""

_SCALARS = ("tol", "span_tolerance", "grade_max", "converged")


class ActiveSet:
    """Active rows of every species, see the module.

    :ivar blocks: one block per atomic number, or one of configurations.
    :ivar start: ``"strict"``: a row outside the span of the training rows has an infinite grade. ``"eps"``: missing
        directions hold artificial rows of 1e-5 of the rms of a column, so that grades stay finite (about 1e5 for
        a new direction), which a ladder of thresholds needs.
    :ivar tol: largest coefficient that is left by an exchange.
    :ivar constant_column: whether a column of ones is added to the features.
    :ivar mode: ``"neighbourhood"``: a row is an atom. ``"configuration"``: a row is a frame.
    :ivar units: what the grades of each block are divided by, see :mod:`.scaling`; one where it is not named.
    :ivar columns: atomic numbers in the order of their columns in the row of a frame; none if a row is an atom.
    """

    def __init__(
        self,
        blocks: Mapping[int, Block],
        start: Start,
        tol: float,
        constant_column: bool,
        mode: Mode = "neighbourhood",
        columns: Iterable[int] = (),
        units: Mapping[int, float] | None = None,
    ) -> None:
        if start not in ("strict", "eps"):
            raise ValueError(f"start: expected 'strict' or 'eps', got {start!r}")
        if not tol > 1.0:
            raise ValueError(f"tol must be above 1, got {tol!r}")
        if mode not in get_args(Mode):
            raise ValueError(f"mode: expected 'neighbourhood' or 'configuration', got {mode!r}")
        sizes = {block.n_features for block in blocks.values()}
        if len(sizes) > 1:
            raise ValueError(f"blocks of one active set have one number of features, got {sorted(sizes)}")
        self.blocks = dict(sorted(blocks.items()))
        self.start: Start = start
        self.tol = tol
        self.constant_column = constant_column
        self.mode: Mode = mode
        self.columns = tuple(columns)
        self.units = dict(units or {})

    @classmethod
    def build(
        cls,
        features: Features | FeatureSource,
        start: Start = "strict",
        tol: float = TOL,
        kind: str = "last_layer",
        constant_column: bool | None = None,
        tags: npt.ArrayLike | None = None,
        mode: Mode = "neighbourhood",
    ) -> ActiveSet:
        """Return the active set of the training atoms; fewer rows than features are legal, none too.

        :param features: features of the training atoms, or a function that returns a new iterator over chunks of
            whole frames, which is called several times per species.
        :param start: see the class.
        :param tol: largest grade of a training atom, above 1.
        :param kind: kind of the features; decides on *constant_column* if that is None.
        :param constant_column: add a column of ones, so that a grade up to 1 means an affine combination too; meant
            for features of neural networks (``"last_layer"``), not for ACE or MTP, whose basis is complete.
        :param tags: what an active row remembers of its atom, shape (n_atoms,), integers ≥ 0; by default the frame
            index. Only with *features* as one piece.
        :param mode: see the class.
        :raises ValueError: if a feature is not finite or an option is out of range.
        """
        constant = kind == "last_layer" if constant_column is None else constant_column
        result = cls({}, start, tol, constant, mode)
        if not isinstance(features, Features):
            result._build_from_chunks(features)
            return result
        if mode == "configuration":
            result.columns = tuple(np.unique(features.species).tolist())
        rows, owners = result._rows(features, _tags(features, tags))
        for number in np.unique(rows.species):
            mask = rows.species == number
            result._add_block(int(number), result._prepare(rows.values[mask]), owners[mask])
        return result

    @property
    def species(self) -> tuple[int, ...]:
        """Atomic numbers that are known, ascending."""
        return tuple(sorted(self.columns)) if self.mode == "configuration" else tuple(self.blocks)

    @property
    def owners(self) -> dict[int, IntArray]:
        """Tags of the active rows per atomic number (0: configurations), artificial rows left out."""
        return {number: block.owners[block.owners >= 0] for number, block in self.blocks.items()}

    @property
    def n_features(self) -> int:
        """Number of features of an atom, a column of ones left out; 0 for an empty set."""
        n_parts = len(self.columns) if self.mode == "configuration" else 1
        return max((block.n_features // n_parts - self.constant_column for block in self.blocks.values()), default=0)

    @property
    def log_det(self) -> float:
        """Sum over species of the logarithm of the volume, in units of the rms of the columns."""
        return sum((block.log_det for block in self.blocks.values()), 0.0)

    @property
    def known_grade(self) -> float:
        """Grade that no atom of the set exceeds, :attr:`tol` in its units, but not below it."""
        return self.tol / min([1.0, *self.units.values()])

    @property
    def converged(self) -> bool:
        """Whether every block was built to ``tol``."""
        return all(block.converged for block in self.blocks.values())

    def grade(self, features: Features) -> FloatArray:
        """Return the extrapolation grade of every atom, shape (n_atoms,).

        Features of single precision are graded in single precision where that is good for three digits.
        In the units of the set. Infinite for a species without training atom, for features that are not finite and,
        with a strict start, for features outside the span of the training atoms.

        :raises ValueError: if the number of features is not the one the set was built with.
        """
        self._check_width(features)
        if self.mode == "configuration":
            rows, row_of = self._sum(features)
            return self._grade_rows(rows)[row_of]
        return self._grade_rows(features)

    def _grade_rows(self, features: Features) -> FloatArray:
        grades = np.full(features.n_atoms, np.inf)
        for first in range(0, features.n_atoms, CHUNK_SIZE):
            chunk = slice(first, first + CHUNK_SIZE)
            species, values = features.species[chunk], features.values[chunk]
            for number in np.unique(species):
                if int(number) in self.blocks:
                    rows = np.flatnonzero(species == number)
                    chosen = values if len(rows) == len(values) else values[rows]
                    grades[first + rows] = self.blocks[int(number)].grade(chosen) / self.units.get(int(number), 1.0)
        return grades

    def residual(self, features: Features) -> FloatArray:
        """Return the share of every atom's features outside the span of the training atoms, shape (n_atoms,).

        ``‖b − b Q Qᵀ‖/‖b‖`` in units of the rms of the columns; 1 for a species without training atom, and for features
        that are not finite.

        :raises ValueError: if the number of features is not the one the set was built with.
        """
        self._check_width(features)
        if self.mode == "configuration":
            rows, row_of = self._sum(features)
            return self._residual_of_rows(rows)[row_of]
        return self._residual_of_rows(features)

    def _residual_of_rows(self, features: Features) -> FloatArray:
        shares = np.ones(features.n_atoms)
        finite = np.isfinite(features.values).all(axis=1)
        for number, block in self.blocks.items():
            mask = finite & (features.species == number)
            shares[mask] = block.residual(self._prepare(features.values[mask]))
        return shares

    def absorb(self, features: Features, tags: npt.ArrayLike | None = None) -> int:
        """Take atoms in, so that none of them has a grade above :attr:`known_grade` any more; changes the set in place.

        Units stay what they are.

        :param features: atoms of one or several frames.
        :param tags: as in :meth:`build`.
        :return: number of rows that entered; 0 means that the set is unchanged.
        :raises ValueError: if a feature is not finite or the number of features differs.
        """
        self._check_width(features)
        if not np.all(np.isfinite(features.values)):
            raise ValueError("cannot absorb features that are not finite")
        if self.mode == "configuration":
            self._add_columns(np.setdiff1d(features.species, self.columns).tolist(), features.n_features)
        rows, owners = self._rows(features, _tags(features, tags))
        entered = 0
        for number in np.unique(rows.species):
            mask = rows.species == number
            values = self._prepare(rows.values[mask])
            if int(number) in self.blocks:
                entered += self.blocks[int(number)].absorb(values, owners[mask])
            else:
                self._add_block(int(number), values, owners[mask])
                entered += self.blocks[int(number)].rank
        return entered

    def copy(self) -> ActiveSet:
        """Return an independent copy."""
        return copy.deepcopy(self)

    def to_arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return the state as flat arrays, keys like ``"29/rows"``."""
        arrays: dict[str, npt.NDArray[np.generic]] = {
            "start": np.array(self.start == "eps"),
            "tol": np.array(self.tol),
            "constant_column": np.array(self.constant_column),
        }
        if self.mode == "configuration":
            arrays["columns"] = np.array(self.columns, dtype=np.int64)
        for number, block in self.blocks.items():
            for name in ("rows", "owners", "scale", *_SCALARS):
                arrays[f"{number}/{name}"] = np.asarray(getattr(block, name))
            if number in self.units:
                arrays[f"{number}/unit"] = np.array(self.units[number])
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.generic]]) -> ActiveSet:
        """Return the active set that :meth:`to_arrays` described.

        :raises ValueError: if an array is missing.
        """
        try:
            start: Start = "eps" if bool(arrays["start"]) else "strict"
            numbers = sorted({int(key.split("/")[0]) for key in arrays if "/" in key})
            blocks = {number: _block_from_arrays(arrays, number, start) for number in numbers}
            columns = np.asarray(arrays.get("columns", ()), dtype=np.int64).tolist()
            mode: Mode = "configuration" if "columns" in arrays else "neighbourhood"
            units = {number: float(arrays[f"{number}/unit"]) for number in numbers if f"{number}/unit" in arrays}
            return cls(blocks, start, float(arrays["tol"]), bool(arrays["constant_column"]), mode, columns, units)
        except KeyError as error:
            raise ValueError(f"not an active set: {error} is missing") from error

    def save(self, path: str | Path) -> None:
        """Write the set to an HDF5 file; equal sets give equal bytes."""
        write_arrays(path, self.to_arrays(), {"kind": "active_set"})

    @classmethod
    def load(cls, path: str | Path) -> ActiveSet:
        """Return the set that :meth:`save` wrote.

        :raises ValueError: if the file is of another kind or of an unknown schema.
        """
        return cls.from_arrays(read_arrays(path, "active_set")[0])

    def _build_from_chunks(self, source: FeatureSource) -> None:
        if self.mode == "configuration":
            self.columns = tuple(sorted({number for chunk in source() for number in np.unique(chunk.species).tolist()}))
            parts = [(np.full(len(rows), CONFIGURATION), rows) for rows in (_frames(chunk) for chunk in source())]
        else:
            parts = [(chunk.species, chunk.frame_index) for chunk in source()]
        if not parts:
            return
        species, owners = (np.concatenate(part) for part in zip(*parts, strict=True))
        for number in np.unique(species):
            rows = self._species_source(source, int(number))
            self.blocks[int(number)] = build_block(rows, owners[species == number], self.start, self.tol)

    def _species_source(self, source: FeatureSource, number: int) -> ChunkSource:
        if self.mode == "configuration":
            return lambda: (self._sum(chunk)[0].values for chunk in source())
        return lambda: (self._prepare(chunk.values[chunk.species == number]) for chunk in source())

    def _sum(self, features: Features) -> tuple[Features, IntArray]:
        return sum_configurations(features, self.columns, count=self.constant_column)

    def _rows(self, features: Features, owners: IntArray) -> tuple[Features, IntArray]:
        """Return what the blocks hold rows of, atoms or frames, and the tag of each."""
        if self.mode == "neighbourhood":
            return features, owners
        rows, row_of = self._sum(features)
        return rows, owners[np.unique(row_of, return_index=True)[1]]

    def _add_columns(self, numbers: Sequence[int], n_features: int) -> None:
        """Make room for species that no frame had so far."""
        self.columns = (*self.columns, *numbers)
        if numbers and CONFIGURATION in self.blocks:
            self.blocks[CONFIGURATION].add_columns(len(numbers) * (n_features + self.constant_column))

    def _add_block(self, number: int, values: FloatArray, owners: IntArray) -> None:
        def source() -> Iterable[FloatArray]:
            return (values[k : k + 1024] for k in range(0, len(values), 1024))

        self.blocks[number] = build_block(source, owners, self.start, self.tol)
        self.blocks = dict(sorted(self.blocks.items()))

    def _prepare(self, values: FloatArray) -> FloatArray:
        if not self.constant_column or self.mode == "configuration":
            return values
        extended = np.ones((len(values), values.shape[1] + 1), dtype=values.dtype)
        extended[:, :-1] = values
        return extended

    def _check_width(self, features: Features) -> None:
        if self.blocks and features.n_features != self.n_features:
            raise ValueError(f"expected {self.n_features} features per atom, got {features.n_features}")


def compute_frame_grade(grades: FloatArray, frame_index: IntArray, n_frames: int) -> FloatArray:
    """Return the largest grade of the atoms of each frame, shape (n_frames,).

    :param grades: grade of each atom, shape (n_atoms,).
    :param frame_index: frame of each atom, shape (n_atoms,).
    :raises ValueError: if a frame has no atom or an atom belongs to no frame.
    """
    if len(frame_index) and not 0 <= int(frame_index.min()) <= int(frame_index.max()) < n_frames:
        raise ValueError(f"frame_index has values outside 0 … {n_frames - 1}")
    result = np.full(n_frames, -1.0)
    np.maximum.at(result, frame_index, grades)
    empty = np.flatnonzero(result < 0.0)
    if empty.size:
        raise ValueError(f"frame {int(empty[0])} has no atom with a grade")
    return result


def _tags(features: Features, tags: npt.ArrayLike | None) -> IntArray:
    owners = np.asarray(features.frame_index if tags is None else tags, dtype=np.int64)
    if owners.shape != (features.n_atoms,) or np.any(owners < 0):
        raise ValueError(f"tags: expected {features.n_atoms} integers, not negative, got the shape {owners.shape}")
    return owners


def _frames(features: Features) -> IntArray:
    return np.asarray(np.unique(features.frame_index), dtype=np.int64)


def _block_from_arrays(arrays: Mapping[str, npt.NDArray[np.generic]], number: int, start: Start) -> Block:
    values = {name: arrays[f"{number}/{name}"] for name in ("rows", "owners", "scale", *_SCALARS)}
    return Block(
        rows=np.array(values["rows"], dtype=np.float64),
        owners=np.array(values["owners"], dtype=np.int64),
        scale=np.array(values["scale"], dtype=np.float64),
        start=start,
        tol=float(values["tol"]),
        span_tolerance=float(values["span_tolerance"]),
        grade_max=float(values["grade_max"]),
        converged=bool(values["converged"]),
    )
