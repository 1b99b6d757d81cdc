"""A cheap potential that is fitted to the labels themselves, to see which of them do not fit the others.

Energy, forces and stress are linear in the coefficients: one number per species, pair functions of the distance for
every pair of species, and an embedding energy of two densities per species (as in Finnis and Sinclair 1984). The
prediction for a frame comes from coefficients that were fitted without it. It is not accurate, and need not be: what
counts is that all three quantities derive from one energy, so that a wrong unit, a wrong sign or labels of another
structure are off by more than the model ever is for frames of the same kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.geometry import complete_cell
from ase.neighborlist import primitive_neighbor_list

from aiida_alpot.kernel.labelling.labels import Labels
from aiida_alpot.kernel.labelling.robust import robust_fit
from aiida_alpot.kernel.units import VOIGT, VOIGT_WEIGHTS, FloatArray, IntArray

REACH: Final = 1.8
"""Cutoff of a pair over the sum of its covalent radii: between the third and the fourth shell of fcc."""
MIN_REACH: Final = 2.25
"""Å, smallest reach of an atom: pairs of hydrogen see 4.5 Å."""
SHORTEST: Final = 0.6
"""Distance over the sum of covalent radii where the pair functions begin."""
DECAYS: Final = (3.0, 6.0)
"""Decay of the densities per sum of covalent radii."""
MAX_FUNCTIONS: Final = 12
MIN_FUNCTIONS: Final = 4
MAX_COEFFICIENTS: Final = 300
"""More are not fitted: species are too many for a cheap model."""
N_FOLDS: Final = 10
MAX_FIT_ATOMS: Final = 30_000
"""Atoms of the frames that are fitted to; of more frames every second, third, … is taken."""
_N_ITERATIONS: Final = 6
_RIDGE: Final = 1e-7
_SOFTNESS: Final = 4.0
"""Residual over its usual size at which the weight of a frame is down to a quarter."""


_ROOTS: Final = np.sqrt(VOIGT_WEIGHTS)
"""Rows of the virial count as in the full tensor, or a fit would depend on the orientation."""


class Rows(NamedTuple):
    """Features of a frame: energy (n_c,), forces (3 n_atoms, n_c) and virial (6, n_c), per unit of coefficient."""

    energy: FloatArray
    forces: FloatArray
    virial: FloatArray


@dataclass(frozen=True)
class Basis:
    """The functions of the model for a set of species.

    :param species: atomic numbers, ascending.
    :param n_functions: pair functions per pair of species.
    """

    species: tuple[int, ...]
    n_functions: int

    @property
    def n_types(self) -> int:
        """Number of pairs of species."""
        return len(self.species) * (len(self.species) + 1) // 2

    @property
    def n_coefficients(self) -> int:
        """Number of columns of the features."""
        n_species = len(self.species)
        return n_species + self.n_types * self.n_functions + n_species * 2 * len(DECAYS)

    def rows(self, atoms: Atoms) -> Rows:
        """Return the features of a frame."""
        pairs = _pairs_of(atoms, self)
        n_atoms = len(atoms)
        counts = np.bincount(pairs.kind, minlength=len(self.species)).astype(np.float64)
        one = Rows(counts, np.zeros((3 * n_atoms, len(counts))), np.zeros((6, len(counts))))
        parts = (one, _pair_rows(pairs, self), _embedding_rows(pairs, self))
        return Rows(
            np.concatenate([part.energy for part in parts]),
            np.concatenate([part.forces for part in parts], axis=1),
            np.concatenate([part.virial for part in parts], axis=1),
        )


class _Pairs(NamedTuple):
    """Neighbours of a frame: both directions of every pair."""

    kind: IntArray  # (n_atoms,), position in the species
    i: IntArray
    j: IntArray
    distance: FloatArray
    unit: FloatArray  # (n_pairs, 3), from i to j
    sum_radii: FloatArray
    cutoff: FloatArray
    weight: FloatArray  # smooth cutoff
    slope: FloatArray  # its derivative


def choose_basis(species: Sequence[int]) -> Basis | None:
    """Return the basis for *species*, None if there are too many of them."""
    for n_functions in range(MAX_FUNCTIONS, MIN_FUNCTIONS - 1, -1):
        basis = Basis(tuple(sorted(species)), n_functions)
        if basis.n_coefficients <= MAX_COEFFICIENTS:
            return basis
    return None


def has_neighbours(atoms: Atoms) -> bool:
    """Return whether any atom has another within reach: isolated atoms are no test of a potential."""
    return len(atoms) > 1 or bool(atoms.pbc.any())


def _pairs_of(atoms: Atoms, basis: Basis) -> _Pairs:
    kind = np.searchsorted(basis.species, atoms.numbers)
    radii = covalent_radii[atoms.numbers]
    reach = np.maximum(MIN_REACH, REACH * radii)
    i, j, distance, vector = primitive_neighbor_list(
        "ijdD", atoms.pbc, complete_cell(atoms.cell.array), atoms.positions, list(reach)
    )
    distance = np.maximum(distance, 1e-6)
    cutoff = reach[i] + reach[j]
    phase = np.pi * distance / cutoff
    return _Pairs(
        kind=kind,
        i=i,
        j=j,
        distance=distance,
        unit=vector / distance[:, None],
        sum_radii=radii[i] + radii[j],
        cutoff=cutoff,
        weight=0.5 * (1.0 + np.cos(phase)),
        slope=-0.5 * np.pi / cutoff * np.sin(phase),
    )


def _pair_rows(pairs: _Pairs, basis: Basis) -> Rows:
    """Features ``½ Σ φ_k(d)`` by pair of species, with Gaussians φ on a grid from SHORTEST to the cutoff."""
    n_functions, n_types, n_atoms = basis.n_functions, basis.n_types, len(pairs.kind)
    low = np.minimum(pairs.kind[pairs.i], pairs.kind[pairs.j])
    high = np.maximum(pairs.kind[pairs.i], pairs.kind[pairs.j])
    types = high * (high + 1) // 2 + low
    start = SHORTEST * pairs.sum_radii
    step = (pairs.cutoff - start) / n_functions
    offset = (pairs.distance - start)[:, None] / step[:, None] - np.arange(n_functions)
    gauss = np.exp(-0.5 * offset**2)
    value = gauss * pairs.weight[:, None]
    slope = gauss * (pairs.slope[:, None] - offset / step[:, None] * pairs.weight[:, None])
    energy = np.zeros((n_types, n_functions))
    forces = np.zeros((n_atoms, 3, n_types, n_functions))
    virial = np.zeros((6, n_types, n_functions))
    np.add.at(energy, types, 0.5 * value)
    key = pairs.i * n_types + types
    for k in range(n_functions):
        _add_pair_column(forces[..., k], virial[..., k], pairs, slope[:, k], key, types)
    return Rows(energy.ravel(), forces.reshape(3 * n_atoms, -1), virial.reshape(6, -1))


def _add_pair_column(
    forces: FloatArray, virial: FloatArray, pairs: _Pairs, slope: FloatArray, key: IntArray, column: IntArray
) -> None:
    """Add forces (n_atoms, 3, n_columns) and virial (6, n_columns) of pairs whose energy is halved between i and j."""
    n_atoms, _, n_columns = forces.shape
    for axis in range(3):
        sums = np.bincount(key, weights=slope * pairs.unit[:, axis], minlength=n_atoms * n_columns)
        forces[:, axis] += sums.reshape(n_atoms, n_columns)
    for v, (a, b) in enumerate(VOIGT):
        weights = 0.5 * slope * pairs.distance * pairs.unit[:, a] * pairs.unit[:, b]
        virial[v] += np.bincount(column, weights=weights, minlength=n_columns)


def _embedding_rows(pairs: _Pairs, basis: Basis) -> Rows:
    """Features ``Σ_i √ρ_i`` and ``Σ_i ρ_i²`` by species of i, for every decay of the density ρ."""
    n_species, n_atoms = len(basis.species), len(pairs.kind)
    columns = 2 * len(DECAYS)
    energy = np.zeros((n_species, columns))
    forces = np.zeros((n_atoms, 3, n_species, columns))
    virial = np.zeros((6, n_species, columns))
    for m, decay in enumerate(DECAYS):
        tail = np.exp(-decay * (pairs.distance / pairs.sum_radii - 1.0))
        slope = tail * (pairs.slope - decay / pairs.sum_radii * pairs.weight)
        density = np.bincount(pairs.i, weights=tail * pairs.weight, minlength=n_atoms)
        root = np.sqrt(density + 1e-4)
        for q, (embedded, derivative) in enumerate(((root, 0.5 / root), (density**2, 2.0 * density))):
            column = 2 * m + q
            np.add.at(energy[:, column], pairs.kind, embedded)
            for end in (pairs.i, pairs.j):  # the density of either end depends on the distance
                kind = pairs.kind[end]
                _add_pair_column(
                    forces[..., column],
                    virial[..., column],
                    pairs,
                    slope * derivative[end],
                    pairs.i * n_species + kind,
                    kind,
                )
    return Rows(energy.ravel(), forces.reshape(3 * n_atoms, -1), virial.reshape(6, -1))


@dataclass(frozen=True)
class Prediction:
    """What the model says about a frame, fitted without it.

    :param energy: eV/atom.
    :param forces: shape (n_atoms, 3), eV/Å.
    :param virial: volume times stress over the number of atoms, shape (6,), eV/atom.
    :param leverage: how little the labels say about each of the three, shape (3,): ``√(x G⁻¹ xᵀ)`` with the rows x
        of the features (rms over the rows of a quantity) and the normal matrix G of the fit.
    """

    energy: float
    forces: FloatArray
    virial: FloatArray
    leverage: FloatArray


@dataclass(frozen=True)
class Surrogate:
    """Coefficients of every fold, and the fold of every frame."""

    basis: Basis
    atom_energies: FloatArray
    scale: FloatArray
    coefficients: FloatArray
    half_inverse: FloatArray
    folds: IntArray

    def predict(self, frame: int, atoms: Atoms) -> Prediction:
        """Return the prediction for *atoms* from the coefficients that were fitted without *frame*."""
        rows = self.basis.rows(atoms)
        n_species = len(self.basis.species)
        base = rows.energy[:n_species] @ self.atom_energies / len(atoms)
        blocks = (rows.energy[None] / len(atoms), rows.forces, rows.virial / len(atoms))
        scaled = [block / self.scale for block in blocks]
        energy, forces, virial = (block @ self.coefficients[self.folds[frame]] for block in scaled)
        scaled[2] = scaled[2] * _ROOTS[:, None]
        leverage = [np.mean((block @ self.half_inverse) ** 2) for block in scaled]
        return Prediction(
            float(energy[0] + base), forces.reshape(-1, 3), virial, np.sqrt(np.array(leverage) * len(self.scale))
        )


def fit_atom_energies(labels: Labels, species: Sequence[int]) -> FloatArray:
    """Return the energy per atom of each species that most frames agree on, shape (n_species,), eV."""
    counts = count_species(labels.frames, species)
    n_atoms = labels.n_atoms
    return robust_fit(counts / n_atoms[:, None], labels.energy / n_atoms)


def count_species(frames: Sequence[Atoms], species: Sequence[int]) -> FloatArray:
    """Return how many atoms of each species each frame has, shape (n_frames, n_species)."""
    return np.array([[np.count_nonzero(atoms.numbers == z) for z in species] for atoms in frames], dtype=np.float64)


def fit_surrogate(labels: Labels) -> Surrogate | None:
    """Fit the model to labels, none of which is trusted.

    :param labels: frames with neighbours.
    :return: None if the species are too many or the labels too few for the coefficients.
    """
    species = sorted({int(z) for atoms in labels.frames for z in np.unique(atoms.numbers)})
    basis = choose_basis(species)
    if basis is None or 3.0 * labels.n_atoms.sum() < 5 * basis.n_coefficients:
        return None
    atom_energies = fit_atom_energies(labels, species)
    folds, chosen = _assign_folds(labels)
    system = _collect(labels, chosen, basis, atom_energies)
    scale, coefficients, half_inverse = _solve(system, folds[chosen])
    return Surrogate(basis, atom_energies, scale, coefficients, half_inverse, folds)


def _assign_folds(labels: Labels) -> tuple[IntArray, IntArray]:
    """Return the fold of every frame and the frames to fit to, both independent of the order of frames and atoms."""
    order = np.argsort(np.round(labels.force_rms, 9), kind="stable")
    folds = np.empty(len(labels), dtype=np.int64)
    folds[order] = np.arange(len(labels)) % N_FOLDS
    stride = int(np.ceil(labels.n_atoms.sum() / MAX_FIT_ATOMS))
    return folds, np.sort(order[::stride])


class _System(NamedTuple):
    """Rows of the least-squares problem: energy per atom (n,), forces (n_rows,), virial per atom (6 n,)."""

    energy: tuple[FloatArray, FloatArray]
    forces: tuple[FloatArray, FloatArray]
    virial: tuple[FloatArray, FloatArray]
    force_frame: IntArray
    virial_frame: IntArray


def _collect(labels: Labels, chosen: IntArray, basis: Basis, atom_energies: FloatArray) -> _System:
    features = [basis.rows(labels.frames[k]) for k in chosen]
    n_atoms = labels.n_atoms[chosen]
    base = np.array([rows.energy[: len(atom_energies)] @ atom_energies for rows in features])
    volumes = np.array([virial_volume(labels.frames[k]) for k in chosen])
    virial = labels.stress[chosen] * (volumes / n_atoms)[:, None] * _ROOTS
    known = np.isfinite(virial).all(axis=1)
    stacked = np.concatenate([rows.virial * _ROOTS[:, None] / n for rows, n in zip(features, n_atoms, strict=True)])
    energies = np.array([rows.energy for rows in features]) / n_atoms[:, None]
    return _System(
        energy=(energies, (labels.energy[chosen] - base) / n_atoms),
        forces=(
            np.concatenate([rows.forces for rows in features]),
            np.concatenate([labels.forces[k].ravel() for k in chosen]),
        ),
        virial=(stacked[np.repeat(known, 6)], virial[known].ravel()),
        force_frame=np.repeat(np.arange(len(chosen)), (3 * n_atoms).astype(np.int64)),
        virial_frame=np.repeat(np.flatnonzero(known), 6),
    )


def virial_volume(atoms: Atoms) -> float:
    """Return the volume that turns the stress of a frame into its virial, NaN if an axis is not periodic."""
    return float(atoms.get_volume()) if atoms.pbc.all() and atoms.cell.rank == 3 else np.nan


def _solve(system: _System, folds: IntArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the scale of the columns (n_c,), coefficients by fold (N_FOLDS, n_c) and H with H Hᵀ = G⁻¹."""
    present = [
        block
        for block in (
            (*system.energy, np.arange(len(folds))),
            (*system.forces, system.force_frame),
            (*system.virial, system.virial_frame),
        )
        if len(block[1])
    ]
    scale = np.sqrt(np.sum([np.mean(matrix**2, axis=0) for matrix, _, _ in present], axis=0)) + 1e-12
    blocks: list[_Block] = [(matrix / scale, values, frame) for matrix, values, frame in present]
    size = _frame_sizes(blocks[1], len(folds))
    sizes = 1.0 + size / max(float(np.median(size)), 1e-12)
    widths = [1.4826 * float(np.median(np.abs(values))) + 1e-9 for _, values, _ in blocks]
    weights = [1.0 / sizes[frame] ** 2 for _, _, frame in blocks]
    for _ in range(_N_ITERATIONS):
        coefficients, gram = _solve_folds(blocks, weights, widths, folds)
        residuals = [
            np.abs(values - np.einsum("rc,rc->r", matrix, coefficients[folds[frame]]))
            for matrix, values, frame in blocks
        ]
        weights, widths = _reweight(blocks, residuals, sizes)
    values, vectors = np.linalg.eigh(gram)
    return scale, coefficients, vectors / np.sqrt(np.maximum(values, values.max() * _RIDGE))


