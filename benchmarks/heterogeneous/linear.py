"""A linear basis: densities and power spectra of the neighbours, linear in which the energy of an atom is fitted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from ase import Atoms
from ase.neighborlist import primitive_neighbor_list
from scipy.special import sph_harm_y

from aiida_alpot.kernel.potentials import Features

CUTOFF: Final = 5.0
N_RADIAL: Final = 3
L_MAX: Final = 2

Floats = npt.NDArray[np.float64]


def compute_features(frames: Sequence[Atoms]) -> Features:
    """Return ``c_n00`` and ``Σ_m c_nlm c_n'lm*`` of every atom, n ≤ n', l ≤ 2: 3 + 6·3 columns."""
    values = np.concatenate([_features(atoms) for atoms in frames])
    index = np.repeat(np.arange(len(frames)), [len(atoms) for atoms in frames])
    return Features(values, np.concatenate([atoms.numbers for atoms in frames]), index)


def _features(atoms: Atoms) -> Floats:
    n = len(atoms)
    i, r, vector = primitive_neighbor_list("idD", atoms.pbc, atoms.cell.complete().array, atoms.positions, CUTOFF)
    cut = 0.5 * (1 + np.cos(np.pi * r / CUTOFF))
    radial = np.stack([cut * np.exp(-2.0 * (r - centre) ** 2) for centre in np.linspace(2.4, 4.4, N_RADIAL)])
    polar, azimuth = np.arccos(np.clip(vector[:, 2] / r, -1, 1)), np.arctan2(vector[:, 1], vector[:, 0])
    columns = []
    for degree in range(L_MAX + 1):
        density = np.zeros((N_RADIAL, 2 * degree + 1, n), dtype=np.complex128)
        for m in range(-degree, degree + 1):
            angular = sph_harm_y(degree, m, polar, azimuth)
            for k in range(N_RADIAL):
                product = radial[k] * angular
                density[k, m + degree] = np.bincount(i, product.real, n) + 1j * np.bincount(i, product.imag, n)
        if degree == 0:
            columns += list(density[:, 0].real)
        columns += [
            np.einsum("ma,ma->a", density[a], density[b].conj()).real
            for a in range(N_RADIAL)
            for b in range(a, N_RADIAL)
        ]
    return np.stack(columns, axis=1)


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
