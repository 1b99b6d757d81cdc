"""Settings from the command line: YAML files and ``KEY=VALUE`` pairs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml


def read_mapping(path: Path | None) -> dict[str, Any]:
    """Return the mapping in a YAML file, an empty one without a file.

    :raises ValueError: if the file holds something else.
    """
    if path is None:
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected inputs by name, got {type(content).__name__}")
    return content


def set_pairs(values: dict[str, Any], pairs: Iterable[str], option: str) -> dict[str, Any]:
    """Return *values* with ``KEY=VALUE`` pairs on top; dots in a key lead into mappings, values are YAML.

    :param option: of the command line, for messages.
    :raises ValueError: naming a pair that is not one.
    """
    result = dict(values)
    for pair in pairs:
        key, equals, text = pair.partition("=")
        *path, name = key.split(".")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(f"{option}: the value of {pair!r} is no YAML") from error
        if not (equals and name and all(path)):
            raise ValueError(f"{option}: expected KEY=VALUE, e.g. max_wallclock_seconds=3600, got {pair!r}")
        inner = result
        for part in path:
            found = inner.get(part, {})
            if not isinstance(found, dict):
                raise ValueError(f"{option}: {pair!r} leads into {part!r}, which is no mapping but {found!r}")
            inner[part] = dict(found)
            inner = inner[part]
        inner[name] = value
    return result
