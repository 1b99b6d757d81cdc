"""The zip of the kernel: equal everywhere, pure Python, and able to run without AiiDA and without this package."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile

import pytest
from ase.build import bulk

from aiida_alpot.kernel import archive
from aiida_alpot.kernel.archive import archive_sha256, build_archive
from aiida_alpot.kernel.dataset import Dataset, write

ADAPTER = """
from ase import Atoms
import numpy as np
from aiida_alpot.kernel.potentials import Potential, Predictions, offsets_of


class Flat(Potential):
    engine, species, cutoff, dtype = "flat", (29,), 1.0, "float64"

    def __init__(self, path, device="cpu", dtype="float64"):
        pass

    def predict(self, frames, batch_size=32):
        offsets = offsets_of(frames)
        return Predictions(np.full(len(frames), 7.0), np.zeros((offsets[-1], 3)), np.zeros((len(frames), 6)), offsets)
"""


def names(content: bytes) -> list[str]:
    return zipfile.ZipFile(io.BytesIO(content)).namelist()


def run_python(*arguments, cwd, **options):
    """Run Python without site-packages paths to the source tree: only the zip gives the kernel."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False, **options
    )


@pytest.fixture(scope="module")
def pyz(tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / archive.FILENAME
    path.write_bytes(build_archive())
    return path


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An importable folder for packages of third parties."""
    folder = tmp_path / "third"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


def test_the_same_kernel_gives_the_same_bytes():
    first, second = build_archive(), build_archive()
    assert first == second
    assert archive_sha256(first) == hashlib.sha256(first).hexdigest()


def test_bytes_do_not_depend_on_process_folder_or_umask(tmp_path):
    imports = "import os; from aiida_alpot.kernel.archive import archive_sha256, build_archive"
    code = f"{imports}; os.umask(0o077); print(archive_sha256(build_archive()))"
    result = run_python("-c", code, cwd=tmp_path, env={**os.environ, "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7"})
    assert result.stdout.strip() == archive_sha256(build_archive()), result.stderr


@pytest.fixture
def copied_kernel(tmp_path, monkeypatch):
    """A copy of the kernel that may be changed, packed in place of the real one."""
    root = tmp_path / "copy"
    source = archive.Path(archive.__file__).parents[1]
    shutil.copytree(source / "kernel", root / "kernel", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(source / "__init__.py", root / "__init__.py")
    monkeypatch.setattr(archive, "__file__", str(root / "kernel" / "archive.py"))
    return root / "kernel"


def test_line_ends_of_the_checkout_do_not_change_the_bytes(copied_kernel):
    before = build_archive()
    for path in copied_kernel.rglob("*.py"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert build_archive() == before


def test_a_changed_line_changes_the_bytes(copied_kernel):
    before = build_archive()
    with (copied_kernel / "units.py").open("a") as file:
        file.write("# changed\n")
    assert build_archive() != before


def test_times_modes_and_caches_of_the_files_do_not_change_the_bytes(copied_kernel):
    before = build_archive()
    os.utime(copied_kernel / "units.py", (0, 0))
    (copied_kernel / "units.py").chmod(0o600)
    (copied_kernel / "__pycache__").mkdir()
    (copied_kernel / "__pycache__" / "units.cpython-311.pyc").write_bytes(b"cache")
    assert build_archive() == before


@pytest.mark.parametrize("name", ["fast.so", "fast.pyd", "fast.dylib"])
def test_a_compiled_module_is_refused_by_name(copied_kernel, name):
    (copied_kernel / name).write_bytes(b"")
    with pytest.raises(ValueError, match=f"pure Python.*{name}"):
        build_archive()


def test_only_the_kernel_is_packed():
    packed = names(build_archive())
    assert packed == sorted(packed)
    assert all(name.startswith("aiida_alpot/kernel/") for name in packed if "/" in name and name.count("/") > 1)
    assert {name for name in packed if name.count("/") < 2} == {"__main__.py", "aiida_alpot/__init__.py"}


def test_a_module_that_is_not_there_is_refused_by_name():
    for module in ("no_such_adapter", "no_such_package.adapter"):
        with pytest.raises(ValueError, match=f"'{module}' must be an importable pure Python file"):
            build_archive({"flat": f"{module}:Flat"})


def test_a_built_in_module_is_refused_by_name():
    with pytest.raises(ValueError, match="'math'"):
        build_archive({"flat": "math:Flat"})


def test_third_party_module_gets_empty_parents(package):
    (package / "acme").mkdir()
    (package / "acme" / "__init__.py").write_text("import aiida_of_acme")
    (package / "acme" / "flat.py").write_text(ADAPTER)
    # the parent is imported to find the module, it must not fail here
    (package / "aiida_of_acme.py").write_text("")
    packed = zipfile.ZipFile(io.BytesIO(build_archive({"flat": "acme.flat:Flat"})))
    assert packed.read("acme/__init__.py") == b""
    assert packed.read("acme/flat.py") == ADAPTER.encode()
    assert json.loads(packed.read("aiida_alpot/kernel/adapters.json")) == {"flat": "acme.flat:Flat"}


def test_an_adapter_that_is_a_package_stays_one(package):
    (package / "acme_flat").mkdir()
    (package / "acme_flat" / "__init__.py").write_text(ADAPTER)
    (package / "acme_flat" / "second.py").write_text(ADAPTER)
    for adapters in (
        {"flat": "acme_flat:Flat", "second": "acme_flat.second:Flat"},
        {"flat": "acme_flat.second:Flat", "second": "acme_flat:Flat"},
    ):
        packed = zipfile.ZipFile(io.BytesIO(build_archive(adapters)))
        assert packed.read("acme_flat/__init__.py") == ADAPTER.encode()
        assert packed.read("acme_flat/second.py") == ADAPTER.encode()


def test_third_party_adapter_is_loaded_from_the_zip(package, tmp_path):
    (package / "acme_adapter.py").write_text(ADAPTER)
    pyz = tmp_path / "k.pyz"
    pyz.write_bytes(build_archive({"flat": "acme_adapter:Flat"}))
    code = f"""
import sys
sys.path.insert(0, {str(pyz)!r})
from ase.build import bulk
from aiida_alpot.kernel.potentials import load
potential = load("any", "flat")
print(potential.predict([bulk("Cu")]).energy[0], sys.modules["acme_adapter"].__file__)
"""
    result = run_python("-c", code, cwd=tmp_path)
    assert result.stdout.split() == ["7.0", f"{pyz}/acme_adapter.py"], result.stderr


@pytest.mark.parametrize("arguments", [(), ("augment",), ("no_task", "task.json")])
def test_a_wrong_call_of_the_zip_ends_with_the_usage(pyz, tmp_path, arguments):
    result = run_python(pyz, *arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith("usage: python alpot-kernel.pyz TASK task.json")
    assert "augment" in result.stderr


def test_a_task_runs_from_the_zip_without_aiida(pyz, tmp_path):
    write(tmp_path / "frames.h5", [bulk("Cu", cubic=True)])
    task = {"frames": "frames.h5", "settings": {"copies": 2, "rattle": {}}, "seed": 1}
    (tmp_path / "task.json").write_text(json.dumps(task))
    code = f"""
import sys
sys.modules["aiida"] = None
sys.path.insert(0, {str(pyz)!r})
from aiida_alpot.kernel.__main__ import main
import aiida_alpot.kernel
assert aiida_alpot.kernel.__file__.startswith({str(pyz)!r})
raise SystemExit(main(["augment", "task.json"]))
"""
    result = run_python("-c", code, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "report.json").read_text())["results"]["n_frames"] == 3
    with Dataset.open(tmp_path / "augmented.h5") as dataset:
        assert len(dataset) == 3


def test_hidden_folders_of_other_tools_are_not_packed(copied_kernel):
    before = build_archive()
    (copied_kernel / "dataset" / ".mypy_cache").mkdir()
    (copied_kernel / "dataset" / ".mypy_cache" / "a.meta.json").write_text("{}")
    assert build_archive() == before


def test_an_old_python_reports_that_it_is_too_old(pyz, tmp_path):
    (tmp_path / "task.json").write_text("{}")
    pretend = "import runpy, sys; sys.version_info = (3, 6, 8); sys.argv[:2] = [sys.argv[1]]"
    run = f"{pretend}; runpy.run_path(sys.argv[0], run_name='__main__')"
    result = run_python("-c", run, pyz, "augment", tmp_path / "task.json", cwd=tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert result.returncode == 1
    assert (report["status"], report["package"]) == ("missing_package", "python>=3.11")
    assert "points at Python 3.6" in report["message"]
