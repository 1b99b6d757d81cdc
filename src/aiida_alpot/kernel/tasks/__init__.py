"""One module per task of a job: ``run(task, folder) -> results``. Modules are imported only when their task runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

TASKS: Final[Mapping[str, str]] = {
    name: f"aiida_alpot.kernel.tasks.{name}"
    for name in ("augment", "label_ase", "train_mace", "calibrate", "explore_ase", "evaluate", "predict")
}


class TaskError(RuntimeError):
    """A task failed in a way that the parser knows by its *code*; *results* may hold what there is."""

    def __init__(self, code: str, message: str, results: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.results = dict(results or {})


class TaskInterruptedError(RuntimeError):
    """A task stopped in good order before its walltime; partial results are written."""

    def __init__(self, message: str, results: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.results = dict(results or {})
