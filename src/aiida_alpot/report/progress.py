"""What a running campaign, or a stage alone, is doing: stage, jobs done, and the table so far."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from aiida import orm
from aiida.engine import ProcessBuilder
from aiida.engine.utils import instantiate_process
from aiida.manage import get_manager
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from aiida_alpot.report.table import build_table
from aiida_alpot.workflows.base import find_jobs
from aiida_alpot.workflows.resume import PROCESS_TYPE
from aiida_alpot.workflows.slots import slots_warning

LOOK_SHARE = 20
"""Time between looks in units of what a look takes."""
SLOTS_INTERVAL = 30.0
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
    """Return what the campaign or stage *node* is doing now."""
    stage = _current_stage(node)
    attempts = find_jobs(stage) if stage is not None else {}
    jobs = [nodes[-1] for nodes in attempts.values()]
    return Progress(
        state=node.process_state.value if node.process_state is not None else "created",
        is_over=node.is_terminated,
        stage=stage.label or _stage_name(stage) if stage is not None else "",
        jobs_done=sum(job.is_terminated for job in jobs),
        jobs_total=len(jobs),
        items=_items([job for job in jobs if isinstance(job, orm.CalcJobNode)]),
        iterations=find_history(node),
    )


def _current_stage(node: orm.WorkChainNode) -> orm.WorkChainNode | None:
    if node.process_type != PROCESS_TYPE:
        return node
    stages = [child for child in node.called if isinstance(child, orm.WorkChainNode)]
    return max(stages, key=lambda child: child.pk or 0, default=None)


def _stage_name(node: orm.WorkChainNode) -> str:
    return (node.process_type or "").rpartition(".")[2]


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
    """Show the progress of a campaign, or of a stage alone, until it ends.

    On a terminal the picture is redrawn; elsewhere a line is printed whenever something changes.
    """
    with _display(console or Console()) as show:
        begun = time.monotonic()
        while not show(node):
            time.sleep(_rest(interval, begun))
            begun = time.monotonic()


def run_and_watch(
    builder: ProcessBuilder, *, interval: float = 1.0, console: Console | None = None
) -> orm.WorkChainNode:
    """Run a WorkChain in this interpreter, show its progress meanwhile, and return its node when it has ended.

    It needs no broker: that of a profile may not run as long as the daemon does not.
    """
    runner = get_manager().create_runner(communicator=None, poll_interval=interval)
    process = instantiate_process(runner, builder)
    node = cast(orm.WorkChainNode, process.node)

    async def look_on(show: Callable[[orm.WorkChainNode], bool]) -> None:
        begun = time.monotonic()
        while not show(node):
            await asyncio.sleep(_rest(interval, begun))
            begun = time.monotonic()

    with _display(console or Console()) as show:
        looking = runner.loop.create_task(look_on(show))  # between the steps of the process: one thread, one session
        try:
            runner.run_get_node(process)
        finally:
            looking.cancel()
        show(node)
    return node


def _rest(interval: float, begun: float) -> float:
    """Return how long to wait before the next look, longer where one is dear: the processor is for the jobs."""
    return max(interval, LOOK_SHARE * (time.monotonic() - begun))


@contextlib.contextmanager
def _display(console: Console) -> Iterator[Callable[[orm.WorkChainNode], bool]]:
    """Yield a function that shows the progress of a node and returns whether it is over."""
    start = time.monotonic()
    slots = _SlotsWatch()
    if not console.is_terminal:
        lines = _Lines(console, start, slots)
        yield lines.show
        return
    with Live(console=console, auto_refresh=False) as live:

        def show(node: orm.WorkChainNode) -> bool:
            progress = collect_progress(node)
            live.update(render_progress(progress, time.monotonic() - start, slots.look()), refresh=True)
            return progress.is_over

        yield show


class _Lines:
    """Prints a line whenever something has changed."""

    def __init__(self, console: Console, start: float, slots: _SlotsWatch) -> None:
        self._console, self._start, self._slots = console, start, slots
        self._seen: tuple[str, int, int, str] | None = None
        self._warned: str | None = None

    def show(self, node: orm.WorkChainNode) -> bool:
        progress = collect_progress(node)
        now = (progress.stage, progress.jobs_done, progress.jobs_total, progress.items)
        if now != self._seen:
            text = f"{time.monotonic() - self._start:6.0f} s  {progress.stage or 'starting'}"
            items = f", {progress.items}" if progress.items else ""
            self._console.print(f"{text}  {progress.jobs_done}/{progress.jobs_total} jobs{items}", highlight=False)
            self._seen = now
        if not progress.is_over:
            warning = self._slots.look()
            if warning is not None and warning != self._warned:
                self._console.print(warning, highlight=False)
            self._warned = warning
        return progress.is_over


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
        except (OSError, ValueError):
            continue
        done, total = done + int(report.get("done", 0)), total + int(report.get("total", 0))
    return f"{done}/{total} items" if total else ""
