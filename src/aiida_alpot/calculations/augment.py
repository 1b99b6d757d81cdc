"""AugmentCalculation: more frames from a few."""

from __future__ import annotations

from typing import Any

from aiida import orm
from aiida.engine.processes.process_spec import CalcJobProcessSpec

from aiida_alpot.calculations.base import (
    KernelCalculation,
    TaskInputs,
    add_optional_potentials,
    add_species_check,
    add_validator,
    non_empty_validator,
    non_negative_validator,
    settings_validator,
)
from aiida_alpot.data.pes import PESData
from aiida_alpot.kernel.augmentation import AugmentSettings, check_potential
from aiida_alpot.kernel.settings import parse_settings
from aiida_alpot.kernel.tasks.augment import OUTPUT, REMEDY


class AugmentCalculation(KernelCalculation):
    """Make supercells, strained, rattled and defective frames from given ones."""

    TASK = "augment"

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Declare inputs and outputs."""
        super().define(spec)
        spec.input(
            "frames", valid_type=PESData, validator=non_empty_validator("frames"), help="The frames to start from."
        )
        spec.input(
            "settings",
            valid_type=orm.Dict,
            validator=settings_validator(AugmentSettings, "augment.settings"),
            help="Which manipulations and how, see aiida_alpot.kernel.augmentation.AugmentSettings.",
        )
        spec.input("seed", valid_type=orm.Int, validator=non_negative_validator("seed"), help="Seed of all draws.")
        add_optional_potentials(
            spec,
            "Whose mean energy the settings need, for swap and for 'volume: potential' of prototype, decorate and "
            "random: one, or a committee.",
        )
        add_species_check(spec, "frames")
        add_validator(spec, validate_use)
        spec.output("frames", valid_type=PESData, required=False, help="The augmented frames, without labels.")

    def prepare_task(self) -> TaskInputs:
        """Hand the frames, settings and seed to the task."""
        inputs = TaskInputs({"settings": self.inputs.settings.get_dict(), "seed": self.inputs.seed.value})
        inputs.add_dataset("frames", self.inputs.frames)
        if self.inputs.get("potentials"):
            inputs.add_potentials(self.inputs.potentials)
        inputs.retrieve.append(OUTPUT)
        return inputs


def validate_use(inputs: Any, _: Any) -> str | None:
    """Refuse manipulations that lack their potential, and potentials that nothing asks."""
    if inputs.get("settings") is None:
        return None
    settings = parse_settings(AugmentSettings, inputs["settings"].get_dict(), "augment.settings")
    try:
        check_potential(settings, is_given=bool(inputs.get("potentials")), remedy=REMEDY)
    except ValueError as error:
        return f"augment.settings: {error}"
    return None
