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
    "augment": ("spglib>=2.7",),
    "random": ("pyxtal>=1.1",),
    "report": ("matplotlib>=3.8",),
}
"""What the extras of aiida-alpot bring; a compute node installs this, without AiiDA."""
_EXTRA_OF: Final = {
    "tblite": "tblite",
    "mace": "mace",
    "torch": "mace",
    "metatomic": "metatrain",
    "metatomic_ase": "metatrain",
}


class MissingPackageError(ImportError):
    """A package of an optional extra is not installed in the Python that runs the job."""

    def __init__(self, package: str, extra: str, detail: str) -> None:
        super().__init__(
            f"the package {package!r} cannot be imported ({detail}); "
            f"install it into the Python that runs this: {describe_install(extra)}"
        )
        self.package = package


class MissingObjectPackageError(MissingPackageError):
    """The package of what the settings name by its path is not installed in the Python that runs the job.

    :param user: what needs it, e.g. ``"the calculator 'tblite.ase:TBLite'"``.
    """

    def __init__(self, package: str, user: str) -> None:
        extra = _EXTRA_OF.get(package.partition(".")[0])
        how = f": {describe_install(extra)}" if extra else ""
        ImportError.__init__(self, f"{user} needs the package {package!r}; install it into this Python{how}")
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


def split_path(path: str) -> tuple[str, str]:
    """Return module and attribute of ``"package.module:Name"`` or ``"package.module.Name"``.

    :raises ValueError: if the path has another form.
    """
    module, separator, name = path.partition(":") if ":" in path else path.rpartition(".")
    parts = [*module.split("."), *name.split(".")]
    if not separator or not all(part.isidentifier() for part in parts):
        raise ValueError(f"expected 'package.module:Name' or 'package.module.Name', got {path!r}")
    return module, name


def import_object(path: str, user: str) -> Any:
    """Return what the path names, see :func:`split_path`.

    :param user: what needs it, for the message, e.g. ``"the calculator 'tblite.ase:TBLite'"``.
    :raises MissingObjectPackageError: if a package is not installed.
    :raises ValueError: if the package is there but not the module, or the module but not the name.
    """
    module_name, name = split_path(path)
    try:
        found = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        top = missing.partition(".")[0]
        if missing != top and module_name.startswith(missing):
            raise ValueError(f"{path!r}: the package {top!r} has no module {missing!r}") from error
        raise MissingObjectPackageError(top, user) from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise ValueError(f"{path!r}: the module {module_name!r} has no {name!r}")
        found = getattr(found, part)
    return found


def _quoted(requirements: tuple[str, ...]) -> str:
    return " ".join(f"'{requirement}'" for requirement in requirements)
