"""Which new labels not to train on, seen beside the labels that were accepted before.

:func:`~aiida_alpot.kernel.labelling.gate.check_labels` judges a frame alone when it is labelled. Here a batch is
judged: by limits that hold for any frame, and, once there are enough labels of the same settings, by what the labels
say about each other and what a committee predicted for them. Frames that active learning picks are outliers by
nature, so a residual is never compared with a constant but with the residuals of frames that are as hard to predict.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np
from ase import Atoms

from aiida_alpot.kernel.dataset import Dataset, DatasetView
from aiida_alpot.kernel.labelling.labels import Labels, join_labels, read_labelled
from aiida_alpot.kernel.labelling.limits import Finding, check_limits
from aiida_alpot.kernel.labelling.quality_settings import QualitySettings
from aiida_alpot.kernel.labelling.residuals import Residuals
from aiida_alpot.kernel.labelling.statistics import check_statistics
from aiida_alpot.kernel.units import IntArray

__all__ = ["QualitySettings", "Residuals", "Verdict", "apply_review", "review", "summarise_review"]

CHECKS: Final = (
    "fingerprint",
    "overlap",
    "limit",
    "drift",
    "composition",
    "unit",
    "stress",
    "magnetism",
    "energy",
    "force",
    "committee",
)
"""Names of the checks; of several that object, the first one gives a verdict its name."""


@dataclass(frozen=True)
class Verdict:
    """What became of one labelled frame.

    :param frame: where the frame stands in what was reviewed.
    :param status: ``"labelled"`` (accepted) or ``"quarantined"``.
    :param check: the first check that objected, one of :data:`CHECKS`; "" if none did.
    :param reason: all objections, with numbers and units; "" if there is none.
    :param value: what the check found.
    :param limit: above which it objects, in the unit of *value*.
    """

    frame: int
    status: Literal["labelled", "quarantined"]
    check: str = ""
    reason: str = ""
    value: float = float("nan")
    limit: float = float("nan")


def review(
    frames: Iterable[Atoms] | Dataset | DatasetView,
    settings: QualitySettings | None = None,
    known: Iterable[Atoms] | Dataset | DatasetView | None = None,
    residuals: Residuals | None = None,
) -> list[Verdict]:
    """Judge new labels.

    Frames that are not labelled (failed, quarantined, unlabelled) get no verdict and take no part.

    :param frames: the new labels.
    :param known: labels that were accepted before: they are context and get no verdict.
    :param residuals: of a committee that was not fitted to the new labels, an entry for each of *frames*.
    :return: one verdict per labelled frame, in the order of *frames*.
    :raises ValueError: if a labelled frame has no finite energy and forces, or *residuals* have another length.
    """
    settings = QualitySettings() if settings is None else settings
    frames = frames if isinstance(frames, (Dataset, DatasetView)) else list(frames)
    if residuals is not None:
        residuals.check_length(len(frames))
    new = read_labelled(frames, "new labels")
    before = read_labelled([] if known is None else known, "known labels")
    findings = check_limits(new, settings)
    for rows, context in _comparable(new, before, settings):
        chosen = None if residuals is None else residuals.take(new.index[rows])
        found = check_statistics(join_labels(new.take(rows), context), len(rows), settings, chosen)
        for finding in found:
            findings.append(finding.of(int(rows[finding.frame])))
    by_frame: dict[int, list[Finding]] = {}
    for finding in findings:
        by_frame.setdefault(finding.frame, []).append(finding)
    return [_conclude(int(new.index[k]), by_frame.get(k, [])) for k in range(len(new))]


def _comparable(new: Labels, known: Labels, settings: QualitySettings) -> list[tuple[IntArray, Labels]]:
    """Return the rows of new labels that can be compared with each other, and the known ones they belong to.

    Same settings and same charge: the others have other energies for the same structure.
    """

    def keys(labels: Labels) -> list[tuple[str, float]]:
        charge = np.nan_to_num(labels.charge)
        return [(str(f), float(q)) for f, q in zip(labels.fingerprint, charge, strict=True)]

    new_keys, known_keys = keys(new), keys(known)
    found = []
    for key in sorted(set(new_keys)):
        if settings.fingerprint is not None and key[0] != settings.fingerprint:
            continue
        rows = np.flatnonzero([k == key for k in new_keys])
        context = known.take(np.flatnonzero([k == key for k in known_keys]))
        if len(rows) + len(context) >= settings.n_min:
            found.append((rows, context))
    return found


def _conclude(frame: int, findings: Sequence[Finding]) -> Verdict:
    if not findings:
        return Verdict(frame, "labelled")
    ordered = sorted(findings, key=lambda finding: CHECKS.index(finding.check))
    first = ordered[0]
    reason = "; ".join(finding.reason for finding in ordered)
    return Verdict(frame, "quarantined", first.check, reason, first.value, first.limit)


def apply_review(dataset: Dataset | DatasetView, verdicts: Sequence[Verdict]) -> dict[str, list[str]]:
    """Return the columns ``status`` and ``reason`` of a dataset after a review of all its frames.

    :param verdicts: of :func:`review` for the same dataset.
    :raises ValueError: if the verdicts are not those of the labelled frames of this dataset.
    """
    status = [str(value) for value in dataset.column("status")]
    reason = [str(value) for value in dataset.column("reason")]
    labelled = [k for k, value in enumerate(status) if value == "labelled"]
    if labelled != [verdict.frame for verdict in verdicts]:
        raise ValueError(
            f"{dataset.source}: there are {len(verdicts)} verdicts that do not belong to its {len(labelled)} labelled "
            "frames; review this dataset"
        )
    for verdict in verdicts:
        if verdict.status == "quarantined":
            status[verdict.frame] = verdict.status
            reason[verdict.frame] = verdict.reason
    return {"status": status, "reason": reason}


def summarise_review(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Return counts and the quarantined frames as plain values that JSON can hold."""
    bad = [verdict for verdict in verdicts if verdict.status == "quarantined"]
    counts: Mapping[str, int] = Counter(verdict.check for verdict in bad)
    return {
        "n_reviewed": len(verdicts),
        "n_quarantined": len(bad),
        "by_check": {name: counts[name] for name in CHECKS if name in counts},
        "quarantined": [_plain(verdict) for verdict in bad],
    }


def _plain(verdict: Verdict) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not np.isfinite(value) else value
        for name, value in asdict(verdict).items()
        if name != "status"
    }
