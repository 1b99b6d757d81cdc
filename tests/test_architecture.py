"""The rings: who may import whom. Imports go to the same ring or a lower one."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "aiida_alpot"
RINGS = {
    "__init__": 0,
    "kernel": 0,
    "plugins": 1,
    "data": 1,
    "calculations": 1,
    "parsers": 1,
    "engines": 2,
    "protocols": 3,
    "workflows": 3,
    "report": 4,
    "cli": 4,
    "testing": 4,
}
FORBIDDEN_IN_KERNEL = ("aiida", "plumpy", "kiwipy", "click", "rich", "yaml")
LAZY_IN_KERNEL = (
    "torch",
    "mace",
    "e3nn",
    "sklearn",
    "numba",
    "matplotlib",
    "tblite",
    "matscipy",
    "metatomic",
    "dscribe",
    "pyxtal",
    "spglib",
)
NUMERICS = ("numpy", "scipy", "ase", "h5py", "torch")


def modules() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def room(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    return parts[0].removesuffix(".py")


def imports(path: Path, *, top_level_only: bool = False) -> Iterator[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    package = [*path.relative_to(ROOT.parent).with_suffix("").parts[:-1]]
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def is_within(name: str, packages: tuple[str, ...]) -> bool:
    return name.split(".", maxsplit=1)[0] in packages


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_to_the_same_ring_or_a_lower_one(path: Path) -> None:
    ring = RINGS[room(path)]
    for name in imports(path):
        if name.startswith("aiida_alpot."):
            target = name.split(".")[1]
            if target not in RINGS:  # a name of aiida_alpot/__init__.py
                continue
            assert RINGS[target] <= ring, f"{path.name} (ring {ring}) imports {name} (ring {RINGS[target]})"


@pytest.mark.parametrize("path", sorted((ROOT / "kernel").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_kernel_never_imports_aiida_and_heavy_packages_only_lazily(path: Path) -> None:
    for name in imports(path):
        assert not is_within(name, FORBIDDEN_IN_KERNEL), f"{path.name} imports {name}"
    for name in imports(path, top_level_only=True):
        assert not is_within(name, LAZY_IN_KERNEL), f"{path.name} imports {name} at module level"


@pytest.mark.parametrize("path", sorted((ROOT / "workflows").rglob("*.py")), ids=lambda p: p.name)
def test_workflows_hold_no_numerics(path: Path) -> None:
    for name in imports(path):
        assert not is_within(name, NUMERICS), f"{path.name} imports {name}"


def test_every_room_has_a_ring() -> None:
    rooms = {room(path) for path in modules()}
    assert rooms <= set(RINGS)


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT.parent)}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment, timeout=120
    )


def test_every_module_of_the_kernel_imports_without_aiida_and_torch() -> None:
    names = [
        ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted((ROOT / "kernel").rglob("*.py"))
    ]
    code = (
        "import sys\n"
        "for name in ('aiida', 'torch', 'mace', 'matplotlib', 'rich', 'click', 'yaml'): sys.modules[name] = None\n"
        f"import importlib\nfor name in {names!r}: importlib.import_module(name)\n"
    )
    done = run_python(code)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_needs_neither_profile_nor_torch() -> None:
    done = run_python(
        "import sys, aiida_alpot\n"
        "assert aiida_alpot.__version__\n"
        "assert 'aiida' not in sys.modules and 'torch' not in sys.modules\n"
    )
    assert done.returncode == 0, done.stderr


def test_the_plugins_import_without_a_profile_and_without_torch() -> None:
    done = run_python(
        "import sys\nsys.modules['torch'] = None; sys.modules['mace'] = None\n"
        "from importlib.metadata import entry_points\n"
        "for group in ('aiida.data', 'aiida.calculations', 'aiida.parsers', 'aiida.workflows', 'aiida.cmdline.data',\n"
        "              'aiida_alpot.label', 'aiida_alpot.train', 'aiida_alpot.explore', 'aiida_alpot.potentials'):\n"
        "    for point in entry_points(group=group):\n"
        "        if point.value.startswith('aiida_alpot.'): point.load()\n"
        "from aiida.manage import get_manager\n"
        "assert get_manager().get_profile() is None or not get_manager().profile_storage_loaded\n"
    )
    assert done.returncode == 0, done.stderr
