"""The history of a campaign as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

EXTERNAL = "external_test"


def reported_split(row: Mapping[str, Any]) -> str | None:
    """Return the set of frames whose error is shown: the external test set if there is one, else the test split."""
    errors = row.get("errors") or {}
    return next((name for name in (EXTERNAL, "test", "calibration", "validation") if name in errors), None)


def build_table(iterations: Sequence[Mapping[str, Any]]) -> Table:
    """Return one line per iteration: labels, errors of the committee mean, thresholds, what was found."""
    split = next((name for row in iterations if (name := reported_split(row))), None)
    where = "test set" if split == EXTERNAL else f"{split} split"
    title = f"Error: root mean square of the committee mean on the {where}" if split else "No errors yet"
    table = Table(
        box=SIMPLE,
        pad_edge=False,
        title=title,
        title_justify="left",
    )
    for column in (
        "iter",
        "labels",
        "force\nmeV/Å",
        "energy\nmeV/atom",
        "disagree\nmeV/Å",
        "candi-\ndates",
        "above\nlimit",
        "chosen",
        "train\ns",
    ):
        table.add_column(column, justify="right")
    for row in iterations:
        table.add_row(*_cells(row, split))
    return table


def _cells(row: Mapping[str, Any], split: str | None) -> list[str]:
    errors = (row.get("errors") or {}).get(split or "", {})
    mean = errors.get("committee_mean", {})
    evaluation = row.get("evaluation") or {}
    seconds = row.get("training_seconds") or {}
    return [
        str(row["iteration"]),
        str(row["n_labels"]),
        _milli(mean.get("force")),
        _milli(mean.get("energy")),
        _milli(errors.get("disagreement", {}).get("force")),
        _count(evaluation.get("n_candidates")),
        _count(evaluation.get("n_flagged")),
        _count(evaluation.get("n_selected")),
        f"{max(seconds.values()):.0f}" if seconds else "–",
    ]


def _milli(value: float | None) -> str:
    return "–" if value is None else f"{1000 * value:.1f}"


def _count(value: int | None) -> str:
    return "–" if value is None else str(value)
