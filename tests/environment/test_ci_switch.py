"""In CI a missing package fails, elsewhere its tests are skipped by name."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"
MODULE = "import pytest\npytest.importorskip('no_such_plugin')\n"
TEST = "import pytest\n\ndef test_it():\n    pytest.importorskip('no_such_plugin')\n"


@pytest.mark.parametrize(("in_ci", "expected"), [(True, "1 failed, 1 error"), (False, "2 skipped")])
def test_a_missing_plugin_fails_in_ci_and_is_skipped_elsewhere(tmp_path: Path, in_ci: bool, expected: str) -> None:
    shutil.copy(CONFTEST, tmp_path)
    (tmp_path / "test_module.py").write_text(MODULE)
    (tmp_path / "test_single.py").write_text(TEST)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--continue-on-collection-errors"]
    environment = {name: value for name, value in os.environ.items() if name != "CI"} | ({"CI": "1"} if in_ci else {})
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert expected in done.stdout, done.stdout
    assert ("no_such_plugin" in done.stdout) or not in_ci
