"""Selected frames that are too large to label are replaced by pieces around the atoms that are worth a label."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from ase import Atoms

from aiida_alpot.kernel.cutouts import CutoutSettings, choose_centres, core_of, cut_out, keep_core
from aiida_alpot.kernel.dataset.ids import structure_id
from aiida_alpot.kernel.dataset.schema import SPLITS
from aiida_alpot.kernel.features import FeatureFunction
from aiida_alpot.kernel.potentials import Potential, predict_committee
from aiida_alpot.kernel.seeds import derive_seed
from aiida_alpot.kernel.uncertainty import (
    PROPERTIES,
    ActiveSet,
    LocalActiveSet,
    UncertaintyModel,
    disagreement,
    find_failures,
)
from aiida_alpot.kernel.units import FloatArray

FRAME: Final = "cut_from"
"""Column of pieces: the structure id of the frame that they were cut from."""
CENTRE: Final = "cut_centre"
"""Column of pieces: which atom of that frame is their first."""
_OF_THE_FRAME: Final = ("grade", *(f"disagreement_{name}" for name in PROPERTIES))
"""Columns of an explored frame that say nothing of a piece of it."""


@dataclass(frozen=True, kw_only=True)
class CuttingSettings(CutoutSettings):
    """Which selected frames are cut, and how; the rest is that of :class:`~aiida_alpot.kernel.cutouts.CutoutSettings`.

    :param max_atoms: most atoms of a frame that can be labelled, and of a piece.
    """

    max_atoms: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_atoms < 1:
            raise ValueError(f"max_atoms must be positive, got {self.max_atoms}")


@dataclass(frozen=True)
class Judge:
    """What tells the atoms of a frame that are worth a label.

    :param gamma_select: grade above which an atom is worth a piece of its own.
    :param at_random: take an atom at random from every frame, as from those for control.
    """

    potentials: Sequence[Potential]
    model: UncertaintyModel
    gamma_select: float | None = None
    at_random: bool = False

    @property
    def limit(self) -> float | None:
        """What :meth:`rate` gives for atoms that are worth a piece of their own; None: only the worst of a frame is."""
        return self.model.thresholds.get("force_max") if self.model.active_set is None else self.gamma_select

    @cached_property
    def features(self) -> FeatureFunction:
        """What the grades of the model are computed from."""
        return self.model.feature_spec.build(self.potentials)

    def rate(self, atoms: Atoms) -> FloatArray:
        """Return grade, or without an active set force disagreement in eV/Å, of each atom; −∞ off the core."""
        if self.model.active_set is not None:
            values = self.model.grade(self.features([atoms]))
        else:
            values = disagreement(predict_committee(self.potentials, [atoms])).force_atom
        return np.where(core_of([atoms]), values, -np.inf)

    def describe(self, value: float) -> str:
        """Return a value of :meth:`rate` in words."""
        name, unit = ("force disagreement", " eV/Å") if self.model.active_set is None else ("grade", "")
        return f"{name} {value:.4g}{unit}"

    def copy_active_set(self) -> ActiveSet | LocalActiveSet | None:
        """Return an active set that pieces can be taken into, if grades have a limit and there is one."""
        found = self.model.active_set
        return None if found is None or self.limit is None else found.copy()


@dataclass(frozen=True)
class _Site:
    """An atom to cut around: number of its frame, of the atom, and what it is rated; NaN if it was drawn."""

    frame: int
    centre: int
    value: float

    @property
    def is_drawn(self) -> bool:
        """Whether the atom was drawn at random."""
        return math.isnan(self.value)

    def order(self) -> float:
        """Return a number that is the smaller the sooner the atom has its turn."""
        return -math.inf if self.is_drawn else -self.value


@dataclass(frozen=True)
class Cut:
    """What became of selected frames.

    :ivar frames: those that can be labelled as they are, and pieces in the place of the others.
    :ivar report: for JSON. ``n_large`` frames had too many atoms, ``n_cut`` of them gave ``n_pieces``. Further atoms
        were worth a piece, but it was labelled already (``n_known``), held nothing new beside the others
        (``n_redundant``) or could not be had (``n_refused``). ``left_out`` tells why a frame gave none, by its id.
    """

    frames: list[Atoms]
    report: dict[str, Any]


def cut_large_frames(
    frames: Sequence[Atoms],
    settings: CuttingSettings,
    judge: Judge,
    budget: int,
    seed: int,
    known_ids: Collection[str] = (),
) -> Cut:
    """Replace frames that are too large to label by pieces.

    Every such frame gives the piece around its worst atom. What is left of the budget goes to further atoms above the
    limit of the judge that lie in the core of no piece yet, the worst of all frames first; with an active set, not to
    those that are known once the cores of the pieces before are in it. A control frame gives one piece, around an atom
    drawn at random: the environments of the frame are then judged as they occur.

    :param frames: selected frames, with their columns.
    :param budget: most frames and pieces together.
    :param seed: of the draws.
    :param known_ids: structure ids of what is labelled already.
    """
    large = {k: structure_id(atoms) for k, atoms in enumerate(frames) if len(atoms) > settings.max_atoms}
    sites = [_find_sites(k, frames[k], identity, settings, judge, seed) for k, identity in large.items()]
    first, others = [found[0] for found in sites], [site for found in sites for site in found[1:]]
    cutter = _Cutter(settings, judge, set(known_ids))
    for site in [*sorted(first, key=_Site.order), *sorted(others, key=_Site.order)]:
        if len(frames) - len(large) + cutter.n_pieces >= budget:
            break
        cutter.cut(site, frames[site.frame], large[site.frame])
    spent = f"the budget of {budget} was spent on others"
    left_out = {identity: cutter.reasons.get(k, spent) for k, identity in large.items() if k not in cutter.pieces}
    report = {
        "n_large": len(large),
        "n_cut": len(cutter.pieces),
        "n_pieces": cutter.n_pieces,
        **{f"n_{name}": cutter.counts[name] for name in ("known", "redundant", "refused")},
        "left_out": left_out,
    }
    chosen = [cutter.pieces.get(k, []) if k in large else [atoms] for k, atoms in enumerate(frames)]
    return Cut([atoms for part in chosen for atoms in part], report)


def count_frames(frames: Sequence[Atoms]) -> dict[str, Any]:
    """Return the counts in the report of a selection that change with its frames."""
    splits = [atoms.info["split"] for atoms in frames]
    control = [atoms.info["group"] for atoms in frames if atoms.info["control"]]
    return {
        "n_selected": len(frames),
        "n_control": len(control),
        **{f"n_{name}": splits.count(name) for name in SPLITS if name},
        "control_groups": sorted(set(control)),
    }


def _find_sites(k: int, atoms: Atoms, identity: str, settings: CuttingSettings, judge: Judge, seed: int) -> list[_Site]:
    """Return the atoms of frame *k* to cut around, the worst one first."""
    if judge.at_random or atoms.info["control"]:
        rng = np.random.default_rng(derive_seed(seed, f"cut/{identity}"))
        return [_Site(k, int(rng.choice(np.flatnonzero(core_of([atoms])))), math.nan)]
    values = judge.rate(atoms)
    centres = [] if judge.limit is None else choose_centres(atoms, values, judge.limit, settings.core_radius)
    return [_Site(k, centre, float(values[centre])) for centre in centres or [int(np.argmax(values))]]


class _Cutter:
    """Cuts one piece after the other, and remembers what there is.

    :ivar pieces: by the number of the frame that they come from.
    :ivar reasons: why an atom of a frame gave no piece, by the number of the frame; the first one of each.
    :ivar counts: of atoms that gave none.
    """

    def __init__(self, settings: CuttingSettings, judge: Judge, known_ids: set[str]) -> None:
        self._settings = settings
        self._judge = judge
        self._known_ids = known_ids
        self._active_set = judge.copy_active_set()
        self.pieces: dict[int, list[Atoms]] = {}
        self.reasons: dict[int, str] = {}
        self.counts: Counter[str] = Counter()

    @property
    def n_pieces(self) -> int:
        """Number of pieces of all frames."""
        return sum(map(len, self.pieces.values()))

    def cut(self, site: _Site, atoms: Atoms, identity: str) -> None:
        """Cut around one atom, unless that cannot be done or is worth nothing.

        :param identity: structure id of the frame.
        """
        name = f"{atoms.symbols[site.centre]} {site.centre}"
        try:
            piece = cut_out(atoms, site.centre, self._settings)
        except ValueError as error:
            self._refuse(site, "refused", str(error))
            return
        found = self._find_fault(piece, site)
        if found is not None:
            self._refuse(site, found[0], f"the piece around {name} {found[1]}")
            return
        for column in _OF_THE_FRAME:
            piece.info.pop(column, None)
        why = "drawn at random" if site.is_drawn else self._judge.describe(site.value)
        reason = f"{atoms.info['selection_reason']}; cut around {name}, {why}"
        piece.info.update({FRAME: identity, CENTRE: site.centre, "selection_reason": reason})
        self._known_ids.add(structure_id(piece))
        self.pieces.setdefault(site.frame, []).append(piece)

    def _refuse(self, site: _Site, kind: str, reason: str) -> None:
        self.counts[kind] += 1
        self.reasons.setdefault(site.frame, reason)

    def _find_fault(self, piece: Atoms, site: _Site) -> tuple[str, str] | None:
        """Return why a piece is not to be labelled: a kind, and in words. One that is takes its core into the set."""
        if len(piece) > self._settings.max_atoms:
            limit = f"more than {self._settings.max_atoms}; lower core_radius or reach"
            return "refused", f"has {len(piece)} atoms, {limit}"
        if structure_id(piece) in self._known_ids:
            return "known", "is labelled already"
        failure = str(find_failures(predict_committee(self._judge.potentials, [piece]))[0])
        if failure:
            return "refused", f"has a prediction that is not finite: {failure}"
        return None if self._is_new(piece, site) else ("redundant", "holds nothing new beside the others")

    def _is_new(self, piece: Atoms, site: _Site) -> bool:
        """Return whether the active set does not know the core yet, which was extrapolated to; it does then."""
        limit = self._judge.limit
        if self._active_set is None or limit is None or not site.value > limit:
            return True
        core = keep_core(self._judge.features([piece]), [piece])
        if float(self._active_set.grade(core).max()) <= max(limit, self._active_set.known_grade):
            return False
        self._active_set.absorb(core)
        return True
