"""Build an ASE calculator from plain data: the name of its class and the arguments of its constructor."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ase.calculators.calculator import BaseCalculator, Calculator

from aiida_alpot.kernel._extras import MissingPackageError, describe_install

_EXTRAS = {"tblite": "tblite", "mace": "mace", "torch": "mace", "metatomic": "metatrain", "metatomic_ase": "metatrain"}


class MissingCalculatorPackageError(MissingPackageError):
    """The package a calculator comes from is not installed in the Python that runs the job."""

    def __init__(self, package: str, calculator: str) -> None:
        extra = _EXTRAS.get(package.partition(".")[0])
        how = f": {describe_install(extra)}" if extra else ""
        ImportError.__init__(
            self, f"the calculator {calculator!r} needs the package {package!r}; install it into this Python{how}"
        )
        self.package = package


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

    :raises MissingCalculatorPackageError: if its package, or one that it imports, is not installed.
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


def split_path(path: str) -> tuple[str, str]:
    """Return module and attribute of ``"package.module:Name"`` or ``"package.module.Name"``.

    :raises ValueError: if the path has another form.
    """
    module, separator, name = path.partition(":") if ":" in path else path.rpartition(".")
    parts = [*module.split("."), *name.split(".")]
    if not separator or not all(part.isidentifier() for part in parts):
        raise ValueError(f"expected 'package.module:Name' or 'package.module.Name', got {path!r}")
    return module, name


def import_object(path: str) -> Any:
    """Return what the path names, see :func:`split_path`.

    :raises MissingCalculatorPackageError: if a package is not installed.
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
        raise MissingCalculatorPackageError(top, path) from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise ValueError(f"{path!r}: the module {module_name!r} has no {name!r}")
        found = getattr(found, part)
    return found


def _build(path: str, parameters: Mapping[str, Any]) -> Any:
    maker = import_object(path)
    if not callable(maker):
        raise TypeError(f"{path!r} is a {type(maker).__name__}, expected a class or a function")
    arguments = {str(key): _resolve(value) for key, value in parameters.items()}
    try:
        return maker(**arguments)
    except ImportError as error:
        missing = (error.name or str(error)).partition(".")[0]
        raise MissingCalculatorPackageError(missing, path) from error
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
