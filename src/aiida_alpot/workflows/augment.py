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
            node = submit_once(self, lambda: Job(collect, structures), "structures")
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
    """Refuse frames and structures together, and neither, and structures with what a frame does not hold."""
    if bool(inputs.get("structures")) == (inputs.get("frames") is not None):
        return "frames or structures: give one of them to start from, not both"
    return find_hubbard(inputs.get("structures") or {})
