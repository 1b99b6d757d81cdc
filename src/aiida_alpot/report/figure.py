"""Error and disagreement over the iterations of a campaign, as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from aiida_alpot.kernel._extras import require
from aiida_alpot.report.table import EXTERNAL, reported_split

_GREY, _BLUE, _VERMILION = "#767676", "#0072b2", "#d55e00"  # the last two are told apart by every eye (Okabe, Ito 2008)
_PANELS: Final = {"force": "force, meV/Å", "energy": "energy, meV/atom"}
_MAX_TICKS: Final = 8


def plot_history(iterations: Sequence[Mapping[str, Any]], path: str | Path, title: str = "") -> None:
    """Draw error and disagreement of forces and energies against the number of labels.

    Shown are the frames that the table shows; iterations without an error on them are left out.

    :param iterations: rows of the output ``history``.
    :param path: file to write; its ending gives the format.
    :raises ValueError: if no row has errors yet.
    """
    split = next((name for row in iterations if (name := reported_split(row))), None)
    if split is None:
        raise ValueError("the history has no errors yet: no iteration was calibrated")
    rows = [row for row in iterations if split in (row.get("errors") or {})]
    matplotlib = require("matplotlib", extra="report")
    matplotlib.use("Agg", force=False)
    pyplot = require("matplotlib.pyplot", extra="report")
    figure, panels = pyplot.subplots(1, len(_PANELS), figsize=(8.4, 4.0), layout="constrained")
    labels = [int(row["n_labels"]) for row in rows]
    for axes, (name, text) in zip(panels, _PANELS.items(), strict=True):
        _plot_panel(axes, labels, [row["errors"][split] for row in rows], name)
        axes.set(xlabel="labelled frames", ylabel=f"rms {text}")
        axes.set_ylim(bottom=0)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False, handlelength=3)
    heading = f"errors on the {'test set' if split == EXTERNAL else f'{split} split'}"
    figure.suptitle(f"{title}: {heading}" if title else heading, fontsize="medium")
    figure.savefig(Path(path), dpi=160)
    pyplot.close(figure)


def _plot_panel(axes: Any, labels: Sequence[int], entries: Sequence[Mapping[str, Any]], name: str) -> None:
    """Draw one property: a dash per member, a line for the mean, a broken one for the disagreement."""
    pairs = list(zip(labels, entries, strict=True))
    members = [(x, member.get(name)) for x, entry in pairs for member in entry["members"]]
    mean = [(x, entry["committee_mean"].get(name)) for x, entry in pairs]
    spread = [(x, entry["disagreement"].get(name)) for x, entry in pairs]
    axes.plot(*_milli(members), "_", color=_GREY, markersize=9, label="error of each member")
    axes.plot(*_milli(mean), "o-", color=_BLUE, linewidth=1.8, markersize=5, label="error of the committee mean")
    axes.plot(*_milli(spread), "s--", color=_VERMILION, linewidth=1.8, markersize=5, label="disagreement")
    if len(labels) <= _MAX_TICKS:
        axes.set_xticks(labels)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _milli(points: Sequence[tuple[int, float | None]]) -> tuple[list[int], list[float]]:
    """Return x and y of *points*, y in thousandths; a gap where there is no number."""
    return [x for x, _ in points], [float("nan") if y is None else 1000 * y for _, y in points]
