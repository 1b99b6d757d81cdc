"""Task ``evaluate``: judge all candidates and select those worth a label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ase import Atoms

from aiida_alpot.kernel.criterion import CriterionSettings, adaptive_thresholds, find_limits
from aiida_alpot.kernel.cutting import Judge, count_frames, cut_large_frames
from aiida_alpot.kernel.dataset import Dataset, DatasetView, merge, write
from aiida_alpot.kernel.evaluating import (
    EvaluateSettings,
    attach_predictions,
    build_table,
    canonical_order,
    choose_strategy,
    complete_features,
    count_extrapolated,
    count_out_of_span,
    flagging_grade,
    select_candidates,
    selected_frames,
    selection_warnings,
)
from aiida_alpot.kernel.potentials import Potential
from aiida_alpot.kernel.settings import parse_settings
from aiida_alpot.kernel.tasks.entries import TASK_FILE, check_file, find_file, read_entry
from aiida_alpot.kernel.tasks.inputs import load_committee, load_uncertainty, read_seed
from aiida_alpot.kernel.uncertainty import PROPERTIES, UncertaintyModel, describe_failures

OUTPUT = "selected.h5"
TABLE = "table.npz"
_QUANTILES = (0.0, 0.5, 0.9, 1.0)


def run(task: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Write ``selected.h5`` and ``table.npz`` and return counts, thresholds and quantiles."""
    settings = parse_settings(EvaluateSettings, read_entry(task, "settings", dict[str, Any]), "evaluate.settings")
    seed = read_seed(task)
    if settings.needs_features and settings.feature_spec is not None:
        settings.feature_spec.require()
    committee = load_committee({**task, "device": settings.device}, folder)
    settings = choose_strategy(settings, committee.potentials)
    model = load_uncertainty(task, folder, committee)
    pool = folder / "candidates.h5"
    names = read_entry(task, "candidates", list[str])
    merge([check_file(name, folder, f"{TASK_FILE}: candidates") for name in names], pool)
    with ExitStack() as stack:
        candidates = canonical_order(stack.enter_context(Dataset.open(pool)))
        dataset = stack.enter_context(Dataset.open(find_file(task, "dataset", folder))) if "dataset" in task else None
        settings = complete_features(settings, candidates, dataset)
        found = _choose(candidates, dataset, committee.potentials, model, settings, seed)
    attach_predictions(found.frames, committee.potentials)
    write(folder / OUTPUT, found.frames)
    np.savez(folder / TABLE, allow_pickle=False, **found.arrays)
    return {
        **found.report,
        "thresholds": model.thresholds,
        "criterion": settings.criterion.kind,
        "n_rejected": int(np.count_nonzero(found.arrays["rejected"] != "")),
        "disagreement": {name: _quantiles(found.arrays[f"disagreement_{name}"]) for name in PROPERTIES},
        "grade": _quantiles(found.arrays["grade"]),
        "n_out_of_span": count_out_of_span(found.arrays),
        "extrapolated": count_extrapolated(model, found.arrays),
        "warnings": [*found.warnings, *selection_warnings(len(committee.potentials), model, settings)],
    }


@dataclass(frozen=True)
class _Choice:
    """The frames to label, and what is known of all candidates.

    :ivar arrays: of :func:`~aiida_alpot.kernel.evaluating.build_table`, and which candidates are ``selected``.
    :ivar report: counts, for JSON.
    """

    frames: list[Atoms]
    arrays: dict[str, npt.NDArray[Any]]
    report: dict[str, Any]
    warnings: list[str]


def _choose(
    candidates: DatasetView,
    dataset: Dataset | None,
    potentials: Sequence[Potential],
    model: UncertaintyModel,
    settings: EvaluateSettings,
    seed: int,
) -> _Choice:
    """Return what is selected of the candidates, cut into pieces where it is too large."""
    adaptive = _find_adaptive(dataset, potentials, model, settings.criterion)
    table, arrays = build_table(candidates, potentials, model, settings)
    limits = find_limits(candidates, model, settings.criterion, arrays, adaptive)
    selection = select_candidates(
        table, model, settings, seed, limits=limits, candidates=candidates, dataset=dataset, potentials=potentials
    )
    arrays["selected"] = np.isin(np.arange(len(table)), selection.indices)
    frames = selected_frames(candidates, selection)
    report = {**selection.report, **({"adaptive_thresholds": adaptive} if adaptive else {})}
    if settings.cutout is not None:
        known_ids = () if dataset is None else dataset.frame_ids(labels=False).tolist()
        judge = Judge(potentials, model, flagging_grade(model, settings), settings.strategy == "random")
        cut = cut_large_frames(frames, settings.cutout, judge, settings.budget, seed, known_ids)
        frames = cut.frames
        report |= {"cutout": cut.report, **count_frames(frames)}
    return _Choice(frames, arrays, report, describe_failures(candidates, arrays["rejected"], "candidates"))


def _find_adaptive(
    dataset: Dataset | None, potentials: Sequence[Potential], model: UncertaintyModel, criterion: CriterionSettings
) -> dict[str, dict[str, float]]:
    """Return the thresholds from the training errors, none for another criterion."""
    if criterion.kind != "adaptive":
        return {}
    clusters_of = model if criterion.by == "cluster" else None
    return adaptive_thresholds(potentials, dataset, criterion.column, criterion.force_level, clusters_of)


def _quantiles(values: npt.NDArray[Any]) -> list[float] | None:
    """Return minimum, median, 90 % quantile and maximum of the values that are known."""
    known = values[~np.isnan(values)]
    return [float(q) for q in np.quantile(known, _QUANTILES, method="lower")] if known.size else None
