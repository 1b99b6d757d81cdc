"""A rolling window over children: the next step begins when one of them ends, not when all have.

aiida-core has no supported call for it: a step waits for everything that it put into the context. Hooks of its
``WorkChain`` are extended here instead; ``tests/workflows/test_window.py`` pins them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from aiida import orm
from aiida.engine import WorkChain
from aiida.engine.processes.workchains.awaitable import Awaitable, construct_awaitable
from plumpy.process_states import ProcessState


class WindowWorkChain(WorkChain):
    """A WorkChain of which a step can wait for the first of several children."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._forget_watches()

    def load_instance_state(self, saved_state: Any, load_context: Any) -> None:
        """Watch the children anew: after a restart nobody does."""
        self._forget_watches()
        super().load_instance_state(saved_state, load_context)  # type: ignore[no-untyped-call]

    def _forget_watches(self) -> None:
        self._watched: set[int] = set()
        self._ended_within_step = False

    def wait_for_any(self, children: Mapping[str, orm.ProcessNode]) -> None:
        """Let the next step begin when one of *children* has ended.

        To be called once in a step, with all children that run: one that is not named is no longer waited for. The
        children do not enter the context, so that it stays small whatever their number.

        :param children: by key, without dots.
        """
        for key, node in children.items():
            awaitable = construct_awaitable(node)
            awaitable.key = key
            awaitable.resume_on_any = True  # kept by the checkpoint
            self._awaitables.append(awaitable)
        self._update_process_status()

    def _action_awaitables(self) -> None:
        """Have the ends of the children reported, once for each: a second call would report them twice."""
        for awaitable in self._awaitables:
            if awaitable.pk not in self._watched:
                self._watched.add(awaitable.pk)
                report = partial(self.call_soon, self._on_awaitable_finished, awaitable)
                self.runner.call_on_process_finish(awaitable.pk, report)
        if self._ended_within_step:
            self._ended_within_step = False
            self.call_soon(self._resume_if_waiting)

    def _on_awaitable_finished(self, awaitable: Awaitable) -> None:
        """Begin the next step if the child is of a window, or if it was the last one waited for.

        The step that is waited in may be a later one than the report was ordered in, and have an awaitable of its own.
        """
        self._watched.discard(awaitable.pk)
        current = next((waited for waited in self._awaitables if waited.pk == awaitable.pk), None)
        if current is None:
            return
        if not current.get("resume_on_any", False):
            super()._on_awaitable_finished(current)
            return
        self._awaitables.remove(current)
        if self.has_terminated():
            return
        self._update_process_status()
        self._ended_within_step = self.state != ProcessState.WAITING
        self._resume_if_waiting()

    def _resume_if_waiting(self) -> None:
        if self.state == ProcessState.WAITING:
            self.resume()
