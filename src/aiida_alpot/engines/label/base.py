"""The contract of a labelling engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from aiida import orm

from aiida_alpot.data.pes import PESData
from aiida_alpot.engines.job import Job, JobResources


class LabelEngine(ABC):
    """Gives frames their reference labels: all in one job, or one job a frame.

    A labelled dataset comes back with the frames it was given, in their order, each labelled or with the reason why
    not; one frame may give several labelled ones.
    """

    LEVELS: ClassVar[int] = 1
    """Processes of one job, one below the other: 1 for a CalcJob, 2 for a WorkChain around one (process slots)."""

    @classmethod
    @abstractmethod
    def validate(cls, parameters: Mapping[str, Any]) -> str | None:
        """Return what is wrong with the parameters of the stage, naming the key, or None."""

    @classmethod
    @abstractmethod
    def plan_jobs(cls, frames: PESData) -> list[str]:
        """Return the keys of the jobs that label *frames*: letters, digits and underscores."""

    @classmethod
    @abstractmethod
    def prepare_job(
        cls,
        key: str,
        frames: PESData,
        parameters: orm.Dict,
        resources: JobResources,
        previous: orm.ProcessNode | None,
    ) -> Job:
        """Return the job *key*.

        :param previous: the attempt before, if it stopped before its end; what it labelled is not labelled again.
        """

    @classmethod
    @abstractmethod
    def collect(cls, frames: PESData, jobs: Sequence[orm.ProcessNode]) -> PESData | None:
        """Return the labelled dataset from the last attempt of every job, None if nothing was labelled."""
