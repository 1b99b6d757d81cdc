import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms

from aiida_alpot.kernel.exploration import LangevinIntegrator
from aiida_alpot.kernel.units import KB


class Springs(Calculator):
    """Independent harmonic oscillators, eV/Å²; the exact distribution of positions is known."""

    implemented_properties = ("energy", "forces")

    def __init__(self, k, centre):
        super().__init__()
        self.k, self.centre = k, centre

    def calculate(self, atoms=None, properties=(), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        u = self.atoms.positions - self.centre
        self.results = {"energy": 0.5 * self.k * np.sum(u**2), "forces": -self.k * u}


def integrator(atoms, temperature=300.0, seed=1, **values):
    rng = np.random.default_rng(seed)
    return LangevinIntegrator(
        atoms, **{"timestep": 2.0, "friction": 0.02, "rng": rng, **values, "temperature": temperature}
    )


def test_a_cluster_of_nine_atoms_has_the_temperature_that_was_asked_for(crystal, tools):
    # ASE's Langevin with fixcm=True gives 394 K here
    atoms = Atoms((crystal * (2, 2, 1))[:9], pbc=False)
    atoms.calc = EMT()
    dynamics = integrator(atoms)
    temperatures = []
    for step in range(6000):
        dynamics.step()
        if step >= 500:
            temperatures.append(dynamics.temperature)
    mean, error = tools.block_average(temperatures)
    assert error < 15.0
    assert abs(mean - 300.0) < 3.0 * error


def test_harmonic_positions_follow_boltzmann_at_any_stable_time_step(tools):
    # BAOAB samples harmonic positions exactly, J. Chem. Phys. 138, 174102 (2013)
    atoms = Atoms("Ar16", positions=np.zeros((16, 3)))
    atoms.calc = Springs(1.0, 0.0)
    dynamics = integrator(atoms, 500.0, timestep=60.0, friction=0.005)
    spread = []
    for _ in range(20000):
        dynamics.step()
        spread.append(np.mean(atoms.positions**2))
    mean, error = tools.block_average(spread[200:])
    assert error < 0.01 * KB * 500.0
    assert abs(mean - KB * 500.0) < 3.0 * error


def test_energy_is_conserved_without_friction_and_to_second_order(cluster):
    spreads = []
    for timestep in (2.0, 4.0):
        atoms = cluster.copy()
        atoms.calc = EMT()
        dynamics = integrator(atoms, friction=0.0, timestep=timestep)
        energies = []
        for _ in range(int(800 / timestep)):
            dynamics.step()
            energies.append(atoms.get_potential_energy() + dynamics.kinetic_energy)
        spreads.append(np.std(energies))
    assert spreads[0] < 1e-4 * len(cluster)
    assert spreads[1] / spreads[0] == pytest.approx(4.0, rel=0.3)


def test_zero_kelvin_starts_at_rest_and_cools_to_the_minimum(cluster):
    atoms = cluster.copy()
    atoms.rattle(0.1, seed=1)
    atoms.calc = EMT()
    start = atoms.get_potential_energy()
    dynamics = integrator(atoms, 0.0)
    assert dynamics.temperature == 0.0
    for _ in range(1000):
        dynamics.step()
    assert atoms.get_potential_energy() < start
    assert dynamics.temperature < 1.0
    assert np.abs(dynamics.forces).max() < 0.1


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(cluster):
    positions = []
    for seed in (1, 1, 2):
        atoms = cluster.copy()
        atoms.calc = EMT()
        dynamics = integrator(atoms, seed=seed)
        for _ in range(20):
            dynamics.step()
        positions.append(atoms.positions.copy())
    assert np.array_equal(positions[0], positions[1])
    assert not np.allclose(positions[0], positions[2])


def test_constraints_of_the_frame_do_not_hold_atoms(cluster):
    atoms = cluster.copy()
    atoms.set_constraint(FixAtoms([0]))
    atoms.calc = EMT()
    dynamics = integrator(atoms)
    dynamics.step()
    assert not np.allclose(atoms.positions[0], cluster.positions[0], atol=1e-6)
