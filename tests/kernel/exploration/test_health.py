import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from aiida_alpot.kernel.exploration import HealthSettings, check_health

LIMITS = HealthSettings()


def check(atoms, start=None, forces=None, temperature=300.0, target=300.0, limits=LIMITS):
    forces = np.zeros((len(atoms), 3)) if forces is None else forces
    return check_health(atoms, atoms if start is None else start, forces, temperature, target, limits)


@pytest.mark.parametrize("name", ["H2", "H2O", "CH3CH2OH", "C60"])
def test_molecules_at_rest_are_healthy(name):
    assert check(molecule(name)) is None


def test_atoms_that_overlap_are_named():
    atoms = molecule("H2O")
    atoms.positions[1] = atoms.positions[0] + [0.0, 0.0, 0.3]
    assert "atoms 0 and 1 are 0.3 Å apart" in check(atoms, molecule("H2O"))


def test_overlap_with_the_own_periodic_image_is_seen():
    start = Atoms("Cu", cell=[2.6] * 3, pbc=True)
    atoms = Atoms("Cu", cell=[2.6, 2.6, 1.2], pbc=True)
    assert "min_pair_ratio" in check(atoms, start, limits=HealthSettings(min_volume_ratio=0.1))


@pytest.mark.parametrize("factors", [(1.5, 1.5, 1.5), (0.5, 0.6, 0.6), (0.1, 3.0, 3.0)])
def test_volume_and_lengths_out_of_bounds_are_seen(factors, crystal):
    atoms = crystal.copy()
    atoms.set_cell(atoms.cell.array * factors, scale_atoms=True)
    assert "times that of the start" in check(atoms, crystal)


def test_the_vacuum_of_a_slab_has_no_limit(crystal):
    start = crystal.copy()
    start.pbc = (True, True, False)
    start.cell[2] = 0.0
    assert check(start, start) is None


@pytest.mark.parametrize(
    ("temperature", "target", "sick"),
    [(4900.0, 0.0, False), (5100.0, 0.0, True), (9000.0, 2000.0, False), (np.nan, 0.0, True)],
)
def test_the_temperature_limit_is_a_ratio_with_a_floor(crystal, temperature, target, sick):
    assert (check(crystal, temperature=temperature, target=target) is not None) is sick


def test_large_and_undefined_forces_and_positions_are_seen(crystal):
    forces = np.zeros((4, 3))
    forces[2, 1] = 60.0
    assert "max_force" in check(crystal, forces=forces)
    forces[2, 1] = np.nan
    assert "force is not finite" in check(crystal, forces=forces)
    broken = crystal.copy()
    broken.positions[0, 0] = np.inf
    assert "position" in check(broken, crystal)


def test_an_atom_that_left_its_molecule_has_escaped_but_one_that_was_alone_has_not():
    atoms = molecule("CH4")
    atoms.positions[4] += 20.0
    assert "atom 4 escaped" in check(atoms, molecule("CH4"))
    assert check(atoms, atoms) is None
    assert check(atoms, molecule("CH4"), limits=HealthSettings(max_isolation=None)) is None
    assert check(Atoms("Ar")) is None
