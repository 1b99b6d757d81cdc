"""Rows of whole configurations: what energies of frames are linear in, if those of atoms are linear in features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from aiida_alpot.kernel.potentials.base import Features
from aiida_alpot.kernel.units import FloatArray, IntArray

CONFIGURATION: Final = 0
"""Takes the place of the atomic number of a row that is a whole configuration."""


def sum_configurations(features: Features, columns: Sequence[int], *, count: bool) -> tuple[Features, IntArray]:
    """Return one row per frame: the sums of the features of its atoms, a block of columns for each species.

    Podryabinkin and Shapeev 2017; AutoPot, Eq. (5): with a basis linear in its parameters, the derivative of the energy
    of a configuration by all of them. A supercell of n cells has n times the row of the cell.

    :param columns: atomic numbers in the order of their blocks.
    :param count: add the number of atoms of the species to each block, as a feature that is one for every atom.
    :return: features of shape (n_frames, …), infinite for a frame with a species without block, and the row of
        each atom, shape (n_atoms,).
    """
    frames, rows = np.unique(features.frame_index, return_inverse=True)
    width = features.n_features + count
    sums: FloatArray = np.zeros((len(frames), len(columns), width))
    for block, number in enumerate(columns):
        chosen = features.species == number
        np.add.at(sums[:, block, : features.n_features], rows[chosen], features.values[chosen])
        if count:
            sums[:, block, -1] = np.bincount(rows[chosen], minlength=len(frames))
    sums[rows[~np.isin(features.species, columns)]] = np.inf
    values = sums.reshape(len(frames), len(columns) * width)
    return Features(values, np.full(len(frames), CONFIGURATION), frames), np.asarray(rows, dtype=np.int64)
