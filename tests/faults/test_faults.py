"""The short form of inject.py: every kind of fault once, in campaigns that must end as if nothing had happened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("faults")
    script = Path(__file__).with_name("inject.py")
    command = [
        sys.executable,
        str(script),
        "--work",
        str(folder),
        "--faults",
        "6",
        "--per-campaign",
        "3",
        "--every",
        "4",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ), timeout=580)
    assert (folder / "faults.json").exists(), done.stderr[-3000:]
    return json.loads((folder / "faults.json").read_text(encoding="utf-8"))


def test_disturbed_campaigns_end_with_the_dataset_of_the_undisturbed(outcomes: list[dict[str, Any]]) -> None:
    assert [outcome["problem"] for outcome in outcomes] == [""] * len(outcomes)
    assert len({outcome["content_hash"] for outcome in outcomes}) == 1
    assert len({outcome["usage_hash"] for outcome in outcomes}) == 1


def test_every_kind_of_fault_hit_something(outcomes: list[dict[str, Any]]) -> None:
    faults = [fault for outcome in outcomes for fault in outcome["faults"]]
    kinds = {fault["kind"] for fault in faults}
    assert {"job killed", "walltime", "worker killed", "daemon restarted", "reboot"} <= kinds
    assert all(fault["victims"] > 0 for fault in faults)
