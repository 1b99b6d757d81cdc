"""Process slots as a table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE
from rich.table import Table

from aiida_alpot.workflows.slots import Demand, Offer, needed_slots


def build_slots_table(demands: Sequence[Demand]) -> Table:
    """Return one line per tree of live processes: slots its waiting WorkChains can hold, and all it can use."""
    table = Table(box=SIMPLE, pad_edge=False, title="Process slots", title_justify="left")
    for column in ("processes", "held by\nwaiting", "used\nin all"):
        table.add_column(column, justify="left" if column == "processes" else "right")
    for demand in demands:
        table.add_row(demand.name, str(demand.held), str(demand.used))
    return table


def describe_offer(demands: Sequence[Demand], offer: Offer) -> str:
    """Return in one line what is needed and what the daemon has."""
    must, should = needed_slots(demands)
    if offer.total is None:
        has = f"{offer.slots_per_worker} a worker, {offer.problem}"
    elif offer.problem:
        has = f"none, {offer.problem}"
    else:
        has = f"{offer.total} ({offer.workers} × {offer.slots_per_worker})"
    waits = offer.workers != 0 and offer.total is not None and must <= offer.total < should
    turns = "; jobs will wait for a slot now and then" if waits else ""
    return f"needed: at least {must}, {should} so that no job waits for a slot; the daemon has {has}{turns}"
