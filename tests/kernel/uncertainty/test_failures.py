"""Frames that a member fails to predict are told from those that nobody is meant to predict."""

import numpy as np
import pytest
from ase.build import bulk

from aiida_alpot.kernel.potentials import Predictions
from aiida_alpot.kernel.uncertainty import describe_failures, disagreement, find_failures

OFFSETS = np.array([0, 2, 5, 6])


def predictions(seed):
    rng = np.random.default_rng(seed)
    return Predictions(rng.normal(size=3), rng.normal(size=(6, 3)), rng.normal(size=(3, 6)), OFFSETS)


def test_finite_predictions_have_no_failure():
    assert find_failures([predictions(0), predictions(1)]).tolist() == ["", "", ""]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("name", "row", "frame"), [("energy", 1, 1), ("forces", 5, 2), ("forces", 0, 0), ("stress", 2, 2)]
)
def test_a_number_that_is_not_finite_names_member_and_property(name, row, frame, value):
    members = [predictions(seed) for seed in range(3)]
    values = getattr(members[2], name)
    values[row if values.ndim == 1 else (row, 1)] = value
    expected = ["", "", ""]
    expected[frame] = f"member 2 gives no finite {name}"
    failures = find_failures(members)
    assert failures.tolist() == expected
    # what is left is what a committee takes
    kept = np.flatnonzero(failures == "")
    assert np.isfinite(disagreement([member.take(kept) for member in members]).force).all()


def test_all_failures_of_a_frame_are_named():
    members = [predictions(0), predictions(1)]
    members[0].energy[0] = members[1].forces[1] = np.nan
    assert find_failures(members)[0] == "member 0 gives no finite energy; member 1 gives no finite forces"


def test_a_stress_that_no_member_defines_is_no_failure():
    members = [predictions(0), predictions(1)]
    for member in members:
        member.stress[1] = np.nan
    assert find_failures(members).tolist() == ["", "", ""]


def test_a_stress_that_only_others_define_is_a_failure():
    members = [predictions(0), predictions(1)]
    members[1].stress[1] = np.nan
    assert find_failures(members).tolist() == ["", "member 1 gives no finite stress", ""]


def test_an_engine_without_stress_fails_nothing():
    members = [predictions(0), predictions(1)]
    members[0].stress[:] = np.nan
    assert find_failures(members).tolist() == ["", "", ""]


def test_a_warning_counts_all_frames_and_names_the_first():
    frames = [bulk("Cu") for _ in range(6)]
    frames[1].info["group"] = "melt"
    failures = np.array(["", *["member 0 gives no finite energy"] * 5])
    [note] = describe_failures(frames, failures, "train")
    assert note.startswith("train: 5 of 6 frames are left out")
    assert "frame 1 (Cu, group melt): member 0 gives no finite energy; frame 2 (Cu): " in note
    assert note.endswith("; and 2 more")
    assert describe_failures(frames[:1], failures[:1], "train") == []
