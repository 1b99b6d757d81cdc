"""Labelling a dataset with calculators that work, fail, hang and crash."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from aiida_alpot.kernel._extras import MissingPackageError
from aiida_alpot.kernel.dataset import Dataset, write
from aiida_alpot.kernel.labelling import (
    CalculatorError,
    LabelSettings,
    check_labels,
    label_dataset,
    label_fingerprint,
    partial_pack,
)
from aiida_alpot.kernel.labelling.shards import read_shard, shard_path
from aiida_alpot.kernel.settings import SettingsError, parse_settings

BROKEN = '''
import errno, os, resource, time
import numpy as np
import aiida_alpot
from ase.calculators.emt import EMT


class Broken(EMT):
    """EMT that misbehaves for frames with a given number of atoms and leaves a line per frame in a file."""

    def __init__(self, log, how=None, n_atoms=2, pause=0.0):
        super().__init__()
        self.log, self.how, self.n_atoms, self.pause = log, how, n_atoms, pause
        with open(self.log + ".built", "a") as file:
            file.write("built\\n")

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        with open(self.log, "a") as file:
            file.write(f"{len(atoms)} {atoms.positions[0, 0]:.6f} {os.environ['OMP_NUM_THREADS']}\\n")
        time.sleep(self.pause)
        hit = len(atoms) == self.n_atoms
        if hit and self.how == "raise":
            raise RuntimeError("SCF did\\nnot converge")
        if hit and self.how == "exit":
            os._exit(7)
        if hit and self.how == "kill":
            os.kill(os.getpid(), 9)
        if hit and self.how == "sleep":
            time.sleep(1000)
        while hit and self.how == "wait" and os.path.exists(self.log + ".wait"):
            time.sleep(0.1)
        print("noise on stdout, kernel from", aiida_alpot.__file__)
        super().calculate(atoms, properties, system_changes)
        if hit and self.how == "full":
            raise OSError(errno.ENOSPC, "No space left on device", "input")
        if hit and self.how == "limit":
            resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))
        if hit and self.how == "nan":
            self.results["forces"][0, 0] = np.nan
        if hit and self.how == "shape":
            self.results["forces"] = self.results["forces"][:1]


def dies(**parameters):
    os._exit(3)
'''


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """Make settings of a calculator that misbehaves."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "broken_calculator.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))

    def make(how=None, pause=0.0, **settings):
        parameters = {"log": str(tmp_path / "calls"), "how": how, "pause": pause}
        return LabelSettings("broken_calculator:Broken", parameters, **settings)

    return make


@pytest.fixture
def calls(tmp_path):
    """Count how often the calculator ran."""
    log = tmp_path / "calls"
    return lambda: len(log.read_text().splitlines()) if log.exists() else 0


def frame(n_atoms: int, seed: int) -> Atoms:
    atoms = bulk("Cu") * (n_atoms, 1, 1)
    atoms.rattle(0.05, seed=seed)
    return atoms


@pytest.fixture
def source(tmp_path) -> Path:
    """Seven frames, the third has two atoms."""
    frames = [frame(n_atoms, seed) for seed, n_atoms in enumerate((1, 3, 2, 1, 4, 3, 1))]
    for index, atoms in enumerate(frames):
        atoms.info.update(parent=f"parent-{index}", group=f"g{index}", note=f"n{index}", split="train")
    write(tmp_path / "source.h5", frames)
    return tmp_path / "source.h5"


def label(source: Path, settings: LabelSettings, name: str = "out.h5", shards: str = "shards"):
    out = source.parent / name
    report = label_dataset(source, out, settings, source.parent / shards, source.parent / "progress.json")
    with Dataset.open(out) as dataset:
        return report, list(dataset)


