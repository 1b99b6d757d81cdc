"""Going on with a campaign that has finished, failed or was killed: what it had reached, read from its graph.

Everything is found by the links of the calls, not by the outputs of the campaign, which one that was killed has not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

from aiida import orm
from aiida.common.links import LinkType
from aiida.engine import ProcessBuilder

from aiida_alpot.data.pes import PESData
from aiida_alpot.data.uncertainty import UncertaintyData
from aiida_alpot.kernel.settings import merge_recursively, unknown_key_message
from aiida_alpot.protocols import change_inputs, set_input, tolerance_overrides
from aiida_alpot.workflows.campaign import RESUMABLE

PROCESS_TYPE = "aiida.workflows:alpot.active_learning"
"""What tells the node of a campaign from others."""
REPORTS = {
    "train": "training",
    "calibrate": "calibration",
    "explore": "exploration",
    "evaluate": "evaluation",
}
"""Stages of an iteration before the labelling, and the names of their reports in its row."""
CONTINUABLE_STAGES = ("structures", "train", "explore", "label")
"""Stages whose jobs go on from the folder of an earlier attempt."""
BEGINS_WITH = {
    "structures": "train",
    "dataset": "train",
    "potentials": "calibrate",
    "test_frames": "calibrate",
    "explore_from": "explore",
    "candidates": "evaluate",
}
"""Stage that a change of an input of the campaign begins with."""


@dataclass(frozen=True)
class Reached:
    """What a campaign had reached.

    :param stage: of :data:`~aiida_alpot.workflows.campaign.RESUMABLE`, the first that is not complete.
    :param left_out: stages that the campaign has no inputs for.
    :param frames: what is to be labelled, or is in part, if the stage is ``structures``; not to be augmented.
    :param earlier: frames of the campaigns before that are still to join these.
    :param given: the dataset that the campaign was given, if the first labelling has set labels of it aside.
    :param dataset: as it was when the iteration began, None before the first.
    :param extended: with the labels of this iteration, None if there are none.
    :param labelling: uuid of a labelling that was stopped before it gave a dataset.
    """

    stage: str
    left_out: frozenset[str] = frozenset()
    history: orm.Dict | None = None
    frames: PESData | None = None
    earlier: Mapping[str, PESData] = field(default_factory=dict)
    given: PESData | None = None
    dataset: PESData | None = None
    extended: PESData | None = None
    starting: PESData | None = None
    potentials: Mapping[str, Any] = field(default_factory=dict)
    uncertainty: UncertaintyData | None = None
    previous: UncertaintyData | None = None
    candidates: Mapping[str, PESData] = field(default_factory=dict)
    selected: PESData | None = None
    reports: Mapping[str, orm.Dict] = field(default_factory=dict)
    checkpoints: Mapping[str, orm.RemoteData] = field(default_factory=dict)
    labelling: orm.Str | None = None


class ResumeMixin:
    """Gives the campaign ``get_builder_to_resume``."""

    @classmethod
    def get_builder_to_resume(
        cls,
        campaign: orm.WorkChainNode,
        *,
        stage: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        tolerances: Mapping[str, float] | None = None,
        **nodes: Any,
    ) -> ProcessBuilder:
        """Return a builder that goes on where *campaign* ended; no label is computed again.

        It begins with the first stage that is not complete, or that a changed input concerns. A campaign that has
        finished goes on with another search.

        :param campaign: finished, failed, excepted or killed.
        :param stage: to begin with an earlier stage of the iteration: train, calibrate, explore, evaluate or label.
        :param overrides: inputs to change, plain values nested like the inputs, e.g. ``{"max_iterations": 5}``.
        :param tolerances: largest errors wanted, as in ``get_builder_from_protocol``.
        :param nodes: inputs to replace, but for ``structures``: more frames to augment, label and learn from. What was
            augmented, labelled or to be labelled is kept, and is not augmented again.
        :raises ValueError: if the campaign is none or still runs, nothing is left to do, or an input does not exist.
        :raises TypeError: if a value is not plain.
        """
        if not campaign.is_terminated:
            raise ValueError(
                f"campaign <{campaign.pk}> still runs; wait for it, or end it: verdi process kill {campaign.pk}"
            )
        require_campaign(campaign)
        changes = dict(overrides or {})
        for key, value in tolerance_overrides(tolerances).items():
            given = changes.get(key, {})
            if not isinstance(given, Mapping):
                raise ValueError(f"{key}: expected a mapping beside tolerances, got {given!r:.80}")
            changes[key] = merge_recursively(value, given)
        reached = Campaign(campaign).reached
        first = choose_stage(reached, stage, {*changes, *nodes})
        builder = campaign.get_builder_restart()
        del builder["kernel"]  # the code as it is now
        _fill(builder, reached, first, has_new="structures" in nodes)
        change_inputs(builder, cls.spec().inputs, changes)  # type: ignore[attr-defined]
        for key, node in nodes.items():
            if key not in cls.spec().inputs:  # type: ignore[attr-defined]
                raise ValueError(unknown_key_message(key, cls.spec().inputs, "inputs"))  # type: ignore[attr-defined]
            set_input(builder, key, node)
        if campaign.is_finished_ok:
            _require_work(builder, reached, first, {*changes, *nodes, *([stage] if stage else [])})
        return builder


def require_campaign(node: orm.ProcessNode) -> None:
    """Refuse a process that is no campaign.

    :raises ValueError: naming what it is and what is expected.
    """
    if node.process_type != PROCESS_TYPE:
        found = node.process_label or node.process_type or node.class_node_type
        raise ValueError(
            f"<{node.pk}> is no campaign but {found}; expected an ActiveLearningWorkChain, "
            "see verdi process list -a -L ActiveLearningWorkChain"
        )


def choose_stage(reached: Reached, wanted: str | None, changed: set[str]) -> str:
    """Return the stage to begin with: the one reached, or an earlier one that is wanted or concerned by a change.

    :raises ValueError: if the stage wanted does not exist or was not reached.
    """
    if wanted is not None and wanted not in RESUMABLE:
        raise ValueError(unknown_key_message(wanted, RESUMABLE, "stage"))
    if wanted == "structures" and reached.stage != "structures":
        raise ValueError("stage: the structures are labelled; begin with a stage of the iteration, e.g. 'train'")
    last = RESUMABLE.index(reached.stage)
    if wanted is not None and RESUMABLE.index(wanted) > last:
        raise ValueError(f"stage: {wanted!r} was not reached, the campaign ended in {reached.stage!r}")
    if reached.stage == "structures":
        return reached.stage
    concerned = [BEGINS_WITH.get(key, key) for key in changed]
    stages = [*([wanted] if wanted else []), *(key for key in concerned if key in RESUMABLE), reached.stage]
    first = min(stages, key=RESUMABLE.index)
    if first != "label" and reached.extended is not None:
        first = "train"  # labels of this iteration are not thrown away: they are learnt from instead
    return next(stage for stage in RESUMABLE[RESUMABLE.index(first) :] if stage not in reached.left_out)


def _fill(builder: ProcessBuilder, reached: Reached, first: str, *, has_new: bool) -> None:
    """Replace what the campaign began with by what it had reached.

    :param has_new: whether structures are given, which are still to be augmented.
    """
    if reached.dataset is None:
        _fill_before_the_loop(builder, reached, has_new=has_new)
        return
    _remove(builder, "structures", "potentials", "uncertainty", "resume", *([] if has_new else ["augment"]))
    position = RESUMABLE.index(first)
    builder.dataset = reached.dataset if first == "label" or reached.extended is None else reached.extended
    builder.explore_from = reached.starting
    builder.potentials = dict(reached.potentials)
    if position > RESUMABLE.index("calibrate"):
        builder.uncertainty = reached.uncertainty
    kept = [report for stage, report in REPORTS.items() if RESUMABLE.index(stage) < position]
    resume = {
        "stage": orm.Str(first),
        "history": reached.history,
        "previous": reached.previous,
        "candidates": dict(reached.candidates) if position >= RESUMABLE.index("evaluate") else None,
        "selected": reached.selected if first == "label" else None,
        "reports": {name: reached.reports[name] for name in kept if name in reached.reports},
        "checkpoints": dict(reached.checkpoints) if first == reached.stage and not has_new else None,
        "labelling": reached.labelling if first == "label" else None,
    }
    builder.resume = {name: value for name, value in resume.items() if value is not None and value != {}}


def _fill_before_the_loop(builder: ProcessBuilder, reached: Reached, *, has_new: bool) -> None:
    """Replace the structures by what became of them, or let that join the new ones."""
    if reached.given is not None:
        builder.dataset = reached.given
    earlier = dict(reached.earlier)
    if reached.frames is not None and has_new:
        earlier[f"d{len(earlier):03d}"] = reached.frames
    elif reached.frames is not None:
        builder.structures = reached.frames
        _remove(builder, "augment")
    # the campaign may have been resumed itself, with structures that it then failed to label
    resume = {"stage": orm.Str("structures"), **(builder.get("resume", None) or {})}
    resume |= {"frames": earlier, "checkpoints": dict(reached.checkpoints), "labelling": reached.labelling}
    builder.resume = {name: value for name, value in resume.items() if value is not None and value != {}}


def _remove(builder: ProcessBuilder, *names: str) -> None:
    for name in names:
        if name in builder:
            del builder[name]


def _require_work(builder: ProcessBuilder, reached: Reached, first: str, given: set[str]) -> None:
    """Refuse to resume a finished campaign that would do nothing new."""
    n_done = 0 if reached.history is None else len(reached.history["iterations"])
    only_searches = first not in ("train", "calibrate") and "structures" not in given
    if only_searches and builder["max_iterations"].value <= n_done:
        raise ValueError(f"max_iterations: all {n_done} rounds are done; give more, e.g. {n_done + 3}")
    if not given:
        raise ValueError("the campaign has finished; say what else it is to do: max_iterations, tolerances, structures")


class Campaign:
    """The calls of a campaign, read from the graph."""

    def __init__(self, node: orm.WorkChainNode) -> None:
        self.node = node
        self._resume: Mapping[str, Any] = node.inputs.resume if "resume" in node.inputs else {}
        links = node.base.links.get_outgoing(link_type=(LinkType.CALL_CALC, LinkType.CALL_WORK)).all()
        calls = sorted(
            ((link.link_label, cast(orm.ProcessNode, link.node)) for link in links),
            key=lambda call: cast(int, call[1].pk),
        )
        self._stages: dict[tuple[int, str], orm.ProcessNode] = {}
        self._before: dict[str, orm.ProcessNode] = {}
        self._functions: dict[str, list[orm.ProcessNode]] = {}
        for label, child in calls:
            found = re.fullmatch(r"iteration_(\d+)_(\w+)", label)
            if found is not None:
                self._stages[int(found[1]), found[2]] = child
            elif isinstance(child, orm.WorkChainNode):
                self._before[label] = child
            elif child.is_finished_ok:
                self._functions.setdefault(str(child.process_label), []).append(child)

    @cached_property
    def history(self) -> orm.Dict | None:
        """Rows of the iterations that are complete and searched: the last of a finished campaign only trained."""
        written = self._functions.get("extend_history", [])
        if not written:
            return self._resume.get("history", None)
        last = written[-1]
        if not self.node.is_finished_ok:
            return cast(orm.Dict, last.outputs.result)
        return last.inputs.history if "history" in last.inputs else None

    @cached_property
    def iteration(self) -> int:
        """The one that is not complete."""
        return _count(self.history)

    @property
    def reached(self) -> Reached:
        """What there is to go on with."""
        if not self._functions.get("split_dataset"):
            return self._reached_before_the_loop()
        dataset, extended = self._datasets()
        stage = self._stage()
        current = self._stages.get((self.iteration, stage))
        return Reached(
            stage=stage,
            left_out=frozenset(name for name in ("train", "calibrate") if name not in self.node.inputs),
            history=self.history,
            dataset=dataset,
            extended=extended,
            starting=self._starting(),
            potentials=self._latest("train", "potentials", self.iteration) or self._given("potentials") or {},
            uncertainty=self._uncertainty(),
            previous=self._previous(),
            candidates=self._of_iteration("explore", "candidates") or {},
            selected=self._selected(),
            reports=self._reports(),
            checkpoints=self._checkpoints(stage, current),
            labelling=_unfinished_labelling(current) if stage == "label" else None,
        )

    def _reached_before_the_loop(self) -> Reached:
        labelling = self._before.get("label")
        if labelling is None:
            augment = self._before.get("augment")
            frames = None if "augment" in self.node.inputs else self._given("structures")
            if augment is not None and augment.is_finished_ok:
                frames = augment.outputs.frames
            return Reached("structures", frames=frames, earlier=dict(self._resume.get("frames", {})))
        outputs = labelling.outputs
        return Reached(
            "structures",
            frames=outputs.labelled if "labelled" in outputs else labelling.inputs.frames,
            given=outputs.known if "known" in outputs else None,
            checkpoints=self._checkpoints("structures", labelling),
            labelling=_unfinished_labelling(labelling),
        )

    def _datasets(self) -> tuple[PESData, PESData | None]:
        """Return the dataset this iteration began with, and with the labels it has brought.

        Without labels that its labelling has set aside in it.
        """
        extensions = self._functions.get("extend_dataset", [])
        begun = extensions[-1] if extensions else self._functions["split_dataset"][-1]
        labelling = self._stages.get((self.iteration, "label"))
        if labelling is None or "labelled" not in labelling.outputs:
            return begun.outputs.result, None
        if extensions and begun.inputs.labelled.uuid == labelling.outputs.labelled.uuid:
            return begun.inputs.dataset, begun.outputs.result
        return labelling.outputs.known if "known" in labelling.outputs else begun.outputs.result, None

    def _stage(self) -> str:
        """Return the first stage of the iteration that is not complete."""
        if self.node.is_finished_ok:
            return "explore" if self._uncertainty() is not None else "calibrate"
        called = [stage for stage in RESUMABLE if (self.iteration, stage) in self._stages]
        if not called:
            stage = self._resume["stage"].value if self._is_first and "stage" in self._resume else "train"
            return "train" if stage == "structures" else str(stage)
        last = called[-1]
        if not self._stages[self.iteration, last].is_finished_ok or last == "label":
            return last
        return RESUMABLE[RESUMABLE.index(last) + 1]

    @property
    def _is_first(self) -> bool:
        """Whether the iteration is the one that this campaign began with."""
        return self.iteration == _count(self._resume.get("history", None))

    def _starting(self) -> PESData | None:
        given = self._given("explore_from")
        return given if given is not None else self._functions["split_dataset"][0].outputs.result

    def _uncertainty(self) -> UncertaintyData | None:
        calibration, training = (self._stages.get((self.iteration, stage)) for stage in ("calibrate", "train"))
        if calibration is None and training is not None:
            return None  # the committee is newer than the error bars
        if calibration is not None and not calibration.is_finished_ok:
            return None
        return self._latest("calibrate", "uncertainty", self.iteration) or self._given("uncertainty")

    def _previous(self) -> UncertaintyData | None:
        found = self._latest("calibrate", "uncertainty", self.iteration - 1) or self._resume.get("previous", None)
        return found or self._given("uncertainty")

    def _selected(self) -> PESData | None:
        labelling = self._stages.get((self.iteration, "label"))
        if labelling is not None:
            return labelling.outputs.labelled if "labelled" in labelling.outputs else labelling.inputs.frames
        return self._of_iteration("evaluate", "selected")

    def _reports(self) -> dict[str, orm.Dict]:
        found = dict(self._resume.get("reports", {})) if self._is_first else {}
        for stage, name in REPORTS.items():
            node = self._stages.get((self.iteration, stage))
            if node is not None and node.is_finished_ok:
                found[name] = node.outputs.report
        return found

    def _checkpoints(self, stage: str, node: orm.ProcessNode | None) -> dict[str, orm.RemoteData]:
        """Return the folders of the last attempts of the jobs of a stage; labels that were retrieved need none."""
        if stage not in CONTINUABLE_STAGES or node is None or "labelled" in node.outputs:
            return {}
        found = dict(node.inputs.checkpoints) if "checkpoints" in node.inputs else {}
        for link in node.base.links.get_outgoing(link_type=LinkType.CALL_CALC).all():
            if isinstance(link.node, orm.CalcJobNode) and "remote_folder" in link.node.outputs:
                found[link.link_label] = link.node.outputs.remote_folder
        return {key: folder for key, folder in found.items() if not folder.is_empty}

    def _latest(self, stage: str, output: str, last_iteration: int) -> Any:
        """Return an output of a stage in the latest iteration in which it ended well, or None."""
        for iteration in range(last_iteration, -1, -1):
            node = self._stages.get((iteration, stage))
            if node is not None and node.is_finished_ok and output in node.outputs:
                return node.outputs[output]
        return None

    def _of_iteration(self, stage: str, output: str) -> Any:
        """Return an output of a stage of this iteration, done by this campaign or the one it resumed, or None."""
        node = self._stages.get((self.iteration, stage))
        if node is not None:
            return node.outputs[output] if node.is_finished_ok else None
        return self._resume.get(output, None) if self._is_first else None

    def _given(self, name: str) -> Any:
        return getattr(self.node.inputs, name, None)


def _unfinished_labelling(node: orm.ProcessNode | None) -> orm.Str | None:
    """Return the uuid of a labelling that left jobs but no dataset."""
    return None if node is None or "labelled" in node.outputs else orm.Str(node.uuid)


def _count(history: orm.Dict | None) -> int:
    return 0 if history is None else len(history["iterations"])
