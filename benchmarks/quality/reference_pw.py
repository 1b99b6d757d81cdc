"""Labels of pw.x: real SCF runs, converged, stopped early, or with too low a cut-off."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator

PSEUDO_DIR = Path("/usr/share/espresso/pseudo")
"""Debian's package quantum-espresso-data."""
PSEUDOS = {"Al": "Al.pz-vbc.UPF", "Mg": "Mg.pz-n-vbc.UPF"}
INPUT = """&control
calculation='scf', pseudo_dir='{pseudo}', outdir='./out', tprnfor=.true., tstress=.true., disk_io='none'
/
&system
ibrav=0, nat={n_atoms}, ntyp={n_species}, ecutwfc={cutoff}, nosym=.true.,
occupations='smearing', smearing='mv', degauss=0.05
/
&electrons
conv_thr=1e-8, electron_maxstep={max_steps}, scf_must_converge=.false.
/
ATOMIC_SPECIES
{species}
K_POINTS automatic
1 2 2 1 1 1
CELL_PARAMETERS angstrom
{cell}
ATOMIC_POSITIONS angstrom
{positions}
"""


def label_pw(atoms: Atoms, cutoff: float = 12.0, max_steps: int = 100) -> Atoms:
    """Return a copy with the energy that the forces derive from (E − TS), forces and stress.

    :param cutoff: of the wave functions, Ry. 12 Ry is low for production; frames and corruptions share it.
    :param max_steps: electronic steps after which the labels are taken as they are.
    """
    species = sorted(set(atoms.symbols))
    text = INPUT.format(
        pseudo=PSEUDO_DIR,
        n_atoms=len(atoms),
        n_species=len(species),
        cutoff=cutoff,
        max_steps=max_steps,
        species="\n".join(f"{symbol} 1.0 {PSEUDOS[symbol]}" for symbol in species),
        cell="\n".join(" ".join(f"{x:.10f}" for x in vector) for vector in atoms.cell.array),
        positions="\n".join(
            f"{symbol} " + " ".join(f"{x:.10f}" for x in position)
            for symbol, position in zip(atoms.symbols, atoms.positions, strict=True)
        ),
    )
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(["pw.x"], input=text, capture_output=True, text=True, cwd=folder, check=False)
    labelled = atoms.copy()
    labelled.calc = SinglePointCalculator(labelled, **_parse(done.stdout, len(atoms)))
    return labelled


def _parse(text: str, n_atoms: int) -> dict[str, object]:
    energies = re.findall(r"total energy\s+=\s+(-?\d+\.\d+) Ry", text)
    forces = re.findall(r"atom +\d+ type +\d+ +force = +(\S+) +(\S+) +(\S+)", text)[:n_atoms]
    block = text[text.index("total   stress") :].splitlines()[1:4]
    stress = np.array([[float(word) for word in line.split()[:3]] for line in block])
    bohr_force = units.Ry / units.Bohr
    full = -stress * units.Ry / units.Bohr**3  # pw.x: positive in compression
    return {
        "energy": float(energies[-1]) * units.Ry,
        "forces": np.array(forces, dtype=float) * bohr_force,
        "stress": full[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]],
    }
