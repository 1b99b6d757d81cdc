"""What goes wrong with labels, one function per kind; each returns the wrong results for a frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from ase import Atoms, units

Rng = np.random.Generator
Results = dict[str, Any]
Labeller = Callable[[Atoms], Results]
BOHR_FORCES = {"Ry": units.Ry / units.Bohr, "Ha": units.Hartree / units.Bohr}
BOHR_STRESS = {"Ry": units.Ry / units.Bohr**3, "Ha": units.Hartree / units.Bohr**3}
ENERGIES = {"Ry": units.Ry, "Ha": units.Hartree}


def unconverged_model(atoms: Atoms, good: Results, rng: Rng) -> Results:
    """An SCF stopped early, as a model: sizes as measured with pw.x, see README.md.

    The energy lies above by 1–100 meV/atom (log-uniform), the forces have errors of 0.01–0.3 eV/Å without net force
    (pw.x takes it away), the stress of 0.2–5 GPa: the three are drawn from one common level.
    """
    level = rng.uniform()
    forces = rng.normal(0, 0.01 * 30**level, (len(atoms), 3))
    sign = rng.choice([-1, 1], p=[0.3, 0.7])
    return {
        **good,
        "energy": good["energy"] + sign * len(atoms) * 1e-3 * 100**level,
        "forces": good["forces"] + forces - forces.mean(axis=0),
        "stress": good["stress"] + rng.normal(0, 0.2 * 25**level, 6) * units.GPa,
    }


def wrong_unit(_: Atoms, good: Results, rng: Rng) -> Results:
    """Energy, forces, or everything in rydberg or hartree."""
    unit, which = rng.choice(["Ry", "Ha"]), rng.integers(3)
    bad = dict(good)
    if which in (0, 2):
        bad["energy"] = good["energy"] / ENERGIES[unit]
    if which in (1, 2):
        bad["forces"] = good["forces"] / BOHR_FORCES[unit]
    if which == 2 and "stress" in good:
        bad["stress"] = good["stress"] / BOHR_STRESS[unit]
    return bad


def wrong_stress_sign(_: Atoms, good: Results, __: Rng) -> Results:
    """The stress with the sign of VASP and pw.x."""
    return {**good, "stress": -good["stress"]}


def wrong_cutoff_model(atoms: Atoms, good: Results, rng: Rng) -> Results:
    """A lower cut-off, as a model: 5–50 meV/atom (log-uniform, by species), 2 % of the forces, Pulay stress."""
    size = 5e-3 * 10 ** rng.uniform()
    species = sorted(set(atoms.numbers.tolist()))
    shares = dict(zip(species, rng.uniform(0.6, 1.4, len(species)), strict=True))
    each = np.array([shares[z] for z in atoms.numbers])
    change = 0.02 * good["forces"] * rng.normal(size=(len(atoms), 3))
    bad = {
        **good,
        "energy": good["energy"] + size * float(np.sum(each / each.mean())),
        "forces": good["forces"] + change - change.mean(axis=0),
    }
    if "stress" in good:
        bad["stress"] = good["stress"] - np.array([1, 1, 1, 0, 0, 0]) * rng.uniform(0.3, 2.0) * units.GPa
    return bad


def swapped_species(atoms: Atoms, good: Results, rng: Rng, label: Labeller) -> Results:
    """Two species exchanged in the input of the code, or rows of the forces in the order of the species."""
    species = sorted(set(atoms.numbers.tolist()))
    order = np.argsort(atoms.numbers, kind="stable")
    moved = not np.array_equal(order, np.arange(len(atoms)))
    if rng.uniform() < 0.5 and moved:
        return {**good, "forces": good["forces"][order]}
    if len(species) == 1:
        species = [29, 79]
    first, second = rng.choice(species, 2, replace=False)
    exchanged = atoms.copy()
    exchanged.numbers[atoms.numbers == first] = second
    exchanged.numbers[atoms.numbers == second] = first
    return label(exchanged)


def nonsense(atoms: Atoms, good: Results, rng: Rng, others: list[Atoms]) -> Results:
    """Exit status 0 and a huge energy, zero forces, or the labels of another frame with as many atoms."""
    which = rng.integers(3)
    if which == 0:
        return {**good, "energy": good["energy"] + 10 ** rng.uniform(2, 5)}
    alike = [other for other in others if len(other) == len(atoms) and other is not atoms]
    if which == 1 or not alike:
        return {**good, "forces": np.zeros((len(atoms), 3))}
    return dict(alike[rng.integers(len(alike))].calc.results)
