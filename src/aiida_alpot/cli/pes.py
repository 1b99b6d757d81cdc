"""``verdi data alpot.pes``: datasets."""

from __future__ import annotations

from pathlib import Path

import click
from aiida import orm
from aiida.cmdline.params import arguments, types
from aiida.cmdline.utils import decorators, echo

from aiida_alpot.calculations.functions.dataset import import_frames
from aiida_alpot.cli.reviewing import review_imported, review_option
from aiida_alpot.data.pes import PESData
from aiida_alpot.kernel.summaries import summarise_labels
from aiida_alpot.report.labels import describe_labels

DATASET = types.DataParamType(sub_classes=("aiida.data:alpot.pes",))


@click.group("alpot.pes")
def pes() -> None:
    """Look at datasets of frames, bring them in and out."""


@pes.command("show")
@arguments.DATUM(type=DATASET)
@decorators.with_dbenv()
def show(datum: PESData) -> None:
    """Show what a dataset holds."""
    try:
        with datum.dataset() as reader:
            summary = reader.summary()
    except (OSError, ValueError) as error:
        echo.echo_critical(f"the stored file of the dataset <{datum.pk}> cannot be read: {error}")
    echo.echo_dictionary({"pk": datum.pk, "uuid": datum.uuid, **summary}, fmt="yaml")


@pes.command("export")
@arguments.DATUM(type=DATASET)
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--format", "file_format", help="extxyz, db or hdf5; by default the ending of the file tells.")
@click.option("--only-labelled", is_flag=True, help="Leave out frames without a label, and those in quarantine.")
@decorators.with_dbenv()
def export(datum: PESData, path: Path, file_format: str | None, only_labelled: bool) -> None:
    """Write a dataset to PATH."""
    if only_labelled and not datum.n_labelled:
        echo.echo_critical(f"none of the {len(datum)} frames is labelled: nothing was written")
    try:
        datum.export(path, file_format, only_labelled=only_labelled)
    except (OSError, ValueError) as error:
        echo.echo_critical(str(error))
    echo.echo_success(f"wrote {datum.n_labelled if only_labelled else len(datum)} frames to {path}")


@pes.command("import")
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--format", "file_format", help="Name of the format if the ending of the file does not tell.")
@review_option
@decorators.with_dbenv()
def import_(path: Path, file_format: str | None, *, is_reviewed: bool) -> None:
    """Store the frames of PATH as a dataset."""
    try:
        node = import_file(path, file_format)
        node, review = review_imported(node) if is_reviewed else (node, [])
    except (OSError, ValueError) as error:
        echo.echo_critical(str(error))
    for line in _reasons(node, review) if review else ():
        echo.echo(line)
    echo.echo_success(f"stored {len(node)} frames ({node.n_labelled} labelled) as PESData <{node.pk}>")


def _reasons(node: PESData, review: list[str]) -> list[str]:
    """Return what a review says and, if it objects, why frames have no label to train on."""
    with node.dataset() as reader:
        lines = describe_labels(summarise_labels(reader))
    return review + lines if node.n_labelled < len(node) else review


def import_file(path: Path, file_format: str | None = None) -> PESData:
    """Store the frames of a file as a dataset whose provenance leads to the file.

    :param file_format: name of the format if the ending of the file does not tell.
    :raises ValueError: if the file cannot be read, or its name not be stored.
    """
    if not path.name.isprintable():  # so is a byte that is no UTF-8; neither fits into a database
        raise ValueError(f"the file name {path.name!a} has characters that cannot be stored; rename the file")
    PESData.from_file(path, file_format)  # a file that is refused should not leave a failed process behind
    optional = {} if file_format is None else {"file_format": orm.Str(file_format)}
    return import_frames(orm.SinglefileData(path.resolve()), **optional)
