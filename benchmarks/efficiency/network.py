"""A committee of neural-network potentials whose inputs, with their derivatives, are known beforehand.

The energy of an atom is a network of two hidden layers on its descriptors plus a linear function of these; forces are
the derivative of the sum. So it is linear in the last hidden layer and the descriptors together, as in MACE in those of
all layers. All members are trained and evaluated at once, as batches of matrices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from ase import Atoms
from descriptors import N_FEATURES, compute_descriptors
from frames import MOST_ATOMS

from aiida_alpot.kernel.potentials import Features, Predictions
from aiida_alpot.kernel.seeds import derive_seed

N_MEMBERS: Final = 4
N_HIDDEN: Final = 32
N_STEPS: Final = 600
BATCH_SIZE: Final = 10
LEARNING_RATE: Final = 2e-2
LEARNING_RATE_DECAY: Final = 1e-2
"""Learning rate at the end over that at the start."""
ENERGY_WEIGHT: Final = 100.0
"""Of the squared error of the energy per atom, in 1/eV², against the mean square of a force component, in Å²/eV²."""
SMALLEST_VARIANCE: Final = 1e-2
"""Added to the variances of the principal components of the standardised descriptors before they are scaled by them."""
_CHUNK: Final = 500

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Inputs:
    """Frames as a network sees them; a frame of fewer atoms is filled up with atoms that do not count.

    :param values: principal components of the descriptors, shape (n_frames, most_atoms, n_features).
    :param jacobian: their derivatives, shape (n_frames, most_atoms · n_features, most_atoms · 3).
    :param is_atom: shape (n_frames, most_atoms), 1 or 0.
    :param energy: labels, shape (n_frames,), eV.
    :param forces: labels, shape (n_frames, most_atoms · 3), eV/Å.
    """

    values: torch.Tensor
    jacobian: torch.Tensor
    is_atom: torch.Tensor
    energy: torch.Tensor
    forces: torch.Tensor

    @classmethod
    def of(cls, frames: Sequence[Atoms], scale_by: int) -> Inputs:
        """Compute the inputs of labelled frames.

        :param scale_by: number of frames, the first ones, whose atoms give the principal components.
        """
        n = len(frames)
        values = np.zeros((n, MOST_ATOMS, N_FEATURES), dtype=np.float32)
        jacobian = np.zeros((n, MOST_ATOMS, N_FEATURES, MOST_ATOMS, 3), dtype=np.float32)
        is_atom = np.zeros((n, MOST_ATOMS), dtype=np.float32)
        forces = np.zeros((n, MOST_ATOMS, 3), dtype=np.float32)
        for k, atoms in enumerate(frames):
            size = len(atoms)
            values[k, :size], jacobian[k, :size, :, :size] = compute_descriptors(atoms)
            is_atom[k, :size] = 1.0
            forces[k, :size] = atoms.get_forces()
        mean, turn = _whitening(values[:scale_by][is_atom[:scale_by] > 0])
        values = (values - mean) @ turn * is_atom[:, :, None]
        for k in range(n):
            jacobian[k] = np.einsum("ifjx,fg->igjx", jacobian[k], turn, optimize=True)
        energy = np.array([atoms.get_potential_energy() for atoms in frames], dtype=np.float32)
        shape = (n, MOST_ATOMS * N_FEATURES, MOST_ATOMS * 3)
        arrays = (values, jacobian.reshape(shape), is_atom, energy, forces.reshape(n, -1))
        return cls(*map(torch.from_numpy, arrays))

    def __len__(self) -> int:
        return len(self.energy)

    def take(self, rows: Ints | slice) -> Inputs:
        """Return some of the frames."""
        parts = (self.values, self.jacobian, self.is_atom, self.energy, self.forces)
        return Inputs(*(part[rows] for part in parts))

    @property
    def sizes(self) -> Ints:
        """Return the number of atoms of each frame, shape (n_frames,)."""
        return self.is_atom.sum(dim=1).numpy().astype(np.int64)

    def reference(self) -> Predictions:
        """Return the labels."""
        real = self.is_atom.flatten() > 0
        offsets = np.concatenate([[0], np.cumsum(self.sizes)])
        forces = self.forces.reshape(-1, 3)[real].numpy()
        return Predictions(self.energy.numpy(), forces, np.full((len(self), 6), np.nan), offsets)


class Committee:
    """Networks that differ by their initial weights; all see the same frames at the same step.

    :ivar weights: of the layers and their constants, and of the linear function, each with the member as first index.
    """

    weights: list[torch.Tensor]

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(derive_seed(seed, "weights"))
        trained: Any = {"dtype": torch.float32, "requires_grad": True}
        self.weights = []
        for n_in, n_out in ((N_FEATURES, N_HIDDEN), (N_HIDDEN, N_HIDDEN), (N_HIDDEN, 1)):
            weight = torch.randn(N_MEMBERS, n_in, n_out, generator=generator, dtype=torch.float32) / n_in**0.5
            self.weights += [weight.requires_grad_(), torch.zeros(N_MEMBERS, 1, n_out, **trained)]
        self.weights.append(torch.zeros(N_MEMBERS, N_FEATURES, 1, **trained))

    @classmethod
    def train(cls, inputs: Inputs, seed: int) -> Committee:
        """Return a committee trained on all of *inputs* by a fixed number of steps of a fixed number of frames."""
        self = cls(seed)
        optimiser = torch.optim.Adam(self.weights, lr=LEARNING_RATE, fused=True)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, LEARNING_RATE_DECAY ** (1 / N_STEPS))
        for rows in _batches(len(inputs), seed):
            batch = inputs.take(rows)
            n_atoms = batch.is_atom.sum(dim=1)
            energy, forces, _ = self.evaluate(batch)
            of_energy = ((energy - batch.energy) / n_atoms).square().mean(dim=1)
            of_forces = (forces - batch.forces).square().sum(dim=(1, 2)) / (3 * n_atoms.sum())
            optimiser.zero_grad()
            (ENERGY_WEIGHT * of_energy + of_forces).sum().backward()
            optimiser.step()
            schedule.step()
        return self

    def evaluate(self, inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return energies, forces and the last hidden layer.

        The derivative of the network is written out, so that a training differentiates once and not twice.

        :return: shapes (n_members, n_frames), (n_members, n_frames, most_atoms · 3) and
            (n_members, n_frames · most_atoms, n_hidden).
        """
        n_frames = len(inputs)
        into, into_constant, across, across_constant, out, out_constant, linear = self.weights
        values = inputs.values.view(1, -1, N_FEATURES).expand(N_MEMBERS, -1, -1)
        first, first_slope = _silu(torch.baddbmm(into_constant, values, into))
        last, last_slope = _silu(torch.baddbmm(across_constant, first, across))
        of_atom = torch.baddbmm(out_constant, last, out) + torch.bmm(values, linear)
        of_atom = of_atom.view(N_MEMBERS, n_frames, -1)
        pull = torch.bmm(last_slope * out.transpose(1, 2), across.transpose(1, 2))
        pull = torch.baddbmm(linear.transpose(1, 2), pull * first_slope, into.transpose(1, 2))
        pull = pull.view(N_MEMBERS, n_frames, -1)
        forces = -torch.bmm(pull.transpose(0, 1), inputs.jacobian).transpose(0, 1)
        return (of_atom * inputs.is_atom).sum(dim=2), forces, last

    @torch.no_grad()
    def predict(self, inputs: Inputs) -> tuple[list[Predictions], Features]:
        """Return the predictions of every member, without stress, and what the energy of the first one is linear in."""
        energies, forces, features = [], [], []
        for first in range(0, len(inputs), _CHUNK):
            chunk = inputs.take(slice(first, first + _CHUNK))
            e, f, last = self.evaluate(chunk)
            real = chunk.is_atom.flatten() > 0
            energies.append(e)
            forces.append(f.reshape(N_MEMBERS, -1, 3)[:, real])
            features.append(torch.cat([last[0], chunk.values.view(-1, N_FEATURES)], dim=1)[real])
        offsets = np.concatenate([[0], np.cumsum(inputs.sizes)])
        nothing = np.full((len(inputs), 6), np.nan)
        energy, force = torch.cat(energies, dim=1).numpy(), torch.cat(forces, dim=1).numpy()
        predictions = [Predictions(energy[m], force[m], nothing, offsets) for m in range(N_MEMBERS)]
        values = torch.cat(features).numpy()
        index = np.repeat(np.arange(len(inputs)), inputs.sizes)
        return predictions, Features(values, np.full(len(values), 29), index)


def _whitening(values: Floats) -> tuple[Floats, Floats]:
    """Return mean and linear map that give the principal components about unit variance."""
    mean, width = values.mean(axis=0), values.std(axis=0)
    variance, vectors = np.linalg.eigh(np.cov(((values - mean) / width).T))
    turn = vectors / width[:, None] / np.sqrt(variance + SMALLEST_VARIANCE)
    return mean, turn.astype(np.float32)


def _batches(n_frames: int, seed: int) -> list[Ints]:
    """Return the rows of every step, shape (n_steps, batch_size): all frames in turn, in a new order every time."""
    rng = np.random.default_rng(derive_seed(seed, "order"))
    size = min(BATCH_SIZE, n_frames)
    orders = [rng.permutation(n_frames) for _ in range(-(-N_STEPS * size // n_frames))]
    return list(np.concatenate(orders)[: N_STEPS * size].reshape(N_STEPS, size))


def _silu(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``z σ(z)`` and its derivative."""
    gate = torch.sigmoid(z)
    value = z * gate
    return value, gate + value * (1 - gate)
