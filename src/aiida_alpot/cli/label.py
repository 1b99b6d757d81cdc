"""``aiida-alpot label``: a file of structures in, a file of labelled frames out."""

from __future__ import annotations

from pathlib import Path

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
from aiida_alpot.cli.settings import read_mapping
from aiida_alpot.data.pes import PESData
from aiida_alpot.report.labels import describe_labels
from aiida_alpot.report.progress import run_and_watch
from aiida_alpot.workflows.label import LabellingWorkChain


@click.command("label")
@click.argument("file", type=FILE)
@click.option("--engine", default="ase", show_default=True, help="What computes the labels; see verdi plugin list.")
@click.option("--parameters", type=FILE, required=True, help="YAML file with the parameters of the engine.")
@options.CODE(required=True, help="The program of the engine, for ase a Python, as LABEL@COMPUTER.")
@click.option("--options", "options_file", type=FILE, help="YAML file with scheduler options of the jobs.")
@click.option(
    "--option",
    "pairs",
    multiple=True,
    metavar="KEY=VALUE",
    help="One of them, on top of the file, e.g. withmpi=false or resources.num_machines=2; may be repeated.",
)
@click.option("--max-concurrent", type=click.IntRange(min=1), help="Most jobs that run at once.")
@click.option("--max-failed-fraction", type=click.FloatRange(0, 1), help="Largest share of frames without a label.")
@click.option(
    "--check-stress",
    is_flag=True,
    help="First see whether the stress is the derivative of the energy: seven labels more.",
)
@click.option("--quality", type=FILE, help="YAML file with settings of the review that sets labels aside.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the labels go: .xyz, .db or .h5.  [default: FILE-labelled.xyz in this folder]",
)
@click.option("--only-labelled", is_flag=True, help="Leave out frames without a label, and those in quarantine.")
@click.option("--format", "file_format", help="Name of the format of FILE if its ending does not tell.")
@click.option("--force", is_flag=True, help="Write over the output if it exists.")
@click.option("--submit", "in_daemon", is_flag=True, help="Hand it over to the daemon and return.")
def label_file(
    file: Path,
    engine: str,
    parameters: Path,
    code: orm.AbstractCode,
    options_file: Path | None,
    pairs: tuple[str, ...],
    max_concurrent: int | None,
    max_failed_fraction: float | None,
    check_stress: bool,
    quality: Path | None,
    output: Path | None,
    only_labelled: bool,
    file_format: str | None,
    force: bool,
    in_daemon: bool,
) -> None:
    """Label the structures in FILE and write them to another file; nothing is trained."""
    target = output or default_target(file, "labelled")
    limits = {"max_concurrent": max_concurrent, "max_failed_fraction": max_failed_fraction}
    try:
        check_target(target, force=force)
        check_daemon(needed=in_daemon)
        resources = read_options(options_file, pairs)
        builder = LabellingWorkChain.get_builder_for(
            code,
            PESData.from_file(file, file_format),
            engine,
            read_mapping(parameters),
            options=resources,
            check_stress=check_stress,
            quality=read_mapping(quality),
            **{name: value for name, value in limits.items() if value is not None},
        )
        stored = import_file(file, file_format)  # only now: what is refused above leaves nothing behind
        builder["frames"] = stored
        frames = f"{len(stored)} frames of {file.name} as PESData <{stored.pk}>"
        if in_daemon:
            click.echo(describe_submitted(submit(builder), f"labelling {frames}", "labelled", target))
            return
    except (OSError, TypeError, ValueError, InvalidOperation) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"labelling {frames}")
    node = run_and_watch(builder)
    _finish(node, target, only_labelled=only_labelled)


def _finish(node: orm.WorkChainNode, target: Path, *, only_labelled: bool) -> None:
    """Export what there is, and end with an error if the stage did."""
    if "labelled" in node.outputs:
        labelled = node.outputs.labelled
        for line in describe_labels(node.outputs.report.get_dict()) if "report" in node.outputs else ():
            click.echo(line)
        click.echo(f"LabellingWorkChain <{node.pk}>, labelled frames PESData <{labelled.pk}>")
        if labelled.n_labelled or not only_labelled:
            export(labelled, target, only_labelled=only_labelled)
    if not node.is_finished_ok:
        reason = node.exit_message or node.exception or "it was killed"
        raise click.ClickException(f"the labelling <{node.pk}> failed: {reason}")
