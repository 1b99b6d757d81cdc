"""``aiida-alpot``: look at campaigns."""

from __future__ import annotations

from pathlib import Path

import click
from aiida import load_profile
from aiida.cmdline.params import arguments, options
from aiida.common.exceptions import ConfigurationError
from aiida.orm import WorkChainNode
from rich.console import Console

from aiida_alpot import __version__
from aiida_alpot.kernel._extras import MissingPackageError
from aiida_alpot.protocols import list_protocols
from aiida_alpot.report.figure import plot_history
from aiida_alpot.report.progress import find_history, watch
from aiida_alpot.report.slots import build_slots_table, describe_offer
from aiida_alpot.report.table import build_table
from aiida_alpot.workflows.slots import Demand, Load, daemon_offer, describe_shortage, live_demands


@click.group("aiida-alpot", context_settings={"help_option_names": ["-h", "--help"]})
@options.PROFILE(type=click.STRING, expose_value=True, default=None)
@click.version_option(__version__)
def main(profile: str | None) -> None:
    """Machine-learning interatomic potentials by active learning."""
    if click.get_current_context().invoked_subcommand == "protocols":
        return
    try:
        load_profile(profile)
    except ConfigurationError as error:
        raise click.ClickException(f"{error}; name a profile with -p, or make one with verdi presto") from error


@main.command("watch")
@arguments.WORKFLOW("campaign")
def watch_campaign(campaign: WorkChainNode) -> None:
    """Show stage, jobs and table of a campaign until it ends."""
    watch(campaign)


@main.command("history")
@arguments.WORKFLOW("campaign")
@click.option("--figure", type=click.Path(dir_okay=False, path_type=Path), help="Also draw the errors into this file.")
def show_history(campaign: WorkChainNode, figure: Path | None) -> None:
    """Show the table of a campaign, finished or not."""
    iterations = find_history(campaign)
    if not iterations:
        raise click.ClickException(
            f"campaign <{campaign.pk}> has no finished iteration yet; see aiida-alpot watch {campaign.pk}"
        )
    Console().print(build_table(iterations))
    if figure is not None:
        try:
            plot_history(iterations, figure)
        except (MissingPackageError, ValueError) as error:
            raise click.ClickException(str(error)) from error
        click.echo(f"wrote {figure}")


@main.command("slots")
@click.option(
    "--max-concurrent", type=click.IntRange(min=1), help="Count one campaign more, with this many jobs at once."
)
@click.option(
    "--levels", type=click.IntRange(min=1), default=1, show_default=True, help="Processes of one of its jobs."
)
def show_slots(max_concurrent: int | None, levels: int) -> None:
    """Show the process slots that the live processes need and the daemon has; fail if it may lock itself up."""
    demands = live_demands()
    if max_concurrent is not None:
        demands.append(Demand.of("one campaign more", [Load(parents=2, window=max_concurrent, levels=levels)]))
    offer = daemon_offer()
    Console().print(build_slots_table(demands))
    click.echo(describe_offer(demands, offer))
    warning = describe_shortage(demands, offer)
    if warning is not None:
        raise click.ClickException(warning)


@main.command("protocols")
def show_protocols() -> None:
    """List the protocols of the loop."""
    for name, description in list_protocols("active_learning").items():
        click.echo(f"{name:<12}{description}")
