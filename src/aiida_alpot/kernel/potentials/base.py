"""What every potential answers, whatever its engine: the contract of the adapters and the arrays they return."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import chemical_symbols
from ase.stress import full_3x3_to_voigt_6_stress

from aiida_alpot.kernel.units import BoolArray, FloatArray, IntArray

BATCH_SIZE: Final = 32
"""Frames evaluated at once; above 32 nothing was gained for cells of 50 atoms (facts/training.md §4)."""

_STRUCTURE: Final = frozenset({"positions", "numbers", "cell", "pbc"})


@dataclass(frozen=True)
class Predictions:
    """Energies, forces and stresses of some frames, by one potential or by the reference.

    The atoms of frame ``k`` are ``forces[offsets[k]:offsets[k + 1]]``. A value that is not known is NaN.

    :param energy: total energies, shape (n_frames,), eV.
    :param forces: shape (n_atoms, 3), eV/Å, atoms of all frames one after the other.
    :param stress: shape (n_frames, 6), eV/Å³, Voigt order xx yy zz yz xz xy, positive in tension; NaN for a frame
        whose cell has rank < 3 or that has no periodic axis, see :func:`has_stress`, and throughout if the engine
        knows no stress.
    :param offsets: shape (n_frames + 1,), starts with 0 and ends with n_atoms.
    :raises ValueError: if the shapes do not fit together.
    """

    energy: FloatArray
    forces: FloatArray
    stress: FloatArray
    offsets: IntArray

    def __post_init__(self) -> None:
        for name in ("energy", "forces", "stress"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.float64))
        object.__setattr__(self, "offsets", np.asarray(self.offsets, dtype=np.int64))
        _check_shape("Predictions.energy", self.energy, (None,))
        n_frames = len(self.energy)
        _check_shape("Predictions.offsets", self.offsets, (n_frames + 1,))
        if self.offsets[0] != 0 or np.any(np.diff(self.offsets) < 0):
            raise ValueError(f"Predictions.offsets must start with 0 and never decrease, got {self.offsets}")
        _check_shape("Predictions.forces", self.forces, (int(self.offsets[-1]), 3))
        _check_shape("Predictions.stress", self.stress, (n_frames, 6))

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return len(self.energy)

    @property
    def n_atoms(self) -> int:
        """Number of atoms of all frames together."""
        return int(self.offsets[-1])

    @property
    def finite(self) -> BoolArray:
        """Which frames have a finite energy and finite forces, shape (n_frames,)."""
        frame = np.repeat(np.arange(self.n_frames), np.diff(self.offsets))
        n_bad = np.bincount(frame[~np.isfinite(self.forces).all(axis=1)], minlength=self.n_frames)
        return np.asarray(np.isfinite(self.energy) & (n_bad == 0))

    def frame(self, index: int) -> Predictions:
        """Return the predictions of one frame.

        :param index: its position; a negative one counts from the end.
        :raises IndexError: if there is no such frame.
        """
        if not -self.n_frames <= index < self.n_frames:
            raise IndexError(f"frame {index} of predictions of {self.n_frames} frames")
        k = index % self.n_frames
        first, last = int(self.offsets[k]), int(self.offsets[k + 1])
        return Predictions(
            energy=self.energy[k : k + 1],
            forces=self.forces[first:last],
            stress=self.stress[k : k + 1],
            offsets=np.array([0, last - first]),
        )

    def take(self, rows: Sequence[int] | IntArray) -> Predictions:
        """Return the predictions of some frames, in the order of *rows*, all of which exist."""
        return concatenate([self.frame(int(k)) for k in rows])


@dataclass(frozen=True)
class Features:
    """Per-atom descriptors of some frames, taken from one potential.

    :param values: shape (n_atoms, n_features); what a column means is known to the potential only. Single precision
        stays what it is, anything else becomes double.
    :param species: atomic numbers, shape (n_atoms,).
    :param frame_index: the frame each atom belongs to, shape (n_atoms,), never decreasing.
    :raises ValueError: if the shapes do not fit together.
    """

    values: FloatArray
    species: IntArray
    frame_index: IntArray

    def __post_init__(self) -> None:
        kind = np.float32 if np.asarray(self.values).dtype == np.float32 else np.float64
        object.__setattr__(self, "values", np.asarray(self.values, dtype=kind))
        object.__setattr__(self, "species", np.asarray(self.species, dtype=np.int64))
        object.__setattr__(self, "frame_index", np.asarray(self.frame_index, dtype=np.int64))
        _check_shape("Features.values", self.values, (None, None))
        n_atoms = len(self.values)
        _check_shape("Features.species", self.species, (n_atoms,))
        _check_shape("Features.frame_index", self.frame_index, (n_atoms,))
        if n_atoms and (self.frame_index[0] < 0 or np.any(np.diff(self.frame_index) < 0)):
            raise ValueError("Features.frame_index must be non-negative and never decrease")

    @property
    def n_atoms(self) -> int:
        """Number of atoms of all frames together."""
        return len(self.values)

    @property
    def n_features(self) -> int:
        """Number of columns."""
        return int(self.values.shape[1])


class Potential(ABC):
    """One trained potential, loaded and ready to be evaluated.

    An adapter sets the attributes and defines :meth:`predict`; :meth:`features` and :meth:`calculator` have defaults.

    :ivar engine: name of the model family, e.g. ``"mace"``.
    :ivar species: atomic numbers the potential knows, ascending.
    :ivar cutoff: radius of the neighbour list, Å; NaN if the engine does not tell.
    :ivar dtype: ``"float64"`` or ``"float32"``; predictions are returned as float64 in both cases.
    :ivar feature_kinds: what :meth:`features` can be asked for; an adapter without features leaves it empty.
    """

    engine: str
    species: tuple[int, ...]
    cutoff: float
    dtype: str
    feature_kinds: tuple[str, ...] = ()

    @abstractmethod
    def predict(self, frames: Sequence[Atoms], batch_size: int = BATCH_SIZE) -> Predictions:
        """Return energies, forces and stresses of *frames*; the result does not depend on *batch_size*.

        :param frames: any number of frames, none is legal; labels they carry are not looked at.
        :param batch_size: frames evaluated at once.
        :raises ValueError: if a frame has a species the potential does not know; the message names both.
        """

    def features(self, frames: Sequence[Atoms], kind: str = "last_layer", batch_size: int = BATCH_SIZE) -> Features:
        """Return per-atom features of *frames*.

        :param kind: of :attr:`feature_kinds`: ``"last_layer"`` (the energy of an atom is linear in them) or what else
            the adapter knows.
        :param batch_size: frames evaluated at once.
        :raises ValueError: if the adapter has no features of this kind, or a species is unknown.
        """
        del frames, batch_size
        raise ValueError(f"the engine {self.engine!r} has no features of kind {kind!r}")

    def calculator(self) -> Calculator:
        """Return an ASE calculator of this potential (energy, forces, stress)."""
        return PotentialCalculator(self)

    def graph_key(self) -> tuple[Any, ...] | None:
        """Return what two potentials must have in common to be evaluated on one neighbour graph, None for never."""
        return None

    @classmethod
    def predict_members(
        cls, members: Sequence[Potential], frames: Sequence[Atoms], batch_size: int = BATCH_SIZE
    ) -> list[Predictions]:
        """Return the predictions of each of *members*, all with the same :meth:`graph_key`.

        An adapter that can share work between the members overrides this.
        """
        return [member.predict(frames, batch_size=batch_size) for member in members]


class PotentialCalculator(Calculator):  # type: ignore[misc]
    """ASE calculator of any potential: one call of :meth:`Potential.predict` per structure.

    :param potential: the potential; it may be shared by several calculators of one process.
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012 - ASE's own name and type

    def __init__(self, potential: Potential) -> None:
        super().__init__()
        self.potential = potential

    def calculate(
        self, atoms: Atoms | None = None, properties: Sequence[str] = ("energy",), system_changes: Any = ()
    ) -> None:
        """Evaluate the potential; called by ASE.

        ASE asks for ``stress`` only where a cell exists, so a NaN is never handed to a barostat unnoticed: the
        property is left out of the results instead, and ASE raises.
        """
        super().calculate(atoms, properties, system_changes)
        predictions = self.potential.predict([self.atoms], batch_size=1)
        energy = float(predictions.energy[0])
        self.results = {"energy": energy, "free_energy": energy, "forces": predictions.forces}
        if has_stress(self.atoms):
            self.results["stress"] = predictions.stress[0]


