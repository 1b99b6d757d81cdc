"""Copper: many frames near equilibrium, few of rare environments, with EMT as the truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import numpy as np
from ase import Atoms, units
from ase.build import bulk, fcc100, fcc110, fcc111
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.optimize import FIRE

Rng = np.random.Generator
Maker = Callable[[Rng], Atoms]
A0: Final = 3.61
"""Å, lattice constant."""
MOST_ATOMS: Final = 12
LARGEST_FORCE: Final = 6.0
"""eV/Å; a frame with a larger one is made anew."""


def bulk_cell(rng: Rng) -> Atoms:
    """Eight or twelve atoms of a strained crystal, displaced a little."""
    shapes = [(True, (2, 1, 1)), (True, (3, 1, 1)), (False, (2, 2, 2)), (False, (3, 2, 2))]
    cubic, repeat = shapes[rng.integers(len(shapes))]
    atoms = _strained(bulk("Cu", "fcc", a=A0, cubic=cubic).repeat(repeat), 0.015, rng)
    return _rattled(atoms, rng.uniform(0.02, 0.12), rng)


def liquid(rng: Rng) -> Atoms:
    """Twelve atoms after 0.1 ps at 4000 K in a cell larger by up to a fifth."""
    scale = rng.uniform(1.0, 1.2) ** (1 / 3)
    atoms = _rattled(bulk("Cu", "fcc", a=A0 * scale).repeat((3, 2, 2)), 0.15, rng)
    atoms.calc = EMT()
    MaxwellBoltzmannDistribution(atoms, temperature_K=4000, rng=rng)
    Langevin(atoms, 5 * units.fs, temperature_K=4000, friction=0.05, fixcm=False, rng=rng).run(25)
    return Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=True)


def surface(rng: Rng) -> Atoms:
    """A slab of three to six layers with the surface 100, 110 or 111."""
    maker, size = [(fcc100, (2, 1, 6)), (fcc110, (1, 2, 6)), (fcc111, (2, 2, 3))][rng.integers(3)]
    return _rattled(maker("Cu", size, a=A0, vacuum=6.0), rng.uniform(0.02, 0.12), rng)


def vacancy(rng: Rng) -> Atoms:
    """One atom missing of twelve."""
    atoms = _strained(bulk("Cu", "fcc", a=A0).repeat((3, 2, 2)), 0.015, rng)
    del atoms[int(rng.integers(len(atoms)))]
    return _rattled(atoms, rng.uniform(0.02, 0.12), rng)


def cluster(rng: Rng) -> Atoms:
    """Six to twelve atoms that are near each other, in vacuum."""
    atoms = bulk("Cu", "fcc", a=A0, cubic=True).repeat(3)
    centre = atoms.cell.sum(axis=0) / 2 + rng.uniform(-1, 1, 3)
    nearest = np.argsort(np.linalg.norm(atoms.positions - centre, axis=1))
    ball = atoms[nearest[: rng.integers(6, MOST_ATOMS + 1)]]
    ball.center(vacuum=6.0)
    ball.pbc = False
    return _rattled(ball, rng.uniform(0.05, 0.2), rng)


def interstitial(rng: Rng) -> Atoms:
    """An atom too many in eight, relaxed a little from an octahedral site in a cell with room for it."""
    atoms = bulk("Cu", "fcc", a=A0, cubic=True).repeat((2, 1, 1))
    atoms += Atoms("Cu", [[A0 / 2, A0 / 2, A0 / 2]])
    atoms = _strained(atoms, 0.015, rng)
    atoms.set_cell(atoms.cell.array * rng.uniform(1.1, 1.3) ** (1 / 3), scale_atoms=True)
    atoms = _rattled(atoms, 0.05, rng)
    atoms.calc = EMT()
    FIRE(atoms, logfile=None).run(steps=15)
    return _rattled(atoms, rng.uniform(0.02, 0.12), rng)


COMMON: Final = "bulk"
RARE: Final[Mapping[str, Maker]] = {
    "liquid": liquid,
    "surface": surface,
    "vacancy": vacancy,
    "cluster": cluster,
    "interstitial": interstitial,
}
GROUPS: Final[Mapping[str, Maker]] = {COMMON: bulk_cell, **RARE}


def make(counts: Mapping[str, int], seed: int) -> Iterator[Atoms]:
    """Yield labelled frames, as many of each group as *counts* says, group by group in the order of :data:`GROUPS`."""
    for k, (group, maker) in enumerate(GROUPS.items()):
        rng = np.random.default_rng([seed, k])
        for number in range(counts[group]):
            atoms = _labelled(maker, rng)
            atoms.info.update(config_type=group, group=f"{group}-{seed}-{number}")
            yield atoms


def _labelled(maker: Maker, rng: Rng) -> Atoms:
    while True:
        atoms = maker(rng)
        frame = Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        atoms.calc = EMT()
        forces = atoms.get_forces()
        if np.linalg.norm(forces, axis=1).max() < LARGEST_FORCE:
            frame.calc = SinglePointCalculator(frame, energy=atoms.get_potential_energy(), forces=forces)
            return frame


def _strained(atoms: Atoms, width: float, rng: Rng) -> Atoms:
    strain = rng.normal(0, width, (3, 3))
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.5 * (strain + strain.T)), scale_atoms=True)
    return atoms


def _rattled(atoms: Atoms, width: float, rng: Rng) -> Atoms:
    atoms.positions += rng.normal(0, width, atoms.positions.shape)
    return atoms
