"""Label single frames: one function, and the loop of a process that does nothing else.

A worker is ``sys.executable -c …`` and not a ``multiprocessing`` child: it needs no guarded main module, shares
nothing with the parent but a pipe, and works when this package is imported from a zip.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.calculators.singlepoint import SinglePointCalculator

from aiida_alpot.kernel._extras import MissingPackageError
from aiida_alpot.kernel.labelling.boxes import put_into_box, spin_moments
from aiida_alpot.kernel.labelling.codes import find_failure, give_folder, mend_labels, runs_program, set_spin
from aiida_alpot.kernel.labelling.gate import check_labels
from aiida_alpot.kernel.labelling.settings import FROM_INFO, LabelSettings
from aiida_alpot.kernel.labelling.shards import Shard, write_shard
from aiida_alpot.kernel.potentials.ase_calculator import evaluate
from aiida_alpot.kernel.potentials.calculators import CalculatorSpec, build_calculator

BOOT: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from aiida_alpot.kernel.labelling.worker import serve; serve(int(sys.argv[2]))"
)
"""What a worker process executes; its arguments are the module search path and the number of its pipe."""

READY: Final = "ready"
REFUSED: Final = "refused"
DONE: Final = "done"
UNWRITTEN: Final = "unwritten"
"""A shard cannot be written, which says nothing of its frame."""

_DISK_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_MAX_REASON = 300
_WATCH_INTERVAL = 1.0


@dataclass(frozen=True)
class WorkerSetup:
    """Everything a worker knows before its first frame."""

    settings: LabelSettings
    fingerprint: str
    shard_dir: str
    scratch: str


@dataclass(frozen=True)
class Task:
    """One frame to label."""

    index: int
    structure_id: str
    atoms: Atoms


class Labeller:
    """A calculator that labels frames, is used again for the next one and replaced after a failure.

    :raises MissingPackageError: if the package of the calculator is not installed.
    :raises ValueError: if the calculator cannot be built.
    """

    def __init__(self, setup: WorkerSetup) -> None:
        self.setup = setup
        self._calculator = self._build()

    def label(self, task: Task) -> Shard:
        """Return the labels of one frame; what goes wrong becomes the reason of a failed one.

        :raises OSError: if the disk is full, which says nothing of the frame.
        """
        start = time.perf_counter()
        try:
            labels = self._compute(task.atoms)
        except Exception as error:  # a reference calculation that fails is a result
            if isinstance(error, OSError) and error.errno in _DISK_FULL:
                raise
            self._calculator = self._build()
            return self._shard(task, start, "failed", reason_of(error), {})
        status, reason = _judge(task.atoms, labels)
        if status == "failed":
            self._calculator = self._build()
            labels = {}
        return self._shard(task, start, status, reason, labels)

    def _compute(self, atoms: Atoms) -> dict[str, Any]:
        """Return the labels of a frame.

        :raises ValueError: if the program says itself that they are none.
        """
        charge = float(np.nan_to_num(atoms.info.get("charge") or 0.0))  # NaN: none was given
        if runs_program(self._calculator) or self._charge_path:
            self._calculator = self._build(charge)  # no setting of the frame before stays
        self._set_charge(charge)
        frame = prepare_frame(atoms, self.setup.settings)
        set_spin(self._calculator, frame)
        labels = evaluate(self._calculator, frame)
        failure = find_failure(self._calculator)
        if failure is not None:
            raise ValueError(failure)
        if self.setup.settings.vacuum is not None and not all(atoms.pbc):
            labels.pop("stress", None)  # of the box
        return mend_labels(self._calculator, labels)

    @property
    def _charge_path(self) -> list[str]:
        """Where in the parameters of the calculator the charge is, if it is nested in them."""
        name = self.setup.settings.charge_parameter or ""
        return name.split(".") if "." in name and name != FROM_INFO else []

    def _build(self, charge: float = 0.0) -> Calculator:
        spec = self.setup.settings.spec
        if charge and self._charge_path:
            spec = CalculatorSpec(spec.calculator, with_value(spec.parameters, self._charge_path, charge))
        calculator = build_calculator(spec)
        give_folder(calculator, Path(self.setup.scratch))
        return calculator

    def _set_charge(self, charge: float) -> None:
        name = self.setup.settings.charge_parameter
        if name is None and charge:
            raise ValueError(f"the frame has the charge {charge:g}, set charge_parameter to tell the calculator")
        if name is not None and name != FROM_INFO and not self._charge_path:
            self._calculator.set(**{name: charge})

    def _shard(self, task: Task, start: float, status: str, reason: str, labels: Mapping[str, Any]) -> Shard:
        return Shard(
            structure_id=task.structure_id,
            fingerprint=self.setup.fingerprint,
            status=status,
            reason=reason,
            cost=time.perf_counter() - start,
            labels={name: np.asarray(values, dtype=np.float64) for name, values in labels.items()},
        )


def prepare_frame(atoms: Atoms, settings: LabelSettings) -> Atoms:
    """Return a frame as the calculator gets it: in a box, with starting moments, where these are asked for."""
    frame = atoms.copy()
    if settings.magnetic_moments is not None:
        frame.set_initial_magnetic_moments(spin_moments(atoms, settings.magnetic_moments))
    return (
        frame
        if settings.vacuum is None
        else put_into_box(frame, settings.vacuum, cubic=settings.cubic, doubled=settings.cubic)
    )


def with_value(parameters: Mapping[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    """Return nested parameters with the one at *path* set."""
    first, *rest = path
    return {**parameters, first: with_value(parameters.get(first, {}), rest, value) if rest else value}


def reason_of(error: BaseException) -> str:
    """Return type and message of an exception in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:_MAX_REASON]


def serve(descriptor: int) -> None:
    """Label the frames that come through a pipe until it is closed; shards are written before a frame is reported.

    An error of the disk ends the work and goes to the parent as it is.

    :param descriptor: file descriptor of the pipe to the parent.
    """
    _watch_parent()
    connection: Connection[Any, Any] = Connection(descriptor)
    setup: WorkerSetup = connection.recv()
    try:
        labeller = Labeller(setup)
        connection.send((READY, ""))
        while (task := connection.recv()) is not None:
            try:
                shard = labeller.label(task)
                write_shard(Path(setup.shard_dir), task.index, shard)
            except OSError as error:
                connection.send((UNWRITTEN, error))
                return
            connection.send((DONE, shard.status))
    except (EOFError, BrokenPipeError):
        # the parent is gone, what is done is in the shards
        return
    except (ImportError, ValueError, TypeError) as error:
        connection.send((REFUSED, describe_refusal(error)))


def describe_refusal(error: Exception) -> tuple[str, str]:
    """Return why a calculator cannot be built: the package that is missing or "", and the message."""
    package = error.package if isinstance(error, MissingPackageError) else ""
    return package, f"{type(error).__name__}: {error}"


def _judge(atoms: Atoms, labels: Mapping[str, Any]) -> tuple[str, str]:
    magmoms = labels.get("magmoms")
    if magmoms is not None and np.shape(magmoms) != (len(atoms),):
        return "failed", f"magmoms has the shape {np.shape(magmoms)}, expected {(len(atoms),)}"
    frame = atoms.copy()
    frame.calc = SinglePointCalculator(frame, **labels)
    verdict = check_labels(frame)
    if verdict is None:
        return "labelled", ""
    status, _, reason = verdict.partition(": ")
    return status, reason


def _watch_parent() -> None:
    """End this process and what it started soon after the parent is gone, even in the middle of a calculation."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_INTERVAL)
        os.killpg(os.getpgid(0), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
