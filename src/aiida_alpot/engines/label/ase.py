"""Labels from any ASE calculator: one job for the whole dataset, many processes in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from aiida import orm

from aiida_alpot.calculations.label_ase import LabelAseCalculation
from aiida_alpot.data.pes import PESData
from aiida_alpot.engines.job import Job, JobResources
from aiida_alpot.engines.label.base import LabelEngine, LabelRequest
from aiida_alpot.kernel.labelling import LabelSettings


class AseLabelEngine(LabelEngine):
    """Runs the calculator named by import path in the parameters."""

    SETTINGS: ClassVar[type[Any]] = LabelSettings

    @classmethod
    def plan_jobs(cls, request: LabelRequest) -> list[str]:  # noqa: ARG003
        """One job labels all frames."""
        return ["labels"]

    @classmethod
    def prepare_job(
        cls,
        key: str,  # noqa: ARG003
        request: LabelRequest,
        resources: JobResources,
        previous: orm.ProcessNode | None,
    ) -> Job:
        """Label the frames, or what an interrupted job left of them."""
        inputs = {"frames": request.frames, "parameters": request.parameters, **resources.common_inputs()}
        if request.max_failed_fraction is not None:
            inputs["max_failed_fraction"] = request.max_failed_fraction
        if request.known is not None:
            inputs["known"] = request.known
        if previous is not None and "labelled" in previous.outputs:
            inputs["frames"] = previous.outputs.labelled
        elif resources.checkpoint is not None:
            inputs["checkpoint"] = resources.checkpoint
        return Job(LabelAseCalculation, inputs)

    @classmethod
    def collect(
        cls,
        request: LabelRequest,  # noqa: ARG003
        jobs: Mapping[str, orm.ProcessNode],
        failures: Mapping[str, str],  # noqa: ARG003
    ) -> PESData | None:
        """Return the output of the job."""
        outputs = [job.outputs.labelled for job in jobs.values() if "labelled" in job.outputs]
        return outputs[0] if outputs else None

    @classmethod
    def made_fingerprint(
        cls,
        request: LabelRequest,  # noqa: ARG003
        jobs: Mapping[str, orm.ProcessNode],
    ) -> str | None:
        """Return what the report of the job says: the version of the package that labels is in it."""
        reports = [job.outputs.report["results"] for job in jobs.values() if "report" in job.outputs]
        return next((str(results["fingerprint"]) for results in reports if results.get("fingerprint")), None)
