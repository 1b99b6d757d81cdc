"""Task ``explore_ase``: molecular dynamics with the committee looking on."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from aiida_alpot import __version__
from aiida_alpot.kernel.cutouts import whole_frames
from aiida_alpot.kernel.dataset import Dataset, write
from aiida_alpot.kernel.exploration import ExplorationState, ExploreSettings, check_geometry, explore, plan_trajectories
from aiida_alpot.kernel.jsonio import write_json
from aiida_alpot.kernel.potentials import has_stress
from aiida_alpot.kernel.settings import parse_settings
from aiida_alpot.kernel.tasks import TaskError, TaskInterruptedError
from aiida_alpot.kernel.tasks.entries import TASK_FILE, find_file, read_entry
from aiida_alpot.kernel.tasks.inputs import compute_deadline, load_committee, load_uncertainty, read_seed

OUTPUT = "candidates.h5"
STATE = "state"
"""Folder of what is finished, from which another attempt goes on."""
TAG_LENGTH = 6
"""Hexadecimal digits that tell the trajectories of one exploration from those of another campaign."""


def run(task: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Run the trajectories ``first`` to ``last`` of the plan and write the frames they leave to ``candidates.h5``."""
    deadline = compute_deadline(task)
    settings = parse_settings(ExploreSettings, read_entry(task, "settings", dict[str, Any]), "explore.settings")
    committee = load_committee({**task, "device": settings.device}, folder)
    uncertainty = load_uncertainty(task, folder, committee)
    seed = read_seed(task)
    first, last, iteration = (read_entry(task, key, int) for key in ("first", "last", "iteration"))
    (folder / STATE).mkdir(exist_ok=True)
    with Dataset.open(find_file(task, "frames", folder)) as dataset:
        ids, frames = _read_fit_frames(dataset, settings)
    label = f"{read_entry(task, 'label', str)}-{compute_tag(seed, ids)}/"
    flags = [has_stress(atoms) for atoms in frames]
    plans = plan_trajectories(len(frames), settings, seed, periodic=flags, label=label)
    if not 0 <= first < min(last, len(plans)):
        raise ValueError(
            f"{TASK_FILE}: first {first} to last {last} is no part of the {len(plans)} planned trajectories; "
            "submit the exploration again"
        )
    result = explore(
        frames,
        committee.potentials,
        uncertainty,
        settings,
        seed,
        plans=plans[first:last],
        deadline=deadline,
        state=ExplorationState(folder / STATE, _context(task, folder, committee.hashes)),
        label=label,
        iteration=iteration,
        on_progress=lambda done, total, _: write_json(folder / "progress.json", {"done": done, "total": total}),
    )
    write(folder / OUTPUT, result.frames)
    results = {"trajectories": result.trajectories, **result.report}
    interrupted = any(trajectory["reason"] == "walltime" for trajectory in result.trajectories)
    if interrupted and not result.frames:
        raise TaskInterruptedError("the walltime was near before any trajectory had given a frame", results)
    if not result.frames:
        raise TaskError("no_frames", "no trajectory gave a frame: see the reasons in the report", results)
    if interrupted:
        raise TaskInterruptedError("the walltime was near before all trajectories had ended", results)
    return results


def _context(task: Mapping[str, Any], folder: Path, models: Sequence[str]) -> dict[str, Any]:
    """Return what trajectories depend on beside their plans, whose names tell the starting frames and the seed."""
    uncertainty = hashlib.sha256(find_file(task, "uncertainty", folder).read_bytes()).hexdigest()
    return {"settings": task["settings"], "models": list(models), "uncertainty": uncertainty, "version": __version__}


def read_starting_frames(dataset: Dataset, settings: ExploreSettings) -> list[Atoms]:
    """Return the frames that trajectories may start from, in the order of their structure ids.

    Labelled and unlabelled frames with a healthy geometry and, if they have labels, no force above ``max_force``. What
    descends from a held-out frame could be trained on, so frames of the other splits serve only where no frame of the
    dataset is for training or without a split. What was cut out of a larger frame has surfaces that are no one's aim.

    :raises ValueError: if no frame is left, with the number of frames that each reason took away.
    """
    return _read_fit_frames(dataset, settings)[1]


def compute_tag(seed: int, structure_ids: Sequence[str]) -> str:
    """Return the tag in the names of the trajectories of an exploration.

    :param structure_ids: of the starting frames, in any order.
    """
    text = "\0".join([str(seed), *sorted(structure_ids)])
    return hashlib.sha256(text.encode()).hexdigest()[:TAG_LENGTH]


def _read_fit_frames(dataset: Dataset, settings: ExploreSettings) -> tuple[list[str], list[Atoms]]:
    """Return structure ids and frames, see :func:`read_starting_frames`."""
    ids = dataset.frame_ids(labels=False)
    status, split = dataset.column("status"), dataset.column("split")
    own = np.isin(split, ("train", ""))
    held_out = ~own if own.any() else np.zeros(len(dataset), dtype=bool)
    found: list[tuple[str, Atoms]] = []
    refused: Counter[str] = Counter()
    for i in np.argsort(ids, kind="stable").tolist():
        if status[i] not in ("labelled", "unlabelled"):
            refused[f"of status {status[i]}"] += 1
        elif held_out[i]:
            refused[f"held out for {split[i]}"] += 1
        else:
            atoms = dataset[i]
            fault = _find_fault(atoms, settings) if whole_frames([atoms])[0] else "cut out of a larger frame"
            if fault is None:
                found.append((str(ids[i]), atoms))
            else:
                refused[fault] += 1
    if not found:
        counts = ", ".join(f"{n} {reason}" for reason, n in sorted(refused.items())) or "the dataset is empty"
        raise ValueError(
            f"no frame to start an exploration from, of {len(dataset)}: {counts}; "
            "give other frames (explore_from) or wider limits (health in the settings of the exploration)"
        )
    return [name for name, _ in found], [atoms for _, atoms in found]


def _find_fault(atoms: Atoms, settings: ExploreSettings) -> str | None:
    """Return which limit a starting frame is beyond, or None."""
    # nothing escapes from itself, and without that test the neighbour list is short
    limits = replace(settings.health, max_isolation=None)
    if check_geometry(atoms, atoms, limits) is not None:
        return f"of unhealthy geometry (min_pair_ratio {limits.min_pair_ratio:g})"
    forces = {} if atoms.calc is None else atoms.calc.results
    largest = np.max(np.linalg.norm(forces.get("forces", np.zeros((1, 3))), axis=1), initial=0.0)
    return f"with a force above max_force {limits.max_force:g} eV/Å" if largest > limits.max_force else None