def has_stress(atoms: Atoms) -> bool:
    """Return whether a stress is defined: three independent cell vectors and at least one periodic axis."""
    cell = np.asarray(atoms.cell)
    lengths = np.linalg.norm(cell, axis=1)
    if not np.any(atoms.pbc) or np.any(lengths == 0.0):
        return False
    # ASE's Cell.rank counts non-zero vectors only, coplanar ones would pass
    return bool(abs(np.linalg.det(cell / lengths[:, None])) > 1e-10)


def offsets_of(frames: Sequence[Atoms]) -> IntArray:
    """Return where the atoms of each frame start in a flat array, shape (n_frames + 1,)."""
    counts = np.fromiter((len(atoms) for atoms in frames), dtype=np.int64, count=len(frames))
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)])


def check_species(frames: Sequence[Atoms], species: Sequence[int]) -> None:
    """Refuse frames with a species that is not in *species*.

    :param species: atomic numbers a potential knows.
    :raises ValueError: naming the first such frame and the unknown elements.
    """
    known = frozenset(int(number) for number in species)
    for index, atoms in enumerate(frames):
        unknown = sorted(set(atoms.numbers.tolist()) - known)
        if unknown:
            names = ", ".join(_symbol(number) for number in unknown)
            valid = ", ".join(_symbol(number) for number in sorted(known))
            raise ValueError(f"frame {index} contains {names}, but the potential knows only {valid}")


