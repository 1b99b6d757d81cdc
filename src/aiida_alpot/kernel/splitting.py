"""Which frames are trained on and which are held out, from shares and a seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from aiida_alpot.kernel import defaults
from aiida_alpot.kernel.dataset import Dataset, assign_splits
from aiida_alpot.kernel.labelling.identity import label_ids
from aiida_alpot.kernel.seeds import derive_seed
from aiida_alpot.kernel.settings import parse_settings


@dataclass(frozen=True)
class SplitSettings:
    """Shares of the splits, of groups that have none yet.

    :param train: share that potentials are fitted to.
    :param validation: share that decides when a training stops.
    :param test: share that is only reported on.
    :param calibration: share that error bars are fitted to, beside the control frames of the loop.
    """

    train: float = defaults.SPLIT_TRAIN
    validation: float = defaults.SPLIT_VALIDATION
    test: float = defaults.SPLIT_TEST
    calibration: float = 0.0

    def __post_init__(self) -> None:
        shares = asdict(self)
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise ValueError(f"{name} must be between 0 and 1, got {share}")
        if abs(sum(shares.values()) - 1) > 1e-6:
            raise ValueError(f"the shares must add up to 1, got {sum(shares.values()):g}")
        if self.train == 0:
            raise ValueError("train must be above 0: there is nothing to fit otherwise")


def split_columns(dataset: Dataset, settings: Mapping[str, Any], seed: int) -> dict[str, list[str]]:
    """Return the column ``split`` of a dataset, kept where a frame has one.

    Only labelled frames take part in the shares; the others get the split of their group or none. Every species has a
    training frame: where the draw leaves one out, a group that has it is moved into the training split.

    Groups that share a structure count as one: of two copies none can test what was fitted to the other. A label that
    was computed anew with other settings has no split: it stays in the dataset, but nothing is fitted to it.

    :raises ValueError: if there are fewer groups than splits, or copies of one structure lie in different splits
        already; the message says what to do.
    """
    shares = asdict(parse_settings(SplitSettings, settings, "split"))
    ids = dataset.frame_ids(labels=False)
    superseded = find_superseded(label_ids(dataset), dataset.column("fingerprint"))
    labelled = (dataset.column("status") == "labelled") & ~superseded
    groups = join_groups(dataset.column("group"), ids)
    keys = np.where(groups == "", ids, groups)
    given = np.where(superseded, "", dataset.column("split").astype(object))
    _check_copies(ids, given)
    fixed = _extend_to_groups(given, groups)
    while True:
        splits = fixed.copy()
        splits[labelled] = assign_splits(
            groups[labelled], shares, seed, order_ids=ids[labelled], existing=fixed[labelled].astype(np.str_)
        )
        group = _group_to_train_on(splits, dataset, keys, fixed, seed)
        if group is None:
            complete = np.where(superseded, "", _extend_to_groups(splits, groups))
            return {"split": [str(split) for split in complete]}
        fixed[keys == group] = "train"


def find_superseded(ids: npt.NDArray[Any], fingerprints: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return which rows are of a structure that a later row was labelled anew with other settings.

    :param ids: of each frame, :func:`~aiida_alpot.kernel.labelling.identity.label_ids`.
    :param fingerprints: of the settings of each label, "" for none.
    """
    last: dict[str, str] = {
        str(identity): str(found) for identity, found in zip(ids, fingerprints, strict=True) if str(found)
    }
    pairs = zip(ids, fingerprints, strict=True)
    return np.array([last.get(str(identity), str(found)) != str(found) for identity, found in pairs], dtype=np.bool_)


def find_mixed_settings(dataset: Dataset, *, is_split: bool = True) -> str:
    """Return of which settings labels are that would be fitted to together, "" if of one only.

    Labels that nobody knows the settings of, such as those of a file, are not counted, nor those that were superseded.

    :param is_split: only frames that have a split; otherwise all, of which any may get one.
    """
    fingerprints = dataset.column("fingerprint")
    taken = (dataset.column("status") == "labelled") & (fingerprints != "")
    taken &= ~find_superseded(label_ids(dataset), fingerprints)
    if is_split:
        taken &= dataset.column("split") != ""
    counts = Counter(fingerprints[taken].tolist())
    return ", ".join(f"{n} of {name}" for name, n in sorted(counts.items())) if len(counts) > 1 else ""


def join_groups(groups: npt.NDArray[Any], ids: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the group of each frame after those that share a structure were joined under the first of their names.

    :param groups: group of each frame, "" for none.
    :param ids: structure id of each frame.
    """
    first: dict[str, str] = {}

    def root(name: str) -> str:
        while first.setdefault(name, name) != name:
            name = first[name]
        return name

    of_structure: dict[str, str] = {}
    for group, identity in zip(groups, ids, strict=True):
        if group:
            low, high = sorted((root(of_structure.setdefault(identity, group)), root(group)))
            first[high] = low
    names = [group or of_structure.get(identity, "") for group, identity in zip(groups, ids, strict=True)]
    return np.array([root(name) if name else "" for name in names], dtype=object)


def _check_copies(ids: npt.NDArray[Any], splits: npt.NDArray[Any]) -> None:
    seen: dict[str, int] = {}
    for k, (identity, split) in enumerate(zip(ids, splits, strict=True)):
        if split and splits[seen.setdefault(identity, k)] != split:
            first = seen[identity]
            raise ValueError(
                f"frames {first} and {k} are copies of one structure, but lie in the splits {splits[first]!r} and "
                f"{split!r}: the one cannot test what was fitted to the other; remove one"
            )


def _group_to_train_on(
    splits: npt.NDArray[Any], dataset: Dataset, keys: npt.NDArray[Any], fixed: npt.NDArray[Any], seed: int
) -> str | None:
    """Return a free group with a species that no training frame has, or None: a potential knows no other species."""
    owner = np.repeat(np.arange(len(splits)), np.diff(dataset.offsets))
    numbers = dataset.column("numbers")
    for species in dataset.species:
        rows = np.unique(owner[numbers == species])
        rows = rows[splits[rows] != ""]
        free = sorted(set(keys[rows[fixed[rows] == ""]]))
        if free and not np.any(splits[rows] == "train"):
            return str(min(free, key=lambda group: derive_seed(seed, f"species-{species}/{group}")))
    return None


def _extend_to_groups(splits: npt.NDArray[Any], groups: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return *splits* with the split of its group for every frame that has none."""
    of_group = {group: split for group, split in zip(groups, splits, strict=True) if group and split}
    pairs = zip(groups, splits, strict=True)
    return np.array([split or of_group.get(group, "") for group, split in pairs], dtype=object)
