"""What a campaign is made of: its stages, and the inputs of the loop."""

from __future__ import annotations

from aiida import orm
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_alpot.calculations.base import non_negative_validator, settings_validator
from aiida_alpot.calculations.kernel import get_kernel
from aiida_alpot.data.pes import PESData
from aiida_alpot.data.potential import PotentialData
from aiida_alpot.data.uncertainty import UncertaintyData
from aiida_alpot.kernel.convergence import ConvergenceSettings
from aiida_alpot.kernel.settings import unknown_key_message
from aiida_alpot.kernel.splitting import SplitSettings
from aiida_alpot.workflows.augment import AugmentWorkChain
from aiida_alpot.workflows.base import StageWorkChain, expose_inputs
from aiida_alpot.workflows.calibrate import CalibrationWorkChain
from aiida_alpot.workflows.checks import check_campaign, committee_validator
from aiida_alpot.workflows.evaluate import EvaluationWorkChain
from aiida_alpot.workflows.explore import ExplorationWorkChain
from aiida_alpot.workflows.gates import define_validation
from aiida_alpot.workflows.label import LabellingWorkChain
from aiida_alpot.workflows.train import TrainingWorkChain

STAGES: dict[str, tuple[type[StageWorkChain], tuple[str, ...]]] = {
    "augment": (AugmentWorkChain, ("frames", "structures", "seed", "kernel")),
    "label": (LabellingWorkChain, ("frames", "known", "kernel")),
    "train": (TrainingWorkChain, ("dataset", "seed", "parents", "kernel")),
    "calibrate": (CalibrationWorkChain, ("potentials", "dataset", "test_frames", "previous", "kernel")),
    "explore": (ExplorationWorkChain, ("potentials", "uncertainty", "frames", "seed", "iteration", "kernel")),
    "evaluate": (EvaluationWorkChain, ("potentials", "uncertainty", "candidates", "dataset", "seed", "kernel")),
}
"""WorkChain of each stage and those of its inputs that the loop provides."""
RESUMABLE = ("structures", "train", "calibrate", "explore", "evaluate", "label")
"""Where a campaign can be resumed: labelling the structures, or a stage of an iteration."""


def define_inputs(spec: WorkChainSpec) -> None:
    """Declare the inputs of the loop, with those of every stage in a namespace of its own."""
    define_start(spec)
    spec.input("kernel", valid_type=orm.SinglefileData, default=get_kernel, help="The code of the kernel of all jobs.")
    define_loop(spec)
    spec.input("explore_from", valid_type=PESData, required=False, help="Starting frames of all explorations.")
    define_resume(spec)
    define_stages(spec)
    define_validation(spec)
    spec.inputs.validator = check_campaign


def define_start(spec: WorkChainSpec) -> None:
    """Declare what a campaign may begin with: structures, a labelled dataset, a committee, a pool of candidates."""
    spec.input("structures", valid_type=PESData, required=False, help="Frames to augment and label.")
    spec.input("dataset", valid_type=PESData, required=False, help="Frames that are labelled already.")
    spec.input("test_frames", valid_type=PESData, required=False, help="Labelled frames that are only reported on.")
    spec.input_namespace(
        "potentials",
        valid_type=PotentialData,
        dynamic=True,
        required=False,
        validator=committee_validator,
        help="Committee to begin with instead of a first training: m000, m001, …",
    )
    spec.input(
        "uncertainty",
        valid_type=UncertaintyData,
        required=False,
        help="Error bars of that committee, instead of a first calibration.",
    )
    spec.input_namespace(
        "candidates", valid_type=PESData, dynamic=True, required=False, help="Pool searched instead of exploring."
    )


