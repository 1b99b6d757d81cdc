"""A committee of small MACE potentials, trained here for a fixed number of steps and evaluated by the package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import mace  # noqa: F401  before e3nn, whose constants torch refuses to load otherwise
import numpy as np
import numpy.typing as npt
import torch
from ase import Atoms
from e3nn.o3 import Irreps
from mace.data import AtomicData, Configuration
from mace.modules import ScaleShiftMACE, interaction_classes
from mace.tools import AtomicNumberTable
from mace.tools.torch_geometric import Batch

from aiida_alpot.kernel.potentials import (
    Features,
    Potential,
    Predictions,
    load,
    predict_committee,
    reference_predictions,
)
from aiida_alpot.kernel.seeds import derive_seed

N_MEMBERS: Final = 3
N_STEPS: Final = 300
BATCH_SIZE: Final = 5
LEARNING_RATE: Final = 2e-2
LEARNING_RATE_DECAY: Final = 1e-2
ENERGY_WEIGHT: Final = 100.0
"""Of the squared error of the energy per atom, in 1/eV², against the mean square of a force component, in Å²/eV²."""
LARGEST_GRADIENT: Final = 10.0
CUTOFF: Final = 4.5


@dataclass(frozen=True)
class Frames:
    """Labelled frames in a pool."""

    atoms: Sequence[Atoms]

    def __len__(self) -> int:
        return len(self.atoms)

    def take(self, rows: npt.NDArray[np.int64]) -> Frames:
        """Return some of the frames."""
        return Frames([self.atoms[row] for row in rows.tolist()])

    def reference(self) -> Predictions:
        """Return the labels."""
        return reference_predictions(self.atoms)


@dataclass(frozen=True)
class MaceCommittee:
    """Potentials that differ by their initial weights and the order of the frames."""

    potentials: list[Potential]

    @classmethod
    def train(cls, frames: Frames, seed: int) -> MaceCommittee:
        """Return a committee trained on all of *frames*."""
        graphs = [_graph(atoms) for atoms in frames.atoms]
        with TemporaryDirectory() as folder:
            path = Path(folder) / "member.model"
            potentials = []
            for member in range(N_MEMBERS):
                torch.save(_train(graphs, derive_seed(seed, f"member-{member}")), path)
                potentials.append(load(path, "mace", dtype="float32"))
        return cls(potentials)

    def predict(self, frames: Frames) -> tuple[list[Predictions], Features]:
        """Return the predictions of every member and what the energy of the first one is linear in."""
        return predict_committee(self.potentials, frames.atoms), self.potentials[0].features(frames.atoms)


def _graph(atoms: Atoms) -> Any:
    labels = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
    configuration = Configuration(
        atomic_numbers=atoms.numbers,
        positions=atoms.positions,
        cell=atoms.cell.array,
        pbc=tuple(map(bool, atoms.pbc)),
        properties=labels,
        property_weights=dict.fromkeys(labels, 1.0),
    )
    return AtomicData.from_config(configuration, z_table=AtomicNumberTable([29]), cutoff=CUTOFF)


def _train(graphs: list[Any], seed: int) -> Any:
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = _build(graphs)
    optimiser = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, LEARNING_RATE_DECAY ** (1 / N_STEPS))
    for _ in range(N_STEPS):
        rows = rng.choice(len(graphs), BATCH_SIZE, replace=False)
        batch = Batch.from_data_list([graphs[row] for row in rows]).to_dict()
        found = model(batch, training=True)
        n_atoms = batch["ptr"].diff()
        of_energy = ((found["energy"] - batch["energy"]) / n_atoms).square().mean()
        loss = ENERGY_WEIGHT * of_energy + (found["forces"] - batch["forces"]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), LARGEST_GRADIENT)
        optimiser.step()
        schedule.step()
    return model


def _build(graphs: list[Any]) -> Any:
    """Return two layers of 16 scalar channels, with energies and forces of the size of those of the frames."""
    energies = torch.cat([graph.energy.view(1) / graph.num_nodes for graph in graphs])
    forces = torch.cat([graph.forces for graph in graphs])
    n_neighbours = sum(graph.edge_index.shape[1] for graph in graphs) / len(forces)
    return ScaleShiftMACE(
        r_max=CUTOFF,
        num_bessel=8,
        num_polynomial_cutoff=5,
        max_ell=2,
        interaction_cls=interaction_classes["RealAgnosticResidualInteractionBlock"],
        interaction_cls_first=interaction_classes["RealAgnosticInteractionBlock"],
        num_interactions=2,
        num_elements=1,
        hidden_irreps=Irreps("16x0e"),
        MLP_irreps=Irreps("16x0e"),
        gate=torch.nn.functional.silu,
        atomic_energies=np.zeros(1),
        avg_num_neighbors=n_neighbours,
        atomic_numbers=[29],
        correlation=2,
        radial_MLP=[32, 32],
        atomic_inter_scale=float(forces.square().mean().sqrt()),
        atomic_inter_shift=float(energies.mean()),
    )
