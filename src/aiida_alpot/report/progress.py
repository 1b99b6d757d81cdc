"""What a running campaign is doing: stage, jobs done, and the table so far."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiida import orm
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from aiida_alpot.report.table import build_table
from aiida_alpot.workflows.slots import slots_warning

SLOTS_INTERVAL = 30.0
LOOK_SHARE = 20
"""Time between looks in units of what a look takes."""
"""Seconds after which it is looked again whether the process slots suffice."""


@dataclass(frozen=True)
class Progress:
    """State of a campaign at one moment.

    :param stage: link label of the stage that runs, e.g. ``iteration_01_train``; empty before the first.
    :param jobs_done: jobs of the stage that have ended.
    :param jobs_total: jobs of the stage that were submitted.
    :param items: ``"done/total"`` of what the jobs themselves report (frames, trajectories), where they can be seen.
    :param iterations: rows of the history so far.
    """

    state: str
    is_over: bool
    stage: str
    jobs_done: int
    jobs_total: int
    items: str
    iterations: list[dict[str, Any]]


def collect_progress(node: orm.WorkChainNode) -> Progress:
    """Return what the campaign *node* is doing now."""
    stages = [child for child in node.called if isinstance(child, orm.WorkChainNode)]
    stage = max(stages, key=lambda child: child.pk or 0, default=None)
    jobs = [child for child in stage.called if isinstance(child, orm.CalcJobNode)] if stage is not None else []
    return Progress(
        state=node.process_state.value if node.process_state is not None else "created",
        is_over=node.is_terminated,
        stage=stage.label if stage is not None else "",
        jobs_done=sum(job.is_terminated for job in jobs),
        jobs_total=len(jobs),
        items=_items(jobs),
        iterations=find_history(node),
    )


def find_history(node: orm.WorkChainNode) -> list[dict[str, Any]]:
    """Return the rows of the history so far, also while the campaign runs, with those of one that it resumes."""
    query = orm.QueryBuilder()
    query.append(orm.WorkChainNode, filters={"id": node.pk}, tag="campaign")
    query.append(
        orm.CalcFunctionNode, with_incoming="campaign", filters={"attributes.process_label": "extend_history"}, tag="f"
    )
    query.append(orm.Dict, with_incoming="f", tag="history")
    query.order_by({"history": {"id": "desc"}})
    latest = query.first(flat=True)
    if latest is None and "resume" in node.inputs:
        latest = node.inputs.resume.get("history", None)
    return list(latest["iterations"]) if latest is not None else []


def render_progress(progress: Progress, seconds: float, warning: str | None = None) -> RenderableType:
    """Return the progress as text and table, with a warning below if there is one."""
    bar = f"{progress.jobs_done}/{progress.jobs_total} jobs"
    items = f", {progress.items}" if progress.items else ""
    line = f"{seconds:6.0f} s  {progress.stage or 'starting'}  {bar}{items}  [{progress.state}]"
    table = [build_table(progress.iterations)] if progress.iterations else []
    return Group(*table, Text(line), *([Text(warning, style="bold red")] if warning else []))


def watch(node: orm.WorkChainNode, *, interval: float = 2.0, console: Console | None = None) -> None:
    """Show the progress of a campaign until it ends.

    On a terminal the picture is redrawn; elsewhere a line is printed whenever something changes.
    """
    console = console or Console()
    start = time.monotonic()
    slots = _SlotsWatch()
    if console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            while True:
                begun = time.monotonic()
                progress = collect_progress(node)
                live.update(render_progress(progress, time.monotonic() - start, slots.look()), refresh=True)
                if progress.is_over:
                    return
                _rest(interval, begun)
    seen: Mapping[str, Any] | None = None
    warned: str | None = None
    while True:
        begun = time.monotonic()
        progress = collect_progress(node)
        now = {"stage": progress.stage, "done": progress.jobs_done, "total": progress.jobs_total}
        if now != seen:
            text = f"{time.monotonic() - start:6.0f} s  {progress.stage or 'starting'}"
            console.print(f"{text}  {progress.jobs_done}/{progress.jobs_total} jobs", highlight=False)
            seen = now
        if progress.is_over:
            return
        warning = slots.look()
        if warning is not None and warning != warned:
            console.print(warning, highlight=False)
        warned = warning
        _rest(interval, begun)


def _rest(interval: float, begun: float) -> None:
    """Wait before the next look, longer where a look is dear: the processor is for the jobs."""
    time.sleep(max(interval, LOOK_SHARE * (time.monotonic() - begun)))


class _SlotsWatch:
    """Remembers the warning about process slots between looks at the daemon."""

    def __init__(self) -> None:
        self._next = 0.0
        self._warning: str | None = None

    def look(self) -> str | None:
        if time.monotonic() >= self._next:
            self._warning = slots_warning()
            self._next = time.monotonic() + SLOTS_INTERVAL
        return self._warning


def _items(jobs: list[orm.CalcJobNode]) -> str:
    """Return the sum of what running jobs on this machine say of themselves."""
    done = total = 0
    for job in jobs:
        workdir = job.get_remote_workdir()
        if job.is_terminated or not workdir or job.computer is None or job.computer.transport_type != "core.local":
            continue
        try:
            report = json.loads((Path(workdir) / "progress.json").read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError):
            continue
        done, total = done + int(report.get("done", 0)), total + int(report.get("total", 0))
    return f"{done}/{total} items" if total else ""
