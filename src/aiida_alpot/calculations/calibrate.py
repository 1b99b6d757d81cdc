"""CalibrateCalculation: from a committee and held-out labels to error bars."""

from __future__ import annotations

from aiida import orm
from aiida.engine.processes.process_spec import CalcJobProcessSpec

from aiida_alpot.calculations.base import (
    KernelCalculation,
    TaskInputs,
    add_committee,
    add_species_check,
    non_empty_validator,
    settings_validator,
)
from aiida_alpot.data.pes import PESData
from aiida_alpot.data.uncertainty import UncertaintyData
from aiida_alpot.kernel.calibrating import CalibrateSettings
from aiida_alpot.kernel.tasks.calibrate import OUTPUT, PREVIOUS


class CalibrateCalculation(KernelCalculation):
    """Fit disagreement against error on frames that the committee was not trained on, and build active sets."""

    TASK = "calibrate"

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Declare inputs and outputs."""
        super().define(spec)
        add_committee(spec)
        spec.input(
            "dataset",
            valid_type=PESData,
            validator=non_empty_validator("dataset"),
            help="Labelled frames with splits; those of the train split make the active sets.",
        )
        spec.input(
            "test_frames",
            valid_type=PESData,
            required=False,
            validator=non_empty_validator("test_frames"),
            help="Labelled frames that are only reported on: neither trained nor calibrated on.",
        )
        spec.input(
            "settings",
            valid_type=orm.Dict,
            default=lambda: orm.Dict({}),
            validator=settings_validator(CalibrateSettings, "calibrate.settings"),
            help="Tolerances and methods, see aiida_alpot.kernel.calibrating.CalibrateSettings.",
        )
        spec.input(
            "previous",
            valid_type=UncertaintyData,
            required=False,
            help="Error bars of the committee before: scales from few points are drawn towards its scales.",
        )
        add_species_check(spec, "dataset", "test_frames")
        spec.output("uncertainty", valid_type=UncertaintyData, required=False, help="Calibration and active sets.")
        spec.exit_code(420, "ERROR_NO_HELD_OUT_FRAMES", message="There is no labelled frame to calibrate on: {detail}")

    def prepare_task(self) -> TaskInputs:
        """Hand the committee and the dataset to the task."""
        inputs = TaskInputs({"settings": self.inputs.settings.get_dict()})
        inputs.add_potentials(self.inputs.potentials)
        inputs.add_dataset("dataset", self.inputs.dataset)
        if "test_frames" in self.inputs:
            inputs.add_dataset("test_frames", self.inputs.test_frames)
        if "previous" in self.inputs:
            inputs.files.append((self.inputs.previous.uuid, UncertaintyData.FILENAME, PREVIOUS))
            inputs.task["previous"] = PREVIOUS
        inputs.retrieve.append(OUTPUT)
        return inputs
