"""Which features: the one place that tells kinds of the potential, SOAP and functions of the user apart."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, cast

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from aiida_alpot.kernel._extras import import_object, split_path
from aiida_alpot.kernel.features.rows import CheckedFeatures, FeatureFunction, RowFunction, code_of_user
from aiida_alpot.kernel.features.soap import Soap, SoapSettings, import_dscribe
from aiida_alpot.kernel.potentials.base import BATCH_SIZE, Features, Potential
from aiida_alpot.kernel.potentials.registry import feature_member
from aiida_alpot.kernel.settings import SettingsError, parse_settings, settings_to_dict

SOAP: Final = "soap"
KINDS: Final = ("last_layer", "invariants", SOAP)
"""Kinds by name; an adapter of a potential may know more."""
SORTED_DISTANCES: Final = "sorted_distances"
"""Features of whole frames, which ``evaluate.settings.features`` knows beside those of atoms."""


@dataclass(frozen=True)
class FeatureSpec:
    """Which features, as plain data.

    :param kind: ``"soap"``, ``"module:name"`` for a function of the user (see docs/developer/add-features.md), or what
        a potential is asked for: ``"last_layer"``, ``"invariants"``, or what else its adapter knows.
    :param parameters: of :class:`~.soap.SoapSettings`, or keyword arguments of the function.
    :param setting: where *kind* was set, for messages; the parameters stand beside it as ``feature_parameters``.
    :raises SettingsError: if the kind is misspelt or a parameter does not fit.
    """

    kind: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    setting: str = "calibrate.settings.feature_kind"

    def __post_init__(self) -> None:
        if self.kind == SOAP:
            self._soap_settings()
        elif ":" in self.kind:
            try:
                split_path(self.kind)
            except ValueError as error:
                raise SettingsError(f"{self.setting}: {error}") from error
        else:
            self._check_kind_of_potential()

    @property
    def name(self) -> str:
        """The setting and its value, for messages."""
        return f"{self.setting} {self.kind!r}"

    @property
    def is_of_potential(self) -> bool:
        """Whether a potential gives these features."""
        return self.kind != SOAP and ":" not in self.kind

    def known_to(self, potentials: Sequence[Potential]) -> bool:
        """Return whether one of *potentials* has these features, or none is needed for them."""
        return not self.is_of_potential or any(self.kind in potential.feature_kinds for potential in potentials)

    def complete(self, numbers: Iterable[int]) -> FeatureSpec:
        """Return what computes the same columns for whatever frames come later.

        :param numbers: atomic numbers that occur; the species of SOAP where none are named.
        """
        if self.kind != SOAP:
            return self
        settings = self._soap_settings()
        species = settings.species or tuple(chemical_symbols[number] for number in sorted({int(n) for n in numbers}))
        try:
            return replace(self, parameters=settings_to_dict(replace(settings, species=species)))
        except ValueError as error:
            raise SettingsError(f"{self._where}: {error}") from error

    def require(self) -> None:
        """Import what the features need, so that a job finds out before it computes anything.

        :raises MissingPackageError: if a package is not installed.
        :raises ValueError: if the module of the user has no such function, or its class refuses the parameters.
        """
        if self.kind == SOAP:
            import_dscribe()
        elif ":" in self.kind:
            self._build_function()

    def build(self, potentials: Sequence[Potential] = (), batch_size: int = BATCH_SIZE) -> FeatureFunction:
        """Return the function that computes the features.

        :param potentials: the committee, whose first member that has features of this kind gives them; not used by
            features without a potential.
        :param batch_size: frames evaluated at once.
        :raises MissingPackageError: as :meth:`require`.
        :raises ValueError: as :meth:`require`, or if no species are known yet.
        """
        if self.kind == SOAP:
            return CheckedFeatures(self._build_soap(), self.name, batch_size)
        if ":" in self.kind:
            return CheckedFeatures(self._build_function(), self.name, batch_size)
        if not potentials:
            raise ValueError(f"{self.name} is a kind of a potential, and there is none")
        member = feature_member(potentials, self.kind)

        def of_potential(frames: Sequence[Atoms]) -> Features:
            return member.features(frames, kind=self.kind, batch_size=batch_size)

        return of_potential

    def require_known(self, features: Features, frames: Sequence[Atoms]) -> Features:
        """Return *features* if all are finite: what they are not defined for spans nothing and is at no distance.

        :param frames: the frames that ``features.frame_index`` counts.
        :raises ValueError: naming the first atom that is not known, and the remedy.
        """
        unknown = np.flatnonzero(~np.isfinite(features.values).all(axis=1))
        if unknown.size:
            k, symbol = int(features.frame_index[unknown[0]]), chemical_symbols[features.species[unknown[0]]]
            species = f"{self._where}.species: name all that occur, or none to have them found"
            remedy = species if self.kind == SOAP else "leave the frame out, or use other features"
            raise ValueError(
                f"{self.name} is not defined for {symbol} or what is around it in {frames[k].symbols}; {remedy}"
            )
        return features

    @property
    def _where(self) -> str:
        return f"{self.setting.rpartition('.')[0]}.feature_parameters"

    def _check_kind_of_potential(self) -> None:
        if self.kind == SORTED_DISTANCES:
            raise SettingsError(f"{self.setting}: {self.kind!r} are of whole frames, expected features of atoms")
        known = (*KINDS, SORTED_DISTANCES)
        near = difflib.get_close_matches(self.kind.lower(), known, n=1, cutoff=0.7) if self.kind not in KINDS else []
        if near or not self.kind:
            hint = f"did you mean {near[0]!r}?" if near else f"expected {', '.join(KINDS)} or 'module:function'"
            raise SettingsError(f"{self.setting}: unknown kind {self.kind!r}; {hint}")
        if self.parameters:
            raise SettingsError(f"{self._where}: features of a potential ({self.kind}) take no parameters")

    def _soap_settings(self) -> SoapSettings:
        return parse_settings(SoapSettings, self.parameters, self._where)

    def _build_soap(self) -> Soap:
        try:
            return Soap(self._soap_settings())
        except SettingsError:
            raise
        except ValueError as error:
            raise SettingsError(f"{self._where}: {error}") from error

    def _build_function(self) -> RowFunction:
        found = import_object(self.kind, self.name)
        if not callable(found):
            raise ValueError(f"{self.name} is a {type(found).__name__}, expected a function or a class")
        if not inspect.isclass(found):
            return partial(found, **self.parameters)
        with code_of_user(f"{self.name} refused its feature_parameters"):
            made = found(**self.parameters)
        if not callable(made):
            raise ValueError(f"{self.name} makes a {type(made).__name__} that cannot be called with frames")
        return cast(RowFunction, made)
