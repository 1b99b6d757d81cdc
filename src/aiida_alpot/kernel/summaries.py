"""Sum up what the jobs of a stage reported, for people and for decisions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aiida_alpot.kernel.dataset import Dataset
from aiida_alpot.kernel.doubts import find_doubtful_labels
from aiida_alpot.kernel.jsonio import plain

MAX_REASONS = 20
TRAINABLE = ("train", "validation")


def summarise_labels(dataset: Dataset, reviews: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """Return counts by status, the share that failed, the most frequent reasons and the cost in seconds.

    ``n_trainable`` counts the labelled frames of the splits that potentials are fitted to; ``warnings`` are those of
    :func:`~aiida_alpot.kernel.doubts.find_doubtful_labels`; ``review`` counts the objections by check.

    :param reviews: of the labels, see :func:`~aiida_alpot.kernel.labelling.quality.review_part`.
    """
    status = dataset.column("status")
    counts = Counter(status.tolist())
    n_frames = len(dataset)
    bad = status != "labelled"
    reasons = Counter(reason or "no reason" for reason in dataset.column("reason")[bad].tolist())
    cost = dataset.column("cost")
    summary = {
        "n_frames": n_frames,
        **{f"n_{name}": counts.get(name, 0) for name in ("labelled", "unlabelled", "failed", "quarantined")},
        "n_trainable": int((~bad & np.isin(dataset.column("split"), TRAINABLE)).sum()),
        "failed_fraction": float(bad.mean()) if n_frames else 0.0,
        "reasons": dict(reasons.most_common(MAX_REASONS)),
        "example": next(iter(reasons), ""),
        "cost_s": float(np.nansum(cost)) if n_frames else 0.0,
        "fingerprints": sorted(set(dataset.column("fingerprint")[~bad].tolist())),
        "warnings": find_doubtful_labels(dataset),
    }
    if reviews:
        summary["review"] = sum_reviews(reviews)
    return plain(summary)  # type: ignore[no-any-return]


REVIEW_COUNTS = ("n_reviewed", "n_late", "n_not_compared", "n_quarantined")


def sum_reviews(reviews: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the counts of all parts of a review, and its ``n_min``.

    :param reviews: at least one, of :func:`~aiida_alpot.kernel.labelling.quality.review_part`.
    """
    by_check = sum((Counter(review["by_check"]) for review in reviews), Counter[str]())
    counts = {name: sum(review[name] for review in reviews) for name in REVIEW_COUNTS}
    return {**counts, "n_min": reviews[0]["n_min"], "by_check": dict(by_check.most_common())}


def describe_review(review: Mapping[str, Any]) -> list[str]:
    """Return what a review says about all labels together, a line each.

    :param review: of :func:`sum_reviews`.
    """
    checks = ", ".join(f"{name} {n}" for name, n in review["by_check"].items())
    found = f"{review['n_quarantined']} of {review['n_reviewed']} labels are put into quarantine"
    lines = [f"{found} ({checks})" if checks else found]
    if review["n_late"]:
        lines.append(f"{review['n_late']} of them were accepted before, when they were too few to be compared")
    if review["n_not_compared"]:
        few = f"there are fewer than {review['n_min']} of the same settings and charge"
        lines.append(f"{review['n_not_compared']} accepted labels are not compared with others yet: {few}")
    return lines


def summarise_committee(reports: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the errors per split of every member, their means, and what each training took.

    :param reports: report of the training of each member.
    """
    members = {key: report["results"]["rmse"] for key, report in sorted(reports.items())}
    splits = sorted({split for errors in members.values() for split in errors})
    mean: dict[str, dict[str, float]] = {}
    for split in splits:
        rows = [errors[split] for errors in members.values() if split in errors]
        names = sorted({name for row in rows for name in row})
        mean[split] = {name: float(np.mean([row[name] for row in rows if name in row])) for name in names}
    seconds = {key: report["seconds"] for key, report in sorted(reports.items())}
    return plain({"members": members, "mean": mean, "seconds": seconds})  # type: ignore[no-any-return]


def summarise_exploration(
    reports: Mapping[str, Mapping[str, Any]], plans: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, Any]:
    """Return the trajectories of all jobs, how many ran and how many of these stayed healthy until a rule ended them.

    Those whose start was not healthy never ran: ``n_unfit`` counts them, ``n_trajectories`` does not.

    :param reports: report of each job; a job whose trajectories all failed has one too.
    :param plans: ``first`` and ``last`` (not included) of the trajectories that each job was to run. Those of a job
        that reported none, since it crashed, count as run and not healthy, with the outcome ``lost``.
    """
    plans = plans or {}
    trajectories: list[Any] = []
    n_lost = 0
    for key in sorted({*reports, *plans}):
        found = reports.get(key, {}).get("results", {}).get("trajectories", [])
        trajectories += found
        if not found and key in plans:
            n_lost += plans[key].get("last", 0) - plans[key].get("first", 0)
    outcomes = Counter(str(trajectory["outcome"]) for trajectory in trajectories)
    n_unfit = outcomes["unfit"]
    if n_lost:
        outcomes["lost"] = n_lost
    summary = {
        "n_jobs": len({*reports, *plans}),
        "n_trajectories": len(trajectories) - n_unfit + n_lost,
        "n_unfit": n_unfit,
        "n_healthy_trajectories": sum(bool(trajectory["healthy"]) for trajectory in trajectories),
        "n_frames": sum(int(trajectory["n_frames"]) for trajectory in trajectories),
        "outcomes": dict(sorted(outcomes.items())),
        "trajectories": trajectories,
    }
    return plain(summary)  # type: ignore[no-any-return]