def test_labels_are_those_of_the_calculator_in_the_order_of_the_source(source):
    report, frames = label(source, LabelSettings("ase.calculators.emt:EMT", n_workers=2))
    assert (report.n_labelled, report.n_failed, report.n_unlabelled) == (7, 0, 0)
    with Dataset.open(source) as dataset:
        for original, labelled in zip(dataset, frames, strict=True):
            np.testing.assert_array_equal(labelled.positions, original.positions)
            original.calc = EMT()
            assert labelled.get_potential_energy() == pytest.approx(original.get_potential_energy(), abs=1e-12)
            np.testing.assert_allclose(labelled.get_forces(), original.get_forces(), atol=1e-12)
            np.testing.assert_allclose(labelled.get_stress(), original.get_stress(), atol=1e-12)
    for index, labelled in enumerate(frames):
        info = labelled.info
        assert (info["status"], info["parent"], info["note"]) == ("labelled", f"parent-{index}", f"n{index}")
        assert info["fingerprint"] == report.fingerprint
        assert info["cost"] > 0
        assert not info.get("reason")
    assert json.loads((source.parent / "progress.json").read_text()) == {"done": 7, "total": 7, "failed": 0}
    assert json.loads(json.dumps(asdict(report)))["n_frames"] == 7


def test_content_does_not_depend_on_the_number_of_workers_or_isolation(source):
    hashes = set()
    for index, settings in enumerate(({"n_workers": 1}, {"n_workers": 3}, {"isolated": False})):
        label(source, LabelSettings("ase.calculators.emt:EMT", **settings), f"{index}.h5", f"shards-{index}")
        with Dataset.open(source.parent / f"{index}.h5") as dataset:
            hashes.add(dataset.content_hash)
    assert len(hashes) == 1


def test_stress_is_there_exactly_where_it_is_defined(tmp_path):
    slab = fcc111("Cu", (1, 1, 2), vacuum=5.0)
    write(tmp_path / "source.h5", [bulk("Cu"), molecule("CO"), slab, molecule("CO", vacuum=4.0)])
    _, frames = label(tmp_path / "source.h5", LabelSettings("ase.calculators.emt:EMT", isolated=False))
    assert ["stress" in atoms.calc.results for atoms in frames] == [True, False, True, False]


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("raise", "RuntimeError: SCF did not converge"),
        ("nan", "forces is not finite"),
        ("shape", "forces has the shape (1, 3), expected (2, 3)"),
        ("exit", "WorkerDied: the process that labelled the frame ended (exit status 7)"),
        ("kill", "WorkerDied: the process that labelled the frame ended (killed by SIGKILL)"),
        ("sleep", "FrameTimeout: not finished after 1.5 s"),
    ],
)
def test_a_frame_that_goes_wrong_costs_only_itself(source, broken, how, reason):
    timeout = 1.5 if how == "sleep" else None
    report, frames = label(source, broken(how, n_workers=2, frame_timeout_s=timeout))
    assert (report.n_labelled, report.n_failed) == (6, 1)
    assert "".join(path.read_text() for path in (source.parent / "shards").glob("*.log")).count("noise") >= 6
    assert [atoms.info["status"] for atoms in frames] == ["labelled"] * 2 + ["failed"] + ["labelled"] * 4
    assert frames[2].info["reason"] == reason
    assert frames[2].calc is None or not frames[2].calc.results
    assert json.loads((source.parent / "progress.json").read_text())["failed"] == 1


def test_every_frame_can_fail(tmp_path, broken):
    write(tmp_path / "source.h5", [frame(2, seed) for seed in range(3)])
    report, _ = label(tmp_path / "source.h5", broken("exit", n_workers=2))
    assert report.n_failed == 3


@pytest.mark.parametrize("values", [{"n_workers": 2}, {"isolated": False}])
def test_no_frame_is_begun_when_too_many_have_failed_and_finished_labels_stay(tmp_path, broken, calls, values):
    """Ten frames that fail behind a good one: the third failure is more than a fifth of eleven."""
    write(tmp_path / "source.h5", [frame(3, 0), *(frame(2, seed) for seed in range(1, 11))])
    report, frames = label(tmp_path / "source.h5", broken("raise", max_failed_fraction=0.2, **values))
    assert report.is_given_up
    assert report.n_labelled == 1
    assert 3 <= report.n_failed <= 4  # the other worker may end one more
    assert report.n_unlabelled == 10 - report.n_failed
    assert frames[-1].info["status"] == "unlabelled"
    assert re.match("not begun: [34] of 11 frames had failed", frames[-1].info["reason"])
    again, _ = label(tmp_path / "source.h5", broken("raise", max_failed_fraction=1.0, **values))
    assert (again.n_failed, again.n_unlabelled, again.is_given_up) == (10, 0, False)


def test_a_calculator_is_used_again_until_it_fails(source, broken, tmp_path):
    label(source, broken("raise"))
    assert (tmp_path / "calls.built").read_text().count("built") == 2


