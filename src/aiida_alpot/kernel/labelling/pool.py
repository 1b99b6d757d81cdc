"""A small pool of worker processes, made for calculations that crash, hang or run out of memory."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Final

from aiida_alpot.kernel._extras import MissingPackageError
from aiida_alpot.kernel.labelling.settings import LabelSettings
from aiida_alpot.kernel.labelling.shards import Shard, read_matching_shard, write_shard
from aiida_alpot.kernel.labelling.worker import BOOT, DONE, REFUSED, UNWRITTEN, Task, WorkerSetup

_POLL_S: Final = 0.5
_GRACE_S: Final = 5.0
_THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class CalculatorError(ValueError):
    """The calculator cannot be built where the frames are labelled: no frame can be."""


class CalculatorPackageError(CalculatorError, MissingPackageError):
    """The calculator cannot be built because a package is missing where the frames are labelled."""

    def __init__(self, package: str, message: str) -> None:
        ImportError.__init__(self, message)
        self.package = package


def refusal(reason: tuple[str, str]) -> CalculatorError:
    """Return the error for what :func:`~.worker.describe_refusal` said."""
    package, message = reason
    return CalculatorPackageError(package, message) if package else CalculatorError(message)


@dataclass
class _Worker:
    """A process, the pipe to it, and what it is doing."""

    number: int
    process: subprocess.Popen[bytes]
    connection: Connection[Any, Any]
    log: Path
    is_ready: bool = False
    task: Task | None = None
    started: float = 0.0

    def kill(self) -> None:
        """End the process and everything it started; one that waits for work may end by itself first."""
        self.connection.close()
        if self.is_ready and self.task is None:
            # the closed pipe tells it to: output is flushed and calculators can clean up
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_GRACE_S)
        with contextlib.suppress(ProcessLookupError):  # it ended by itself
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class WorkerPool:
    """Label frames in processes of their own; use as a context manager.

    :param settings: number of workers, threads, timeout of a frame.
    :param setup: what the workers need to know.
    :param finished: called with the status of each frame as soon as its shard is written; it returns whether to go on.
    """

    def __init__(self, settings: LabelSettings, setup: WorkerSetup, finished: Callable[[str], bool]) -> None:
        self._settings = settings
        self._setup = setup
        self._shard_dir = Path(setup.shard_dir)
        self._finished = finished
        self._goes_on = True
        self._workers: dict[int, _Worker] = {}

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers.values():
            worker.kill()
        self._workers.clear()

    def run(self, tasks: Iterator[Task], n_tasks: int, deadline: float) -> bool:
        """Label all frames, or as many as can be before *deadline*.

        :param deadline: on the clock of ``time.monotonic``; a frame in work at that time is given up.
        :return: whether all tasks are done; not if *finished* said to stop, which gives up frames in work, too.
        :raises CalculatorError: if a worker cannot build the calculator or dies while it tries.
        :raises OSError: if a worker cannot write its labels.
        """
        for number in range(min(self._settings.n_workers, n_tasks)):
            self._start(number)
        left = n_tasks
        while left:
            now = time.monotonic()
            if now >= deadline or not self._goes_on:
                return False
            by_connection = {worker.connection: worker for worker in self._workers.values()}
            for connection in wait(list(by_connection), timeout=min(_POLL_S, deadline - now)):
                left -= self._receive(by_connection[connection])  # type: ignore[index]
            left -= self._give_up_slow()
            self._assign_free(tasks)
        return True

    def _assign_free(self, tasks: Iterator[Task]) -> None:
        """Give every worker that waits the next frame, unless it was said to stop."""
        for worker in self._workers.values():
            if self._goes_on and worker.is_ready and worker.task is None:
                self._assign(worker, next(tasks, None))

    def _start(self, number: int) -> None:
        here, there = Pipe()
        log = self._shard_dir / f"worker-{number}.log"
        path = [entry or str(Path.cwd()) for entry in sys.path]
        threads = dict.fromkeys(_THREAD_VARIABLES, str(self._settings.threads_per_worker))
        with log.open("ab") as output:
            process = subprocess.Popen(
                # unbuffered: what a frame printed before it crashed is what explains the crash
                [sys.executable, "-u", "-c", BOOT, json.dumps(path), str(there.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[there.fileno()],
                env=os.environ | threads,
                process_group=0,
            )
        there.close()
        self._workers[number] = _Worker(number, process, here, log)
        scratch = str(self._shard_dir / f"worker-{number}")
        with contextlib.suppress(BrokenPipeError):  # it died at once, which the next read finds and reports
            here.send(replace(self._setup, scratch=scratch))

    def _assign(self, worker: _Worker, task: Task | None) -> None:
        if task is None:
            return
        worker.task, worker.started = task, time.monotonic()
        with contextlib.suppress(BrokenPipeError):  # it died while idle, which the next read finds
            worker.connection.send(task)

    def _receive(self, worker: _Worker) -> int:
        """Take a message of a worker; return how many frames were finished by it."""
        try:
            kind, text = worker.connection.recv()
        except (EOFError, ConnectionResetError):
            return self._lost(worker)
        if kind == REFUSED:
            raise refusal(text)
        if kind == UNWRITTEN:
            raise text
        worker.is_ready = True
        if kind != DONE:
            return 0
        worker.task = None
        self._goes_on = self._finished(text)
        return 1

    def _lost(self, worker: _Worker) -> int:
        """Replace a worker that died; its frame has failed, unless the shard was written before."""
        code = worker.process.wait()
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        if not worker.is_ready:
            raise CalculatorError(f"a worker ended before it had built the calculator ({how}), see {worker.log}")
        return self._fail(worker, f"WorkerDied: the process that labelled the frame ended ({how})")

    def _give_up_slow(self) -> int:
        limit = self._settings.frame_timeout_s
        if limit is None:
            return 0
        now = time.monotonic()
        slow = [worker for worker in self._workers.values() if worker.task and now - worker.started > limit]
        return sum(self._fail(worker, f"FrameTimeout: not finished after {limit:g} s") for worker in slow)

    def _fail(self, worker: _Worker, reason: str) -> int:
        task = worker.task
        cost = time.monotonic() - worker.started
        worker.kill()
        self._start(worker.number)
        if task is None:
            return 0
        shard = read_matching_shard(self._shard_dir, task.index, task.structure_id, self._setup.fingerprint)
        if shard is None or shard.status == "failed":
            shard = Shard(task.structure_id, self._setup.fingerprint, "failed", reason, cost)
            write_shard(self._shard_dir, task.index, shard)
        self._goes_on = self._finished(shard.status)
        return 1
