"""LabelAseCalculation: reference labels of a whole dataset in one job."""

from __future__ import annotations

from aiida import orm
from aiida.engine.processes.process_spec import CalcJobProcessSpec

from aiida_alpot.calculations.base import (
    KernelCalculation,
    TaskInputs,
    add_checkpoint,
    fraction_validator,
    non_empty_validator,
    settings_validator,
    uncached_exit_code,
)
from aiida_alpot.data.pes import PESData
from aiida_alpot.kernel.labelling import LabelSettings
from aiida_alpot.kernel.tasks.label_ase import OUTPUT, SHARDS


class LabelAseCalculation(KernelCalculation):
    """Label frames with any ASE calculator, in as many processes as the job has MPI slots.

    Frames that carry a label of the same settings are kept as they are, so the partial output of a job that was
    stopped is the input of the next.
    """

    TASK = "label_ase"

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Declare inputs and outputs."""
        super().define(spec)
        spec.input(
            "frames", valid_type=PESData, validator=non_empty_validator("frames"), help="The frames to be labelled."
        )
        spec.input(
            "known",
            valid_type=PESData,
            required=False,
            help="Labels that were accepted before: those of these settings are taken for the same structures.",
        )
        spec.input(
            "parameters",
            valid_type=orm.Dict,
            validator=settings_validator(LabelSettings, "label.parameters"),
            help="Calculator and its parameters, see aiida_alpot.kernel.labelling.LabelSettings.",
        )
        spec.input(
            "max_failed_fraction",
            valid_type=orm.Float,
            required=False,
            validator=fraction_validator("max_failed_fraction"),
            help="When a larger share of the frames has failed, no other is begun.",
        )
        add_checkpoint(spec)
        spec.output("labelled", valid_type=PESData, required=False, help="All frames with labels or reasons.")
        uncached_exit_code(
            spec,
            501,
            "ERROR_KILLED_WITH_LABELS",
            "The job was killed; the frames finished until then are kept. {detail}",
        )

    def prepare_task(self) -> TaskInputs:
        """Hand the frames and the calculator to the task."""
        resources = self.inputs.metadata.options.resources
        n_workers = int(resources.get("num_machines", 1)) * int(resources.get("num_mpiprocs_per_machine", 1))
        settings = {"n_workers": n_workers, **self.inputs.parameters.get_dict()}
        if "max_failed_fraction" in self.inputs:
            settings["max_failed_fraction"] = self.inputs.max_failed_fraction.value
        inputs = TaskInputs({"settings": settings})
        inputs.add_dataset("frames", self.inputs.frames)
        if "known" in self.inputs:
            inputs.add_dataset("known", self.inputs.known)
        inputs.keep_state(SHARDS, self.inputs.get("checkpoint", None))
        inputs.retrieve.append(OUTPUT)
        inputs.retrieve_temporary.append((f"{SHARDS}/*", ".", 2))
        return inputs
