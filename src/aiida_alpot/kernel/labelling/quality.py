"""Which new labels not to train on, seen beside the labels that were accepted before.

:func:`~aiida_alpot.kernel.labelling.gate.check_labels` judges a frame alone when it is labelled. Here a batch is
judged: by limits that hold for any frame, and, once there are enough labels of the same settings, by what the labels
say about each other and what a committee predicted for them. Frames that active learning picks are outliers by
nature, so a residual is never compared with a constant but with the residuals of frames that are as hard to predict.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal

import numpy as np
from ase import Atoms

from aiida_alpot.kernel.dataset import Dataset, DatasetView
from aiida_alpot.kernel.labelling.labels import Labels, join_labels, read_labelled
from aiida_alpot.kernel.labelling.limits import Finding, check_limits
from aiida_alpot.kernel.labelling.quality_settings import QualitySettings
from aiida_alpot.kernel.labelling.residuals import Residuals, read_residuals
from aiida_alpot.kernel.labelling.review_plan import count_parts, group_keys, plan_review
from aiida_alpot.kernel.labelling.statistics import check_statistics
from aiida_alpot.kernel.labelling.surrogate import has_neighbours
from aiida_alpot.kernel.units import IntArray

__all__ = [
    "QualitySettings",
    "Residuals",
    "Verdict",
    "count_parts",
    "quarantine_columns",
    "review",
    "review_part",
]

CHECKS: Final = (
    "fingerprint",
    "overlap",
    "limit",
    "drift",
    "missing",
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
    :param is_compared: whether there were enough labels to compare it with; only limits have judged it otherwise.
    """

    frame: int
    status: Literal["labelled", "quarantined"]
    check: str = ""
    reason: str = ""
    value: float = float("nan")
    limit: float = float("nan")
    is_compared: bool = False


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
    is_compared = np.zeros(len(new), dtype=bool)
    for rows, context in _comparable(new, before, settings):
        is_compared[rows] = True
        chosen = None if residuals is None else residuals.take(new.index[rows]).join(read_residuals(context.frames))
        found = check_statistics(join_labels(new.take(rows), context), len(rows), settings, chosen)
        for finding in found:
            findings.append(finding.of(int(rows[finding.frame])))
    by_frame: dict[int, list[Finding]] = {}
    for finding in findings:
        by_frame.setdefault(finding.frame, []).append(finding)
    verdicts = [_conclude(int(new.index[k]), by_frame.get(k, [])) for k in range(len(new))]
    return [replace(verdict, is_compared=bool(done)) for verdict, done in zip(verdicts, is_compared, strict=True)]


def _comparable(new: Labels, known: Labels, settings: QualitySettings) -> list[tuple[IntArray, Labels]]:
    """Return the rows of new labels that can be compared with each other, and the known ones they belong to.

    Isolated atoms do not count: they have no bonds and no forces.
    """
    new_keys, known_keys = (group_keys(labels.fingerprint, labels.charge) for labels in (new, known))
    found = []
    for key in sorted(set(new_keys)):
        if settings.fingerprint is not None and key[0] != settings.fingerprint:
            continue
        rows = np.flatnonzero([k == key for k in new_keys])
        context = known.take(np.flatnonzero([k == key for k in known_keys]))
        bound = [has_neighbours(atoms) for atoms in (*new.take(rows).frames, *context.frames)]
        if sum(bound) >= settings.n_min:
            found.append((rows, context))
    return found


def _conclude(frame: int, findings: Sequence[Finding]) -> Verdict:
    if not findings:
        return Verdict(frame, "labelled")
    ordered = sorted(findings, key=lambda finding: CHECKS.index(finding.check))
    first = ordered[0]
    reason = "; ".join(finding.reason for finding in ordered)
    return Verdict(frame, "quarantined", first.check, reason, first.value, first.limit)


def review_part(
    labelled: Dataset,
    frames: Dataset | None,
    settings: QualitySettings,
    known: Dataset | None = None,
    *,
    part: int = 0,
    n_parts: int = 1,
    fingerprint: str | None = None,
) -> dict[str, Any]:
    """Judge one part of the labels that a labelling made, beside a sample of all others.

    Labels that were accepted before, when there were too few to compare them, are judged with the first new ones that
    make them enough; so long as fewer than ``settings.n_min`` are accepted, that has not happened. Frames are named by
    their ids and parts are drawn by them, so that the order of the rows does not matter.

    :param labelled: what the labelling returned: :func:`review` judges the labels that were not among *frames*.
    :param frames: what it was given; None if all labels are new.
    :param known: labels that were accepted before.
    :param part: which of *n_parts* is judged, see :func:`count_parts`.
    :param fingerprint: of the settings that were asked for, unless *settings* name one.
    :return: see :func:`_summarise`; all of it plain values that JSON can hold.
    """
    settings = replace(settings, fingerprint=settings.fingerprint or fingerprint)
    plan = plan_review(labelled, frames, known)
    judged = plan.choose(settings.n_min, settings.fingerprint)[part::n_parts]
    chosen = plan.frames(judged)
    context = plan.frames(plan.context(judged, settings.n_min))
    verdicts = review(chosen, settings, context, read_residuals(chosen))
    ids = [str(identity) for identity in plan.ids[judged]]
    return _summarise(verdicts, ids, plan.is_new[judged].tolist(), settings.n_min)


def quarantine_columns(dataset: Dataset | DatasetView, reasons: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the columns ``status`` and ``reason`` of a dataset of which some labels are set aside.

    :param reasons: why, by the id of the frame.
    """
    status = [str(value) for value in dataset.column("status")]
    reason = [str(value) for value in dataset.column("reason")]
    for k, identity in enumerate(dataset.frame_ids()):
        if str(identity) in reasons:
            status[k], reason[k] = "quarantined", reasons[str(identity)]
    return {"status": status, "reason": reason}


def _summarise(verdicts: Sequence[Verdict], ids: Sequence[str], is_new: Sequence[bool], n_min: int) -> dict[str, Any]:
    """Return verdicts as plain values.

    :return: ``n_reviewed``, of these ``n_late`` that were accepted before without a comparison, ``n_not_compared`` that
        are so now since there are fewer than ``n_min``; ``n_quarantined``, counts ``by_check``, and ``quarantined``: by
        the id of the frame, ``check``, ``reason``, ``value`` and ``limit``.
    """
    bad = [verdict for verdict in verdicts if verdict.status == "quarantined"]
    counts: Mapping[str, int] = Counter(verdict.check for verdict in bad)
    return {
        "n_reviewed": len(verdicts),
        "n_late": len(verdicts) - sum(is_new),
        "n_not_compared": sum(verdict.status == "labelled" and not verdict.is_compared for verdict in verdicts),
        "n_min": n_min,
        "n_quarantined": len(bad),
        "by_check": {name: counts[name] for name in CHECKS if name in counts},
        "quarantined": {ids[verdict.frame]: _plain(verdict) for verdict in bad},
    }


def _plain(verdict: Verdict) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not np.isfinite(value) else value
        for name, value in asdict(verdict).items()
        if name not in ("frame", "status", "is_compared")
    }
