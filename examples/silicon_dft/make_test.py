"""Make test.xyz: the fixed frames that the example is judged by, with the labels of pw.x and the example's settings.

Run once, the result is kept in the repository: ``python make_test.py``. The frames are the ends of 24 trajectories of a
Stillinger-Weber potential at 300, 600, 900 and 1200 K in strained cells: no committee has chosen them.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
from aiida.engine import submit
from aiida.plugins import WorkflowFactory
from ase import Atoms, units
from ase.build import bulk
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from matscipy.calculators.manybody import Manybody
from matscipy.calculators.manybody.explicit_forms import StillingerWeber
from matscipy.calculators.manybody.explicit_forms.stillinger_weber import Stillinger_Weber_PRB_31_5262_Si
from run import FOLDER, PSEUDO, common, find_pseudo, find_pw, install_family, read_settings
from validate import PROFILE

from aiida_alpot.data.pes import PESData

HERE = Path(__file__).parent
TEMPERATURES = (300, 600, 900, 1200)
FRAMES_EACH = 6
LATTICE_CONSTANT = 5.40
STRAIN = 0.015
N_STEPS = 600


def sample(temperature: float, seed: int) -> Atoms:
    """Return the last frame of a trajectory of 1.2 ps in a cell of random strain."""
    rng = np.random.default_rng(seed)
    atoms = bulk("Si", "diamond", a=LATTICE_CONSTANT, cubic=True)
    matrix = rng.normal(scale=STRAIN, size=(3, 3))
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + (matrix + matrix.T) / 2), scale_atoms=True)
    atoms.calc = Manybody(**StillingerWeber(Stillinger_Weber_PRB_31_5262_Si))
    thermalize_momenta(atoms, temperature_K=temperature, rng=rng)
    step, friction = 2 * units.fs, 0.02 / units.fs
    Langevin(atoms, step, temperature_K=temperature, friction=friction, fixcm=False, rng=rng).run(N_STEPS)
    frame = Atoms(atoms.symbols, positions=atoms.positions, cell=atoms.cell, pbc=True)
    frame.info = {"config_type": f"md-{temperature}K", "group": f"test-{seed}", "split": "test"}
    return frame


def main() -> None:
    pw, pseudo = find_pw(), find_pseudo(FOLDER / PSEUDO)
    seeds = iter(range(2026, 2026 + FRAMES_EACH * len(TEMPERATURES)))
    frames = [sample(temperature, next(seeds)) for temperature in TEMPERATURES for _ in range(FRAMES_EACH)]
    common.prepare_profile(PROFILE, cached=False)
    family = install_family(pseudo)
    common.start_daemon(PROFILE)
    settings = read_settings(family)["label"]
    builder = WorkflowFactory("alpot.label").get_builder()
    builder.code = common.load_code("pw", pw, "quantumespresso.pw")
    builder.frames = PESData.from_frames(frames)
    builder.engine = settings["engine"]
    builder.parameters = settings["parameters"]
    builder.options = common.OPTIONS | settings["options"]
    builder.max_concurrent = settings["max_concurrent"]
    node = submit(builder)
    while not node.is_terminated:
        time.sleep(1)
    common.stop_daemon(PROFILE)
    if not node.is_finished_ok:
        sys.exit(f"the labelling <{node.pk}> ended with status {node.exit_status}: {node.exit_message}")
    node.outputs.labelled.export(HERE / "test.xyz")
    common.say(f"{node.outputs.report['n_labelled']} of {len(frames)} frames have a label")


if __name__ == "__main__":
    main()
