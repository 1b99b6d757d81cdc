"""The contract of a labelling engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from aiida import orm
from ase import Atoms

from aiida_alpot.data.pes import PESData
from aiida_alpot.engines.job import CONTINUABLE, REPEATABLE, Job, JobResources
from aiida_alpot.engines.label.finished import FinishedCalculation
from aiida_alpot.kernel.labelling.results import Result
from aiida_alpot.kernel.settings import parse_settings


@dataclass(frozen=True)
class LabelRequest:
    """What is to be labelled, and how.

    :param frames: the frames.
    :param parameters: of the engine, as they were given.
    :param settings: the same, as :meth:`LabelEngine.complete` made them.
    :param max_failed_fraction: of the stage, for an engine whose jobs label many frames: a job stops beyond it.
    :param known: labels of the same structures that were accepted before, for an engine whose jobs alone know the
        fingerprint: those of the same settings are taken.
    :param lost: when labels are collected, why jobs were stopped from outside in each of their attempts, by key. Their
        frames stay unlabelled.
    """

    frames: PESData
    parameters: orm.Dict
    settings: Mapping[str, Any]
    max_failed_fraction: orm.Float | None = None
    known: PESData | None = None
    lost: Mapping[str, str] = field(default_factory=dict)


class LabelEngine(ABC):
    """Gives frames their reference labels: all in one job, or one job a frame.

    A labelled dataset comes back with the frames it was given, in their order, each labelled or with the reason why
    not. One frame may give several labelled ones. A frame that has a label of other settings keeps it and is followed
    by the one with the new label.
    """

    SETTINGS: ClassVar[type[Any]]
    """Dataclass of the parameters, which checks names, types and ranges."""
    PLUGIN: ClassVar[str | None] = None
    """Entry point of the CalcJob that runs the code of the stage, None for one of this package."""
    LEVELS: ClassVar[int] = 1
    """Processes of one job, one below the other: 1 for a CalcJob, 2 for a WorkChain around one (process slots)."""
    RETRIED: ClassVar[frozenset[int]] = REPEATABLE | CONTINUABLE
    """Exit codes of a job after which it is submitted again; the engine may prepare another attempt differently."""

    CALCULATIONS: ClassVar[Mapping[str, frozenset[int]]] = {}
    """Process types of finished CalcJobs that this engine takes as labels, each with the exit codes after which their
    labels are good. An engine that names one defines the three methods on calculations."""

    @classmethod
    def validate(cls, parameters: Mapping[str, Any]) -> str | None:
        """Return what is wrong with the parameters of the stage, naming the key, or None."""
        try:
            parse_settings(cls.SETTINGS, parameters, "label.parameters")
        except ValueError as error:
            return str(error)
        return None

    @classmethod
    def check_code(cls, code: orm.AbstractCode) -> str | None:
        """Return why a code cannot be what this engine runs, or None: it is for another CalcJob."""
        plugin = code.default_calc_job_plugin
        if cls.PLUGIN is None or plugin in (None, cls.PLUGIN):
            return None
        return f"label.code: {code.full_label} is a code for {plugin}, and this engine runs {cls.PLUGIN}"

    @classmethod
    def complete(cls, parameters: Mapping[str, Any], symbols: Sequence[str]) -> dict[str, Any]:  # noqa: ARG003
        """Return the parameters with everything settled that must be equal for a whole dataset, e.g. cut-offs.

        :param symbols: chemical symbols that occur in it.
        :raises ValueError: if something that is needed is missing, e.g. the pseudopotential of a species.
        """
        return dict(parameters)

    @classmethod
    @abstractmethod
    def plan_jobs(cls, request: LabelRequest) -> list[str]:
        """Return the keys of the jobs that label the frames: letters, digits and underscores.

        :raises ValueError: if the frames cannot be labelled with these parameters.
        """

    @classmethod
    @abstractmethod
    def prepare_job(
        cls, key: str, request: LabelRequest, resources: JobResources, previous: orm.ProcessNode | None
    ) -> Job:
        """Return the job *key*.

        :param previous: the attempt before that left partial results; what it labelled is not labelled again.
        """

    @classmethod
    def was_lost(cls, job: orm.ProcessNode) -> bool:  # noqa: ARG003
        """Return whether the machine stopped a job that failed, so that nothing is wrong with its frames.

        Asked for where the exit code of the job itself does not say it.
        """
        return False

    @classmethod
    def explain(cls, job: orm.ProcessNode) -> str:  # noqa: ARG003
        """Return what the program itself said about its failure, in one line, ``""`` for nothing."""
        return ""

    @classmethod
    @abstractmethod
    def collect(
        cls, request: LabelRequest, jobs: Mapping[str, orm.ProcessNode], failures: Mapping[str, str]
    ) -> PESData | None:
        """Return the labelled dataset, None if nothing was labelled.

        :param jobs: the last attempt at every job, by key.
        :param failures: why jobs have failed for good, by key; some of them never ran.
        """

    @classmethod
    def fingerprint(cls, settings: Mapping[str, Any]) -> str | None:  # noqa: ARG003
        """Return what tells labels of different settings apart, None if only a job can say it.

        :param settings: the parameters, completed.
        """
        return None

    @classmethod
    def made_fingerprint(
        cls,
        request: LabelRequest,
        jobs: Mapping[str, orm.ProcessNode],  # noqa: ARG003
    ) -> str | None:
        """Return the fingerprint that the labels of a stage must have, None if nothing says it.

        :param jobs: the last attempt at every job, by key.
        """
        return cls.fingerprint(request.settings)

    @classmethod
    def inspect_calculation(cls, calculation: orm.CalcJobNode) -> FinishedCalculation:
        """Return a finished calculation as a source of labels.

        :raises ValueError: if there are none in it.
        """
        raise NotImplementedError

    @classmethod
    def read_calculation(
        cls, atoms: Atoms, nodes: Mapping[str, orm.Node], details: Mapping[str, Any]
    ) -> Sequence[Result | None]:
        """Return the labels of every ionic step of a finished calculation, None for one that has none.

        :param atoms: what the calculation started from.
        :param nodes: those of :class:`FinishedCalculation`, as are the *details*.
        :raises ValueError: if they cannot be read.
        """
        raise NotImplementedError

    @classmethod
    def expect_calculation(cls, structure: orm.StructureData, settings: Mapping[str, Any]) -> FinishedCalculation:
        """Return what :meth:`inspect_calculation` says of a calculation that this engine made for a structure.

        :param settings: completed parameters; of the result only settings and columns count.
        """
        raise NotImplementedError
