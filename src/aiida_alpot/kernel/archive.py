"""Pack the kernel into a zip that is the same byte for byte wherever it is made.

The zip is an input of every job, so that a changed kernel changes the hash of the job and the provenance holds the code
that ran. Names are sorted, times fixed, line ends normalised and nothing is compressed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

FILENAME = "alpot-kernel.pyz"
_PACKAGE = "aiida_alpot"
_EPOCH = (1980, 1, 1, 0, 0, 0)
_MAIN = b"""# also an old Python must get as far as the report that says so
import json
import os
import sys

if sys.version_info < (3, 11) and len(sys.argv) == 3:
    found = "%d.%d" % sys.version_info[:2]
    message = "the code points at Python %s; make an environment with Python 3.11 or newer" % found
    report = {"status": "missing_package", "package": "python>=3.11", "message": message, "python": found}
    with open(os.path.join(os.path.dirname(os.path.abspath(sys.argv[2])), "report.json"), "w") as handle:
        json.dump(report, handle)
    sys.exit(1)

from aiida_alpot.kernel.__main__ import main

raise SystemExit(main())
"""


def build_archive(adapters: Mapping[str, str] | None = None) -> bytes:
    """Return the kernel as an executable zip.

    :param adapters: potential engines of third parties, ``{engine: "module:Class"}``; the source of each module is
        packed too, under its own dotted name.
    :raises ValueError: if a compiled module would have to be packed.
    """
    root = Path(__file__).resolve().parents[1]
    files: dict[str, bytes] = {"__main__.py": _MAIN, f"{_PACKAGE}/__init__.py": _read(root / "__init__.py")}
    for path in _sources(root / "kernel"):
        files[f"{_PACKAGE}/{path.relative_to(root).as_posix()}"] = _read(path)
    modules = [_third_party(target.partition(":")[0]) for target in (adapters or {}).values()]
    for name, content in [entry for module in modules for entry in module.items()] + _empty_parents(modules):
        files.setdefault(name, content)
    if adapters:
        files[f"{_PACKAGE}/kernel/adapters.json"] = json.dumps(dict(adapters), sort_keys=True).encode()
    return _zip(files)


def archive_sha256(archive: bytes) -> str:
    """Return the sha256 of an archive, by which equal kernels are known to be equal."""
    return hashlib.sha256(archive).hexdigest()


def _sources(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.suffix in {".so", ".pyd", ".dylib"}:
            raise ValueError(f"the kernel must be pure Python to travel with a job, found {path.name}")
        is_cache = any(part == "__pycache__" or part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and path.suffix in {".py", ".json", ".yaml"} and not is_cache:
            yield path


def _read(path: Path) -> bytes:
    return path.read_bytes().replace(b"\r\n", b"\n")


def _third_party(module: str) -> dict[str, bytes]:
    """Return the name in the archive and the source of *module*."""
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise ValueError(f"the adapter module {module!r} must be an importable pure Python file")
    ending = ".py" if spec.submodule_search_locations is None else "/__init__.py"
    return {module.replace(".", "/") + ending: _read(Path(spec.origin))}


def _empty_parents(modules: Iterable[Mapping[str, bytes]]) -> list[tuple[str, bytes]]:
    """Return an empty package for every folder above the modules."""
    folders = {parent.as_posix() for module in modules for name in module for parent in PurePosixPath(name).parents}
    return [(f"{folder}/__init__.py", b"") for folder in sorted(folders - {"."})]


def _zip(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, date_time=_EPOCH)
            info.create_system = 3
            info.external_attr = 0o644 << 16
            archive.writestr(info, files[name])
    return buffer.getvalue()
