"""``aiida-alpot label``: a file of structures in, a file of labelled frames out."""

from __future__ import annotations

from pathlib import Path

import click
from aiida import orm
from aiida.cmdline.params import options

from aiida_alpot.cli.running import FILE, FileRun, describe_failure, refusals, runs_on_file
from aiida_alpot.cli.settings import read_mapping
from aiida_alpot.data.pes import PESData
from aiida_alpot.report.labels import describe_labels
from aiida_alpot.workflows.label import LabellingWorkChain


@click.command("label")
@runs_on_file("labelled")
@click.option("--engine", default="ase", show_default=True, help="What computes the labels; see verdi plugin list.")
@click.option("--parameters", type=FILE, required=True, help="YAML file with the parameters of the engine.")
@options.CODE(required=True, help="The program of the engine, for ase a Python, as LABEL@COMPUTER.")
@click.option("--max-concurrent", type=click.IntRange(min=1), help="Most jobs that run at once.")
@click.option("--max-failed-fraction", type=click.FloatRange(0, 1), help="Largest share of frames without a label.")
@click.option(
    "--check-stress",
    is_flag=True,
    help="First see whether the stress is the derivative of the energy: seven labels more.",
)
@click.option("--quality", type=FILE, help="YAML file with settings of the review that sets labels aside.")
@click.option("--only-labelled", is_flag=True, help="Leave out frames without a label, and those in quarantine.")
def label_file(
    run: FileRun,
    *,
    engine: str,
    parameters: Path,
    code: orm.AbstractCode,
    max_concurrent: int | None,
    max_failed_fraction: float | None,
    check_stress: bool,
    quality: Path | None,
    only_labelled: bool,
) -> None:
    """Label the structures in FILE and write them to another file; nothing is trained."""
    limits = {"max_concurrent": max_concurrent, "max_failed_fraction": max_failed_fraction}
    with refusals():
        builder = LabellingWorkChain.get_builder_for(
            code,
            PESData.from_file(run.file, run.file_format),
            engine,
            read_mapping(parameters),
            options=run.options,
            check_stress=check_stress,
            quality=read_mapping(quality),
            **{name: value for name, value in limits.items() if value is not None},
        )
    node = run.start(builder, "labelling", "labelled")
    if node is not None:
        _finish(node, run, only_labelled=only_labelled)


def _finish(node: orm.ProcessNode, run: FileRun, *, only_labelled: bool) -> None:
    """Export what there is, and end with an error if the stage did."""
    if "labelled" in node.outputs:
        labelled = node.outputs.labelled
        for line in describe_labels(node.outputs.report.get_dict()) if "report" in node.outputs else ():
            click.echo(line)
        click.echo(f"LabellingWorkChain <{node.pk}>, labelled frames PESData <{labelled.pk}>")
        if labelled.n_labelled or not only_labelled:
            run.export(labelled, only_labelled=only_labelled)
    if not node.is_finished_ok:
        raise click.ClickException(f"the labelling <{node.pk}> failed: {describe_failure(node)}")
