"""``aiida-alpot augment``: a file of structures in, a file of more structures out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from aiida import orm
from aiida.cmdline.params import options
from aiida.common.log import override_log_level

from aiida_alpot.calculations.functions.augment import MAX_FRAMES, augment_frames
from aiida_alpot.cli.pes import import_file
from aiida_alpot.cli.running import FILE, FileRun, describe_failure, refusals, runs_on_file
from aiida_alpot.cli.settings import read_mapping
from aiida_alpot.data.potential import PotentialData
from aiida_alpot.kernel.augmentation import AugmentSettings, check_potential
from aiida_alpot.kernel.settings import parse_settings
from aiida_alpot.report.augmentation import describe_augmentation
from aiida_alpot.workflows.augment import AugmentWorkChain


@click.command("augment")
@runs_on_file("augmented")
@click.option("--settings", type=FILE, required=True, help="YAML file: which manipulations and how.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of all draws.")
@options.CODE(
    required=False,
    help=f"The Python that makes them, as LABEL@COMPUTER.  [default: this one, for at most {MAX_FRAMES} frames]",
)
@click.option(
    "--potential",
    "potentials",
    multiple=True,
    metavar="PK",
    help="A PotentialData whose energies the settings need, for swap and for 'volume: potential' of prototype, "
    "decorate and random; may be repeated, their mean is taken.",
)
def augment_file(
    run: FileRun, *, settings: Path, seed: int, code: orm.AbstractCode | None, potentials: tuple[str, ...]
) -> None:
    """Make more structures of those in FILE: strained, rattled, with defects, slabs, clusters and so on."""
    with refusals():
        given = read_mapping(settings)
        parsed = parse_settings(AugmentSettings, given, "augment.settings")
        check_potential(parsed, is_given=bool(potentials), remedy="give --potential PK and --code")
        if code is None and potentials:
            raise ValueError("--potential: it is a job that evaluates it; give it a --code")
        if code is None and run.in_daemon:
            raise ValueError("--submit: it is a job that the daemon looks after; give it a --code")
    if code is None:
        _augment_here(run, given, seed)
        return
    with refusals():
        builder = AugmentWorkChain.get_builder()
        builder.code = code
        builder.options = orm.Dict(run.options)
        builder.settings = orm.Dict(given)
        builder.seed = orm.Int(seed)
        if potentials:
            builder.potentials = load_potentials(potentials)
    node = run.start(builder, "augmenting", "frames")
    if node is None:
        return
    if not node.is_finished_ok:
        raise click.ClickException(f"the augmentation <{node.pk}> failed: {describe_failure(node)}")
    _finish(run, node, node.outputs.report["results"])


def load_potentials(identifiers: Sequence[str]) -> dict[str, PotentialData]:
    """Return potentials by PK or UUID.

    :raises ValueError: if there is no such node, or it is something else.
    """
    found = {}
    for k, identifier in enumerate(identifiers):
        try:
            node: Any = orm.load_node(identifier)
        except Exception as error:  # AiiDA has several of its own for an identifier that it cannot make sense of
            raise ValueError(f"--potential: {error}") from error
        if not isinstance(node, PotentialData):
            raise ValueError(f"--potential: <{node.pk}> is a {type(node).__name__}, expected a PotentialData")
        found[f"member_{k:02d}"] = node
    return found


def _augment_here(run: FileRun, settings: Mapping[str, Any], seed: int) -> None:
    """Run the calcfunction in this process."""
    with refusals():
        frames = import_file(run.file, run.file_format)
        click.echo(f"augmenting {len(frames)} frames of {run.file.name} as PESData <{frames.pk}>")
        with override_log_level():  # of inputs that are refused, AiiDA logs the traceback
            _, node = augment_frames.run_get_node(frames, orm.Dict(settings), orm.Int(seed))
    _finish(run, node, node.outputs.report.get_dict())


def _finish(run: FileRun, node: orm.ProcessNode, report: Mapping[str, Any]) -> None:
    """Tell what was made, and export it."""
    for line in describe_augmentation(report):
        click.echo(line)
    click.echo(f"{node.process_label} <{node.pk}>, frames PESData <{node.outputs.frames.pk}>")
    run.export(node.outputs.frames)
