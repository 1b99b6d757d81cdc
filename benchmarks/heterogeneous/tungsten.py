"""Tungsten of Finnis and Sinclair (1984): an analytic reference with an energy for every atom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.neighborlist import primitive_neighbor_list
from ase.stress import full_3x3_to_voigt_6_stress

A0: Final = 3.1652
"""Å, lattice constant."""
_A, _D = 1.896373, 4.400224
_C, _C0, _C1, _C2 = 3.25, 47.1346499, -33.7665655, 6.2541999


class FinnisSinclair(Calculator):  # type: ignore[misc]
    """``E = Σ_i (½ Σ_j V(r_ij) − A √ρ_i)``, ``ρ_i = Σ_j (r_ij − d)²``, ``V = (r − c)² (c0 + c1 r + c2 r²)``.

    Parameters of W from Finnis and Sinclair, Phil. Mag. A 50, 45 (1984), Table 1.
    """

    implemented_properties: Sequence[str] = ("energy", "energies", "forces", "stress")

    def calculate(
        self, atoms: Atoms | None = None, properties: Sequence[str] = ("energy",), system_changes: Any = all_changes
    ) -> None:
        """Evaluate; called by ASE."""
        super().calculate(atoms, properties, system_changes)
        n = len(self.atoms)
        i, j, r, vector = primitive_neighbor_list(
            "ijdD", self.atoms.pbc, self.atoms.cell.complete().array, self.atoms.positions, _D
        )
        near = r < _C
        polynomial = _C0 + _C1 * r + _C2 * r**2
        pair = np.where(near, (r - _C) ** 2 * polynomial, 0.0)
        slope = np.where(near, 2 * (r - _C) * polynomial + (r - _C) ** 2 * (_C1 + 2 * _C2 * r), 0.0)
        density = np.bincount(i, weights=(r - _D) ** 2, minlength=n)
        root = np.sqrt(density)
        energies = 0.5 * np.bincount(i, weights=pair, minlength=n) - _A * root
        inverse = np.divide(1.0, root, out=np.zeros(n), where=root > 0.0)
        # both atoms of a pair feel its bond in each other's density
        pull = 0.5 * slope - 0.5 * _A * inverse[i] * 2 * (r - _D)
        bond = pull[:, None] * vector / r[:, None]
        forces = np.zeros((n, 3))
        np.add.at(forces, i, bond)
        np.add.at(forces, j, -bond)
        self.results = {"energy": float(energies.sum()), "energies": energies, "forces": forces}
        if self.atoms.cell.rank == 3:
            virial = vector.T @ bond / self.atoms.get_volume()
            self.results["stress"] = full_3x3_to_voigt_6_stress(0.5 * (virial + virial.T))
