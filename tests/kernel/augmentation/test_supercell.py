"""Supercells: heights, caps and slabs."""

import itertools

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule

from aiida_alpot.kernel.augmentation import NotApplicableError, SupercellSettings, make_supercell, supercell_repeats
from aiida_alpot.kernel.geometry import nearest_neighbour_distance, perpendicular_heights


def test_heights_and_not_vector_lengths_reach_the_minimum():
    # by vector length the same cell ends at 18.8/16.7/12.5 Å or so
    atoms = make_supercell(bulk("Cu"), SupercellSettings(max_atoms=10_000)).atoms
    assert (perpendicular_heights(atoms.cell) >= 18.0).all()


def test_repeats_are_the_fewest_that_suffice():
    cubic = bulk("Cu", cubic=True, a=4.0)
    assert supercell_repeats(cubic, SupercellSettings(min_length=12.0)).tolist() == [3, 3, 3]
    assert supercell_repeats(cubic, SupercellSettings(min_length=12.1, max_atoms=1000)).tolist() == [4, 4, 4]


def test_cap_takes_repeats_from_the_axis_that_keeps_most():
    atoms = Atoms("H", cell=[2.0, 3.0, 7.0], pbc=True)
    settings = SupercellSettings(min_length=12.0, max_atoms=30)
    assert supercell_repeats(atoms, SupercellSettings(min_length=12.0)).tolist() == [6, 4, 2]
    assert supercell_repeats(atoms, settings).tolist() == [5, 3, 2]


@pytest.mark.parametrize("max_atoms", [1, 3, 10, 50, 450])
@pytest.mark.parametrize("base", [bulk("Cu"), bulk("Si"), fcc111("Cu", (1, 1, 3), vacuum=7.0)])
def test_cap_is_never_exceeded_by_repeating(base, max_atoms):
    repeats = supercell_repeats(base, SupercellSettings(max_atoms=max_atoms))
    assert len(base) * repeats.prod() <= max(max_atoms, len(base))


def test_cell_above_the_cap_is_kept_and_reported():
    base = bulk("Cu", cubic=True)
    with pytest.raises(NotApplicableError, match="above_max_atoms"):
        make_supercell(base, SupercellSettings(max_atoms=3))


def test_slab_grows_in_its_plane_only_and_obeys_the_cap():
    slab = fcc111("Cu", (1, 1, 4), vacuum=7.0)
    larger = make_supercell(slab, SupercellSettings(max_atoms=100)).atoms
    assert len(larger) <= 100
    assert larger.cell[2] == pytest.approx(slab.cell[2])
    assert np.ptp(larger.positions[:, 2]) == pytest.approx(np.ptp(slab.positions[:, 2]))


def test_slab_with_a_zero_vacuum_vector_is_repeated():
    slab = fcc111("Cu", (1, 1, 2))
    assert not slab.cell[2].any()
    larger = make_supercell(slab, SupercellSettings(min_length=10.0)).atoms
    assert len(larger) > 2
    assert not larger.cell[2].any()


def test_molecule_is_left_alone():
    with pytest.raises(NotApplicableError, match="no_periodic_axis"):
        make_supercell(molecule("H2O"), SupercellSettings())


@pytest.mark.parametrize("shape", ["diagonal", "compact"])
def test_a_cell_that_the_cap_keeps_narrow_is_not_called_large(shape):
    with pytest.raises(NotApplicableError, match="above_max_atoms"):
        make_supercell(bulk("Cu", cubic=True), SupercellSettings(min_length=18.0, max_atoms=6, shape=shape))


def test_supercell_is_the_same_crystal_and_carries_its_charge():
    base = bulk("NaCl", "rocksalt", a=5.6)
    base.info["charge"] = 1.0
    step = make_supercell(base, SupercellSettings(min_length=6.0))
    n_cells = len(step.atoms) // 2
    assert nearest_neighbour_distance(step.atoms) == pytest.approx(nearest_neighbour_distance(base))
    assert step.atoms.get_volume() == pytest.approx(n_cells * base.get_volume())
    assert step.atoms.info["charge"] == n_cells
    assert step.text == "supercell 2x2x2"


@pytest.mark.parametrize("bad", [{"min_length": 0.0}, {"max_atoms": 0}])
def test_settings_out_of_range_are_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        SupercellSettings(**bad)


def test_compact_cell_has_fewer_atoms_than_the_diagonal_one():
    compact = make_supercell(bulk("Cu"), SupercellSettings(shape="compact", max_atoms=10_000))
    diagonal = make_supercell(bulk("Cu"), SupercellSettings(max_atoms=10_000))
    assert (len(compact.atoms), len(diagonal.atoms)) == (500, 729)
    assert (perpendicular_heights(compact.atoms.cell) >= 18.0).all()
    assert compact.text == "supercell of 500 cells"
    assert round(np.linalg.det(compact.parameters["matrix"])) == 500


def test_compact_cell_at_the_cap_keeps_its_images_farthest_apart():
    settings = [SupercellSettings(shape=shape) for shape in ("compact", "diagonal")]
    compact, diagonal = (make_supercell(bulk("Cu"), item).atoms for item in settings)
    assert len(compact) <= 450
    heights = [perpendicular_heights(atoms.cell).min() for atoms in (compact, diagonal)]
    assert heights == pytest.approx([17.29, 14.59], abs=0.01)


def test_compact_cell_that_is_no_better_is_the_diagonal_one():
    cubic = bulk("Po", "sc", a=3.0)
    assert make_supercell(cubic, SupercellSettings(shape="compact", min_length=9.0)).text == "supercell 3x3x3"


@pytest.mark.parametrize("shape", ["compact", "diagonal"])
def test_cell_that_is_long_enough_is_left_alone(shape):
    with pytest.raises(NotApplicableError, match="already_large"):
        make_supercell(bulk("Cu", cubic=True) * (5, 5, 5), SupercellSettings(shape=shape, max_atoms=1000))


@pytest.mark.parametrize("pbc", list(itertools.product([True, False], repeat=3)))
def test_compact_cell_obeys_periodicity_and_cap(pbc):
    rng = np.random.default_rng(0)
    cell = np.diag([3.0, 4.0, 5.0]) + rng.uniform(-1.0, 1.0, (3, 3))
    atoms = Atoms("H2", [[0, 0, 0], [0.5, 1.5, 1.2]], cell=cell, pbc=pbc)
    settings = SupercellSettings(shape="compact", min_length=9.0, max_atoms=60)
    if not any(pbc):
        with pytest.raises(NotApplicableError):
            make_supercell(atoms, settings)
        return
    larger = make_supercell(atoms, settings).atoms
    assert 2 < len(larger) <= 60
    assert larger.pbc.tolist() == list(pbc)
    assert nearest_neighbour_distance(larger) == pytest.approx(nearest_neighbour_distance(atoms))
    for axis in np.flatnonzero(~np.array(pbc)):
        assert larger.cell[axis] == pytest.approx(cell[axis])
