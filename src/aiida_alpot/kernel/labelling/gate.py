"""Quality gate of labels: what must never reach a training set unseen."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from ase import Atoms

from aiida_alpot.kernel.geometry import atoms_in_contact, closest_pair_ratio

OVERLAP_RATIO: Final = 0.3
"""Distance over the sum of covalent radii below which two atoms count as overlapping."""


def check_labels(atoms: Atoms) -> str | None:
    """Return what is wrong with the labels of a frame, None if nothing is.

    :param atoms: a frame with its labels in a ``SinglePointCalculator``.
    :return: ``"failed: …"`` for labels of wrong shape or not finite, ``"quarantined: …"`` for labels that may be what
        the reference says but must not be trained on: electronic-structure codes return numbers (pw.x: +2·10⁵ eV, exit
        status 0) for atoms that lie on top of each other.
    """
    results = {} if atoms.calc is None else atoms.calc.results
    wrong = _check_values(results, len(atoms))
    if wrong is not None:
        return f"failed: {wrong}"
    if closest_pair_ratio(atoms) < OVERLAP_RATIO:
        where = ", ".join(f"{index} ({atoms[index].symbol})" for index in atoms_in_contact(atoms, OVERLAP_RATIO)[:4])
        return f"quarantined: atoms overlap: {where}"
    return None


def _check_values(results: dict[str, Any], n_atoms: int) -> str | None:
    for name, shape, required in (("energy", (), True), ("forces", (n_atoms, 3), True), ("stress", (6,), False)):
        value = results.get(name)
        if value is None:
            if required:
                return f"there is no {name}"
            continue
        array = np.asarray(value, dtype=np.float64)
        if array.shape != shape:
            return f"{name} has the shape {array.shape}, expected {shape}"
        if not np.all(np.isfinite(array)):
            return f"{name} is not finite"
    return None