def test_a_worker_gets_the_threads_it_was_given(source, broken, tmp_path):
    label(source, broken(threads_per_worker=3))
    assert {line.split()[2] for line in (tmp_path / "calls").read_text().splitlines()} == {"3"}


def test_walltime_leaves_the_rest_unlabelled_and_a_second_run_does_only_that(source, broken, calls):
    hold = source.parent / "calls.wait"  # the third frame takes for ever while it is there
    hold.touch()
    report, frames = label(source, broken("wait", walltime_s=10.0))
    assert (report.n_labelled, report.n_unlabelled) == (2, 5)
    assert {(atoms.info["status"], atoms.info["reason"]) for atoms in frames[2:]} == {("unlabelled", "walltime")}
    hold.unlink()
    before = calls()
    report, frames = label(source, broken("wait"))
    assert (report.n_labelled, report.n_reused) == (7, 2)
    assert calls() - before == 5


def test_frames_with_labels_of_the_same_settings_are_copied(source, broken, calls):
    report, _ = label(source, broken())
    again, frames = label(source.parent / "out.h5", broken(n_workers=2), "again.h5", "other-shards")
    assert (again.n_labelled, again.n_copied, calls()) == (7, 7, 7)
    assert {atoms.info["fingerprint"] for atoms in frames} == {report.fingerprint}
    changed, frames = label(source.parent / "out.h5", broken(pause=0.001), "changed.h5", "other-shards")
    assert (changed.n_copied, changed.n_others, changed.n_frames, calls()) == (0, 7, 14, 14)
    assert changed.fingerprint != report.fingerprint


def test_labels_of_the_same_structures_that_are_known_are_taken(source, broken, calls, tmp_path):
    _, known = label(source, broken())
    known[1].info["fingerprint"] = "another"
    known[2].info["status"] = "quarantined"
    known[3].calc.results["energy"] = -123.0
    write(tmp_path / "known.h5", known[:5])
    out, before = tmp_path / "again.h5", calls()
    report = label_dataset(source, out, broken(), tmp_path / "other-shards", known_path=tmp_path / "known.h5")
    assert (report.n_frames, report.n_labelled, report.n_reused, calls() - before) == (7, 7, 3, 4)
    with Dataset.open(out) as dataset:
        assert dataset[3].get_potential_energy() == -123.0
        assert [atoms.info["cost"] == 0.0 for atoms in dataset] == [True, False, False, True, True, False, False]
        assert [atoms.info["note"] for atoms in dataset] == [f"n{k}" for k in range(7)]


def test_shards_of_another_frame_or_other_settings_are_not_used(source, broken, calls, tmp_path):
    label(source, broken())
    with Dataset.open(source) as dataset:
        frames = list(dataset)
    frames[0], frames[6] = frames[6], frames[0]
    write(tmp_path / "swapped.h5", frames)
    report, _ = label(tmp_path / "swapped.h5", broken(), "swapped-out.h5")
    assert (report.n_reused, calls()) == (5, 9)


def test_failed_frames_are_retried_only_when_asked_for(source, broken, calls):
    label(source, broken("raise"))
    report, _ = label(source, broken("raise"))
    assert (report.n_failed, calls()) == (1, 7)
    report, _ = label(source, broken("raise", retry_failed=True))
    assert (report.n_failed, report.n_reused, calls()) == (1, 6, 8)


def test_a_damaged_shard_is_labelled_again(source, broken, calls):
    label(source, broken())
    shard_path(source.parent / "shards", 3).write_bytes(b"PK broken")
    shard_path(source.parent / "shards", 4).write_bytes(b"")
    assert read_shard(source.parent / "shards", 3) is None
    report, _ = label(source, broken())
    assert (report.n_labelled, report.n_reused, calls()) == (7, 5, 9)


def test_a_label_of_other_settings_stays_beside_the_new_one_and_is_not_taken_for_it(tmp_path, broken):
    atoms = frame(2, 0)
    atoms.calc = SinglePointCalculator(atoms, energy=5.0, forces=np.zeros((2, 3)))
    atoms.info.update(status="labelled", fingerprint="of-other-settings")
    write(tmp_path / "source.h5", [atoms])
    _, (old, failed) = label(tmp_path / "source.h5", broken("raise"))
    assert (old.info["fingerprint"], old.get_potential_energy()) == ("of-other-settings", 5.0)
    assert failed.info["status"] == "failed"
    assert failed.calc is None or not failed.calc.results
    _, (old, new) = label(tmp_path / "source.h5", LabelSettings("ase.calculators.emt:EMT"))
    assert (old.get_potential_energy(), new.info["status"]) == (5.0, "labelled")
    assert new.get_potential_energy() != 5.0


