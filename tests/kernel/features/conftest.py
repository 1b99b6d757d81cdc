"""Frames of every periodicity, and functions that compute features for users."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule


def alloy(seed: int = 0) -> Atoms:
    """A rattled crystal of copper and gold, its atoms inside the cell."""
    atoms = bulk("Cu", cubic=True) * (1, 1, 2)
    atoms.rattle(0.1, seed=seed)
    atoms.numbers[::3] = 79
    atoms.wrap()
    return atoms


def slab() -> Atoms:
    """A rattled slab of copper and gold with a thin vacuum."""
    atoms = fcc111("Cu", (2, 2, 3), vacuum=2.0)
    atoms.rattle(0.1, seed=1)
    atoms.numbers[::4] = 79
    return atoms


def wire() -> Atoms:
    """A zigzag of copper and gold along y."""
    atoms = Atoms("CuAuCu", [[0, 0, 0], [1.2, 2.2, 0], [0, 4.4, 0.6]], cell=[9, 6.6, 9], pbc=[False, True, False])
    atoms.rattle(0.1, seed=2)
    return atoms


def cluster() -> Atoms:
    """A molecule of copper and gold without a cell."""
    atoms = molecule("CH4")
    atoms.positions *= 2.2
    atoms.symbols = "AuCuCuCuCu"
    return atoms


FRAMES: dict[str, Callable[[], Atoms]] = {"crystal": alloy, "slab": slab, "wire": wire, "cluster": cluster}


@pytest.fixture
def frames() -> dict[str, Atoms]:
    """One frame of copper and gold of each periodicity."""
    return {name: make() for name, make in FRAMES.items()}


@pytest.fixture(params=sorted(FRAMES))
def frame(request: pytest.FixtureRequest) -> Atoms:
    """Each of these frames."""
    return FRAMES[request.param]()


@pytest.fixture
def random_rotation() -> np.ndarray:
    """A rotation, which is no symmetry of anything."""
    q, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    return np.asarray(q * np.sign(np.linalg.det(q)))
