"""Task ``explore_ase``: molecular dynamics with the committee looking on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from aiida_alpot.kernel.dataset import Dataset, write
from aiida_alpot.kernel.exploration import ExploreSettings, explore, plan_trajectories
from aiida_alpot.kernel.jsonio import write_json
from aiida_alpot.kernel.potentials import has_stress
from aiida_alpot.kernel.settings import parse_settings
from aiida_alpot.kernel.tasks import TaskError, TaskInterruptedError
from aiida_alpot.kernel.tasks.inputs import compute_deadline, load_committee
from aiida_alpot.kernel.uncertainty import UncertaintyModel

OUTPUT = "candidates.h5"


def run(task: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Run the trajectories ``first`` to ``last`` of the plan and write the frames they leave to ``candidates.h5``."""
    deadline = compute_deadline(task)
    settings = parse_settings(ExploreSettings, task["settings"], "explore.settings")
    committee = load_committee(task, folder)
    uncertainty = UncertaintyModel.load(folder / task["uncertainty"])
    uncertainty.require_models(committee.hashes)
    seed = int(task["seed"])
    with Dataset.open(folder / task["frames"]) as dataset:
        frames = read_starting_frames(dataset)
    label, iteration = f"{task['label']}/", int(task["iteration"])
    flags = [has_stress(atoms) for atoms in frames]
    plans = plan_trajectories(len(frames), settings, seed, periodic=flags, label=label)
    result = explore(
        frames,
        committee.potentials,
        uncertainty,
        settings,
        seed,
        plans=plans[int(task["first"]) : int(task["last"])],
        deadline=deadline,
        label=label,
        iteration=iteration,
        on_progress=lambda done, total, _: write_json(folder / "progress.json", {"done": done, "total": total}),
    )
    write(folder / OUTPUT, result.frames)
    results = {"trajectories": result.trajectories, **result.report}
    if not result.frames:
        raise TaskError("no_frames", "no trajectory gave a frame: see the reasons in the report", results)
    if any(trajectory["reason"] == "walltime" for trajectory in result.trajectories):
        raise TaskInterruptedError("the walltime was near before all trajectories had ended", results)
    return results


def read_starting_frames(dataset: Dataset) -> list[Atoms]:
    """Return the frames of a dataset in the order of their structure ids: row order changes no trajectory."""
    ids = dataset.frame_ids(labels=False)
    return [dataset[int(i)] for i in np.argsort(ids, kind="stable")]
