"""``verdi data alpot.pes`` and ``verdi data alpot.potential``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiida import orm
from aiida.cmdline.commands.cmd_verdi import verdi
from ase import Atoms
from ase.io import read, write
from ase.units import Bohr, Rydberg
from click.testing import CliRunner, Result

from aiida_alpot.data import trust
from aiida_alpot.data.pes import PESData
from aiida_alpot.data.potential import PotentialData

pytestmark = pytest.mark.usefixtures("aiida_profile")


def call(*arguments: object, answer: str | None = None) -> Result:
    return CliRunner().invoke(verdi, ["data", *map(str, arguments)], input=answer)


@pytest.mark.parametrize("group", ["alpot.pes", "alpot.potential"])
def test_verdi_data_lists_the_commands(group: str) -> None:
    result = call(group, "--help")
    assert result.exit_code == 0, result.output
    assert "show" in result.output
    assert "export" in result.output


def test_show_prints_what_a_dataset_holds(copper_dataset: PESData) -> None:
    result = call("alpot.pes", "show", copper_dataset.pk)
    assert result.exit_code == 0, result.output
    content = yaml.safe_load(result.stdout)
    assert content["uuid"] == copper_dataset.uuid
    assert (content["n_frames"], content["n_labelled"]) == (12, 12)
    assert content["count_split"] == {"train": 8, "validation": 1, "test": 1, "calibration": 2}


@pytest.mark.parametrize(("name", "options"), [("out.xyz", []), ("out.dat", ["--format", "extxyz"])])
def test_export_writes_a_file_that_ase_reads(
    tmp_path: Path, copper_dataset: PESData, name: str, options: list[str]
) -> None:
    result = call("alpot.pes", "export", copper_dataset.uuid, tmp_path / name, *options)
    assert result.exit_code == 0, result.output
    assert "wrote 12 frames" in result.output
    assert len(read(tmp_path / name, index=":", format="extxyz")) == 12


def test_export_refuses_an_unknown_format_without_a_traceback(tmp_path: Path, copper_dataset: PESData) -> None:
    result = call("alpot.pes", "export", copper_dataset.pk, tmp_path / "out.cif")
    assert result.exit_code == 1
    assert "cannot write '.cif'" in result.output
    assert isinstance(result.exception, SystemExit)


def test_export_refuses_a_folder_that_does_not_exist_by_name(tmp_path: Path, copper_dataset: PESData) -> None:
    for name in ("out.xyz", "out.h5"):
        result = call("alpot.pes", "export", copper_dataset.pk, tmp_path / "absent" / name)
        assert result.exit_code == 1
        assert "absent" in result.output


def imported_node(result: Result) -> PESData:
    """Return the dataset that the last line of an import names."""
    node = orm.load_node(int(result.output.rsplit("<", 1)[1].split(">")[0]))
    assert isinstance(node, PESData)
    return node


def test_imported_labels_are_reviewed_as_those_of_a_labelling_are(
    tmp_path: Path, make_copper: Callable[..., list[Atoms]], label_emt: Any
) -> None:
    """Forces of one frame are in Ry/bohr, the energy of another is absurd."""
    frames = label_emt(make_copper(40))
    frames[7].calc.results["forces"] /= Rydberg / Bohr
    frames[9].calc.results["energy"] = 1e5
    write(tmp_path / "in.xyz", frames, format="extxyz")
    result = call("alpot.pes", "import", tmp_path / "in.xyz")
    assert result.exit_code == 0, result.output
    assert "review: 2 of 40 labels are put into quarantine (" in result.output
    assert "× limit: an energy of 2.5e+04 eV/atom is above 100 eV/atom" in result.output
    node = imported_node(result)
    with node.dataset() as reader:
        assert list((reader.column("status") == "quarantined").nonzero()[0]) == [7, 9]
    assert node.creator.process_label == "quarantine_labels"
    assert node.creator.inputs.labelled.creator.inputs.file.filename == "in.xyz"


def test_an_import_without_review_stores_what_is_in_the_file(
    tmp_path: Path, make_copper: Callable[..., list[Atoms]], label_emt: Any
) -> None:
    frames = label_emt(make_copper(2))
    frames[1].calc.results["energy"] = 1e5
    write(tmp_path / "in.xyz", frames, format="extxyz")
    result = call("alpot.pes", "import", "--no-review", tmp_path / "in.xyz")
    assert result.exit_code == 0, result.output
    assert "review" not in result.output
    assert imported_node(result).n_labelled == 2


def test_frames_without_labels_are_imported_without_a_review(
    tmp_path: Path, make_copper: Callable[..., list[Atoms]]
) -> None:
    write(tmp_path / "in.xyz", make_copper(2), format="extxyz")
    result = call("alpot.pes", "import", tmp_path / "in.xyz")
    assert result.exit_code == 0, result.output
    assert "review" not in result.output


def test_import_stores_frames_with_their_provenance(
    tmp_path: Path, make_copper: Callable[..., list[Atoms]], label_emt: Any
) -> None:
    write(tmp_path / "in.xyz", label_emt(make_copper(3)), format="extxyz")
    result = call("alpot.pes", "import", tmp_path / "in.xyz")
    assert result.exit_code == 0, result.output
    assert "stored 3 frames (3 labelled)" in result.output
    node = orm.load_node(int(result.output.rsplit("<", 1)[1].split(">")[0]))
    assert len(node) == 3
    assert node.creator.inputs.file.filename == "in.xyz"


def test_import_takes_the_format_that_is_given(tmp_path: Path, make_copper: Callable[..., list[Atoms]]) -> None:
    write(tmp_path / "in.dat", make_copper(2), format="extxyz")
    result = call("alpot.pes", "import", tmp_path / "in.dat", "--format", "extxyz")
    assert result.exit_code == 0, result.output
    assert "stored 2 frames (0 labelled)" in result.output


@pytest.mark.parametrize("content", ["", "3\n\nCu 0 0\n", "nothing that anyone reads"])
def test_import_refuses_a_file_it_cannot_read_by_name(tmp_path: Path, content: str) -> None:
    (tmp_path / "bad.xyz").write_text(content)
    result = call("alpot.pes", "import", tmp_path / "bad.xyz")
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert "bad.xyz" in result.output


def test_import_refuses_a_missing_file_by_name(tmp_path: Path) -> None:
    result = call("alpot.pes", "import", tmp_path / "absent.xyz")
    assert result.exit_code == 2
    assert "absent.xyz" in result.output


def test_a_node_of_another_type_is_refused(copper_dataset: PESData) -> None:
    other = orm.Int(1).store()
    for group in ("alpot.pes", "alpot.potential"):
        assert call(group, "show", other.pk).exit_code != 0
    assert call("alpot.potential", "show", copper_dataset.pk).exit_code != 0


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PotentialData:
    """A potential that this machine does not trust."""
    (tmp_path / "model.pt").write_bytes(b"weights")
    node = PotentialData.from_file(tmp_path / "model.pt", engine="mace", symbols=["Cu"], cutoff=4.0).store()
    monkeypatch.setattr(trust, "_folder", lambda: tmp_path / "trusted")
    return node


def test_show_prints_what_is_known_of_a_potential(foreign: PotentialData) -> None:
    result = call("alpot.potential", "show", foreign.pk)
    assert result.exit_code == 0, result.output
    content = yaml.safe_load(result.stdout)
    assert (content["engine"], content["symbols"], content["sha256"]) == ("mace", ["Cu"], foreign.sha256)
    assert content["trusted"] is False


def test_trust_asks_and_takes_no_for_an_answer(foreign: PotentialData) -> None:
    result = call("alpot.potential", "trust", foreign.pk, answer="n\n")
    assert result.exit_code == 1
    assert foreign.sha256 in result.output
    assert not foreign.is_trusted


@pytest.mark.parametrize(("options", "answer"), [([], "y\n"), (["--force"], None)])
def test_trust_lifts_the_refusal(foreign: PotentialData, options: list[str], answer: str | None) -> None:
    result = call("alpot.potential", "trust", foreign.pk, *options, answer=answer)
    assert result.exit_code == 0, result.output
    assert foreign.is_trusted


def test_a_model_file_is_copied_out(foreign: PotentialData, tmp_path: Path) -> None:
    result = call("alpot.potential", "export", foreign.pk, tmp_path / "copy.model")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "copy.model").read_bytes() == b"weights"
