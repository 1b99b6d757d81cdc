"""The command line: a message and an exit code for everything that a user can mistype, never a traceback."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from aiida import orm
from aiida.cmdline.commands.cmd_verdi import verdi
from aiida.engine.utils import instantiate_process
from aiida.manage.manager import get_manager
from click.testing import CliRunner, Result
from plumpy.process_states import ProcessState

from aiida_alpot.cli import main
from aiida_alpot.data.pes import PESData
from aiida_alpot.data.potential import PotentialData
from aiida_alpot.workflows.active_learning import ActiveLearningWorkChain

pytestmark = [pytest.mark.usefixtures("aiida_profile"), pytest.mark.timeout(60)]


def check(result: Result, words: Sequence[object]) -> None:
    assert result.exit_code != 0, result.output
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert "Traceback" not in result.output
    for word in words:
        assert str(word) in result.output, result.output


def data(*arguments: object) -> Result:
    return CliRunner().invoke(verdi, ["data", *map(str, arguments)])


CALLS: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "cli-01 a dataset that does not exist": (["alpot.pes", "show", "999999"], ["999999"]),
    "cli-02 a dataset named by words": (["alpot.pes", "show", "mine"], ["mine"]),
    "cli-03 a dataset named by a path": (["alpot.pes", "show", "../../x"], ["../../x"]),
    "cli-04 an import of nothing": (["alpot.pes", "import"], ["PATH"]),
    "cli-05 an import of a missing file": (["alpot.pes", "import", "absent.xyz"], ["absent.xyz"]),
    "cli-06 an import of a folder": (["alpot.pes", "import", "/"], ["directory"]),
    "cli-07 a command that does not exist": (["alpot.pes", "shwo"], ["shwo"]),
    "cli-08 an option that does not exist": (["alpot.pes", "import", "x", "--fromat", "db"], ["--fromat"]),
    "cli-09 a potential that does not exist": (["alpot.potential", "trust", "999999"], ["999999"]),
}


@pytest.mark.parametrize("case", CALLS)
def test_a_wrong_call_of_verdi_is_named(case: str) -> None:
    arguments, words = CALLS[case]
    check(data(*arguments), words)


ALPOT: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "cli-10 a profile that does not exist": (["-p", "nobody", "history", "1"], ["nobody", "verdi presto"]),
    "cli-11 a campaign that does not exist": (["history", "999999"], ["999999"]),
    "cli-12 a campaign named by words": (["watch", "mine"], ["mine"]),
    "cli-13 a command that does not exist": (["histroy", "1"], ["histroy"]),
    "cli-14 no campaign": (["history"], ["CAMPAIGN"]),
}


@pytest.mark.parametrize("case", ALPOT)
def test_a_wrong_call_of_aiida_alpot_is_named(case: str) -> None:
    arguments, words = ALPOT[case]
    check(CliRunner().invoke(main, list(arguments)), words)


@pytest.mark.parametrize("command", ["history", "resume"])
def test_a_workflow_that_is_no_campaign_is_named(command: str) -> None:
    """cli-15 the history of something else."""
    node = orm.WorkChainNode(process_type="aiida.workflows:alpot.label")
    node.set_process_label("LabelWorkChain")
    node.set_process_state(ProcessState.FINISHED)
    words = [f"<{node.store().pk}> is no campaign but LabelWorkChain", "expected an ActiveLearningWorkChain"]
    check(CliRunner().invoke(main, [command, str(node.pk)]), words)


@pytest.fixture
def failed_campaign(python_code: Any, good: SimpleNamespace) -> orm.WorkChainNode:
    """A campaign that failed before its first stage."""
    emt = {"label": {"parameters": {"calculator": "ase.calculators.emt:EMT"}}}
    structures = PESData.from_frames(good.frames()).store()
    builder = ActiveLearningWorkChain.get_builder_from_protocol(python_code, overrides=emt, structures=structures)
    node = instantiate_process(get_manager().get_runner(), builder).node
    node.set_process_state(ProcessState.FINISHED)
    node.set_exit_status(400)
    return node


OVERRIDES: dict[str, tuple[str, Sequence[str], Sequence[str]]] = {
    "cli-25 no number of iterations": ("max_iterations: null", [], ["max_iterations", "got null", "give a value"]),
    "cli-26 a date for a seed": ("seed: 2020-01-01", [], ["seed: expected plain values", "2020"]),
    "cli-27 no options": ("label: {options: null}", [], ["label.options", "got null"]),
    "cli-28 no dataset": ("dataset: null", [], ["dataset", "got null"]),
    "cli-29 no convergence": ("convergence: null", [], ["convergence", "got null"]),
    "cli-30 a number for a name": ("1: 2", [], ["unknown key '1'", "valid keys"]),
    "cli-31 a word for a stage beside a tolerance": (
        "calibrate: abc", ["--tolerance", "force=0.1"], ["calibrate: expected a mapping", "'abc'"]),
    "cli-32 a word for a number": ("seed: one", [], ["seed", "Int"]),
    "cli-33 a word for a window": ("label: {max_concurrent: many}", [], ["label.max_concurrent", "expected", "int"]),
}  # fmt: skip


@pytest.mark.parametrize("case", OVERRIDES)
def test_overrides_of_resume_that_cannot_be_are_named(
    case: str, failed_campaign: orm.WorkChainNode, plant: Any
) -> None:
    text, options, words = OVERRIDES[case]
    overrides = ["--overrides", str(plant("changes.yaml", text))]
    check(CliRunner().invoke(main, ["resume", str(failed_campaign.pk), *overrides, *options]), words)


def test_levels_without_a_campaign_are_named() -> None:
    """cli-34 the levels of the jobs of nothing."""
    check(CliRunner().invoke(main, ["slots", "--levels", "3"]), ["--levels", "--max-concurrent", "give both"])


@pytest.fixture
def dataset(good: SimpleNamespace) -> PESData:
    """A stored dataset, whose file no other test has put into a pack of the repository."""
    frames = good.frames()
    frames[0].info["note"] = uuid4().hex
    return PESData.from_frames(frames).store()


EXPORTS: dict[str, tuple[str, Sequence[str]]] = {
    "cli-16 an ending nobody knows": ("out.cif", ["cannot write", ".cif", "extxyz, db, hdf5"]),
    "cli-17 no ending": ("out", ["cannot write", "extxyz, db, hdf5"]),
    "cli-18 a folder that is missing": ("absent/out.xyz", ["absent"]),
    "cli-19 a folder that is missing, as HDF5": ("absent/out.h5", ["absent"]),
    "cli-20 a folder that is a file": ("file/out.xyz", ["file"]),
}


@pytest.mark.parametrize("case", EXPORTS)
def test_an_export_that_cannot_be_is_named(case: str, dataset: PESData, tmp_path: Path) -> None:
    name, words = EXPORTS[case]
    (tmp_path / "file").write_text("")
    check(data("alpot.pes", "export", dataset.pk, tmp_path / name), words)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("command", ["show", "export"])
def test_a_stored_dataset_that_was_damaged_is_named(command: str, dataset: PESData, tmp_path: Path) -> None:
    """cli-21 and 22 a repository with a flipped byte."""
    damage(dataset, PESData.FILENAME)
    arguments = [tmp_path / "out.xyz"] if command == "export" else []
    check(data("alpot.pes", command, dataset.pk, *arguments), ["dataset", "corrupt"])


def test_a_potential_is_not_exported_into_a_missing_folder(
    potentials: dict[str, PotentialData], tmp_path: Path
) -> None:
    """cli-23 the folder of an export is missing."""
    check(data("alpot.potential", "export", potentials["m000"].pk, tmp_path / "absent" / "x"), ["absent"])


def damage(node: orm.Node, name: str) -> None:
    """Cut the file of a stored node where the repository keeps it."""
    container = node.base.repository._repository.backend
    key = node.base.repository.get_object(name).key
    with container._container as opened:  # type: ignore[attr-defined]
        path = Path(opened._get_loose_path_from_hashkey(key))  # type: ignore[attr-defined]
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-50])


POTENTIALS: dict[str, tuple[bytes | None, dict[str, Any], Sequence[str]]] = {
    "model-18 no file": (None, {}, ["absent.model", "missing or empty"]),
    "model-19 no content": (b"", {}, ["bad.model", "missing or empty"]),
    "model-20 an unknown engine": (b"x", {"engine": "maze"}, ["engine", "'maze'", "mace"]),
    "model-21 no species": (b"x", {"symbols": []}, ["symbols", "chemical symbols"]),
    "model-22 an unknown species": (b"x", {"symbols": ["Qq"]}, ["symbols", "Qq"]),
    "model-23 a negative cut-off": (b"x", {"cutoff": -1.0}, ["cutoff", "-1.0"]),
    "model-24 a cut-off that is NaN": (b"x", {"cutoff": float("nan")}, ["cutoff", "nan"]),
    "model-25 another precision": (b"x", {"dtype": "float16"}, ["dtype", "'float16'"]),
}


@pytest.mark.parametrize("case", POTENTIALS)
def test_a_bad_potential_is_refused_by_name(case: str, plant: Any, tmp_path: Path, refused: Any) -> None:
    content, changes, words = POTENTIALS[case]
    path = tmp_path / "absent.model" if content is None else plant("bad.model", content)
    arguments = {"engine": "mace", "symbols": ["Cu"], "cutoff": 4.0, **changes}
    refused(lambda: PotentialData.from_file(path, **arguments), words)


def test_a_terminal_that_is_not_utf8_gets_the_message(plant: Any) -> None:
    """cli-24 a Latin-1 terminal."""
    path = plant("bad.xyz", "four\n\n")
    environment = {**os.environ, "LC_ALL": "C"}
    result = CliRunner(charset="latin-1").invoke(verdi, ["data", "alpot.pes", "import", str(path)], env=environment)
    check(result, ["four"])
