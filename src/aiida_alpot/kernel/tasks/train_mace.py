"""Task ``train_mace``: one member of a committee, trained by ``mace_run_train``."""

from __future__ import annotations

import math
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ase import Atoms

from aiida_alpot.kernel._extras import MissingPackageError, require
from aiida_alpot.kernel.dataset import Dataset
from aiida_alpot.kernel.disk import tells_of_disk
from aiida_alpot.kernel.potentials import finite_difference_check, load
from aiida_alpot.kernel.potentials.mace import MacePotential
from aiida_alpot.kernel.seeds import derive_seed
from aiida_alpot.kernel.settings import parse_settings
from aiida_alpot.kernel.tasks import TaskError, TaskInterruptedError
from aiida_alpot.kernel.tasks.entries import TASK_FILE, find_file, read_entry
from aiida_alpot.kernel.tasks.inputs import compute_deadline, read_labelled, read_seed, require_file
from aiida_alpot.kernel.training import mace_cores
from aiida_alpot.kernel.training.mace import (
    MODEL_NAME,
    SPLIT_FILES,
    MaceRun,
    MaceSettings,
    build_arguments,
    compute_atomic_energies,
    compute_scaling,
    counts_as_whole,
    has_fitted_stress,
    has_pieces,
    is_isolated_atom,
    parse_final_errors,
    parse_learning_curve,
    write_mace_input,
)

OUTPUT = f"{MODEL_NAME}.model"
LOG = "mace.out"
KILL_AFTER = 30.0
"""Seconds that MACE has to end after it was asked to."""


