"""JSON files that a reader never sees half written and a database can store."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def plain(value: Any) -> Any:
    """Return *value* made of dicts, lists, strings, numbers and None only; NaN and infinities become None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy is not imported: a job that lacks it writes its report too
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write *content*, made :func:`plain`, under a temporary name and rename it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(plain(content), indent=1, sort_keys=True), encoding="utf-8")
    temporary.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """Return the mapping in a JSON file.

    :raises ValueError: if the file does not hold a mapping, or a number in it is not finite.
    """
    return parse_json(path.read_bytes(), path.name)


def parse_json(text: bytes, name: str) -> dict[str, Any]:
    """Return the mapping in a JSON text.

    :param name: of the text, for messages.
    :raises ValueError: if it is no JSON in UTF-8 or no mapping, or a number in it is not finite.
    """
    content = json.loads(text.decode("utf-8"), parse_constant=_refuse_constant)
    if not isinstance(content, dict):
        raise ValueError(f"{name}: expected a JSON object, got {type(content).__name__}")
    return content


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number that JSON knows; give a finite one or null")
