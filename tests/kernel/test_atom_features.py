"""Features of atoms on demand: the same as all at once, computed once while there is room."""

from functools import partial

import numpy as np
import pytest

from aiida_alpot.kernel.atom_features import AtomFeatures
from aiida_alpot.kernel.cutouts import CORE
from aiida_alpot.kernel.dataset import Dataset, write


@pytest.fixture
def frames(make):
    return [*make.crystals(3), *make.molecules(3)]


@pytest.fixture
def dataset(frames, tmp_path):
    write(tmp_path / "frames.h5", frames)
    with Dataset.open(tmp_path / "frames.h5") as opened:
        yield opened


@pytest.fixture
def potential(make, frames):
    class Counting(make.OffTarget):
        n_asked = 0

        def features(self, frames, kind="last_layer", batch_size=32):
            self.n_asked += len(frames)
            return super().features(frames, kind, batch_size)

    return Counting(frames)


@pytest.mark.parametrize("kept", [0, 12, 10**6])
@pytest.mark.parametrize("kind", ["last_layer", "invariants"])
def test_rows_in_any_order_have_the_features_that_the_potential_gives(frames, dataset, potential, kind, kept):
    found = AtomFeatures(dataset, partial(potential.features, kind=kind), kept)
    for rows in ([4, 1, 5], [1], [0, 1, 2, 3, 4, 5], [5, 4]):
        features, expected = found(np.array(rows)), potential.features([frames[k] for k in rows], kind=kind)
        for name in ("values", "species", "frame_index"):
            np.testing.assert_array_equal(getattr(features, name), getattr(expected, name))


def test_rows_count_in_the_view_that_is_given(frames, dataset, potential):
    found = AtomFeatures(dataset[np.array([5, 2, 0])], potential.features)
    np.testing.assert_array_equal(found(np.array([1])).values, frames[2].positions)


def test_features_are_computed_once_while_there_is_room(dataset, potential):
    found = AtomFeatures(dataset, potential.features, kept=2 * 4 * 3)
    for _ in range(3):
        found(np.arange(6))
    # two crystals of four atoms with three features stay
    assert potential.n_asked == 6 + 4 + 4


def test_of_a_piece_only_the_core_has_features(make, frames, tmp_path):
    frames[1].arrays[CORE] = np.arange(4) == 2
    write(tmp_path / "pieces.h5", frames)
    with Dataset.open(tmp_path / "pieces.h5") as dataset:
        found = AtomFeatures(dataset, make.OffTarget(frames).features)(np.array([0, 1]))
    np.testing.assert_array_equal(found.values, [*frames[0].positions, frames[1].positions[2]])
    assert found.frame_index.tolist() == [0, 0, 0, 0, 1]
