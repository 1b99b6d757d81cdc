"""Linear bases: densities of the neighbours and their products, linear in which the energy of an atom is fitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Final

import numpy as np
import numpy.typing as npt
from ase import Atoms
from ase.neighborlist import primitive_neighbor_list
from scipy.sparse import csr_array
from scipy.special import sph_harm_y

from aiida_alpot.kernel.potentials import Features

CUTOFF: Final = 5.0
N_FOLDS: Final = 10

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Basis:
    """Densities ``c_n00``, power spectra ``Σ_m c_nlm c_n'lm*`` with n ≤ n', and products of three densities.

    :param n_radial: Gaussians from 2.4 to 4.4 Å.
    :param l_max: largest degree of the spherical harmonics.
    :param sharpness: of the Gaussians, 1/Å².
    :param triples: whether there are products ``c_n00 c_n'00 c_n''00`` with n ≤ n' ≤ n''.
    """

    n_radial: int
    l_max: int
    sharpness: float
    triples: bool

    def compute_features(self, frames: Sequence[Atoms]) -> Features:
        """Return one row per atom."""
        values = np.concatenate([self._rows(atoms) for atoms in frames])
        index = np.repeat(np.arange(len(frames)), [len(atoms) for atoms in frames])
        return Features(values, np.concatenate([atoms.numbers for atoms in frames]), index)

    def _rows(self, atoms: Atoms) -> Floats:
        i, r, vector = primitive_neighbor_list("idD", atoms.pbc, atoms.cell.complete().array, atoms.positions, CUTOFF)
        centres = np.linspace(2.4, 4.4, self.n_radial)[:, None]
        radial = 0.5 * (1 + np.cos(np.pi * r / CUTOFF)) * np.exp(-self.sharpness * (r - centres) ** 2)
        polar, azimuth = np.arccos(np.clip(vector[:, 2] / r, -1, 1)), np.arctan2(vector[:, 1], vector[:, 0])
        total = csr_array((np.ones(len(i)), (i, np.arange(len(i)))), shape=(len(atoms), len(i)))
        first, second = np.triu_indices(self.n_radial)
        densities: Floats = (total @ radial.T) * sph_harm_y(0, 0, 0.0, 0.0).real
        columns = [densities]
        for degree in range(self.l_max + 1):
            power = np.zeros((len(atoms), len(first)))
            for m in range(degree + 1):
                c = total @ (radial * sph_harm_y(degree, m, polar, azimuth)).T
                # the terms m and −m are conjugates of each other
                power += (1 if m == 0 else 2) * (c[:, first] * c[:, second].conj()).real
            columns.append(power)
        if self.triples:
            a, b, c = np.array(list(combinations_with_replacement(range(self.n_radial), 3))).T
            columns.append(densities[:, a] * densities[:, b] * densities[:, c])
        return np.concatenate(columns, axis=1)


SMALL: Final = Basis(n_radial=3, l_max=2, sharpness=2.0, triples=False)
"""21 columns."""
LARGE: Final = Basis(n_radial=6, l_max=4, sharpness=4.0, triples=True)
"""167 columns."""


def fit(values: Floats, energies: Floats, weights: Floats | None = None) -> Floats:
    """Return the coefficients of the least-squares fit with a constant, shape (n_features + 1,).

    :param weights: of the rows.
    """
    design = np.column_stack([values, np.ones(len(values))])
    root = np.ones(len(values)) if weights is None else np.sqrt(weights)
    scale = np.sqrt(np.mean(design**2, axis=0))
    return np.linalg.lstsq(design / scale * root[:, None], energies * root, rcond=1e-10)[0] / scale


def predict(values: Floats, coefficients: Floats) -> Floats:
    """Return the energies of atoms, shape (n_atoms,)."""
    return values @ coefficients[:-1] + coefficients[-1]


def left_out_errors(features: Features, energies: Floats) -> Floats:
    """Return the absolute errors of atoms whose frames were left out of the fit, a tenth at a time, (n_atoms,)."""
    errors = np.zeros(features.n_atoms)
    for k in range(N_FOLDS):
        out = features.frame_index % N_FOLDS == k
        coefficients = fit(features.values[~out], energies[~out])
        errors[out] = np.abs(predict(features.values[out], coefficients) - energies[out])
    return errors
