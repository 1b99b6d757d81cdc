"""Random frames for property tests."""

import numpy as np
import pytest
from ase import Atoms


@pytest.fixture(scope="session")
def random_frame():
    """Return a function that makes a triclinic cell of any number of atoms, of which any axes are periodic."""
    return make_frame


def make_frame(n_atoms: int, pbc: tuple[bool, bool, bool], seed: int, spacing: float = 2.4) -> Atoms:
    """Return a jittered lattice of *n_atoms* sites in a triclinic cell, atoms about *spacing* apart (Å)."""
    rng = np.random.default_rng(seed)
    n_sites = int(np.ceil(n_atoms ** (1.0 / 3.0)))
    grid = np.stack(np.meshgrid(*[np.arange(n_sites)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    chosen = grid[np.sort(rng.choice(len(grid), size=n_atoms, replace=False))] / n_sites
    cell = spacing * n_sites * (np.eye(3) + rng.uniform(-0.25, 0.25, (3, 3)))
    positions = (chosen + rng.uniform(0, 1, 3)) @ cell + rng.uniform(-0.1, 0.1, (n_atoms, 3))
    cell[~np.array(pbc)] *= 2.5
    atoms = Atoms(rng.choice(["C", "Si", "Al"], size=n_atoms), positions=positions, cell=cell, pbc=pbc)
    atoms.set_array("site", np.arange(n_atoms))
    atoms.set_initial_magnetic_moments(rng.normal(size=n_atoms))
    return atoms
