"""Which groups of a selection may be trained on, which are held out, and for what.

A group (a trajectory) is on one side for life: frames a few femtoseconds apart in training and test set would make the
test error a training error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

CONTROL_SPLITS: Final = ("calibration", "test")
"""Splits that control frames alternate between, group by group."""

SPLITS: Final = ("train", "validation", *CONTROL_SPLITS)


@dataclass(frozen=True)
class GroupSplits:
    """The split of every group that may give frames; other groups are not used."""

    split: dict[str, str]

    def of(self, *splits: str) -> list[str]:
        """Return the sorted groups in one of *splits*."""
        return sorted(group for group, split in self.split.items() if split in splits)


def check_fixed_splits(fixed: Mapping[str, str]) -> None:
    """Raise if a group has a split that does not exist."""
    for group, split in fixed.items():
        if split not in SPLITS:
            raise ValueError(f"group {group!r} has the split {split!r}, expected one of {list(SPLITS)}")


def assign_control(
    healthy: Sequence[str],
    trainable: Sequence[str],
    share: float,
    fixed: Mapping[str, str],
    n_earlier: int,
    rng: np.random.Generator,
) -> GroupSplits:
    """Return the groups of the control frames, drawn at random and split between calibration and test.

    ``max(1, round(share·n))`` of the *healthy* groups without a fixed split, but never the last group that is worth
    training on: a lone trajectory gives control frames only if nothing in it is flagged.

    :param healthy: names of the groups with a healthy candidate.
    :param trainable: names of the groups with a candidate worth training on.
    :param share: of the groups, 0 to 1; 0 gives none.
    :param fixed: splits that groups have from earlier iterations; they are kept.
    :param n_earlier: number of control groups before these: the alternation goes on from there.
    """
    split = {group: fixed[group] for group in healthy if fixed.get(group) in CONTROL_SPLITS}
    free = sorted(group for group in set(healthy) if group not in fixed)
    if share <= 0.0 or not free:
        return GroupSplits(split)
    n_groups = max(1, round(share * len(free)))
    worth = {group for group in trainable if fixed.get(group) not in CONTROL_SPLITS}
    n_drawn = 0
    for group in rng.permutation(np.array(free)).tolist():
        if n_drawn == n_groups:
            break
        if worth == {group}:
            continue
        worth.discard(group)
        split[group] = CONTROL_SPLITS[(n_earlier + n_drawn) % 2]
        n_drawn += 1
    return GroupSplits(split)


def assign_training(
    trainable: Sequence[str], share: float, fixed: Mapping[str, str], rng: np.random.Generator
) -> GroupSplits:
    """Return the split of the groups that are left for training: whole groups go to validation.

    ``max(1, round(share·n))`` of the groups without a fixed split, and at least one group stays in training.

    :param trainable: names of the groups, those of the control frames excluded.
    :param share: of the groups that goes to validation, 0 to 1; 0 gives none.
    """
    names = sorted(set(trainable))
    split = {group: fixed.get(group, "train") for group in names}
    free = [group for group in names if group not in fixed]
    if share <= 0.0 or not free:
        return GroupSplits(split)
    others = sum(1 for group in names if fixed.get(group) == "train")
    n_validation = min(max(1, round(share * len(free))), len(free) - (0 if others else 1))
    for group in rng.permutation(np.array(free))[:n_validation].tolist():
        split[group] = "validation"
    return GroupSplits(split)
