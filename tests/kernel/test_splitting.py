"""Splits from shares and a seed, for life."""

from collections import Counter

import numpy as np
import pytest

from aiida_alpot.kernel.dataset import Dataset, write
from aiida_alpot.kernel.settings import SettingsError, parse_settings
from aiida_alpot.kernel.splitting import SplitSettings, find_mixed_settings, split_columns


@pytest.fixture
def split(tmp_path):
    def run(frames, settings=None, seed=1, **columns):
        write(tmp_path / "frames.h5", frames, **columns)
        with Dataset.open(tmp_path / "frames.h5") as dataset:
            return split_columns(dataset, settings or {}, seed)["split"]

    return run


def test_default_shares_are_those_of_the_paper(make, split):
    assert Counter(split(make.crystals(20))) == {"train": 16, "validation": 2, "test": 2}


def test_shares_are_those_that_were_asked_for(make, split):
    shares = {"train": 0.4, "validation": 0.2, "test": 0.2, "calibration": 0.2}
    assert Counter(split(make.crystals(10), shares)) == {"train": 4, "validation": 2, "test": 2, "calibration": 2}


def test_a_group_is_never_divided(make, split):
    frames = make.crystals(24)
    groups = [f"md-{k // 4}" for k in range(24)]
    for atoms, group in zip(frames, groups, strict=True):
        atoms.info["group"] = group
    splits = split(frames, {"train": 0.5, "validation": 0.25, "test": 0.25})
    assert len(set(zip(groups, splits, strict=True))) == 6


def test_the_order_of_the_rows_changes_no_split(make, split):
    frames = make.crystals(15)
    order = np.random.default_rng(0).permutation(15)
    before = split(frames)
    assert split([frames[k] for k in order]) == [before[k] for k in order]


def test_another_seed_gives_other_splits(make, split):
    frames = make.crystals(20)
    assert split(frames, seed=1) == split(frames, seed=1)
    assert split(frames, seed=1) != split(frames, seed=2)


def test_splits_that_are_there_stay(make, split):
    frames = make.crystals(10)
    given = ["test", "calibration", *[""] * 8]
    assert split(frames, split=given)[:2] == ["test", "calibration"]


def test_frames_without_labels_take_no_part_in_the_shares(make, split):
    frames = make.crystals(20)
    for atoms in frames[10:]:
        atoms.calc = None
    splits = split(frames)
    assert Counter(splits[:10]) == {"train": 8, "validation": 1, "test": 1}
    assert splits[10:] == [""] * 10


def test_a_frame_without_label_gets_the_split_of_its_group(make, split):
    frames = make.crystals(10)
    frames[9].calc = None
    frames[9].info["group"] = frames[0].info["group"]
    splits = split(frames)
    assert splits[9] == splits[0] != ""


def test_a_group_keeps_the_split_that_a_frame_without_label_has(make, split):
    frames = make.crystals(10)
    frames[9].calc = None
    frames[9].info["group"] = frames[0].info["group"]
    assert split(frames, split=[""] * 9 + ["test"])[0] == "test"


def test_too_few_groups_are_an_error_that_says_what_to_do(make, split):
    with pytest.raises(ValueError, match=r"2 groups cannot fill the splits.*add frames"):
        split(make.crystals(2))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train": 0.5}, r"split: the shares must add up to 1, got 0\.7"),
        ({"train": 1.2, "test": -0.3}, r"split: train must be between 0 and 1, got 1\.2"),
        ({"train": 0.0, "test": 0.9}, "split: train must be above 0"),
        ({"tests": 0.1}, "split: unknown key 'tests'; did you mean 'test'"),
    ],
)
def test_shares_out_of_range_are_named(values, message):
    with pytest.raises(SettingsError, match=message):
        parse_settings(SplitSettings, values, "split")


@pytest.mark.parametrize("seed", range(12))
def test_every_species_has_a_training_frame(make, split, seed):
    frames = [*make.crystals(9), *make.crystals(1, symbol="Al", seed=5)]
    splits = split(frames, {"train": 0.4, "validation": 0.3, "test": 0.3}, seed=seed)
    assert splits[9] == "train"
    assert set(splits) == {"train", "validation", "test"}


def test_a_label_that_was_computed_anew_with_other_settings_is_not_fitted_to(make, split):
    old = make.crystals(20)
    for atoms in old:
        atoms.info["fingerprint"] = "old"
        atoms.info["split"] = "train"
    new = [atoms.copy() for atoms in old[:5]]
    for atoms, before in zip(new, old, strict=False):
        atoms.calc = before.calc
        atoms.info.update(fingerprint="new", split="")
    splits = split([*old, *new])
    assert splits[:5] == [""] * 5
    assert splits[5:20] == ["train"] * 15
    assert "" not in splits[20:]


@pytest.fixture
def mixed(tmp_path):
    def run(frames, **options):
        write(tmp_path / "frames.h5", frames)
        with Dataset.open(tmp_path / "frames.h5") as dataset:
            return find_mixed_settings(dataset, **options)

    return run


def test_labels_of_several_settings_are_counted_but_not_unknown_superseded_and_bad_ones(make, mixed):
    frames = make.crystals(6)
    for atoms, fingerprint in zip(frames, ["a", "a", "b", "", "c", "b"], strict=True):
        atoms.info.update(fingerprint=fingerprint, split="train", status="labelled")
    frames[4].info["status"] = "quarantined"
    assert mixed(frames) == "2 of a, 2 of b"
    assert mixed(frames[:2] + frames[3:5]) == ""
    anew = frames[2].copy()
    anew.calc = frames[2].calc
    anew.info["fingerprint"] = "a"
    assert mixed([*frames[:5], anew]) == ""


def test_labels_without_a_split_are_fitted_to_by_nobody_unless_they_get_one(make, mixed):
    frames = make.crystals(3)
    for atoms, fingerprint in zip(frames, "aab", strict=True):
        atoms.info.update(fingerprint=fingerprint, split="" if fingerprint == "b" else "train", status="labelled")
    assert mixed(frames) == ""
    assert mixed(frames, is_split=False) == "2 of a, 1 of b"
