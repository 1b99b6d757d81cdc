"""Real electronic-structure codes: CI fails without them, elsewhere their tests are skipped by name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from aiida import orm
from ase import Atoms

PSEUDOS = Path("/usr/share/espresso/pseudo")
"""Of Debian's package quantum-espresso-data."""
FAMILY = {
    "Si": ("Si.pz-vbc.UPF", 16.0, 64.0),
    "C": ("C.pz-rrkjus.UPF", 24.0, 160.0),
    "Al": ("Al.pz-vbc.UPF", 15.0, 60.0),
    "O": ("O.pz-rrkjus.UPF", 25.0, 200.0),
}
"""File and cut-offs in Ry: LDA, cheap and far from converged, which a test does not need."""


def find_program(name: str, package: str) -> str:
    """Return the path of a program; without it the test is skipped, and fails in CI."""
    path = shutil.which(name)
    return path if path is not None else give_up(f"{name} is not installed (Debian: apt-get install {package})")


def give_up(message: str) -> NoReturn:
    """Skip the test, and fail it in CI."""
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture
def program() -> Callable[..., str]:
    """Return a function that finds a program of Debian's packages: ``program("pw.x")``."""
    packages = {"pw.x": "quantum-espresso", "cp2k.psmp": "cp2k"}
    return lambda name: find_program(name, packages[name])


@pytest.fixture
def pw_code(localhost: orm.Computer) -> orm.InstalledCode:
    """pw.x on this machine."""
    path = find_program("pw.x", "quantum-espresso")
    return _code("pw", path, "quantumespresso.pw", localhost)


@pytest.fixture
def cp2k_code(localhost: orm.Computer) -> orm.InstalledCode:
    """CP2K on this machine."""
    path = find_program("cp2k.psmp", "cp2k cp2k-data")
    return _code("cp2k", path, "cp2k", localhost)


@pytest.fixture
def pseudo_family(aiida_profile: Any, tmp_path: Path) -> str:
    """An installed family of pseudopotentials with recommended cut-offs, from files of this machine."""
    from aiida_pseudo.data.pseudo import UpfData
    from aiida_pseudo.groups.family import CutoffsPseudoPotentialFamily

    label = "LDA-cheap"
    if orm.QueryBuilder().append(orm.Group, filters={"label": label}).count():
        return label
    missing = [name for name, _, _ in FAMILY.values() if not (PSEUDOS / name).is_file()]
    if missing:
        give_up(f"{PSEUDOS / missing[0]} is missing (Debian: apt-get install quantum-espresso-data)")
    folder = tmp_path / "pseudos"
    folder.mkdir()
    for element, (name, _, _) in FAMILY.items():
        shutil.copy(PSEUDOS / name, folder / f"{element}.UPF")
    family = CutoffsPseudoPotentialFamily.create_from_folder(folder, label, pseudo_type=UpfData)
    cutoffs = {
        element: {"cutoff_wfc": wavefunction, "cutoff_rho": density}
        for element, (_, wavefunction, density) in FAMILY.items()
    }
    family.set_cutoffs(cutoffs, "normal", unit="Ry")
    return label


@pytest.fixture
def vasp_family(aiida_profile: Any) -> str:
    """A family of POTCARs without potentials, which the mock does not read."""
    pytest.importorskip("aiida_vasp")
    from aiida_vasp.data.potcar import PotcarData

    label = "stubs"
    if PotcarData.get_potcar_group(label) is None:
        folder = Path(__file__).parent / "vasp" / "potcar"
        PotcarData.upload_potcar_family(str(folder), label, "without potentials", stop_if_existing=False)
    return label


@pytest.fixture
def serial_options() -> dict[str, Any]:
    """Scheduler options of a job with one process and without MPI."""
    resources = {"num_machines": 1, "num_mpiprocs_per_machine": 1}
    return {"resources": resources, "max_wallclock_seconds": 600, "withmpi": False}


def _code(label: str, path: str, plugin: str, computer: orm.Computer, prepend: str = "") -> orm.InstalledCode:
    known = orm.QueryBuilder().append(orm.InstalledCode, filters={"label": label}).first(flat=True)
    if known is not None:
        return known
    code = orm.InstalledCode(label=label, computer=computer, filepath_executable=path, default_calc_job_plugin=plugin)
    code.prepend_text = f"export OMP_NUM_THREADS=1\n{prepend}"
    return code.store()


@pytest.fixture
def code_of(localhost: orm.Computer) -> Callable[..., orm.InstalledCode]:
    """Return a function that makes a code of any executable: ``code_of("false", "/bin/false", plugin)``."""
    return lambda label, path, plugin, prepend="": _code(label, path, plugin, localhost, prepend)


class Derivatives:
    """Forces and stress of a code against differences of its energy."""

    STEP = 0.02
    """Å that the first atom is moved, and size of the strain."""
    DIRECTION = np.array([1.0, 2.0, -1.0]) / np.sqrt(6)
    STRAIN = np.array([[0.6, 0.3, 0.0], [0.3, -0.2, 0.1], [0.0, 0.1, 0.5]])

    def frames(self, atoms: Atoms) -> list[Atoms]:
        """Return a frame, it with its first atom moved both ways, and if it is periodic it strained both ways."""
        moved, strained = [], []
        for step in (self.STEP, -self.STEP):
            moved.append(atoms.copy())
            moved[-1].positions[0] += step * self.DIRECTION
            if all(atoms.pbc):
                strained.append(atoms.copy())
                strained[-1].set_cell(atoms.cell.array @ (np.eye(3) + step * self.STRAIN), scale_atoms=True)
        return [atoms, *moved, *strained]

    def check(self, frames: Sequence[Atoms], force_tolerance: float, stress_tolerance: float = 0.0) -> None:
        """Compare the labels of :meth:`frames`, eV/Å and eV/Å³."""
        atoms, (plus, minus, *strained) = frames[0], [frame.get_potential_energy() for frame in frames[1:]]
        force = -(plus - minus) / (2 * self.STEP)
        assert atoms.get_forces()[0] @ self.DIRECTION == pytest.approx(force, abs=force_tolerance)
        if strained:
            stress = (strained[0] - strained[1]) / (2 * self.STEP * atoms.get_volume())
            found = np.sum(atoms.get_stress(voigt=False) * self.STRAIN)
            assert found == pytest.approx(stress, abs=stress_tolerance)


@pytest.fixture
def derivatives() -> Derivatives:
    """Return the check of forces and stress."""
    return Derivatives()
