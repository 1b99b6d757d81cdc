"""Make ethanol.xyz and test.xyz: the structure the quickstart begins with and the fixed frames it is judged by.

Run once, results are kept in the repository: python make_reference.py
The test frames are 50 each of GFN2-xTB molecular dynamics at 300, 600 and 900 K; none is ever trained on.
"""

from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import molecule
from ase.io import write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.optimize import BFGS
from tblite.ase import TBLite

HERE = Path(__file__).parent
TEMPERATURES = (300, 600, 900)
FRAMES_EACH = 50
STEPS_BETWEEN = 200
EQUILIBRATION = 2000


def reference() -> TBLite:
    return TBLite(method="GFN2-xTB", accuracy=0.1, verbosity=0)


def relaxed_ethanol() -> Atoms:
    atoms = molecule("CH3CH2OH")
    atoms.calc = reference()
    BFGS(atoms, logfile=None).run(fmax=0.005, steps=500)
    return atoms


def sample(start: Atoms, temperature: float, seed: int) -> list[Atoms]:
    """Return frames of a trajectory; fixcm=False because a constrained centre of mass runs 30 % hot on nine atoms."""
    atoms = start.copy()
    atoms.calc = reference()
    rng = np.random.default_rng(seed)
    MaxwellBoltzmannDistribution(atoms, temperature_K=temperature, rng=rng)
    dynamics = Langevin(
        atoms, 0.5 * units.fs, temperature_K=temperature, friction=0.02 / units.fs, fixcm=False, rng=rng
    )
    dynamics.run(EQUILIBRATION)
    frames = []
    for _ in range(FRAMES_EACH):
        dynamics.run(STEPS_BETWEEN)
        frame = Atoms(numbers=atoms.numbers, positions=atoms.positions - atoms.get_center_of_mass())
        frame.info = {
            "REF_energy": float(atoms.get_potential_energy()),
            "config_type": f"md-{temperature}K",
            "group": f"test-{temperature}K",
            "split": "test",
        }
        frame.arrays["REF_forces"] = atoms.get_forces()
        frames.append(frame)
    return frames


def main() -> None:
    ethanol = relaxed_ethanol()
    write(HERE / "ethanol.xyz", Atoms(numbers=ethanol.numbers, positions=ethanol.positions), format="xyz", fmt="%12.6f")
    frames = [frame for seed, t in enumerate(TEMPERATURES, start=2026) for frame in sample(ethanol, t, seed)]
    write(HERE / "test.xyz", frames, format="extxyz")


if __name__ == "__main__":
    main()
