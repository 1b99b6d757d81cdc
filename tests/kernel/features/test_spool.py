"""Features in a file are the features, and active sets of them the active sets, in flat memory."""

import tracemalloc

import numpy as np
import pytest

from aiida_alpot.kernel.features import spool
from aiida_alpot.kernel.features.spool import SpooledFeatures, gather_features
from aiida_alpot.kernel.potentials import Features
from aiida_alpot.kernel.uncertainty import ActiveSet
from aiida_alpot.kernel.uncertainty.scaling import assign_folds, scale_grades


def chunks(n_chunks, n_frames=5, n_atoms=8, n_features=12, kind=np.float64):
    """Yield features that are made anew every time."""
    for k in range(n_chunks):
        rng = np.random.default_rng(k)
        values = rng.normal(size=(n_frames * n_atoms, n_features)).astype(kind)
        index = k * n_frames + np.repeat(np.arange(n_frames), n_atoms)
        yield Features(values, rng.choice([29, 79], len(values)), index)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_every_pass_reads_what_was_written(tmp_path, kind):
    source = SpooledFeatures(chunks(4, kind=kind), tmp_path)
    assert list(tmp_path.iterdir()) == []
    for _ in range(2):
        for found, expected in zip(source(), chunks(4, kind=kind), strict=True):
            assert found.values.dtype == kind
            for name in ("values", "species", "frame_index"):
                np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    one, other = source(), source()
    next(one)
    np.testing.assert_array_equal(next(other).values, next(chunks(1, kind=kind)).values)
    np.testing.assert_array_equal(next(one).values, list(chunks(2, kind=kind))[1].values)


@pytest.mark.parametrize("mode", ["neighbourhood", "configuration"])
def test_active_sets_and_units_from_a_file_are_those_from_memory(monkeypatch, tmp_path, mode):
    whole = gather_features(chunks(8), 320)
    assert isinstance(whole, Features)
    monkeypatch.setattr(spool, "IN_MEMORY", 320 * 12 - 1)
    spooled = gather_features(chunks(8), 320, tmp_path)
    assert isinstance(spooled, SpooledFeatures)
    first, second = (ActiveSet.build(features, start="eps", mode=mode) for features in (whole, spooled))
    for number, block in first.blocks.items():
        np.testing.assert_array_equal(second.blocks[number].rows, block.rows)
    folds = assign_folds([""] * 40)
    scale_grades(first, whole, folds)
    scale_grades(second, spooled, folds)
    assert second.units == pytest.approx(first.units, rel=1e-8)


def test_the_memory_does_not_grow_with_the_number_of_frames(monkeypatch, tmp_path):
    """Ten times the frames take as much, but for species, frames and tags of their atoms."""
    monkeypatch.setattr(spool, "IN_MEMORY", 0)

    def peak(n_chunks):
        n_atoms = 200 * n_chunks
        tracemalloc.start()
        features = gather_features(chunks(n_chunks, 5, 40, 64), n_atoms, tmp_path)
        ActiveSet.build(features, start="eps")
        _, used = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return used - 48 * n_atoms

    small, large = peak(20), peak(200)
    whole = 200 * 200 * 64 * 8
    assert large < 1.3 * small
    assert large < 0.3 * whole
