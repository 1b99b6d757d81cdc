"""From training frames to active sets: which atoms enter, and what a report says of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from aiida_alpot.kernel.cutouts import core_of
from aiida_alpot.kernel.features import FeatureFunction, FeatureSpec
from aiida_alpot.kernel.features.spool import gather_features, join_features
from aiida_alpot.kernel.potentials import Features, Potential, offsets_of, predict_committee, reference_predictions
from aiida_alpot.kernel.uncertainty import ActiveSet, LocalActiveSet, mean_prediction
from aiida_alpot.kernel.uncertainty.active_set import FeatureSource
from aiida_alpot.kernel.uncertainty.categories import frame_categories
from aiida_alpot.kernel.uncertainty.configurations import CONFIGURATION
from aiida_alpot.kernel.uncertainty.local import part_atoms, take_clusters
from aiida_alpot.kernel.uncertainty.outliers import Outliers, find_outliers
from aiida_alpot.kernel.uncertainty.scaling import assign_folds, scale_grades
from aiida_alpot.kernel.units import BoolArray, FloatArray, IntArray

if TYPE_CHECKING:
    from aiida_alpot.kernel.calibrating import CalibrateSettings

OutlierKind = Literal["force", "force_error"]

N_LISTED: Final = 50
"""Frames with outliers that a report names, those with the most first."""


def build_active_set(
    potentials: Sequence[Potential],
    frames: Sequence[Atoms],
    settings: CalibrateSettings,
    spec: FeatureSpec,
    folder: Path | None = None,
) -> tuple[ActiveSet | LocalActiveSet | None, dict[str, Any]]:
    """Return the active set of training frames, one per cluster if there are clusters, and what to know of it.

    Features that are too many for the memory are written to a file, unless they are to be clustered.

    :param potentials: the committee; the first member that has such features gives them.
    :param frames: their cores enter; without any there is no set.
    :param spec: of the features, complete.
    :param folder: for that file, see :class:`~aiida_alpot.kernel.features.spool.SpooledFeatures`.
    :return: the set, and a report for JSON: what the rows are (``mode``), and with a filter ``outliers``, see
        :func:`describe_outliers`.
    """
    if not frames:
        return None, {}
    report: dict[str, Any] = {"mode": settings.mode}
    kept = core_of(frames)
    if settings.force_outliers is not None:
        outliers = find_force_outliers(potentials, frames, settings.force_outliers, settings.batch_size)
        report["outliers"] = describe_outliers(outliers, frames, settings.force_outliers)
        kept &= ~outliers.mask
    chunks = iterate_features(spec, spec.build(potentials, settings.batch_size), frames, kept, settings.batch_size)
    start, kind, mode = settings.active_set_start, spec.kind, settings.mode
    parts: Sequence[Features | FeatureSource]
    if settings.clusters is None:
        parts = [gather_features(chunks, int(np.count_nonzero(kept)), folder)]
        found: ActiveSet | LocalActiveSet = ActiveSet.build(parts[0], start=start, kind=kind, mode=mode)
    else:
        features, given = join_features(chunks), None
        if settings.clusters.method == "column":
            given = frame_categories(frames, settings.clusters.column)[features.frame_index]
        parts = take_clusters(features, part_atoms(features, given, settings.clusters, mode))
        found = LocalActiveSet([ActiveSet.build(part, start=start, kind=kind, mode=mode) for part in parts])
    if settings.scale_grades:
        report["scaling"] = scale_by_left_out(found, parts, frames)
    return found, report


def iterate_features(
    spec: FeatureSpec, compute: FeatureFunction, frames: Sequence[Atoms], kept: BoolArray, batch_size: int
) -> Iterator[Features]:
    """Yield the features of the atoms that are kept, some frames at a time; ``frame_index`` counts all frames.

    :param compute: what *spec* builds.
    :param kept: shape (n_atoms,).
    :raises ValueError: naming the first atom that the features are not defined for.
    """
    offsets = offsets_of(frames)
    for first in range(0, len(frames), batch_size):
        chunk = frames[first : first + batch_size]
        rows = kept[offsets[first] : offsets[first + len(chunk)]]
        features = spec.require_known(_take(compute(chunk), rows), chunk)
        yield Features(features.values, features.species, features.frame_index + first)


def scale_by_left_out(
    active_set: ActiveSet | LocalActiveSet, parts: Sequence[Features | FeatureSource], frames: Sequence[Atoms]
) -> dict[str, Any]:
    """Give an active set units from training frames that are left out, and return what to know of them.

    :param parts: the features of each cluster.
    :return: for JSON: how many folds (``n_folds``) of how many groups (``n_groups``), and the ``units`` of each
        cluster by species, or by ``configuration``.
    """
    groups = [str(atoms.info.get("group", "")) for atoms in frames]
    folds = assign_folds(groups)
    members = active_set.members if isinstance(active_set, LocalActiveSet) else (active_set,)
    for member, part in zip(members, parts, strict=True):
        scale_grades(member, part, folds)
    return {
        "n_folds": len(np.unique(folds)),
        "n_groups": len(set(groups) - {""}) + groups.count(""),
        "units": [{_name(number): unit for number, unit in member.units.items()} for member in members],
    }


def _name(number: int) -> str:
    return "configuration" if number == CONFIGURATION else chemical_symbols[number]


def find_force_outliers(
    potentials: Sequence[Potential], frames: Sequence[Atoms], kind: OutlierKind, batch_size: int
) -> Outliers:
    """Return the atoms whose reference force, or the error of the committee's mean force, is an outlier.

    Atoms without label, and those around the core of a piece, are no outliers and no part of the quantiles.

    :param kind: ``"force"`` for ``|F|``, ``"force_error"`` for ``|ΔF|``.
    """

    def chunks() -> Iterator[tuple[IntArray, FloatArray]]:
        for first in range(0, len(frames), batch_size):
            chunk = frames[first : first + batch_size]
            forces = reference_predictions(chunk).forces
            if kind == "force_error":
                forces = forces - mean_prediction(predict_committee(potentials, chunk, batch_size=batch_size)).forces
            sizes = np.where(core_of(chunk), np.linalg.norm(forces, axis=1), np.nan)
            yield np.concatenate([atoms.numbers for atoms in chunk]), sizes

    return find_outliers(chunks())


def describe_outliers(outliers: Outliers, frames: Sequence[Atoms], kind: OutlierKind) -> dict[str, Any]:
    """Return for JSON what was left out and why.

    :return: ``by`` (what was measured), ``limits`` by species (eV/Å), ``n_atoms`` left out, by ``species`` as shares,
        ``n_unknown`` atoms that could not be judged, ``n_frames`` with atoms left out, and of :data:`N_LISTED` of them
        the number among the training frames, the group, and how many atoms of how many were left out.
    """
    owner = np.repeat(np.arange(len(frames)), [len(atoms) for atoms in frames])
    counts = np.bincount(owner[outliers.mask], minlength=len(frames))
    numbers = np.concatenate([atoms.numbers for atoms in frames])
    worst = np.argsort(-counts, kind="stable")[: min(N_LISTED, np.count_nonzero(counts))]
    return {
        "by": kind,
        "limits": {chemical_symbols[number]: limit for number, limit in outliers.limits.items()},
        "n_atoms": int(outliers.mask.sum()),
        "shares": {
            chemical_symbols[number]: float(outliers.mask[numbers == number].mean()) for number in outliers.limits
        },
        "n_unknown": outliers.n_unknown,
        "n_frames": int(np.count_nonzero(counts)),
        "frames": [
            {
                "frame": k,
                "group": str(frames[k].info.get("group", "")),
                "n_left_out": int(counts[k]),
                "n_atoms": len(frames[k]),
            }
            for k in worst.tolist()
        ],
    }


def _take(features: Features, kept: BoolArray) -> Features:
    if kept.all():
        return features
    return Features(features.values[kept], features.species[kept], features.frame_index[kept])
