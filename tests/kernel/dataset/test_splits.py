"""Splits by whole groups, for life."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiida_alpot.kernel.dataset import assign_splits

FRACTIONS = {"train": 0.8, "validation": 0.1, "test": 0.1}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=40), st.integers(0, 99), st.randoms())
def test_groups_stay_whole_every_split_is_filled_and_order_does_not_matter(groups, seed, random):
    if len(set(groups)) < 3:
        with pytest.raises(ValueError, match="groups cannot fill the splits"):
            assign_splits(groups, FRACTIONS, seed)
        return
    splits = assign_splits(groups, FRACTIONS, seed)
    assert set(splits.tolist()) == set(FRACTIONS)
    chosen = dict(zip(groups, splits.tolist(), strict=True))
    assert [chosen[group] for group in groups] == splits.tolist()
    order = list(range(len(groups)))
    random.shuffle(order)
    shuffled = assign_splits([groups[k] for k in order], dict(reversed(FRACTIONS.items())), seed)
    assert shuffled.tolist() == [splits[k] for k in order]


def test_single_frames_follow_the_fractions_and_their_ids():
    ids = [f"id{k}" for k in range(1000)]
    splits = assign_splits([""] * 1000, FRACTIONS, 1, ids)
    assert Counter(splits.tolist()) == {"train": 800, "validation": 100, "test": 100}
    turned = assign_splits([""] * 1000, FRACTIONS, 1, ids[::-1])
    assert turned[::-1].tolist() == splits.tolist()
    assert assign_splits([""] * 1000, FRACTIONS, 2, ids).tolist() != splits.tolist()


def test_equal_frames_without_group_never_straddle():
    splits = assign_splits([""] * 20, FRACTIONS, 0, [f"id{k % 10}" for k in range(20)])
    assert splits[:10].tolist() == splits[10:].tolist()


def test_assigned_splits_are_fixed_and_counted():
    groups = ["a", "a", "b", "c", "d", "e"]
    splits = assign_splits(groups, {"train": 0.5, "test": 0.5}, 0, existing=["test", "", "calibration", "", "", ""])
    assert splits[:3].tolist() == ["test", "test", "calibration"]
    assert Counter(splits[3:].tolist())["train"] >= 2
    again = assign_splits(groups, {"train": 0.5, "test": 0.5}, 7, existing=splits)
    assert again.tolist() == splits.tolist()
    with pytest.raises(ValueError, match="the group 'a' lies in 'test' and in 'train' already"):
        assign_splits(["a", "a"], {"train": 1.0}, 0, existing=["test", "train"])


def test_one_giant_group_does_not_land_in_test():
    groups = ["giant"] * 900 + [f"g{k}" for k in range(10) for _ in range(10)]
    for seed in range(20):
        assert assign_splits(groups, FRACTIONS, seed)[0] == "train"


def test_invalid_fractions_name_the_problem():
    with pytest.raises(ValueError, match="must sum to 1"):
        assign_splits(["a"], {"train": 0.5}, 0)
    with pytest.raises(ValueError, match="unknown split 'trian'"):
        assign_splits(["a"], {"trian": 1.0}, 0)
    with pytest.raises(ValueError, match="not negative"):
        assign_splits(["a"], {"train": 1.5, "test": -0.5}, 0)
    assert assign_splits([], FRACTIONS, 0).shape == (0,)
    assert assign_splits(np.array(["a"]), {"train": 1.0, "test": 0.0}, 0).tolist() == ["train"]
