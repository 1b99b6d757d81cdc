"""Which model files may be loaded here.

A model file is code: loading one runs what is in it. A file that a job of this machine made, or that the user handed
in by path, is trusted by its sha256. One that came in an imported archive is refused until the user says so.
"""

from __future__ import annotations

from pathlib import Path

from aiida.manage.configuration.settings import AiiDAConfigDir


def trust_model(sha256: str) -> None:
    """Allow the model file of this hash to be loaded by jobs of this AiiDA configuration."""
    folder = _folder()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / sha256).touch()


def is_trusted(sha256: str) -> bool:
    """Return whether the model file of this hash may be loaded."""
    return (_folder() / sha256).is_file()


def _folder() -> Path:
    return Path(AiiDAConfigDir.get()) / "alpot" / "trusted-models"
