import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from scipy.optimize import brentq

from aiida_alpot.kernel.exploration import LangevinIntegrator, MaskedBarostat
from aiida_alpot.kernel.units import GPA, KB


class IdealGas(Calculator):
    implemented_properties = ("energy", "forces", "stress")

    def calculate(self, atoms=None, properties=(), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": 0.0, "forces": np.zeros((len(atoms), 3)), "stress": np.zeros(6)}


def npt(atoms, pressure, temperature, *, timestep=2.0, every=5, friction=0.01, seed=1, **values):
    rng = np.random.default_rng(seed)
    options = {"time": 500.0, "interval": every * timestep, **values}
    barostat = MaskedBarostat(atoms, pressure=pressure, temperature=temperature, rng=rng, **options)
    dynamics = LangevinIntegrator(
        atoms,
        timestep=timestep,
        temperature=temperature,
        friction=friction,
        rng=rng,
        barostat=barostat,
        barostat_every=every,
    )
    return dynamics, barostat


@pytest.mark.parametrize(
    ("pbc", "isotropic"), [((1, 1, 1), False), ((1, 1, 1), True), ((1, 1, 0), False), ((0, 0, 1), False)]
)
def test_an_ideal_gas_has_its_exact_volume_and_fluctuation(pbc, isotropic, tools):
    # V^N V exp(-PV/kT) dlnV: Gamma distribution with N + 1, whatever the number of axes and the shape of the cell
    n_atoms, temperature, pressure = 6, 500.0, 0.05
    expected = (n_atoms + 1) * KB * temperature / (pressure * GPA)
    cell = expected ** (1 / 3) * np.array([[1.0, 0.0, 0.0], [0.3, 1.0, 0.0], [0.1, -0.2, 1.0]])
    atoms = Atoms(f"Ar{n_atoms}", cell=cell, pbc=pbc)
    atoms.set_scaled_positions(np.random.default_rng(0).random((n_atoms, 3)))
    atoms.calc = IdealGas()
    options = {"timestep": 50.0, "every": 1, "friction": 0.005, "time": 1500.0, "bulk_modulus": pressure}
    dynamics, _ = npt(atoms, pressure, temperature, isotropic=isotropic, **options)
    volumes, temperatures = [], []
    for _ in range(8000):
        dynamics.step()
        volumes.append(atoms.cell.volume / expected)
        temperatures.append(dynamics.temperature)
    mean, error = tools.block_average(volumes)
    assert error < 0.04
    assert abs(mean - 1.0) < 3.0 * error
    variance, error = tools.block_average((np.array(volumes) - 1.0) ** 2 * (n_atoms + 1))
    assert abs(variance - 1.0) < 3.0 * error + 0.06
    mean, error = tools.block_average(temperatures)
    assert abs(mean - temperature) < 3.0 * error


def static_lattice_constant(pressure):
    def excess(a):
        atoms = bulk("Cu", "fcc", a=a, cubic=True)
        atoms.calc = EMT()
        return -atoms.get_stress()[:3].mean() / GPA - pressure

    return brentq(excess, 3.4, 3.8, xtol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("pressure", [-0.5, 0.0, 0.5])
def test_mean_volume_of_copper_is_that_of_its_equation_of_state(pressure, crystal, tools):
    """At 50 K: the static equation of state plus the thermal pressure of an NVT run in the static cell."""
    temperature, n_steps, n_atoms = 50.0, 5000, 8
    a = static_lattice_constant(pressure)
    fixed = bulk("Cu", "fcc", a=a, cubic=True) * (2, 1, 1)
    fixed.calc = EMT()
    rng = np.random.default_rng(5)
    dynamics = LangevinIntegrator(fixed, timestep=2.0, temperature=temperature, friction=0.01, rng=rng)
    thermal = []
    for _ in range(n_steps):
        dynamics.step()
        virial = -fixed.get_stress()[:3].mean() * fixed.cell.volume
        thermal.append((2.0 / 3.0 * dynamics.kinetic_energy + virial) / fixed.cell.volume / GPA - pressure)
    p_thermal, p_error = tools.block_average(thermal[500:])
    slope = (static_lattice_constant(pressure + 0.1) ** 3 - a**3) / 4 / 0.1
    expected, expected_error = a**3 / 4 - slope * p_thermal, abs(slope) * p_error

    atoms = crystal * (2, 1, 1)
    atoms.calc = EMT()
    dynamics, _ = npt(atoms, pressure, temperature, isotropic=True, bulk_modulus=130.0)
    volumes, temperatures = [], []
    for _ in range(2 * n_steps):
        dynamics.step()
        volumes.append(atoms.cell.volume / n_atoms)
        temperatures.append(dynamics.temperature)
    volume, error = tools.block_average(volumes[2000:])
    assert error < 2e-3 * volume
    assert abs(volume - expected) < 3.0 * np.hypot(error, expected_error)
    mean, error = tools.block_average(temperatures[2000:])
    assert abs(mean - temperature) < 3.0 * error


def test_the_generalised_force_is_the_derivative_of_the_enthalpy():
    """Central difference of K + U + PV along each cell vector of a skewed cell, positions and momenta moved with it."""
    pressure, step = 2.0, 1e-5
    atoms = bulk("Cu", "fcc", a=3.7) * (2, 1, 1)
    atoms.set_cell(
        atoms.cell.array @ np.array([[1.0, 0.1, 0.0], [0.0, 1.05, 0.02], [0.0, 0.0, 0.97]]), scale_atoms=True
    )
    atoms.rattle(0.1, seed=1)
    atoms.calc = EMT()
    velocities = np.random.default_rng(2).normal(scale=0.02, size=(2, 3))
    barostat = MaskedBarostat(
        atoms, pressure=pressure, temperature=0.0, time=1.0, interval=1.0, rng=np.random.default_rng(0)
    )

    def enthalpy(axis, strain):
        moved = atoms.copy()
        moved.calc = EMT()
        v = barostat._scale(moved, velocities, strain * np.eye(3)[axis])
        kinetic = 0.5 * np.sum(moved.get_masses()[:, None] * v**2)
        return kinetic + moved.get_potential_energy() + pressure * GPA * moved.cell.volume

    numerical = [-(enthalpy(axis, step) - enthalpy(axis, -step)) / (2 * step) for axis in range(3)]
    assert np.allclose(barostat.force(atoms, velocities), numerical, rtol=1e-6, atol=1e-7)


def slab():
    atoms = fcc111("Cu", (2, 2, 3), a=3.6, vacuum=6.0)
    atoms.pbc = (True, True, False)
    return atoms


def wire():
    atoms = bulk("Cu", "fcc", a=3.6, cubic=True) * (1, 1, 2)
    atoms.pbc = (False, False, True)
    return atoms


@pytest.mark.parametrize("frame", [slab(), wire()])
@pytest.mark.parametrize("isotropic", [False, True])
def test_only_periodic_cell_vectors_move_and_the_others_keep_their_bits(frame, isotropic):
    atoms = frame.copy()
    atoms.calc = EMT()
    dynamics, _ = npt(atoms, 1.0, 300.0, isotropic=isotropic)
    for _ in range(50):
        dynamics.step()
    free = ~frame.pbc
    assert np.array_equal(atoms.cell.array[free], frame.cell.array[free])
    assert not np.isclose(atoms.cell.lengths()[frame.pbc], frame.cell.lengths()[frame.pbc], rtol=1e-9).any()
    assert np.allclose(atoms.cell.angles(), frame.cell.angles())


def test_the_move_is_affine_and_keeps_phase_space_volume(crystal):
    atoms = crystal.copy()
    atoms.rattle(0.1, seed=1)
    scaled = atoms.cell.scaled_positions(atoms.positions)
    barostat = MaskedBarostat(
        atoms, pressure=0.0, temperature=0.0, time=1.0, interval=1.0, rng=np.random.default_rng(0)
    )
    velocities = np.random.default_rng(1).normal(size=(4, 3))
    moved = barostat._scale(atoms, velocities, np.array([0.1, -0.2, 0.05]))
    assert np.allclose(atoms.cell.scaled_positions(atoms.positions), scaled)
    assert np.allclose(atoms.cell.lengths() / crystal.cell.lengths(), np.exp([0.1, -0.2, 0.05]))
    assert np.allclose(moved / velocities, np.exp([-0.1, 0.2, -0.05]))


def test_at_zero_kelvin_the_cell_relaxes_to_the_pressure(crystal):
    atoms = crystal.copy()
    atoms.set_cell(atoms.cell.array * [1.03, 0.98, 1.0], scale_atoms=True)
    atoms.calc = EMT()
    dynamics, _ = npt(atoms, 0.5, 0.0, time=100.0)
    for _ in range(1500):
        dynamics.step()
    assert np.allclose(atoms.get_stress()[:3] / GPA, -0.5, atol=0.01)
    assert atoms.cell.lengths() == pytest.approx([static_lattice_constant(0.5)] * 3, rel=1e-4)


@pytest.mark.parametrize("atoms", [Atoms("Cu", cell=[5, 5, 5]), Atoms("Cu", cell=[5, 5, 0], pbc=(1, 1, 0))])
def test_a_frame_without_stress_is_refused(atoms):
    with pytest.raises(ValueError, match="periodic axis"):
        MaskedBarostat(atoms, pressure=0.0, temperature=0.0, time=1.0, interval=1.0, rng=np.random.default_rng(0))


def test_a_stress_that_explodes_raises_instead_of_overflowing(crystal):
    atoms = crystal.copy()
    atoms.calc = IdealGas()
    barostat = MaskedBarostat(
        atoms, pressure=1e12, temperature=0.0, time=1.0, interval=1.0, rng=np.random.default_rng(0)
    )
    with pytest.raises(FloatingPointError, match="strain the cell"):
        barostat.move(atoms, np.zeros((4, 3)))
