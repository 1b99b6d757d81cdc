"""Strain: symmetry, ranges, dimensions and contacts."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule

from aiida_alpot.kernel.augmentation import (
    DroppedFrameError,
    NotApplicableError,
    StrainSettings,
    apply_stretch,
    draw_stretch,
    strain,
)
from aiida_alpot.kernel.geometry import closest_pair_ratio

MODES = ("full", "normal", "volumetric")


def draws(settings, n=400, n_dim=3):
    rng = np.random.default_rng(0)
    return np.array([draw_stretch(n_dim, settings, rng) for _ in range(n)])


@pytest.mark.parametrize("distribution", ["uniform", "normal"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("n_dim", [1, 2, 3])
def test_stretch_is_symmetric_with_principal_values_in_range(mode, distribution, n_dim):
    settings = StrainSettings(range=(-0.2, 0.6), mode=mode, distribution=distribution, stdev=0.3)
    tensors = draws(settings, n_dim=n_dim)
    assert tensors == pytest.approx(tensors.transpose(0, 2, 1))
    values = np.linalg.eigvalsh(tensors)
    assert values.min() >= 0.8 - 1e-9
    assert values.max() <= 1.6 + 1e-9


def test_full_strain_has_shear_and_three_different_stretches():
    tensors = draws(StrainSettings())
    assert np.abs(tensors[:, 0, 1]).mean() > 0.03
    values = np.linalg.eigvalsh(tensors)
    assert (values[:, 2] - values[:, 0]).mean() > 0.2


def test_normal_strain_has_no_shear_and_independent_components():
    tensors = draws(StrainSettings(mode="normal"))
    assert np.abs(tensors[:, 0, 1]).max() == 0.0
    diagonal = tensors[:, [0, 1, 2], [0, 1, 2]]
    assert np.corrcoef(diagonal.T) == pytest.approx(np.eye(3), abs=0.2)


def test_volumetric_strain_is_isotropic():
    tensors = draws(StrainSettings(mode="volumetric"))
    assert tensors == pytest.approx(tensors[:, :1, :1] * np.eye(3))


def test_paper_range_is_linear_and_reaches_four_times_the_volume():
    volumes = np.linalg.det(draws(StrainSettings(mode="volumetric"), n=2000))
    assert volumes.max() == pytest.approx(1.6**3, rel=0.02)
    assert volumes.min() == pytest.approx(0.8**3, rel=0.02)


@pytest.mark.parametrize("mode", MODES)
def test_volume_range_bounds_the_volume(mode):
    volumes = np.linalg.det(draws(StrainSettings(mode=mode, volume_range=(0.9, 1.2))))
    assert volumes.min() >= 0.9 - 1e-9
    assert volumes.max() <= 1.2 + 1e-9
    assert volumes.mean() == pytest.approx(1.05, abs=0.03)


def test_normal_distribution_has_its_stdev_on_the_diagonal_and_less_beside_it():
    tensors = draws(StrainSettings(distribution="normal", stdev=0.03), n=4000) - np.eye(3)
    assert tensors[:, 0, 0].std() == pytest.approx(0.03, rel=0.05)
    assert tensors[:, 0, 1].std() == pytest.approx(0.03 / np.sqrt(2), rel=0.05)


def test_contradictory_ranges_are_refused():
    settings = StrainSettings(range=(-0.01, 0.0), volume_range=(0.9999999, 2.0), mode="volumetric")
    with pytest.raises(ValueError, match="volume_range"):
        draw_stretch(3, settings, np.random.default_rng(0))


def test_fractional_coordinates_of_a_crystal_do_not_change():
    atoms = bulk("NaCl", "rocksalt", a=5.6)
    strained = strain(atoms, StrainSettings(), np.random.default_rng(1)).atoms
    assert strained.cell.scaled_positions(strained.positions) == pytest.approx(
        atoms.cell.scaled_positions(atoms.positions)
    )
    assert strained.get_volume() != pytest.approx(atoms.get_volume())


def test_vacuum_of_a_slab_is_not_strained():
    slab = fcc111("Cu", (2, 2, 3), vacuum=7.0)
    strained = strain(slab, StrainSettings(), np.random.default_rng(2)).atoms
    assert strained.cell[2] == pytest.approx(slab.cell[2])
    assert strained.positions[:, 2] == pytest.approx(slab.positions[:, 2])
    assert np.abs(strained.cell[:2] - slab.cell[:2]).max() > 0.01


def test_tilted_slab_is_strained_in_its_plane_only():
    slab = fcc111("Cu", (2, 2, 3), vacuum=7.0)
    slab.rotate(35.0, (1.0, 0.3, 0.2), rotate_cell=True)
    normal = np.cross(slab.cell[0], slab.cell[1])
    normal /= np.linalg.norm(normal)
    strained = strain(slab, StrainSettings(), np.random.default_rng(2)).atoms
    assert strained.positions @ normal == pytest.approx(slab.positions @ normal)
    assert strained.cell[:2] @ normal == pytest.approx(np.zeros(2), abs=1e-12)


def test_wire_is_strained_along_its_axis():
    wire = Atoms("Au2", [[5, 5, 0], [5, 5, 2.6]], cell=[10, 10, 5.2], pbc=[False, False, True])
    strained = apply_stretch(wire, np.array([[1.1]]))
    assert strained.cell.array == pytest.approx(np.diag([10, 10, 5.72]))
    assert strained.positions == pytest.approx(np.array([[5, 5, 0], [5, 5, 2.86]]))


def test_molecule_is_left_alone_unless_asked():
    with pytest.raises(NotApplicableError, match="no_periodic_axis"):
        strain(molecule("H2O"), StrainSettings(), np.random.default_rng(0))


def test_molecule_is_deformed_about_its_centre():
    atoms = molecule("CH3CH2OH", vacuum=4.0)
    settings = StrainSettings(distribution="normal", stdev=0.03, molecules=True)
    strained = strain(atoms, settings, np.random.default_rng(0)).atoms
    assert strained.positions.mean(axis=0) == pytest.approx(atoms.positions.mean(axis=0))
    assert strained.cell.array == pytest.approx(atoms.cell.array)
    assert 0.01 < np.abs(strained.positions - atoms.positions).max() < 0.5


@pytest.mark.parametrize("seed", range(8))
def test_strained_atoms_never_come_closer_than_the_limit(seed):
    settings = StrainSettings(range=(-0.4, 0.1), min_ratio=0.75, max_tries=200)
    strained = strain(bulk("Cu", cubic=True), settings, np.random.default_rng(seed)).atoms
    assert closest_pair_ratio(strained) >= 0.75


def test_frame_without_an_acceptable_strain_is_dropped():
    with pytest.raises(DroppedFrameError, match="close_contact"):
        strain(bulk("Cu"), StrainSettings(range=(-0.9, 0.0), min_ratio=0.99), np.random.default_rng(0))


@pytest.mark.parametrize(
    "bad",
    [{"range": (0.1, 0.2)}, {"range": (-1.0, 0.2)}, {"stdev": 0.0}, {"volume_range": (1.1, 2.0)}, {"min_ratio": 1.0}],
)
def test_settings_out_of_range_are_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        StrainSettings(**bad)
