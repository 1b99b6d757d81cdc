"""Units and conventions of the whole package.

Energy eV, length Å, force eV/Å, stress eV/Å³, time fs, temperature K, pressure GPa. A stress has six Voigt components
in the order xx yy zz yz xz xy and is positive in tension, which is ASE's sign; a pressure is positive in compression.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from ase import units as ase_units

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

FS: Final[float] = ase_units.fs
"""One femtosecond in ASE's unit of time (Å·sqrt(u/eV))."""

GPA: Final[float] = ase_units.GPa
"""One gigapascal in eV/Å³."""

KB: Final[float] = ase_units.kB
"""Boltzmann's constant in eV/K."""

PROPERTIES: Final = ("energy", "force", "force_max", "stress")
"""What a committee disagrees on and errs in, per frame, in the order of every table and report."""

VOIGT: Final[tuple[tuple[int, int], ...]] = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
"""Cartesian index pair of each Voigt component."""

VOIGT_WEIGHTS: Final[FloatArray] = np.array([1.0, 1.0, 1.0, 2.0, 2.0, 2.0])
"""How often each Voigt component stands in the full 3×3 tensor, so that Σ w·v² is the squared Frobenius norm."""
