"""LabellingWorkChain: reference labels for a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from aiida import orm
from aiida.engine import ExitCode, ProcessBuilder
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_alpot.calculations.base import fraction_validator, non_empty_validator, settings_validator
from aiida_alpot.calculations.functions.dataset import select_same, take_known_labels
from aiida_alpot.calculations.functions.review import (
    add_stress_probes,
    find_right_stress,
    review_dataset,
    set_aside,
    take_stress_probes,
)
from aiida_alpot.calculations.functions.summary import summarise_labels
from aiida_alpot.data.pes import PESData
from aiida_alpot.engines.job import CONTINUABLE, REPEATABLE, Job, JobResources
from aiida_alpot.engines.label.base import LabelRequest
from aiida_alpot.kernel.labelling.quality import QualitySettings
from aiida_alpot.kernel.labelling.results import find_known_labels, find_same_structures
from aiida_alpot.kernel.labelling.stress_check import REFUSED
from aiida_alpot.kernel.summaries import describe_review
from aiida_alpot.plugins import known_engines, load_engine
from aiida_alpot.workflows.base import StageWorkChain, find_jobs, validate_options


def _validate(inputs: Any, _: Any) -> str | None:
    if "engine" not in inputs or "parameters" not in inputs:
        return None
    if inputs["engine"].value not in known_engines("label"):
        return f"label.engine: {inputs['engine'].value!r} is unknown; known: {', '.join(known_engines('label'))}"
    engine = load_engine("label", inputs["engine"].value)
    problem: str | None = engine.validate(inputs["parameters"].get_dict())
    return problem or (engine.check_code(inputs["code"]) if "code" in inputs else None)


class LabellingWorkChain(StageWorkChain):
    """Labels frames with a reference method; a frame that fails stays, with its reason."""

    STAGE = "label"

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Declare inputs and outputs."""
        super().define(spec)
        spec.input(
            "frames", valid_type=PESData, validator=non_empty_validator("frames"), help="The frames to be labelled."
        )
        spec.input(
            "engine",
            valid_type=orm.Str,
            default=lambda: orm.Str("ase"),
            help="Labelling engine, a name of the entry-point group aiida_alpot.label.",
        )
        spec.input("parameters", valid_type=orm.Dict, help="Parameters of the engine: method, basis, cut-offs.")
        spec.input(
            "known",
            valid_type=PESData,
            required=False,
            help="The dataset these labels are for: cut-offs count its species too, new labels are judged beside its "
            "own, and an engine with one job a frame takes those of the same structure and settings.",
        )
        spec.input(
            "quality",
            valid_type=orm.Dict,
            default=lambda: orm.Dict({}),
            validator=settings_validator(QualitySettings, "label.quality"),
            help="When a new label is put into quarantine, see aiida_alpot.kernel.labelling.quality_settings.",
        )
        spec.input(
            "check_stress",
            valid_type=orm.Bool,
            default=lambda: orm.Bool(False),
            help="Label a compressed frame and the same strained, seven labels more, and end if the stress that the "
            "engine gives is not the derivative of its energy: another sign, another unit, not the whole tensor. A "
            "campaign does it once, an engine with one job a frame once for its settings. Protocols switch it on; here "
            "it is off, since seven labels may cost more than those that are asked for.",
        )
        spec.input(
            "max_failed_fraction",
            valid_type=orm.Float,
            default=lambda: orm.Float(0.5),
            validator=fraction_validator("max_failed_fraction"),
            help="Largest share of frames without a label at the end. When more have failed, no other is begun.",
        )
        spec.input(
            "resume_from",
            valid_type=orm.Str,
            required=False,
            help="uuid of the labelling stage that this one goes on with; jobs that ended well there are not repeated.",
        )
        spec.inputs.validator = _validate
        spec.output("labelled", valid_type=PESData, required=False, help="All frames with labels or reasons.")
        spec.output(
            "known",
            valid_type=PESData,
            required=False,
            help="The input known with labels set aside that were too few to be compared when they were made, if there "
            "are such.",
        )
        spec.output("report", valid_type=orm.Dict, required=False, help="Counts, failures and cost.")
        spec.exit_code(404, "ERROR_REVIEW_FAILED", message="The labels are kept, but could not be reviewed: {detail}")
        spec.exit_code(
            405,
            "ERROR_WRONG_STRESS",
            message="{detail}; the labels are kept: correct the engine, or leave out check_stress if you know better",
        )

    @classmethod
    def get_builder_for(
        cls,
        code: orm.AbstractCode,
        frames: PESData,
        engine: str,
        parameters: Mapping[str, Any],
        *,
        options: Mapping[str, Any] | None = None,
        **inputs: Any,
    ) -> ProcessBuilder:
        """Return a builder that labels frames; what can be refused before a job runs is refused here.

        :param frames: stored or not.
        :param engine: name of the entry point.
        :param parameters: of the engine.
        :param options: scheduler options.
        :param inputs: further inputs of the stage, e.g. ``max_concurrent``.
        :raises ValueError: naming what is wrong, e.g. an unknown key, or a species without pseudopotential.
        """
        labeller = load_engine("label", engine)
        problem = (
            labeller.validate(parameters)
            or labeller.check_code(code)
            or validate_options(orm.Dict(dict(options or {})), None)
        )
        if problem is not None:
            raise ValueError(problem)
        settings = labeller.complete(parameters, frames.symbols)
        labeller.plan_jobs(LabelRequest(frames, orm.Dict(dict(parameters)), settings))
        builder = cls.get_builder()
        builder.code = code
        builder.engine = orm.Str(engine)
        builder.frames = frames
        builder.parameters = orm.Dict(dict(parameters))
        builder.options = orm.Dict(dict(options or {}))
        for name, value in inputs.items():
            builder[name] = orm.to_aiida_type(value)
        return builder

    @property
    def engine(self) -> Any:
        """The labelling engine."""
        return load_engine("label", self.inputs.engine.value)

    @property
    def retried(self) -> frozenset[int]:
        """What the engine says."""
        return frozenset(self.engine.RETRIED)

    @property
    def lost_statuses(self) -> frozenset[int]:
        """Not those of a frame that did not converge, although another attempt converges another way."""
        return self.retried & (REPEATABLE | CONTINUABLE)

    def was_lost(self, node: orm.ProcessNode) -> bool:
        """Return whether an attempt was stopped from outside, also if it is a WorkChain that does not say so itself."""
        return super().was_lost(node) or self.engine.was_lost(node)

    @property
    def request(self) -> LabelRequest:
        """What is to be labelled, and how."""
        return LabelRequest(
            self.ctx.frames,
            self.inputs.parameters,
            self.ctx.settings,
            self.inputs.max_failed_fraction,
            self.ctx.same,
        )

    def plan_jobs(self) -> list[str]:
        """Ask the engine, and leave out what the stage that is resumed has done."""
        self.ctx.settings = self._complete(self.inputs)
        self.ctx.is_checked = self._must_check_stress()
        self.ctx.given, self.ctx.same = self._take_known()
        self.ctx.frames = add_stress_probes(self.ctx.given) if self.ctx.is_checked else self.ctx.given
        keys = list(self.engine.plan_jobs(self.request))
        done = self.earlier_jobs()
        if done:
            self.report(f"label: {len(done)} of {len(keys)} jobs ended well in the campaign that is resumed")
        return [key for key in keys if key not in done]

    def prepare_job(self, key: str, resources: JobResources, previous: orm.ProcessNode | None) -> Job:
        """Ask the engine."""
        job: Job = self.engine.prepare_job(key, self.request, resources, previous)
        return job

    def should_go_on(self) -> bool:
        """Return whether not too many have failed yet."""
        n_failed, n_jobs = len(self.ctx.failed), self.ctx.n_jobs
        if n_failed <= self.inputs.max_failed_fraction.value * n_jobs:
            return True
        self.report(f"label: {n_failed} of {n_jobs} jobs have failed: {len(self.ctx.pending)} are not begun")
        return False

    def describe_end(self, node: orm.ProcessNode) -> str:
        """Return why an attempt did not end well: its own account, that of its last calculation, and the program's."""
        parts = [super().describe_end(node)]
        jobs = [call for call in node.called if isinstance(call, orm.CalcJobNode)]
        if jobs and not jobs[-1].is_finished_ok:
            parts.append(f"{jobs[-1].process_label} <{jobs[-1].pk}>: {super().describe_end(jobs[-1])}")
        said = self.engine.explain(node)
        return "; ".join([*parts, said] if said else parts)

    def earlier_jobs(self) -> dict[str, orm.ProcessNode]:
        """Return the jobs that ended well in the stages that this one resumes, by key; not those of other settings."""
        found: dict[str, orm.ProcessNode] = {}
        stage: Any = self.node
        while "resume_from" in stage.inputs:
            stage = orm.load_node(stage.inputs.resume_from.value)
            if not self._has_same_settings(stage):
                break
            jobs = {key: nodes[-1] for key, nodes in find_jobs(stage).items() if nodes[-1].is_finished_ok}
            found = {**jobs, **found}
        return found

    def _has_same_settings(self, stage: Any) -> bool:
        """Return whether an earlier stage has labelled with the settings of this one."""
        if stage.inputs.engine.value != self.inputs.engine.value:
            return False
        try:
            settings = self._complete(stage.inputs)
        except ValueError:  # e.g. its pseudopotentials are gone
            return False
        found, wanted = self.engine.fingerprint(settings), self.engine.fingerprint(self.ctx.settings)
        return bool(settings == self.ctx.settings if wanted is None else found == wanted)

    def _complete(self, inputs: Any) -> dict[str, Any]:
        """Return the parameters of a stage with what follows from the species of all its frames."""
        known = inputs.known.symbols if "known" in inputs else []
        symbols = sorted({*inputs.frames.symbols, *known})
        settings: dict[str, Any] = self.engine.complete(inputs.parameters.get_dict(), symbols)
        return settings

    def attach_results(self) -> ExitCode | None:
        """Attach all frames, and end with an exit code if a job was lost or too many have no label."""
        jobs = {**self.earlier_jobs(), **self.last_attempts()}
        lost = self.lost_jobs()  # their frames stay unlabelled, and are labelled by a run that goes on
        failures = {key: reason for key, reason in self.failures().items() if key not in lost}
        labelled = self.engine.collect(replace(self.request, lost=lost), jobs, failures)
        if labelled is None:
            return self.all_failed()
        problem = None
        if self.ctx.is_checked:
            labelled, problem = self._check_stress(labelled)
        try:
            labelled, known, reviews = self._review(labelled, self.engine.made_fingerprint(self.request, jobs))
        except ValueError as error:
            self.out("labelled", labelled)
            return self.exit_codes.ERROR_REVIEW_FAILED.format(detail=str(error))
        summary = summarise_labels(labelled, **reviews)
        self.out("labelled", labelled)
        self.out("report", summary)
        self._report_review(summary["review"])
        if known is not None:
            self.out("known", known)
        if problem is not None:
            return problem
        is_too_much = summary["n_labelled"] == 0 or summary["failed_fraction"] > self.inputs.max_failed_fraction.value
        if summary["n_unlabelled"] and lost and (is_too_much or len(lost) == self.ctx.n_jobs):
            return self.jobs_lost(lost)
        if is_too_much:
            detail = f"{summary['n_failed']} of {summary['n_frames']} frames have no label, e.g. {summary['example']}"
            return self.exit_codes.ERROR_TOO_MANY_FAILURES.format(detail=detail)
        return None

    def _take_known(self) -> tuple[PESData, PESData | None]:
        """Return the frames with the labels of these settings that the dataset has; none is computed twice.

        Of an engine whose jobs alone know the fingerprint, return the frames as they are, and labels of the same
        structures if there are any: the job takes those of its settings. It gets no others, so that it is found by
        caching, and need not copy the whole dataset.
        """
        frames: PESData = self.inputs.frames
        if "known" not in self.inputs:
            return frames, None
        fingerprint = self.engine.fingerprint(self.ctx.settings)
        if fingerprint is None:
            return frames, self._select_same(frames)
        with frames.dataset() as reader, self.inputs.known.dataset() as known:
            n_known = len(find_known_labels(reader, known, fingerprint))
        if n_known == 0:
            return frames, None
        self.report(f"label: {n_known} of {len(frames)} frames have a label of these settings in the dataset")
        taken: PESData = take_known_labels(frames, self.inputs.known, orm.Str(fingerprint))
        return taken, None

    def _select_same(self, frames: PESData) -> PESData | None:
        """Return the known labels of the structures of the frames, None if there are none."""
        with frames.dataset() as reader, self.inputs.known.dataset() as known:
            n_same = len(find_same_structures(reader, known))
        if n_same == 0:
            return None
        self.report(f"label: the dataset has {n_same} labels of these structures; the job takes those of its settings")
        same: PESData = select_same(frames, self.inputs.known)
        return same

    def _must_check_stress(self) -> bool:
        """Return whether the stress is to be checked, and was not found right for these settings before.

        Where one job labels all frames, that job is the same only if the probes are always among them (caching).
        """
        fingerprint = self.engine.fingerprint(self.ctx.settings)
        if not self.inputs.check_stress.value or fingerprint is None:
            return bool(self.inputs.check_stress.value)
        verdict = find_right_stress(fingerprint)
        if verdict is not None:
            self.report(f"label: the stress of these settings was found right before, see <{verdict.pk}>")
        return verdict is None

    def _check_stress(self, labelled: PESData) -> tuple[PESData, ExitCode | None]:
        """Return the frames without the probes, and an exit code if these say that the stress is a wrong one."""
        taken: Any = take_stress_probes(labelled, self.inputs.frames)
        outcome, reason = taken["verdict"]["outcome"], taken["verdict"]["reason"]
        self.report(f"label: check of the stress: {outcome.replace('_', ' ')}: {reason}")
        is_wrong = outcome in REFUSED
        return taken["labelled"], self.exit_codes.ERROR_WRONG_STRESS.format(detail=reason) if is_wrong else None

    def _review(
        self, labelled: PESData, fingerprint: str | None
    ) -> tuple[PESData, PESData | None, dict[str, orm.Dict]]:
        """Return the frames, and the known ones if some are concerned, with labels set aside, and verdicts by part.

        :param fingerprint: that new labels must have; labels that the frames were given with may have others.
        """
        known = self.inputs.get("known", None)
        reviews = review_dataset(labelled, self.inputs.quality, self.ctx.given, known, fingerprint)
        mended = None if known is None else set_aside(known, reviews)
        return set_aside(labelled, reviews), None if mended is known else mended, reviews

    def _report_review(self, review: Mapping[str, Any]) -> None:
        """Say what was set aside, and what nothing is known of yet."""
        if review["n_quarantined"] or review["n_not_compared"]:
            for line in describe_review(review):
                self.report(f"label: review: {line}")
