"""Assigning frames to splits by whole groups, for life."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from aiida_alpot.kernel.dataset.schema import SPLITS


def assign_splits(
    groups: Sequence[str] | npt.NDArray[np.str_],
    fractions: Mapping[str, float],
    seed: int,
    order_ids: Sequence[str] | npt.NDArray[np.str_] | None = None,
    *,
    existing: Sequence[str] | npt.NDArray[np.str_] | None = None,
) -> npt.NDArray[np.str_]:
    """Return the split of each frame; all frames of a group share one.

    Groups are taken from large to small, equal sizes in an order drawn with *seed*, each into the split that lacks
    most frames; every split with a fraction gets at least one group. The result belongs to groups and ids, not to the
    order of the rows.

    :param groups: group of each frame; with "" a frame is its own group (frames with one id stay together).
    :param fractions: share of the frames per split, sum 1.
    :param order_ids: an id per frame, e.g. ``frame_ids(labels=False)``; without it, frames without a group are known
        by their row.
    :param existing: splits that are assigned already and never change ("" = none); they count for the fractions.
    :return: split of each frame, shape (n_frames,).
    :raises ValueError: if the fractions are not valid, a group lies in two splits already, or there are fewer free
        groups than splits that need one.
    """
    needed = _check_fractions(fractions)
    if seed < 0:
        raise ValueError(f"a seed is a non-negative integer, got {seed}")
    keys = _group_keys(groups, order_ids)
    fixed = _fixed_splits(keys, existing)
    sizes: dict[str, int] = {}
    for key in keys:
        sizes[key] = sizes.get(key, 0) + 1
    free = sorted((key for key in sizes if key not in fixed), key=lambda key: (-sizes[key], _draw(seed, key)))
    counts = dict.fromkeys(needed, 0)
    for key, split in fixed.items():
        if split in counts:
            counts[split] += sizes[key]
    total = sum(counts.values()) + sum(sizes[key] for key in free)
    targets = {split: fractions[split] * total for split in needed}
    chosen = fixed | _fill(free, sizes, targets, counts)
    return np.array([chosen[key] for key in keys], dtype=np.str_)


def _fill(
    free: Sequence[str], sizes: Mapping[str, int], targets: Mapping[str, float], counts: dict[str, int]
) -> dict[str, str]:
    n_empty = sum(count == 0 for count in counts.values())
    if free and len(free) < n_empty:
        empty = [split for split, count in counts.items() if count == 0]
        raise ValueError(
            f"{len(free)} groups cannot fill the splits {', '.join(empty)}; add frames of other groups, use smaller "
            "groups, or set the fraction of a split to 0"
        )
    chosen: dict[str, str] = {}
    for k, key in enumerate(free):
        empty = [split for split, count in counts.items() if count == 0]
        options = empty if len(free) - k <= len(empty) else list(counts)
        # ties go to the larger fraction, then by name: never by the order of a mapping
        split = min(options, key=lambda name: (counts[name] - targets[name], -targets[name], name))
        chosen[key] = split
        counts[split] += sizes[key]
    return chosen


def _check_fractions(fractions: Mapping[str, float]) -> list[str]:
    for split, share in fractions.items():
        if split not in SPLITS or not split:
            raise ValueError(f"unknown split {split!r}; valid: {', '.join(name for name in SPLITS if name)}")
        if not math.isfinite(share) or share < 0:
            raise ValueError(f"the fraction of {split!r} must be finite and not negative, got {share}")
    if abs(sum(fractions.values()) - 1) > 1e-6:
        raise ValueError(f"the fractions must sum to 1, got {sum(fractions.values())}")
    return [split for split in sorted(fractions) if fractions[split] > 0]


def _group_keys(groups: Sequence[str] | npt.NDArray[np.str_], order_ids: object) -> list[str]:
    ids = range(len(groups)) if order_ids is None else order_ids
    if len(ids) != len(groups):  # type: ignore[arg-type]
        raise ValueError(f"order_ids has {len(ids)} entries for {len(groups)} frames")  # type: ignore[arg-type]
    pairs = zip(groups, ids, strict=True)  # type: ignore[call-overload]
    return [f"group\0{group}" if group else f"frame\0{name}" for group, name in pairs]


def _fixed_splits(keys: Sequence[str], existing: Sequence[str] | npt.NDArray[np.str_] | None) -> dict[str, str]:
    if existing is None:
        return {}
    if len(existing) != len(keys):
        raise ValueError(f"existing has {len(existing)} entries for {len(keys)} frames")
    fixed: dict[str, str] = {}
    for key, split in zip(keys, existing, strict=True):
        if not split:
            continue
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}; valid: {', '.join(name for name in SPLITS if name)}")
        if fixed.setdefault(key, str(split)) != split:
            kind, _, name = key.partition("\0")
            raise ValueError(
                f"the {kind} {name!r} lies in {fixed[key]!r} and in {split!r} already; a group belongs to one split: "
                "correct the split of one, or give the frames different groups"
            )
    return fixed


def _draw(seed: int, key: str) -> bytes:
    return hashlib.sha256(f"split\0{seed}\0{key}".encode("utf-8", "surrogatepass")).digest()
