"""Task ``evaluate``: judge all candidates and select those worth a label."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aiida_alpot.kernel.dataset import Dataset, merge, write
from aiida_alpot.kernel.evaluating import (
    EvaluateSettings,
    build_table,
    canonical_order,
    select_candidates,
    selected_frames,
)
from aiida_alpot.kernel.settings import parse_settings
from aiida_alpot.kernel.tasks.inputs import load_committee
from aiida_alpot.kernel.uncertainty import PROPERTIES, UncertaintyModel

OUTPUT = "selected.h5"
TABLE = "table.npz"
_QUANTILES = (0.0, 0.5, 0.9, 1.0)


def run(task: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Write ``selected.h5`` and ``table.npz`` and return counts, thresholds and quantiles."""
    settings = parse_settings(EvaluateSettings, task["settings"], "evaluate.settings")
    committee = load_committee({**task, "device": settings.device}, folder)
    model = UncertaintyModel.load(folder / task["uncertainty"])
    model.require_models(committee.hashes)
    pool = folder / "candidates.h5"
    merge([folder / name for name in task["candidates"]], pool)
    with ExitStack() as stack:
        candidates = canonical_order(stack.enter_context(Dataset.open(pool)))
        dataset = stack.enter_context(Dataset.open(folder / task["dataset"])) if "dataset" in task else None
        table, arrays = build_table(candidates, committee.potentials, model, settings)
        selection = select_candidates(
            table,
            model,
            settings,
            int(task["seed"]),
            candidates=candidates,
            dataset=dataset,
            potential=committee.potentials[0],
        )
        frames = selected_frames(candidates, selection, committee.potentials)
    write(folder / OUTPUT, frames)
    arrays["selected"] = np.isin(np.arange(len(table)), selection.indices)
    np.savez(folder / TABLE, allow_pickle=False, **arrays)
    return {
        **selection.report,
        "thresholds": model.thresholds,
        "disagreement": {name: _quantiles(arrays[f"disagreement_{name}"]) for name in PROPERTIES},
        "grade": _quantiles(arrays["grade"]),
    }


def _quantiles(values: npt.NDArray[Any]) -> list[float] | None:
    """Return minimum, median, 90 % quantile and maximum of the values that are known."""
    known = values[~np.isnan(values)]
    return [float(q) for q in np.quantile(known, _QUANTILES, method="lower")] if known.size else None
