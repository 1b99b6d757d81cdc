"""``aiida-alpot import-calculations``: finished calculations of the profile as a labelled dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import click
from aiida import orm
from aiida.cmdline.params import arguments, types

from aiida_alpot.cli.reviewing import review_imported, review_option
from aiida_alpot.cli.settings import read_mapping
from aiida_alpot.engines.label.importing import ImportedCalculations, import_finished
from aiida_alpot.kernel.summaries import summarise_labels
from aiida_alpot.report.labels import describe_labels


@click.command("import-calculations")
@arguments.PROCESSES()
@click.option(
    "--group",
    "groups",
    multiple=True,
    type=types.GroupParamType(),
    help="Group of processes to import, by label; may be repeated.",
)
@click.option("--engine", help="Label engine of the parameters that follow.")
@click.option(
    "--fingerprint-from",
    "parameters",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="YAML file with parameters of a label engine: labels made with its settings take its fingerprint.",
)
@review_option
def import_finished_calculations(
    processes: tuple[orm.ProcessNode, ...],
    groups: tuple[orm.Group, ...],
    *,
    engine: str | None,
    parameters: Path | None,
    is_reviewed: bool,
) -> None:
    """Take finished calculations, and those that WorkChains have called, as labels."""
    if (engine is None) != (parameters is None):
        raise click.UsageError("--engine and --fingerprint-from belong together; give both")
    chosen = [*processes, *_members(groups)]
    if not chosen:
        raise click.UsageError("name calculations by their PK, or a group of them with --group LABEL")
    try:
        like = None if engine is None else (engine, read_mapping(parameters))
        imported = import_finished(chosen, like)
        review: list[str] = []
        if is_reviewed and imported.dataset is not None:
            reviewed, review = review_imported(imported.dataset)
            imported = replace(imported, dataset=reviewed)
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    for line in [*review, *describe_import(imported)]:
        click.echo(line)
    if imported.dataset is None:
        raise click.ClickException("none of the calculations gives a label: nothing was stored")


def _members(groups: Iterable[orm.Group]) -> list[orm.ProcessNode]:
    return [node for group in groups for node in group.nodes if isinstance(node, orm.ProcessNode)]


def describe_import(imported: ImportedCalculations) -> list[str]:
    """Return what became of the calculations, a line each."""
    lines = _by_reason("skipped", imported.skipped) + _by_reason("fingerprint not taken over", imported.others)
    if imported.n_replaced:
        lines.append(
            f"left out: {imported.n_replaced} labels of which a later calculation has the structure and fingerprint"
        )
    if imported.dataset is not None:
        with imported.dataset.dataset() as reader:
            summary = summarise_labels(reader)
            fingerprints = Counter(reader.column("fingerprint").tolist())
        lines += describe_labels(summary)
        lines += [f"fingerprint {name}: {n} frames" for name, n in sorted(fingerprints.items())]
        lines.append(f"PESData <{imported.dataset.pk}> of {imported.n_calculations} calculations")
    return lines + [f"warning: {text}" for text in imported.warnings]


def _by_reason(what: str, reasons: Mapping[int, str]) -> list[str]:
    """Return one line for each reason, with the processes that have it."""
    processes: dict[str, list[int]] = {}
    for pk, reason in reasons.items():
        processes.setdefault(reason, []).append(pk)
    return [f"{what} <{', '.join(map(str, pks))}>: {reason}" for reason, pks in processes.items()]
