"""``verdi data alpot.potential``: trained potentials."""

from __future__ import annotations

from pathlib import Path

import click
from aiida.cmdline.params import arguments, types
from aiida.cmdline.utils import decorators, echo

from aiida_alpot.data.potential import PotentialData

POTENTIAL = types.DataParamType(sub_classes=("aiida.data:alpot.potential",))


@click.group("alpot.potential")
def potential() -> None:
    """Look at trained potentials and take their files out."""


@potential.command("show")
@arguments.DATUM(type=POTENTIAL)
@decorators.with_dbenv()
def show(datum: PotentialData) -> None:
    """Show what is known of a potential."""
    content = {"pk": datum.pk, "uuid": datum.uuid, **datum.base.attributes.all, "trusted": datum.is_trusted}
    echo.echo_dictionary(content, fmt="yaml")


@potential.command("export")
@arguments.DATUM(type=POTENTIAL)
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path))
@decorators.with_dbenv()
def export(datum: PotentialData, path: Path) -> None:
    """Copy the model file to PATH."""
    try:
        datum.export(path)
    except OSError as error:
        echo.echo_critical(f"cannot write {path}: {error}")
    echo.echo_success(f"wrote {path}")


@potential.command("trust")
@arguments.DATUM(type=POTENTIAL)
@click.option("--force", is_flag=True, help="Do not ask.")
@decorators.with_dbenv()
def trust(datum: PotentialData, force: bool) -> None:
    """Allow jobs to load a potential that came from elsewhere."""
    if not force:
        click.confirm(f"Loading a model file runs code in it. Trust sha256 {datum.sha256}?", abort=True)
    datum.trust()
    echo.echo_success(f"potential <{datum.pk}> is trusted")
