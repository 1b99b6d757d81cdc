"""What the tasks read alike."""

import time

import pytest

from aiida_alpot.kernel.dataset import Dataset
from aiida_alpot.kernel.tasks.inputs import STOP_SHARE, compute_deadline, load_committee, read_labelled


def test_members_come_in_the_order_of_their_names(job, tmp_path):
    entries = job.committee(tmp_path)
    committee = load_committee({"potentials": dict(reversed(entries.items()))}, tmp_path)
    assert committee.names == ("m000", "m001", "m002")
    assert committee.hashes == tuple(entry["sha256"] for entry in entries.values())
    energies = [potential.predict(job.argon(1)).energy[0] for potential in committee.potentials]
    assert energies[0] > energies[1] > energies[2]


def test_a_file_that_is_not_the_one_of_its_hash_is_named(job, tmp_path):
    entries = job.committee(tmp_path)
    entries["m001"]["sha256"] = "0" * 64
    with pytest.raises(ValueError, match=f"model file m001.model has sha256 .*, expected {'0' * 64}"):
        load_committee({"potentials": entries}, tmp_path)


def test_a_changed_file_is_never_loaded(job, tmp_path):
    entries = job.committee(tmp_path)
    (tmp_path / entries["m000"]["file"]).write_text("not even JSON")
    with pytest.raises(ValueError, match=r"m000\.model has sha256"):
        load_committee({"potentials": entries}, tmp_path)


def test_an_empty_committee_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no potential"):
        load_committee({"potentials": {}}, tmp_path)


def test_a_task_ends_before_its_walltime():
    now = time.monotonic()
    assert compute_deadline({"walltime_s": 100}) - now == pytest.approx(100 * STOP_SHARE, abs=1.0)
    assert compute_deadline({"walltime_s": None}) is None
    assert compute_deadline({}) is None


@pytest.fixture
def labelled(job, tmp_path):
    """Energies of the labelled frames of a split."""

    def read(frames, wanted, **columns):
        job.write(tmp_path / "frames.h5", frames, **columns)
        with Dataset.open(tmp_path / "frames.h5") as dataset:
            return [atoms.get_potential_energy() for atoms in read_labelled(dataset, wanted)]

    return read


def test_only_labelled_frames_of_the_split_are_read(job, labelled):
    frames = job.argon(4)
    energies = [atoms.get_potential_energy() for atoms in frames]
    columns = {"split": ["train", "train", "test", "test"], "status": ["labelled", "failed", "labelled", "quarantined"]}
    assert labelled(frames, "train", **columns) == [energies[0]]
    assert sorted(labelled(frames, None, **columns)) == sorted([energies[0], energies[2]])
    assert labelled(frames, "calibration", **columns) == []


def test_the_order_of_rows_does_not_change_the_order_of_frames(job, labelled):
    frames = job.argon(6)
    assert labelled(frames, None) == labelled(frames[::-1], None) == labelled(frames[3:] + frames[:3], None)
