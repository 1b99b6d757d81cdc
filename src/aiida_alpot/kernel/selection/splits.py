"""Which groups of a selection may be trained on, which are held out, and for what.

A group (a trajectory) is on one side for life: frames a few femtoseconds apart in training and test set would make the
test error a training error.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
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


@dataclass(frozen=True)
class ControlDraw:
    """The control frames of one iteration.

    :ivar rows: in the order of the draw.
    :ivar groups: the split of every group that is held out.
    :ivar spared: groups that were drawn but left to training, as the last that is worth training on.
    """

    rows: list[int]
    groups: GroupSplits
    spared: list[str]


def draw_control(
    group_of: Mapping[int, str],
    trainable: Collection[str],
    size: int,
    share: float,
    fixed: Mapping[str, str],
    n_earlier: int,
    rng: np.random.Generator,
) -> ControlDraw:
    """Return *size* control frames, drawn at random, and their groups, split between calibration and test.

    All frames are put in random order and the first to come claim their groups, ``max(1, round(share·n))`` of those
    without a fixed split, and more if these hold too few frames. So a group is held out in proportion to its frames.
    The groups then give one frame each in turn: frames drawn from their union in proportion would count the length of
    a trajectory twice. The last group worth training on is never claimed: a lone trajectory gives control frames only
    if nothing in it is flagged.

    :param group_of: group of each row that may be a control frame.
    :param trainable: names of the groups with a candidate worth training on.
    :param size: number of frames; fewer are returned if there are not enough.
    :param share: of the groups, 0 to 1.
    :param fixed: splits that groups have from earlier iterations; they are kept.
    :param n_earlier: number of control groups before these: the alternation goes on from there.
    """
    rows_of: dict[str, list[int]] = {}
    for row in rng.permutation(np.array(sorted(group_of), dtype=np.int64)).tolist():
        rows_of.setdefault(group_of[row], []).append(row)
    split = {group: fixed[group] for group in sorted(rows_of) if fixed.get(group) in CONTROL_SPLITS}
    free = [group for group in rows_of if group not in fixed]
    n_groups = min(size, max(1, round(share * len(free))))
    worth = {group for group in trainable if fixed.get(group, "train") == "train"}
    n_frames = sum(len(rows_of[group]) for group in split)
    spared: list[str] = []
    n_claimed = 0
    for group in free:
        if n_claimed >= n_groups and n_frames >= size:
            break
        if worth == {group}:
            spared.append(group)
            continue
        worth.discard(group)
        split[group] = CONTROL_SPLITS[(n_earlier + n_claimed) % 2]
        n_claimed += 1
        n_frames += len(rows_of[group])
    in_turn = itertools.zip_longest(*(rows for group, rows in rows_of.items() if group in split))
    accepted = [row for turn in in_turn for row in turn if row is not None]
    return ControlDraw(accepted[:size], GroupSplits(split), spared)


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
