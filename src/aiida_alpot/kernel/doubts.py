"""What is doubtful about the labels of a dataset as a whole, although every frame alone is acceptable."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from aiida_alpot.kernel.dataset import Dataset
from aiida_alpot.kernel.units import FloatArray

LARGEST_SPREAD: Final = 10.0
"""eV/atom that an energy may lie off the sum of its atoms: more than any bond, less than eV against kcal/mol."""
LARGEST_FORCE: Final = 1000.0
"""eV/Å: forces of atoms that lie on top of each other."""
LARGEST_DIFFERENCE: Final = 1e-3
"""eV/atom between two labels of one structure."""


def find_doubtful_labels(dataset: Dataset) -> list[str]:
    """Return what a user should look at before potentials are fitted to a dataset, a sentence each.

    Labels of several settings, copies of a structure, copies whose labels differ, energies that no sum over the atoms
    explains (mixed units, a wrong reference) and forces of overlapping atoms.
    """
    rows = np.flatnonzero(dataset.column("status") == "labelled")
    if not len(rows):
        return []
    view = dataset[rows]
    n_atoms = np.diff(view.offsets)
    energy = np.asarray(view.column("energy"), dtype=np.float64) / n_atoms
    found = [
        _several_settings(view.column("fingerprint")),
        *_copies(view.frame_ids(labels=False), energy),
        _energies(energy, _fractions(view.column("numbers"), view.offsets), rows),
        _forces(np.asarray(view.column("forces")), np.repeat(rows, n_atoms)),
    ]
    return [text for text in found if text]


def _several_settings(fingerprints: npt.NDArray[Any]) -> str:
    counts = Counter(str(fingerprint) or "unknown" for fingerprint in fingerprints)
    if len(counts) < 2:
        return ""
    names = ", ".join(f"{n} of {name}" for name, n in sorted(counts.items()))
    return f"the labels were made with {len(counts)} settings ({names}): fit to those of one reference only"


def _copies(ids: npt.NDArray[Any], energy: FloatArray) -> list[str]:
    unique, inverse = np.unique(ids, return_inverse=True)
    n_copies = len(ids) - len(unique)
    if not n_copies:
        return []
    low, high = np.full(len(unique), np.inf), np.full(len(unique), -np.inf)
    np.minimum.at(low, inverse, energy)
    np.maximum.at(high, inverse, energy)
    difference = float(np.max(high - low))
    found = [f"{n_copies} labelled frames are copies of others: they count twice in a fit"]
    if difference > LARGEST_DIFFERENCE:
        found.append(f"copies of one structure have energies that differ by up to {difference:.3g} eV/atom: remove one")
    return found


def _fractions(numbers: npt.NDArray[Any], offsets: npt.NDArray[Any]) -> FloatArray:
    """Return the share of each species in each frame, shape (n_frames, n_species)."""
    n_frames = len(offsets) - 1
    species, column = np.unique(numbers, return_inverse=True)
    counts = np.zeros((n_frames, len(species)))
    np.add.at(counts, (np.repeat(np.arange(n_frames), np.diff(offsets)), column), 1.0)
    return np.asarray(counts / counts.sum(axis=1, keepdims=True))


def _energies(energy: FloatArray, fractions: FloatArray, rows: npt.NDArray[Any]) -> str:
    solution = np.linalg.lstsq(fractions, energy, rcond=None)[0]
    deviation = np.abs(energy - fractions @ solution)
    worst = int(np.argmax(deviation))
    if deviation[worst] <= LARGEST_SPREAD:
        return ""
    return (
        f"energies lie up to {deviation[worst]:.3g} eV/atom off the sum of their atoms (frame {rows[worst]}): "
        "look for mixed units or references"
    )


def _forces(forces: FloatArray, frame: npt.NDArray[Any]) -> str:
    largest = np.linalg.norm(forces, axis=1)
    worst = int(np.argmax(largest))
    if largest[worst] <= LARGEST_FORCE:
        return ""
    n_frames = len(set(frame[largest > LARGEST_FORCE].tolist()))
    return (
        f"{n_frames} frames have forces of up to {largest[worst]:.3g} eV/Å (frame {frame[worst]}): "
        "set their status to quarantined"
    )
