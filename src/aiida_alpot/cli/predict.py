"""``aiida-alpot predict``: a file of structures in, predictions of a committee with error bars out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from aiida import orm
from aiida.cmdline.params import options
from aiida.common.exceptions import InvalidOperation
from aiida.engine import submit

from aiida_alpot.cli.pes import import_file
from aiida_alpot.cli.running import (
    FILE,
    check_daemon,
    check_target,
    default_target,
    describe_submitted,
    export,
    read_options,
)
from aiida_alpot.data.pes import PESData
from aiida_alpot.data.potential import PotentialData
from aiida_alpot.data.uncertainty import UncertaintyData
from aiida_alpot.kernel.predicting import PredictSettings
from aiida_alpot.kernel.selection.table import UNITS
from aiida_alpot.kernel.settings import parse_settings
from aiida_alpot.report.progress import run_and_watch
from aiida_alpot.workflows.predict import PredictionWorkChain


@click.command("predict")
@click.argument("file", type=FILE)
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
@click.option("--options", "options_file", type=FILE, help="YAML file with scheduler options of the job.")
@click.option("--option", "pairs", multiple=True, metavar="KEY=VALUE", help="One of them, on top; may be repeated.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the predictions go: .xyz, .db or .h5.  [default: FILE-predicted.xyz in this folder]",
)
@click.option("--format", "file_format", help="Name of the format of FILE if its ending does not tell.")
@click.option("--force", is_flag=True, help="Write over the output if it exists.")
@click.option("--submit", "in_daemon", is_flag=True, help="Hand it over to the daemon and return.")
def predict_file(
    file: Path,
    source: str,
    code: orm.AbstractCode,
    confidence: float,
    device: str,
    options_file: Path | None,
    pairs: tuple[str, ...],
    output: Path | None,
    file_format: str | None,
    force: bool,
    in_daemon: bool,
) -> None:
    """Predict energies, forces and stresses of the structures in FILE, each with its error bars."""
    target = output or default_target(file, "predicted")
    settings = {"confidence": confidence, "device": device}
    try:
        check_target(target, force=force)
        check_daemon(needed=in_daemon)
        parse_settings(PredictSettings, settings, "predict")
        uncertainty = find_uncertainty(source)
        builder = PredictionWorkChain.get_builder()
        builder.code = code
        builder.options = orm.Dict(read_options(options_file, pairs))
        builder.uncertainty = uncertainty
        committee = find_committee(uncertainty)
        builder.potentials = committee
        builder.settings = orm.Dict(settings)
        builder.frames = PESData.from_file(file, file_format)
        stored = import_file(file, file_format)  # only now: what is refused above leaves nothing behind
        builder.frames = stored
        frames = f"{len(stored)} frames of {file.name} as PESData <{stored.pk}>"
        if in_daemon:
            click.echo(describe_submitted(submit(builder), f"predicting {frames}", "predicted", target))
            return
    except (OSError, TypeError, ValueError, InvalidOperation) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"predicting {frames} by {len(committee)} potentials")
    node = run_and_watch(builder)
    if not node.is_finished_ok:
        reason = node.exit_message or node.exception or "it was killed"
        raise click.ClickException(f"the prediction <{node.pk}> failed: {reason}")
    for line in describe_errors(node.outputs.report["results"], confidence):
        click.echo(line)
    click.echo(f"{node.process_label} <{node.pk}>, predicted frames PESData <{node.outputs.predicted.pk}>")
    export(node.outputs.predicted, target)


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
    """Return the potentials that error bars belong to, found in the profile by the hashes of their files.

    :raises ValueError: if one is not there.
    """
    found = {}
    for k, sha256 in enumerate(uncertainty.model_hashes):
        query = orm.QueryBuilder().append(PotentialData, filters={"attributes.sha256": sha256})
        potential = query.order_by({PotentialData: {"id": "asc"}}).first(flat=True)
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
