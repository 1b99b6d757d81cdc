"""What a Python needs is said once more outside pyproject.toml, for jobs that travel without it."""

import tomllib
from pathlib import Path

import pytest

from aiida_alpot.kernel._extras import BASE, EXTRAS, MissingPackageError, describe_install, require

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


def test_the_packages_that_every_job_needs_are_those_of_the_project():
    assert set(BASE) <= set(PROJECT["dependencies"])


@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_an_extra_brings_what_the_project_says(extra):
    assert list(EXTRAS[extra]) == PROJECT["optional-dependencies"][extra]


def test_the_way_to_an_extra_needs_no_aiida_where_that_is_possible():
    assert describe_install("tblite").startswith("pip install 'tblite>=")
    assert describe_install("vasp") == "pip install 'aiida-alpot[vasp]'"


def test_a_package_is_named_that_a_package_in_turn_lacks(tmp_path, monkeypatch):
    (tmp_path / "outer.py").write_text("import no_such_inner.part\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(MissingPackageError, match="no_such_inner") as caught:
        require("outer", extra="mace")
    assert caught.value.package == "no_such_inner"


def test_a_package_that_is_there_but_broken_is_named(tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text("raise ImportError('libx.so: cannot open shared object file')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(MissingPackageError, match=r"libx\.so") as caught:
        require("broken", extra="mace")
    assert caught.value.package == "broken"
