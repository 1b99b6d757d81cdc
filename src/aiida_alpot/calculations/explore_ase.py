"""ExploreAseCalculation: molecular dynamics with the committee looking on."""

from __future__ import annotations

from typing import Any

from aiida import orm
from aiida.engine.processes.process_spec import CalcJobProcessSpec

from aiida_alpot.calculations.base import (
    KernelCalculation,
    TaskInputs,
    add_checkpoint,
    add_committee,
    add_error_bars,
    add_species_check,
    non_empty_validator,
    non_negative_validator,
    settings_validator,
)
from aiida_alpot.data.pes import PESData
from aiida_alpot.kernel.exploration import ExploreSettings
from aiida_alpot.kernel.tasks.explore_ase import OUTPUT, STATE


def _validate_trajectories(value: orm.Dict, _: Any) -> str | None:
    content = value.get_dict()
    if set(content) != {"first", "last", "iteration"} or not 0 <= content["first"] < content["last"]:
        return f"trajectories: expected first < last and iteration, got {content}"
    return None


class ExploreAseCalculation(KernelCalculation):
    """Run some of the planned trajectories in one job."""

    TASK = "explore_ase"

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Declare inputs and outputs."""
        super().define(spec)
        add_committee(spec)
        add_error_bars(spec)
        spec.input("frames", valid_type=PESData, validator=non_empty_validator("frames"), help="Frames to start from.")
        spec.input(
            "settings",
            valid_type=orm.Dict,
            default=lambda: orm.Dict({}),
            validator=settings_validator(ExploreSettings, "explore.settings"),
            help="Conditions and stop rules, see aiida_alpot.kernel.exploration.ExploreSettings.",
        )
        spec.input("seed", valid_type=orm.Int, validator=non_negative_validator("seed"), help="Seed of the plan.")
        spec.input(
            "trajectories",
            valid_type=orm.Dict,
            validator=_validate_trajectories,
            help="Part of the plan that this job runs: first, last (not included) and the iteration of the loop.",
        )
        add_checkpoint(spec)
        add_species_check(spec, "frames")
        spec.output("candidates", valid_type=PESData, required=False, help="Frames the trajectories left.")
        spec.exit_code(430, "ERROR_NO_FRAMES", message="No trajectory gave a frame: {detail}")

    def prepare_task(self) -> TaskInputs:
        """Hand the committee, the starting frames and the part of the plan to the task."""
        plan = self.inputs.trajectories.get_dict()
        task = {"settings": self.inputs.settings.get_dict(), "seed": self.inputs.seed.value, **plan}
        inputs = TaskInputs({**task, "label": f"i{plan['iteration']:03d}"})
        inputs.add_potentials(self.inputs.potentials)
        inputs.add_uncertainty(self.inputs.uncertainty)
        inputs.add_dataset("frames", self.inputs.frames)
        inputs.keep_state(STATE, self.inputs.get("checkpoint", None))
        inputs.retrieve.append(OUTPUT)
        return inputs
