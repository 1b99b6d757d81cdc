"""Task ``predict``: predictions of a committee with error bars."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ase import Atoms

from aiida_alpot.kernel.dataset import Dataset, write
from aiida_alpot.kernel.predicting import Predictor, PredictSettings, extrapolation_warnings, summarise
from aiida_alpot.kernel.settings import parse_settings
from aiida_alpot.kernel.tasks.entries import find_file, read_entry
from aiida_alpot.kernel.tasks.inputs import load_committee, load_uncertainty

OUTPUT = "predicted.h5"
_CHUNK = 256


def run(task: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Write ``predicted.h5`` and return quantiles of the error bars and what is above tolerance."""
    settings = parse_settings(PredictSettings, read_entry(task, "settings", dict[str, Any]), "predict.settings")
    committee = load_committee({**task, "device": settings.device}, folder)
    model = load_uncertainty(task, folder, committee)
    predictor = Predictor(committee.potentials, model, settings)

    def predicted() -> Iterator[Atoms]:
        with Dataset.open(find_file(task, "frames", folder)) as frames:
            for chunk in frames.iter_chunks(_CHUNK):
                yield from predictor.predict(list(chunk))

    write(folder / OUTPUT, predicted())
    with Dataset.open(folder / OUTPUT) as done:
        summary = summarise(done, model)
    warnings = predictor.warnings + extrapolation_warnings(summary)
    return {**summary, "tolerances": dict(model.tolerances), "warnings": warnings}