def concatenate(parts: Sequence[Predictions]) -> Predictions:
    """Return the predictions of several sets of frames as one, in this order; no part at all is legal."""
    if not parts:
        return Predictions(np.zeros(0), np.zeros((0, 3)), np.zeros((0, 6)), np.zeros(1, dtype=np.int64))
    counts = np.concatenate([np.diff(part.offsets) for part in parts])
    return Predictions(
        energy=np.concatenate([part.energy for part in parts]),
        forces=np.concatenate([part.forces for part in parts]),
        stress=np.concatenate([part.stress for part in parts]),
        offsets=np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)]),
    )


def concatenate_features(parts: Sequence[Features], n_frames: Sequence[int]) -> Features:
    """Return the features of several sets of frames as one, renumbering the frames.

    :param n_frames: number of frames of each part (a part need not have atoms in its last frame).
    :raises ValueError: if there is no part, or the number of columns differs.
    """
    starts = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(np.asarray(n_frames, dtype=np.int64))])
    return Features(
        values=np.concatenate([part.values for part in parts]),
        species=np.concatenate([part.species for part in parts]),
        frame_index=np.concatenate([part.frame_index + start for part, start in zip(parts, starts, strict=False)]),
    )


def reference_predictions(frames: Sequence[Atoms]) -> Predictions:
    """Return the labels of *frames* in the form of predictions; what a frame has no label for is NaN.

    :param frames: frames whose labels are in a ``SinglePointCalculator``.
    :raises ValueError: if a frame was changed after it was labelled.
    """
    offsets = offsets_of(frames)
    energy = np.full(len(frames), np.nan)
    forces = np.full((int(offsets[-1]), 3), np.nan)
    stress = np.full((len(frames), 6), np.nan)
    for k, atoms in enumerate(frames):
        results = _labels(atoms, k)
        if results.get("energy") is not None:
            energy[k] = results["energy"]
        if results.get("forces") is not None:
            forces[offsets[k] : offsets[k + 1]] = results["forces"]
        if results.get("stress") is not None and has_stress(atoms):
            stress[k] = voigt_stress(results["stress"])
    return Predictions(energy, forces, stress, offsets)


def voigt_stress(stress: npt.ArrayLike) -> FloatArray:
    """Return a stress given as 6 Voigt numbers, 9 numbers or a 3×3 tensor as 6 Voigt numbers, shape (6,).

    :raises ValueError: if it has another shape.
    """
    values = np.asarray(stress, dtype=np.float64)
    if values.shape == (6,):
        return values
    if values.shape in ((3, 3), (9,)):
        return np.asarray(full_3x3_to_voigt_6_stress(values.reshape(3, 3)), dtype=np.float64)
    raise ValueError(f"a stress has 6 components or is a 3×3 tensor, got the shape {values.shape}")


def _labels(atoms: Atoms, index: int) -> dict[str, Any]:
    calculator = atoms.calc
    if not isinstance(calculator, SinglePointCalculator):
        return {}
    changes = _STRUCTURE.intersection(calculator.check_state(atoms))
    if changes:
        raise ValueError(f"frame {index} was changed after it was labelled ({', '.join(sorted(changes))})")
    return dict(calculator.results)


def _symbol(number: int) -> str:
    return chemical_symbols[number] if 0 <= number < len(chemical_symbols) else f"Z={number}"


def _check_shape(name: str, values: npt.NDArray[Any], expected: tuple[int | None, ...]) -> None:
    fits = values.ndim == len(expected) and all(
        wanted is None or got == wanted for got, wanted in zip(values.shape, expected, strict=True)
    )
    if not fits:
        wanted_text = "(" + ", ".join("any" if size is None else str(size) for size in expected) + ")"
        raise ValueError(f"{name}: expected the shape {wanted_text}, got {values.shape}")
