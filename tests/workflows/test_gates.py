"""What is refused of the process for gates before the first job of a campaign."""

from __future__ import annotations

from typing import Any

import pytest
from aiida import orm
from aiida.engine import CalcJob, WorkChain, calcfunction

from aiida_alpot.data.potential import PotentialData
from aiida_alpot.workflows.active_learning import ActiveLearningWorkChain
from aiida_alpot.workflows.gates import check_validation, prepare_validation

GATES = {"lattice": {"min": 3.5}}
PREFIX = "aiida.workflows:test."


@calcfunction
def any_inputs(dataset: Any, **inputs: Any) -> None: ...


@calcfunction
def one_potential(potentials: Any) -> None: ...


@calcfunction
def no_potentials(dataset: Any) -> None: ...


class Complete(WorkChain):
    @classmethod
    def define(cls, spec: Any) -> None:
        super().define(spec)
        spec.input_namespace("potentials", valid_type=PotentialData, dynamic=True)
        spec.input("kernel", valid_type=orm.SinglefileData, required=False)
        spec.input("cutoff", valid_type=orm.Float)
        spec.input("steps", valid_type=orm.Int, default=lambda: orm.Int(3))
        spec.output("properties", valid_type=orm.Dict)


class NoOutput(Complete):
    @classmethod
    def define(cls, spec: Any) -> None:
        super().define(spec)
        del spec.outputs["properties"]


class Job(CalcJob):
    @classmethod
    def define(cls, spec: Any) -> None:
        super().define(spec)
        spec.input_namespace("potentials", valid_type=PotentialData, dynamic=True)
        spec.output("properties", valid_type=orm.Dict)

    def prepare_for_submission(self, folder: Any) -> None: ...


@pytest.fixture(autouse=True)
def processes(aiida_profile: Any, entry_points: Any) -> None:
    for process in (any_inputs, one_potential, no_potentials, Complete, NoOutput, Job):
        entry_points.add(process, f"{PREFIX}{process.__name__}")


def refusal(process: str, gates: dict[str, Any] = GATES, **validate: Any) -> str | None:
    given = {"process": orm.Str(process), **validate}
    return check_validation({"convergence": orm.Dict({"gates": gates}), "validate": given})


def test_gates_and_process_need_each_other() -> None:
    assert check_validation({"convergence": orm.Dict({})}) is None
    assert check_validation({}) is None
    message = check_validation({"convergence": orm.Dict({"gates": {**GATES, "bulk": {"max": 1.0}}})})
    assert message == "validate: convergence.gates judge bulk, lattice; name the process that computes them"
    assert refusal(f"{PREFIX}any_inputs", gates={}) == (
        "convergence.gates: they are needed to judge the properties that validate computes"
    )


@pytest.mark.parametrize(
    ("process", "message"),
    [
        ("lattice", "expected GROUP:NAME, e.g. aiida.workflows:my_plugin.lattice"),
        (f"{PREFIX}lattice", "Entry point 'test.lattice' not found"),
        ("aiida.data:alpot.pes", "aiida.data:alpot.pes is no WorkChain, CalcJob or calcfunction"),
        (f"{PREFIX}NoOutput", "test.NoOutput has no output 'properties'"),
        (f"{PREFIX}one_potential", "has no namespace of inputs 'potentials'; a function takes it among **inputs"),
        (f"{PREFIX}no_potentials", "has no namespace of inputs 'potentials'"),
    ],
)
def test_a_process_that_does_not_keep_the_contract_is_refused(process: str, message: str) -> None:
    problem = refusal(process)
    assert problem is not None
    assert problem.startswith("validate.process: ")
    assert message in problem


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"cutof": 1.0}, "validate.inputs: unknown key 'cutof'; did you mean 'cutoff'"),
        ({"potentials": 1.0}, "validate.inputs.potentials: the campaign gives it"),
        ({}, "required value was not provided for 'cutoff'"),
        ({"cutoff": "far"}, "value 'cutoff' is not of the right type"),
    ],
)
def test_wrong_inputs_of_the_process_are_named(inputs: dict[str, Any], message: str) -> None:
    nodes = {name: orm.to_aiida_type(value) for name, value in inputs.items()}
    problem = refusal(f"{PREFIX}Complete", inputs=nodes)
    assert problem is not None
    assert message in problem


def test_complete_inputs_pass() -> None:
    assert refusal(f"{PREFIX}Complete", inputs={"cutoff": orm.Float(1.0)}) is None
    assert refusal(f"{PREFIX}any_inputs", inputs={"anything": orm.Float(1.0)}) is None


def test_a_calcjob_needs_its_scheduler_options(python_code: orm.InstalledCode) -> None:
    inputs = {"code": python_code}
    assert "resources" in str(refusal(f"{PREFIX}Job", inputs=inputs))
    options = orm.Dict({"resources": {"num_machines": 1}})
    assert refusal(f"{PREFIX}Job", inputs=inputs, options=options) is None
    assert "options" in str(refusal(f"{PREFIX}Complete", inputs={"cutoff": orm.Float(1.0)}, options=options))
    validate = {"process": orm.Str(f"{PREFIX}Job"), "inputs": inputs, "options": options}
    metadata = prepare_validation(validate, "gate", {}).inputs["metadata"]
    assert metadata == {"call_link_label": "gate", "label": "gate", "options": options.get_dict()}


def test_a_process_gets_what_it_declares_and_one_that_takes_any_input_all_of_the_contract() -> None:
    provided = dict.fromkeys(("potentials", "uncertainty", "dataset", "kernel"), "given")
    chosen = {
        name: set(prepare_validation({"process": orm.Str(f"{PREFIX}{name}")}, "gate", provided).inputs) - {"metadata"}
        for name in ("Complete", "any_inputs")
    }
    assert chosen == {"Complete": {"potentials", "kernel"}, "any_inputs": {"potentials", "uncertainty", "dataset"}}


def test_a_protocol_takes_it_among_the_overrides(python_code: orm.InstalledCode, copper: Any) -> None:
    def build(**validate: Any) -> Any:
        overrides = {
            "label": {"parameters": {"calculator": "ase.calculators.emt:EMT"}},
            "convergence": {"gates": GATES},
            "validate": validate,
        }
        return ActiveLearningWorkChain.get_builder_from_protocol(python_code, overrides=overrides, structures=copper)

    builder = build(process=f"{PREFIX}Complete", inputs={"cutoff": 2.0})
    assert builder.validate["process"].value == f"{PREFIX}Complete"
    assert builder.validate["inputs"]["cutoff"].value == 2.0
    with pytest.raises(ValueError, match="validate: unknown key 'proces'; did you mean 'process'"):
        build(proces="x")
