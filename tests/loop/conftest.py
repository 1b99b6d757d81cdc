"""The same campaign in two new profiles, run once and looked at by many tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("campaign.py")
TIMEOUT = 1700


@dataclass
class Started:
    """A campaign in a process and an AIIDA_PATH of its own."""

    process: subprocess.Popen[str]
    result: Path

    def wait(self) -> dict[str, Any]:
        """Return what it wrote when it ended."""
        _, stderr = self.process.communicate(timeout=TIMEOUT)
        assert self.process.returncode == 0, stderr[-3000:]
        return json.loads(self.result.read_text())

    def stop(self) -> None:
        """End it if it still runs; it stops its daemon first."""
        if self.process.poll() is None:
            self.process.terminate()
            self.process.communicate(timeout=60)


def start_campaign(folder: Path, command: str, *arguments: Any) -> Started:
    """Start ``campaign.py COMMAND RESULT ARGUMENTS`` with *folder* as its AIIDA_PATH."""
    environment = {
        **os.environ,
        "AIIDA_PATH": str(folder),
        "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    result = folder / "result.json"
    words = [sys.executable, str(SCRIPT), command, str(result), *map(str, arguments)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)
    return Started(process, result)


@dataclass
class Campaigns:
    """What came of the campaign: twice in one profile with caching, once in another without, and of its archive."""

    cached: dict[str, Any]
    fresh: dict[str, Any]
    imported: dict[str, Any]
    models: dict[str, Path]

    @property
    def first(self) -> dict[str, Any]:
        """The campaign that ran first, with nothing in the cache."""
        return self.cached["runs"][0]

    @property
    def again(self) -> dict[str, Any]:
        """The same campaign in the same profile once more."""
        return self.cached["runs"][1]

    @property
    def elsewhere(self) -> dict[str, Any]:
        """The same campaign in another profile."""
        return self.fresh["runs"][0]


@pytest.fixture(scope="session")
def campaigns(tmp_path_factory: pytest.TempPathFactory, compute_node: Path) -> Campaigns:
    """Run the campaign in two profiles at the same time, and import it into a third."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("cached", "fresh", "imported")}
    started = {
        "cached": start_campaign(folders["cached"], "run", compute_node, "--times", 2, "--caching"),
        "fresh": start_campaign(folders["fresh"], "run", compute_node),
    }
    try:
        results = {name: campaign.wait() for name, campaign in started.items()}
    finally:
        for campaign in started.values():
            campaign.stop()
    archive = folders["cached"] / "result.aiida"
    results["imported"] = start_campaign(folders["imported"], "import", archive).wait()
    models = {path.stem: path for path in sorted((folders["cached"] / "result.potentials").iterdir())}
    return Campaigns(**results, models=models)
