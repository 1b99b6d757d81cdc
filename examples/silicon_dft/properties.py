"""Equation of state and elastic constants of a cubic diamond crystal, the same way for a potential and for pw.x.

A method is a function from frames to predictions. It is asked twice: for the frames of the equation of state, and for
cells strained about the lattice constant that this method has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.eos import EquationOfState

from aiida_alpot.kernel.potentials import Predictions
from aiida_alpot.kernel.units import FloatArray

Method = Callable[[Sequence[Atoms]], Predictions]

EOS_STRAINS = np.linspace(-0.024, 0.024, 9)
"""Linear strains of the cells of the equation of state: ±7 % of the volume."""
STRAIN = 0.01
"""Strain xx of the tension and engineering strain yz of the shear."""
TRIAL_ZETA = 0.5
"""Kleinman parameter that the second sheared cell is made with; the relaxed one is interpolated to."""


@dataclass(frozen=True)
class Properties:
    """What a method says of the crystal.

    :param a0: lattice constant, Å.
    :param b0: bulk modulus of the equation of state, GPa.
    :param c11: GPa, as the next two.
    :param c44: with the sublattices at rest, that is with their forces at zero.
    :param c44_clamped: with the sublattices strained like the cell.
    :param zeta: Kleinman's internal strain: the share of the clamped bond stretch that the sublattices take back.
    :param volumes: of the equation of state, Å³ per atom, shape (9,).
    :param energies: eV per atom above the minimum of the fit, shape (9,).
    """

    a0: float
    b0: float
    c11: float
    c12: float
    c44: float
    c44_clamped: float
    zeta: float
    volumes: FloatArray
    energies: FloatArray


def compute_properties(method: Method, symbol: str, lattice_constant: float) -> Properties:
    """Return what *method* says of the crystal of *symbol*.

    :param lattice_constant: in the middle of the equation of state, Å; the minimum need not be there.
    """
    cells = [crystal(symbol, lattice_constant * (1 + strain)) for strain in EOS_STRAINS]
    n_atoms = len(cells[0])
    volumes = np.array([atoms.get_volume() for atoms in cells]) / n_atoms
    energies = method(cells).energy / n_atoms
    volume, minimum, modulus = EquationOfState(volumes, energies, eos="birchmurnaghan").fit()
    a0 = float((volume * n_atoms) ** (1 / 3))

    pulled, pushed, clamped, shifted = range(4)
    answer = method(elastic_cells(symbol, a0))
    tension = (answer.stress[pulled] - answer.stress[pushed]) / (2 * STRAIN) / units.GPa
    shear = answer.stress[[clamped, shifted], 3] / STRAIN / units.GPa
    force = [_sublattice_force(answer.frame(index)) for index in (clamped, shifted)]
    share = force[0] / (force[0] - force[1])  # of the trial shift, where the force is zero
    return Properties(
        a0=a0,
        b0=float(modulus / units.GPa),
        c11=float(tension[0]),
        c12=float((tension[1] + tension[2]) / 2),
        c44=float(shear[0] + share * (shear[1] - shear[0])),
        c44_clamped=float(shear[0]),
        zeta=float(share * TRIAL_ZETA),
        volumes=volumes,
        energies=energies - minimum,
    )


def crystal(symbol: str, lattice_constant: float) -> Atoms:
    """Return the cubic cell of eight atoms; those of one sublattice have even indices."""
    return bulk(symbol, "diamond", a=lattice_constant, cubic=True)


def elastic_cells(symbol: str, a0: float) -> list[Atoms]:
    """Return the cell pulled and pushed along x, and sheared in yz without and with a shift of one sublattice along x.

    Under the shear, bonds of one direction of x stretch and those of the other shrink; a shift of -ζ γ a0/4 takes the
    share ζ of that back [L. Kleinman, Phys. Rev. 128, 2614 (1962)]. No shift lowers the energy of a cell under tension.
    """
    tension = np.diag([STRAIN, 0.0, 0.0])
    shear = np.zeros((3, 3))
    shear[1, 2] = shear[2, 1] = STRAIN / 2
    cells = [_strained(crystal(symbol, a0), strain) for strain in (tension, -tension, shear, shear)]
    cells[3].positions[1::2, 0] -= TRIAL_ZETA * STRAIN * a0 / 4
    return cells


def _strained(atoms: Atoms, strain: FloatArray) -> Atoms:
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    return atoms


def _sublattice_force(answer: Predictions) -> float:
    """Return the force along x on an atom of the shifted sublattice, relative to the other, eV/Å."""
    return float(answer.forces[1::2, 0].mean() - answer.forces[::2, 0].mean())
