"""``aiida-alpot``: look at campaigns and go on with them, augment, label and predict files, import calculations."""

from __future__ import annotations

from pathlib import Path

import click
from aiida import load_profile
from aiida.cmdline.params import arguments, options
from aiida.common.exceptions import ConfigurationError, InvalidOperation
from aiida.engine import submit
from aiida.orm import WorkChainNode
from rich.console import Console

from aiida_alpot import __version__
from aiida_alpot.cli.augment import augment_file
from aiida_alpot.cli.calculations import import_finished_calculations
from aiida_alpot.cli.label import label_file
from aiida_alpot.cli.pes import import_file
from aiida_alpot.cli.predict import predict_file
from aiida_alpot.cli.settings import read_mapping
from aiida_alpot.data.pes import PESData
from aiida_alpot.kernel._extras import MissingPackageError
from aiida_alpot.protocols import list_protocols
from aiida_alpot.report.figure import plot_history
from aiida_alpot.report.progress import find_history, watch
from aiida_alpot.report.slots import build_slots_table, describe_offer
from aiida_alpot.report.table import build_table
from aiida_alpot.workflows.active_learning import ActiveLearningWorkChain
from aiida_alpot.workflows.resume import require_campaign
from aiida_alpot.workflows.slots import Demand, Load, daemon_offer, describe_shortage, live_demands


def _require_campaign(_: click.Context, __: click.Parameter, node: WorkChainNode) -> WorkChainNode:
    try:
        require_campaign(node)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    return node


def _require_ours(_: click.Context, __: click.Parameter, node: WorkChainNode) -> WorkChainNode:
    if not (node.process_type or "").startswith(OURS):
        raise click.ClickException(f"<{node.pk}> is no campaign and no stage of one but {node.process_label}")
    return node


OURS = "aiida.workflows:alpot."
CAMPAIGN = arguments.WORKFLOW("campaign", callback=_require_campaign)


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
@arguments.WORKFLOW("process", callback=_require_ours)
def watch_process(process: WorkChainNode) -> None:
    """Show stage, jobs and table of a campaign, or jobs of a stage alone, until it ends."""
    watch(process)


@main.command("history")
@CAMPAIGN
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
        except OSError as error:
            raise click.ClickException(f"--figure: cannot write {figure}: {error.strerror or error}") from error
        click.echo(f"wrote {figure}")


@main.command("resume")
@CAMPAIGN
@click.option("--stage", help="Begin with this stage of the iteration: train, calibrate, explore, evaluate or label.")
@click.option("--max-iterations", type=click.IntRange(min=0), help="Most rounds, those that are done included.")
@click.option("--tolerance", "tolerances", multiple=True, metavar="NAME=VALUE", help="Largest error, e.g. force=0.05.")
@click.option("--structures", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="File of more frames.")
@click.option(
    "--overrides",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="YAML file with inputs to change, nested like them.",
)
def resume_campaign(
    campaign: WorkChainNode,
    stage: str | None,
    max_iterations: int | None,
    tolerances: tuple[str, ...],
    structures: Path | None,
    overrides: Path | None,
) -> None:
    """Go on with a campaign that has finished, failed or was killed; no label is computed again."""
    try:
        changes = read_mapping(overrides)
        if max_iterations is not None:
            changes["max_iterations"] = max_iterations
        nodes = {} if structures is None else {"structures": PESData.from_file(structures)}
        builder = ActiveLearningWorkChain.get_builder_to_resume(
            campaign, stage=stage, overrides=changes, tolerances=parse_tolerances(tolerances), **nodes
        )
        if structures is not None:  # stored only now: what is refused above leaves nothing behind
            builder.structures = import_file(structures)
        node = submit(builder)
    except (OSError, TypeError, ValueError, InvalidOperation) as error:
        raise click.ClickException(str(error)) from error
    first = builder["resume"]["stage"].value if "resume" in builder else "structures"
    click.echo(f"campaign <{campaign.pk}> goes on as <{node.pk}> from the stage {first!r}: aiida-alpot watch {node.pk}")


def parse_tolerances(pairs: tuple[str, ...]) -> dict[str, float] | None:
    """Return the tolerances of ``NAME=VALUE`` pairs, None without any.

    :raises ValueError: naming a pair that is not one.
    """
    found = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        try:
            found[name] = float(value)
        except ValueError as error:
            raise ValueError(f"--tolerance: expected NAME=VALUE, e.g. force=0.05, got {pair!r}") from error
    return found or None


@main.command("slots")
@click.option(
    "--max-concurrent", type=click.IntRange(min=1), help="Count one campaign more, with this many jobs at once."
)
@click.option("--levels", type=click.IntRange(min=1), help="Processes of one of its jobs, with --max-concurrent. [1]")
def show_slots(max_concurrent: int | None, levels: int | None) -> None:
    """Show the process slots that the live processes need and the daemon has; fail if it may lock itself up."""
    if levels is not None and max_concurrent is None:
        raise click.UsageError("--levels is of the campaign that --max-concurrent counts; give both")
    demands = live_demands()
    if max_concurrent is not None:
        demands.append(Demand.of("one campaign more", [Load(parents=2, window=max_concurrent, levels=levels or 1)]))
    offer = daemon_offer()
    Console().print(build_slots_table(demands))
    click.echo(describe_offer(demands, offer))
    warning = describe_shortage(demands, offer)
    if warning is not None:
        raise click.ClickException(warning)


main.add_command(augment_file)
main.add_command(label_file)
main.add_command(predict_file)
main.add_command(import_finished_calculations)


@main.command("protocols")
def show_protocols() -> None:
    """List the protocols of the loop."""
    for name, description in list_protocols("active_learning").items():
        click.echo(f"{name:<12}{description}")