def test_an_empty_dataset_is_labelled(tmp_path):
    write(tmp_path / "source.h5", [])
    report, frames = label(tmp_path / "source.h5", LabelSettings("ase.calculators.emt:EMT"))
    assert (report.n_frames, frames) == (0, [])


@pytest.mark.parametrize(
    ("calculator", "message"),
    [
        ("nosuchpackage:Calc", "MissingObjectPackageError.*'nosuchpackage'"),
        ("ase.calculators.emt:EMTT", "has no 'EMTT'"),
        ("broken_calculator:dies", r"ended before it had built the calculator \(exit status 3\)"),
    ],
)
def test_a_calculator_that_cannot_be_built_stops_the_run(source, broken, calculator, message):
    with pytest.raises(CalculatorError, match=message):
        label(source, replace(broken(), calculator=calculator, n_workers=2))


def test_a_charged_frame_is_not_labelled_as_neutral(tmp_path):
    atoms = molecule("CO")
    atoms.info["charge"] = 1.0
    write(tmp_path / "source.h5", [atoms, molecule("CO")])
    settings = LabelSettings("ase.calculators.emt:EMT", isolated=False)
    _, frames = label(tmp_path / "source.h5", settings)
    assert [atoms.info["status"] for atoms in frames] == ["failed", "labelled"]
    assert "the frame has the charge 1, set charge_parameter" in frames[0].info["reason"]
    _, frames = label(tmp_path / "source.h5", replace(settings, charge_parameter="atoms.info"))
    assert frames[0].info["status"] == "labelled"


def test_the_charge_of_a_frame_may_be_nested_in_the_parameters_and_does_not_stay(tmp_path):
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "charged_calculator.py").write_text(CHARGED)
    frames = [molecule("CO"), molecule("CO"), molecule("N2")]
    for atoms, charge in zip(frames, (0.0, 2.0, float("nan")), strict=True):
        atoms.info["charge"] = charge
    write(tmp_path / "source.h5", frames)
    parameters = {"system": {"name": "a", "charge": 0.0}}
    settings = LabelSettings("charged_calculator:Charged", parameters, charge_parameter="system.charge", isolated=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path / "modules"))
        _, labelled = label(tmp_path / "source.h5", settings)
    assert [atoms.get_potential_energy() for atoms in labelled] == [0.0, 2.0, 0.0]


CHARGED = '''
import numpy as np
from ase.calculators.calculator import Calculator


class Charged(Calculator):
    """The energy is the charge."""

    implemented_properties = ["energy", "forces"]

    def __init__(self, system):
        super().__init__()
        self.charge = system["charge"]

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": self.charge, "forces": np.zeros((len(atoms), 3))}
'''


def test_source_is_never_overwritten(source):
    with pytest.raises(ValueError, match="cannot replace its source"):
        label_dataset(source, source, LabelSettings("ase.calculators.emt:EMT"), source.parent / "shards")


SCRIPT = """
import sys
from aiida_alpot.kernel.labelling import LabelSettings, label_dataset
source, out, shards, log, pause = sys.argv[1:]
parameters = {"log": log, "how": None, "pause": float(pause)}
report = label_dataset(source, out, LabelSettings("broken_calculator:Broken", parameters, n_workers=2), shards)
assert report.n_labelled == 7, report
"""


def run_script(folder: Path, path: list[Path], pause: float) -> subprocess.Popen:
    """Label in another process, from an unguarded script, as users write them."""
    (folder / "script.py").write_text(SCRIPT)
    names = [folder / "source.h5", folder / "out.h5", folder / "shards", folder / "calls", pause]
    return subprocess.Popen(
        [sys.executable, "script.py", *map(str, names)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))},
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def alive(group: str) -> list[str]:
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if "labelling.worker" in line and group in line]


