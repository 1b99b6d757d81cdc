"""AugmentWorkChain: more frames from a few."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida import orm
from aiida.engine import ExitCode
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_alpot.calculations.augment import AugmentCalculation
from aiida_alpot.calculations.base import add_validator
from aiida_alpot.calculations.functions.augment import collect_structures, find_hubbard
from aiida_alpot.engines.job import Job, JobResources
from aiida_alpot.workflows.base import SingleJobWorkChain, describe_end, submit_once


class AugmentWorkChain(SingleJobWorkChain):
    """Makes supercells, strained, rattled and defective frames from given ones, a dataset or structures."""

    STAGE = "augment"
    CALCULATION = AugmentCalculation
    INPUTS = ("frames", "settings", "seed", "potentials")
    OUTPUTS = ("frames", "report")

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Let structures stand for the dataset."""
        super().define(spec)
        spec.inputs["frames"].required = False
        spec.input_namespace(
            "structures",
            valid_type=orm.StructureData,
            dynamic=True,
            required=False,
            help="Structures to start from in place of frames, by any names, which give their order.",
        )
        add_validator(spec, validate_start)

    def setup(self) -> ExitCode | None:
        """Make a dataset of the structures, if that is what there is, and plan the job."""
        structures = self.inputs.get("structures")
        if structures:
            collect: Any = collect_structures
            given = {**structures, "metadata": {"call_link_label": "structures", "label": "structures"}}
            node = submit_once(self, lambda: Job(collect, given), "structures")
            if not node.is_finished_ok:
                return self.exit_codes.ERROR_ALL_JOBS_FAILED.format(detail=f"structures: {describe_end(node)}")
            self.ctx.frames = node.outputs.result
        return super().setup()

    def prepare_job(self, key: str, resources: JobResources, previous: orm.ProcessNode | None) -> Job:
        """Return the job, with the frames that were made of structures."""
        job = super().prepare_job(key, resources, previous)
        made: Mapping[str, Any] = {"frames": self.ctx.frames} if "frames" in self.ctx else {}
        return Job(job.process, {**job.inputs, **made})


def validate_start(inputs: Any, _: Any) -> str | None:
    """Refuse frames and structures together, neither, and structures that are no frames."""
    structures = inputs.get("structures")
    if bool(structures) == (inputs.get("frames") is not None):
        return "frames or structures: give one of them to start from, not both"
    if "metadata" in (structures or {}):
        return "structures.metadata: AiiDA needs this name itself, give the structure another"
    for name, structure in (structures or {}).items():
        problem = describe_mixture(structure)
        if problem:
            return f"structures.{name}: {problem}"
    return find_hubbard(structures or {})


def describe_mixture(structure: orm.StructureData) -> str | None:
    """Return what is wrong with a structure whose sites are not of one element each, ``None`` if they are."""
    for kind in structure.kinds:
        if kind.is_alloy or kind.has_vacancies:
            return (
                f"the kind {kind.name!r} is {kind.get_symbols_string()}, expected one element on every site; "
                "give a structure of one of the elements and 'settings.alloy', or 'settings.vacancy'"
            )
    return None
