"""Bring together what an iteration reported and decide whether the loop goes on; keep the record of iterations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from aiida_alpot.kernel.calibrating import rms_errors
from aiida_alpot.kernel.convergence import PROPERTIES, ConvergenceSettings, IterationState, decide, stop_reason
from aiida_alpot.kernel.cutouts import core_of, whole_frames
from aiida_alpot.kernel.jsonio import plain
from aiida_alpot.kernel.potentials import Predictions, offsets_of, reference_predictions
from aiida_alpot.kernel.settings import parse_settings

_EXPLORATION = ("n_trajectories", "n_healthy_trajectories", "n_frames", "outcomes")
_EVALUATION = ("n_candidates", "n_healthy", "n_flagged", "flagged", "n_selected", "n_control", "disagreement", "grade")


@dataclass(frozen=True)
class Budget:
    """What may be spent: iterations, and labels in the dataset (no limit if None)."""

    max_iterations: int
    n_labels: int
    max_labels: int | None = None


def decide_iteration(
    settings: Mapping[str, Any],
    reports: Mapping[str, Mapping[str, Any]],
    frames: Sequence[Atoms],
    past: Sequence[Mapping[str, Any]],
    budget: Budget,
) -> dict[str, Any]:
    """Return the decision after one iteration as a mapping.

    :param settings: of :class:`~aiida_alpot.kernel.convergence.ConvergenceSettings`.
    :param reports: ``evaluation`` (results of the task) and, if there were such, ``exploration`` and the ``properties``
        that gates judge.
    :param frames: the selected frames after labelling; the labelled control frames among them judge the committee by
        the predictions it made before it saw their labels.
    :param past: rows of the history.
    :return: the fields of :class:`~aiida_alpot.kernel.convergence.Decision`; ``stop``, the reason to end the loop or
        None; ``selected_error``, the error of the predictions on all selected frames.
    """
    parsed = parse_settings(ConvergenceSettings, settings, "convergence")
    evaluation, exploration = reports["evaluation"], reports.get("exploration", {})
    control = [atoms for atoms in frames if atoms.info.get("control", False) and _is_labelled(atoms)]
    errors = prediction_errors(control)
    last = past[-1].get("decision") if past else None
    state = IterationState(
        n_candidates=int(evaluation["n_candidates"]),
        n_trajectories=int(exploration.get("n_trajectories", evaluation["n_groups"])),
        n_healthy_trajectories=int(exploration.get("n_healthy_trajectories", evaluation["n_groups_healthy"])),
        flagged={name: int(count) for name, count in evaluation["flagged"].items()},
        n_control=len(control),
        control_error={name: value for name, value in errors.items() if np.isfinite(value)},
        judged=PROPERTIES if not control or whole_frames(control).any() else ("force",),
        streak=int(last["numbers"]["streak"]) if last else 0,
        properties=reports.get("properties"),
    )
    verdict = decide(state, parsed)
    decision = asdict(verdict)
    decision["stop"] = stop_reason(verdict, len(past) + 1, budget.max_iterations, budget.n_labels, budget.max_labels)
    decision["selected_error"] = prediction_errors([atoms for atoms in frames if _is_labelled(atoms)])
    return plain(decision)  # type: ignore[no-any-return]


def prediction_errors(frames: Sequence[Atoms]) -> dict[str, float]:
    """Return the rms error of the mean predictions that selected frames carry, against their labels.

    Of a piece of a larger frame, the forces of its core count alone.
    """
    if not frames:
        return {}
    predicted = Predictions(
        energy=np.array([atoms.info["committee_energy"] for atoms in frames]),
        forces=np.concatenate([atoms.arrays["committee_forces"] for atoms in frames]),
        stress=np.array([atoms.info["committee_stress"] for atoms in frames]),
        offsets=offsets_of(frames),
    )
    return rms_errors(predicted, reference_predictions(frames), [atoms.pbc for atoms in frames], core_of(frames))


def _is_labelled(atoms: Atoms) -> bool:
    is_reference = isinstance(atoms.calc, SinglePointCalculator)
    return atoms.info.get("status") == "labelled" and is_reference and "committee_energy" in atoms.info


def iteration_row(reports: Mapping[str, Mapping[str, Any]], counts: Mapping[str, int]) -> dict[str, Any]:
    """Return one row of the history from the reports of the stages of an iteration.

    :param reports: of ``training``, ``calibration``, ``exploration``, ``evaluation``, ``labelling`` and ``decision``,
        those that ran.
    :param counts: frames of the dataset the iteration trained on, by split.
    """
    row: dict[str, Any] = {"n_frames": dict(counts), "n_labels": sum(counts.values())}
    if "calibration" in reports:
        results = reports["calibration"]["results"]
        row["errors"] = results["errors"]
        row["thresholds"] = results["thresholds"]
        row["calibrations"] = {
            name: {key: calibration[key] for key in ("scale", "interval", "n_points", "calibrated", "warnings")}
            for name, calibration in results["calibrations"].items()
        }
    if "training" in reports:
        row["training"] = reports["training"]["mean"]
        row["training_seconds"] = reports["training"]["seconds"]
    if "exploration" in reports:
        row["exploration"] = {name: reports["exploration"][name] for name in _EXPLORATION}
    if "evaluation" in reports:
        results = reports["evaluation"]["results"]
        row["evaluation"] = {name: results[name] for name in _EVALUATION}
    if "labelling" in reports:
        row["labelling"] = {name: reports["labelling"][name] for name in ("n_labelled", "n_failed", "cost_s")}
    if "decision" in reports:
        row["decision"] = dict(reports["decision"])
    return plain(row)  # type: ignore[no-any-return]


def conclude(history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return why a loop ended and what it reached, from its history.

    :return: ``reason`` (``converged``, ``max_iterations``, ``max_labels``, or ``trained`` if nothing was searched),
        ``message``, ``n_iterations``, ``n_labels`` and the last ``errors``.
    """
    decisions = [row["decision"] for row in history if row.get("decision")]
    last = decisions[-1] if decisions else {"stop": "trained", "message": "trained and calibrated without a search"}
    with_errors = [row for row in history if row.get("errors")]
    return {
        "reason": last["stop"],
        "message": last["message"],
        "n_iterations": len(decisions),
        "n_labels": history[-1]["n_labels"],
        "errors": with_errors[-1]["errors"] if with_errors else {},
    }
