"""Supercells: heights, caps and slabs."""

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
    with pytest.raises(NotApplicableError, match="already_large"):
        make_supercell(molecule("H2O"), SupercellSettings())


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
