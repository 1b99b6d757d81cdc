"""Settings are dataclasses inside and plain mappings at the border: this module is the border.

:func:`parse_settings` turns a mapping (from JSON, YAML or an AiiDA ``Dict``) into a dataclass. A key that does not
exist is an error that names the nearest one that does, a value of the wrong type one that says what was expected.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import types
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")


class SettingsError(ValueError):
    """A setting is unknown, missing, of the wrong type or out of range; the message names it."""


def unknown_key_message(key: str, valid: Iterable[str], where: str) -> str:
    """Return the message for a key that does not exist, with the nearest valid one.

    :param where: what the settings are for, e.g. ``"explore.settings"``.
    """
    names = sorted(valid)
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"valid keys: {', '.join(names)}"
    return f"{where}: unknown key {key!r}; {hint}"


def parse_settings(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Build the dataclass *cls* from *values*, checking every name and type.

    :param cls: a dataclass; its ``__post_init__`` checks ranges and raises ``ValueError``.
    :param values: the settings; missing keys take the default of the field.
    :param where: what the settings are for, used in messages.
    :raises SettingsError: if a key is unknown, a required one is missing, or a value does not fit.
    """
    if not isinstance(values, Mapping):
        raise SettingsError(f"{where}: expected a mapping, got {values!r:.80}")
    hints = get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cast(Any, cls)) if field.init}
    for key in values:
        if key not in fields:
            raise SettingsError(unknown_key_message(str(key), fields, where))
    for name, field in fields.items():
        no_default = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if no_default and name not in values:
            raise SettingsError(f"{where}: {name!r} is required")
    arguments = {key: convert(value, hints[key], f"{where}.{key}") for key, value in values.items()}
    try:
        return cls(**arguments)
    except SettingsError:
        raise
    except ValueError as error:
        raise SettingsError(f"{where}: {error}") from error


def check_device(device: str) -> None:
    """Refuse a device that torch does not have a name for.

    :raises SettingsError: naming what was given.
    """
    if not re.fullmatch(r"cpu|mps|(cuda|xpu)(:\d+)?", device):
        raise SettingsError(f"device: expected cpu, cuda, cuda:0, mps or xpu, got {device!r}")


def settings_to_dict(settings: Any) -> dict[str, Any]:
    """Return a dataclass of settings as a mapping that survives a round trip through JSON."""
    return cast(dict[str, Any], _plain(dataclasses.asdict(settings)))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def convert(value: Any, expected: Any, where: str) -> Any:
    """Return *value* as the type *expected*.

    :raises SettingsError: naming *where*, what was expected and what was got.
    """
    origin = get_origin(expected)
    if expected is Any:
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(value, get_args(expected), where)
    if origin is Literal:
        if value not in get_args(expected):
            raise SettingsError(f"{where}: expected one of {list(get_args(expected))}, got {value!r}")
        return value
    if origin in (list, tuple):
        return _convert_sequence(value, expected, where)
    if dataclasses.is_dataclass(expected) or (isinstance(origin, type) and issubclass(origin, Mapping)):
        return _convert_mapping(value, expected, where)
    return _convert_scalar(value, expected, where)


def _convert_mapping(value: Any, expected: Any, where: str) -> Any:
    if not isinstance(value, Mapping):
        raise SettingsError(f"{where}: expected a mapping, got {value!r}")
    if dataclasses.is_dataclass(expected):
        return parse_settings(cast(type[Any], expected), value, where)
    item = get_args(expected)[1]
    return {str(key): convert(entry, item, f"{where}.{key}") for key, entry in value.items()}


def _convert_union(value: Any, options: tuple[Any, ...], where: str) -> Any:
    if value is None and type(None) in options:
        return None
    problems: list[str] = []
    for option in options:
        if option is type(None):
            continue
        try:
            return convert(value, option, where)
        except SettingsError as error:
            problems.append(str(error))
    # of a number or a mapping, the last option tells what is wrong inside the mapping
    raise SettingsError(problems[-1] if isinstance(value, Mapping) else problems[0])


def _convert_sequence(value: Any, expected: Any, where: str) -> Any:
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise SettingsError(f"{where}: expected a list, got {value!r}")
    items = list(value)
    arguments = get_args(expected)
    if get_origin(expected) is list:
        return [convert(item, arguments[0], f"{where}[{i}]") for i, item in enumerate(items)]
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(convert(item, arguments[0], f"{where}[{i}]") for i, item in enumerate(items))
    if len(items) != len(arguments):
        raise SettingsError(f"{where}: expected {len(arguments)} values, got {len(items)}")
    pairs = zip(items, arguments, strict=True)
    return tuple(convert(item, kind, f"{where}[{i}]") for i, (item, kind) in enumerate(pairs))


def _convert_scalar(value: Any, expected: Any, where: str) -> Any:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if expected is bool and isinstance(value, bool):
        return value
    if expected is int and is_number and (isinstance(value, int) or value.is_integer()):
        return int(value)
    if expected is float and is_number:
        return _convert_float(value, where)
    if expected is str and isinstance(value, str):
        return value
    raise SettingsError(f"{where}: expected {getattr(expected, '__name__', expected)}, got {value!r}")


def _convert_float(value: float, where: str) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise SettingsError(f"{where}: expected a finite number, got {value!r}")
    return number


def merge_recursively(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return *base* with *changes* on top; mappings are merged key by key, None removes a key."""
    merged = dict(base)
    for key, value in changes.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            below = merged.get(key)
            merged[key] = merge_recursively(below if isinstance(below, Mapping) else {}, value)
        else:
            merged[key] = value
    return merged
