"""Process slots: what live processes and a campaign need of the daemon, what it has, and a warning before a dead-lock.

Every live WorkChain and CalcJob holds a slot of the daemon. If WorkChains that wait hold all of them, what they wait
for never starts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from aiida import orm
from aiida.common.exceptions import ConfigurationError
from aiida.common.links import LinkType
from aiida.engine.daemon.client import DaemonException, get_daemon_client
from aiida.manage.configuration import get_config_option

from aiida_alpot.plugins import Kind, known_engines, load_engine
from aiida_alpot.workflows.base import DEFAULT_MAX_CONCURRENT

DAEMON_TIMEOUT: Final = 2
"""Seconds after which a daemon that does not answer is left alone."""
ENGINE_STAGES: Final[tuple[Kind, ...]] = ("label", "train", "explore")
"""Stages that run the jobs of an engine side by side."""
STAGES: Final = ("augment", *ENGINE_STAGES, "calibrate", "evaluate")

_SETTINGS: Final = ("engine", "committee_size", "max_concurrent")
_PREFIX: Final = "aiida.workflows:alpot."
_LIVE: Final = {"attributes.process_state": {"in": ["created", "waiting", "running"]}}


@dataclass(frozen=True)
class Load:
    """Items (labels, members, trajectories) that are worked on side by side.

    :param parents: P, WorkChains that stay alive above the items: campaign and stage.
    :param window: N, most items at once.
    :param levels: d, processes of one item, one below the other: 1 for a CalcJob, 2 for a WorkChain around one.
    """

    parents: int
    window: int
    levels: int = 1

    @property
    def held(self) -> int:
        """Slots that waiting WorkChains can come to hold: P + N·(d - 1)."""
        return self.parents + self.window * (self.levels - 1)

    @property
    def used(self) -> int:
        """Slots of everything that can be alive at once: P + N·d."""
        return self.parents + self.window * self.levels


@dataclass(frozen=True)
class Demand:
    """The most that one tree of processes comes to hold and to use, over its stages that follow each other."""

    name: str
    held: int
    used: int

    @classmethod
    def of(cls, name: str, loads: Iterable[Load]) -> Demand:
        """Return the largest of *loads*."""
        known = list(loads)
        return cls(name, max((load.held for load in known), default=0), max((load.used for load in known), default=0))


@dataclass(frozen=True)
class Offer:
    """What the daemon has.

    :param workers: those that run, 0 without a daemon, None if it did not say.
    :param slots_per_worker: option ``daemon.worker_process_slots``.
    :param problem: why there is none, or why their number is not known.
    """

    workers: int | None
    slots_per_worker: int
    problem: str = ""

    @property
    def total(self) -> int | None:
        """Slots of all workers, None if their number is not known."""
        return None if self.workers is None else self.workers * self.slots_per_worker


def slots_warning(inputs: Mapping[str, Any] | None = None, pk: int | None = None) -> str | None:
    """Return why the daemon may lock itself up, in one line with the remedy, or None.

    It never raises because of the daemon, and waits for it :data:`DAEMON_TIMEOUT` seconds at most.

    :param inputs: of a campaign that begins; None for the live processes alone.
    :param pk: node of that campaign, if it has one already.
    """
    demands = live_demands(without=pk)
    if inputs is not None:
        demands.append(campaign_demand(inputs))
    return describe_shortage(demands, daemon_offer())


def needed_slots(demands: Iterable[Demand]) -> tuple[int, int]:
    """Return how many slots there must be, Σ(P + N·(d - 1)) + 1, and should be, Σ(P + N·d).

    With fewer than the first, WorkChains that wait can hold them all; with fewer than the second, jobs take turns.
    """
    known = list(demands)
    must = sum(demand.held for demand in known) + 1 if known else 0
    return must, max(must, sum(demand.used for demand in known))


def describe_shortage(demands: Iterable[Demand], offer: Offer) -> str | None:
    """Return the warning for *demands* that can hold all slots of *offer*, or None.

    Without a daemon nothing holds a slot; of one that does not say how many workers it has, one is assumed.
    """
    must, should = needed_slots(demands)
    total = offer.slots_per_worker if offer.total is None else offer.total
    if offer.workers == 0 or must <= total:
        return None
    workers = f"workers: {offer.workers}" if offer.workers is not None else f"of one worker; {offer.problem}"
    missing = -(-(must - total) // offer.slots_per_worker)
    return (
        f"process slots: the daemon has {total} ({workers}) and WorkChains that wait for their jobs can come to hold "
        f"{must - 1}. It needs at least {must} or may lock itself up, and {should} for no job to wait for a slot. "
        f"Remedy: verdi daemon incr {missing}, or fewer campaigns and jobs at once"
    )


def daemon_offer(timeout: int = DAEMON_TIMEOUT) -> Offer:
    """Return the slots of the daemon of the loaded profile.

    :param timeout: seconds that it is waited for; what it does not say is not known, and never an exception.
    """
    slots = int(get_config_option("daemon.worker_process_slots"))
    try:
        client = get_daemon_client()
        if client.profile.process_control_backend is None:
            return Offer(0, slots, "this profile has no broker and hence no daemon")
        if not client.is_daemon_running:
            return Offer(0, slots, "the daemon is not running")
        client.get_controller_endpoint()  # says what is wrong with the files of the daemon, which the next line hides
        answer = client.get_numprocesses(timeout=timeout)
    except (DaemonException, ConfigurationError, OSError, RuntimeError) as error:
        return Offer(None, slots, f"how many run is not known: {error}")
    if "numprocesses" not in answer:
        return Offer(None, slots, f"how many run is not known: {answer.get('reason', answer)}")
    return Offer(int(answer["numprocesses"]), slots)


def campaign_demand(inputs: Mapping[str, Any], name: str = "this campaign") -> Demand:
    """Return what a campaign asks for, by the inputs of ``alpot.active_learning``."""
    loads = []
    for stage in (key for key in STAGES if inputs.get(key)):
        values = {key: getattr(value, "value", value) for key, value in inputs[stage].items() if key in _SETTINGS}
        loads.append(stage_load(stage, values, parents=2))
    return Demand.of(name, loads)


def stage_load(stage: str, values: Mapping[str, Any], parents: int) -> Load:
    """Return the items of one stage; a stage without an engine is one job.

    :param stage: its name.
    :param values: those of its inputs ``engine``, ``committee_size`` and ``max_concurrent`` that are known.
    :param parents: WorkChains above its jobs, its own included.
    """
    if stage not in ENGINE_STAGES:
        return Load(parents, window=1)
    window = int(values.get("max_concurrent", DEFAULT_MAX_CONCURRENT))
    engine = values.get("engine")
    levels = load_engine(stage, engine).LEVELS if engine in known_engines(stage) else 1
    return Load(parents, min(window, int(values.get("committee_size", window))), levels)


def live_demands(without: int | None = None) -> list[Demand]:
    """Return what every tree of live processes asks for.

    Campaigns and stages of this package by their inputs, or by what lives now if that is more. Other processes by what
    lives now: how far they will branch is not known.

    :param without: pk of a process whose tree is left out.
    """
    demands = []
    for root, tree in sorted(_live_trees().items()):
        if root == without:
            continue
        n_jobs = sum(process.is_job for process in tree.values())
        now = Load(parents=len(tree) - n_jobs, window=n_jobs)
        demands.append(Demand.of(f"{tree[root].label} <{root}>", [now, *_planned_loads(root, tree[root])]))
    return demands


@dataclass(frozen=True)
class _Process:
    label: str
    process_type: str
    is_job: bool


def _live_trees() -> dict[int, dict[int, _Process]]:
    """Return live WorkChains and CalcJobs, by the topmost live one above them and by pk; functions hold no slot."""
    found: dict[int, _Process] = {}
    for kind in (orm.WorkChainNode, orm.CalcJobNode):
        query = orm.QueryBuilder().append(
            kind, filters=_LIVE, project=["id", "attributes.process_label", "process_type"]
        )
        found |= {pk: _Process(label or "", type_ or "", kind is orm.CalcJobNode) for pk, label, type_ in query.all()}
    query = orm.QueryBuilder().append(orm.WorkChainNode, filters=_LIVE, project="id", tag="caller")
    query.append(orm.ProcessNode, with_incoming="caller", filters=_LIVE, project="id")
    callers = {called: caller for caller, called in query.all()}
    trees: dict[int, dict[int, _Process]] = defaultdict(dict)
    for pk, process in found.items():
        root = pk
        while root in callers:
            root = callers[root]
        trees[root][pk] = process
    return dict(trees)


def _planned_loads(pk: int, process: _Process) -> list[Load]:
    """Return the loads that a live campaign or stage of this package will have by its stored inputs."""
    name = process.process_type.removeprefix(_PREFIX)
    if name == "active_learning":
        given = _stored_settings(pk)
        return [stage_load(stage, given[stage], parents=2) for stage in STAGES if stage in given]
    return [stage_load(name, _stored_settings(pk).get("", {}), parents=1)] if name in STAGES else []


def _stored_settings(pk: int) -> dict[str, dict[str, Any]]:
    """Return the settings among the inputs of a process by namespace, ``""`` for those outside of any."""
    query = orm.QueryBuilder().append(orm.WorkChainNode, filters={"id": pk}, tag="process")
    query.append(
        orm.Data,
        with_outgoing="process",
        project="attributes.value",
        edge_project="label",
        edge_filters={"type": LinkType.INPUT_WORK.value},
    )
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for value, link in query.all():
        stage, _, key = link.rpartition("__")
        settings = found[stage.partition("__")[0]]
        if key in _SETTINGS:
            settings[key] = value
    return dict(found)
