r"""A barostat for the periodic axes only: stochastic cell rescaling of the lengths of cell vectors.

ASE's barostats move the whole cell or need a fully periodic one. Here the degrees of freedom are the logarithms
:math:`ε_i` of the lengths of the periodic cell vectors; angles and non-periodic vectors never change. With
:math:`η_i = h^{-1} E_i h` (*h* holds the cell vectors as rows, :math:`E_i` is one at *(i, i)*), a change :math:`dε_i`
moves positions by :math:`r η_i dε_i` and momenta by :math:`-p η_i^T dε_i`, which keeps the volume of phase space. The
:math:`η_i` are constant and commute, so finite steps are exact. An overdamped Langevin equation of constant mobility μ,

.. math:: dε_i = μ g_i dt + \sqrt{2 μ k T} dW_i, \quad g_i = η_i : (Σ p p^T / m - V σ) - P V + k T,

leaves the isothermal-isobaric weight :math:`V \exp[-(H + P V) / k T] \prod dε_i` unchanged, which is the measure dV
for one axis or an isotropic cell. It is the anisotropic stochastic cell rescaling of Bernetti & Bussi, J. Chem. Phys.
153, 114107 (2020), and Del Tatto et al., Appl. Sci. 12, 1139 (2022), restricted to lengths. At 0 K it is steepest
descent.
"""

from __future__ import annotations

import numpy as np
from ase import Atoms

from aiida_alpot.kernel.potentials import has_stress
from aiida_alpot.kernel.units import GPA, KB, FloatArray


class MaskedBarostat:
    """Constant pressure on the periodic axes of a cell.

    The pressure does work on the volume of the cell, vacuum included, as in ASE's stress: at equilibrium the mean of
    the stress along a periodic axis (kinetic part included) is -P.

    :param atoms: the frame; its cell and periodicity are read now.
    :param pressure: GPa, positive in compression.
    :param temperature: K.
    :param time: fs, relaxation time of a cell with *bulk_modulus*.
    :param interval: fs of dynamics that one :meth:`move` stands for.
    :param rng: source of the noise.
    :param bulk_modulus: GPa, enters the mobility only.
    :param isotropic: move all periodic vectors by the same factor.
    :raises ValueError: if the frame has no periodic axis or three independent cell vectors.
    """

    def __init__(
        self,
        atoms: Atoms,
        *,
        pressure: float,
        temperature: float,
        time: float,
        interval: float,
        rng: np.random.Generator,
        bulk_modulus: float = 100.0,
        isotropic: bool = False,
    ) -> None:
        if not has_stress(atoms):
            raise ValueError("a barostat needs a periodic axis and three independent cell vectors")
        self.axes = np.flatnonzero(atoms.pbc)
        self.isotropic = isotropic
        self._pressure = pressure * GPA
        self._kT = KB * temperature
        self._rng = rng
        h = np.asarray(atoms.cell)
        # eta_i = h^-1 E_i h is the outer product of column i of h^-1 and row i of h
        self._eta = np.einsum("ai,ib->iab", np.linalg.inv(h), h)[self.axes]
        # curvature of the free energy along the degree of freedom, so that it relaxes at 1/time
        curvature = bulk_modulus * GPA * abs(np.linalg.det(h)) * (len(self.axes) ** 2 if isotropic else 1)
        self._mobility_time = interval / (time * curvature)

    def force(self, atoms: Atoms, velocities: FloatArray) -> FloatArray:
        """Return g, the generalised force on the logarithmic lengths, shape (n_axes,), eV.

        :param velocities: shape (n_atoms, 3), ASE units.
        :raises FloatingPointError: if the stress is not finite.
        """
        stress = np.asarray(atoms.get_stress(voigt=False, apply_constraint=False))
        if not np.all(np.isfinite(stress)):
            raise FloatingPointError("the stress of the driving potential is not finite")
        volume = abs(np.linalg.det(np.asarray(atoms.cell)))
        kinetic = np.einsum("n,na,nb->ab", atoms.get_masses(), velocities, velocities)
        work = np.einsum("iab,ab->i", self._eta, kinetic - volume * stress)
        g: FloatArray = work - self._pressure * volume + self._kT
        return g

    def move(self, atoms: Atoms, velocities: FloatArray) -> FloatArray:
        """Move cell and positions of *atoms* by one interval, and return the velocities that belong to them.

        :param velocities: shape (n_atoms, 3), ASE units.
        :raises FloatingPointError: if the cell would leave the range of numbers.
        """
        g = self.force(atoms, velocities)
        if self.isotropic:
            g = np.array([g.sum()])
        noise = np.sqrt(2.0 * self._mobility_time * self._kT) * self._rng.standard_normal(g.shape)
        strain = np.broadcast_to(self._mobility_time * g + noise, self.axes.shape)
        if not np.all(np.abs(strain) < 1.0):
            raise FloatingPointError(f"the barostat would strain the cell by {np.max(np.abs(strain)):.3g} in one move")
        return self._scale(atoms, velocities, strain)

    def _scale(self, atoms: Atoms, velocities: FloatArray, strain: FloatArray) -> FloatArray:
        cell = np.array(atoms.cell)
        fractional = np.linalg.solve(cell.T, atoms.positions.T).T[:, self.axes]
        # differences only: what no periodic vector touches keeps its bits
        positions = atoms.positions + (fractional * np.expm1(strain)) @ cell[self.axes]
        cell[self.axes] *= np.exp(strain)[:, None]
        # (I + sum_i (e^-eps_i - 1) eta_i)^T is the inverse transpose of the deformation
        momentum_map = np.eye(3) + np.einsum("i,iab->ba", np.expm1(-strain), self._eta)
        atoms.set_cell(cell, scale_atoms=False)
        atoms.set_positions(positions, apply_constraint=False)
        moved: FloatArray = velocities @ momentum_map
        return moved
