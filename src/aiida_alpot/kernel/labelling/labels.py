"""The labelled frames of a dataset side by side, for checks that compare them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from ase import Atoms

from aiida_alpot.kernel.dataset.frames import read_labels
from aiida_alpot.kernel.units import FloatArray, IntArray


@dataclass(frozen=True)
class Labels:
    """Labels of frames, one entry per labelled frame.

    :param index: where the frame stands in what was read, shape (n_frames,).
    :param frames: the structures.
    :param energy: shape (n_frames,), eV.
    :param forces: each (n_atoms, 3), eV/Å.
    :param stress: shape (n_frames, 6), eV/Å³, NaN where there is none.
    :param magmoms: each (n_atoms,), μ_B, or None.
    :param fingerprint: settings of the label, "" if unknown.
    :param charge: e, NaN if not given.
    """

    index: IntArray
    frames: tuple[Atoms, ...]
    energy: FloatArray
    forces: tuple[FloatArray, ...]
    stress: FloatArray
    magmoms: tuple[FloatArray | None, ...]
    fingerprint: npt.NDArray[np.str_]
    charge: FloatArray

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def n_atoms(self) -> FloatArray:
        """Number of atoms per frame, shape (n_frames,)."""
        return np.array([len(atoms) for atoms in self.frames], dtype=np.float64)

    @property
    def force_rms(self) -> FloatArray:
        """Root mean square of the force components, shape (n_frames,), eV/Å."""
        return np.array([np.sqrt(np.mean(forces**2)) for forces in self.forces])

    def take(self, rows: npt.ArrayLike) -> Labels:
        """Return the labels of some frames."""
        chosen = np.asarray(rows, dtype=np.int64)
        return Labels(
            index=self.index[chosen],
            frames=tuple(self.frames[k] for k in chosen),
            energy=self.energy[chosen],
            forces=tuple(self.forces[k] for k in chosen),
            stress=self.stress[chosen],
            magmoms=tuple(self.magmoms[k] for k in chosen),
            fingerprint=self.fingerprint[chosen],
            charge=self.charge[chosen],
        )


def read_labelled(frames: Iterable[Atoms], where: str) -> Labels:
    """Return the labels of the frames whose status is ``labelled`` (or that have energy and forces and no status).

    :param where: names the frames in messages.
    :raises ValueError: if a labelled frame has no energy or forces, or a value is not finite.
    """
    index, chosen, found = [], [], []
    for k, atoms in enumerate(frames):
        if not isinstance(atoms, Atoms):
            raise TypeError(f"{where}: frame {k}: expected ase.Atoms, got {type(atoms).__name__}")
        labels = read_labels(atoms, f"{where}: frame {k}")
        status = atoms.info.get("status") or ("labelled" if {"energy", "forces"} <= labels.keys() else "unlabelled")
        if status != "labelled":
            continue
        for name in ("energy", "forces"):
            if name not in labels or not np.all(np.isfinite(labels[name])):
                raise ValueError(f"{where}: frame {k} is labelled but has no finite {name}; set its status to failed")
        index.append(k)
        chosen.append(atoms)
        found.append(labels)
    return Labels(
        index=np.array(index, dtype=np.int64),
        frames=tuple(chosen),
        energy=np.array([float(labels["energy"]) for labels in found]),
        forces=tuple(np.asarray(labels["forces"], dtype=np.float64) for labels in found),
        stress=np.array([labels.get("stress", np.full(6, np.nan)) for labels in found]).reshape(-1, 6),
        magmoms=tuple(_finite(labels.get("magmoms")) for labels in found),
        fingerprint=np.array([str(atoms.info.get("fingerprint", "")) for atoms in chosen], dtype=np.str_),
        charge=np.array([float(atoms.info.get("charge", np.nan)) for atoms in chosen]),
    )


def _finite(values: FloatArray | None) -> FloatArray | None:
    return values if values is not None and np.all(np.isfinite(values)) else None


def join_labels(first: Labels, second: Labels) -> Labels:
    """Return the labels of both, those of *first* in front."""
    return Labels(
        index=np.concatenate([first.index, second.index]),
        frames=first.frames + second.frames,
        energy=np.concatenate([first.energy, second.energy]),
        forces=first.forces + second.forces,
        stress=np.concatenate([first.stress, second.stress]),
        magmoms=first.magmoms + second.magmoms,
        fingerprint=np.concatenate([first.fingerprint, second.fingerprint]),
        charge=np.concatenate([first.charge, second.charge]),
    )
