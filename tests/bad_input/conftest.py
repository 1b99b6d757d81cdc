"""What the catalogue of bad input shares: good files to damage, and what counts as an answer.

A case is named ``kind-NN what is bad``. An answer is good if it is an error in the three languages of the house, names
the input and says what to do; a traceback, a hang or a wrong number is not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write as ase_write

from aiida_alpot.data.potential import PotentialData
from aiida_alpot.kernel.dataset import write


def frames(n_frames: int = 3) -> list[Atoms]:
    """Return labelled copper cells of four atoms, each its own group."""
    rng = np.random.default_rng(0)
    found = []
    for k in range(n_frames):
        atoms = bulk("Cu", cubic=True)
        atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
        labels = {"forces": rng.normal(size=(4, 3)), "stress": 0.01 * rng.normal(size=6)}
        atoms.calc = SinglePointCalculator(atoms, energy=-1.0 - k, **labels)
        atoms.info["group"] = f"g{k}"
        found.append(atoms)
    return found


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The same three frames as a list and as the content of files: ``h5``, ``xyz`` (text) and ``db``."""
    folder = tmp_path_factory.mktemp("good")
    write(folder / "good.h5", frames())
    ase_write(folder / "good.xyz", frames())
    ase_write(folder / "good.db", frames())
    return SimpleNamespace(
        frames=frames,
        h5=(folder / "good.h5").read_bytes(),
        xyz=(folder / "good.xyz").read_text(),
        db=(folder / "good.db").read_bytes(),
    )


@pytest.fixture(scope="session")
def refused() -> Callable[..., str]:
    """Return a function that calls something and gives the refusal, which must hold all the words."""

    def call(function: Callable[[], Any], words: Sequence[str]) -> str:
        with pytest.raises((ValueError, TypeError, FileNotFoundError)) as caught:
            function()
        message = str(caught.value)
        assert_says(message, words)
        return message

    return call


def assert_says(message: str, words: Sequence[str]) -> None:
    """Check that a message is for people: all the words, no stack, not the bare text of another error."""
    assert "Traceback" not in message
    for word in words:
        assert word in message, f"{word!r} is not in {message!r}"


@pytest.fixture(scope="session")
def says() -> Callable[[str, Sequence[str]], None]:
    """Return :func:`assert_says`."""
    return assert_says


@pytest.fixture
def plant(tmp_path: Path) -> Callable[[str, bytes | str], Path]:
    """Return a function that writes a file of the user: ``plant("bad.xyz", content)``."""

    def make(name: str, content: bytes | str) -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return make


@pytest.fixture
def potentials(aiida_profile: Any, tmp_path: Path) -> dict[str, PotentialData]:
    """A committee of two that is never loaded."""
    nodes = {}
    for name in ("m000", "m001"):
        (tmp_path / name).write_text(name)
        nodes[name] = PotentialData.from_file(tmp_path / name, engine="mace", symbols=["Cu"], cutoff=4.0).store()
    return nodes