_Block = tuple[FloatArray, FloatArray, IntArray]


def _frame_sizes(block: _Block, n_frames: int) -> FloatArray:
    """Return the rms value of a block by frame."""
    _, values, frame = block
    counts = np.maximum(np.bincount(frame, minlength=n_frames), 1)
    return np.asarray(np.sqrt(np.bincount(frame, weights=values**2, minlength=n_frames) / counts))


def _reweight(
    blocks: Sequence[_Block], residuals: Sequence[FloatArray], sizes: FloatArray
) -> tuple[list[FloatArray], list[float]]:
    """Return the weight of every row and the width of every block after a fit.

    A frame that one quantity disagrees with loses its weight in all (Geman and McClure 1985).
    """
    widths, worst = [], np.zeros(len(sizes))
    for (matrix, _, frame), residual in zip(blocks, residuals, strict=True):
        by_frame = _frame_sizes((matrix, residual, frame), len(sizes)) / sizes
        present = np.bincount(frame, minlength=len(sizes)) > 0
        width = float(np.median(by_frame[present])) + 1e-9
        widths.append(width)
        worst = np.maximum(worst, by_frame / width)
    trust = 1.0 / (1.0 + (worst / _SOFTNESS) ** 2) ** 2
    return [trust[frame] / sizes[frame] ** 2 for _, _, frame in blocks], widths


def _solve_folds(
    blocks: Sequence[_Block], weights: Sequence[FloatArray], widths: Sequence[float], folds: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Return the coefficients without each fold, shape (N_FOLDS, n_c), and the normal matrix of all frames."""
    n_columns = blocks[0][0].shape[1]
    grams = np.zeros((N_FOLDS, n_columns, n_columns))
    sides = np.zeros((N_FOLDS, n_columns))
    for (matrix, values, frame), weight, width in zip(blocks, weights, widths, strict=True):
        of_row = folds[frame]
        for fold in range(N_FOLDS):
            mine = of_row == fold
            # every block counts as much as the number of its frames, or a few energies drown in many forces
            weighted = matrix[mine] * (weight[mine] / (width**2 * len(values)))[:, None]
            grams[fold] += weighted.T @ matrix[mine]
            sides[fold] += weighted.T @ values[mine]
    gram, side = grams.sum(axis=0), sides.sum(axis=0)
    ridge = _RIDGE * np.trace(gram) / n_columns * np.eye(n_columns)
    return np.array([np.linalg.solve(gram - grams[k] + ridge, side - sides[k]) for k in range(N_FOLDS)]), gram + ridge
