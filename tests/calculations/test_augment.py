"""AugmentCalculation, and its task where there is no AiiDA."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aiida_alpot.calculations.augment import AugmentCalculation
from aiida_alpot.calculations.kernel import get_kernel
from aiida_alpot.data.pes import PESData
from aiida_alpot.kernel.dataset import Dataset

SETTINGS = {"copies": 2, "rattle": {}}


@pytest.fixture(scope="module")
def augmented(run_job: Callable[..., Any], starting_frames: PESData) -> Any:
    return run_job(AugmentCalculation, frames=starting_frames, settings=SETTINGS, seed=1)


def test_every_input_gives_itself_and_its_copies(augmented: Any) -> None:
    outputs, node = augmented
    assert node.is_finished_ok, node.exit_message
    assert len(outputs["frames"]) == 2 * (1 + 2)
    assert outputs["frames"].n_labelled == 0


def test_the_report_says_what_ran_where(augmented: Any) -> None:
    report = augmented[0]["report"].get_dict()
    assert (report["status"], report["task"]) == ("ok", "augment")
    assert report["results"]["n_frames"] == 6
    assert {"version", "python", "seconds"} <= set(report)


def test_the_kernel_is_an_input_of_the_job(augmented: Any) -> None:
    assert augmented[1].inputs.kernel.uuid == get_kernel().uuid


def test_the_same_frames_and_seed_give_the_same_frames_without_aiida(
    tmp_path: Path, augmented: Any, starting_frames: PESData
) -> None:
    (tmp_path / "kernel.pyz").write_bytes(get_kernel().get_content("rb"))
    starting_frames.export(tmp_path / "frames.h5")
    task = {"settings": SETTINGS, "seed": 1, "frames": "frames.h5"}
    (tmp_path / "task.json").write_text(json.dumps(task))
    program = (
        "import runpy, sys\n"
        "sys.modules['aiida'] = None\n"
        "sys.argv = ['kernel.pyz', 'augment', 'task.json']\n"
        "try:\n"
        "    runpy.run_path('kernel.pyz', run_name='__main__')\n"
        "finally:\n"
        "    import aiida_alpot\n"
        "    assert 'kernel.pyz' in aiida_alpot.__file__, aiida_alpot.__file__\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "report.json").read_text())["status"] == "ok"
    with Dataset.open(tmp_path / "augmented.h5") as dataset:
        assert dataset.content_hash == augmented[0]["frames"].content_hash


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": {"ratle": {}}}, "augment.settings: unknown key 'ratle'; did you mean 'rattle'"),
        ({"settings": {"copies": -1}}, "'copies' must not be negative, got -1"),
        ({"seed": -5}, "seed: expected at least 0, got -5"),
    ],
)
def test_wrong_settings_are_refused_by_name(
    run_job: Callable[..., Any], starting_frames: PESData, change: dict[str, Any], message: str
) -> None:
    inputs = {"frames": starting_frames, "settings": SETTINGS, "seed": 1}
    with pytest.raises(ValueError, match=message):
        run_job(AugmentCalculation, **{**inputs, **change})


@pytest.mark.usefixtures("aiida_profile")
def test_an_empty_dataset_is_refused(run_job: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="frames: the dataset has no frame"):
        run_job(AugmentCalculation, frames=PESData.from_frames([]), settings=SETTINGS, seed=1)
