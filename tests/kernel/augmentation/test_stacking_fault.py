"""Stacking faults: known stackings and energies, symmetry, and what is kept of the crystal."""

import itertools
import math

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from ase.calculators.emt import EMT
from ase.neighborlist import neighbor_list
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from aiida_alpot.kernel.augmentation.base import DroppedFrameError, NotApplicableError, Step
from aiida_alpot.kernel.augmentation.stacking_fault import StackingFaultSettings, make_stacking_faults
from aiida_alpot.kernel.geometry import closest_pair_ratio, nearest_neighbour_distance

pytest.importorskip("spglib")

COPPER = bulk("Cu", a=3.6)
PATH = {"planes": ((1, 1, 1),), "direction": (1, 1, -2), "min_width": 1.0}
"""A period along <112> is a/2[11-2]: the intrinsic fault lies at one third or at two thirds of it."""


def faults_of(atoms, **values):
    return [item for item in make_stacking_faults(atoms, StackingFaultSettings(**values)) if isinstance(item, Step)]


def energy_of(atoms, crystal):
    """Fault energy per area, mJ/m²."""
    energies = []
    for frame in (atoms.copy(), crystal.copy()):
        frame.calc = EMT()
        energies.append(frame.get_potential_energy() / len(frame))
    area = np.linalg.norm(np.cross(*atoms.cell[:2]))
    return (energies[0] - energies[1]) * len(atoms) / area * 16021.77


def stacking(atoms):
    """``f`` or ``h`` for each atom, upwards: all twelve neighbours have an opposite one in fcc, six in hcp."""
    reach = 1.1 * nearest_neighbour_distance(atoms)
    letters = []
    first, vectors = neighbor_list("iD", atoms, reach)
    for index in np.argsort(atoms.positions[:, 2]):
        around = vectors[first == index]
        sums = np.linalg.norm(around[:, None] + around[None], axis=-1)
        n_opposite = int((sums < 1e-6).any(axis=1).sum())
        letters.append({(12, 12): "f", (12, 6): "h"}[len(around), n_opposite])
    return "".join(letters)


@pytest.mark.parametrize("crystal", [COPPER, bulk("Cu", a=3.6, cubic=True), COPPER * (2, 1, 1)])
def test_shift_by_a_partial_gives_the_intrinsic_fault_of_fcc(crystal):
    faulted = [step for step in faults_of(crystal, n_points=3, **PATH) if closest_pair_ratio(step.atoms) > 0.96]
    (step,) = faulted
    length = np.linalg.norm(step.parameters["shift"]) * 3.6
    assert min(abs(length - times * 3.6 / math.sqrt(6)) for times in (1, 2)) < 1e-9
    layers = stacking(step.atoms)
    assert layers == "h" + "f" * (len(layers) - 2) + "h"  # hcp at the two sides of the fault


@pytest.mark.parametrize("element", ["Cu", "Ni", "Al", "Pd", "Ag"])
def test_intrinsic_fault_costs_little_and_its_barrier_and_the_on_top_fault_much_more(element):
    crystal = bulk(element)
    steps = faults_of(crystal, n_points=6, **PATH)
    energies = {round(step.parameters["shift"][0] * 12): energy_of(step.atoms, crystal) for step in steps}
    assert sorted(energies) == [1, 2, 3, 4, 5]
    partial, on_top = sorted((energies[2], energies[4]))
    assert abs(partial) < 0.1 * on_top
    assert partial < energies[3]
    barrier = max(energies[1], energies[5]) if energies[2] > energies[4] else energies[1]
    assert partial < barrier < on_top


def test_a_fault_between_free_surfaces_costs_what_it_costs_in_the_crystal():
    crystal = bulk("Cu", a=3.59)
    periodic = {tuple(s.parameters["shift"]): energy_of(s.atoms, crystal) for s in make_stacking_faults_of(crystal)}
    steps = make_stacking_faults_of(crystal, vacuum=9.0)
    assert {tuple(step.parameters["shift"]) for step in steps} == set(periodic)
    n_layers = len(steps[0].atoms)
    perfect = fcc111("Cu", (1, 1, n_layers), a=3.59, vacuum=4.5)
    perfect.calc = EMT()
    surfaces = perfect.get_potential_energy() - n_layers * energy_per_atom(crystal)
    for step in steps:
        atoms = step.atoms
        assert len(atoms) == n_layers
        assert atoms.pbc.tolist() == [True, True, False]
        assert atoms.cell[2][2] - np.ptp(atoms.positions[:, 2]) == pytest.approx(9.0)
        area = np.linalg.norm(np.cross(*atoms.cell[:2]))
        found = energy_of(atoms, crystal) - surfaces / area * 16021.77
        assert found == pytest.approx(periodic[tuple(step.parameters["shift"])], rel=0.02, abs=2.0)


def make_stacking_faults_of(crystal, **values):
    return faults_of(crystal, **{**PATH, "min_distance": 12.0, **values})


def energy_per_atom(crystal):
    atoms = crystal.copy()
    atoms.calc = EMT()
    return atoms.get_potential_energy() / len(atoms)


