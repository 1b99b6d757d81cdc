"""``aiida-alpot augment``: a file in, a file of more structures out."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiida import orm
from ase import Atoms
from ase.io import read, write
from click.testing import CliRunner, Result

from aiida_alpot.cli import main
from aiida_alpot.data.potential import PotentialData
from aiida_alpot.testing.models import make_tiny_mace

SETTINGS = "copies: 2\nrattle: {}\nfilters: {max_atoms: 50}\n"


@pytest.fixture
def call(aiida_profile: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """Return a function that augments ``in.xyz`` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    Path("settings.yaml").write_text(SETTINGS)

    def run(*arguments: object, settings: str = "settings.yaml") -> Result:
        given = ["-p", aiida_profile.name, "augment", "in.xyz", "--settings", settings, *arguments]
        return CliRunner().invoke(main, [str(argument) for argument in given])

    return run


@pytest.fixture
def structures(call: Any, make_copper: Callable[..., list[Atoms]]) -> list[Atoms]:
    """Two frames of copper in ``in.xyz``, and a large one."""
    frames = make_copper(2)
    write("in.xyz", [*frames, frames[0] * (4, 4, 4)], format="extxyz")
    return frames


def test_a_file_is_augmented_without_a_code_and_tells_what_became_of_it(call: Any, structures: list[Atoms]) -> None:
    result = call("--seed", 3)
    assert result.exit_code == 0, result.output
    assert "3 inputs, 6 frames" in result.output
    assert "4 × rattle" in result.output
    assert "removed by max_atoms: 3 × too_many_atoms, e.g. input " in result.output
    frames = read("in-augmented.xyz", index=":", format="extxyz")
    assert len(frames) == 6
    assert {atoms.info["config_type"] for atoms in frames} == {"input", "rattle"}
    pk = int(result.output.rsplit("frames PESData <", 1)[1].split(">")[0])
    creator = orm.load_node(pk).creator
    assert creator.inputs.seed.value == 3
    assert creator.inputs.frames.creator.inputs.file.filename == "in.xyz"


def test_with_a_code_a_job_makes_the_same_frames(call: Any, structures: list[Atoms], python_code: Any) -> None:
    assert call("--output", "here.xyz").exit_code == 0
    result = call("--output", "job.xyz", "--code", python_code.pk)
    assert result.exit_code == 0, result.output
    assert "3 inputs, 6 frames" in result.output
    here, job = (read(name, index=":", format="extxyz") for name in ("here.xyz", "job.xyz"))
    assert [atoms.positions.tolist() for atoms in here] == [atoms.positions.tolist() for atoms in job]


@pytest.mark.parametrize("name", ["slab", "stacking_fault", "twin"])
def test_a_package_that_is_missing_is_told_in_one_line(
    call: Any, structures: list[Atoms], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, "spglib", None)
    Path("settings.yaml").write_text(f"copies: 0\n{name}: {{}}\n")
    result = call()
    assert result.exit_code == 1
    assert "Error: the package 'spglib' cannot be imported" in result.output
    assert "pip install" in result.output


def test_a_potential_is_named_by_its_pk(call: Any, structures: list[Atoms], python_code: Any, tmp_path: Path) -> None:
    alloy = "alloy: {alloy_species: [Cu, Au], compositions: [{Cu: 0.5, Au: 0.5}]}"
    Path("settings.yaml").write_text(f"copies: 1\nkeep_input: false\n{alloy}\nswap: {{attempts: 2}}\n")
    write("in.xyz", [atoms * (2, 1, 1) for atoms in structures], format="extxyz")
    make_tiny_mace(tmp_path / "m.model", species=(29, 79), seed=0)
    node = PotentialData.from_file(tmp_path / "m.model", engine="mace", symbols=["Cu", "Au"], cutoff=4.0).store()
    result = call("--code", python_code.pk, "--potential", node.pk)
    assert result.exit_code == 0, result.output
    assert "2 × alloy+swap" in result.output
    result = call("--code", python_code.pk, "--potential", python_code.pk, "--force")
    assert "is a InstalledCode, expected a PotentialData" in result.output


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        ([], "ratle: {}", "augment.settings: unknown key 'ratle'; did you mean 'rattle'"),
        ([], "- rattle", "expected inputs by name, got list"),
        (["--submit"], SETTINGS, "--submit"),
        (["--seed", "-1"], SETTINGS, "--seed"),
        (["--output", "out.cif"], SETTINGS, "cannot write '.cif'"),
        (
            [],
            "swap: {}",
            "swap: the energies of a potential are needed, got none; give --potential PK and --code",
        ),
        (["--potential", "1"], "swap: {}", "--potential: it is a job that evaluates it; give it a --code"),
        (["--potential", "1"], SETTINGS, "no manipulation asks them"),
        ([], "copies: 0\nfilters: {max_atoms: 1}", "no frame is left of 3"),
    ],
)
def test_bad_input_is_told_in_one_line(
    call: Any, structures: list[Atoms], arguments: list[str], settings: str, message: str
) -> None:
    Path("other.yaml").write_text(settings)
    result = call(*arguments, settings="other.yaml")
    assert result.exit_code != 0
    assert message in result.output
    assert "Traceback" not in result.output
