"""Import a package of an extra where it is used, with an error that says how to get it."""

from __future__ import annotations

import importlib
from typing import Any


class MissingPackageError(ImportError):
    """A package of an optional extra is not installed in the Python that runs the job."""

    def __init__(self, package: str, extra: str, detail: str) -> None:
        super().__init__(
            f"the package {package!r} cannot be imported ({detail}); "
            f"install it into this Python, e.g. pip install 'aiida-alpot[{extra}]'"
        )
        self.package = package


def require(package: str, *, extra: str) -> Any:
    """Return the module *package*, imported now.

    :param extra: the extra of aiida-alpot that brings it.
    :raises MissingPackageError: if it cannot be imported.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingPackageError(package, extra, str(error)) from error
