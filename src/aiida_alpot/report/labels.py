"""What became of the frames of a labelling, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from aiida_alpot.kernel.summaries import describe_review

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
    if "review" in summary:
        lines += [f"review: {line}" for line in describe_review(summary["review"])]
    return lines + [f"warning: {text}" for text in summary["warnings"]]