def test_a_run_that_was_killed_is_finished_without_repeating_a_frame(source, broken, calls):
    root = Path(__file__).parents[3] / "src"
    process = run_script(source.parent, [root, source.parent / "modules"], pause=0.5)
    shards = source.parent / "shards"
    deadline = time.monotonic() + 60
    while len(list(shards.glob("frame-*.npz"))) < 2:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    deadline = time.monotonic() + 20
    while alive(str(source.parent)):
        # workers notice within a second or two that nobody waits for them
        assert time.monotonic() < deadline
        time.sleep(0.1)
    done = len(list(shards.glob("frame-*.npz")))
    assert 2 <= done < 7
    assert not (source.parent / "out.h5").exists()

    partial = partial_pack(source, shards, source.parent / "partial.h5")
    assert (partial.n_labelled, partial.n_unlabelled) == (done, 7 - done)
    before = calls()
    report, frames = label(source, broken(pause=0.5, n_workers=2))
    assert (report.n_labelled, report.n_reused) == (7, done)
    assert calls() - before == 7 - done
    assert partial.fingerprint == report.fingerprint
    assert [atoms.info["status"] for atoms in frames] == ["labelled"] * 7


def test_workers_run_from_a_zip(source, broken):
    from aiida_alpot.kernel.archive import build_archive

    archive = source.parent / "alpot-kernel.pyz"
    archive.write_bytes(build_archive())
    process = run_script(source.parent, [archive, source.parent / "modules"], pause=0.0)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 0, error.decode()
    log = "".join(path.read_text() for path in (source.parent / "shards").glob("worker-*.log"))
    assert f"noise on stdout, kernel from {archive}" in log
    assert "Error" not in log


def test_partial_pack_needs_a_run(source, tmp_path):
    with pytest.raises(FileNotFoundError):
        partial_pack(source, tmp_path / "nothing", tmp_path / "out.h5")


def labelled(atoms: Atoms, **labels) -> Atoms:
    atoms.calc = SinglePointCalculator(atoms, **({"energy": 0.0, "forces": np.zeros((len(atoms), 3))} | labels))
    return atoms


@pytest.mark.parametrize(
    ("atoms", "verdict"),
    [
        (labelled(bulk("Cu")), None),
        (labelled(molecule("H2O")), None),
        (labelled(Atoms("H")), None),
        (molecule("H2O"), "failed: there is no energy"),
        (labelled(molecule("H2O"), energy=np.inf), "failed: energy is not finite"),
        (labelled(molecule("H2O"), forces=np.zeros((2, 3))), "failed: forces has the shape (2, 3), expected (3, 3)"),
        (labelled(bulk("Cu"), stress=np.full(6, np.nan)), "failed: stress is not finite"),
        (labelled(Atoms("OH", [[0, 0, 0], [0, 0, 0.001]])), "quarantined: atoms overlap: 0 (O), 1 (H)"),
        (
            labelled(Atoms("OH", [[0, 0, 0.1], [0, 0, 4.9]], cell=[5, 5, 5], pbc=True)),
            "quarantined: atoms overlap: 0 (O), 1 (H)",
        ),
        (labelled(Atoms("Cu", cell=[0.5, 5, 5], pbc=True)), "quarantined: atoms overlap: 0 (Cu)"),
    ],
)
def test_gate_finds_what_must_not_be_trained_on(atoms, verdict):
    assert check_labels(atoms) == verdict


