"""What a labelling run is asked for, and the fingerprint that tells labels of different settings apart."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ase.data import atomic_numbers

from aiida_alpot.kernel._extras import split_path
from aiida_alpot.kernel.potentials.calculators import CalculatorSpec

FROM_INFO: Final = "atoms.info"
"""Value of ``charge_parameter`` for calculators that read ``atoms.info["charge"]`` themselves."""


@dataclass(frozen=True)
class LabelSettings:
    """How frames are labelled.

    :param calculator: class of an ASE calculator, ``"package.module:Name"``.
    :param parameters: keyword arguments of its constructor, plain data.
    :param n_workers: frames labelled at the same time, each in a process of its own.
    :param threads_per_worker: what OMP_NUM_THREADS and its relatives are set to in a worker.
    :param walltime_s: seconds after which the run stops and packs what there is; the caller leaves the margin that
        packing needs. None for no limit.
    :param frame_timeout_s: seconds after which one frame is given up. None for no limit.
    :param isolated: label in separate processes, so that a calculator that crashes or hangs costs one frame. False
        labels in this process, one frame after the other, without timeout.
    :param retry_failed: label frames again that an earlier run with these settings failed to label.
    :param max_failed_fraction: share of all frames; when more than that have failed, no other is begun.
    :param charge_parameter: name of the calculator's parameter for the total charge, with dots where it is nested
        (``"input_data.system.tot_charge"``), or ``"atoms.info"`` if it reads the charge of a frame itself. Without it a
        charged frame fails: it would be labelled as neutral.
    :param magnetic_moments: starting moments by element, μB; frames with moments of their own keep these, isolated
        atoms follow Hund's rule. None to start from those of the frames alone.
    :param vacuum: put frames that are not periodic into a box with so much between their images, Å, as codes with plane
        waves need it; None to leave them as they are. Such frames get no stress.
    :param cubic: make that box as codes want it that remove the interaction of images: a cube for molecules, and at
        least twice as long as what it holds.
    """

    calculator: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    n_workers: int = 1
    threads_per_worker: int = 1
    walltime_s: float | None = None
    frame_timeout_s: float | None = None
    isolated: bool = True
    retry_failed: bool = False
    max_failed_fraction: float = 1.0
    charge_parameter: str | None = None
    magnetic_moments: Mapping[str, float] | None = None
    vacuum: float | None = None
    cubic: bool = False

    def __post_init__(self) -> None:
        split_path(self.calculator)
        for name in ("n_workers", "threads_per_worker"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("walltime_s", "frame_timeout_s", "vacuum"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")
        if not 0 <= self.max_failed_fraction <= 1:
            raise ValueError(f"max_failed_fraction must be between 0 and 1, got {self.max_failed_fraction}")
        if not self.isolated and (self.n_workers > 1 or self.frame_timeout_s is not None):
            raise ValueError("isolated must be true for n_workers > 1 or a frame_timeout_s")
        for symbol in self.magnetic_moments or {}:
            if symbol not in atomic_numbers:
                raise ValueError(f"magnetic_moments: {symbol!r} is not a chemical symbol")
        if self.cubic and self.vacuum is None:
            raise ValueError("cubic is of the box that vacuum makes: give vacuum")
        _canonical(self.parameters)

    @property
    def spec(self) -> CalculatorSpec:
        """The calculator alone."""
        return CalculatorSpec(self.calculator, self.parameters)


def label_fingerprint(settings: LabelSettings) -> str:
    """Return 16 hexadecimal digits that are equal for labels of equal settings.

    They stand for the calculator, its parameters and the version of the package it comes from (None if it has no
    version). How the work is distributed does not enter, nor does a parameter ``command``: how a program is started.
    """
    content: dict[str, Any] = {
        "engine": "ase",
        "calculator": ":".join(split_path(settings.calculator)),
        "parameters": _without_commands(settings.parameters),
        "version": package_version(settings.calculator.replace(":", ".").partition(".")[0]),
    }
    for name in ("charge_parameter", "magnetic_moments", "vacuum"):
        if getattr(settings, name) is not None:
            content[name] = getattr(settings, name)
    if settings.cubic:
        content["cubic"] = True
    return fingerprint_of(content)


def _without_commands(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_commands(item) for key, item in value.items() if key != "command"}
    return [_without_commands(item) for item in value] if isinstance(value, (list, tuple)) else value


def fingerprint_of(content: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits of the sha256 of a canonical JSON text.

    :param content: all that changes a label, plain data.
    """
    return hashlib.sha256(_canonical(content).encode()).hexdigest()[:16]


def package_version(package: str) -> str | None:
    """Return the installed version of an importable top-level package, without importing it."""
    names = [package, *importlib.metadata.packages_distributions().get(package, [])]
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _canonical(content: Mapping[str, Any]) -> str:
    try:
        return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"parameters must be plain data (JSON, no NaN or infinity): {error}") from error
