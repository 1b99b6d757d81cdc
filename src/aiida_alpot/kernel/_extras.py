"""What a Python needs for which job, and errors that say what is missing and how to get it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Final

BASE: Final = ("ase>=3.26", "h5py>=3.10", "numpy>=1.26", "scipy>=1.12")
"""What every job needs; the same as in ``pyproject.toml``, where AiiDA comes on top."""
EXTRAS: Final[Mapping[str, tuple[str, ...]]] = {
    "mace": ("mace-torch>=0.3.15", "torch>=2.4"),
    "metatrain": ("metatrain>=2026.4", "metatomic-ase>=0.1"),
    "tblite": ("tblite>=0.5",),
    "soap": ("dscribe>=2.1",),
    "report": ("matplotlib>=3.8",),
}
"""What the extras of aiida-alpot bring; a compute node installs this, without AiiDA."""


class MissingPackageError(ImportError):
    """A package of an optional extra is not installed in the Python that runs the job."""

    def __init__(self, package: str, extra: str, detail: str) -> None:
        super().__init__(
            f"the package {package!r} cannot be imported ({detail}); "
            f"install it into the Python that runs this: {describe_install(extra)}"
        )
        self.package = package


def describe_install(extra: str) -> str:
    """Return the command that brings what an extra brings, also to a Python without AiiDA."""
    whole = f"'aiida-alpot[{extra}]'"
    if extra not in EXTRAS:
        return f"pip install {whole}"
    return f"pip install {_quoted(EXTRAS[extra])} (where AiiDA is wanted too: {whole})"


def describe_missing(error: ModuleNotFoundError) -> tuple[str, str]:
    """Return the package that an import did not find, and a message that says how to get it."""
    package = (error.name or "").partition(".")[0]
    known = {requirement.partition(">")[0] for requirement in BASE}
    install = f"pip install {_quoted(BASE)}" if package in known else f"pip install {package}"
    return package, f"{error}; install it into the Python that runs this, e.g. {install}"


def require(package: str, *, extra: str) -> Any:
    """Return the module *package*, imported now.

    :param extra: the extra of aiida-alpot that brings it.
    :raises MissingPackageError: if it, or a package that it imports, cannot be imported.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise MissingPackageError((error.name or package).partition(".")[0], extra, str(error)) from error
    except ImportError as error:
        raise MissingPackageError(package, extra, str(error)) from error


def _quoted(requirements: tuple[str, ...]) -> str:
    return " ".join(f"'{requirement}'" for requirement in requirements)
