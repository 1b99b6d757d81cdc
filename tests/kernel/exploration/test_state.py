"""A stopped exploration goes on as if it had never stopped."""

import errno
import time

import numpy as np
import pytest

from aiida_alpot.kernel import dataset
from aiida_alpot.kernel.exploration import ExplorationState, explore, state
from aiida_alpot.kernel.potentials.base import PotentialCalculator


class Stopped(BaseException):
    """A kill: no handler for exceptions catches it."""


@pytest.fixture
def mortal(tools):
    """A committee that dies at a given call of its forces."""

    class Mortal(tools.ScaledEmt):
        calls, dies_at, death = 0, None, Stopped()

        def calculator(self):
            potential = self

            class Calculator(PotentialCalculator):
                def calculate(self, *arguments, **options):
                    potential.calls += 1
                    if potential.calls == potential.dies_at:
                        raise potential.death
                    super().calculate(*arguments, **options)

            return Calculator(self)

    return lambda: [Mortal(1.0), Mortal(1.05)]


def run(frames, committee, settings, folder=None, **options):
    kept = None if folder is None else ExplorationState(folder, {"settings": "these"})
    return explore(frames, committee, None, settings, 5, state=kept, label="i000/", iteration=0, **options)


def hashes(result, path):
    dataset.write(path, result.frames)
    with dataset.Dataset.open(path) as reader:
        return reader.content_hash, reader.usage_hash


def without_times(result):
    return [{key: value for key, value in entry.items() if key != "seconds"} for entry in result.trajectories]


@pytest.mark.parametrize("ensemble", ["nvt", "npt"])
def test_an_exploration_killed_anywhere_ends_as_if_it_had_not_been(
    crystal, mortal, tools, tmp_path, monkeypatch, ensemble
):
    settings = tools.settings(ensemble=ensemble, walkers=2, driver=0, barostat_every=3)
    whole = run([crystal], mortal(), settings)
    monkeypatch.setattr(state, "SAVE_INTERVAL", 0.0)
    for dies_at in (1, 9, 40):
        folder = tmp_path / f"{ensemble}-{dies_at}"
        folder.mkdir()
        committee = mortal()
        committee[0].dies_at = dies_at
        with pytest.raises(Stopped):
            run([crystal], committee, settings, folder)
        result = run([crystal], mortal(), settings, folder)
        assert hashes(result, tmp_path / "a.h5") == hashes(whole, tmp_path / "b.h5")
        assert without_times(result) == without_times(whole)
        assert result.report == whole.report


def test_an_exploration_stopped_at_its_walltime_goes_on_where_it_was(crystal, mortal, tools, tmp_path, monkeypatch):
    settings = tools.settings(ensemble="nvt", driver=0)
    whole = run([crystal], mortal(), settings)
    clock = iter(range(1000))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    first = run([crystal], mortal(), settings, tmp_path, deadline=12.0)
    assert first.trajectories[0]["outcome"] == "walltime"
    n_done = first.trajectories[0]["n_steps"]
    assert 0 < n_done < settings.n_steps
    monkeypatch.undo()
    committee = mortal()
    second = run([crystal], committee, settings, tmp_path)
    assert hashes(second, tmp_path / "a.h5") == hashes(whole, tmp_path / "b.h5")
    assert committee[0].calls == settings.n_steps - n_done + 1


def test_a_finished_trajectory_is_not_run_again(crystal, mortal, tools, tmp_path):
    settings = tools.settings(walkers=3, driver=0)
    first = run([crystal], mortal(), settings, tmp_path)
    committee = mortal()
    second = run([crystal], committee, settings, tmp_path)
    assert committee[0].calls == 0
    assert second.trajectories == first.trajectories
    assert hashes(second, tmp_path / "a.h5") == hashes(first, tmp_path / "b.h5")


def test_a_trajectory_without_frames_is_kept_too(crystal, mortal, tools, tmp_path):
    crushed = crystal.copy()
    crushed.set_cell(0.5 * crushed.cell, scale_atoms=True)
    first = run([crushed], mortal(), tools.settings(driver=0), tmp_path)
    committee = mortal()
    assert run([crushed], committee, tools.settings(driver=0), tmp_path).trajectories == first.trajectories
    assert committee[0].calls == 0


def test_a_damaged_file_is_as_good_as_none(crystal, mortal, tools, tmp_path):
    settings = tools.settings(driver=0)
    whole = run([crystal], mortal(), settings, tmp_path)
    (path,) = tmp_path.glob("finished-*")
    content = path.read_bytes()
    for damaged in (b"", content[: len(content) // 2], bytes(reversed(content))):
        path.write_bytes(damaged)
        result = run([crystal], mortal(), settings, tmp_path)
        assert hashes(result, tmp_path / "a.h5") == hashes(whole, tmp_path / "b.h5")


def test_files_of_another_exploration_are_not_used(crystal, mortal, tools, tmp_path):
    run([crystal], mortal(), tools.settings(driver=0), tmp_path)
    committee = mortal()
    other = ExplorationState(tmp_path, {"settings": "others"})
    explore([crystal], committee, None, tools.settings(driver=0), 5, state=other, label="i000/", iteration=0)
    assert committee[0].calls > 0


def test_a_snapshot_keeps_numbers_that_json_has_not(tmp_path, tools):
    kept = ExplorationState(tmp_path, {})
    snapshot = state.Snapshot({"positions": np.array([[np.nan, np.inf, 1e-300]])}, {"worst": {"grade": np.inf}}, [])
    kept.save_snapshot(tools.plan(), snapshot)
    found = kept.load_snapshot(tools.plan())
    np.testing.assert_array_equal(found.arrays["positions"], snapshot.arrays["positions"])
    assert found.numbers == snapshot.numbers
    assert found.frames == []


def test_a_calculator_without_disk_is_not_a_failure_of_the_trajectory(crystal, mortal, tools, tmp_path):
    committee = mortal()
    committee[0].dies_at, committee[0].death = 3, OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match="No space left"):
        run([crystal], committee, tools.settings(driver=0), tmp_path)


def test_a_full_disk_is_not_a_failure_of_the_trajectory(crystal, mortal, tools, tmp_path, monkeypatch):
    monkeypatch.setattr(state, "SAVE_INTERVAL", 0.0)
    missing = tmp_path / "removed"
    with pytest.raises(state.StateError, match=r"cannot write running-00000.npz.*make room"):
        run([crystal], mortal(), tools.settings(driver=0), missing)
