"""Which labels a review judges, and beside which others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from ase import Atoms

from aiida_alpot.kernel.dataset import Dataset
from aiida_alpot.kernel.units import BoolArray, IntArray

MAX_NEW: Final = 250
"""Labels judged at once, and at most as many …"""
MAX_CONTEXT: Final = 150
"""… of the others of the same labelling and settings, and of those known before, beside them: some seconds of work."""


@dataclass(frozen=True)
class ReviewPlan:
    """The accepted labels of a labelling and of the dataset that it is for.

    Those of one group have the same settings and charge, and can be compared with each other.

    :param datasets: where the labels are.
    :param source: which of *datasets* a label is in, shape (n_labels,).
    :param row: where it is in there, shape (n_labels,).
    :param ids: of the frames, shape (n_labels,).
    :param fingerprint: settings of the label, shape (n_labels,).
    :param group: number of the group, shape (n_labels,).
    :param is_new: whether the labelling made it, shape (n_labels,).
    :param is_bound: whether its atoms have neighbours, as in :func:`.surrogate.has_neighbours`, shape (n_labels,).
    """

    datasets: tuple[Dataset, ...]
    source: IntArray
    row: IntArray
    ids: npt.NDArray[Any]
    fingerprint: npt.NDArray[Any]
    group: IntArray
    is_new: BoolArray
    is_bound: BoolArray

    def choose(self, n_min: int, fingerprint: str | None = None) -> IntArray:
        """Return which labels are to be judged, in the order of their ids: it does not depend on that of the rows.

        All new ones, and those before them that were too few to be compared and are enough with them.

        :param n_min: labels in a group, not counting isolated atoms, from which on it is compared.
        :param fingerprint: of the only settings whose labels are compared, None for any.
        """
        n_groups = int(self.group.max(initial=-1)) + 1
        n_all = np.bincount(self.group[self.is_bound], minlength=n_groups)
        n_before = np.bincount(self.group[self.is_bound & ~self.is_new], minlength=n_groups)
        is_due = ((n_before < n_min) & (n_all >= n_min))[self.group]
        if fingerprint is not None:
            is_due &= self.fingerprint == fingerprint
        return self._sort(self.is_new | is_due)

    def context(self, judged: IntArray, n_min: int) -> IntArray:
        """Return the labels to compare some with: of each dataset and group the first in the order of their ids.

        :param judged: which ones they are for, of :meth:`choose`.
        :param n_min: at least so many, if there are.
        """
        others = self.is_bound.copy()
        others[judged] = False
        chosen = [
            self._sort(others & (self.group == group) & (self.source == source))[: max(MAX_CONTEXT, n_min)]
            for group in np.unique(self.group[judged])
            for source in range(len(self.datasets))
        ]
        return np.concatenate(chosen) if chosen else judged[:0]

    def frames(self, chosen: IntArray) -> list[Atoms]:
        """Return some of the labelled frames."""
        found: dict[int, Atoms] = {}
        for source, dataset in enumerate(self.datasets):
            here = chosen[self.source[chosen] == source]
            found |= dict(zip(here.tolist(), dataset[self.row[here]], strict=True))
        return [found[k] for k in chosen.tolist()]

    def _sort(self, chosen: BoolArray) -> IntArray:
        rows = np.flatnonzero(chosen)
        return rows[np.argsort(self.ids[rows], kind="stable")]


def plan_review(labelled: Dataset, frames: Dataset | None, known: Dataset | None) -> ReviewPlan:
    """Return what a review may judge.

    :param labelled: what a labelling returned.
    :param frames: what it was given; None if all labels are new.
    :param known: labels that were accepted before.
    """
    datasets = (labelled,) if known is None else (labelled, known)
    ids = [dataset.frame_ids() for dataset in datasets]
    accepted = [dataset.column("status") == "labelled" for dataset in datasets]
    if known is not None:
        accepted[1] &= ~np.isin(ids[1], ids[0])
    rows = [np.flatnonzero(mask) for mask in accepted]
    is_new = [np.full(len(chosen), k == 0) for k, chosen in enumerate(rows)]
    if frames is not None:
        is_new[0] = ~np.isin(ids[0][rows[0]], frames.frame_ids())

    def join(name: str) -> npt.NDArray[Any]:
        return np.concatenate([dataset.column(name)[mask] for dataset, mask in zip(datasets, accepted, strict=True)])

    n_atoms = np.concatenate([np.diff(d.offsets)[mask] for d, mask in zip(datasets, accepted, strict=True)])
    fingerprints = join("fingerprint")
    return ReviewPlan(
        datasets=datasets,
        source=np.repeat(np.arange(len(rows)), [len(chosen) for chosen in rows]),
        row=np.concatenate(rows),
        ids=np.concatenate([found[mask] for found, mask in zip(ids, accepted, strict=True)]),
        fingerprint=fingerprints,
        group=_number_groups(fingerprints, join("charge")),
        is_new=np.concatenate(is_new),
        is_bound=(n_atoms > 1) | join("pbc").any(axis=1),
    )


def _number_groups(fingerprints: Iterable[Any], charges: npt.NDArray[np.float64]) -> IntArray:
    keys = group_keys(fingerprints, charges)
    numbers = {key: k for k, key in enumerate(sorted(set(keys)))}
    return np.array([numbers[key] for key in keys], dtype=np.int64)


def group_keys(fingerprints: Iterable[Any], charges: npt.NDArray[np.float64]) -> list[tuple[str, float]]:
    """Return what labels must have in common to be compared: other settings or charges have other energies."""
    return [(str(f), float(q)) for f, q in zip(fingerprints, np.nan_to_num(charges), strict=True)]


def count_parts(n_labels: int) -> int:
    """Return into how many parts so many labels are divided, each of which is judged within seconds."""
    return max(1, -(-n_labels // MAX_NEW))
