"""TrainMaceCalculation: one committee member, trained by MACE."""

from __future__ import annotations

from typing import Any

from aiida import orm
from aiida.engine.processes.process_spec import CalcJobProcessSpec

from aiida_alpot.calculations.base import (
    KernelCalculation,
    TaskInputs,
    add_checkpoint,
    non_negative_validator,
    settings_validator,
    uncached_exit_code,
)
from aiida_alpot.data.pes import PESData
from aiida_alpot.data.potential import PotentialData, validate_potentials
from aiida_alpot.kernel.tasks.train_mace import LOG, OUTPUT
from aiida_alpot.kernel.training.mace import MaceSettings


def _validate_dataset(value: PESData, _: Any) -> str | None:
    if value.n_labelled == 0:
        return "dataset: it has no labelled frame to train on; run the label stage first"
    return None


def _validate_parent(value: PotentialData | None, _: Any) -> str | None:
    return None if value is None else validate_potentials({"parent": value})


class TrainMaceCalculation(KernelCalculation):
    """Train one MACE potential on the ``train`` split and check it on the others."""

    TASK = "train_mace"

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Declare inputs, outputs and one exit code for every way a training ends."""
        super().define(spec)
        spec.input(
            "dataset", valid_type=PESData, validator=_validate_dataset, help="Labelled frames with their splits."
        )
        spec.input(
            "parameters",
            valid_type=orm.Dict,
            validator=settings_validator(MaceSettings, "train.parameters"),
            help="Hyperparameters, see aiida_alpot.kernel.training.mace.MaceSettings.",
        )
        spec.input("seed", valid_type=orm.Int, validator=non_negative_validator("seed"), help="Seed of this member.")
        spec.input(
            "parent",
            valid_type=PotentialData,
            required=False,
            validator=_validate_parent,
            help="Potential to start from (warm start); from scratch without it.",
        )
        add_checkpoint(spec)
        spec.output("potential", valid_type=PotentialData, required=False, help="The trained potential.")
        uncached_exit_code(spec, 410, "ERROR_TRAINING_FAILED", "MACE ended with an error: {detail}")
        spec.exit_code(411, "ERROR_DIVERGED", message="The training diverged: {detail}")
        spec.exit_code(412, "ERROR_INCONSISTENT_FORCES", message="The trained potential is not usable: {detail}")
        uncached_exit_code(spec, 413, "ERROR_OUT_OF_MEMORY", "The training ran out of memory: {detail}")
        uncached_exit_code(spec, 414, "ERROR_NO_MODEL", "MACE wrote no model: {detail}")

    def prepare_task(self) -> TaskInputs:
        """Hand the dataset, hyperparameters and seed to the task."""
        inputs = TaskInputs({"settings": self.inputs.parameters.get_dict(), "seed": self.inputs.seed.value})
        inputs.add_dataset("dataset", self.inputs.dataset)
        if "parent" in self.inputs:
            inputs.files.append((self.inputs.parent.uuid, PotentialData.FILENAME, "parent.model"))
            inputs.task["parent"] = {"file": "parent.model", "sha256": self.inputs.parent.sha256}
        inputs.keep_state("checkpoints", self.inputs.get("checkpoint", None))
        inputs.retrieve += [OUTPUT, LOG, ("results/*", ".", 2)]
        return inputs
