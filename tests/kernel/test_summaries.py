"""Sums of what the jobs of a stage reported."""

import json

import numpy as np
import pytest

from aiida_alpot.kernel.dataset import Dataset, write
from aiida_alpot.kernel.summaries import MAX_REASONS, summarise_committee, summarise_exploration, summarise_labels


@pytest.fixture
def labels(tmp_path):
    def run(frames, **columns):
        write(tmp_path / "frames.h5", frames, **columns)
        with Dataset.open(tmp_path / "frames.h5") as dataset:
            summary = summarise_labels(dataset)
        assert json.loads(json.dumps(summary, allow_nan=False)) == summary
        return summary

    return run


def test_labels_are_counted_by_status(make, labels):
    frames = make.crystals(5)
    status = ["labelled", "labelled", "failed", "quarantined", "unlabelled"]
    summary = labels(frames, status=status, reason=["", "", "no scf", "too large", ""])
    assert summary["n_frames"] == 5
    assert [summary[f"n_{name}"] for name in ("labelled", "failed", "quarantined", "unlabelled")] == [2, 1, 1, 1]
    assert summary["failed_fraction"] == 0.6
    assert summary["reasons"] == {"no scf": 1, "too large": 1, "no reason": 1}


def test_trainable_are_the_labelled_frames_of_the_fitted_splits(make, labels):
    status = ["labelled", "labelled", "failed", "labelled", "labelled"]
    split = ["train", "validation", "train", "calibration", ""]
    assert labels(make.crystals(5), status=status, split=split)["n_trainable"] == 2


def test_cost_adds_up_over_the_frames_that_have_one(make, labels):
    assert labels(make.crystals(3), cost=[1.5, np.nan, 2.0])["cost_s"] == 3.5


def test_fingerprints_are_those_of_labelled_frames(make, labels):
    summary = labels(
        make.crystals(4), status=["labelled"] * 3 + ["failed"], reason=[""] * 4, fingerprint=["b", "a", "b", "c"]
    )
    assert summary["fingerprints"] == ["a", "b"]


def test_only_the_most_frequent_reasons_are_kept(make, labels):
    n = MAX_REASONS + 2
    reasons = ["often", *[f"once {k}" for k in range(n)], "often"]
    summary = labels(make.crystals(n + 2), status=["failed"] * (n + 2), reason=reasons)
    assert len(summary["reasons"]) == MAX_REASONS
    assert summary["reasons"]["often"] == 2


def test_an_empty_dataset_has_a_summary(labels):
    assert labels([]) == {
        "n_frames": 0,
        "n_labelled": 0,
        "n_unlabelled": 0,
        "n_failed": 0,
        "n_quarantined": 0,
        "n_trainable": 0,
        "failed_fraction": 0.0,
        "reasons": {},
        "example": "",
        "cost_s": 0.0,
        "fingerprints": [],
        "warnings": [],
    }


def member(seconds, **rmse):
    return {"results": {"rmse": rmse}, "seconds": seconds}


def test_errors_of_members_are_averaged_over_those_that_have_them():
    reports = {
        "m001": member(3.0, train={"energy": 0.1, "force": 1.0}, test={"energy": 0.3}),
        "m000": member(2.0, train={"energy": 0.3}),
    }
    summary = summarise_committee(reports)
    assert summary["mean"] == {"train": {"energy": 0.2, "force": 1.0}, "test": {"energy": 0.3}}
    assert summary["seconds"] == {"m000": 2.0, "m001": 3.0}
    assert list(summary["members"]) == ["m000", "m001"]


def trajectory(outcome, healthy, n_frames):
    return {"outcome": outcome, "healthy": healthy, "n_frames": n_frames, "grade": float("inf")}


def test_trajectories_of_all_jobs_come_together_in_the_order_of_the_jobs():
    reports = {
        "j001": {"results": {"trajectories": [trajectory("health", False, 1)]}},
        "j000": {"results": {"trajectories": [trajectory("finished", True, 3), trajectory("finished", True, 2)]}},
        "j002": {"status": "failed"},
    }
    summary = summarise_exploration(reports)
    assert [entry["n_frames"] for entry in summary.pop("trajectories")] == [3, 2, 1]
    assert summary == {
        "n_jobs": 3,
        "n_trajectories": 3,
        "n_unfit": 0,
        "n_healthy_trajectories": 2,
        "n_frames": 6,
        "outcomes": {"finished": 2, "health": 1},
    }


def test_trajectories_with_an_unfit_start_are_counted_apart():
    rows = [trajectory("completed", True, 3), trajectory("unfit", False, 0), trajectory("walltime", False, 1)]
    summary = summarise_exploration({"j0": {"results": {"trajectories": rows}}})
    assert (summary["n_trajectories"], summary["n_unfit"], summary["n_healthy_trajectories"]) == (2, 1, 1)
    assert summary["outcomes"] == {"completed": 1, "unfit": 1, "walltime": 1}
    assert len(summary["trajectories"]) == 3


def test_an_infinite_grade_becomes_null():
    summary = summarise_exploration({"j": {"results": {"trajectories": [trajectory("finished", True, 1)]}}})
    assert summary["trajectories"][0]["grade"] is None


def test_trajectories_of_a_job_that_reported_none_are_lost_and_not_healthy():
    reports = {"j0": {"results": {"trajectories": [trajectory("finished", True, 1)]}}, "j1": {"status": "failed"}}
    plans = {"j0": {"first": 0, "last": 1}, "j1": {"first": 1, "last": 3}, "j2": {"first": 3, "last": 4}}
    summary = summarise_exploration(reports, plans)
    assert (summary["n_jobs"], summary["n_trajectories"], summary["n_healthy_trajectories"]) == (3, 4, 1)
    assert summary["outcomes"] == {"finished": 1, "lost": 3}


def test_trajectories_that_an_interrupted_job_did_not_reach_are_not_lost():
    reports = {"j0": {"results": {"trajectories": [trajectory("finished", True, 1)]}}}
    assert summarise_exploration(reports, {"j0": {"first": 0, "last": 5}})["n_trajectories"] == 1
