"""A frame under way, and one manipulation of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms

from aiida_alpot.kernel.augmentation.base import Done, DroppedFrameError, Energy, NotApplicableError, Outcome
from aiida_alpot.kernel.augmentation.registry import MANIPULATIONS, Stage, names_of
from aiida_alpot.kernel.augmentation.report import Report
from aiida_alpot.kernel.augmentation.settings import AugmentSettings
from aiida_alpot.kernel.seeds import derive_seed
from aiida_alpot.kernel.units import FloatArray


class Draft(NamedTuple):
    """A frame under way: where it stands in the flow and what was done to it.

    :ivar key: names it in seeds: the number of an input, or of a manipulation and what it made, then of the copy.
    :ivar origin: the same in words.
    :ivar parent: number of the input that it derives from, −1 if none.
    :ivar steps: the manipulations so far, with the parameters that each used.
    :ivar group: of the frame that it is a defective copy of, or of the series of a scan, empty for any other.
    :ivar is_crowded: whether atoms are closer than the filters allow, None if that is not known.
    """

    atoms: Atoms
    key: str
    origin: str
    parent: int
    steps: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
    group: str = ""
    is_crowded: bool | None = None

    @property
    def kind(self) -> str:
        """The manipulations in one word."""
        return "+".join(self.steps) or "input"

    @property
    def is_drawn(self) -> bool:
        """Whether every atom was displaced at random, from a generator that no other draft has."""
        return float(self.steps.get("rattle", {}).get("scale", 0.0)) > 0.0

    def after(self, name: str, outcome: Done, atoms: Atoms | None = None, key: str = "") -> Draft:
        """Return the draft after a manipulation, with its atoms and another key if given."""
        return self._replace(
            atoms=self.atoms if atoms is None else atoms,
            key=key or self.key,
            origin=f"{self.origin} > {outcome.text}" if self.origin else outcome.text,
            steps={**self.steps, name: outcome.parameters},
            is_crowded=None,
        )


@dataclass(frozen=True)
class Run:
    """One augmentation: settings, seed, report, and the energy of a potential if there is one."""

    settings: AugmentSettings
    seed: int
    report: Report = field(default_factory=Report)
    energy: Energy | None = None

    def names(self, stage: Stage) -> list[str]:
        """Return the manipulations of a stage that are switched on, in their order."""
        return [name for name in names_of(stage) if getattr(self.settings, name) is not None]

    def rng(self, name: str, key: str) -> np.random.Generator:
        """Return the generator of one manipulation of one draft."""
        return np.random.default_rng(derive_seed(self.seed, f"{name}/{key}"))

    def perform(self, name: str, material: Any, key: str, row: FloatArray | None = None) -> Any:
        """Return what the function of a manipulation makes of a frame, or of elements.

        :param row: of what was drawn for all copies together.
        """
        manipulation = MANIPULATIONS[name]
        energy = (self.energy,) if manipulation.takes_energy else ()
        drawn = () if row is None else (row,)
        return manipulation.function(material, getattr(self.settings, name), self.rng(name, key), *drawn, *energy)

    def apply(self, name: str, draft: Draft, row: FloatArray | None = None) -> Draft | None:
        """Return the draft after one manipulation, unchanged if it has no meaning, ``None`` if the frame is lost."""
        try:
            atoms, *said = self.perform(name, draft.atoms, draft.key, row)
        except (NotApplicableError, DroppedFrameError) as reason:
            return self.note(name, draft, reason)
        return self.note(name, draft, Done(*said), atoms)

    def note(self, name: str, draft: Draft, outcome: Outcome, atoms: Atoms | None = None) -> Draft | None:
        """Count an outcome and return the draft as :meth:`apply` does."""
        if isinstance(outcome, Done):
            return draft.after(name, outcome, atoms)
        self.report.count(name, outcome)
        return draft if isinstance(outcome, NotApplicableError) else None
