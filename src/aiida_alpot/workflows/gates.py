"""Property gates: the process of a user that computes what a committee must get right before a campaign has converged.

It is run when all other conditions of convergence hold, gets the committee, its error bars and the dataset, and gives
an output ``properties``: a Dict that :func:`~aiida_alpot.kernel.gates.judge_properties` judges.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from aiida import orm
from aiida.common.exceptions import EntryPointError
from aiida.engine import Process, is_process_function
from aiida.engine.processes.ports import PortNamespace
from aiida.engine.processes.workchains.workchain import WorkChainSpec
from aiida.plugins.entry_point import load_entry_point_from_string

from aiida_alpot.engines.job import Job
from aiida_alpot.kernel.convergence import ConvergenceSettings
from aiida_alpot.kernel.gates import read_property
from aiida_alpot.kernel.settings import parse_settings, unknown_key_message
from aiida_alpot.workflows.base import validate_options

OUTPUT: Final = "properties"
CONTRACT: Final = ("potentials", "uncertainty", "dataset")
"""Inputs that a process gets, those of them that it declares; one with dynamic inputs gets all."""
PROVIDED: Final = (*CONTRACT, "kernel")


def define_validation(spec: WorkChainSpec) -> None:
    """Declare the process that computes the properties of the gates."""
    spec.input_namespace(
        "validate",
        required=False,
        populate_defaults=False,
        help="Process that computes the properties that convergence.gates judge, run when all else holds.",
    )
    spec.input(
        "validate.process",
        valid_type=orm.Str,
        serializer=orm.to_aiida_type,
        help="Entry point of a WorkChain, CalcJob or calcfunction, e.g. aiida.workflows:my_plugin.lattice. It takes "
        f"{', '.join(CONTRACT)} and gives an output {OUTPUT}.",
    )
    spec.input(
        "validate.options",
        valid_type=orm.Dict,
        required=False,
        validator=validate_options,
        help="Scheduler options of a CalcJob.",
    )
    spec.input_namespace(
        "validate.inputs", valid_type=orm.Data, dynamic=True, required=False, help="What else the process takes."
    )


def check_validation(inputs: Mapping[str, Any]) -> str | None:
    """Return why the properties of the gates cannot be computed, or None: long before they are."""
    given = inputs.get("validate")
    gates = parse_gates(inputs["convergence"]) if inputs.get("convergence") is not None else {}
    if gates and not given:
        return f"validate: convergence.gates judge {', '.join(sorted(gates))}; name the process that computes them"
    if not given:
        return None
    if not gates:
        return "convergence.gates: they are needed to judge the properties that validate computes"
    try:
        ports = _own_ports(load_validation(given["process"].value))
    except ValueError as error:
        return f"validate.process: {error}"
    own = dict(given.get("inputs", {}))
    for name in own:
        if name in PROVIDED:
            return f"validate.inputs.{name}: the campaign gives it"
        if name not in ports and not ports.dynamic:
            return unknown_key_message(name, ports, "validate.inputs")
    problem = ports.validate(ports.pre_process({**own, "metadata": _metadata(given)}))
    return None if problem is None else f"validate.inputs: {problem}"


def parse_gates(convergence: orm.Dict) -> Mapping[str, Any]:
    """Return the gates in the settings of the convergence."""
    return parse_settings(ConvergenceSettings, convergence.get_dict(), "convergence").gates


def load_validation(name: str) -> Any:
    """Return the process that an entry point names, if it keeps to the contract.

    :raises ValueError: if there is none, or it takes or gives something else.
    """
    try:
        process = load_entry_point_from_string(name)
    except (EntryPointError, ValueError) as error:
        raise ValueError(f"{error}; expected GROUP:NAME, e.g. aiida.workflows:my_plugin.lattice") from error
    if not (is_process_function(process) or (isinstance(process, type) and issubclass(process, Process))):
        raise ValueError(f"{name} is no WorkChain, CalcJob or calcfunction")
    spec = process.spec()
    if OUTPUT not in spec.outputs and not spec.outputs.dynamic:
        raise ValueError(f"{name} has no output {OUTPUT!r}")
    takes_one = "potentials" in spec.inputs and not isinstance(spec.inputs["potentials"], PortNamespace)
    if takes_one or not (spec.inputs.dynamic or "potentials" in spec.inputs):
        raise ValueError(f"{name} has no namespace of inputs 'potentials'; a function takes it among **inputs")
    return process


def _own_ports(process: Any) -> PortNamespace:
    """Return the ports of a process that the campaign has nothing for."""
    ports, declared = PortNamespace("inputs"), process.spec().inputs
    ports.absorb(declared, exclude=PROVIDED, namespace_options={"validator": None})
    ports.dynamic = declared.dynamic  # which the valid type of the namespace has overwritten
    return ports


def prepare_validation(validate: Mapping[str, Any], label: str, provided: Mapping[str, Any]) -> Job:
    """Return the process with its inputs.

    :param validate: inputs of this namespace.
    :param label: of the call.
    :param provided: what the campaign gives, names of :data:`PROVIDED`.
    """
    process = load_validation(validate["process"].value)
    ports = process.spec().inputs
    inputs = {name: node for name, node in provided.items() if name in ports or (ports.dynamic and name in CONTRACT)}
    metadata = {"call_link_label": label, "label": label, **_metadata(validate)}
    return Job(process, {**inputs, **validate.get("inputs", {}), "metadata": metadata})


def _metadata(validate: Mapping[str, Any]) -> dict[str, Any]:
    return {"options": validate["options"].get_dict()} if "options" in validate else {}


def take_properties(node: orm.ProcessNode, convergence: orm.Dict) -> orm.Dict:
    """Return the properties that a process has computed.

    :raises ValueError: if there are none, or one that a gate judges is missing or no number.
    """
    if OUTPUT not in node.outputs:
        raise ValueError(f"it has no output {OUTPUT!r}")
    properties = node.outputs[OUTPUT]
    if not isinstance(properties, orm.Dict):
        raise ValueError(f"its output {OUTPUT!r} is a {type(properties).__name__}, expected a Dict")
    for name in parse_gates(convergence):
        read_property(properties.get_dict(), name)
    return properties
