"""calcfunction that decides whether the loop has converged."""

from __future__ import annotations

from aiida import orm
from aiida.engine import calcfunction

from aiida_alpot.data.pes import PESData
from aiida_alpot.kernel.deciding import Budget, decide_iteration


@calcfunction
def decide(
    settings: orm.Dict,
    evaluation: orm.Dict,
    dataset: PESData,
    max_iterations: orm.Int,
    max_labels: orm.Int | None = None,
    exploration: orm.Dict | None = None,
    labelled: PESData | None = None,
    history: orm.Dict | None = None,
    properties: orm.Dict | None = None,
) -> orm.Dict:
    """Return whether an iteration ends the loop, why, and the numbers behind it.

    :param settings: see :class:`~aiida_alpot.kernel.convergence.ConvergenceSettings`.
    :param evaluation: report of the evaluation.
    :param dataset: all frames labelled so far; counts against *max_labels*.
    :param max_iterations: most iterations of the loop.
    :param max_labels: most labels of the dataset, no limit without it.
    :param exploration: report of the exploration, None for a pool of candidates.
    :param labelled: the selected frames with their labels, control frames among them.
    :param history: record of the iterations before.
    :param properties: what the gates judge, None if they were not computed.
    """
    reports = {"evaluation": evaluation.get_dict()["results"]}
    if exploration is not None:
        reports["exploration"] = exploration.get_dict()
    if properties is not None:
        reports["properties"] = properties.get_dict()
    frames = [] if labelled is None else list(labelled)
    past = [] if history is None else history["iterations"]
    budget = Budget(
        max_iterations=max_iterations.value,
        n_labels=dataset.n_labelled,
        max_labels=None if max_labels is None else max_labels.value,
    )
    return orm.Dict(decide_iteration(settings.get_dict(), reports, frames, past, budget))
