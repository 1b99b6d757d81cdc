"""From a few structures to an initial dataset: which manipulations follow each other, and what is told about them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from ase import Atoms

from aiida_alpot.kernel.augmentation.base import DroppedFrameError, NotApplicableError, clean_child
from aiida_alpot.kernel.augmentation.rattle import RattleSettings
from aiida_alpot.kernel.augmentation.registry import MANIPULATIONS
from aiida_alpot.kernel.augmentation.strain import StrainSettings
from aiida_alpot.kernel.augmentation.supercell import SupercellSettings
from aiida_alpot.kernel.augmentation.vacancy import VacancySettings, count_vacancies
from aiida_alpot.kernel.seeds import derive_seed
from aiida_alpot.kernel.settings import parse_settings

_RESOLUTION = 1e-8
"""Å: frames that differ by less are the same frame."""

MAX_COPIES: Final = 100_000
"""Most distorted frames of one input frame: all frames are held in memory, and each is to be labelled."""


@dataclass(frozen=True)
class AugmentSettings:
    """What is made of every input frame; a manipulation is switched on by giving its settings.

    :param keep_input: keep the undistorted frame (its supercell if there is one).
    :param copies: distorted frames per input; 20 make about a thousand of the 48 inputs in [TrainsPot].
    :param combined: apply strain and rattle to the same copy; otherwise each has its own *copies*.
    """

    keep_input: bool = True
    copies: int = 20
    combined: bool = True
    supercell: SupercellSettings | None = None
    strain: StrainSettings | None = None
    rattle: RattleSettings | None = None
    vacancy: VacancySettings | None = None

    def __post_init__(self) -> None:
        if self.copies < 0:
            raise ValueError(f"'copies' must not be negative, got {self.copies}")
        if self.copies > MAX_COPIES:
            raise ValueError(f"'copies' must be at most {MAX_COPIES} of each input frame, got {self.copies}")


@dataclass(frozen=True)
class AugmentResult:
    """The frames without labels, and a report that JSON can hold.

    Every frame has ``origin`` (e.g. ``input 3 > supercell 2x2x2 > strain > rattle``), ``group`` (its own, but that of
    the distorted frame for a frame with vacancies) and ``config_type`` (the user's, else the manipulations).

    :ivar report: ``n_input``, ``n_output``, ``n_duplicates``, ``made`` (frames per chain of manipulations), ``skipped``
        (per manipulation and reason: steps without meaning for a frame) and ``dropped`` (same: frames lost).
    """

    frames: list[Atoms]
    report: dict[str, Any]


@dataclass
class _Draft:
    """A frame under way: where it stands in the flow and what was done to it."""

    atoms: Atoms
    key: str
    origin: str
    steps: tuple[str, ...] = ()
    group: str = ""


@dataclass
class _Pipeline:
    """One run: settings, seed and the counts for the report."""

    settings: AugmentSettings
    seed: int
    skipped: Counter[tuple[str, str]] = field(default_factory=Counter)
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)

    def apply(self, name: str, draft: _Draft) -> _Draft | None:
        """Return the draft after one manipulation, unchanged if it has no meaning, ``None`` if the frame is lost."""
        rng = np.random.default_rng(derive_seed(self.seed, f"{name}/{draft.key}"))
        try:
            atoms, text, _ = MANIPULATIONS[name].function(draft.atoms, getattr(self.settings, name), rng)
        except NotApplicableError as reason:
            self.skipped[name, str(reason)] += 1
            return draft
        except DroppedFrameError as reason:
            self.dropped[name, str(reason)] += 1
            return None
        return _Draft(atoms, draft.key, f"{draft.origin} > {text}", (*draft.steps, name), draft.group)

    def base(self, index: int, atoms: Atoms) -> _Draft:
        """Return what is distorted: the input, or its supercell."""
        draft = _Draft(clean_child(atoms), str(index), f"input {index}")
        if self.settings.supercell is None:
            return draft
        return self.apply("supercell", draft) or draft

    def copies(self, base: _Draft) -> list[_Draft]:
        """Return the distorted copies of *base*, without those that nothing changed."""
        enabled = [name for name in ("strain", "rattle") if getattr(self.settings, name) is not None]
        chains = [enabled] if self.settings.combined else [[name] for name in enabled]
        drafts = []
        for chain in chains:
            for copy in range(self.settings.copies):
                draft: _Draft | None = _Draft(base.atoms, f"{base.key}/{copy}", base.origin, base.steps)
                for name in chain:
                    draft = self.apply(name, draft) if draft is not None else None
                if draft is not None and draft.steps != base.steps:
                    drafts.append(draft)
        return drafts

    def vacancies(self, parents: list[_Draft]) -> list[_Draft]:
        """Return frames with vacancies for an exact share of those parents that can have them.

        The parents are ranked by a random number of their own, so that one more parent does not reshuffle the rest.
        """
        settings = self.settings.vacancy
        if settings is None:
            return []
        able = []
        for parent in parents:
            try:
                count_vacancies(parent.atoms, settings)
            except NotApplicableError as reason:
                self.skipped["vacancy", str(reason)] += 1
            else:
                able.append(parent)
        ranks = [derive_seed(self.seed, f"vacancy-share/{'+'.join(item.steps)}/{item.key}") for item in able]
        n_chosen = round(settings.fraction * len(able))
        chosen = sorted(np.argsort(np.array(ranks), kind="stable")[:n_chosen].tolist())
        made = [self.apply("vacancy", able[index]) for index in chosen]
        return [draft for draft in made if draft is not None]


def augment(frames: Iterable[Atoms], settings: AugmentSettings | Mapping[str, Any], seed: int) -> AugmentResult:
    """Return the frames that the settings make of *frames*, in the order of the inputs.

    Inputs are repeated to supercells, which are then copied, strained and rattled; a share of the rattled frames
    (of the strained ones, or of the bases, if nothing is rattled) is copied once more with vacancies. Labels,
    constraints and book-keeping of the inputs are not carried over. Exact duplicates are removed. Every step of every
    frame has its own seed, ``derive_seed(seed, "<manipulation>/<input>/<copy>")``: switching a manipulation on does
    not change what the others draw.

    :param settings: or a mapping for :func:`~aiida_alpot.kernel.settings.parse_settings`.
    :raises ValueError: if a setting is wrong, or a frame is empty or not finite; the message names it.
    """
    if not isinstance(settings, AugmentSettings):
        settings = parse_settings(AugmentSettings, settings, "augment")
    pipeline = _Pipeline(settings, seed)
    bases, copies = [], []
    for index, atoms in enumerate(frames):
        _validate_input(index, atoms)
        bases.append(pipeline.base(index, atoms))
        copies.extend(pipeline.copies(bases[-1]))
    for draft in (*bases, *copies):
        draft.group = f"augment-{_structure_key(draft.atoms)[:16]}"
    parents = [draft for draft in copies if "rattle" in draft.steps] or copies or bases
    drafts = [*(bases if settings.keep_input else []), *copies, *pipeline.vacancies(parents)]
    unique = _without_duplicates(drafts)
    unique.sort(key=lambda draft: int(draft.key.partition("/")[0]))
    report = _report(pipeline, len(bases), len(drafts), unique)
    return AugmentResult([_finish(draft) for draft in unique], report)


def _validate_input(index: int, atoms: Atoms) -> None:
    if len(atoms) == 0 or not np.isfinite(atoms.positions).all():
        raise ValueError(f"input {index}: a frame needs atoms with finite positions")
    vectors = atoms.cell.array[np.asarray(atoms.pbc, dtype=bool)]
    if np.linalg.matrix_rank(vectors) < len(vectors):
        raise ValueError(f"input {index}: the vectors of the periodic axes do not span a cell: {vectors.tolist()}")


def _without_duplicates(drafts: list[_Draft]) -> list[_Draft]:
    """Return the first draft of every structure."""
    first: dict[str, _Draft] = {}
    for draft in drafts:
        first.setdefault(_structure_key(draft.atoms), draft)
    return list(first.values())


def _structure_key(atoms: Atoms) -> str:
    """Return a hash of species, positions, cell, periodicity, charge and initial moments."""
    digest = hashlib.sha256()
    moments = atoms.get_initial_magnetic_moments()
    for values in (atoms.positions, atoms.cell.array, moments, np.array(float(atoms.info.get("charge", 0.0)))):
        digest.update(np.round(np.nan_to_num(values) / _RESOLUTION).astype("<i8").tobytes())
    digest.update(atoms.numbers.astype("<i8").tobytes() + np.asarray(atoms.pbc, dtype="u1").tobytes())
    return digest.hexdigest()


def _finish(draft: _Draft) -> Atoms:
    """Return the frame with its book-keeping."""
    atoms = draft.atoms.copy()
    kind = str(atoms.info.get("config_type") or "") or "+".join(draft.steps) or "input"
    atoms.info.update(origin=draft.origin, group=draft.group, config_type=kind)
    return atoms


def _report(pipeline: _Pipeline, n_input: int, n_drafts: int, drafts: list[_Draft]) -> dict[str, Any]:
    made = Counter("+".join(draft.steps) or "input" for draft in drafts)
    return {
        "n_input": n_input,
        "n_output": len(drafts),
        "n_duplicates": n_drafts - len(drafts),
        "made": dict(sorted(made.items())),
        "skipped": _nested(pipeline.skipped),
        "dropped": _nested(pipeline.dropped),
    }


def _nested(counts: Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
    nested: dict[str, dict[str, int]] = {}
    for (name, reason), count in sorted(counts.items()):
        nested.setdefault(name, {})[reason] = count
    return nested
