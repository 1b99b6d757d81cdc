"""Engines that label every frame with a process of its own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from aiida import orm
from ase import Atoms

from aiida_alpot.calculations.functions.dataset import merge_datasets
from aiida_alpot.calculations.functions.structure import frame_structure
from aiida_alpot.data.pes import PESData
from aiida_alpot.engines.job import Job, JobResources
from aiida_alpot.engines.label.base import LabelEngine, LabelRequest
from aiida_alpot.engines.label.collecting import SEPARATOR, collect_labels, job_key
from aiida_alpot.kernel.labelling.identity import label_ids
from aiida_alpot.kernel.labelling.results import Result, sort_rows

CHUNK: Final = 50
"""Frames whose results one calcfunction takes: a thousand frames are twenty calls, not one with thousands of links."""
LOST: Final = frozenset({100, 110, 140})
"""No files came back, out of memory, its node failed: exit codes of any CalcJob. Walltime (120) is none of them:
another attempt would take as long."""


class FrameLabelEngine(LabelEngine):
    """One WorkChain a frame; copies of a structure are computed once.

    A subclass says what it computes (:meth:`fingerprint`), how (:meth:`build`) and how its outputs are read
    (:meth:`read`). The job of a frame is named by its structure id, so that a campaign that is resumed finds it again.
    """

    NAME: ClassVar[str]
    """Of the entry point."""
    LEVELS: ClassVar[int] = 2
    OUTPUTS: ClassVar[tuple[str, ...]]
    """Names of the outputs of the job that :meth:`read` needs; the first is always there."""
    RETRIED: ClassVar[frozenset[int]] = frozenset({302})
    LOST: ClassVar[frozenset[int]] = LOST
    """Exit codes of the last calculation of a job that the machine stopped, not what the frame is."""

    @classmethod
    @abstractmethod
    def fingerprint(cls, settings: Mapping[str, Any]) -> str:
        """Return what tells labels of different settings apart; all that changes a label enters, and nothing else.

        :param settings: the parameters, completed.
        """

    @classmethod
    @abstractmethod
    def build(cls, atoms: Atoms, structure: orm.StructureData, request: LabelRequest, resources: JobResources) -> Job:
        """Return the job of one frame.

        :param atoms: the frame, for what a structure does not hold: charge, starting moments.
        """

    @classmethod
    @abstractmethod
    def read(cls, atoms: Atoms, outputs: Mapping[str, orm.Node], settings: Mapping[str, Any]) -> Sequence[Result]:
        """Return what a job gave for a frame.

        :param outputs: those of :attr:`OUTPUTS` that there are.
        :raises ValueError: if they cannot be read, or do not hold what a label needs.
        """

    @classmethod
    def was_lost(cls, job: orm.ProcessNode) -> bool:
        """Return whether the last calculation of a job was killed, or ended with one of :attr:`LOST`.

        The WorkChain around it says only that it gave up: an unhandled failure, too many iterations.
        """
        last = last_calculation(job)
        return last is not None and bool(last.is_killed or last.exit_status in cls.LOST)

    @classmethod
    def find_outputs(cls, job: orm.ProcessNode, settings: Mapping[str, Any]) -> dict[str, orm.Node]:  # noqa: ARG003
        """Return what :meth:`read` is to read of a job that has ended: nothing of one that failed."""
        if not job.is_finished_ok:
            return {}
        return {name: job.outputs[name] for name in cls.OUTPUTS if name in job.outputs}

    @classmethod
    def structure_settings(cls, settings: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG003
        """Return how frames become structures: the settings of :func:`frame_structure`."""
        return {}

    @classmethod
    def plan_jobs(cls, request: LabelRequest) -> list[str]:
        """One job for every structure that has no label of these settings."""
        with request.frames.dataset() as reader:
            rows = sort_rows(reader, cls.fingerprint(request.settings))
            ids = [str(identity) for identity in label_ids(reader)]
        chosen = dict.fromkeys(identity for identity, row in zip(ids, rows, strict=True) if row != "keep")
        return [job_key(identity) for identity in chosen]

    @classmethod
    def prepare_job(
        cls,
        key: str,
        request: LabelRequest,
        resources: JobResources,
        previous: orm.ProcessNode | None,  # noqa: ARG003
    ) -> Job:
        """Return the job of the frame that the key stands for."""
        identity, atoms = find_frame(request.frames, key)
        structure = frame_structure(
            request.frames, orm.Str(identity), orm.Dict(cls.structure_settings(request.settings))
        )
        return cls.build(atoms, structure, request, resources)

    @classmethod
    def collect(
        cls, request: LabelRequest, jobs: Mapping[str, orm.ProcessNode], failures: Mapping[str, str]
    ) -> PESData | None:
        """Read the results of all jobs that ended well, in chunks."""
        with request.frames.dataset() as reader:
            ids = list(dict.fromkeys(str(identity) for identity in label_ids(reader)))
        chunks = [ids[k : k + CHUNK] for k in range(0, len(ids), CHUNK)]
        parts = {f"d{k:03d}": cls._collect(request, chunk, jobs, failures) for k, chunk in enumerate(chunks)}
        return merge_datasets(**parts) if len(parts) > 1 else next(iter(parts.values()))

    @classmethod
    def _collect(
        cls,
        request: LabelRequest,
        ids: Sequence[str],
        jobs: Mapping[str, orm.ProcessNode],
        failures: Mapping[str, str],
    ) -> PESData:
        outputs: dict[str, Any] = {}
        reasons, lost = {}, {}
        for identity in ids:
            key = job_key(identity)
            job = jobs.get(key)
            found = {} if job is None else cls.find_outputs(job, request.settings)
            outputs |= {f"{key}{SEPARATOR}{name}": node for name, node in found.items()}
            if key in failures:
                reasons[identity] = failures[key]
            if key in request.lost:
                lost[identity] = request.lost[key]
        settings = {
            "engine": cls.NAME,
            "fingerprint": cls.fingerprint(request.settings),
            "parameters": dict(request.settings),
            "ids": list(ids),
            "failures": reasons,
            "lost": lost,
        }
        return collect_labels(request.frames, orm.Dict(settings), **outputs)


def last_calculation(job: orm.ProcessNode) -> orm.CalcJobNode | None:
    """Return the calculation that a WorkChain ran last, however deep below it, None if it ran none."""
    calculations = [node for node in job.called_descendants if isinstance(node, orm.CalcJobNode)]
    return max(calculations, key=lambda node: int(node.pk or 0), default=None)


def find_frame(frames: PESData, key: str) -> tuple[str, Atoms]:
    """Return the structure id and the frame that the key of a job stands for."""
    with frames.dataset() as reader:
        ids = label_ids(reader)
        row = next(row for row, identity in enumerate(ids) if job_key(str(identity)) == key)
        return str(ids[row]), reader[row]
