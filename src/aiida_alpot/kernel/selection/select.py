"""Choose the frames of one iteration: uncertain ones to train on, random ones to be judged by."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from aiida_alpot.kernel.defaults import CONTROL_SHARE
from aiida_alpot.kernel.seeds import derive_seed
from aiida_alpot.kernel.selection.absorbing import grade_limit
from aiida_alpot.kernel.selection.context import AtomFeatures, PickContext, Picks
from aiida_alpot.kernel.selection.distance import thin
from aiida_alpot.kernel.selection.flags import Flags, Limit, above_upper, flag
from aiida_alpot.kernel.selection.registry import Strategy, get_strategy
from aiida_alpot.kernel.selection.splits import (
    CONTROL_SPLITS,
    ControlDraw,
    GroupSplits,
    assign_training,
    check_fixed_splits,
    draw_control,
)
from aiida_alpot.kernel.selection.table import CandidateTable
from aiida_alpot.kernel.uncertainty.active_set import ActiveSet
from aiida_alpot.kernel.uncertainty.local import LocalActiveSet
from aiida_alpot.kernel.units import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class Selection:
    """The frames to label, in the order of the candidates.

    :ivar indices: rows of the table, ascending, shape (n_selected,).
    :ivar reasons: per selected frame: the limits it exceeds, the grade at which an active set took it in,
        ``control``, or the name of the strategy.
    :ivar control: which selected frames belong to the random control share, shape (n_selected,).
    :ivar split: ``train``, ``validation``, ``calibration`` or ``test`` per selected frame.
    :ivar report: counts, for JSON. ``flagged`` counts healthy candidates per criterion that the dataset does not hold,
        before de-duplication, budget and upper bounds, as the definition of convergence wants it; ``n_flagged`` those
        above any limit. Of limits that
        differ by candidate, ``limits`` holds the smallest.
    """

    indices: IntArray
    reasons: tuple[str, ...]
    control: BoolArray
    split: tuple[str, ...]
    report: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.indices)


def select(
    candidates: CandidateTable,
    strategy: str,
    budget: int,
    seed: int,
    *,
    thresholds: Mapping[str, Limit],
    gamma_select: float | None = None,
    control_share: float = CONTROL_SHARE,
    validation_share: float = 0.0,
    known_ids: Collection[str] = (),
    min_distance: float | None = None,
    upper: Mapping[str, float] | None = None,
    allow_unhealthy: bool = False,
    training_features: FloatArray | None = None,
    active_set: ActiveSet | LocalActiveSet | None = None,
    atom_features: AtomFeatures | None = None,
    fixed_splits: Mapping[str, str] | None = None,
    n_control_groups_before: int = 0,
    control_candidates: BoolArray | None = None,
) -> Selection:
    """Return which candidates are labelled.

    Nothing flagged is a success: the selection then holds control frames only. Frames of one group are never on both
    sides of training and held-out data: nothing is trained on that comes from the group of a control frame, and
    validation frames come from whole groups of the rest.

    :param strategy: a name in :data:`~aiida_alpot.kernel.selection.registry.STRATEGIES`.
    :param budget: most frames selected, control frames included.
    :param thresholds: limit of the disagreement per property, e.g. ``UncertaintyModel.thresholds``; a number, or one
        for each candidate.
    :param gamma_select: limit of the extrapolation grade; a strategy that chooses by grade has one always, which flags
        what it takes.
    :param control_share: share of the selection, and of the groups, that is drawn from all healthy candidates, not only
        from the uncertain ones. At least ten frames, or a quarter of a small budget, and at most half of the budget.
    :param validation_share: share of the other frames and groups.
    :param known_ids: ids of structures that the dataset holds already.
    :param min_distance: frames of one group closer than this in their features count as duplicates.
    :param upper: multiples of the thresholds above which a frame is not trained on, but counted.
    :param allow_unhealthy: train on flagged frames of unhealthy trajectories too; control frames are healthy always.
    :param training_features: features of the training set, shape (n, n_features), to keep a distance from.
    :param active_set: of the training atoms, for strategies that choose by grade; it is not changed.
    :param atom_features: per-atom features of the candidates at some rows, for the same.
    :param fixed_splits: splits of groups from earlier iterations, fixed for life.
    :param n_control_groups_before: control groups of earlier iterations; calibration and test alternate on from there.
    :param control_candidates: which rows may become control frames if they are healthy, shape (n_frames,): those that
        were sampled regularly and not for being uncertain. All if None.
    :raises ValueError: if an argument is out of range or features are missing; the message names it.
    """
    _check_arguments(budget, control_share, validation_share, min_distance)
    chosen_strategy = get_strategy(strategy)
    fixed = dict(fixed_splits or {})
    check_fixed_splits(fixed)
    if chosen_strategy.needs_active_set:
        gamma_select = grade_limit(gamma_select, active_set)
    flags = flag(candidates, thresholds, gamma_select)
    beyond = above_upper(candidates, thresholds, upper or {})
    sieve = _sift(candidates, flags, chosen_strategy, known_ids, beyond, min_distance, allow_unhealthy)

    population = sieve.fresh & candidates.healthy & _control_mask(candidates, control_candidates)
    context = PickContext(flags.limits, training_features, active_set, atom_features)
    worth = _find_worth(candidates, chosen_strategy, sieve, control_share, budget, context, seed)
    drawn = _draw_control(candidates, population, worth, budget, control_share, fixed, n_control_groups_before, seed)
    control = np.array(sorted(drawn.rows), dtype=np.int64)
    trainable = sieve.thinned & ~_is_held_out(candidates, drawn, fixed)
    picks, groups = _select_training(
        candidates, chosen_strategy, trainable, budget - len(control), validation_share, fixed, context, seed
    )
    result = _assemble(candidates, flags, control, picks, {**drawn.groups.split, **groups.split}, strategy)
    report = {
        "strategy": strategy,
        "budget": budget,
        "control_excluded_groups": drawn.spared,
        **_count_candidates(candidates, flags, sieve.fresh, known_ids),
        **_count_sifted(sieve, flags, trainable),
        **_count_selected(candidates, result),
    }
    return replace(result, report=report)


def _check_arguments(budget: int, control_share: float, validation_share: float, min_distance: float | None) -> None:
    if budget < 0:
        raise ValueError(f"the budget must not be negative, got {budget}")
    for name, share in (("control_share", control_share), ("validation_share", validation_share)):
        if not 0.0 <= share < 1.0:
            raise ValueError(f"{name!r} must lie in [0, 1), got {share}")
    if min_distance is not None and not min_distance > 0.0:
        raise ValueError(f"'min_distance' must be positive, got {min_distance}")


def _fresh(candidates: CandidateTable, known_ids: Collection[str]) -> BoolArray:
    """Return which rows are the first of their structure and new to the dataset; a healthy row comes first."""
    fresh = np.zeros(len(candidates), dtype=bool)
    order = np.argsort(~candidates.healthy, kind="stable")
    _, first = np.unique(candidates.structure_id[order], return_index=True)
    fresh[order[first]] = True
    known = np.array(sorted(known_ids), dtype=np.str_)
    return np.asarray(fresh & ~np.isin(candidates.structure_id, known))


@dataclass(frozen=True, eq=False)
class _Sieve:
    """What is left of the candidates, masks of shape (n_frames,).

    :ivar fresh: the first of their structure and new to the dataset.
    :ivar usable: fresh, and healthy unless unhealthy ones are allowed.
    :ivar beyond: above an upper bound.
    :ivar pool: usable, below the upper bounds, and what the strategy chooses from.
    :ivar thinned: the pool without near duplicates.
    """

    fresh: BoolArray
    usable: BoolArray
    beyond: BoolArray
    pool: BoolArray
    thinned: BoolArray


def _sift(
    candidates: CandidateTable,
    flags: Flags,
    strategy: Strategy,
    known_ids: Collection[str],
    beyond: BoolArray,
    min_distance: float | None,
    allow_unhealthy: bool,
) -> _Sieve:
    """Return which candidates are worth training on.

    :param beyond: which candidates are above an upper bound, shape (n_frames,).
    """
    fresh = _fresh(candidates, known_ids)
    usable = fresh if allow_unhealthy else fresh & candidates.healthy
    pool = usable & ~beyond & (flags.any if strategy.pool == "flagged" else candidates.healthy)
    thinned = pool if min_distance is None else thin(candidates, pool, min_distance)
    return _Sieve(fresh, usable, beyond, pool, thinned)


def _rng(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng(derive_seed(seed, f"selection/{name}"))


def _share_of(share: float, n: int) -> int:
    """Return a share of *n* frames, rounded, but at least one if there are two."""
    return max(1, round(share * n)) if share > 0.0 and n >= 2 else 0


def _control_mask(candidates: CandidateTable, mask: BoolArray | None) -> BoolArray:
    if mask is None:
        return np.ones(len(candidates), dtype=bool)
    if np.shape(mask) != (len(candidates),):
        raise ValueError(f"'control_candidates' has shape {np.shape(mask)}, expected {len(candidates)} rows")
    return np.asarray(mask, dtype=bool)


def _find_worth(
    candidates: CandidateTable,
    strategy: Strategy,
    sieve: _Sieve,
    control_share: float,
    budget: int,
    context: PickContext,
    seed: int,
) -> BoolArray:
    """Return which candidates are worth training on, shape (n_frames,), by which control frames are counted.

    A strategy that chooses by grade leaves most of its pool: what it takes is known only when it has chosen, without
    control frames.
    """
    if not strategy.needs_active_set or control_share == 0.0:
        return sieve.thinned
    picks = strategy.pick(candidates, np.flatnonzero(sieve.thinned), budget, _rng(seed, "foreseen"), context)
    return np.isin(np.arange(len(candidates)), picks.rows)


def _control_size(share: float, budget: int, n_worth: int, n_population: int) -> int:
    """Return the number of control frames: a share of the selection that is to be expected, within bounds.

    :param n_worth: candidates worth training on: with few of them the budget is not spent.
    :param n_population: candidates that may be control frames.
    """
    if share == 0.0 or budget < 2 or n_population == 0:
        return 0
    n_expected = min(budget, math.ceil(n_worth / (1.0 - share)))
    fewest = min(10, max(1, budget // 4))
    return min(max(round(share * n_expected), fewest), max(1, budget // 2))


def _draw_control(
    candidates: CandidateTable,
    population: BoolArray,
    worth: BoolArray,
    budget: int,
    share: float,
    fixed: Mapping[str, str],
    n_groups_before: int,
    seed: int,
) -> ControlDraw:
    size = _control_size(share, budget, int(worth.sum()), int(population.sum()))
    if size == 0:
        return ControlDraw([], GroupSplits({}), [])
    rows = np.flatnonzero(population)
    group_of: dict[int, str] = dict(zip(rows.tolist(), candidates.group[rows].tolist(), strict=True))
    trainable: list[str] = np.unique(candidates.group[worth]).tolist()
    return draw_control(group_of, trainable, size, share, fixed, n_groups_before, _rng(seed, "control"))


def _is_held_out(candidates: CandidateTable, drawn: ControlDraw, fixed: Mapping[str, str]) -> BoolArray:
    """Return which candidates are of a group of held-out frames, of this iteration or an earlier one.

    No such group may give training frames.
    """
    held_out = set(drawn.groups.split) | {group for group, split in fixed.items() if split in CONTROL_SPLITS}
    return np.isin(candidates.group, sorted(held_out))


def _select_training(
    candidates: CandidateTable,
    strategy: Strategy,
    trainable: BoolArray,
    budget: int,
    validation_share: float,
    fixed: Mapping[str, str],
    context: PickContext,
    seed: int,
) -> tuple[Picks, GroupSplits]:
    """Return the frames chosen by the strategy for validation and training, and the split of their groups.

    Validation takes its share of the budget from its groups; what it cannot use goes to training.
    """
    names = np.unique(candidates.group[trainable]).tolist()
    n_validation = _share_of(validation_share, budget)
    share = validation_share if n_validation else 0.0
    groups = assign_training(names, share, fixed, _rng(seed, "validation-groups"))
    rows_of: list[IntArray] = [np.zeros(0, dtype=np.int64)]
    reasons: dict[int, str] = {}
    for split, size in (("validation", n_validation), ("train", budget)):
        rows = np.flatnonzero(trainable & np.isin(candidates.group, groups.of(split)))
        n_left = min(size, budget - sum(map(len, rows_of)))
        if n_left > 0 and len(rows):
            picks = strategy.pick(candidates, rows, n_left, _rng(seed, split), context)
            rows_of.append(picks.rows)
            reasons |= picks.reasons
    return Picks(np.concatenate(rows_of), reasons), groups


def _assemble(
    candidates: CandidateTable,
    flags: Flags,
    control: IntArray,
    picks: Picks,
    split: Mapping[str, str],
    strategy: str,
) -> Selection:
    rows = np.concatenate([control, picks.rows])
    is_control = np.arange(len(rows)) < len(control)
    order = np.argsort(rows, kind="stable")
    rows, is_control = rows[order], is_control[order]
    pairs: zip[tuple[int, bool]] = zip(rows.tolist(), is_control.tolist(), strict=True)
    reasons = tuple("control" if held else _reason(candidates, flags, picks, row) or strategy for row, held in pairs)
    return Selection(rows, reasons, is_control, tuple(split[str(candidates.group[row])] for row in rows))


def _reason(candidates: CandidateTable, flags: Flags, picks: Picks, row: int) -> str:
    return "; ".join(filter(None, (flags.reason(candidates, row), picks.reasons.get(row))))


def _count_candidates(
    candidates: CandidateTable, flags: Flags, fresh: BoolArray, known_ids: Collection[str]
) -> dict[str, Any]:
    healthy = candidates.healthy
    known = np.isin(candidates.structure_id, np.array(sorted(known_ids), dtype=np.str_))
    open_ = healthy & ~known  # what has a label is no question any more, or a pool would never be exhausted
    return {
        "n_candidates": len(candidates),
        "n_healthy": int(healthy.sum()),
        "n_groups": len(np.unique(candidates.group)),
        "n_groups_healthy": len(np.unique(candidates.group)) - len(np.unique(candidates.group[~healthy])),
        "n_known": int(known.sum()),
        "n_duplicates": int((~fresh & ~known).sum()),
        "n_flagged": int((flags.any & open_).sum()),
        "n_flagged_unhealthy": int((flags.any & ~healthy).sum()),
        "flagged": {name: int((mask & open_).sum()) for name, mask in flags.masks.items()},
        "limits": {name: float(np.min(limit)) if limit.size else None for name, limit in flags.limits.items()},
    }


def _count_sifted(sieve: _Sieve, flags: Flags, trainable: BoolArray) -> dict[str, Any]:
    return {
        "n_near_duplicates": int((sieve.pool & ~sieve.thinned).sum()),
        "n_above_upper": int((sieve.beyond & flags.any & sieve.usable).sum()),
        "n_in_control_groups": int((sieve.thinned & ~trainable).sum()),
        "n_eligible": int(trainable.sum()),
    }


def _count_selected(candidates: CandidateTable, selection: Selection) -> dict[str, Any]:
    groups: npt.NDArray[np.str_] = candidates.group[selection.indices[selection.control]]
    counts = {f"n_{name}": selection.split.count(name) for name in ("train", "validation", "calibration", "test")}
    return {
        "n_selected": len(selection),
        "n_control": int(selection.control.sum()),
        **counts,
        "control_groups": np.unique(groups).tolist(),
    }
