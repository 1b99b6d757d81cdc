"""Vacuum: enough of it along the normal, never less than before, and only where the frame is open."""

import contextlib
import itertools

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, graphene, molecule
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from aiida_alpot.kernel.augmentation.base import NotApplicableError
from aiida_alpot.kernel.augmentation.vacuum import VacuumSettings, make_vacuum, vacuum_thickness
from aiida_alpot.kernel.geometry import perpendicular_heights


def padded(atoms, thickness=15.0):
    return make_vacuum(atoms, VacuumSettings(thickness)).atoms


def test_thin_vacuum_of_a_slab_is_widened_to_the_default():
    slab = fcc111("Cu", (2, 2, 3), vacuum=2.0)
    wider = padded(slab)
    assert wider.cell[2] == pytest.approx([0.0, 0.0, np.ptp(slab.positions[:, 2]) + 15.0])
    assert wider.cell[:2] == pytest.approx(slab.cell[:2])
    assert wider.pbc.tolist() == [True, True, False]
    assert np.ptp(wider.positions - slab.positions, axis=0) == pytest.approx(np.zeros(3))
    assert wider.positions[:, 2].min() == pytest.approx(7.5)


def test_larger_vacuum_is_never_shrunk():
    with pytest.raises(NotApplicableError, match="enough_vacuum"):
        make_vacuum(fcc111("Cu", (1, 1, 3), vacuum=20.0), VacuumSettings())


def test_layered_crystal_stays_a_crystal():
    graphite = Atoms("C4", cell=[2.46, 2.46, 6.71, 90, 90, 120], pbc=True)
    graphite.set_scaled_positions([[0, 0, 0.25], [0, 0, 0.75], [1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]])
    for crystal in (graphite, bulk("Cu"), graphene(vacuum=10.0) * (1, 1, 1)):
        crystal.pbc = True
        with pytest.raises(NotApplicableError, match="all_axes_periodic"):
            make_vacuum(crystal, VacuumSettings())


def test_molecule_without_a_cell_gets_one_and_keeps_its_shape():
    water = molecule("H2O")
    boxed = padded(water, 10.0)
    assert boxed.cell.array == pytest.approx(np.diag(np.ptp(water.positions, axis=0) + 10.0))
    assert not boxed.pbc.any()
    assert boxed.get_all_distances() == pytest.approx(water.get_all_distances())
    assert boxed.positions.min(axis=0) + boxed.positions.max(axis=0) == pytest.approx(boxed.cell.lengths())


def test_single_atom_gets_a_box_of_the_vacuum():
    assert padded(Atoms("H"), 12.0).cell.array == pytest.approx(12.0 * np.eye(3))


def test_sheet_without_a_third_vector_gets_one():
    sheet = graphene()
    sheet.cell[2] = 0.0
    assert padded(sheet).cell[2] == pytest.approx([0.0, 0.0, 15.0])


def test_vacuum_of_a_tilted_cell_is_measured_along_the_normal():
    # 20 Å long, but only 10 Å high
    slab = Atoms("H", cell=[[3, 0, 0], [0, 3, 0], [0, np.sqrt(300.0), 10.0]], pbc=[True, True, False])
    assert padded(slab).cell[2] == pytest.approx([0.0, 0.0, 15.0])


def test_moments_columns_and_info_stay():
    slab = fcc111("Fe", (1, 1, 3), a=3.6, vacuum=1.0)
    slab.set_initial_magnetic_moments([1.0, 2.0, 3.0])
    slab.info["charge"] = -1.0
    wider = padded(slab)
    assert wider.get_initial_magnetic_moments().tolist() == [1.0, 2.0, 3.0]
    assert wider.info["charge"] == -1.0
    assert (wider.get_tags() == slab.get_tags()).all()


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 100_000),
    n_atoms=st.integers(1, 20),
    pbc=st.sampled_from([item for item in itertools.product([True, False], repeat=3) if not all(item)]),
    absent=st.sets(st.integers(0, 2)),
    thickness=st.floats(0.5, 30.0),
)
def test_every_open_axis_ends_with_enough_vacuum(seed, n_atoms, pbc, absent, thickness):
    rng = np.random.default_rng(seed)
    cell = np.diag(rng.uniform(1.0, 30.0, 3)) + rng.uniform(-8.0, 8.0, (3, 3))
    for axis in absent:
        if not pbc[axis]:
            cell[axis] = 0.0
    present = cell[cell.any(axis=1)]
    assume(len(present) == 0 or np.linalg.svd(present)[1].min() > 0.3)
    atoms = Atoms(f"H{n_atoms}", rng.uniform(-5.0, 15.0, (n_atoms, 3)), cell=cell, pbc=pbc)
    after = atoms
    with contextlib.suppress(NotApplicableError):
        after = padded(atoms, thickness)
    assert after.pbc.tolist() == list(pbc)
    is_open = ~np.array(pbc)
    assert after.cell.array.any(axis=1).all()
    assert after.cell.array[~is_open] == pytest.approx(cell[~is_open])
    assert vacuum_thickness(after.cell.array, after)[is_open].min() >= thickness - 1e-5
    assert after.get_all_distances() == pytest.approx(atoms.get_all_distances(), abs=1e-9)
    if cell.any(axis=1).all():
        everywhere = np.ones(3, dtype=bool)
        before = perpendicular_heights(cell, everywhere)
        assert (perpendicular_heights(after.cell.array, everywhere) >= before - 1e-6).all()
        assert np.sign(np.linalg.det(after.cell.array)) == np.sign(np.linalg.det(cell))
    with pytest.raises(NotApplicableError, match="enough_vacuum"):
        make_vacuum(after, VacuumSettings(thickness))


@pytest.mark.parametrize("thickness", [0.0, -1.0, 2000.0, float("nan")])
def test_settings_out_of_range_are_named(thickness):
    with pytest.raises(ValueError, match="'thickness'"):
        VacuumSettings(thickness)
