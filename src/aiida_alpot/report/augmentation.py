"""What became of an augmentation, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def describe_augmentation(report: Mapping[str, Any]) -> list[str]:
    """Return what was made, and what was not for which reason, a line each.

    :param report: of :class:`~aiida_alpot.kernel.augmentation.AugmentResult`.
    """
    lines = [f"{report['n_input']} inputs, {report['n_output']} frames"]
    lines += [f"  {count} × {kind}" for kind, count in report["made"].items()]
    for fate in ("skipped", "dropped", "removed"):
        for name, reasons in report[fate].items():
            for reason, count in reasons.items():
                example = report["examples"].get(f"{name}: {reason}")
                lines.append(f"{fate} by {name}: {count} × {reason}" + (f", e.g. {example}" if example else ""))
    return lines
