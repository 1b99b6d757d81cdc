"""Where the wall time of a finished campaign went: inside its jobs, before and after them, between its stages.

A job runs from the first file that the scheduler makes for it to the report that it writes last; both are read off the
files in its work folder, which therefore must still be there. What is left of the wall time is AiiDA and this package.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from aiida import orm

from aiida_alpot.calculations.base import REPORT_FILE

Interval = tuple[float, float]


@dataclass(frozen=True)
class Job:
    """One job that ran: times in seconds since the epoch; *task* is the part of it that the report counts, in s."""

    created: float
    started: float
    ended: float
    closed: float
    task: float


@dataclass(frozen=True)
class Stage:
    """One stage WorkChain with its jobs; *cached* of them were taken from the cache."""

    name: str
    wall: Interval
    jobs: list[Job]
    cached: int
    processes: int


@dataclass(frozen=True)
class Campaign:
    """A campaign with its stages, in order of their beginning."""

    pk: int
    wall: Interval
    stages: list[Stage]
    processes: dict[str, int]
    n_labels: int


def read_campaign(node: orm.WorkChainNode) -> Campaign:
    """Return the times of a finished campaign."""
    stages = [child for child in node.called if isinstance(child, orm.WorkChainNode)]
    kinds = Counter(type(child).__name__.removesuffix("Node") for child in [node, *node.called_descendants])
    dataset = node.outputs.dataset
    given = node.inputs.dataset.n_labelled if "dataset" in node.inputs else 0
    read = sorted((read_stage(stage) for stage in stages), key=lambda stage: stage.wall)
    return Campaign(node.pk, wall_of(node), read, dict(kinds), dataset.n_labelled - given)


def read_stage(node: orm.WorkChainNode) -> Stage:
    """Return the times of one stage; ``iteration_01_train`` is the stage ``train``."""
    nodes = [child for child in node.called_descendants if isinstance(child, orm.CalcJobNode)]
    fresh = [job for job in nodes if not job.base.caching.is_created_from_cache]
    name = node.label.split("_")[-1]
    n_processes = 1 + len(node.called_descendants)
    return Stage(name, wall_of(node), [read_job(job) for job in fresh], len(nodes) - len(fresh), n_processes)


def read_job(node: orm.CalcJobNode) -> Job:
    """Return the times of one job from its node and the files in its work folder."""
    folder = Path(node.get_remote_workdir() or "")
    report, first = folder / REPORT_FILE, folder / "_scheduler-stdout.txt"
    if not report.is_file():
        raise SystemExit(f"job <{node.pk}> has no {REPORT_FILE} in {folder}: its work folder is needed for the times")
    task = float(node.outputs.report["seconds"])
    ended = report.stat().st_mtime
    # the scheduler makes the file when it starts the job; if something was written to it, its time is a later one
    started = first.stat().st_mtime if first.is_file() and first.stat().st_size == 0 else ended - task
    created, closed = wall_of(node)
    return Job(created, started, ended, closed, task)


def wall_of(node: orm.ProcessNode) -> Interval:
    """Return when the node was made and when it was sealed."""
    return node.ctime.timestamp(), node.mtime.timestamp()


def union(intervals: Iterable[Interval]) -> float:
    """Return the length of time covered by at least one interval."""
    total, reached = 0.0, float("-inf")
    for first, last in sorted(intervals):
        total += max(0.0, last - max(first, reached))
        reached = max(reached, last)
    return total


def running(stages: Iterable[Stage]) -> float:
    """Return the time in which at least one job of these stages ran, s."""
    return union((job.started, job.ended) for stage in stages for job in stage.jobs)


def length(interval: Interval) -> float:
    return interval[1] - interval[0]


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


HEADER = ("stage", "runs", "jobs", "cached", "processes", "wall s", "in jobs s", "AiiDA s", "AiiDA %", "before s",
          "start s", "after s")  # fmt: skip


def rows(campaign: Campaign) -> list[tuple[str, ...]]:
    """Return the table by stage: its wall time, that in jobs, the rest, and for the mean job how long it took from
    node to start, from start to task (Python and the kernel), and from end to sealed node."""
    kinds: dict[str, list[Stage]] = defaultdict(list)
    for stage in campaign.stages:
        kinds[stage.name].append(stage)
    found = [_row(name, stages) for name, stages in kinds.items()]
    between = length(campaign.wall) - union(stage.wall for stage in campaign.stages)
    n_between = sum(campaign.processes.values()) - sum(stage.processes for stage in campaign.stages)
    found.append(("the loop", "", "", "", str(n_between), f"{between:.1f}", "", f"{between:.1f}", "", "", "", ""))
    wall, busy = length(campaign.wall), running(campaign.stages)
    n_jobs = sum(len(stage.jobs) for stage in campaign.stages)
    n_cached = sum(stage.cached for stage in campaign.stages)
    found.append(
        ("all", "", str(n_jobs), str(n_cached), str(sum(campaign.processes.values())), f"{wall:.1f}", f"{busy:.1f}",
         f"{wall - busy:.1f}", f"{100 * (wall - busy) / wall:.0f}", "", "", "")
    )  # fmt: skip
    return found


def _row(name: str, stages: list[Stage]) -> tuple[str, ...]:
    jobs = [job for stage in stages for job in stage.jobs]
    wall, busy = sum(length(stage.wall) for stage in stages), running(stages)
    per_job = (
        mean([job.started - job.created for job in jobs]),
        mean([job.ended - job.started - job.task for job in jobs]),
        mean([job.closed - job.ended for job in jobs]),
    )
    return (
        name,
        str(len(stages)),
        str(len(jobs)),
        str(sum(stage.cached for stage in stages)),
        str(sum(stage.processes for stage in stages)),
        f"{wall:.1f}",
        f"{busy:.1f}",
        f"{wall - busy:.1f}",
        f"{100 * (wall - busy) / wall:.0f}",
        *(f"{value:.1f}" for value in per_job),
    )


def markdown(table: Sequence[Sequence[str]]) -> str:
    """Return a table with :data:`HEADER` for the README."""
    lines = ["| " + " | ".join(HEADER) + " |", "|---" + "|---:" * (len(HEADER) - 1) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in table)])
