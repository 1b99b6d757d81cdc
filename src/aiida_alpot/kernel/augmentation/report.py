"""What a run made, skipped, lost and removed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from aiida_alpot.kernel.augmentation.base import DroppedFrameError, NotApplicableError


@dataclass
class Report:
    """Counts of one run."""

    n_input: int = 0
    n_output: int = 0
    made: Counter[str] = field(default_factory=Counter)
    skipped: Counter[tuple[str, str]] = field(default_factory=Counter)
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)
    removed: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def count(self, name: str, reason: NotApplicableError | DroppedFrameError) -> None:
        """Count a frame that a manipulation left as it was, or lost."""
        counts = self.skipped if isinstance(reason, NotApplicableError) else self.dropped
        counts[name, str(reason)] += 1

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as JSON can hold them."""
        return {
            "n_input": self.n_input,
            "n_output": self.n_output,
            "n_duplicates": sum(count for (name, _), count in self.removed.items() if name == "duplicates"),
            "made": dict(sorted(self.made.items())),
            **self.losses(),
            "examples": dict(sorted(self.examples.items())),
        }

    def losses(self) -> dict[str, Any]:
        """Return what was not made, per manipulation or filter and reason."""
        return {
            "skipped": _nested(self.skipped),
            "dropped": _nested(self.dropped),
            "removed": _nested(self.removed),
        }


def _nested(counts: Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
    nested: dict[str, dict[str, int]] = {}
    for (name, reason), count in sorted(counts.items()):
        nested.setdefault(name, {})[reason] = count
    return nested