def test_overlapping_atoms_are_quarantined_with_their_labels(tmp_path):
    write(tmp_path / "source.h5", [Atoms("CO", [[0, 0, 0], [0, 0, 0.2]]), molecule("CO")])
    report, frames = label(tmp_path / "source.h5", LabelSettings("ase.calculators.emt:EMT", isolated=False))
    assert (report.n_labelled, report.n_quarantined) == (1, 1)
    assert frames[0].info["reason"] == "atoms overlap: 0 (C), 1 (O)"
    assert "energy" in frames[0].calc.results


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"calculator": "EMT"}, "expected 'package.module:Name'"),
        ({"n_workers": 0}, "n_workers must be positive"),
        ({"walltime_s": -1.0}, "walltime_s must be positive"),
        ({"frame_timeout_s": 0.0}, "frame_timeout_s must be positive"),
        ({"isolated": False, "n_workers": 2}, "isolated must be true"),
        ({"n_worker": 2}, "did you mean 'n_workers'"),
        ({"parameters": {"x": object()}}, "parameters must be plain data"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(values, message):
    with pytest.raises(SettingsError, match=message):
        parse_settings(LabelSettings, {"calculator": "ase.calculators.emt:EMT"} | values, "label")


def test_fingerprint_is_about_the_label_and_not_about_the_run():
    base = LabelSettings("ase.calculators.emt:EMT", {"a": 1, "b": {"c": 2.0}})
    same = LabelSettings("ase.calculators.emt.EMT", {"b": {"c": 2.0}, "a": 1}, n_workers=4, walltime_s=10.0)
    assert label_fingerprint(base) == label_fingerprint(same)
    assert len(label_fingerprint(base)) == 16
    other = [LabelSettings("ase.calculators.emt:EMT", {"a": 1}), LabelSettings("ase.calculators.lj:LennardJones")]
    assert len({label_fingerprint(settings) for settings in (base, *other)}) == 3


def test_fingerprint_depends_on_the_version_of_the_package(monkeypatch):
    settings = LabelSettings("ase.calculators.emt:EMT")
    before = label_fingerprint(settings)
    monkeypatch.setattr("aiida_alpot.kernel.labelling.settings.package_version", lambda _: "0.0.1")
    assert label_fingerprint(settings) != before


def test_tblite_labels_do_not_depend_on_the_frames_before(tmp_path):
    pytest.importorskip("tblite")
    frames = [molecule("CH3CH2OH") for _ in range(3)]
    for seed, atoms in enumerate(frames[:2]):
        atoms.rattle(0.05, seed=seed)
    settings = LabelSettings("tblite.ase:TBLite", {"method": "GFN2-xTB", "verbosity": 0, "accuracy": 0.1})
    write(tmp_path / "source.h5", frames)
    write(tmp_path / "last.h5", frames[2:])
    report, several = label(tmp_path / "source.h5", settings)
    _, (alone,) = label(tmp_path / "last.h5", settings, "alone.h5", "shards-alone")
    assert report.n_labelled == 3
    assert several[2].get_potential_energy() == alone.get_potential_energy()
    np.testing.assert_array_equal(several[2].get_forces(), alone.get_forces())
    np.testing.assert_allclose(alone.get_forces().sum(axis=0), 0.0, atol=1e-6)


def test_a_failed_frame_is_not_labelled_again_by_a_run_that_goes_on(tmp_path: Path) -> None:
    unknown = Atoms("Fe", positions=[(0.0, 0.0, 0.0)], cell=[8.0] * 3, pbc=True)
    source, first, second, third = (tmp_path / name for name in ("source.h5", "first.h5", "second.h5", "third.h5"))
    write(source, [bulk("Cu"), unknown])
    settings = LabelSettings("ase.calculators.emt:EMT", isolated=False)
    assert label_dataset(source, first, settings, tmp_path / "shards-1").n_failed == 1
    report = label_dataset(first, second, settings, tmp_path / "shards-2")
    assert (report.n_failed, report.n_copied) == (1, 2)
    assert not list((tmp_path / "shards-2").glob("frame-*"))
    again = replace(settings, retry_failed=True)
    assert label_dataset(second, third, again, tmp_path / "shards-3").n_copied == 1


@pytest.mark.parametrize("isolated", [True, False])
def test_a_missing_package_of_a_calculator_is_named_as_one(tmp_path: Path, isolated: bool) -> None:
    write(tmp_path / "source.h5", [bulk("Cu")])
    settings = LabelSettings("no_such_package.module:Calculator", isolated=isolated)
    with pytest.raises(MissingPackageError, match="no_such_package") as caught:
        label_dataset(tmp_path / "source.h5", tmp_path / "out.h5", settings, tmp_path / "shards")
    assert caught.value.package == "no_such_package"


@pytest.mark.parametrize(("how", "message"), [("limit", "File too large"), ("full", "No space left on device")])
def test_a_full_disk_under_a_worker_ends_the_run_and_fails_no_frame(source, broken, how, message):
    with pytest.raises(OSError, match=message):
        label(source, broken(how))
    shards = source.parent / "shards"
    assert not list(shards.glob(".frame-*"))
    assert read_shard(shards, 0).status == "labelled"
    assert read_shard(shards, 2) is None  # a resume labels it


def test_a_full_disk_ends_a_run_without_workers_too(source, broken):
    with pytest.raises(OSError, match="No space left on device"):
        label(source, broken("full", isolated=False))
    assert read_shard(source.parent / "shards", 2) is None
