"""AugmentCalculation, and its task where there is no AiiDA."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ase.build import bulk

from aiida_alpot.calculations.augment import AugmentCalculation
from aiida_alpot.calculations.kernel import get_kernel
from aiida_alpot.data.pes import PESData
from aiida_alpot.data.potential import PotentialData
from aiida_alpot.kernel.dataset import Dataset
from aiida_alpot.kernel.potentials import load
from aiida_alpot.kernel.tasks.augment import mean_energy
from aiida_alpot.testing.models import make_tiny_mace

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


# Monte-Carlo swaps with a real potential, loaded in the job


SWAPS = {"copies": 3, "keep_input": False, "swap": {"temperature": 500.0, "attempts": 8}}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    paths = [tmp_path_factory.mktemp("alloy") / f"m{seed}.model" for seed in range(2)]
    for seed, path in enumerate(paths):
        make_tiny_mace(path, species=(29, 79), seed=seed)
    return paths


@pytest.fixture(scope="module")
def potentials(aiida_profile: Any, models: list[Path]) -> dict[str, PotentialData]:
    return {
        path.stem: PotentialData.from_file(path, engine="mace", symbols=["Cu", "Au"], cutoff=4.0).store()
        for path in models
    }


@pytest.fixture(scope="module")
def alloy(aiida_profile: Any) -> PESData:
    atoms = bulk("Cu", a=3.7, cubic=True) * (2, 1, 1)
    atoms.symbols[:3] = "Au"
    return PESData.from_frames([atoms]).store()


def test_atoms_change_places_by_the_energies_of_the_potential(
    run_job: Callable[..., Any], alloy: PESData, potentials: dict[str, PotentialData], models: list[Path]
) -> None:
    outputs, node = run_job(AugmentCalculation, frames=alloy, settings=SWAPS, seed=1, potentials=potentials)
    assert node.is_finished_ok, node.exit_message
    compute = mean_energy([load(path, "mace", dtype="float64") for path in models])
    for atoms in outputs["frames"]:
        assert atoms.info["config_type"] == "swap"
        assert Counter(atoms.symbols) == {"Au": 3, "Cu": 5}
        told = json.loads(atoms.info["parameters"])["swap"]
        assert told["energy_start"] == pytest.approx(compute(alloy[0]))
        assert told["energy_end"] == pytest.approx(compute(atoms))


def test_the_potentials_must_be_there_and_know_the_species(
    run_job: Callable[..., Any], alloy: PESData, potentials: dict[str, PotentialData]
) -> None:
    inputs = {"frames": alloy, "settings": SWAPS, "seed": 1}
    with pytest.raises(ValueError, match="swap: the energies of a potential are needed, got none"):
        run_job(AugmentCalculation, **inputs)
    silver = PESData.from_frames([bulk("Ag") * (2, 1, 1)]).store()
    with pytest.raises(ValueError, match="frames: Ag unknown to the potential"):
        run_job(AugmentCalculation, **{**inputs, "frames": silver}, potentials=potentials)


def test_an_element_of_the_alloy_that_the_potential_lacks_is_told(
    run_job: Callable[..., Any], alloy: PESData, potentials: dict[str, PotentialData]
) -> None:
    settings = {**SWAPS, "alloy": {"alloy_species": ["Cu", "Ag"]}}
    _, node = run_job(AugmentCalculation, frames=alloy, settings=settings, seed=1, potentials=potentials)
    assert node.exit_status == 320
    assert "Ag" in node.exit_message
