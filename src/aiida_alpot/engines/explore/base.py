"""The contract of an exploration engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from aiida import orm

from aiida_alpot.data.pes import PESData
from aiida_alpot.data.potential import PotentialData
from aiida_alpot.data.uncertainty import UncertaintyData
from aiida_alpot.engines.job import Job, JobResources


@dataclass(frozen=True)
class ExplorationInputs:
    """What the trajectories of an exploration share."""

    potentials: Mapping[str, PotentialData]
    uncertainty: UncertaintyData
    frames: PESData
    settings: orm.Dict
    seed: orm.Int


class ExploreEngine(ABC):
    """Runs trajectories; the outputs of a job are ``candidates`` and ``report``."""

    LEVELS: ClassVar[int] = 1
    """Processes of one job, one below the other: 1 for a CalcJob, 2 for a WorkChain around one (process slots)."""

    @classmethod
    @abstractmethod
    def validate(cls, settings: Mapping[str, Any]) -> str | None:
        """Return what is wrong with the settings of the stage, naming the key, or None."""

    @classmethod
    @abstractmethod
    def plan_jobs(
        cls, inputs: ExplorationInputs, trajectories_per_job: orm.Int, iteration: orm.Int
    ) -> Mapping[str, orm.Dict]:
        """Return the part of the plan of each job by its key, made by a process."""

    @classmethod
    @abstractmethod
    def prepare_job(cls, inputs: ExplorationInputs, part: orm.Dict, resources: JobResources) -> Job:
        """Return the job that runs one part of the plan."""
