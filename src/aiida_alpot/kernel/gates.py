"""Property gates: what a potential must get right, beside its errors, before a campaign counts as converged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiida_alpot.kernel.settings import SettingsError, convert


@dataclass(frozen=True)
class Gate:
    """Bounds of one property, in its own unit: around a reference, or from *min* to *max*.

    :param reference: value wanted, with *tolerance*.
    :param tolerance: largest distance from *reference*.
    :param min: smallest value, no bound if None.
    :param max: largest value, no bound if None.
    """

    reference: float | None = None
    tolerance: float | None = None
    min: float | None = None
    max: float | None = None

    def __post_init__(self) -> None:
        around = (self.reference, self.tolerance)
        if around.count(None) == 1:
            raise ValueError("'reference' and 'tolerance' belong together; give both")
        if (None in around) == (self.min is None and self.max is None):
            raise ValueError("expected 'reference' and 'tolerance', or 'min', 'max' or both of these")
        if self.tolerance is not None and self.tolerance <= 0.0:
            raise ValueError(f"'tolerance' must be positive, got {self.tolerance}")
        if self.min is not None and self.max is not None and self.max < self.min:
            raise ValueError(f"'max' {self.max} is below 'min' {self.min}")

    @property
    def bounds(self) -> tuple[float | None, float | None]:
        """Smallest and largest value, None where there is no bound."""
        if self.reference is not None and self.tolerance is not None:
            return self.reference - self.tolerance, self.reference + self.tolerance
        return self.min, self.max


@dataclass(frozen=True)
class Verdict:
    """What became of one gate.

    :ivar value: of the property, None if it could not be computed.
    :ivar error: half of its error bar, 0 without one.
    :ivar min: smallest value that passes, None without a bound.
    :ivar max: largest value that passes, None without a bound.
    :ivar passed: whether the whole error bar is within the bounds.
    """

    value: float | None
    error: float
    min: float | None
    max: float | None
    passed: bool

    def __str__(self) -> str:
        value = "could not be computed" if self.value is None else f"is {self.value:.6g}"
        error = f" ± {self.error:.2g}" if self.error else ""
        bounds = [f"at least {self.min:.6g}"] if self.min is not None else []
        bounds += [f"at most {self.max:.6g}"] if self.max is not None else []
        return f"{value}{error}, wanted {' and '.join(bounds)}"


def judge_properties(gates: Mapping[str, Gate], properties: Mapping[str, Any]) -> dict[str, Verdict]:
    """Return the verdict on every gate, by the name of the property.

    :param properties: a number by name, None for one that could not be computed, or a mapping of ``value`` and
        ``error``, half of an error bar. What else it holds is for people, and properties without a gate are not judged.
    :raises ValueError: if a property of a gate is missing, or what is given for it is no number.
    """
    return {name: _judge(gate, *read_property(properties, name)) for name, gate in gates.items()}


def read_property(properties: Mapping[str, Any], name: str) -> tuple[float | None, float]:
    """Return value and error of one property, see :func:`judge_properties`.

    :raises ValueError: if it is missing, or no number.
    """
    if name not in properties:
        raise ValueError(f"properties: {name!r} is missing, which a gate judges; got {', '.join(properties) or 'none'}")
    found = properties[name]
    where = f"properties.{name}"
    if not isinstance(found, Mapping):
        return convert(found, float | None, where), 0.0
    if "value" not in found:
        raise SettingsError(f"{where}: expected a number, or 'value' and 'error', got {found!r:.80}")
    error = convert(found.get("error"), float | None, f"{where}.error") or 0.0
    if error < 0.0:
        raise SettingsError(f"{where}.error must not be negative, got {error}")
    return convert(found["value"], float | None, f"{where}.value"), error


def _judge(gate: Gate, value: float | None, error: float) -> Verdict:
    low, high = gate.bounds
    is_low = value is None or (low is not None and value - error < low)
    is_high = value is None or (high is not None and value + error > high)
    return Verdict(value, error, low, high, passed=not is_low and not is_high)
