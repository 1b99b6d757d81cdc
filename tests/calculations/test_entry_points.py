"""Every entry point of the package loads, and every input says what it is."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint, distribution
from typing import Any

import pytest
from aiida.engine import CalcJob
from aiida.plugins import CalculationFactory, DataFactory, ParserFactory, WorkflowFactory

from aiida_alpot.kernel.tasks import TASKS

pytestmark = pytest.mark.usefixtures("aiida_profile")

ENTRY_POINTS = sorted(
    (point for point in distribution("aiida-alpot").entry_points if point.group.startswith(("aiida.", "aiida_alpot."))),
    key=lambda point: (point.group, point.name),
)
PROCESSES = [point for point in ENTRY_POINTS if point.group in ("aiida.calculations", "aiida.workflows")]
FACTORIES = {
    "aiida.data": DataFactory,
    "aiida.calculations": CalculationFactory,
    "aiida.parsers": ParserFactory,
    "aiida.workflows": WorkflowFactory,
}
OF_AIIDA = {"metadata", "monitors"}


def name_of(point: EntryPoint) -> str:
    return f"{point.group}:{point.name}"


@pytest.mark.parametrize("point", ENTRY_POINTS, ids=name_of)
def test_every_entry_point_loads(point: EntryPoint) -> None:
    assert point.load() is not None


@pytest.mark.parametrize("point", [point for point in ENTRY_POINTS if point.group in FACTORIES], ids=name_of)
def test_aiida_knows_the_entry_point_of_every_class(point: EntryPoint) -> None:
    assert FACTORIES[point.group](point.name) is point.load()


def spec_of(point: EntryPoint) -> Any:
    return point.load().spec()


def ports_without_help(namespace: Any, path: str = "") -> Iterator[str]:
    inherited = OF_AIIDA | ({"remote_folder", "x509"} if not path else set())
    for name, port in namespace.items():
        if name in inherited:
            continue
        if not (port.help or "").strip():
            yield f"{path}{name}"
        if hasattr(port, "items"):
            yield from ports_without_help(port, f"{path}{name}.")


@pytest.mark.parametrize("point", PROCESSES, ids=name_of)
def test_every_input_has_a_help_text(point: EntryPoint) -> None:
    assert list(ports_without_help(spec_of(point).inputs)) == []


@pytest.mark.parametrize("point", PROCESSES, ids=name_of)
def test_every_output_has_a_help_text(point: EntryPoint) -> None:
    inherited = {"remote_folder", "remote_stash", "retrieved", "result"}
    assert set(ports_without_help(spec_of(point).outputs)) - inherited == set()


@pytest.mark.parametrize("point", PROCESSES, ids=name_of)
def test_every_process_says_what_it_does(point: EntryPoint) -> None:
    assert (point.load().__doc__ or "").strip()


@pytest.mark.parametrize("point", PROCESSES, ids=name_of)
def test_exit_codes_are_unique_and_say_something(point: EntryPoint) -> None:
    codes = list(spec_of(point).exit_codes.values())
    assert len({code.status for code in codes}) == len(codes)
    assert all(code.message for code in codes)


@pytest.mark.parametrize("task", TASKS)
def test_every_task_of_the_kernel_has_a_calculation_and_a_parser(task: str) -> None:
    calculation = CalculationFactory(f"alpot.{task}")
    assert issubclass(calculation, CalcJob)
    assert task == calculation.TASK
    assert calculation.spec().inputs["metadata"]["options"]["parser_name"].default == f"alpot.{task}"
    assert ParserFactory(f"alpot.{task}") is not None
