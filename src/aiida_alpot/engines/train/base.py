"""The contract of a training engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from aiida import orm

from aiida_alpot.data.pes import PESData
from aiida_alpot.data.potential import PotentialData
from aiida_alpot.engines.job import Job, JobResources


@dataclass(frozen=True)
class MemberInputs:
    """What one committee member is trained with.

    :param parent: potential of a warm start, None from scratch.
    """

    dataset: PESData
    parameters: orm.Dict
    seed: orm.Int
    parent: PotentialData | None = None


class TrainEngine(ABC):
    """Trains one potential per job; the job's outputs are ``potential`` and ``report``."""

    LEVELS: ClassVar[int] = 1
    """Processes of one job, one below the other: 1 for a CalcJob, 2 for a WorkChain around one (process slots)."""

    @classmethod
    @abstractmethod
    def validate(cls, parameters: Mapping[str, Any]) -> str | None:
        """Return what is wrong with the parameters of the stage, naming the key, or None."""

    @classmethod
    def validate_symbols(cls, parameters: Mapping[str, Any], symbols: Sequence[str]) -> str | None:  # noqa: ARG003
        """Return which species of the dataset the parameters cannot serve, or None."""
        return None

    @classmethod
    @abstractmethod
    def prepare_job(cls, member: MemberInputs, resources: JobResources, previous: orm.ProcessNode | None) -> Job:
        """Return the training of one member.

        :param previous: the attempt before, if it stopped before its end; training goes on from its checkpoint.
        """
