"""From a few structures to an initial dataset: which manipulations follow each other, and what is told about them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ase import Atoms

from aiida_alpot.kernel.augmentation.base import Energy, copy_info
from aiida_alpot.kernel.augmentation.bases import Frames, input_ids, iterate_bases, validate_inputs
from aiida_alpot.kernel.augmentation.chain import iterate_copies, plan_chains
from aiida_alpot.kernel.augmentation.draft import Draft, Run
from aiida_alpot.kernel.augmentation.duplicates import name_group, structure_key
from aiida_alpot.kernel.augmentation.filters import Filters
from aiida_alpot.kernel.augmentation.registry import check_potential
from aiida_alpot.kernel.augmentation.report import Report
from aiida_alpot.kernel.augmentation.settings import AugmentSettings
from aiida_alpot.kernel.dataset.atoms import build_frame
from aiida_alpot.kernel.jsonio import plain
from aiida_alpot.kernel.settings import parse_settings


@dataclass(frozen=True)
class AugmentResult:
    """The frames without labels, and a report that JSON can hold.

    :ivar frames: as :func:`stream_augmented` yields them.
    :ivar report: ``n_input``, ``n_output``, ``n_duplicates``, ``made`` (frames per chain of manipulations), ``skipped``
        (per manipulation and reason: steps without meaning for a frame), ``dropped`` (same: frames lost), ``removed``
        (per filter and reason) and ``examples`` (the first frame that was removed for each reason).
    """

    frames: list[Atoms]
    report: dict[str, Any]


def augment(
    frames: Iterable[Atoms], settings: AugmentSettings | Mapping[str, Any], seed: int, energy: Energy | None = None
) -> AugmentResult:
    """Return the frames that the settings make of *frames*, and a report, see :func:`stream_augmented`.

    :param settings: or a mapping for :func:`~aiida_alpot.kernel.settings.parse_settings`.
    """
    if not isinstance(settings, AugmentSettings):
        settings = parse_settings(AugmentSettings, settings, "augment")
    report = Report()
    made = list(stream_augmented(list(frames), settings, seed, report, energy))
    return AugmentResult(made, report.to_dict())


def stream_augmented(
    frames: Frames, settings: AugmentSettings, seed: int, report: Report, energy: Energy | None = None
) -> Iterator[Atoms]:
    """Yield the frames that the settings make of *frames*, one after the other, so that memory does not grow.

    The bases are each input, then the shapes made of it (slabs, scans), and after the last input what is made of the
    elements alone (clusters, prototypes). A base gets its vacuum or its repeats, and is followed by its copies: each is
    given other elements, its atoms change places, and it is strained and rattled, as far as these are switched on. A
    copy is followed by its defective copies, which a share of the copies (rattled ones, if strained and rattled copies
    are not the same) has; a base without copies has them itself. Labels, constraints and book-keeping of the inputs are
    not carried over. What the filters object to is left out, and so are exact duplicates.

    Every frame has ``origin`` (e.g. ``input 3 > supercell 2x2x2 > strain > rattle``), ``config_type`` (the user's, else
    the manipulations), ``group`` (its own; that of the copy for a defective copy; one for all points of a scan),
    ``parent_index`` (of its input in *frames*, −1 if it is made of elements), ``parent_id`` (the same as the
    :meth:`~aiida_alpot.kernel.dataset.Dataset.frame_ids` of that input without labels, none if it is made of elements)
    and, if anything was done, ``parameters`` (JSON: what each manipulation used).

    Every step of every frame has its own seed, ``derive_seed(seed, "<manipulation>/<input>/<copy>")``: switching a
    manipulation on does not change what the others draw.

    :param report: is filled on the way.
    :param energy: of a potential, for the manipulations that need one.
    :raises ValueError: if a frame is empty or not finite, the message names it; if there is no energy and one is
        needed, or the other way round.
    """
    check_potential(settings, is_given=energy is not None, remedy="give 'energy', a function or an ASE calculator")
    validate_inputs(frames)
    report.n_input = len(frames)
    ids = input_ids(frames)
    filters = Filters(settings.filters, report)
    for draft in _iterate_drafts(frames, Run(settings, seed, report, energy)):
        if filters.accept(draft.atoms, draft.origin, is_drawn=draft.is_drawn, is_crowded=draft.is_crowded):
            report.n_output += 1
            report.made[draft.kind] += 1
            yield _finish(draft, ids)


def _iterate_drafts(frames: Frames, run: Run) -> Iterator[Draft]:
    """Yield everything that is made, in the order of the results."""
    chains = plan_chains(run) if run.settings.copies else []
    shares = {name: _Share(getattr(run.settings, name).fraction) for name in run.names("defect")}
    for base in iterate_bases(frames, run):
        if base.is_kept:
            yield base.draft
        if base.is_final:
            continue
        has_copies = False
        for chain in chains:
            for copy in iterate_copies(base.draft, chain, run):
                yield copy
                has_copies = True
                if chain is chains[-1]:
                    yield from _iterate_defects(copy, shares, run)
        if not has_copies:
            yield from _iterate_defects(base.draft, shares, run)


def _iterate_defects(parent: Draft, shares: Mapping[str, _Share], run: Run) -> Iterator[Draft]:
    """Yield the defective copies of a frame whose turn it is."""
    for name, share in shares.items():
        if not share.is_due():
            continue
        draft = run.apply(name, parent)
        if draft is parent:
            share.pass_over()
        elif draft is not None:
            yield draft._replace(group=name_group(structure_key(parent.atoms)))


class _Share:
    """An exact share of the frames that can be changed, spread evenly."""

    def __init__(self, fraction: float) -> None:
        self._fraction = fraction
        self._n_seen = self._n_taken = 0

    def is_due(self) -> bool:
        """Count a frame and return whether it is to be changed."""
        self._n_seen += 1
        is_due = math.floor(self._fraction * self._n_seen + 0.5 + 1e-9) > self._n_taken
        self._n_taken += is_due
        return is_due

    def pass_over(self) -> None:
        """Take the last frame back: it cannot be changed."""
        self._n_seen -= 1
        self._n_taken -= 1


def _finish(draft: Draft, ids: Sequence[str]) -> Atoms:
    """Return the frame with its book-keeping."""
    atoms = draft.atoms
    info = copy_info(atoms)
    info.update(
        origin=draft.origin,
        group=draft.group or name_group(structure_key(atoms)),
        config_type=str(info.get("config_type") or "") or draft.kind,
        parent_index=draft.parent,
    )
    if draft.parent >= 0:
        info["parent_id"] = ids[draft.parent]
    if draft.steps:
        info["parameters"] = json.dumps(draft.steps, default=plain)
    return build_frame(atoms.arrays, atoms.cell.array, atoms.pbc, info)
