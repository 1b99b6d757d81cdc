"""One whole loop with EMT labels through a daemon, in a process and a profile of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("loop")
    environment = {
        **os.environ,
        "AIIDA_PATH": str(folder),
        "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    script = Path(__file__).with_name("campaign.py")
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False, env=environment, timeout=580
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_the_loop_ends_with_a_reason_and_all_outputs(campaign: dict[str, Any]) -> None:
    assert campaign["exit_status"] == 0, campaign["exit_message"]
    assert campaign["outputs"] == ["dataset", "history", "potentials", "result", "uncertainty"]
    assert campaign["result"]["reason"] in ("max_iterations", "converged")
    assert campaign["n_potentials"] == 2
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
