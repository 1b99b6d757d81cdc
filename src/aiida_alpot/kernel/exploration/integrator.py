"""Langevin dynamics by the BAOAB splitting, without a constraint on the centre of mass."""

from __future__ import annotations

import numpy as np
from ase import Atoms

from aiida_alpot.kernel.units import FS, KB, FloatArray

from .barostat import MaskedBarostat


class LangevinIntegrator:
    """BAOAB integrator of Leimkuhler & Matthews, J. Chem. Phys. 138, 174102 (2013), Eq. (6) and below.

    The centre of mass takes part, so the kinetic temperature is 2K/(3Nk): ASE's ``Langevin(fixcm=True)`` runs 30 % hot
    on nine atoms. Friction 0 is velocity Verlet; 0 K is damped dynamics without noise. Constraints of *atoms* are
    ignored. Velocities live here, in ASE units, shape (n_atoms, 3); *atoms* holds positions and cell and is moved in
    place.

    :param atoms: the frame with its calculator.
    :param timestep: fs.
    :param temperature: K; the velocities start from Maxwell and Boltzmann's distribution.
    :param friction: 1/fs.
    :param rng: source of velocities and noise.
    :param barostat: moves the cell after every *barostat_every* steps.
    """

    def __init__(
        self,
        atoms: Atoms,
        *,
        timestep: float,
        temperature: float,
        friction: float,
        rng: np.random.Generator,
        barostat: MaskedBarostat | None = None,
        barostat_every: int = 1,
    ) -> None:
        self.atoms = atoms
        self.n_steps = 0
        self._dt = timestep * FS
        self._rng = rng
        self._barostat = barostat
        self._barostat_every = barostat_every
        self._mass: FloatArray = atoms.get_masses()[:, None]
        self._thermal = np.sqrt(KB * temperature / self._mass)
        self._decay = float(np.exp(-friction * timestep))
        self._kick = float(np.sqrt(-np.expm1(-2.0 * friction * timestep)))
        self.velocities: FloatArray = self._thermal * rng.standard_normal((len(atoms), 3))
        self.forces = self._compute_forces()

    @property
    def temperature(self) -> float:
        """Kinetic temperature in K, over all 3N degrees of freedom."""
        return float(np.sum(self._mass * self.velocities**2) / (3.0 * len(self.atoms) * KB))

    @property
    def kinetic_energy(self) -> float:
        """Kinetic energy in eV."""
        return float(0.5 * np.sum(self._mass * self.velocities**2))

    def step(self) -> None:
        """Advance by one time step; what the calculator raises passes through."""
        self._half_kick()
        self._half_drift()
        if self._kick > 0.0:
            noise = self._rng.standard_normal(self.velocities.shape)
            self.velocities = self._decay * self.velocities + self._kick * self._thermal * noise
        self._half_drift()
        self.forces = self._compute_forces()
        self._half_kick()
        self.n_steps += 1
        if self._barostat is not None and self.n_steps % self._barostat_every == 0:
            self.velocities = self._barostat.move(self.atoms, self.velocities)
            self.forces = self._compute_forces()

    def _half_kick(self) -> None:
        self.velocities = self.velocities + 0.5 * self._dt * self.forces / self._mass

    def _half_drift(self) -> None:
        self.atoms.set_positions(self.atoms.positions + 0.5 * self._dt * self.velocities, apply_constraint=False)

    def _compute_forces(self) -> FloatArray:
        return np.array(self.atoms.get_forces(apply_constraint=False), dtype=float)
