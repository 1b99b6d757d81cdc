"""What reaches a compute node: task files, models, error bars and datasets that are damaged or lie.

Every case runs the door of a job, ``python -m aiida_alpot.kernel TASK task.json``: it must end with an exit status and
a report whose message names the input, and never with a traceback in place of a report.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator

from aiida_alpot.kernel.__main__ import main
from aiida_alpot.kernel.dataset import Dataset, write
from aiida_alpot.kernel.labelling.shards import without_labels
from aiida_alpot.kernel.uncertainty import Calibration, UncertaintyModel

pytestmark = pytest.mark.timeout(60)

ARGON = {"sigma": 3.4, "epsilon": 0.0104, "rc": 6.0, "smooth": True}
SPLITS = ["train"] * 4 + ["validation", "test", "calibration", "calibration"]
Task = dict[str, Any]


def argon(n_frames: int = 8) -> list[Any]:
    rng = np.random.default_rng(0)
    frames = []
    for k in range(n_frames):
        atoms = bulk("Ar", "fcc", a=5.3, cubic=True)
        atoms.positions += rng.normal(0, 0.1, atoms.positions.shape)
        atoms.info["group"] = f"argon-{k}"
        atoms.calc = LennardJones(**ARGON)
        labels = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(), "stress": atoms.get_stress()}
        atoms.calc = SinglePointCalculator(atoms, **labels)
        frames.append(atoms)
    return frames


def write_model(path: Path, epsilon: float) -> dict[str, str]:
    model = {"calculator": "ase.calculators.lj:LennardJones", "parameters": {**ARGON, "epsilon": epsilon}}
    path.write_text(json.dumps(model))
    return entry(path)


def entry(path: Path, engine: str = "ase", dtype: str = "float64") -> dict[str, str]:
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"file": path.name, "engine": engine, "sha256": sha256, "dtype": dtype}


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """The folder of a job with everything that any task but the training needs."""
    write(tmp_path / "frames.h5", argon(), split=SPLITS)
    members = {f"m{k:03d}": write_model(tmp_path / f"m{k:03d}.model", 0.01 + 0.001 * k) for k in range(2)}
    UncertaintyModel(
        calibrations={"force": Calibration(scale=1.0, calibrated=True, n_points=10)},
        tolerances={"force": 1e-4},
        model_hashes=tuple(member["sha256"] for member in members.values()),
    ).save(tmp_path / "uncertainty.h5")
    return tmp_path


def good_task(name: str, folder: Path) -> Task:
    """Return a task file that would run."""
    potentials = {path.stem: entry(path) for path in sorted(folder.glob("m*.model"))}
    committee = {"potentials": potentials, "uncertainty": "uncertainty.h5", "seed": 1}
    md = {"n_steps": 2, "sample_every": 1, "check_every": 1, "temperatures": [10.0], "ensemble": "nvt"}
    tasks: dict[str, Task] = {
        "augment": {"frames": "frames.h5", "settings": {"copies": 1, "rattle": {}}, "seed": 1},
        "label_ase": {
            "frames": "frames.h5",
            "settings": {"calculator": "ase.calculators.lj:LennardJones", "isolated": False},
        },
        "train_mace": {"dataset": "frames.h5", "settings": {}, "seed": 1},
        "calibrate": {"dataset": "frames.h5", "settings": {"feature_kind": None, "n_min": 1}, "potentials": potentials},
        "explore_ase": {**committee, "frames": "frames.h5", "settings": md, "label": "i000", "iteration": 0,
                        "first": 0, "last": 1},
        "evaluate": {**committee, "candidates": ["frames.h5"], "settings": {"budget": 4}},
    }  # fmt: skip
    return tasks[name]


def run(name: str, task: Task | bytes, folder: Path) -> dict[str, Any]:
    """Run a task and return its report."""
    content = task if isinstance(task, bytes) else json.dumps(task).encode()
    (folder / "task.json").write_bytes(content)
    status = main([name, str(folder / "task.json")])
    report = json.loads((folder / "report.json").read_text(), parse_constant=pytest.fail)
    assert status == (0 if report["status"] == "ok" else 1)
    return report


@pytest.mark.parametrize("name", ["augment", "label_ase", "calibrate", "explore_ase", "evaluate"])
def test_the_good_task_runs(name: str, job: Path) -> None:
    report = run(name, good_task(name, job), job)
    assert report["status"] == "ok", report["message"]


CONTENTS: dict[str, tuple[bytes, str]] = {
    "task-01 no content": (b"", "cannot be read"),
    "task-02 cut in the middle": (b'{"settings": {"cop', "cannot be read"),
    "task-03 no object": (b"[1, 2]", "expected a JSON object, got list"),
    "task-04 no UTF-8": (b'{"settings": "caf\xe9"}', "utf-8"),
    "task-05 a pickle": (pickle.dumps({"settings": {}}), "utf-8"),
    "task-06 NaN": (b'{"settings": {}, "seed": NaN}', "NaN is no number"),
    "task-07 infinity": (b'{"settings": {}, "walltime_s": Infinity}', "Infinity is no number"),
    "task-08 nested a hundred thousand deep": (b'{"a":' * 100_000, "cannot be read"),
    "task-09 a number of a million digits": (b'{"seed": ' + b"9" * 1_000_000 + b"}", "cannot be read"),
}


@pytest.mark.parametrize("case", CONTENTS)
def test_an_unreadable_task_file_is_reported(case: str, job: Path, says: Any, capsys: Any) -> None:
    content, words = CONTENTS[case]
    report = run("augment", content, job)
    assert report["status"] == "invalid_input"
    says(report["message"], ["task.json", words])
    assert "Traceback" not in capsys.readouterr().err


def test_a_task_file_that_is_missing_is_reported(job: Path) -> None:
    """task-10 no task file."""
    assert main(["augment", str(job / "task.json")]) == 1
    assert "task.json" in json.loads((job / "report.json").read_text())["message"]


def test_a_task_file_in_a_folder_that_is_missing_ends_without_a_traceback(job: Path, capsys: Any) -> None:
    """task-11 no folder to put a report into."""
    assert main(["augment", str(job / "absent" / "task.json")]) == 1
    error = capsys.readouterr().err
    assert "task.json" in error
    assert "Traceback" not in error


REQUIRED = {
    "augment": ("settings", "frames", "seed"),
    "label_ase": ("settings", "frames"),
    "train_mace": ("settings", "dataset", "seed"),
    "calibrate": ("settings", "dataset", "potentials"),
    "explore_ase": ("settings", "frames", "seed", "potentials", "uncertainty", "label", "iteration", "first", "last"),
    "evaluate": ("settings", "seed", "potentials", "uncertainty", "candidates"),
}
MISSING = [(name, key) for name, keys in REQUIRED.items() for key in keys]


@pytest.mark.parametrize(("name", "key"), MISSING, ids=[f"task-12 {name} without {key}" for name, key in MISSING])
def test_a_missing_entry_is_named(name: str, key: str, job: Path, says: Any) -> None:
    task = good_task(name, job)
    del task[key]
    report = run(name, task, job)
    assert report["status"] == "invalid_input"
    says(report["message"], ["task.json", f"'{key}' is required"])


WRONG: dict[str, tuple[str, str, Any, Sequence[str]]] = {
    "task-13 settings in a list": ("augment", "settings", [1], ["task.json: settings", "expected a mapping"]),
    "task-14 a seed in letters": ("augment", "seed", "one", ["task.json: seed", "expected int", "'one'"]),
    "task-15 a seed with a fraction": ("augment", "seed", 1.7, ["task.json: seed", "expected int", "1.7"]),
    "task-16 a seed that is true": ("augment", "seed", True, ["task.json: seed", "expected int"]),
    "task-17 a negative seed": ("augment", "seed", -3, ["task.json: seed", "at least 0, got -3"]),
    "task-18 a walltime in letters": ("label_ase", "walltime_s", "1h", ["task.json: walltime_s", "'1h'"]),
    "task-19 a negative walltime": ("explore_ase", "walltime_s", -5, ["task.json: walltime_s", "negative"]),
    "task-20 frames given as a number": ("augment", "frames", 7, ["task.json: frames", "expected str"]),
    "task-21 a path out of the folder": (
        "augment", "frames", "../frames.h5", ["task.json: frames", "'../frames.h5'", "not in the folder"]),
    "task-22 an absolute path": ("label_ase", "frames", "/etc/passwd", ["task.json: frames", "not in the folder"]),
    "task-23 a path with a NUL": ("augment", "frames", "frames\0.h5", ["task.json: frames", "not in the folder"]),
    "task-24 a file that was not copied": (
        "augment", "frames", "absent.h5", ["task.json: frames", "no file 'absent.h5'", "was it copied there?"]),
    "task-25 a folder in place of a file": ("augment", "frames", ".", ["task.json: frames", "no file '.'"]),
    "task-26 candidates out of the folder": (
        "evaluate", "candidates", ["../c.h5"], ["task.json: candidates", "not in the folder"]),
    "task-27 candidates as one text": ("evaluate", "candidates", "frames.h5", ["candidates", "expected a list"]),
    "task-28 potentials in a list": ("calibrate", "potentials", [1], ["potentials", "expected a mapping"]),
    "task-29 a committee of none": ("calibrate", "potentials", {}, ["no potential"]),
    "task-30 a potential without its file": (
        "calibrate", "potentials", {"m0": {}}, ["potentials.m0", "'file' is required"]),
    "task-31 a potential out of the folder": (
        "evaluate", "potentials", {"m0": {"file": "../m"}}, ["potentials.m0: file", "not in the folder"]),
    "task-32 a potential that is a text": ("evaluate", "potentials", {"m0": "m"}, ["potentials.m0", "a mapping"]),
    "task-33 a part of the plan in letters": ("explore_ase", "first", "a", ["task.json: first", "expected int"]),
    "task-34 a part of the plan beyond its end": (
        "explore_ase", "first", 900, ["first", "900", "trajectories"]),
    "task-35 a warm start from a missing parent": (
        "train_mace", "parent", {"file": "p.model", "sha256": "0"}, ["parent", "no file 'p.model'"]),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_entry_is_named(case: str, job: Path, says: Any) -> None:
    name, key, value, words = WRONG[case]
    report = run(name, {**good_task(name, job), key: value}, job)
    assert report["status"] == "invalid_input", report
    says(report["message"], words)


def retold(path: Path) -> dict[str, Any]:
    """Return the entries of a committee whose first file was replaced, with its new hash."""
    return {found.stem: entry(found) for found in sorted(path.parent.glob("m*.model"))}


MODELS: dict[str, tuple[bytes | None, str, Sequence[str]]] = {
    "model-01 cut in the middle": (b'{"calculator": "ase.calc', "ase", ["m000.model", "not a JSON text"]),
    "model-02 no content": (b"", "ase", ["m000.model", "not a JSON text"]),
    "model-03 binary": (b"\x80\x04\x95\xff\xfe", "ase", ["m000.model", "not a JSON text"]),
    "model-04 no object": (b"[]", "ase", ["m000.model", "expected a JSON object"]),
    "model-05 a wrong key": (b'{"calculater": "a.b:C"}', "ase", ["m000.model", "'calculater'", "'calculator'"]),
    "model-06 a parameter that is NaN": (
        b'{"calculator": "ase.calculators.lj:LennardJones", "parameters": {"sigma": NaN}}',
        "ase",
        ["m000.model", "NaN is no number"],
    ),
    "model-07 a calculator that is none": (b'{"calculator": "os:getcwd"}', "ase", ["'os:getcwd'", "not an ASE calc"]),
    "model-08 a calculator that is not there": (b'{"calculator": "ase:Nothing"}', "ase", ["ase", "has no 'Nothing'"]),
    "model-09 species that do not exist": (
        b'{"calculator": "ase.calculators.emt:EMT", "species": [999]}', "ase", ["m000.model", "[999]"]),
    "model-10 an unknown engine": (None, "maze", ["'maze'", "did you mean 'mace'"]),
    "model-11 an engine of another kind": (None, "mace", ["m000.model", "MACE model", "copy or train it again"]),
    "model-12 MACE cut in the middle": (b"PK\x03\x04" + bytes(200), "mace", ["m000.model", "MACE model", "truncated"]),
    "model-13 a pickle of something else": (pickle.dumps([1, 2]), "mace", ["m000.model", "MACE"]),
    "model-14 a pickle of a class that is not there": (
        b"cno_such_module\nThing\n.", "mace", ["m000.model", "MACE model", "no_such_module"]),
    "model-15 a pickle cut off": (pickle.dumps(list(range(999)))[:50], "mace", ["m000.model", "MACE model"]),
}  # fmt: skip


@pytest.mark.parametrize("case", MODELS)
def test_an_unreadable_model_is_named(case: str, job: Path, says: Any) -> None:
    content, engine, words = MODELS[case]
    if engine == "mace":
        pytest.importorskip("mace")
    path = job / "m000.model"
    if content is not None:
        path.write_bytes(content)
    task = good_task("calibrate", job)
    task["potentials"]["m000"] = entry(path, engine)
    report = run("calibrate", task, job)
    assert report["status"] == "invalid_input", report
    says(report["message"], words)


def test_a_model_that_is_not_the_one_of_its_hash_is_never_loaded(job: Path, says: Any) -> None:
    """model-16 a file exchanged after it was trusted."""
    task = good_task("calibrate", job)
    (job / "m000.model").write_bytes(pickle.dumps("anything"))
    says(run("calibrate", task, job)["message"], ["m000.model has sha256", "expected", "copy it again"])


def test_a_species_unknown_to_the_committee_is_named(job: Path, says: Any) -> None:
    """model-17 gold among the candidates of a committee for argon."""
    for path in sorted(job.glob("m*.model")):
        path.write_text(json.dumps({**json.loads(path.read_text()), "species": [18]}))
    gold = bulk("Au", cubic=True)
    write(job / "frames.h5", [gold])
    task = good_task("evaluate", job)
    UncertaintyModel(
        tolerances={"force": 1e-4}, model_hashes=tuple(e["sha256"] for e in task["potentials"].values())
    ).save(job / "uncertainty.h5")
    report = run("evaluate", task, job)
    assert report["status"] == "invalid_input"
    says(report["message"], ["frame 0", "Au", "knows only Ar"])


def change(name: str, **values: Any) -> Callable[[Path], None]:
    """Return a function that rewrites the header of an uncertainty file."""

    def apply(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            header = json.loads(file["header"][...].tobytes())
            header.update(values) if name == "header" else header[name].update(values)
            del file["header"]
            file["header"] = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)

    return apply


def without(key: str) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            del file[key]

    return apply


def replaced(content: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda path: void(path.write_bytes(content(path.read_bytes())))


def void(_: object) -> None:
    """Return nothing."""


def linked(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["header"]
        file["header"] = h5py.ExternalLink("other.h5", "header")


def another_kind(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.attrs["kind"] = "active_set"


UNCERTAINTY: dict[str, tuple[Callable[[Path], None], Sequence[str]]] = {
    "bars-01 cut in the middle": (replaced(lambda c: c[: len(c) // 2]), ["uncertainty.h5", "truncated"]),
    "bars-02 no content": (replaced(lambda _: b""), ["uncertainty.h5", "no HDF5 file"]),
    "bars-03 a dataset instead": (
        lambda path: void(path.write_bytes((path.parent / "frames.h5").read_bytes())),
        ["uncertainty.h5", "expected a file of kind"],
    ),
    "bars-04 a file of another kind": (another_kind, ["uncertainty.h5", "expected a file of kind"]),
    "bars-05 no header": (without("header"), ["uncertainty.h5", "header", "calibrate stage again"]),
    "bars-06 a header in a list": (change("header", calibrations=[1]), ["uncertainty.h5", "calibrate stage again"]),
    "bars-07 an unknown property": (change("tolerances", forze=1.0), ["uncertainty.h5", "'forze'"]),
    "bars-08 a negative tolerance": (change("tolerances", force=-1.0), ["uncertainty.h5", "positive"]),
    "bars-09 a tolerance in letters": (change("tolerances", force="low"), ["uncertainty.h5", "calibrate stage again"]),
    "bars-10 a calibration without its numbers": (
        change("calibrations", force={}), ["uncertainty.h5", "calibrate stage again"]),
    "bars-11 an active set that is not there": (
        change("header", active_set="active_set"), ["uncertainty.h5", "calibrate stage again"]),
    "bars-12 error bars of another committee": (
        change("header", model_hashes=["0" * 64]), ["belongs to other models", "calibrate again"]),
    "bars-13 content that lies in another file": (linked, ["uncertainty.h5", "outside the file"]),
}  # fmt: skip


@pytest.mark.parametrize("case", UNCERTAINTY)
@pytest.mark.parametrize("name", ["explore_ase", "evaluate"])
def test_unusable_error_bars_are_named(case: str, name: str, job: Path, says: Any) -> None:
    damage, words = UNCERTAINTY[case]
    damage(job / "uncertainty.h5")
    report = run(name, good_task(name, job), job)
    assert report["status"] == "invalid_input", report
    says(report["message"], words)


def test_every_flipped_byte_of_error_bars_is_refused_or_survived(job: Path) -> None:
    """bars-14 every 53rd byte flipped, one at a time: an error is a ValueError that names the file."""
    content = (job / "uncertainty.h5").read_bytes()
    for position in range(0, len(content), 53):
        damaged = bytearray(content)
        damaged[position] ^= 0xFF
        (job / "flipped.h5").write_bytes(damaged)
        try:
            UncertaintyModel.load(job / "flipped.h5")
        except ValueError as error:
            assert "flipped.h5" in str(error), f"byte {position}: {error}"  # noqa: PT017


def test_a_truncated_dataset_of_a_job_is_named(job: Path, says: Any) -> None:
    """task-36 a copy that was cut off on its way to the compute node."""
    content = (job / "frames.h5").read_bytes()
    for name in ("augment", "label_ase", "calibrate", "explore_ase", "evaluate"):
        (job / "frames.h5").write_bytes(content[:-100])
        report = run(name, good_task(name, job), job)
        assert report["status"] == "invalid_input", name
        says(report["message"], ["frames.h5", "truncated", "fetch or write it again"])


def test_a_folder_that_cannot_be_written_is_reported(job: Path, monkeypatch: Any, says: Any, capsys: Any) -> None:
    """task-37 the disk is full."""

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device", "augmented.h5")

    monkeypatch.setattr("aiida_alpot.kernel.tasks.augment.write", full)
    report = run("augment", good_task("augment", job), job)
    assert report["status"] == "failed"
    says(report["message"], ["No space left on device", "augmented.h5", "quota"])
    assert "Traceback" not in capsys.readouterr().err


def test_a_report_that_cannot_be_written_is_told_on_the_terminal(job: Path, monkeypatch: Any, capsys: Any) -> None:
    """task-38 the disk is full when the report is written."""

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("aiida_alpot.kernel.__main__.write_json", full)
    (job / "task.json").write_text("[]")
    assert main(["augment", str(job / "task.json")]) == 1
    error = capsys.readouterr().err
    assert "cannot write report.json" in error
    assert "expected a JSON object" in error
    assert "Traceback" not in error


def test_labels_that_are_not_finite_never_count(job: Path) -> None:
    """label-01 a calculator that gives NaN; label-02 one that raises; label-03 one that overflows."""
    settings = {"calculator": "ase.calculators.lj:LennardJones", "isolated": False}
    overlapping = argon(2)
    overlapping[0].positions[1] = overlapping[0].positions[0]
    overlapping[1].positions[1] = overlapping[1].positions[0] + 1e-60
    for atoms in overlapping:
        atoms.calc = None
    write(job / "frames.h5", overlapping)
    report = run("label_ase", {"frames": "frames.h5", "settings": settings}, job)
    assert report["results"]["n_labelled"] == 0
    with Dataset.open(job / "labelled.h5") as dataset:
        assert all(reason for reason in dataset.column("reason"))
        assert set(dataset.column("status")) <= {"failed", "quarantined"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        pytest.param({"calculator": "EMT"}, ["label.parameters", "'package.module:Name'"], id="label-04 no path"),
        pytest.param({"calculator": "no_such.code:X"}, ["no_such", "install it"], id="label-05 no package"),
        pytest.param({"calculator": "ase.calculators.emt:EMTT"}, ["has no 'EMTT'"], id="label-06 no class"),
        pytest.param({"calculator": "os:system"}, ["'os:system'"], id="label-07 a function of another kind"),
        pytest.param(
            {"calculator": "ase.calculators.lj:LennardJones", "parameters": {"sigm": 1}}, ["sigm"], id="label-08 key"
        ),
        pytest.param({"calculator": "a.b:C", "n_workers": 0}, ["n_workers must be positive"], id="label-09 workers"),
        pytest.param({"calculator": "a.b:C", "frame_timeout_s": 1.0}, ["isolated must be true"], id="label-10 both"),
    ],
)
def test_a_wrong_calculator_is_named(settings: Task, words: Sequence[str], job: Path, says: Any) -> None:
    report = run("label_ase", {"frames": "frames.h5", "settings": {"isolated": False, **settings}}, job)
    assert report["status"] in ("invalid_input", "missing_package"), report
    says(report["message"], words)


def test_a_hanging_calculator_costs_its_frame_and_no_more(job: Path) -> None:
    """label-11 a calculator that never answers."""
    (job / "sleeper.py").write_text(
        "import time\nfrom ase.calculators.calculator import Calculator\n"
        "class Sleeper(Calculator):\n"
        "    implemented_properties = ['energy', 'forces']\n"
        "    def calculate(self, *args, **kwargs):\n        time.sleep(600)\n"
    )
    write(job / "frames.h5", [without_labels(atoms) for atoms in argon(1)])
    settings = {"calculator": "sleeper:Sleeper", "frame_timeout_s": 1.0}
    (job / "task.json").write_text(json.dumps({"frames": "frames.h5", "settings": settings}))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(job), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, "-m", "aiida_alpot.kernel", "label_ase", str(job / "task.json")],
        env=environment, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with Dataset.open(job / "labelled.h5") as dataset:
        assert dataset.column("status").tolist() == ["failed"]
        assert "not finished after 1 s" in dataset.column("reason")[0]


def test_a_wrong_call_of_the_runner_lists_its_tasks() -> None:
    """task-39 an unknown task, as a scheduler would call it."""
    done = subprocess.run(
        [sys.executable, "-m", "aiida_alpot.kernel", "../augment", "task.json"],
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "usage" in done.stderr
    assert "Traceback" not in done.stderr
