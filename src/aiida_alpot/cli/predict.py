"""``aiida-alpot predict``: a file of structures in, predictions of a committee with error bars out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click
from aiida import orm
from aiida.cmdline.params import options

from aiida_alpot.cli.running import FileRun, describe_failure, refusals, runs_on_file
from aiida_alpot.data.potential import PotentialData
from aiida_alpot.data.uncertainty import UncertaintyData
from aiida_alpot.kernel.predicting import PredictSettings
from aiida_alpot.kernel.selection.table import UNITS
from aiida_alpot.kernel.settings import parse_settings
from aiida_alpot.workflows.predict import PredictionWorkChain


@click.command("predict")
@runs_on_file("predicted")
@click.option(
    "--from",
    "source",
    required=True,
    metavar="PK",
    help="What gives the error bars, by PK or UUID: a campaign, a calibration, or an UncertaintyData.",
)
@options.CODE(required=True, help="The Python that evaluates the potentials, as LABEL@COMPUTER.")
@click.option("--confidence", default=0.9, show_default=True, help="Share of the errors within the radii.")
@click.option("--device", default="cpu", show_default=True, help="Where the potentials are evaluated: cpu or cuda.")
def predict_file(run: FileRun, *, source: str, code: orm.AbstractCode, confidence: float, device: str) -> None:
    """Predict energies, forces and stresses of the structures in FILE, each with its error bars."""
    settings = {"confidence": confidence, "device": device}
    with refusals():
        parse_settings(PredictSettings, settings, "predict")
        builder = PredictionWorkChain.get_builder()
        builder.code = code
        builder.options = orm.Dict(run.options)
        builder.uncertainty = uncertainty = find_uncertainty(source)
        builder.potentials = committee = find_committee(uncertainty)
        builder.settings = orm.Dict(settings)
    node = run.start(builder, "predicting", "predicted", f"by {len(committee)} potentials")
    if node is None:
        return
    if not node.is_finished_ok:
        raise click.ClickException(f"the prediction <{node.pk}> failed: {describe_failure(node)}")
    for line in describe_errors(node.outputs.report["results"], confidence):
        click.echo(line)
    click.echo(f"{node.process_label} <{node.pk}>, predicted frames PESData <{node.outputs.predicted.pk}>")
    run.export(node.outputs.predicted)


def find_uncertainty(identifier: str) -> UncertaintyData:
    """Return the error bars that a node is or has given.

    :raises ValueError: if there is no such node, or it has none.
    """
    try:
        node: Any = orm.load_node(identifier)
    except Exception as error:  # AiiDA has several of its own for an identifier that it cannot make sense of
        raise ValueError(f"--from: {error}") from error
    if isinstance(node, orm.ProcessNode):
        if "uncertainty" not in node.outputs:
            raise ValueError(
                f"--from: {node.process_label} <{node.pk}> has no output uncertainty; name a campaign or calibration "
                "that ended well"
            )
        node = node.outputs.uncertainty
    if not isinstance(node, UncertaintyData):
        raise ValueError(f"--from: <{node.pk}> is a {type(node).__name__}, expected an UncertaintyData or a process")
    return node


def find_committee(uncertainty: UncertaintyData) -> dict[str, PotentialData]:
    """Return the potentials that error bars belong to, by the hashes of their files.

    They are those that the calibration was made of: of copies of a potential, the one in its history. Error bars
    without a calibration in the profile, as from a file, get the newest potential with the hash.

    :raises ValueError: if one is not there.
    """
    calibrated = {}
    if uncertainty.creator is not None:
        links = uncertainty.creator.base.links.get_incoming(node_class=PotentialData).all_nodes()
        calibrated = {node.sha256: node for node in links}
    found = {}
    for k, sha256 in enumerate(uncertainty.model_hashes):
        query = orm.QueryBuilder().append(PotentialData, filters={"attributes.sha256": sha256})
        newest = query.order_by({PotentialData: {"id": "desc"}}).first(flat=True)
        potential = calibrated.get(sha256, newest)
        if potential is None:
            raise ValueError(
                f"the potential {k} of the committee (sha256 {sha256[:12]}…) is not in this profile; import the "
                "archive that it is in"
            )
        found[f"member_{k:02d}"] = potential
    return found


def describe_errors(results: Mapping[str, Any], confidence: float) -> list[str]:
    """Return the error bars of all frames in words, a line each property."""
    lines = [f"{results['n_frames']} frames; error bars: median, 90 % quantile, largest"]
    quantiles = results["quantiles"]
    for name, unit in UNITS.items():
        error, radius = (quantiles.get(f"{kind}_{name}") for kind in ("error", "radius"))
        if error is None or radius is None:
            continue
        tolerance = results["tolerances"].get(name)
        above = "" if tolerance is None else f"; {results['above_tolerance'][name]} frames above {tolerance:g}"
        lines.append(
            f"  {name:<10} expected {_triple(error)}   within {100 * confidence:g} %: {_triple(radius)} {unit}{above}"
        )
    if quantiles.get("grade") is not None:
        lines.append(f"  {'grade':<10} {_triple(quantiles['grade'])}")
    if results["n_unknown"]:
        lines.append(f"  {results['n_unknown']} frames of which a potential predicts something that is not finite")
    return lines + [f"warning: {text}" for text in results["warnings"]]


def _triple(values: list[float]) -> str:
    return " / ".join(f"{value:.3g}" for value in values)
