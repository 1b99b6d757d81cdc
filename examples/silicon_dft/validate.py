"""Compare a committee with pw.x: equation of state and elastic constants, pw.x with the settings of the labels.

``python validate.py PK`` does it again for a campaign of this example.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from aiida import orm
from aiida.engine import submit
from aiida.plugins import WorkflowFactory
from ase import Atoms
from properties import Properties, compute_properties

from aiida_alpot.data.pes import PESData
from aiida_alpot.kernel.potentials import Potential, Predictions, load, predict_committee, reference_predictions
from aiida_alpot.kernel.uncertainty import mean_prediction
from aiida_alpot.report.table import reported_split

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import common  # noqa: E402  it lies beside this folder and is not installed

PROFILE = "silicon"
ROWS = {
    "a0": "a0, Å",
    "b0": "B0 of the EOS, GPa",
    "c11": "C11, GPa",
    "c12": "C12, GPa",
    "c44": "C44, relaxed, GPa",
    "c44_clamped": "C44, clamped, GPa",
    "zeta": "internal strain ζ",
}


def validate(campaign: orm.WorkChainNode, folder: Path) -> str:
    """Write table and figure of the last committee of a campaign beside pw.x into *folder*, and return the table.

    The equation of state is computed about the lattice constant that the campaign began with.
    """
    crystal = campaign.inputs.structures[0]
    symbol, lattice_constant = crystal.get_chemical_symbols()[0], float(crystal.cell.lengths()[0])
    reference = compute_properties(partial(label, campaign), symbol, lattice_constant)
    potentials = [
        load(folder / f"{name}.model", potential.engine, dtype=potential.dtype)
        for name, potential in sorted(campaign.outputs.potentials.items())
    ]
    mean = compute_properties(partial(predict_mean, potentials), symbol, lattice_constant)
    members = [compute_properties(potential.predict, symbol, lattice_constant) for potential in potentials]
    table = compare(reference, mean, members)
    text = format_table(table)
    (folder / "validation.md").write_text(text, encoding="utf-8")
    curves = {
        name: {"volume": made.volumes.tolist(), "energy": made.energies.tolist()}
        for name, made in (("pw.x", reference), ("committee", mean))
    }
    content = {"properties": table, "equation_of_state": curves}
    (folder / "validation.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    plot(reference, mean, members, campaign.outputs.history["iterations"], folder / "validation.png")
    return text


def label(campaign: orm.WorkChainNode, frames: Sequence[Atoms]) -> Predictions:
    """Return the labels of *frames* by the engine, code and settings that the campaign labelled with."""
    builder = WorkflowFactory("alpot.label").get_builder()
    for name in ("code", "engine", "parameters", "options", "max_concurrent"):
        builder[name] = campaign.inputs.label[name]
    builder.frames = PESData.from_frames(frames)
    builder.metadata.label = f"validation of campaign {campaign.pk}"
    node = submit(builder)
    common.say(f"labelling {len(frames)} cells of the validation: LabellingWorkChain <{node.pk}>")
    while not node.is_terminated:
        time.sleep(1)
    if not node.is_finished_ok or node.outputs.report["n_failed"]:
        sys.exit(f"the labelling <{node.pk}> ended with status {node.exit_status}: {node.exit_message}")
    return reference_predictions(list(node.outputs.labelled))


def predict_mean(potentials: Sequence[Potential], frames: Sequence[Atoms]) -> Predictions:
    """Return the mean prediction of a committee."""
    return mean_prediction(predict_committee(potentials, frames))


def compare(reference: Properties, mean: Properties, members: Sequence[Properties]) -> list[dict[str, Any]]:
    """Return a row a property: pw.x, the committee mean, the spread of the members (ddof=0), the deviation in %."""
    found = [asdict(made) for made in (reference, mean, *members)]
    rows = []
    for name, text in ROWS.items():
        wanted, got, *each = (float(made[name]) for made in found)
        row = {"property": text, "pw.x": wanted, "MACE": got, "spread": float(np.std(each))}
        rows.append({**row, "deviation_percent": 100 * (got / wanted - 1)})
    return rows


def format_table(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = ["| property | pw.x | MACE committee | deviation |", "|---|---|---|---|"]
    for row in rows:
        digits = {"a": 4, "i": 3}.get(row["property"][0], 1)
        wanted, got, spread = (f"{row[name]:.{digits}f}" for name in ("pw.x", "MACE", "spread"))
        lines.append(f"| {row['property']} | {wanted} | {got} ± {spread} | {row['deviation_percent']:+.2f} % |")
    return "\n".join(lines) + "\n"


def plot(
    reference: Properties,
    mean: Properties,
    members: Sequence[Properties],
    iterations: Sequence[Mapping[str, Any]],
    path: Path,
) -> None:
    """Draw the error of the forces over the labels, and the equations of state."""
    mpl.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(8.4, 3.8), layout="constrained")
    split = reported_split(iterations[0]) or ""
    errors = [row["errors"][split] for row in iterations]
    labels = [row["n_labels"] for row in iterations]
    for name, text, style in (
        ("committee_mean", "error of the committee mean", {"color": "#0072b2", "marker": "o"}),
        ("disagreement", "disagreement", {"color": "#d55e00", "marker": "s", "linestyle": "--"}),
    ):
        left.plot(labels, [1000 * error[name]["force"] for error in errors], label=text, **style)
    left.set(xlabel="labelled frames", ylabel="rms force on the test set, meV/Å", xticks=labels, ylim=(0, None))
    for made in members:
        right.plot(made.volumes, 1000 * made.energies, color="#bbbbbb", linewidth=0.8)
    right.plot(mean.volumes, 1000 * mean.energies, color="#0072b2", label="MACE, mean (grey: members)")
    right.plot(reference.volumes, 1000 * reference.energies, "o", color="black", markersize=4, label="pw.x")
    right.set(xlabel="volume, Å³/atom", ylabel="energy above the minimum, meV/atom")
    for axes in (left, right):
        axes.legend(frameon=False, fontsize="small")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=160)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("campaign", type=int, help="pk of a campaign that has ended")
    arguments = parser.parse_args()
    common.prepare_profile(PROFILE, cached=True)
    common.start_daemon(PROFILE)
    node = orm.load_node(arguments.campaign)
    folder = HERE / "results" / f"campaign-{node.pk}"
    try:
        common.say(validate(node, folder))
    finally:
        common.stop_daemon(PROFILE)


if __name__ == "__main__":
    main()
