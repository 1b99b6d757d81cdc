"""What the commands that take a file and leave one share."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click
from aiida import orm

from aiida_alpot.cli.settings import read_mapping, set_pairs
from aiida_alpot.data.pes import PESData
from aiida_alpot.kernel.dataset import export_format
from aiida_alpot.workflows.slots import daemon_offer

FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
COMPRESSED: Final = {".gz", ".bz2", ".xz"}
ONE_PROCESS: Final = {"num_machines": 1, "num_mpiprocs_per_machine": 1}
"""Resources of a job for which none are given."""


def read_options(file: Path | None, pairs: tuple[str, ...]) -> dict[str, Any]:
    """Return the scheduler options of a YAML file with ``KEY=VALUE`` pairs on top."""
    return set_pairs({"resources": ONE_PROCESS, **read_mapping(file)}, pairs, "--option")


def default_target(file: Path, what: str) -> Path:
    """Return where the result of a file goes if nobody says so: ``FILE-WHAT.xyz`` in this folder."""
    name = Path(file.name)
    stem = Path(name.stem).stem if name.suffix in COMPRESSED else name.stem
    return Path(f"{stem}-{what}.xyz")


def check_target(target: Path, *, force: bool) -> None:
    """Refuse an output that cannot be written, before anything is computed."""
    export_format(target)
    if not target.parent.is_dir():
        raise ValueError(f"--output: there is no folder {target.parent}")
    if target.exists() and not force:
        raise ValueError(f"--output: {target} exists; name another, or give --force to write over it")


def check_daemon(*, needed: bool) -> None:
    """Refuse to hand over to a daemon that does not run."""
    offer = daemon_offer() if needed else None
    if offer is not None and offer.workers == 0:
        raise ValueError(
            f"--submit: {offer.problem}; start one (verdi daemon start), or leave --submit out to run here"
        )


def describe_submitted(node: orm.ProcessNode, what: str, output: str, target: Path) -> str:
    """Return how to look on and where the result will be.

    :param what: goes on in the daemon.
    :param output: of the process that holds the frames.
    """
    return (
        f"{what} goes on in the daemon as {node.process_label} <{node.pk}>\n"
        f"  look on:            aiida-alpot watch {node.pk}\n"
        f"  when it has ended:  verdi node show {node.pk}    # the PK of its output {output}\n"
        f"                      verdi data alpot.pes export PK {target}"
    )


def export(frames: PESData, target: Path, *, only_labelled: bool = False) -> None:
    """Write frames to a file and say so; the remedy if that fails, since they are stored already."""
    try:
        frames.export(target, only_labelled=only_labelled)
    except (OSError, ValueError) as error:
        remedy = f"export it elsewhere: verdi data alpot.pes export {frames.pk} PATH"
        raise click.ClickException(f"cannot write {target}: {error}; {remedy}") from error
    n_frames = frames.n_labelled if only_labelled else len(frames)
    click.echo(f"wrote {n_frames} frames to {target}")
