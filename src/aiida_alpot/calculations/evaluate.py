"""EvaluateCalculation: which candidates are worth a label."""

from __future__ import annotations

from typing import Any

from aiida import orm
from aiida.engine.processes.process_spec import CalcJobProcessSpec

from aiida_alpot.calculations.base import (
    KernelCalculation,
    TaskInputs,
    add_committee,
    add_error_bars,
    add_species_check,
    non_empty_validator,
    non_negative_validator,
    settings_validator,
)
from aiida_alpot.data.pes import PESData
from aiida_alpot.kernel.evaluating import EvaluateSettings
from aiida_alpot.kernel.tasks.evaluate import OUTPUT, TABLE


def _validate_candidates(value: Any, _: Any) -> str | None:
    return None if value else "candidates: at least one dataset is needed"


class EvaluateCalculation(KernelCalculation):
    """Evaluate the committee on all candidates and select within a budget."""

    TASK = "evaluate"

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Declare inputs and outputs."""
        super().define(spec)
        add_committee(spec)
        add_error_bars(spec)
        spec.input_namespace(
            "candidates", valid_type=PESData, dynamic=True, validator=_validate_candidates, help="Frames to judge."
        )
        spec.input(
            "dataset",
            valid_type=PESData,
            required=False,
            validator=non_empty_validator("dataset"),
            help="Frames that are labelled already and not selected again.",
        )
        spec.input(
            "settings",
            valid_type=orm.Dict,
            default=lambda: orm.Dict({}),
            validator=settings_validator(EvaluateSettings, "evaluate.settings"),
            help="Strategy and budget, see aiida_alpot.kernel.evaluating.EvaluateSettings.",
        )
        spec.input("seed", valid_type=orm.Int, validator=non_negative_validator("seed"), help="Seed of the draws.")
        add_species_check(spec, "candidates", "dataset")
        spec.output("selected", valid_type=PESData, required=False, help="Selected frames with splits and reasons.")
        spec.output("table", valid_type=orm.ArrayData, required=False, help="Disagreement and grade of all candidates.")

    def prepare_task(self) -> TaskInputs:
        """Hand the committee and the candidates to the task."""
        inputs = TaskInputs({"settings": self.inputs.settings.get_dict(), "seed": self.inputs.seed.value})
        inputs.add_potentials(self.inputs.potentials)
        inputs.add_uncertainty(self.inputs.uncertainty)
        inputs.task["candidates"] = []
        for name, node in sorted(self.inputs.candidates.items()):
            inputs.task["candidates"].append(inputs.add_frames(node, f"candidates-{name}.h5"))
        if "dataset" in self.inputs:
            inputs.add_dataset("dataset", self.inputs.dataset)
        inputs.retrieve += [OUTPUT, TABLE]
        return inputs
