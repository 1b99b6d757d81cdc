"""What became of the frames of a labelling, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

MOST_REASONS: Final = 5
"""Reasons that are told of, the most frequent ones."""


def describe_labels(summary: Mapping[str, Any]) -> list[str]:
    """Return counts, the most frequent reasons and what is doubtful, a line each.

    :param summary: of :func:`~aiida_alpot.kernel.summaries.summarise_labels`.
    """
    counts = [f"{summary[f'n_{name}']} {name}" for name in ("labelled", "failed", "quarantined", "unlabelled")]
    lines = [f"{summary['n_frames']} frames: {', '.join(counts)}"]
    reasons = list(summary["reasons"].items())
    lines += [f"  {n} × {reason}" for reason, n in reasons[:MOST_REASONS]]
    if len(reasons) > MOST_REASONS:
        lines.append(f"  and {len(reasons) - MOST_REASONS} other reasons, see the column reason")
    return lines + [f"warning: {text}" for text in summary["warnings"]]


def describe_review(reviews: Iterable[Mapping[str, Any]]) -> str:
    """Return how many labels were reviewed and put into quarantine, and by which checks.

    :param reviews: by part, of :func:`~aiida_alpot.kernel.labelling.quality.review_part`.
    """
    parts = list(reviews)
    by_check: Counter[str] = sum((Counter(review["by_check"]) for review in parts), Counter())
    checks = ", ".join(f"{name} {n}" for name, n in by_check.most_common())
    n_reviewed = sum(review["n_reviewed"] for review in parts)
    n_bad = sum(review["n_quarantined"] for review in parts)
    return f"review: {n_bad} of {n_reviewed} labels are put into quarantine" + (f" ({checks})" if checks else "")
