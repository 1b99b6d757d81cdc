"""What every engine is given of the stage that runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from aiida import orm
from aiida.engine import Process

REPEATABLE: Final = frozenset({100, 110, 120, 140, 302, 305})
"""Exit codes of a job that was lost (no files, memory, walltime, its node, killed, its disk full): another attempt may
end well."""
CONTINUABLE: Final = frozenset({500, 501})
"""Exit codes of a job of the kernel that stopped with partial results, from which another attempt goes on."""


@dataclass(frozen=True)
class JobResources:
    """Where and with what a job runs.

    :param code: the Python, or the executable of the engine.
    :param kernel: the kernel node of this campaign.
    :param options: scheduler options, ``metadata.options`` of a CalcJob.
    :param label: name of the job in the provenance graph.
    :param checkpoint: folder of an earlier attempt at this job, of this campaign or the one it resumes, None if there
        was none. What it finished need not be done again.
    :param n_before: attempts at this job before this one.
    """

    code: orm.AbstractCode
    kernel: orm.SinglefileData
    options: Mapping[str, Any]
    label: str
    checkpoint: orm.RemoteData | None = None
    n_before: int = 0

    def common_inputs(self) -> dict[str, Any]:
        """Return the inputs that every CalcJob of the kernel takes, without the checkpoint."""
        metadata = {"options": dict(self.options), "label": self.label, "call_link_label": self.label}
        return {"code": self.code, "kernel": self.kernel, "metadata": metadata}


@dataclass(frozen=True)
class Job:
    """A process to submit with its inputs."""

    process: type[Process]
    inputs: Mapping[str, Any]
