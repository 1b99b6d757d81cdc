"""calcfunctions that plan: seeds of the stages and parts of an exploration."""

from __future__ import annotations

from typing import Any

from aiida import orm
from aiida.engine import calcfunction

from aiida_alpot.data.pes import PESData
from aiida_alpot.kernel.evaluating import EvaluateSettings
from aiida_alpot.kernel.exploration import ExploreSettings, count_trajectories
from aiida_alpot.kernel.potentials import has_stress
from aiida_alpot.kernel.seeds import derive_seed
from aiida_alpot.kernel.settings import parse_settings
from aiida_alpot.kernel.tasks.explore_ase import read_starting_frames

STAGES = ("train", "explore", "evaluate")


@calcfunction
def plan_start(seed: orm.Int) -> dict[str, orm.Int]:
    """Return the seeds of what happens before the loop: ``augment`` and ``split``.

    :param seed: seed of the campaign.
    """
    return {name: orm.Int(derive_seed(seed.value, name)) for name in ("augment", "split")}


@calcfunction
def plan_iteration(seed: orm.Int, history: orm.Dict | None = None) -> dict[str, orm.Int]:
    """Return number and seeds of the next iteration: ``iteration``, ``train``, ``explore``, ``evaluate``.

    :param seed: seed of the campaign.
    :param history: record of the iterations before.
    """
    iteration = 0 if history is None else len(history["iterations"])
    seeds = {name: orm.Int(derive_seed(seed.value, f"iteration-{iteration}/{name}")) for name in STAGES}
    return {"iteration": orm.Int(iteration), **seeds}


@calcfunction
def cap_budget(settings: orm.Dict, dataset: PESData, max_labels: orm.Int) -> orm.Dict:
    """Return the settings of an evaluation with a budget that stays within the labels that are left.

    :param settings: of the evaluation, with the budget that is wanted.
    :param dataset: all frames labelled so far.
    :param max_labels: most labels of the dataset.
    """
    parsed = parse_settings(EvaluateSettings, settings.get_dict(), "evaluate.settings")
    left = max(1, max_labels.value - dataset.n_labelled)
    return orm.Dict({**settings.get_dict(), "budget": min(parsed.budget, left)})


@calcfunction
def plan_committee(seed: orm.Int, committee_size: orm.Int) -> dict[str, orm.Int]:
    """Return a seed for every member of a committee: ``m000``, ``m001`` and so on.

    :param seed: seed of the committee.
    :param committee_size: number of members.
    """
    names = member_names(committee_size.value)
    return {name: orm.Int(derive_seed(seed.value, f"member-{k}")) for k, name in enumerate(names)}


def member_names(committee_size: int) -> list[str]:
    """Return the names of the members of a committee, in order."""
    return [f"m{k:03d}" for k in range(committee_size)]


@calcfunction
def plan_exploration(
    frames: PESData, settings: orm.Dict, seed: orm.Int, trajectories_per_job: orm.Int, iteration: orm.Int
) -> dict[str, orm.Dict]:
    """Return the part of the plan that each job of an exploration runs: ``j000``, ``j001`` and so on.

    :param frames: frames to start from.
    :param settings: conditions and stop rules.
    :param seed: seed of the exploration.
    :param trajectories_per_job: most trajectories of one job.
    :param iteration: iteration of the loop.
    :raises ValueError: if no frame is fit to start from, with the reasons.
    """
    parsed = parse_settings(ExploreSettings, settings.get_dict(), "explore.settings")
    with frames.dataset() as reader:
        periodic = [has_stress(atoms) for atoms in read_starting_frames(reader, parsed)]
    n_trajectories = count_trajectories(len(periodic), parsed, periodic, seed=seed.value)
    step = trajectories_per_job.value
    parts: dict[str, Any] = {}
    for job, first in enumerate(range(0, n_trajectories, step)):
        last = min(first + step, n_trajectories)
        parts[f"j{job:03d}"] = orm.Dict({"first": first, "last": last, "iteration": iteration.value})
    return parts
