"""KernelCalculation: one task of the kernel as a CalcJob.

The job needs Python and the packages of its task, never AiiDA: the kernel travels along as a stored input.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

from aiida import orm
from aiida.common.datastructures import CalcInfo, CodeInfo
from aiida.common.folders import Folder
from aiida.engine import CalcJob
from aiida.engine.processes.process_spec import CalcJobProcessSpec

from aiida_alpot.calculations.kernel import get_kernel
from aiida_alpot.data.pes import PESData
from aiida_alpot.data.potential import PotentialData, validate_members, validate_potentials, validate_species
from aiida_alpot.data.uncertainty import UncertaintyData, validate_committee
from aiida_alpot.kernel.archive import FILENAME as KERNEL_FILE
from aiida_alpot.kernel.settings import parse_settings

TASK_FILE = "task.json"
REPORT_FILE = "report.json"
OUTPUT_FILE = "alpot.out"


@dataclass
class TaskInputs:
    """What one job gets: the content of its task file and the files beside it."""

    task: dict[str, Any] = field(default_factory=dict)
    files: list[tuple[str, str, str]] = field(default_factory=list)
    remote_files: list[tuple[str, str, str]] = field(default_factory=list)
    retrieve: list[str | tuple[str, str, int]] = field(default_factory=list)
    retrieve_temporary: list[str | tuple[str, str, int]] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)

    def keep_state(self, name: str, checkpoint: orm.RemoteData | None) -> None:
        """Let the job keep its state in the folder *name*, and begin with the one in the folder of another job."""
        if checkpoint is None:
            self.folders.append(name)  # there from the start, so that the next attempt finds it however this one ends
        else:
            computer = cast(orm.Computer, checkpoint.computer)
            self.remote_files.append((computer.uuid, f"{checkpoint.get_remote_path()}/{name}", name))

    def add_dataset(self, key: str, node: PESData, name: str | None = None) -> None:
        """Bring a dataset along and name it under *key* of the task."""
        self.task[key] = self.add_frames(node, name or f"{key}.h5")

    def add_frames(self, node: PESData, name: str) -> str:
        """Bring a dataset along and return what the task opens: the file *name*, or a folder of its parts."""
        parts = node.filenames
        if len(parts) == 1:
            self.files.append((node.uuid, parts[0], name))
            return name
        folder = name.removesuffix(".h5")
        self.files += [(node.uuid, part, f"{folder}/{part}") for part in parts]
        return folder

    def add_uncertainty(self, node: UncertaintyData) -> None:
        """Bring the calibration and active sets along."""
        self.files.append((node.uuid, UncertaintyData.FILENAME, UncertaintyData.FILENAME))
        self.task["uncertainty"] = UncertaintyData.FILENAME

    def add_potentials(self, potentials: Mapping[str, PotentialData]) -> None:
        """Bring a committee along."""
        self.task["potentials"] = {}
        self.folders.append("potentials")
        for name, node in sorted(potentials.items()):
            file = f"potentials/{name}.model"
            self.files.append((node.uuid, PotentialData.FILENAME, file))
            entry = {"file": file, "engine": node.engine, "sha256": node.sha256, "dtype": node.dtype}
            self.task["potentials"][name] = entry


class KernelCalculation(CalcJob):
    """Runs ``python alpot-kernel.pyz TASK task.json``."""

    TASK: ClassVar[str]

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Declare the inputs and exit codes that all tasks share."""
        super().define(spec)
        spec.input("code", valid_type=orm.AbstractCode, help="The Python of the environment that the job runs in.")
        spec.input(
            "kernel",
            valid_type=orm.SinglefileData,
            default=get_kernel,
            help="The code of the kernel, see aiida_alpot.calculations.kernel.get_kernel.",
        )
        options = spec.inputs["metadata"]["options"]
        options["parser_name"].default = f"alpot.{cls.TASK}"
        options["resources"].default = lambda: {"num_machines": 1, "num_mpiprocs_per_machine": 1}
        options["withmpi"].default = False
        options["output_filename"].default = OUTPUT_FILE
        options["input_filename"].default = TASK_FILE
        spec.output("report", valid_type=orm.Dict, required=False, help="Numbers of the task.")
        spec.default_output_node = "report"
        uncached_exit_code(
            spec, 302, "ERROR_NO_REPORT", "The job left no report: it was killed or never started. {detail}"
        )
        uncached_exit_code(spec, 303, "ERROR_OUTPUT_MISSING", "The job left no usable file {file}: {detail}")
        uncached_exit_code(spec, 305, "ERROR_FILES", "The disk of the job is full or broken: {detail}")
        uncached_exit_code(spec, 310, "ERROR_MISSING_PACKAGE", "The job's Python lacks the package {package}: {detail}")
        uncached_exit_code(spec, 320, "ERROR_INVALID_INPUT", "The job refused its input: {detail}")
        uncached_exit_code(spec, 400, "ERROR_TASK_FAILED", "The task failed: {detail}")
        uncached_exit_code(
            spec, 500, "ERROR_INTERRUPTED", "The job stopped near its walltime with partial results: {detail}"
        )

    def prepare_task(self) -> TaskInputs:
        """Return what this task needs; subclasses define it."""
        raise NotImplementedError

    def prepare_for_submission(self, folder: Folder) -> CalcInfo:
        """Write the task file and list the files of the job."""
        inputs = self.prepare_task()
        walltime = self.inputs.metadata.options.get("max_wallclock_seconds", None)
        inputs.task["walltime_s"] = walltime
        with folder.open(TASK_FILE, "w", encoding="utf-8") as handle:
            json.dump(inputs.task, handle, indent=1, sort_keys=True)
        for name in inputs.folders:
            folder.get_subfolder(name, create=True)
        code_info = CodeInfo()
        code_info.code_uuid = self.inputs.code.uuid
        code_info.cmdline_params = [KERNEL_FILE, self.TASK, TASK_FILE]
        code_info.stdout_name = self.inputs.metadata.options.output_filename
        calc_info = CalcInfo()
        calc_info.codes_info = [code_info]
        calc_info.local_copy_list = [(self.inputs.kernel.uuid, self.inputs.kernel.filename, KERNEL_FILE), *inputs.files]
        calc_info.remote_copy_list = inputs.remote_files
        calc_info.retrieve_list = [REPORT_FILE, self.inputs.metadata.options.output_filename, *inputs.retrieve]
        calc_info.retrieve_temporary_list = inputs.retrieve_temporary
        return calc_info


