"""Find engines by entry point, so that a third party adds one file and one entry point."""

from __future__ import annotations

import difflib
from typing import Any, Literal

from aiida.plugins.entry_point import get_entry_point_names, load_entry_point

Kind = Literal["label", "train", "explore", "potentials"]


def known_engines(kind: Kind) -> list[str]:
    """Return the names of the engines of one kind, sorted."""
    return sorted(get_entry_point_names(f"aiida_alpot.{kind}"))


def load_engine(kind: Kind, name: str) -> Any:
    """Return the engine *name* of one kind.

    :raises ValueError: if there is no such engine; the message names the nearest.
    """
    names = known_engines(kind)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
        raise ValueError(f"there is no {kind} engine {name!r}; {hint}")
    return load_entry_point(f"aiida_alpot.{kind}", name)
