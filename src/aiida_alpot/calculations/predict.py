"""PredictCalculation: what a committee says of frames, with error bars."""

from __future__ import annotations

from aiida import orm
from aiida.engine.processes.process_spec import CalcJobProcessSpec

from aiida_alpot.calculations.base import (
    KernelCalculation,
    TaskInputs,
    add_committee,
    add_error_bars,
    add_species_check,
    non_empty_validator,
    settings_validator,
)
from aiida_alpot.data.pes import PESData
from aiida_alpot.kernel.predicting import PredictSettings
from aiida_alpot.kernel.tasks.predict import OUTPUT


class PredictCalculation(KernelCalculation):
    """Evaluate a committee on frames, with calibrated errors, conformal radii and extrapolation grades."""

    TASK = "predict"

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Declare inputs and outputs."""
        super().define(spec)
        add_committee(spec)
        add_error_bars(spec)
        spec.input("frames", valid_type=PESData, validator=non_empty_validator("frames"), help="Frames to predict.")
        spec.input(
            "settings",
            valid_type=orm.Dict,
            default=lambda: orm.Dict({}),
            validator=settings_validator(PredictSettings, "predict.settings"),
            help="Confidence and device, see aiida_alpot.kernel.predicting.PredictSettings.",
        )
        add_species_check(spec, "frames")
        spec.output("predicted", valid_type=PESData, required=False, help="The frames with predictions and error bars.")

    def prepare_task(self) -> TaskInputs:
        """Hand the committee and the frames to the task."""
        inputs = TaskInputs({"settings": self.inputs.settings.get_dict()})
        inputs.add_potentials(self.inputs.potentials)
        inputs.add_uncertainty(self.inputs.uncertainty)
        inputs.add_dataset("frames", self.inputs.frames)
        inputs.retrieve += [OUTPUT]
        return inputs