def add_checkpoint(spec: CalcJobProcessSpec) -> None:
    """Declare the input of a task that goes on with what an earlier job has finished."""
    spec.input(
        "checkpoint",
        valid_type=orm.RemoteData,
        required=False,
        help="Folder of an earlier job with the same inputs, whose finished work is not done again.",
    )


def add_committee(spec: CalcJobProcessSpec) -> None:
    """Declare the potentials of a committee."""
    spec.input_namespace(
        "potentials", valid_type=PotentialData, validator=potentials_validator, dynamic=True, help="The committee."
    )


def add_optional_potentials(spec: CalcJobProcessSpec, help_text: str) -> None:
    """Declare potentials that not every run needs: one is enough, since nobody asks how much they disagree."""
    spec.input_namespace(
        "potentials",
        valid_type=PotentialData,
        validator=_optional_potentials_validator,
        required=False,
        dynamic=True,
        help=help_text,
    )


def add_error_bars(spec: CalcJobProcessSpec) -> None:
    """Declare what belongs to this committee and no other."""
    spec.input("uncertainty", valid_type=UncertaintyData, help="Error bars of this committee.")
    add_validator(spec, validate_models)


def add_species_check(spec: CalcJobProcessSpec, *names: str) -> None:
    """Refuse frames of species that a member of the committee does not know.

    :param names: of inputs that are datasets, or namespaces of them.
    """

    def validate(inputs: Any, _: Any) -> str | None:
        for name in names:
            given = inputs.get(name)
            is_one = isinstance(given, PESData)
            datasets = {name: given} if is_one else {f"{name}.{key}": node for key, node in (given or {}).items()}
            for where, dataset in datasets.items():
                problem = validate_species(inputs.get("potentials"), dataset.symbols, where)
                if problem is not None:
                    return problem
        return None

    add_validator(spec, validate)


def validate_models(inputs: Any, _: Any) -> str | None:
    """Refuse an uncertainty that belongs to another committee."""
    if "uncertainty" in inputs and "potentials" in inputs:
        return validate_committee(inputs["uncertainty"], inputs["potentials"])
    return None


def uncached_exit_code(spec: CalcJobProcessSpec, status: int, label: str, message: str) -> None:
    """Declare an exit code that says nothing of the inputs, so that the job is not taken from the cache.

    The package may be there or of another version by now, the walltime (no part of the hash) longer, the node sound.
    """
    spec.exit_code(status, label, message=message, invalidates_cache=True)


def add_validator(spec: CalcJobProcessSpec, validate: Callable[[Any, Any], str | None]) -> None:
    """Let *validate* look at all inputs together, after AiiDA's own validator of CalcJobs."""
    inherited = spec.inputs.validator

    def validate_both(value: Any, port: Any) -> str | None:
        problem = inherited(value, port) if inherited is not None else None
        return problem or validate(value, port)

    spec.inputs.validator = validate_both


def settings_validator(cls: type[Any], where: str) -> Callable[[Any, Any], str | None]:
    """Return a port validator that parses a ``Dict`` into the dataclass *cls* and reports what is wrong."""

    def validate(value: orm.Dict | None, _: Any) -> str | None:
        if value is None:
            return None
        try:
            parse_settings(cls, value.get_dict(), where)
        except ValueError as error:
            return str(error)
        return None

    return validate


def non_negative_validator(name: str, *, minimum: float = 0) -> Callable[[Any, Any], str | None]:
    """Return a port validator for a number that must not be below *minimum*."""

    def validate(value: Any, _: Any) -> str | None:
        if value is not None and value.value < minimum:
            return f"{name}: expected at least {minimum}, got {value.value}"
        return None

    return validate


def fraction_validator(name: str) -> Callable[[Any, Any], str | None]:
    """Return a port validator for a number from 0 to 1."""

    def validate(value: Any, _: Any) -> str | None:
        if value is not None and not 0 <= value.value <= 1:
            return f"{name}: expected 0 to 1, got {value.value}"
        return None

    return validate


def non_empty_validator(name: str) -> Callable[[Any, Any], str | None]:
    """Return a port validator that refuses a dataset without frames."""

    def validate(value: PESData | None, _: Any) -> str | None:
        if value is not None and len(value) == 0:
            return f"{name}: the dataset has no frame"
        return None

    return validate


def potentials_validator(value: Any, _: Any) -> str | None:
    """Refuse a committee of one, clones and models of unknown origin."""
    return validate_members(value)


def _optional_potentials_validator(value: Any, _: Any) -> str | None:
    """Refuse models of unknown origin."""
    return validate_potentials(value) if value else None
