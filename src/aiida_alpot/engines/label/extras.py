"""Packages that only some engines need."""

from __future__ import annotations

from importlib.util import find_spec


def require(module: str, extra: str) -> None:
    """Refuse to go on without a package.

    :param module: its import name.
    :param extra: of this package, that brings it.
    :raises ValueError: with the command that installs it.
    """
    if find_spec(module) is None:
        raise ValueError(f"the label engine {extra!r} needs the package {module}; pip install 'aiida-alpot[{extra}]'")
