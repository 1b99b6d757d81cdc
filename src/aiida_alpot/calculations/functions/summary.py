"""calcfunctions that sum up what the jobs of a stage reported."""

from __future__ import annotations

from aiida import orm
from aiida.engine import calcfunction

from aiida_alpot.data.pes import PESData
from aiida_alpot.kernel import summaries

PLAN = "plan_"


@calcfunction
def summarise_labels(labelled: PESData, **reviews: orm.Dict) -> orm.Dict:
    """Return counts, cost and the reasons of failure of a labelled dataset.

    :param labelled: the dataset.
    :param reviews: of its labels, by part, if there were any.
    """
    found = [reviews[name].get_dict() for name in sorted(reviews)]
    with labelled.dataset() as reader:
        return orm.Dict(summaries.summarise_labels(reader, found))


@calcfunction
def summarise_committee(**reports: orm.Dict) -> orm.Dict:
    """Return the errors of every member of a committee and their means."""
    return orm.Dict(summaries.summarise_committee({key: report.get_dict() for key, report in reports.items()}))


@calcfunction
def summarise_exploration(**nodes: orm.Dict) -> orm.Dict:
    """Return what became of the trajectories of all jobs of an exploration.

    :param nodes: report of each job by its key, and the part of the plan that it was to run as ``plan_{key}``.
    """
    content = {key: node.get_dict() for key, node in nodes.items()}
    plans = {key.removeprefix(PLAN): content.pop(key) for key in nodes if key.startswith(PLAN)}
    return orm.Dict(summaries.summarise_exploration(content, plans))