def run(task: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Train, check and write ``potential.model``; return errors, learning curve and the finite-difference check."""
    deadline = compute_deadline(task)
    settings = parse_settings(MaceSettings, read_entry(task, "settings", dict[str, Any]), "train.parameters")
    seed = read_seed(task)
    require("mace", extra="mace")
    (folder / "checkpoints").mkdir(exist_ok=True)
    with Dataset.open(find_file(task, "dataset", folder)) as dataset:
        frames = {split: read_labelled(dataset, split) for split in SPLIT_FILES}
    counts = write_mace_input(frames, folder, settings)
    parent = require_file(folder, task["parent"], f"{TASK_FILE}: parent") if "parent" in task else None
    e0s = _atomic_energies(frames, settings, parent)
    _check_species(frames, e0s)
    has_stress = any(has_fitted_stress(atoms) for atoms in frames["train"] if counts_as_whole(atoms, settings))
    restart = any((folder / "checkpoints").glob("*.pt"))
    scaling = compute_scaling(frames["train"], e0s, settings) if has_pieces(frames) else None
    mace_run = MaceRun(seed, counts, e0s, has_stress, None if parent is None else parent.name, restart, scaling)
    program = ["-m", "mace.cli.run_train"] if scaling is None else mace_cores.python_arguments()
    _run_mace([*program, *build_arguments(settings, mace_run)], folder, deadline)
    results = collect_results(folder, counts, e0s)
    results.update(_check_forces(folder, settings, frames, seed))
    return results


def _atomic_energies(
    frames: Mapping[str, Sequence[Atoms]], settings: MaceSettings, parent: Path | None
) -> dict[int, float]:
    """Return the energies of the isolated atoms; a warm start keeps those its parent was trained with."""
    if parent is not None:
        return MacePotential(parent, device=settings.device, dtype=settings.dtype).atomic_energies()
    members = [atoms for atoms in frames["train"] if counts_as_whole(atoms, settings)]
    if all(is_isolated_atom(atoms) for atoms in members):
        raise ValueError(
            "all training frames were cut out of larger ones, and without the energy of one the potential has none; "
            "add a whole frame to the training split, or set cutout_energies"
        )
    isolated = [atoms for split in ("validation", "test") for atoms in frames[split] if is_isolated_atom(atoms)]
    chosen = members if settings.e0s == "average" else frames["train"]
    return compute_atomic_energies([*chosen, *isolated], settings.e0s)


def _check_species(frames: Mapping[str, Sequence[Atoms]], e0s: Mapping[int, float]) -> None:
    for split, members in frames.items():
        unknown = sorted({int(z) for atoms in members for z in atoms.numbers} - set(e0s))
        if unknown:
            raise ValueError(
                f"species {unknown} occur in split {split!r} but in no training frame whose energy is fitted"
            )


def _run_mace(arguments: Sequence[str], folder: Path, deadline: float | None) -> None:
    """Run MACE until it ends or the deadline comes; its checkpoint then serves the next job.

    :param arguments: of Python.
    """
    with (folder / LOG).open("a", encoding="utf-8") as log:
        # unbuffered: otherwise what was printed first may come after the error in the log
        process = subprocess.Popen([sys.executable, "-u", *arguments], cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        try:
            process.wait(None if deadline is None else max(1.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.terminate()
            try:
                process.wait(KILL_AFTER)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            raise TaskInterruptedError("the walltime was near; the training continues from its checkpoint") from None
    if process.returncode != 0:
        reason = find_reason((folder / LOG).read_text(encoding="utf-8"))
        if (missing := re.search(r"No module named '(\w+)", reason)) is not None:
            raise MissingPackageError(missing[1], "mace", reason)
        raise TaskError(
            classify_end(process.returncode, reason), f"mace_run_train ended with status {process.returncode}: {reason}"
        )


def classify_end(status: int, reason: str) -> str:
    """Return the code of a training that ended badly; one that SIGKILL ended was most likely out of memory."""
    if tells_of_disk(reason):
        return "files"
    return "out_of_memory" if "out of memory" in reason.lower() or status == -signal.SIGKILL else "training"


def find_reason(log: str) -> str:
    """Return the line of a log that says why a program ended: the last one about an error, else the last one."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    about = [line for line in lines if re.search(r"error|exception|out of memory|killed", line, re.IGNORECASE)]
    return (about or lines or ["it printed nothing"])[-1]


def collect_results(folder: Path, counts: Mapping[str, int], e0s: Mapping[int, float]) -> dict[str, Any]:
    """Return the numbers of a finished training.

    :raises TaskError: ``no_model`` if MACE wrote none, ``diverged`` if its last errors are not finite.
    """
    log = (folder / LOG).read_text(encoding="utf-8")
    curve_file = next(iter(sorted((folder / "results").glob(f"{MODEL_NAME}_run-*_train.txt"))), None)
    lines = curve_file.read_text(encoding="utf-8").splitlines() if curve_file else []
    results: dict[str, Any] = {
        "n_frames": dict(counts),
        "atomic_energies": {str(z): energy for z, energy in e0s.items()},
        "rmse": parse_final_errors(log),
        "learning_curve": parse_learning_curve(lines),
    }
    if not (folder / OUTPUT).is_file():
        raise TaskError("no_model", "mace_run_train ended well but wrote no model", results)
    values = [value for errors in results["rmse"].values() for value in errors.values()]
    if not values or not all(math.isfinite(value) for value in values):
        raise TaskError("diverged", "the errors of the trained potential are not finite; lower lr", results)
    return results


def _check_forces(
    folder: Path, settings: MaceSettings, frames: Mapping[str, Sequence[Atoms]], seed: int
) -> dict[str, Any]:
    """Load the trained potential and compare forces and stress with finite differences of its energy.

    Always in double precision: in single precision the differences are noise.
    """
    potential = load(folder / OUTPUT, "mace", device=settings.device, dtype="float64")
    usable = [atoms for atoms in frames["train"] if not is_isolated_atom(atoms)]
    chosen = sorted(usable, key=lambda atoms: not all(atoms.pbc))[:2]
    check = finite_difference_check(potential, chosen, derive_seed(seed, "finite-difference"))
    for name in ("force", "stress"):
        deviation = check[f"{name}_relative"]
        if deviation is not None and not float(deviation) <= settings.fd_tolerance:
            message = f"{name} deviates from finite differences by {deviation:.1e} of its rms value"
            raise TaskError("inconsistent_forces", message)
    return {"cutoff": potential.cutoff, "finite_difference": check}
