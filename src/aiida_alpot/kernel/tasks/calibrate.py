"""Task ``calibrate``: error bars for a committee, and its errors on every split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from aiida_alpot.kernel.calibrating import CalibrateSettings, SplitErrors, assess, fit_uncertainty, rates
from aiida_alpot.kernel.dataset import Dataset
from aiida_alpot.kernel.settings import parse_settings
from aiida_alpot.kernel.tasks import TaskError
from aiida_alpot.kernel.tasks.entries import find_file, read_entry
from aiida_alpot.kernel.tasks.inputs import Committee, load_committee, read_labelled
from aiida_alpot.kernel.uncertainty import LocalActiveSet, UncertaintyModel, describe_failures

OUTPUT = "uncertainty.h5"
PREVIOUS = "previous.h5"
EXTERNAL = "external_test"


def run(task: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Write ``uncertainty.h5`` and return errors per split, calibrations and thresholds."""
    settings = parse_settings(CalibrateSettings, read_entry(task, "settings", dict[str, Any]), "calibrate.settings")
    if settings.feature_spec is not None:
        settings.feature_spec.require()
    committee = load_committee({**task, "device": settings.device}, folder)
    with Dataset.open(find_file(task, "dataset", folder)) as dataset:
        frames = {split: read_labelled(dataset, split) for split in ("train", "validation", "test", "calibration")}
    assessed = {split: assess(committee.potentials, found, settings) for split, found in frames.items() if found}
    warnings = [note for split, found in assessed.items() for note in describe_left_out(split, frames[split], found)]
    errors = {split: found.summary for split, found in assessed.items()}
    if "test_frames" in task:
        with Dataset.open(find_file(task, "test_frames", folder)) as dataset:
            external = read_labelled(dataset, None)
        judged = assess(committee.potentials, external, settings)
        errors[EXTERNAL] = judged.summary
        warnings += describe_left_out(EXTERNAL, external, judged)
    frames = {split: keep_predicted(found, assessed.get(split)) for split, found in frames.items()}
    held_out, splits = _assess_held_out(committee, frames, settings, warnings)
    previous = UncertaintyModel.load(find_file(task, "previous", folder)) if "previous" in task else None
    model = fit_uncertainty(
        committee.potentials, committee.hashes, held_out, frames["train"], settings, previous, folder
    )
    model.save(folder / OUTPUT)
    return {
        "errors": errors,
        "calibrated_on": splits,
        "calibrations": {name: calibration.to_dict() for name, calibration in model.calibrations.items()},
        "rates": rates(model, held_out),
        "thresholds": model.thresholds,
        "tolerances": dict(settings.tolerances),
        "uncalibrated": sorted(set(settings.tolerances) - set(model.calibrations)),
        **describe_active_set(model),
        "warnings": warnings,
    }


def describe_left_out(name: str, frames: Sequence[Atoms], found: SplitErrors) -> list[str]:
    """Return what to say of the frames of a split that a member of the committee fails to predict."""
    return [] if found.failures is None else describe_failures(frames, found.failures, name)


def keep_predicted(frames: Sequence[Atoms], found: SplitErrors | None) -> list[Atoms]:
    """Return the frames that all members predict."""
    if found is None or found.failures is None:
        return list(frames)
    return [atoms for atoms, failure in zip(frames, found.failures, strict=True) if not failure]


def _assess_held_out(
    committee: Committee, frames: Mapping[str, list[Atoms]], settings: CalibrateSettings, warnings: Sequence[str]
) -> tuple[SplitErrors, list[str]]:
    """Return the errors on the frames to calibrate on and the names of their splits.

    :param frames: that the committee predicts, by split.
    :param warnings: of the frames that it does not.
    """
    splits = [split for split in settings.splits if frames[split]]
    if sum(len(frames[split]) for split in splits) < settings.n_min:
        splits += [split for split in settings.fallback_splits if frames[split] and split not in splits]
    chosen = [atoms for split in splits for atoms in frames[split]]
    if not chosen:
        names = ", ".join(settings.splits + settings.fallback_splits)
        remedy = f" is predicted ({'; '.join(warnings)}); train again" if warnings else "; give them a share"
        raise TaskError("no_held_out_frames", f"no labelled frame in the splits {names}{remedy}")
    return assess(committee.potentials, chosen, settings), splits


def describe_active_set(model: UncertaintyModel) -> dict[str, Any]:
    """Return for the report what the active set holds and how it was made."""
    return {
        "active_atoms": count_active_atoms(model),
        "active_frames": count_active_frames(model),
        "active_set": dict(model.active_set_report),
        "features": describe_features(model),
        "n_clusters": len(model.active_set.members) if isinstance(model.active_set, LocalActiveSet) else None,
        "frame_clusters": None if model.frame_clusters is None else list(model.frame_clusters.names),
    }


def count_active_atoms(model: UncertaintyModel) -> dict[str, int]:
    """Return how many atoms of each species span the training features, those of all clusters together.

    None where configurations do.
    """
    if model.active_set is None or model.active_set.mode == "configuration":
        return {}
    return {chemical_symbols[number]: len(rows) for number, rows in model.active_set.owners.items()}


def count_active_frames(model: UncertaintyModel) -> int:
    """Return how many training frames have an atom in the active set, or are in it as a whole."""
    owners = [] if model.active_set is None else list(model.active_set.owners.values())
    return len(np.unique(np.concatenate(owners))) if owners else 0


def describe_features(model: UncertaintyModel) -> dict[str, Any] | None:
    """Return kind, parameters and number of the features of the active set; None without one."""
    if model.active_set is None:
        return None
    members = model.active_set.members if isinstance(model.active_set, LocalActiveSet) else (model.active_set,)
    sizes = {member.n_features for member in members}
    return {
        "kind": model.feature_kind,
        "parameters": dict(model.feature_parameters),
        "n_features": max(sizes, default=0),
    }
