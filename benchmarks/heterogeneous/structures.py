"""Training frames of two kinds that have little in common, and test frames that lie between them (UQ-ACE, Sec. 3.4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from ase import Atoms, units
from ase.build import bcc100, bcc110, bcc111, bulk, make_supercell
from ase.calculators.singlepoint import SinglePointCalculator
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from tungsten import A0, FinnisSinclair

Rng = np.random.Generator
Maker = Callable[[Rng], Atoms]
RATTLE: Final = 0.05
"""Å, standard deviation of the displacements."""


def strained(rng: Rng, amplitude: float = 1.0) -> Atoms:
    """Two atoms in a strained cell; one is the image of the other by inversion, so that their surroundings are equal.

    :param amplitude: factor on strain and displacements.
    """
    atoms = bulk("W", "bcc", a=A0, cubic=True)
    strain = rng.normal(0, 0.04 * amplitude, (3, 3))
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.5 * (strain + strain.T)), scale_atoms=True)
    return _rattled(atoms, rng, amplitude)


def sphere(rng: Rng) -> Atoms:
    """A ball of 50 to 250 atoms in vacuum."""
    atoms = bulk("W", "bcc", a=A0, cubic=True).repeat(8)
    centre = atoms.cell.sum(axis=0) / 2 + rng.uniform(-1, 1, 3)
    ball = atoms[np.linalg.norm(atoms.positions - centre, axis=1) < rng.uniform(5.5, 9.5)]
    ball.center(vacuum=6.0)
    ball.pbc = False
    return _rattled(ball, rng)


def vacancies(rng: Rng) -> Atoms:
    """One to three atoms missing of 54."""
    atoms = bulk("W", "bcc", a=A0, cubic=True).repeat(3)
    del atoms[rng.choice(len(atoms), int(rng.integers(1, 4)), replace=False).tolist()]
    return _rattled(atoms, rng)


def surface(rng: Rng) -> Atoms:
    """A slab with the surface 100, 110 or 111."""
    maker, size = [(bcc100, (2, 2, 7)), (bcc110, (2, 2, 6)), (bcc111, (2, 2, 12))][rng.integers(3)]
    return _rattled(maker("W", size, a=A0, vacuum=6.0), rng)


def stacking_fault(rng: Rng) -> Atoms:
    """A shift along ½[1 -1 1] in a plane 110, one in a periodic cell."""
    half = np.array([0.5, -0.5, 0.5])
    atoms = make_supercell(bulk("W", "bcc", a=A0, cubic=True), [[1, -1, 1], [0, 0, 2], [4, 4, 0]])
    cell = atoms.cell.array.copy()
    cell[2] += rng.uniform(0.2, 0.8) * half * A0
    atoms.set_cell(cell)
    return _rattled(atoms, rng)


def grain_boundary(rng: Rng) -> Atoms:
    """Two twist boundaries Σ5 [001]: grains turned by 36.87° against each other."""
    unit = bulk("W", "bcc", a=A0, cubic=True)
    lower = _aligned(make_supercell(unit, [[2, 1, 0], [-1, 2, 0], [0, 0, 4]]))
    upper = _aligned(make_supercell(unit, [[2, -1, 0], [1, 2, 0], [0, 0, 4]]))
    gap = rng.uniform(0.0, 0.4)
    upper.positions += [*rng.uniform(0, A0, 2), lower.cell[2, 2] + gap]
    atoms = lower + upper
    atoms.set_cell(lower.cell.array + np.diag([0, 0, lower.cell[2, 2] + 2 * gap]))
    atoms.wrap()
    return _rattled(atoms, rng)


def liquid(rng: Rng) -> Atoms:
    """54 atoms after 0.3 ps at 6000 K in a cell a tenth larger."""
    atoms = bulk("W", "bcc", a=A0 * 1.1 ** (1 / 3), cubic=True).repeat(3)
    atoms.calc = FinnisSinclair()
    MaxwellBoltzmannDistribution(atoms, temperature_K=12000, rng=rng)
    Langevin(atoms, 2 * units.fs, temperature_K=6000, friction=0.02, fixcm=False, rng=rng).run(150)
    return Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=True)


TRAINING: Final[Mapping[str, Maker]] = {"strained": strained, "sphere": sphere}
NOVEL: Final[Mapping[str, Maker]] = {
    "vacancies": vacancies,
    "surface": surface,
    "stacking fault": stacking_fault,
    "grain boundary": grain_boundary,
    "liquid": liquid,
}


def make(makers: Mapping[str, Maker], n_each: int, seed: int) -> list[Atoms]:
    """Return *n_each* labelled frames of every kind; the column ``site_energy`` has the energies of the atoms."""
    frames = []
    for k, (kind, maker) in enumerate(makers.items()):
        rng = np.random.default_rng([seed, k])
        for _ in range(n_each):
            atoms = maker(rng)
            atoms.calc = FinnisSinclair()
            results = {name: atoms.calc.get_property(name, atoms) for name in ("energy", "energies", "forces")}
            frame = Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
            frame.arrays["site_energy"] = results.pop("energies")
            if all(frame.pbc):
                results["stress"] = atoms.get_stress()
            frame.calc = SinglePointCalculator(frame, **results)
            frame.info["config_type"] = kind
            frames.append(frame)
    return frames


def _rattled(atoms: Atoms, rng: Rng, amplitude: float = 1.0) -> Atoms:
    atoms.positions += rng.normal(0, RATTLE * amplitude, atoms.positions.shape)
    return atoms


def _aligned(atoms: Atoms) -> Atoms:
    """Turn a cell about z until its first vector lies along x."""
    turned = atoms.copy()
    turned.rotate(turned.cell[0], (1, 0, 0), rotate_cell=True)
    return turned
