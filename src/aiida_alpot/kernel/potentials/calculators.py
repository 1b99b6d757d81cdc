"""Build an ASE calculator from plain data: the name of its class and the arguments of its constructor."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ase.calculators.calculator import BaseCalculator, Calculator

from aiida_alpot.kernel._extras import MissingObjectPackageError, import_object, split_path


@dataclass(frozen=True)
class CalculatorSpec:
    """An ASE calculator as plain data.

    :param calculator: where its class (or a function that returns one) is: ``"package.module:Name"`` or
        ``"package.module.Name"``.
    :param parameters: keyword arguments. A mapping with exactly the keys ``calculator`` and ``parameters`` is built
        first, in lists too: that is how a ``SumCalculator`` or an ``EspressoProfile`` is written.
    """

    calculator: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        split_path(self.calculator)


def build_calculator(spec: CalculatorSpec) -> Calculator:
    """Return a new calculator.

    :raises MissingObjectPackageError: if its package, or one that it imports, is not installed.
    :raises ValueError: if the module has no such name, the constructor refuses the parameters, or one of them is a
        typing error.
    :raises TypeError: if what is built is not an ASE calculator.
    """
    calculator = _build(spec.calculator, spec.parameters)
    is_calculator = isinstance(calculator, BaseCalculator) or hasattr(calculator, "calculation_required")
    if not is_calculator or inspect.isclass(calculator):
        raise TypeError(f"{spec.calculator!r} gives a {type(calculator).__name__}, which is not an ASE calculator")
    _check_typing_errors(spec, getattr(calculator, "default_parameters", {}))
    return calculator


def _check_typing_errors(spec: CalculatorSpec, known: Mapping[str, Any]) -> None:
    """Refuse what is nearly a parameter of the calculator: many keep unknown ones and do nothing with them."""
    for key in spec.parameters:
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.8) if key not in known else []
        if near and near[0] not in spec.parameters:
            raise ValueError(f"{spec.calculator!r}: the parameter {key!r} is not known; did you mean {near[0]!r}?")


def _build(path: str, parameters: Mapping[str, Any]) -> Any:
    user = f"the calculator {path!r}"
    maker = import_object(path, user)
    if not callable(maker):
        raise TypeError(f"{path!r} is a {type(maker).__name__}, expected a class or a function")
    arguments = {str(key): _resolve(value) for key, value in parameters.items()}
    try:
        return maker(**arguments)
    except ImportError as error:
        missing = (error.name or str(error)).partition(".")[0]
        raise MissingObjectPackageError(missing, user) from error
    except Exception as error:
        # whatever a constructor raises, what the user can change are the parameters
        given = ", ".join(sorted(arguments)) or "none"
        raise ValueError(f"{path!r} refused its parameters ({given}): {type(error).__name__}: {error}") from error


def _resolve(value: Any) -> Any:
    if isinstance(value, Mapping):
        if set(value) == {"calculator", "parameters"}:
            return _build(value["calculator"], value["parameters"])
        return {key: _resolve(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_resolve(item) for item in value]
    return value
