"""The training task: what it hands to MACE, what it makes of MACE's end, and one real tiny training."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.io import read

from aiida_alpot.kernel.calibrating import rms_errors
from aiida_alpot.kernel.cutouts import CORE, CutoutSettings, core_of, cut_out
from aiida_alpot.kernel.dataset import Dataset, merge, write, write_frames
from aiida_alpot.kernel.potentials import load, reference_predictions
from aiida_alpot.kernel.tasks import TaskError, TaskInterruptedError, label_ase, train_mace
from aiida_alpot.kernel.training.mace import parse_final_errors

LOG = """
+---------------+---------------------+------------------+-------------------+
|  config_type  | RMSE E / meV / atom | RMSE F / meV / A | relative F RMSE % |
+---------------+---------------------+------------------+-------------------+
| train_Default |           28.8      |        465.0     |         18.55     |
| valid_Default |           32.9      |        489.8     |         21.55     |
+---------------+---------------------+------------------+-------------------+
"""
SPLITS = ["train"] * 4 + ["validation", "test"]


def task(**settings):
    return {"dataset": "dataset.h5", "settings": settings, "seed": 5, "walltime_s": 600}


@pytest.fixture
def fake_mace(monkeypatch, tmp_path, tiny_models):
    """A MACE that leaves a log and an untrained model at once; gives the arguments of its calls."""
    calls = []

    def run_mace(arguments, folder, deadline):
        calls.append(list(arguments))
        (folder / train_mace.LOG).write_text(fake.log)
        if fake.writes_model:
            shutil.copy(tiny_models[0], folder / train_mace.OUTPUT)

    class Fake:
        log, writes_model = LOG, True

    fake = Fake()
    fake.calls = calls
    monkeypatch.setattr(train_mace, "_run_mace", run_mace)
    return fake


def test_a_finished_training_reports_its_numbers(make, tmp_path, fake_mace):
    frames = make.crystals(6)
    write(tmp_path / "dataset.h5", frames, split=SPLITS)
    (tmp_path / "results").mkdir()
    curve = json.dumps({"mode": "eval", "epoch": 0, "loss": 1.0}) + "\n" + '{"mode": "ev'
    (tmp_path / "results" / "potential_run-5_train.txt").write_text(curve)
    results = train_mace.run(task(), tmp_path)
    assert results["n_frames"] == {"train": 4, "validation": 1, "test": 1}
    assert results["rmse"]["train"] == pytest.approx({"energy": 0.0288, "force": 0.465})
    energies = [atoms.calc.results["energy"] for atoms in frames[:4]]
    assert results["atomic_energies"] == {"29": pytest.approx(np.mean(energies) / 4)}
    assert results["learning_curve"]["epoch"] == [0]
    assert results["cutoff"] == 4.0
    assert results["finite_difference"]["force_relative"] < 1e-3
    assert "--seed=5" in fake_mace.calls[0]
    assert "--compute_stress=True" in fake_mace.calls[0]


def test_the_program_sees_cores_only_if_there_are_pieces(make, tmp_path, fake_mace):
    frames = make.crystals(6)
    write(tmp_path / "dataset.h5", frames, split=SPLITS)
    train_mace.run(task(), tmp_path)
    frames[4].arrays[CORE] = np.arange(4) == 0
    write(tmp_path / "dataset.h5", frames, split=SPLITS)
    train_mace.run(task(), tmp_path)
    assert fake_mace.calls[0][:2] == ["-m", "mace.cli.run_train"]
    assert fake_mace.calls[1][0] == "-c"
    assert "mace_cores" in fake_mace.calls[1][1]
    assert all(Path(entry).is_absolute() for entry in json.loads(fake_mace.calls[1][2]))


def test_energies_of_pieces_do_not_make_those_of_the_atoms(make, tmp_path, fake_mace):
    frames = make.crystals(6)
    for atoms in frames[:2]:
        atoms.arrays[CORE] = np.arange(4) == 0
        atoms.calc.results["energy"] += 1000.0
    write(tmp_path / "dataset.h5", frames, split=SPLITS)
    results = train_mace.run(task(), tmp_path)
    expected = np.mean([atoms.calc.results["energy"] for atoms in frames[2:4]]) / 4
    assert results["atomic_energies"] == {"29": pytest.approx(expected)}
    results = train_mace.run(task(cutout_energies=True), tmp_path)
    assert results["atomic_energies"]["29"] > 100.0


def test_stress_of_pieces_alone_is_not_fitted(make, tmp_path, fake_mace):
    frames = make.crystals(6)
    frames[2], frames[3] = make.molecules(1)[0], make.molecules(1, seed=1)[0]
    for atoms in frames[:2]:
        atoms.arrays[CORE] = np.arange(4) == 0
    write(tmp_path / "dataset.h5", frames, split=SPLITS)
    train_mace.run(task(e0s={"Cu": -1.0, "H": -0.5, "O": -2.0}), tmp_path)
    assert "--compute_stress=True" not in fake_mace.calls[0]
    train_mace.run(task(e0s={"Cu": -1.0, "H": -0.5, "O": -2.0}, cutout_energies=True), tmp_path)
    assert "--compute_stress=True" in fake_mace.calls[1]


def test_pieces_alone_and_a_species_of_pieces_alone_are_refused(make, tmp_path, fake_mace):
    frames = make.crystals(6)
    for atoms in frames[:4]:
        atoms.arrays[CORE] = np.arange(4) == 0
    write(tmp_path / "dataset.h5", frames, split=SPLITS)
    with pytest.raises(ValueError, match="all training frames were cut out of larger ones, and without"):
        train_mace.run(task(), tmp_path)
    assert train_mace.run(task(cutout_energies=True), tmp_path)["n_frames"]["train"] == 4
    frames[0] = make.crystals(1, seed=3)[0]
    frames[1].numbers[1] = 13
    frames[1].calc.atoms.numbers[1] = 13
    write(tmp_path / "dataset.h5", frames, split=SPLITS)
    with pytest.raises(
        ValueError, match=r"species \[13\] occur in split 'train' but in no training frame whose energy"
    ):
        train_mace.run(task(), tmp_path)
    assert len(fake_mace.calls) == 1


def test_the_order_of_rows_does_not_change_the_training_files(make, tmp_path, fake_mace):
    frames, written = make.crystals(6), []
    for order in ([0, 1, 2, 3, 4, 5], [3, 1, 5, 4, 0, 2]):
        write(tmp_path / "dataset.h5", [frames[k] for k in order], split=[SPLITS[k] for k in order])
        train_mace.run(task(), tmp_path)
        written.append([(tmp_path / name).read_bytes() for name in ("train.xyz", "valid.xyz", "test.xyz")])
    assert written[0] == written[1]
    assert fake_mace.calls[0] == fake_mace.calls[1]


def test_frames_without_good_labels_are_not_trained_on(make, tmp_path, fake_mace):
    status = ["labelled", "failed", "labelled", "quarantined", "labelled", "labelled"]
    write(tmp_path / "dataset.h5", make.crystals(6), split=SPLITS, status=status)
    assert train_mace.run(task(), tmp_path)["n_frames"]["train"] == 2


def test_a_species_that_only_validation_has_is_named(make, tmp_path, fake_mace):
    write(tmp_path / "dataset.h5", make.crystals(4) + make.crystals(1, symbol="Al"), split=SPLITS[:5])
    with pytest.raises(ValueError, match=r"species (Al|\[13\]).*'validation'"):
        train_mace.run(task(), tmp_path)
    assert fake_mace.calls == []


def test_a_checkpoint_is_continued(make, tmp_path, fake_mace):
    write(tmp_path / "dataset.h5", make.crystals(6), split=SPLITS)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "potential_run-5_epoch-3.pt").touch()
    train_mace.run(task(), tmp_path)
    assert "--restart_latest" in fake_mace.calls[0]


def test_a_training_without_model_is_a_failure(make, tmp_path, fake_mace):
    fake_mace.writes_model = False
    write(tmp_path / "dataset.h5", make.crystals(6), split=SPLITS)
    with pytest.raises(TaskError, match="wrote no model") as caught:
        train_mace.run(task(), tmp_path)
    assert caught.value.code == "no_model"
    assert caught.value.results["rmse"]["train"]["energy"] == pytest.approx(0.0288)


@pytest.mark.parametrize("log", [LOG.replace("465.0", "  nan"), "no table"])
def test_errors_that_are_not_finite_are_a_divergence(make, tmp_path, fake_mace, log):
    fake_mace.log = log
    write(tmp_path / "dataset.h5", make.crystals(6), split=SPLITS)
    with pytest.raises(TaskError, match="not finite") as caught:
        train_mace.run(task(), tmp_path)
    assert caught.value.code == "diverged"


def test_forces_that_are_not_derivatives_are_refused(make, tmp_path, fake_mace, monkeypatch):
    write(tmp_path / "dataset.h5", make.crystals(6), split=SPLITS)
    monkeypatch.setattr(train_mace, "finite_difference_check", lambda *_: {"force_relative": 0.02})
    with pytest.raises(TaskError, match=r"finite differences by 2\.0e-02") as caught:
        train_mace.run(task(), tmp_path)
    assert caught.value.code == "inconsistent_forces"
    monkeypatch.setattr(train_mace, "finite_difference_check", lambda *_: {"force_relative": float("nan")})
    with pytest.raises(TaskError, match="finite differences by nan"):
        train_mace.run(task(), tmp_path)


@pytest.fixture
def program(monkeypatch):
    """Put a line of Python in the place of MACE."""
    popen = subprocess.Popen

    def put(code):
        monkeypatch.setattr(
            train_mace.subprocess, "Popen", lambda command, **options: popen([command[0], "-c", code], **options)
        )

    return put


@pytest.mark.parametrize(
    ("code", "expected", "message"),
    [
        ("raise SystemExit('no such key')", "training", "status 1: no such key"),
        ("raise SystemExit('CUDA out of memory')", "out_of_memory", "CUDA out of memory"),
        ("import os; os.kill(os.getpid(), 9)", "out_of_memory", "status -9: it printed nothing"),
    ],
)
def test_the_end_of_mace_is_told_by_its_last_line(tmp_path, program, code, expected, message):
    program(code)
    with pytest.raises(TaskError, match=message) as caught:
        train_mace._run_mace([], tmp_path, None)
    assert caught.value.code == expected


def test_a_training_is_stopped_at_its_deadline(tmp_path, program):
    program("import time; time.sleep(60)")
    with pytest.raises(TaskInterruptedError, match="continues from its checkpoint"):
        train_mace._run_mace([], tmp_path, 0.0)


TINY = {
    "num_channels": 2,
    "max_L": 0,
    "max_ell": 1,
    "correlation": 1,
    "num_interactions": 1,
    "r_max": 3.5,
    "batch_size": 2,
}


def emt_label(folder, frames):
    """Label frames with EMT as a job does."""
    write(folder / "frames.h5", frames)
    settings = {"calculator": "ase.calculators.emt:EMT", "isolated": False}
    label_ase.run({"frames": "frames.h5", "settings": settings, "walltime_s": 600}, folder)
    with Dataset.open(folder / label_ase.OUTPUT) as dataset:
        return list(dataset)


def rattled(repeat, seed):
    atoms = bulk("Cu", cubic=True).repeat(repeat)
    atoms.rattle(0.1, seed=seed)
    atoms.info["group"] = f"md-{seed}"
    return atoms


@pytest.fixture
def with_pieces(tmp_path):
    """A dataset of whole frames and of pieces of larger ones, labelled apart and merged."""
    large, cutout = rattled(4, 9), CutoutSettings("cluster", core_radius=2.7, reach=2.0)
    pieces = emt_label(tmp_path, [cut_out(large, centre, cutout) for centre in (0, 50, 100)])
    write(tmp_path / "pieces.h5", pieces, split=["train", "train", "validation"])
    whole = emt_label(tmp_path, [rattled(1, seed) for seed in range(4)])
    write(tmp_path / "whole.h5", whole, split=["train", "train", "validation", "test"])
    merge([tmp_path / "whole.h5", tmp_path / "pieces.h5"], tmp_path / "dataset.h5")
    with Dataset.open(tmp_path / "dataset.h5") as dataset:
        return list(dataset)


def test_pieces_keep_their_core_through_label_dataset_and_input_of_the_training(with_pieces, tmp_path, fake_mace):
    assert [CORE in atoms.arrays for atoms in with_pieces] == [False] * 4 + [True] * 3
    assert all(1 < atoms.arrays[CORE].sum() < len(atoms) for atoms in with_pieces[4:])
    assert all(atoms.info["status"] == "labelled" for atoms in with_pieces)
    train_mace.run(task(), tmp_path)
    written = {atoms.positions.tobytes(): atoms.arrays[CORE] for atoms in read(tmp_path / "train.xyz", ":")}
    for atoms in with_pieces:
        if atoms.info["split"] == "train":
            np.testing.assert_array_equal(written[atoms.positions.tobytes()], core_of([atoms]))


@pytest.mark.slow
def test_what_is_outside_the_cores_changes_nothing_in_a_real_training(with_pieces, tmp_path, monkeypatch):
    """Neither in the first stage nor in the second: the potentials are the same bit by bit."""
    run_mace, calls = train_mace._run_mace, []
    monkeypatch.setattr(train_mace, "_run_mace", lambda *given: calls.append(given) or run_mace(*given))
    hyperparameters = {**TINY, "swa": True, "start_swa": 1}
    results = train_mace.run(task(hyperparameters=hyperparameters, n_updates=4), tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    for name in ("train.xyz", "valid.xyz", "test.xyz"):
        frames = read(tmp_path / name, ":")
        for atoms in frames:
            shell = ~atoms.arrays[CORE]
            atoms.arrays["REF_forces"][shell] += 30.0
            atoms.info["REF_energy"] += 30.0 * shell.any()
        write_frames(frames, other / name)
    run_mace(calls[0][0], other, None)
    for name in (train_mace.OUTPUT, "potential_stagetwo.model"):
        one, two = (load(folder / name, "mace").predict(with_pieces) for folder in (tmp_path, other))
        np.testing.assert_array_equal(one.energy, two.energy)
        np.testing.assert_array_equal(one.forces, two.forces)
    log = (other / train_mace.LOG).read_text()
    assert parse_final_errors(log) == results["rmse"]


@pytest.mark.slow
def test_the_errors_that_a_training_reports_are_those_on_the_core(with_pieces, tmp_path):
    results = train_mace.run(task(hyperparameters=TINY, n_updates=4), tmp_path)
    potential = load(tmp_path / train_mace.OUTPUT, "mace")
    for split in ("train", "validation", "test"):
        frames = [atoms for atoms in with_pieces if atoms.info["split"] == split]
        expected = rms_errors(potential.predict(frames), reference_predictions(frames), core=core_of(frames))
        assert results["rmse"][split] == pytest.approx(expected, abs=6e-5)
    assert results["learning_curve"]["rmse_force"][-1] == pytest.approx(
        results["rmse"]["validation"]["force"], abs=6e-5
    )


@pytest.mark.slow
def test_a_real_training_gives_a_potential_that_loads(make, tmp_path):
    write(tmp_path / "dataset.h5", make.crystals(6), split=SPLITS)
    results = train_mace.run(task(hyperparameters=TINY, n_updates=4, lr_decay=0.5), tmp_path)
    assert set(results["rmse"]) == {"train", "validation", "test"}
    assert set(results["rmse"]["train"]) == {"energy", "force", "stress"}
    assert results["learning_curve"]["epoch"][-1] == 1
    assert load(tmp_path / train_mace.OUTPUT, "mace").species == (29,)


def test_a_parent_of_another_content_is_refused_before_it_is_loaded(make, tmp_path, fake_mace, monkeypatch):
    write(tmp_path / "dataset.h5", make.crystals(6), split=SPLITS)
    (tmp_path / "parent.model").write_bytes(b"a pickle that runs code")
    monkeypatch.setattr(train_mace, "MacePotential", lambda *_, **__: pytest.fail("the parent was loaded"))
    with pytest.raises(ValueError, match=r"parent\.model has sha256 .*, expected 00"):
        train_mace.run({**task(), "parent": {"file": "parent.model", "sha256": "00"}}, tmp_path)
    assert not fake_mace.calls


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("run_train: error: --max_ell: no int\nacceleration is disabled\n", "run_train: error: --max_ell: no int"),
        ("first\nlast\n\n", "last"),
        ("torch.OutOfMemoryError: CUDA out of memory\nnote: see above", "torch.OutOfMemoryError: CUDA out of memory"),
        ("", "it printed nothing"),
    ],
)  # fmt: skip
def test_the_reason_of_an_end_is_the_line_about_the_error_wherever_it_stands(log, reason):
    assert train_mace.find_reason(log) == reason


@pytest.mark.parametrize(
    ("status", "reason", "code"),
    [
        (1, "OSError: [Errno 28] No space left on device", "files"),
        (1, "OSError: [Errno 122] Disk quota exceeded: 'checkpoints'", "files"),
        (1, "torch.OutOfMemoryError: CUDA out of memory.", "out_of_memory"),
        (-9, "Epoch 3", "out_of_memory"),
        (1, "TypeError: max_ell", "training"),
    ],
)
def test_what_the_machine_did_to_a_training_is_told_from_an_error_of_mace(status, reason, code):
    assert train_mace.classify_end(status, reason) == code
