"""A reference method that writes down every label it computes, and takes its time. Jobs import it by PYTHONPATH."""

import hashlib
import os
import time
from pathlib import Path

from ase.calculators.morse import MorsePotential

COPPER = {"epsilon": 0.343, "r0": 2.866, "rho0": 3.894, "rcut1": 1.6, "rcut2": 1.9}


class SlowMorse(MorsePotential):
    """Morse copper; each calculation takes LABEL_SECONDS and leaves a line in LEDGER.

    It remembers nothing from one structure to the next, so that a label depends on its structure alone.
    """

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        time.sleep(float(os.environ.get("LABEL_SECONDS", "0")))
        super().calculate(atoms, properties, system_changes)
        content = atoms.positions.tobytes() + atoms.cell.array.tobytes()
        with Path(os.environ["LEDGER"]).open("a", encoding="utf-8") as ledger:
            ledger.write(hashlib.sha256(content).hexdigest() + "\n")