def test_a_slab_of_two_halves_keeps_the_cap_and_the_charge():
    sodium = bulk("NaCl", "rocksalt", a=5.6)
    sodium.info["charge"] = 1.0
    for step in faults_of(sodium, planes=((1, 0, 0),), vacuum=8.0, max_atoms=30, min_width=1.0):
        assert len(step.atoms) <= 30
        assert step.atoms.info["charge"] == pytest.approx(len(step.atoms) / 2)
        assert sorted(step.atoms.symbols) == ["Cl"] * (len(step.atoms) // 2) + ["Na"] * (len(step.atoms) // 2)
    reasons = make_stacking_faults(sodium, StackingFaultSettings(planes=((1, 0, 0),), vacuum=8.0, max_atoms=3))
    assert {str(reason) for reason in reasons} == {"above_max_atoms"}


def test_default_plane_has_the_widest_gap():
    expected = {"fcc": (COPPER, [1, 1, 1]), "bcc": (bulk("Fe"), [1, 1, 0]), "hcp": (bulk("Ti"), [0, 0, 1])}
    for crystal, plane in expected.values():
        assert {tuple(step.parameters["miller"]) for step in faults_of(crystal)} == {tuple(plane)}


def test_grid_holds_every_distinct_shift_once_and_never_the_perfect_crystal():
    steps = faults_of(COPPER, min_width=1.0)
    energies = [round(energy_of(step.atoms, COPPER), 3) for step in steps]
    assert len(steps) == 9  # of 35
    assert 0.0 not in energies
    layers = fcc111("Cu", (1, 1, 6), a=3.6, periodic=True)
    layers.cell[2, 2] = 6 * 3.6 / math.sqrt(3)
    by_hand = set()
    for i, j in itertools.product(range(6), repeat=2):
        shifted = layers.copy()
        shifted.cell[2] += (i * shifted.cell[0] + j * shifted.cell[1]) / 6
        by_hand.add(round(energy_of(shifted, COPPER), 3) + 0.0)
    assert by_hand == {0.0, *energies}


def test_glide_and_shuffle_set_of_diamond():
    made = list(make_stacking_faults(bulk("Si"), StackingFaultSettings(min_width=1.0)))
    steps = [item for item in made if isinstance(item, Step)]
    assert {step.parameters["cut"] for step in steps} == {1, 2}
    dropped = [item for item in made if isinstance(item, DroppedFrameError)]
    assert {str(item) for item in dropped} == {"close_contact"}
    assert len(dropped) > 0
    assert min(closest_pair_ratio(step.atoms) for step in steps) >= 0.6


def test_direction_outside_the_plane_is_named():
    values = StackingFaultSettings(planes=((1, 1, 1), (1, 1, 0)), direction=(1, 1, 0))
    assert {str(item) for item in make_stacking_faults(COPPER, values)} == {"direction_outside_plane"}


@pytest.mark.parametrize("max_atoms", [1, 2, 3, 20, 450])
def test_cap_is_never_exceeded_and_what_does_not_fit_is_named(max_atoms):
    for made in make_stacking_faults(COPPER, StackingFaultSettings(max_atoms=max_atoms)):
        if isinstance(made, Step):
            assert 2 <= len(made.atoms) <= max_atoms
        else:
            assert str(made) == "above_max_atoms"
            assert max_atoms == 1


def test_two_layers_do_not_become_the_perfect_crystal_again():
    # a fault after every layer of ABC stacking gives ACB stacking
    steps = faults_of(COPPER, n_points=3, max_atoms=2, **PATH)
    assert "hh" in [stacking(step.atoms) for step in steps if closest_pair_ratio(step.atoms) > 0.96]


def test_slab_is_no_crystal():
    with pytest.raises(NotApplicableError, match="not_a_crystal"):
        next(make_stacking_faults(fcc111("Cu", (1, 1, 3), vacuum=5.0), StackingFaultSettings()))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), n_atoms=st.integers(1, 5), plane=st.tuples(*[st.integers(-2, 2)] * 3))
def test_atoms_density_composition_and_periodicity_are_kept(seed, n_atoms, plane):
    assume(any(plane))
    rng = np.random.default_rng(seed)
    cell = np.diag(rng.uniform(2.5, 6.0, 3)) + rng.uniform(-1.0, 1.0, (3, 3))
    atoms = Atoms(rng.choice([8, 12], n_atoms), rng.uniform(0.0, 6.0, (n_atoms, 3)), cell=cell, pbc=True)
    assume(nearest_neighbour_distance(atoms) > 0.3)
    atoms.info["charge"] = 0.5 * n_atoms
    values = StackingFaultSettings(planes=(plane,), n_points=2, min_width=5.0, max_atoms=100, min_ratio=0.0)
    made, again = (list(make_stacking_faults(atoms, values)) for _ in range(2))
    assert 1 <= len(made) <= 6
    for step, same in zip(made, again, strict=True):
        faulted = step.atoms
        assert faulted.positions.tobytes() == same.atoms.positions.tobytes()
        assert len(faulted) <= 100
        assert faulted.pbc.all()
        assert faulted.get_volume() / len(faulted) == pytest.approx(atoms.get_volume() / n_atoms)
        assert faulted.info["charge"] == pytest.approx(0.5 * len(faulted))
        counts = [np.bincount(frame.numbers, minlength=13) for frame in (faulted, atoms)]
        assert (counts[0] * n_atoms == counts[1] * len(faulted)).all()


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("planes", {"planes": ((0, 0, 0),)}),
        ("direction", {"planes": ((1, 1, 1),), "direction": (0, 0, 0)}),
        ("direction", {"direction": (1, 1, -2)}),
        ("n_points", {"n_points": 1}),
        ("max_cuts", {"max_cuts": 0}),
        ("min_distance", {"min_distance": 0.0}),
        ("min_ratio", {"min_ratio": 1.0}),
        ("max_atoms", {"max_atoms": 0}),
    ],
)
def test_settings_out_of_range_are_named(name, values):
    with pytest.raises(ValueError, match=f"'{name}'"):
        StackingFaultSettings(**values)
