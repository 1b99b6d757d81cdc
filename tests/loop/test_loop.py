"""One whole loop with EMT labels through a daemon, in a process and a profile of its own."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

JOBS = (
    "AugmentCalculation",
    "LabelAseCalculation",
    "TrainMaceCalculation",
    "CalibrateCalculation",
    "ExploreAseCalculation",
    "EvaluateCalculation",
)


@pytest.fixture
def campaign(campaigns: Any) -> dict[str, Any]:
    return campaigns.first


def test_the_loop_ends_with_a_reason_and_all_outputs(campaign: dict[str, Any]) -> None:
    assert campaign["exit_status"] == 0, campaign["exit_message"]
    assert campaign["outputs"] == ["dataset", "history", "potentials", "result", "uncertainty"]
    assert campaign["result"]["reason"] in ("max_iterations", "converged")
    assert len(campaign["potentials"]) == 2
    assert campaign["failed_children"] == {}


def test_what_was_selected_last_was_labelled_and_trained_on(campaign: dict[str, Any]) -> None:
    first, last = campaign["history"]["iterations"]
    assert last["n_labels"] == first["n_labels"] + first["labelling"]["n_labelled"]
    assert last["errors"]["train"]["n_frames"] > first["errors"]["train"]["n_frames"]
    assert campaign["status"].count("labelled") == last["n_labels"]


def test_every_output_was_made_by_a_process(campaign: dict[str, Any]) -> None:
    assert campaign["creators"] == {
        "dataset": "extend_dataset",
        "uncertainty": "CalibrateCalculation",
        "history": "extend_history",
    }


def test_no_group_is_on_both_sides_of_the_split(campaign: dict[str, Any]) -> None:
    splits: dict[str, set[str]] = {}
    for group, split in zip(campaign["groups"], campaign["splits"], strict=True):
        splits.setdefault(group, set()).add(split)
    assert all(len(found) == 1 for found in splits.values())
    assert {"train", "validation", "test"} <= set(campaign["splits"])


@pytest.mark.parametrize("process", JOBS)
def test_the_job_ran_in_a_python_without_aiida(campaign: dict[str, Any], process: str) -> None:
    jobs = [job for job in campaign["jobs"] if job["process"] == process]
    assert jobs
    for job in jobs:
        assert job["exit_status"] == 0
        done = subprocess.run(
            [job["python"], "-c", "import aiida"], capture_output=True, text=True, check=False, env={}
        )
        assert "No module named 'aiida'" in done.stderr