def define_loop(spec: WorkChainSpec) -> None:
    """Declare the seed, and what governs the loop: its end, splits, and how committees follow one another."""
    spec.input(
        "seed",
        valid_type=orm.Int,
        default=lambda: orm.Int(0),
        validator=non_negative_validator("seed"),
        help="Seed from which every stage, member and trajectory gets its own.",
    )
    _define_end(spec)
    spec.input(
        "split",
        valid_type=orm.Dict,
        default=lambda: orm.Dict({}),
        validator=settings_validator(SplitSettings, "split"),
        help="Shares of the splits of the first dataset, see aiida_alpot.kernel.splitting.SplitSettings.",
    )
    spec.input(
        "warm_start",
        valid_type=orm.Bool,
        default=lambda: orm.Bool(False),
        help="Start every training from the committee of the iteration before.",
    )
    spec.input(
        "fresh_final",
        valid_type=orm.Bool,
        default=lambda: orm.Bool(False),
        help="Train once more from scratch at the end (AutoPot's --fresh_potential).",
    )


def _define_end(spec: WorkChainSpec) -> None:
    """Declare when the loop is over."""
    spec.input(
        "max_iterations",
        valid_type=orm.Int,
        default=lambda: orm.Int(10),
        validator=non_negative_validator("max_iterations"),
        help="Most rounds of search and labelling; 0 trains and calibrates once.",
    )
    spec.input(
        "max_labels",
        valid_type=orm.Int,
        required=False,
        validator=non_negative_validator("max_labels", minimum=1),
        help="Labelled frames in the dataset after which the search ends; the first labelling is not cut short.",
    )
    spec.input(
        "convergence",
        valid_type=orm.Dict,
        default=lambda: orm.Dict({}),
        validator=settings_validator(ConvergenceSettings, "convergence"),
        help="When the loop is done, see aiida_alpot.kernel.convergence.ConvergenceSettings.",
    )


def define_stages(spec: WorkChainSpec) -> None:
    """Declare the inputs of every stage but those that the loop provides."""
    for stage, (work_chain, provided) in STAGES.items():
        expose_inputs(
            spec,
            work_chain,
            namespace=stage,
            exclude=(*provided, "checkpoints", "resume_from"),
            namespace_options={
                "required": False,
                "populate_defaults": False,
                "help": f"Inputs of the stage {stage}; without them it does not run.",
            },
        )
        spec.inputs[stage].validator = None


def define_resume(spec: WorkChainSpec) -> None:
    """Declare what a campaign takes over of an earlier one in the middle of an iteration."""
    spec.input_namespace(
        "resume",
        required=False,
        populate_defaults=False,
        help="What an earlier campaign had reached, beside dataset, potentials and uncertainty; filled by "
        "get_builder_to_resume.",
    )
    spec.input(
        "resume.stage",
        valid_type=orm.Str,
        required=False,
        validator=lambda value, _: (
            None if value is None or value.value in RESUMABLE else unknown_key_message(value.value, RESUMABLE, "stage")
        ),
        help=f"Stage to go on with: {', '.join(RESUMABLE)}.",
    )
    spec.input("resume.history", valid_type=orm.Dict, required=False, help="Rows of the iterations that are complete.")
    spec.input("resume.previous", valid_type=UncertaintyData, required=False, help="The error bars before these.")
    spec.input("resume.selected", valid_type=PESData, required=False, help="Selected frames, some may have labels.")
    spec.input(
        "resume.labelling",
        valid_type=orm.Str,
        required=False,
        help="uuid of the labelling that was stopped: its jobs that ended well are not run again.",
    )
    namespaces = {
        "frames": (PESData, "Frames of a first labelling that failed, some have labels; they join the structures."),
        "candidates": (PESData, "Frames of the exploration that is complete."),
        "reports": (orm.Dict, "Reports of the stages of the iteration that are complete."),
        "checkpoints": (orm.RemoteData, "Folders of the jobs of the first stage that runs, by key."),
    }
    for name, (valid_type, text) in namespaces.items():
        spec.input_namespace(f"resume.{name}", valid_type=valid_type, dynamic=True, required=False, help=text)
