"""Pieces of large frames: what surrounds the core is what surrounded it in the frame."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from ase.calculators.lj import LennardJones
from hypothesis import given, settings
from hypothesis import strategies as st

from aiida_alpot.kernel.cutouts import CORE, CutoutSettings, choose_centres, core_of, cut_out, keep_core
from aiida_alpot.kernel.dataset import Dataset, write
from aiida_alpot.kernel.geometry import closest_pair_ratio
from aiida_alpot.kernel.potentials import Features

REACH = 4.5


def large(seed=0, repeat=8):
    """A disordered crystal in a sheared cell."""
    atoms = bulk("Cu", cubic=True).repeat(repeat)
    atoms.set_cell(atoms.cell.array @ np.array([[1, 0.1, 0], [0, 1, 0.05], [0, 0, 1.0]]), scale_atoms=True)
    atoms.rattle(0.15, seed=seed)
    atoms.symbols[::3] = "Au"
    atoms.info.update(group="md-3", config_type="md")
    return atoms


def neighbours(atoms, k, reach):
    """Species and distances of what surrounds an atom, ascending."""
    repeated = atoms.copy()
    distances = repeated.get_distances(k, range(len(atoms)), mic=any(atoms.pbc))
    chosen = (distances < reach) & (np.arange(len(atoms)) != k)
    return sorted(zip(np.round(distances[chosen], 8), atoms.numbers[chosen], strict=True))


@pytest.mark.parametrize("shape", ["block", "cluster"])
@given(centre=st.integers(0, 2047), seed=st.integers(0, 5))
@settings(max_examples=10, deadline=None)
def test_every_core_atom_keeps_all_its_neighbours(shape, centre, seed):
    atoms = large(seed)
    piece = cut_out(atoms, centre, CutoutSettings(shape, core_radius=3.5, reach=REACH))
    assert piece.symbols[0] == atoms.symbols[centre]
    assert neighbours(piece, 0, REACH) == neighbours(atoms, centre, REACH)
    whole = atoms.get_distances(centre, range(len(atoms)), mic=True)
    in_core = np.flatnonzero(whole <= 3.5)
    assert piece.arrays[CORE].sum() == len(in_core)
    expected = sorted(neighbours(atoms, int(k), REACH) for k in in_core)
    assert sorted(neighbours(piece, int(k), REACH) for k in np.flatnonzero(piece.arrays[CORE])) == expected


@pytest.mark.parametrize("shape", ["block", "cluster"])
def test_forces_of_a_pair_potential_on_the_core_are_those_of_the_frame(shape):
    atoms = large()
    potential = {"sigma": 2.3, "epsilon": 0.4, "rc": REACH, "smooth": True}
    atoms.calc = LennardJones(**potential)
    piece = cut_out(atoms, 100, CutoutSettings(shape, core_radius=3.0, reach=REACH))
    assert piece.calc is None
    piece.calc = LennardJones(**potential)
    np.testing.assert_allclose(piece.get_forces()[0], atoms.get_forces()[100], atol=1e-10)


def test_a_cluster_has_vacuum_and_a_block_no_atoms_on_top_of_each_other():
    atoms = large()
    cluster = cut_out(atoms, 5, CutoutSettings("cluster", vacuum=7.0))
    assert not cluster.pbc.any()
    np.testing.assert_allclose(cluster.cell.lengths() - np.ptp(cluster.positions, axis=0), 7.0)
    block = cut_out(atoms, 5, CutoutSettings("block", core_radius=2.0, reach=5.0))
    assert block.pbc.all()
    np.testing.assert_allclose(block.cell.array, 2 * (7.0 + 0.7 * 1.36) * np.eye(3))
    assert closest_pair_ratio(block) >= 0.7
    density = len(block) / block.get_volume()
    assert density == pytest.approx(
        len(atoms) / atoms.get_volume(), rel=0.2
    )  # the seam of a disordered frame costs atoms
    assert block.info["group"] == cluster.info["group"] == "md-3"


def test_a_pair_that_is_close_in_the_frame_stays():
    atoms = large()
    atoms.positions[1] = atoms.positions[0] + [1.2, 0, 0]
    block = cut_out(atoms, 0, CutoutSettings("block", core_radius=2.0, reach=5.0))
    assert np.sum(np.linalg.norm(block.positions - block.positions[0], axis=1) < 1.3) == 2


def test_a_slab_gives_clusters_and_a_frame_smaller_than_a_block_is_refused():
    slab = fcc111("Al", (6, 6, 4), vacuum=8.0)
    slab.pbc = [True, True, False]
    assert not cut_out(slab, 0).pbc.any()
    with pytest.raises(ValueError, match="not smaller than the frame; label the frame"):
        cut_out(bulk("Cu", cubic=True).repeat(4), 0)
    with pytest.raises(ValueError, match="no atom 9 in a frame of 4"):
        cut_out(bulk("Cu", cubic=True), 9)


def test_images_of_atoms_are_cut_out_with_the_rest_from_a_small_cell():
    """A sphere around an atom of a one-atom cell consists of its images."""
    cluster = cut_out(bulk("Cu"), 0, CutoutSettings("cluster", core_radius=2.7, reach=1.0))
    assert len(cluster) == 1 + 12 + 6
    assert cluster.arrays[CORE].sum() == 13


def test_every_atom_above_the_threshold_lies_in_a_core_and_no_centre_in_that_of_a_higher_one():
    atoms = large()
    grades = np.random.default_rng(0).exponential(size=len(atoms))
    centres = choose_centres(atoms, grades, 4.0, 3.5)
    assert centres[0] == int(np.argmax(grades))
    distances = np.array([atoms.get_distances(c, range(len(atoms)), mic=True) for c in centres])
    assert np.all(distances[:, grades > 4.0].min(axis=0) <= 3.5)
    between = distances[:, centres] + 10.0 * np.eye(len(centres))
    assert between.min() > 3.5
    assert choose_centres(atoms, grades, np.inf, 3.5) == []
    with pytest.raises(ValueError, match="one for each of 2048 atoms"):
        choose_centres(atoms, grades[:5], 1.0, 3.0)


def test_only_the_core_enters_an_active_set_and_the_mask_survives_the_dataset(tmp_path):
    piece, plain = cut_out(large(), 7, CutoutSettings("cluster", core_radius=3.0, reach=2.0)), bulk("Cu")
    write(tmp_path / "pieces.h5", [piece, plain])
    with Dataset.open(tmp_path / "pieces.h5") as dataset:
        frames = list(dataset)
    core = core_of(frames)
    assert core.sum() == piece.arrays[CORE].sum() + 1
    index = np.repeat([0, 1], [len(piece), 1])
    features = Features(np.arange(len(index), dtype=float)[:, None], np.full(len(index), 29), index)
    np.testing.assert_array_equal(keep_core(features, frames).values[:, 0], np.flatnonzero(core))
    assert keep_core(features, [Atoms("Cu")] * len(index)) is features


def test_settings_out_of_range_are_named():
    for values, name in (
        ({"core_radius": 0.0}, "core_radius"),
        ({"reach": -1.0}, "reach"),
        ({"min_ratio": 1.0}, "min_ratio"),
    ):
        with pytest.raises(ValueError, match=name):
            CutoutSettings(**values)
