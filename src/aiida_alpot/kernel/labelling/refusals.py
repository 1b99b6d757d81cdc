"""Settings of a code with which it runs and gives a wrong label, or none: which values, and what to do instead."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from aiida_alpot.kernel.settings import SettingsError

TRUE: Final = frozenset({"true", ".true.", "t", ".t.", "on", "yes"})
"""How the inputs of codes write that something is so, in lower case."""


@dataclass(frozen=True)
class Rule:
    """Which values of a key are right.

    :param accepts: whether one is; a value that it cannot read (``TypeError``, ``ValueError``) is not.
    :param remedy: why others are wrong, and what to do instead.
    """

    accepts: Callable[[Any], bool]
    remedy: str

    def is_broken_by(self, value: Any) -> bool:
        """Return whether a value is wrong."""
        try:
            return not self.accepts(value)
        except (TypeError, ValueError):
            return True


def within(low: float, high: float) -> Callable[[Any], bool]:
    """Return whether a number is neither smaller than *low* nor larger than *high*; NaN and text are no such number."""
    return lambda value: not isinstance(value, bool) and low <= float(value) <= high


def among(*words: str) -> Callable[[Any], bool]:
    """Return whether a value is one of some words or numbers, written in capitals or not."""
    return lambda value: str(value).strip().lower() in words


def equal_to(*numbers: float) -> Callable[[Any], bool]:
    """Return whether a value is one of some numbers."""
    return lambda value: not isinstance(value, bool) and float(value) in numbers


def is_false(value: Any) -> bool:
    """Return whether a value says that something is not so."""
    return str(value).strip().lower() not in TRUE and value != 1


def find_refusal(values: Mapping[str, Any], rules: Mapping[str, Rule], where: str = "") -> str | None:
    """Return what is wrong with the first setting that breaks its rule, with the remedy, None if none does.

    :param values: by key, in any case; None leaves the key to the code and is right.
    :param rules: by key in lower case.
    :param where: put in front of the key in the message, e.g. ``"incar."``.
    """
    for key, value in values.items():
        rule = rules.get(key.lower())
        if rule is not None and value is not None and rule.is_broken_by(value):
            return f"{where}{key} cannot be {value!r}: {rule.remedy}"
    return None


def refuse(values: Mapping[str, Any], rules: Mapping[str, Rule], where: str = "") -> None:
    """Refuse settings of which one breaks its rule.

    :raises SettingsError: see :func:`find_refusal`.
    """
    refusal = find_refusal(values, rules, where)
    if refusal is not None:
        raise SettingsError(refusal)
