"""What the commands that take a file and leave one share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Final

import click
from aiida import orm
from aiida.common.exceptions import InvalidOperation
from aiida.engine import ProcessBuilder, submit

from aiida_alpot.cli.pes import import_file
from aiida_alpot.cli.settings import read_mapping, set_pairs
from aiida_alpot.data.pes import PESData
from aiida_alpot.kernel._extras import MissingPackageError
from aiida_alpot.kernel.dataset import export_format
from aiida_alpot.report.progress import run_and_watch
from aiida_alpot.workflows.slots import daemon_offer

FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
COMPRESSED: Final = {".gz", ".bz2", ".xz"}
ONE_PROCESS: Final = {"num_machines": 1, "num_mpiprocs_per_machine": 1}
"""Resources of a job for which none are given."""


@dataclass(frozen=True)
class FileRun:
    """A process that is to run on the frames of a file, and the file for its result.

    :param options: of the scheduler.
    """

    file: Path
    file_format: str | None
    target: Path
    options: dict[str, Any]
    in_daemon: bool

    def start(self, builder: ProcessBuilder, doing: str, output: str, means: str = "") -> orm.ProcessNode | None:
        """Store the frames and run the process to its end, or hand it over to the daemon and return None.

        :param builder: refuses bad inputs before anything is stored, if its frames are set.
        :param doing: to the frames, e.g. ``"labelling"``.
        :param output: of the process that holds the frames afterwards.
        :param means: what it is done with, e.g. ``"by 3 potentials"``.
        """
        with refusals():
            builder["frames"] = PESData.from_file(self.file, self.file_format)
            builder["frames"] = stored = import_file(self.file, self.file_format)
            doing = f"{doing} {len(stored)} frames of {self.file.name} as PESData <{stored.pk}>"
            doing = f"{doing} {means}".rstrip()
            if self.in_daemon:
                click.echo(describe_submitted(submit(builder), doing, output, self.target))
                return None
        click.echo(doing)
        return run_and_watch(builder)

    def export(self, frames: PESData, *, only_labelled: bool = False) -> None:
        """Write frames to the target and say so; the remedy if that fails, since they are stored already."""
        try:
            frames.export(self.target, only_labelled=only_labelled)
        except (OSError, ValueError) as error:
            remedy = f"export it elsewhere: verdi data alpot.pes export {frames.pk} PATH"
            raise click.ClickException(f"cannot write {self.target}: {error}; {remedy}") from error
        n_frames = frames.n_labelled if only_labelled else len(frames)
        click.echo(f"wrote {n_frames} frames to {self.target}")


def runs_on_file(ending: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the argument FILE and the options that go with it; it gets them as one :class:`FileRun`.

    :param ending: of the name of the result, ``FILE-ending.xyz``.
    """
    declared = (
        click.argument("file", type=FILE),
        click.option("--format", "file_format", help="Name of the format of FILE if its ending does not tell."),
        click.option(
            "--output",
            type=click.Path(dir_okay=False, path_type=Path),
            help=f"Where the result goes: .xyz, .db or .h5.  [default: FILE-{ending}.xyz in this folder]",
        ),
        click.option("--force", is_flag=True, help="Write over the output if it exists."),
        click.option("--options", "options_file", type=FILE, help="YAML file with scheduler options of the jobs."),
        click.option(
            "--option",
            "pairs",
            multiple=True,
            metavar="KEY=VALUE",
            help="One of them, on top of the file, e.g. withmpi=false or resources.num_machines=2; may be repeated.",
        ),
        click.option("--submit", "in_daemon", is_flag=True, help="Hand it over to the daemon and return."),
    )

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def run(
            file: Path,
            file_format: str | None,
            output: Path | None,
            force: bool,
            options_file: Path | None,
            pairs: tuple[str, ...],
            in_daemon: bool,
            **others: Any,
        ) -> None:
            target = output or default_target(file, ending)
            with refusals():
                check_target(target, force=force)
                check_daemon(needed=in_daemon)
                options = {"resources": ONE_PROCESS, **read_mapping(options_file)}
                options = set_pairs(options, pairs, "--option")
            command(FileRun(file, file_format, target, options, in_daemon), **others)

        for option in reversed(declared):
            run = option(run)
        return run

    return decorate


@contextmanager
def refusals() -> Iterator[None]:
    """Say what is wrong with an input, or which package is missing, in one line, without a traceback."""
    try:
        yield
    except (OSError, TypeError, ValueError, InvalidOperation, MissingPackageError) as error:
        raise click.ClickException(str(error)) from error


def describe_failure(node: orm.ProcessNode) -> str:
    """Return why a process that did not end well ended."""
    return str(node.exit_message or node.exception or "it was killed")


def default_target(file: Path, ending: str) -> Path:
    """Return where the result of a file goes if nobody says so: ``FILE-ending.xyz`` in this folder."""
    name = Path(file.name)
    stem = Path(name.stem).stem if name.suffix in COMPRESSED else name.stem
    return Path(f"{stem}-{ending}.xyz")


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
