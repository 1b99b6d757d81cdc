"""``aiida-alpot label``: a file in, a file of labels out."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida import orm
from aiida.manage.manager import Manager
from ase import Atoms
from ase.io import read, write
from click.testing import CliRunner, Result

from aiida_alpot.cli import main
from aiida_alpot.workflows.slots import Offer

running_module = importlib.import_module("aiida_alpot.cli.running")

EMT = "calculator: ase.calculators.emt:EMT\n"


@pytest.fixture
def call(
    aiida_profile: Any, python_code: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., Result]:
    """Return a function that labels ``in.xyz`` in an empty folder, with EMT unless parameters are given."""
    monkeypatch.chdir(tmp_path)
    Path("emt.yaml").write_text(EMT)

    def run(*arguments: object, file: str = "in.xyz", parameters: str = "emt.yaml", code: Any = None) -> Result:
        given = ["-p", aiida_profile.name, "label", file, "--parameters", parameters, "--code", code or python_code.pk]
        return CliRunner().invoke(main, [str(argument) for argument in [*given, *arguments]])

    return run


@pytest.fixture
def structures(call: Any, make_copper: Callable[..., list[Atoms]]) -> list[Atoms]:
    """Three frames of copper in ``in.xyz``."""
    write("in.xyz", make_copper(3), format="extxyz")
    return read("in.xyz", index=":", format="extxyz")


def count_nodes() -> int:
    return orm.QueryBuilder().append(orm.Node).count()


def test_a_file_is_labelled_without_a_broker_and_exported_with_its_provenance(
    call: Any, structures: list[Atoms], label_emt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Any) -> None:
        raise ConnectionError("the broker does not run, since the daemon does not")

    monkeypatch.setattr(Manager, "get_communicator", refuse)
    result = call()
    assert result.exit_code == 0, result.output
    assert "3 frames: 3 labelled, 0 failed, 0 quarantined, 0 unlabelled" in result.output
    assert "1/1 jobs" in result.output
    labelled = read("in-labelled.xyz", index=":", format="extxyz")
    for frame, expected in zip(labelled, label_emt(structures), strict=True):
        np.testing.assert_allclose(frame.info["REF_energy"], expected.get_potential_energy(), rtol=1e-12)
        np.testing.assert_allclose(frame.arrays["REF_forces"], expected.get_forces(), atol=1e-12)
    pk = int(result.output.rsplit("labelled frames PESData <", 1)[1].split(">")[0])
    assert orm.load_node(pk).creator.caller.inputs.frames.creator.inputs.file.filename == "in.xyz"
    assert "wrote 3 frames to in-labelled.xyz" in result.output


@pytest.mark.parametrize("name", ["out.db", "out.h5"])
def test_the_ending_of_the_output_chooses_its_format(call: Any, structures: list[Atoms], name: str) -> None:
    assert call("--output", name).exit_code == 0
    assert Path(name).stat().st_size > 0


@pytest.fixture
def one_bad(call: Any, make_copper: Callable[..., list[Atoms]]) -> None:
    """Two frames of copper in ``in.xyz``, and one of an element that EMT does not know."""
    write("in.xyz", [*make_copper(2), Atoms("Li", cell=[4, 4, 4], pbc=True)], format="extxyz")


def test_a_frame_that_fails_is_counted_and_its_reason_told(call: Any, one_bad: None) -> None:
    result = call("--only-labelled")
    assert result.exit_code == 0, result.output
    assert "2 labelled, 1 failed" in result.output
    assert "1 × " in result.output
    assert len(read("in-labelled.xyz", index=":", format="extxyz")) == 2


def test_too_many_failures_are_an_error_and_the_labels_there_are_come_out(call: Any, one_bad: None) -> None:
    result = call("--max-failed-fraction", 0.1)
    assert result.exit_code == 1
    assert "Too much of this stage failed" in result.output
    assert "Traceback" not in result.output
    frames = read("in-labelled.xyz", index=":", format="extxyz")
    assert [frame.info["status"] for frame in frames] == ["labelled", "labelled", "failed"]


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (["--engine", "quantumespreso"], {}, "did you mean 'quantumespresso'?"),
        ([], {"parameters": "typo.yaml"}, "unknown key 'calculater'; did you mean 'calculator'?"),
        ([], {"parameters": "list.yaml"}, "expected inputs by name, got list"),
        ([], {"file": "bad.xyz"}, "bad.xyz"),
        (["--option", "resorces.num_machines=1"], {}, "did you mean 'resources'?"),
        (["--option", "withmpi"], {}, "--option: expected KEY=VALUE"),
        (["--option", "withmpi=true", "--option", "withmpi.a=1"], {}, "which is no mapping but True"),
        (["--output", "there.xyz"], {}, "there.xyz exists"),
        (["--output", "no/where.xyz"], {}, "there is no folder no"),
        (["--output", "out.cif"], {}, "cannot write '.cif'"),
        (["--quality", "typo.yaml"], {}, "unknown key 'calculater'"),
        (["--submit"], {}, "leave --submit out to run here"),
    ],
)
def test_bad_input_is_refused_before_anything_is_stored(
    call: Any, structures: list[Atoms], arguments: list[str], options: dict[str, str], message: str
) -> None:
    Path("typo.yaml").write_text("calculater: a.b:C\n")
    Path("list.yaml").write_text("[1]\n")
    Path("bad.xyz").write_text("3\n\nCu 0 0\n")
    Path("there.xyz").write_text("")
    before = count_nodes()
    result = call(*arguments, **options)
    assert result.exit_code != 0
    assert isinstance(result.exception, SystemExit), result.exception
    assert message in result.output
    assert count_nodes() == before


def test_an_output_that_exists_is_written_over_by_force_only(call: Any, structures: list[Atoms]) -> None:
    Path("in-labelled.xyz").write_text("")
    assert call().exit_code == 1
    assert call("--force").exit_code == 0
    assert len(read("in-labelled.xyz", index=":", format="extxyz")) == 3


def test_the_stress_is_checked_and_labels_reviewed_as_asked_for(call: Any, structures: list[Atoms]) -> None:
    Path("quality.yaml").write_text("max_force: 1.0e-6\n")
    result = call("--check-stress", "--quality", "quality.yaml", "--max-failed-fraction", 1)
    assert "0 labelled, 0 failed, 3 quarantined" in result.output
    (node,) = (
        orm.QueryBuilder().append(orm.WorkChainNode).order_by({orm.WorkChainNode: {"ctime": "desc"}}).limit(1).first()
    )
    assert node.inputs.check_stress.value


def test_options_of_the_scheduler_reach_the_job(call: Any, structures: list[Atoms]) -> None:
    Path("options.yaml").write_text("max_wallclock_seconds: 100\nresources: {num_machines: 1}\n")
    pairs = ("--option", "max_wallclock_seconds=200", "--option", "resources.num_mpiprocs_per_machine=1")
    result = call("--options", "options.yaml", *pairs, "--max-concurrent", 2)
    assert result.exit_code == 0, result.output
    pk = int(result.output.rsplit("LabellingWorkChain <", 1)[1].split(">")[0])
    (job,) = (child for child in orm.load_node(pk).called if isinstance(child, orm.CalcJobNode))
    assert job.get_option("max_wallclock_seconds") == 200
    assert job.get_option("resources")["num_mpiprocs_per_machine"] == 1
    assert orm.load_node(pk).inputs.max_concurrent.value == 2


def test_a_submitted_labelling_says_how_to_follow_it(
    call: Any, structures: list[Atoms], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = orm.WorkChainNode(process_type="aiida.workflows:alpot.label").store()
    submitted: list[Any] = []
    monkeypatch.setattr(running_module, "submit", lambda builder: submitted.append(builder) or node)
    monkeypatch.setattr(running_module, "daemon_offer", lambda: Offer(1, 200))
    result = call("--submit")
    assert result.exit_code == 0, result.output
    assert f"aiida-alpot watch {node.pk}" in result.output
    assert "verdi data alpot.pes export PK in-labelled.xyz" in result.output
    assert submitted[0].frames.is_stored
    assert not Path("in-labelled.xyz").exists()
