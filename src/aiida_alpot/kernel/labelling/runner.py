"""Label a whole dataset: skip what is labelled, take what an earlier run left, label the rest, pack everything."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from ase import Atoms

from aiida_alpot.kernel.dataset import Dataset, write
from aiida_alpot.kernel.jsonio import read_json, write_json
from aiida_alpot.kernel.labelling.identity import label_ids
from aiida_alpot.kernel.labelling.pool import WorkerPool, refusal
from aiida_alpot.kernel.labelling.results import find_known_labels, sort_rows
from aiida_alpot.kernel.labelling.settings import LabelSettings, label_fingerprint
from aiida_alpot.kernel.labelling.shards import LABELS, Shard, read_matching_shard, without_labels, write_shard
from aiida_alpot.kernel.labelling.worker import Labeller, Task, WorkerSetup, describe_refusal

RUN_FILE: Final = "labelling.json"
"""Beside the shards: the fingerprint of the run that wrote them."""

_PROGRESS_INTERVAL: Final = 1.0


@dataclass(frozen=True)
class LabelReport:
    """What became of the frames of a dataset.

    :param n_frames: all of them, labels of other settings that stay included; the next four add up to it.
    :param n_labelled: with labels that passed the gate, new or old.
    :param n_failed: without labels, the reason is in the dataset.
    :param n_quarantined: with labels that the gate set aside.
    :param n_unlabelled: not reached.
    :param n_copied: frames of the source that had labels of these settings already.
    :param n_others: labels of other settings that stay beside the new ones.
    :param n_reused: frames found in shards of an earlier run, or among the labels known before.
    :param fingerprint: of the settings, see :func:`~.settings.label_fingerprint`.
    :param seconds: wall time of this run.
    :param is_given_up: whether frames were not begun since too many others had failed.
    """

    n_frames: int
    n_labelled: int
    n_failed: int
    n_quarantined: int
    n_unlabelled: int
    n_copied: int
    n_others: int
    n_reused: int
    fingerprint: str
    seconds: float
    is_given_up: bool = False


def label_dataset(
    source_path: str | Path,
    out_path: str | Path,
    settings: LabelSettings,
    shard_dir: str | Path,
    progress_path: str | Path | None = None,
    known_path: str | Path | None = None,
) -> LabelReport:
    """Write a dataset with the frames of another one, in the same order, and their labels.

    A frame that raises, gives values of wrong shape or not finite, takes too long or takes its process down stays in
    the dataset as ``failed`` with the reason. A frame that is not reached before the walltime, or before too many
    others have failed, stays ``unlabelled`` with that reason. Frames that have labels of the same fingerprint are
    copied. Called again with the same *shard_dir* after it was killed, it labels only what is left.

    :param source_path: dataset to label.
    :param out_path: dataset to write; written last and all at once.
    :param shard_dir: where finished frames are kept until then; created if needed.
    :param progress_path: a JSON file with ``done``, ``total`` and ``failed``, rewritten at most once a second.
    :param known_path: dataset with labels that were accepted before: those of these settings are taken for the same
        structures.
    :raises CalculatorError: if the calculator cannot be built.
    :raises OSError: if labels cannot be written, which is no failure of a frame.
    :raises ValueError: if source and output are the same file.
    """
    start = time.monotonic()
    deadline = math.inf if settings.walltime_s is None else start + settings.walltime_s
    fingerprint = label_fingerprint(settings)
    run = {"fingerprint": fingerprint, "retry_failed": settings.retry_failed}
    folder = _prepare_folder(Path(source_path), Path(out_path), Path(shard_dir), run)
    setup = WorkerSetup(settings, fingerprint, str(folder), str(folder / "worker-0"))
    with Dataset.open(source_path) as dataset:
        ids = [str(value) for value in label_ids(dataset)]
        if known_path is not None:
            _take_known(dataset, ids, Path(known_path), folder, fingerprint)
        plan = _plan(dataset, ids, folder, setup, retry_failed=settings.retry_failed)
        progress = _Progress(progress_path, len(dataset), len(dataset) - len(plan.todo), plan.n_failed, settings)
        tasks = (Task(index, ids[index], without_labels(dataset[index])) for index in plan.todo)
        if plan.todo:
            _run(tasks, len(plan.todo), settings, setup, deadline, progress)
        counts = _pack(dataset, ids, folder, run, Path(out_path), progress.reason_to_stop or "walltime")
    progress.write()
    is_given_up = bool(progress.reason_to_stop) and counts["unlabelled"] > 0
    report = _report(counts, fingerprint, plan.n_reused, time.monotonic() - start)
    return replace(report, is_given_up=is_given_up)


def partial_pack(source_path: str | Path, shard_dir: str | Path, out_path: str | Path) -> LabelReport:
    """Write the dataset a killed run would have written, from the shards it left.

    :param source_path: the dataset that was to be labelled.
    :param shard_dir: where the run kept its shards.
    :param out_path: dataset to write; frames without a shard are ``unlabelled`` with the reason ``not reached``.
    :raises FileNotFoundError: if no run was started in *shard_dir*.
    """
    start = time.monotonic()
    folder = Path(shard_dir)
    run = read_json(folder / RUN_FILE)
    with Dataset.open(source_path) as dataset:
        ids = [str(value) for value in label_ids(dataset)]
        counts = _pack(dataset, ids, folder, run, Path(out_path), "not reached")
    n_shards = counts["total"] - counts["unlabelled"] - counts["copied"] - counts["others"]
    return _report(counts, str(run["fingerprint"]), n_shards, time.monotonic() - start)


@dataclass(frozen=True)
class _Plan:
    todo: list[int]
    n_reused: int
    n_failed: int


class _Progress:
    """Counts of a run, written to a file now and then, and whether it is to go on."""

    def __init__(self, path: str | Path | None, total: int, done: int, failed: int, settings: LabelSettings) -> None:
        self._path = None if path is None else Path(path)
        self._total, self._done, self._failed = total, done, failed
        self._last = -math.inf
        self._most_failed = settings.max_failed_fraction * total
        self.write()

    @property
    def reason_to_stop(self) -> str:
        """Why no other frame is worth beginning, "" if they are."""
        if self._failed <= self._most_failed:
            return ""
        return f"not begun: {self._failed} of {self._total} frames had failed"

    def finished(self, status: str) -> bool:
        """Count a frame and return whether to go on."""
        self._done += 1
        self._failed += status == "failed"
        if time.monotonic() - self._last >= _PROGRESS_INTERVAL:
            self.write()
        return not self.reason_to_stop

    def write(self) -> None:
        self._last = time.monotonic()
        if self._path is not None:
            write_json(self._path, {"done": self._done, "total": self._total, "failed": self._failed})


def _prepare_folder(source: Path, out: Path, folder: Path, run: Mapping[str, Any]) -> Path:
    if source.resolve() == out.resolve():
        raise ValueError(f"the labelled dataset cannot replace its source {source}")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / RUN_FILE, run)
    return folder.resolve()


def _take_known(dataset: Dataset, ids: Sequence[str], known_path: Path, folder: Path, fingerprint: str) -> None:
    """Write a shard for every frame whose structure has a label of these settings in another dataset."""
    with Dataset.open(known_path) as known:
        for index, row in find_known_labels(dataset, known, fingerprint).items():
            found = known[row].calc.results
            labels = {name: np.asarray(found[name]) for name in LABELS if name in found}
            write_shard(folder, index, Shard(ids[index], fingerprint, "labelled", cost=0.0, labels=labels))


def _plan(dataset: Any, ids: Sequence[str], folder: Path, setup: WorkerSetup, *, retry_failed: bool) -> _Plan:
    """Find out which frames are left to label."""
    todo, n_reused, n_failed = [], 0, 0
    for index, row in enumerate(sort_rows(dataset, setup.fingerprint, retry_failed=retry_failed)):
        if row == "keep":
            continue
        shard = read_matching_shard(folder, index, ids[index], setup.fingerprint)
        if shard is None or (retry_failed and shard.status == "failed"):
            todo.append(index)
        else:
            n_reused += 1
            n_failed += shard.status == "failed"
    return _Plan(todo, n_reused, n_failed)


def _run(
    tasks: Iterator[Task],
    n_tasks: int,
    settings: LabelSettings,
    setup: WorkerSetup,
    deadline: float,
    progress: _Progress,
) -> None:
    if settings.isolated:
        with WorkerPool(settings, setup, progress.finished) as pool:
            pool.run(tasks, n_tasks, deadline)
        return
    try:
        labeller = Labeller(setup)
    except (ImportError, ValueError, TypeError) as error:
        raise refusal(describe_refusal(error)) from error
    for task in tasks:
        if time.monotonic() >= deadline or progress.reason_to_stop:
            return
        shard = labeller.label(task)
        write_shard(Path(setup.shard_dir), task.index, shard)
        progress.finished(shard.status)


def _pack(
    dataset: Any, ids: Sequence[str], folder: Path, run: Mapping[str, Any], out: Path, missing: str
) -> Counter[str]:
    """Write the labelled dataset frame by frame and count what is in it."""
    counts: Counter[str] = Counter()
    fingerprint = str(run["fingerprint"])
    rows = sort_rows(dataset, fingerprint, retry_failed=bool(run.get("retry_failed", False)))

    def frames() -> Iterator[Atoms]:
        for index, (atoms, row) in enumerate(zip(dataset, rows, strict=True)):
            if row in ("keep", "renew"):
                is_of_these = atoms.info.get("fingerprint") == fingerprint
                counts.update([atoms.info["status"], "copied" if is_of_these else "others", "total"])
                yield atoms
            if row != "keep":
                shard = read_matching_shard(folder, index, ids[index], fingerprint)
                frame = _unlabelled(atoms, missing) if shard is None else shard.apply(atoms)
                counts.update([frame.info["status"], "total"])
                yield frame

    write(out, frames())
    return counts


def _unlabelled(atoms: Atoms, reason: str) -> Atoms:
    return Shard("", "", "unlabelled", reason).apply(atoms)


def _report(counts: Counter[str], fingerprint: str, n_reused: int, seconds: float) -> LabelReport:
    return LabelReport(
        n_frames=counts["total"],
        n_labelled=counts["labelled"],
        n_failed=counts["failed"],
        n_quarantined=counts["quarantined"],
        n_unlabelled=counts["unlabelled"],
        n_copied=counts["copied"],
        n_others=counts["others"],
        n_reused=n_reused,
        fingerprint=fingerprint,
        seconds=seconds,
    )
