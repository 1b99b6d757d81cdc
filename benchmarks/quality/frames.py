"""Clean labels: frames as active learning picks them, outliers by nature."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution

Rng = np.random.Generator
ATOM_ENERGIES = {"Cu": -3.7, "Au": -3.2, "Ni": -5.5}
"""eV: EMT counts from the crystal; with these its energies look like those of VASP."""


def with_labels(atoms: Atoms, results: dict[str, object]) -> Atoms:
    """Return a copy that carries labels."""
    labelled = atoms.copy()
    labelled.calc = SinglePointCalculator(labelled, **results)
    labelled.info.update(status="labelled", fingerprint="reference")
    return labelled


# alloys


def label_emt(atoms: Atoms) -> dict[str, object]:
    """Return energy, forces and stress of EMT, with energies of the atoms added."""
    copy = atoms.copy()
    copy.calc = EMT()
    energy = copy.get_potential_energy() + sum(ATOM_ENERGIES[symbol] for symbol in copy.symbols)
    return {"energy": energy, "forces": copy.get_forces(), "stress": copy.get_stress()}


def make_alloys(n_frames: int, rng: Rng) -> list[Atoms]:
    """Return Cu–Au frames in equal parts: rattled, strained, hot, with vacancies, torn apart, slabs."""
    makers: tuple[Callable[[Rng], Atoms], ...] = (_rattled, _strained, _hot, _vacant, _torn, _slab)
    return [makers[k % len(makers)](rng) for k in range(n_frames)]


def _lattice(rng: Rng) -> Atoms:
    repeat = [(2, 2, 2), (2, 2, 1), (3, 2, 1)][rng.integers(3)]
    share = rng.uniform()
    atoms = bulk("Cu", "fcc", a=3.61 + 0.45 * share, cubic=True).repeat(repeat)
    gold = rng.uniform(size=len(atoms)) < share
    atoms.symbols[gold] = "Au"
    return atoms


def _deform(atoms: Atoms, rng: Rng, largest: float) -> Atoms:
    strain = rng.uniform(-largest, largest, (3, 3))
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.5 * (strain + strain.T)), scale_atoms=True)
    return atoms


def _rattled(rng: Rng) -> Atoms:
    atoms = _deform(_lattice(rng), rng, 0.02)
    atoms.positions += rng.normal(0, rng.uniform(0.02, 0.25), atoms.positions.shape)
    return atoms


def _strained(rng: Rng) -> Atoms:
    atoms = _deform(_lattice(rng), rng, 0.06)
    atoms.set_cell(atoms.cell.array * rng.uniform(0.92, 1.12), scale_atoms=True)
    atoms.positions += rng.normal(0, 0.03, atoms.positions.shape)
    return atoms


def _hot(rng: Rng) -> Atoms:
    atoms = _deform(_lattice(rng), rng, 0.04)
    return _run_md(atoms, EMT(), rng, float(rng.uniform(500, 2500)), 5.0, 25)


def _vacant(rng: Rng) -> Atoms:
    atoms = _rattled(rng)
    del atoms[rng.choice(len(atoms), size=int(rng.integers(1, 4)), replace=False).tolist()]
    return atoms


def _torn(rng: Rng) -> Atoms:
    """Stretched along one axis by up to a half: bonds break."""
    atoms = _lattice(rng)
    factors = np.ones(3)
    factors[rng.integers(3)] = rng.uniform(1.15, 1.5)
    atoms.set_cell(atoms.cell.array * factors[None, :], scale_atoms=True)
    atoms.positions += rng.normal(0, 0.08, atoms.positions.shape)
    return atoms


def _slab(rng: Rng) -> Atoms:
    atoms = _rattled(rng)
    atoms.cell[2, 2] += 10.0
    return atoms


def _run_md(atoms: Atoms, calculator: Calculator, rng: Rng, temperature: float, step: float, n_steps: int) -> Atoms:
    moving = atoms.copy()
    moving.calc = calculator
    MaxwellBoltzmannDistribution(moving, temperature_K=2.0 * temperature, rng=rng)
    Langevin(moving, step * units.fs, temperature_K=temperature, friction=0.02, fixcm=False, rng=rng).run(n_steps)
    moving.calc = None
    moving.set_momenta(np.zeros((len(moving), 3)))
    return moving


# molecules


def tblite(method: str = "GFN2-xTB", accuracy: float = 0.1) -> Calculator:
    """Return a tblite calculator."""
    from tblite.ase import TBLite

    return TBLite(method=method, accuracy=accuracy, verbosity=0)


def label_xtb(atoms: Atoms, method: str = "GFN2-xTB", accuracy: float = 0.1) -> dict[str, object]:
    """Return energy and forces of xTB."""
    copy = atoms.copy()
    copy.calc = tblite(method, accuracy)
    return {"energy": copy.get_potential_energy(), "forces": copy.get_forces()}


MOLECULES = ("CH3CH2OH", "CH3OCH3", "CH3CHO", "CH3COOH", "CH3OH")


def make_molecules(n_frames: int, rng: Rng) -> list[Atoms]:
    """Return molecules of C, H and O in equal parts: rattled, strained, hot, with one long bond."""
    makers: tuple[Callable[[Atoms, Rng], Atoms], ...] = (_rattled_m, _strained_m, _hot_m, _stretched_m)
    return [makers[k % len(makers)](molecule(MOLECULES[rng.integers(len(MOLECULES))]), rng) for k in range(n_frames)]


def _rattled_m(atoms: Atoms, rng: Rng) -> Atoms:
    atoms.positions += rng.normal(0, rng.uniform(0.02, 0.12), atoms.positions.shape)
    return atoms


def _strained_m(atoms: Atoms, rng: Rng) -> Atoms:
    atoms.positions = atoms.positions @ (np.eye(3) + rng.normal(0, 0.06, (3, 3)))
    atoms.positions += rng.normal(0, 0.03, atoms.positions.shape)
    return atoms


def _hot_m(atoms: Atoms, rng: Rng) -> Atoms:
    return _run_md(atoms, tblite(accuracy=1.0), rng, float(rng.uniform(300, 1200)), 0.5, 40)


def _stretched_m(atoms: Atoms, rng: Rng) -> Atoms:
    """A hydrogen atom on its way out."""
    hydrogen = rng.choice(np.flatnonzero(atoms.numbers == 1))
    distances = atoms.get_distances(hydrogen, range(len(atoms)), vector=True)
    lengths = np.linalg.norm(distances, axis=1)
    lengths[hydrogen] = np.inf
    partner = int(np.argmin(lengths))
    atoms.positions[hydrogen] -= distances[partner] / lengths[partner] * rng.uniform(0.15, 0.6)
    return _rattled_m(atoms, rng)
