"""What the networks see of an atom: densities and power spectra of its neighbours, with derivatives.

``c_n = Σ_j g_n(r_j)``, and with ``û`` the direction of a neighbour, ``v_n = Σ_j g_n û_j`` and ``T_n = Σ_j g_n (û_j û_jᵀ
− 1/3)``: ``v_n · v_n'`` and ``T_n : T_n'``, the power spectra of l = 1 and 2 up to a factor. They do not change
with a rotation. The derivatives are computed once, so that a training needs no neighbours.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from ase import Atoms
from matscipy.neighbours import neighbour_list

CUTOFF: Final = 5.5
CENTRES: Final = np.linspace(1.6, 4.8, 9)
WIDTH: Final = 0.4
"""Å, of the radial functions."""
IN_SPECTRA: Final = slice(None, None, 6)
"""The radial functions of the power spectra."""
_A, _B = np.triu_indices(len(CENTRES[IN_SPECTRA]))
N_FEATURES: Final = len(CENTRES) + 2 * len(_A)

Floats = npt.NDArray[np.float64]


def compute_descriptors(atoms: Atoms) -> tuple[Floats, Floats]:
    """Return the descriptors of all atoms, and their derivatives with respect to all positions.

    :return: shapes (n_atoms, n_features) and (n_atoms, n_features, n_atoms, 3), the latter in 1/Å.
    """
    n = len(atoms)
    first, second, distance, vector = neighbour_list("ijdD", atoms, CUTOFF)
    g, slope = _radial(distance)
    unit = vector / distance[:, None]
    owner = np.zeros((n, len(distance)))
    owner[first, np.arange(len(distance))] = 1.0

    across = (np.eye(3) - unit[:, :, None] * unit[:, None, :]) / distance[:, None, None]  # dû/dr
    traceless = unit[:, :, None] * unit[:, None, :] - np.eye(3) / 3
    turn = across[:, :, None, :] * unit[:, None, :, None] + unit[:, :, None, None] * across[:, None, :, :]
    spectra, by_pair = [], []
    for basis, derivative in ((unit, across), (traceless.reshape(-1, 9), turn.reshape(-1, 9, 3))):
        values, gradients = _spectrum(g[:, IN_SPECTRA], slope[:, IN_SPECTRA], unit, basis, derivative, owner, first)
        spectra.append(values)
        by_pair.append(gradients)
    gradients = np.concatenate([slope[:, :, None] * unit[:, None, :], *by_pair], axis=1)
    return np.concatenate([owner @ g, *spectra], axis=1), _scatter(gradients, first, second, n)


def _radial(distance: Floats) -> tuple[Floats, Floats]:
    """Return the radial functions of each pair and their derivatives, shapes (n_pairs, n_radial)."""
    inside = np.pi * distance / CUTOFF
    cut, cut_slope = 0.5 * (1 + np.cos(inside)), -0.5 * np.pi / CUTOFF * np.sin(inside)
    offset = distance[:, None] - CENTRES
    bell = np.exp(-0.5 * (offset / WIDTH) ** 2)
    return cut[:, None] * bell, cut_slope[:, None] * bell - cut[:, None] * bell * offset / WIDTH**2


def _spectrum(
    g: Floats, slope: Floats, unit: Floats, basis: Floats, turn: Floats, owner: Floats, first: npt.NDArray[np.int64]
) -> tuple[Floats, Floats]:
    """Return a power spectrum of every atom and its derivative with respect to the vector of every pair.

    :param basis: the tensor of each pair that is summed, flat, shape (n_pairs, n_components).
    :param turn: its derivative, shape (n_pairs, n_components, 3).
    """
    density = np.einsum("ip,pn,pc->inc", owner, g, basis, optimize=True)
    values = np.einsum("ifc,ifc->if", density[:, _A], density[:, _B])
    # Σ_c ρ_n'c ∂(g_n b_c) of every pair, for all n and n'
    along = np.einsum("pmc,pc->pm", density[first], basis)
    across = np.einsum("pmc,pcx->pmx", density[first], turn, optimize=True)
    product = np.einsum("pn,pm,px->pnmx", slope, along, unit) + np.einsum("pn,pmx->pnmx", g, across)
    return values, product[:, _A, _B] + product[:, _B, _A]


def _scatter(by_pair: Floats, first: npt.NDArray[np.int64], second: npt.NDArray[np.int64], n: int) -> Floats:
    """Return derivatives with respect to positions: a pair moves with its second atom and against its first."""
    flat = by_pair.reshape(len(by_pair), -1)
    pairs = np.zeros((n * n, len(by_pair)))
    pairs[first * n + second, np.arange(len(by_pair))] = 1.0
    jacobian = (pairs @ flat).reshape(n, n, -1, 3)
    jacobian[np.arange(n), np.arange(n)] -= jacobian.sum(axis=1)
    return np.ascontiguousarray(jacobian.swapaxes(1, 2))
