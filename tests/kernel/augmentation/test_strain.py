"""Strain: symmetry, ranges, dimensions and contacts."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from scipy.stats import kstest

from aiida_alpot.kernel.augmentation import (
    DroppedFrameError,
    NotApplicableError,
    StrainSettings,
    apply_stretch,
    augment,
    draw_stretch,
    strain,
)
from aiida_alpot.kernel.augmentation.strain import count_coordinates, design_strains
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
    tensors = draws(StrainSettings(range=(-0.2, 0.6)))
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


def test_default_range_is_linear_and_reaches_less_than_twice_the_volume():
    volumes = np.linalg.det(draws(StrainSettings(mode="volumetric"), n=2000))
    assert volumes.min() == pytest.approx(0.9**3, rel=0.02)
    assert volumes.max() == pytest.approx(1.2**3, rel=0.02)


def test_paper_range_is_linear_and_reaches_four_times_the_volume():
    volumes = np.linalg.det(draws(StrainSettings(mode="volumetric", range=(-0.2, 0.6)), n=2000))
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
    [
        {"range": (0.1, 0.2)},
        {"range": (-1.0, 0.2)},
        {"range": (-0.1, 20.0)},
        {"stdev": 0.0},
        {"volume_range": (1.1, 2.0)},
        {"min_ratio": 1.0},
    ],
)
def test_settings_out_of_range_are_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        StrainSettings(**bad)


def test_uniaxial_strain_changes_one_direction_of_uniform_orientation():
    tensors = draws(StrainSettings(mode="uniaxial", range=(0.0, 0.5)), n=4000)
    values, axes = np.linalg.eigh(tensors)
    assert values[:, :2] == pytest.approx(1.0)
    direction = axes[:, :, 2]
    assert np.einsum("ka,kb->ab", direction, direction) / 4000 == pytest.approx(np.eye(3) / 3, abs=0.03)


def test_shear_keeps_the_volume_and_one_length():
    tensors = draws(StrainSettings(mode="shear", range=(-0.2, 0.3)))
    values = np.linalg.eigvalsh(tensors)
    assert np.linalg.det(tensors) == pytest.approx(1.0)
    assert values[:, 1] == pytest.approx(1.0)
    assert values[:, 2].max() <= 1.25 + 1e-9  # its inverse must not fall below 1 - 0.2
    assert values[:, 2].max() == pytest.approx(1.25, abs=0.01)


def test_components_are_uniform_and_independent():
    tensors = draws(StrainSettings(mode="components", range=(-0.02, 0.02)), n=4000) - np.eye(3)
    components = np.array([tensors[:, a, b] for a, b in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))])
    assert np.abs(components).max() <= 0.02
    for values in components:
        assert kstest(values, "uniform", (-0.02, 0.04)).pvalue > 1e-4
    assert np.corrcoef(components) == pytest.approx(np.eye(6), abs=0.07)


def test_components_of_a_wide_range_leave_no_cell_inside_out():
    tensors = draws(StrainSettings(mode="components", range=(-0.9, 1.0)))
    assert np.linalg.eigvalsh(tensors).min() > 0.0


@pytest.mark.parametrize("distribution", ["uniform", "normal"])
def test_full_strain_has_no_preferred_direction(distribution):
    tensors = draws(StrainSettings(distribution=distribution, stdev=0.1), n=6000) - np.eye(3)
    flat = tensors.reshape(-1, 9)
    turn = Rotation.from_rotvec([0.3, 0.9, -0.5]).as_matrix()
    turned = (turn @ tensors @ turn.T).reshape(-1, 9)
    assert np.cov(turned.T) == pytest.approx(np.cov(flat.T), abs=0.12 * np.cov(flat.T).max())
    assert flat.mean(axis=0) == pytest.approx(np.eye(3).ravel() * flat[:, [0, 4, 8]].mean(), abs=0.02)


@pytest.mark.parametrize("mode", [*MODES, "uniaxial", "shear", "components"])
@pytest.mark.parametrize("n_dim", [2, 3])
def test_latin_hypercube_meets_every_interval_of_every_number_once(mode, n_dim):
    atoms = bulk("Cu") if n_dim == 3 else fcc111("Cu", (1, 1, 3), vacuum=5.0)
    settings = StrainSettings(mode=mode, sampling="latin_hypercube")
    points = design_strains(atoms, settings, 50, np.random.default_rng(0))
    assert points.shape == (50, count_coordinates(n_dim, settings))
    for column in points.T:
        assert sorted((50 * column).astype(int).tolist()) == list(range(50))


def test_latin_hypercube_spreads_the_strains_of_the_copies():
    recipe = {"mode": "volumetric", "range": [-0.1, 0.1], "sampling": "latin_hypercube"}
    frames = augment([bulk("Cu")], {"copies": 20, "keep_input": False, "strain": recipe}, 0).frames
    lengths = [(atoms.get_volume() / bulk("Cu").get_volume()) ** (1 / 3) for atoms in frames]
    assert sorted(int((length - 0.9) / 0.01) for length in lengths) == list(range(20))


def test_copies_differ_between_bases_in_a_latin_hypercube():
    recipe = {"mode": "volumetric", "sampling": "latin_hypercube"}
    frames = augment([bulk("Cu"), bulk("Cu", a=3.7)], {"copies": 5, "keep_input": False, "strain": recipe}, 0).frames
    ratios = [atoms.get_volume() / (3.61**3 if k < 5 else 3.7**3) for k, atoms in enumerate(frames)]
    assert ratios[:5] != pytest.approx(ratios[5:], rel=1e-3)


@hypothesis_settings(max_examples=25, deadline=None)
@given(
    n_atoms=st.one_of(st.integers(1, 12), st.integers(13, 200)),
    pbc=st.tuples(*[st.booleans()] * 3),
    mode=st.sampled_from([*MODES, "uniaxial", "shear", "components"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_frame_is_strained_along_its_periodic_axes_only(random_frame, n_atoms, pbc, mode, seed):
    atoms = random_frame(n_atoms, pbc, seed)
    given_settings = StrainSettings(mode=mode, range=(-0.15, 0.2), min_ratio=0.3, max_tries=200)
    if sum(pbc) == 0 or (sum(pbc) == 1 and mode == "shear"):
        with pytest.raises(NotApplicableError, match=r"no_periodic_axis|one_periodic_axis"):
            strain(atoms, given_settings, np.random.default_rng(seed))
        return
    strained, again = (strain(atoms, given_settings, np.random.default_rng(seed)).atoms for _ in range(2))
    assert strained.positions.tobytes() == again.positions.tobytes()
    assert (strained.pbc == atoms.pbc).all()
    assert (strained.numbers == atoms.numbers).all()
    assert (strained.arrays["site"] == atoms.arrays["site"]).all()
    assert (strained.get_initial_magnetic_moments() == atoms.get_initial_magnetic_moments()).all()
    assert closest_pair_ratio(strained) >= 0.3
    periodic = np.array(pbc)
    assert (strained.cell.array[~periodic] == atoms.cell.array[~periodic]).all()
    basis = np.linalg.qr(atoms.cell.array[periodic].T)[0]
    outside = np.eye(3) - basis @ basis.T
    assert strained.positions @ outside == pytest.approx(atoms.positions @ outside, abs=1e-9)
    inverse = np.linalg.pinv(atoms.cell.array[periodic])
    fractions = strained.positions @ np.linalg.pinv(strained.cell.array[periodic])
    assert fractions == pytest.approx(atoms.positions @ inverse, abs=1e-9)
