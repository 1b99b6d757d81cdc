"""Error and disagreement over the iterations of a campaign, as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aiida_alpot.kernel._extras import require
from aiida_alpot.report.table import EXTERNAL, reported_split

_INK, _BLUE, _ORANGE = "#222222", "#2166ac", "#d6604d"


def plot_history(iterations: Sequence[Mapping[str, Any]], path: str | Path, title: str = "") -> None:
    """Draw force error and disagreement, and the energy error, against the number of labels.

    :param iterations: rows of the output ``history``.
    :param path: file to write; its ending gives the format.
    :raises ValueError: if no row has errors yet.
    """
    rows = [row for row in iterations if reported_split(row)]
    if not rows:
        raise ValueError("the history has no errors yet: no iteration was calibrated")
    matplotlib = require("matplotlib", extra="report")
    matplotlib.use("Agg", force=False)
    pyplot = require("matplotlib.pyplot", extra="report")
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(8.4, 3.6), layout="constrained")
    labels = [row["n_labels"] for row in rows]
    split = reported_split(rows[0]) or ""
    name = "test set" if split == EXTERNAL else f"{split} split"
    entries = [row["errors"][split] for row in rows]
    _plot_members(left, labels, entries, "force")
    _plot_line(left, labels, [entry["committee_mean"]["force"] for entry in entries], _BLUE, "error, committee mean")
    _plot_line(left, labels, [entry["disagreement"]["force"] for entry in entries], _ORANGE, "disagreement", "--")
    left.set(xlabel="labels", ylabel="force, meV/Å", ylim=(0, None), title=f"forces on the {name}")
    left.legend(frameon=False, fontsize=8)
    _plot_members(right, labels, entries, "energy")
    _plot_line(right, labels, [entry["committee_mean"]["energy"] for entry in entries], _BLUE, "error, committee mean")
    _plot_line(right, labels, [entry["disagreement"]["energy"] for entry in entries], _ORANGE, "disagreement", "--")
    right.set(xlabel="labels", ylabel="energy, meV/atom", ylim=(0, None), title=f"energies on the {name}")
    for axes in (left, right):
        axes.set_xticks(labels)
        axes.spines[["top", "right"]].set_visible(False)
    if title:
        figure.suptitle(title)
    figure.savefig(Path(path), dpi=160)
    pyplot.close(figure)


def _plot_line(
    axes: Any, x: Sequence[int], y: Sequence[float | None], color: str, label: str, style: str = "-"
) -> None:
    values = [float("nan") if value is None else 1000 * value for value in y]
    axes.plot(x, values, style, marker="o", color=color, label=label, linewidth=1.8)


def _plot_members(axes: Any, x: Sequence[int], entries: Sequence[Mapping[str, Any]], name: str) -> None:
    for k, entry in enumerate(entries):
        values = [1000 * member[name] for member in entry["members"] if member[name] is not None]
        label = "error, members" if k == 0 else None
        axes.plot([x[k]] * len(values), values, "_", color=_INK, alpha=0.6, markersize=9, label=label)
