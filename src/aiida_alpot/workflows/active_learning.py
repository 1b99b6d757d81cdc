"""ActiveLearningWorkChain: the whole loop, from a few structures to a committee with error bars."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiida import orm
from aiida.common import AttributeDict
from aiida.engine import ExitCode, WorkChain, if_, while_
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_alpot.calculations.functions.dataset import (
    extend_dataset,
    merge_datasets,
    merge_structures,
    select_new,
    select_unknown,
    split_dataset,
)
from aiida_alpot.calculations.functions.decide import decide
from aiida_alpot.calculations.functions.history import conclude, extend_history
from aiida_alpot.calculations.functions.plan import cap_budget, plan_iteration, plan_start
from aiida_alpot.calculations.functions.summary import summarise_labels
from aiida_alpot.data.pes import PESData
from aiida_alpot.data.potential import PotentialData
from aiida_alpot.data.uncertainty import UncertaintyData
from aiida_alpot.engines.job import Job
from aiida_alpot.protocols import ProtocolMixin
from aiida_alpot.workflows.base import describe_end, namespace, submit_once
from aiida_alpot.workflows.campaign import RESUMABLE, STAGES, define_inputs
from aiida_alpot.workflows.gates import prepare_validation, take_properties
from aiida_alpot.workflows.resume import ResumeMixin
from aiida_alpot.workflows.slots import slots_warning


class ActiveLearningWorkChain(ProtocolMixin, ResumeMixin, WorkChain):
    """Augment, label, train, calibrate, explore, evaluate and decide, until the error is small enough.

    Every stage is optional: it runs if its namespace is given. The loop starts from structures, from a labelled
    dataset, from a committee, or from a pool of candidates in place of an exploration.
    """

    PROTOCOL = "active_learning"
    STAGE_NAMES = tuple(STAGES)

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Declare inputs, outline, outputs and exit codes."""
        super().define(spec)
        define_inputs(spec)
        spec.outline(
            cls.setup,
            cls.leave_out_earlier,
            if_(cls.should_augment)(cls.run_augmentation, cls.inspect_augmentation),
            cls.join_earlier,
            cls.leave_out_known,
            if_(cls.should_label_structures)(cls.run_first_labelling, cls.inspect_first_labelling),
            cls.start_dataset,
            while_(cls.should_iterate)(
                cls.start_iteration,
                if_(cls.should_train)(cls.run_training, cls.inspect_training),
                if_(cls.should_calibrate)(cls.run_calibration, cls.inspect_calibration),
                if_(cls.should_search)(
                    if_(cls.should_explore)(cls.run_exploration, cls.inspect_exploration),
                    if_(cls.should_evaluate)(cls.run_evaluation, cls.inspect_evaluation),
                    if_(cls.should_label)(cls.run_labelling, cls.inspect_labelling),
                    cls.decide,
                    if_(cls.should_validate)(cls.run_validation, cls.inspect_validation, cls.decide),
                ),
                cls.record_iteration,
            ),
            cls.attach_results,
        )
        spec.output("dataset", valid_type=PESData, required=False, help="All frames with their labels and splits.")
        spec.output_namespace("potentials", valid_type=PotentialData, dynamic=True, help="The last committee.")
        spec.output("uncertainty", valid_type=UncertaintyData, required=False, help="Error bars of the committee.")
        spec.output("history", valid_type=orm.Dict, required=False, help="One row per iteration.")
        spec.output("result", valid_type=orm.Dict, required=False, help="Why the loop ended, and the last errors.")
        for status, stage in enumerate((*STAGES, "validate"), start=401):
            spec.exit_code(
                status, f"ERROR_{stage.upper()}_FAILED", message=f"The stage {stage} <{{pk}}> failed: {{detail}}"
            )
        spec.exit_code(410, "ERROR_NO_DATASET", message="There is no usable dataset to train on: {detail}")

    def setup(self) -> None:
        """Begin with what was given, or where an earlier campaign was."""
        resume = self.inputs.get("resume", {})
        self.ctx.initial = self.inputs.get("structures", None)
        self.ctx.given = self.inputs.get("dataset", None)
        self.ctx.labelled = None
        self.ctx.dataset = None
        self.ctx.potentials = dict(self.inputs.potentials) if "potentials" in self.inputs else {}
        self.ctx.uncertainty = self.inputs.get("uncertainty", None)
        self.ctx.last_uncertainty = resume.get("previous", self.ctx.uncertainty)
        self.ctx.history = resume.get("history", None)
        self.ctx.first_stage = resume["stage"].value if "stage" in resume else None
        self.ctx.reports = dict(resume.get("reports", {}))
        self.ctx.candidates = dict(resume.get("candidates", {}))
        self.ctx.selected = resume.get("selected", None)
        self.ctx.newly_labelled = None
        self.ctx.properties = None
        self.ctx.is_over = False
        n_done = 0 if self.ctx.history is None else len(self.ctx.history["iterations"])
        self.ctx.is_final = n_done >= self.inputs.max_iterations.value or not self._can_search()
        self.ctx.must_train = not self.ctx.potentials or self.ctx.first_stage == "train"
        self.ctx.must_calibrate = self.ctx.uncertainty is None or self.ctx.first_stage in ("train", "calibrate")
        self.ctx.seeds = plan_start(self.inputs.seed)
        # a process that runs in a shell holds no slot of the daemon
        warning = slots_warning(self.inputs, pk=self.node.pk) if self.runner.is_daemon_runner else None
        if warning is not None:
            self.report(warning)

    def leave_out_earlier(self) -> None:
        """Do not augment again what the campaign that is resumed has had."""
        resume = self.inputs.get("resume", {})
        known = dict(resume.get("frames", {}))
        if "dataset" in self.inputs and self.ctx.first_stage not in (None, "structures"):
            known["dataset"] = self.inputs.dataset
        if known and self.should_augment():
            self.ctx.initial = select_new(self.ctx.initial, **known)

    def should_augment(self) -> bool:
        """Return whether there are structures to be augmented."""
        return "augment" in self.inputs and self.ctx.initial is not None and len(self.ctx.initial) > 0

    def run_augmentation(self) -> ExitCode | None:
        """Submit the augmentation."""
        return self._submit_stage("augment", "augment", frames=self.ctx.initial, seed=self.ctx.seeds["augment"])

    def inspect_augmentation(self) -> ExitCode | None:
        """Go on with the augmented frames."""
        return self._inspect("augment", lambda outputs: self.ctx.update(initial=outputs.frames))

    def join_earlier(self) -> ExitCode | None:
        """Take the frames of a first labelling that failed, with the labels they have, in with the structures."""
        earlier = dict(self.inputs.get("resume", {}).get("frames", {}))
        if earlier and self.ctx.initial is not None:
            try:
                self.ctx.initial = merge_structures(**earlier, **{f"d{len(earlier):03d}": self.ctx.initial})
            except ValueError as error:
                return self._end_with(self.exit_codes.ERROR_NO_DATASET.format(detail=str(error)))
        return None

    def leave_out_known(self) -> None:
        """Do not label again what the given dataset has labels of."""
        if self.ctx.initial is not None and "dataset" in self.inputs:
            n_frames = len(self.ctx.initial)
            self.ctx.initial = select_unknown(self.ctx.initial, self.inputs.dataset)
            self.report(f"{n_frames - len(self.ctx.initial)} of {n_frames} structures have a label in the dataset")

    def should_label_structures(self) -> bool:
        """Return whether there are structures to be labelled before the loop."""
        return self.ctx.initial is not None and len(self.ctx.initial) > 0

    def run_first_labelling(self) -> ExitCode | None:
        """Submit the labelling of the structures."""
        known = {"known": self.inputs.dataset} if "dataset" in self.inputs else {}
        return self._submit_stage("label", "label", frames=self.ctx.initial, **known)

    def inspect_first_labelling(self) -> ExitCode | None:
        """Keep the labelled structures."""
        outputs = self.ctx.stage.outputs
        if "labelled" in outputs:  # also of a stage that ends the campaign: labels are not lost
            self.ctx.labelled = self.ctx.dataset = outputs.labelled
            self.ctx.given = outputs.known if "known" in outputs else self.ctx.given
        return self._inspect("label", lambda _: None)

    def start_dataset(self) -> ExitCode | None:
        """Bring given and new labels together and assign splits."""
        given = {"d000": self.ctx.given, "d001": self.ctx.labelled}
        parts = {key: node for key, node in given.items() if node is not None}
        try:
            self.ctx.dataset = merge_datasets(**parts) if len(parts) > 1 else next(iter(parts.values()))
            self.ctx.dataset = split_dataset(self.ctx.dataset, self.inputs.split, self.ctx.seeds["split"])
        except ValueError as error:
            return self._end_with(self.exit_codes.ERROR_NO_DATASET.format(detail=str(error)))
        if "max_labels" in self.inputs and self.ctx.dataset.n_labelled >= self.inputs.max_labels.value:
            self.ctx.is_final = True
        for warning in summarise_labels(self.ctx.dataset)["warnings"]:
            self.report(f"dataset: {warning}")
        self.ctx.starting = self.inputs.get("explore_from", None) or self.ctx.dataset
        self.report(f"dataset: {self.ctx.dataset.n_labelled} labelled frames to begin with")
        return None

    def should_iterate(self) -> bool:
        """Return whether there is an iteration left."""
        return not self.ctx.is_over

    def start_iteration(self) -> None:
        """Number the iteration and give its stages their seeds."""
        optional = {} if self.ctx.history is None else {"history": self.ctx.history}
        self.ctx.plan = plan_iteration(self.inputs.seed, **optional)
        self.ctx.trained_on = self.ctx.dataset
        self.report(f"iteration {self.ctx.plan['iteration'].value}: {self.ctx.dataset.n_labelled} labels")

    def should_train(self) -> bool:
        """Return whether there is something new to learn, or a last training from scratch is wanted."""
        is_fresh = self.ctx.is_final and self.inputs.fresh_final.value
        return "train" in self.inputs and (self.ctx.must_train or is_fresh)

    def run_training(self) -> ExitCode | None:
        """Submit the training of a committee."""
        is_fresh = self.ctx.is_final and self.inputs.fresh_final.value
        parents = self.ctx.potentials if self.inputs.warm_start.value and not is_fresh else {}
        optional = {"parents": parents} if parents else {}
        return self._submit_stage(
            "train", self._link("train"), dataset=self.ctx.dataset, seed=self.ctx.plan["train"], **optional
        )

    def inspect_training(self) -> ExitCode | None:
        """Go on with the new committee."""

        def take(outputs: Any) -> None:
            self.ctx.potentials = dict(outputs.potentials)
            self.ctx.reports["training"] = outputs.report
            self.ctx.must_train, self.ctx.must_calibrate = False, True
            self.ctx.uncertainty = None  # that of the committee before

        return self._inspect("train", take)

    def should_calibrate(self) -> bool:
        """Return whether committee or held-out frames are new."""
        return "calibrate" in self.inputs and self.ctx.must_calibrate

    def run_calibration(self) -> ExitCode | None:
        """Submit the calibration."""
        given = {"test_frames": self.inputs.get("test_frames", None), "previous": self.ctx.last_uncertainty}
        optional = {name: node for name, node in given.items() if node is not None}
        return self._submit_stage(
            "calibrate", self._link("calibrate"), potentials=self.ctx.potentials, dataset=self.ctx.dataset, **optional
        )

    def inspect_calibration(self) -> ExitCode | None:
        """Go on with the new error bars."""

        def take(outputs: Any) -> None:
            self.ctx.uncertainty = self.ctx.last_uncertainty = outputs.uncertainty
            self.ctx.reports["calibration"] = outputs.report
            self.ctx.must_calibrate = False
            limits = {name: f"{value:.3g}" for name, value in outputs.uncertainty.thresholds.items() if value}
            self.report(f"disagreement at the tolerance: {limits}")
            results = outputs.report["results"]
            for name in results.get("uncalibrated", []):
                self.report(f"no held-out frame has a label of {name}: its tolerance flags nothing")
            for warning in results.get("warnings", ()):
                self.report(f"calibration: {warning}")
            for name in limits:
                for warning in results["calibrations"].get(name, {}).get("warnings", []):
                    self.report(f"calibration of {name}: {warning}")

        return self._inspect("calibrate", take)

    def should_search(self) -> bool:
        """Return whether this iteration looks for new frames; the last one only trains on what was found."""
        return not self.ctx.is_final

    def should_explore(self) -> bool:
        """Return whether candidates come from an exploration, not from a pool or a campaign that is resumed."""
        return "explore" in self.inputs and self._is_due("explore")

    def run_exploration(self) -> ExitCode | None:
        """Submit the exploration."""
        return self._submit_stage(
            "explore",
            self._link("explore"),
            potentials=self.ctx.potentials,
            uncertainty=self.ctx.uncertainty,
            frames=self.ctx.starting,
            seed=self.ctx.plan["explore"],
            iteration=self.ctx.plan["iteration"],
        )

    def inspect_exploration(self) -> ExitCode | None:
        """Go on with the candidates."""

        def take(outputs: Any) -> None:
            self.ctx.candidates = dict(outputs.candidates)
            self.ctx.reports["exploration"] = outputs.report
            report = outputs.report
            n_healthy, n_all = report["n_healthy_trajectories"], report["n_trajectories"]
            self.report(f"{report['n_frames']} candidates from {n_all} trajectories, {n_healthy} of them healthy")

        return self._inspect("explore", take)

    def should_evaluate(self) -> bool:
        """Return whether candidates are still to be selected; a campaign that is resumed may have done so."""
        return self._is_due("evaluate")

    def run_evaluation(self) -> ExitCode | None:
        """Submit the evaluation of the candidates."""
        candidates = self.ctx.candidates if "explore" in self.inputs else dict(self.inputs.candidates)
        changed = {}
        if "max_labels" in self.inputs:
            changed["settings"] = cap_budget(self.inputs.evaluate.settings, self.ctx.dataset, self.inputs.max_labels)
        return self._submit_stage(
            "evaluate",
            self._link("evaluate"),
            potentials=self.ctx.potentials,
            uncertainty=self.ctx.uncertainty,
            candidates=candidates,
            dataset=self.ctx.dataset,
            seed=self.ctx.plan["evaluate"],
            **changed,
        )

    def inspect_evaluation(self) -> ExitCode | None:
        """Go on with the selected frames."""

        def take(outputs: Any) -> None:
            self.ctx.selected = outputs.selected
            self.ctx.reports["evaluation"] = outputs.report
            counts = outputs.report["results"]
            chosen = f"{counts['n_selected']} selected, {counts['n_control']} of them for control"
            self.report(f"{counts['n_flagged']} of {counts['n_candidates']} candidates above threshold; {chosen}")
            for warning in counts.get("warnings", ()):
                self.report(f"evaluation: {warning}")
            extrapolated = {name: n for name, n in counts.get("extrapolated", {}).items() if n}
            if extrapolated:
                self.report(f"candidates that disagree more than any frame of the calibration: {extrapolated}")
            cutout = counts.get("cutout", {})
            if cutout.get("n_large"):
                pieces = f"{cutout['n_pieces']} pieces were cut out of {cutout['n_cut']} of them"
                self.report(f"{cutout['n_large']} selected frames are too large to be labelled: {pieces}")
            for frame, reason in cutout.get("left_out", {}).items():
                self.report(f"frame {frame[:12]} is too large to be labelled and was left out: {reason}")

        return self._inspect("evaluate", take)

    def should_label(self) -> bool:
        """Return whether frames were selected; none is a success."""
        return len(self.ctx.selected) > 0

    def run_labelling(self) -> ExitCode | None:
        """Submit the labelling of the selected frames."""
        return self._submit_stage("label", self._link("label"), frames=self.ctx.selected, known=self.ctx.dataset)

    def inspect_labelling(self) -> ExitCode | None:
        """Keep the labelled frames, also those of a stage that ends the loop because too many failed."""
        node = self.ctx.stage
        if "labelled" in node.outputs:
            self.ctx.newly_labelled = node.outputs.labelled
            has_changed = "known" in node.outputs
            known = node.outputs.known if has_changed else self.ctx.dataset
            try:
                self.ctx.dataset = extend_dataset(known, node.outputs.labelled)
            except ValueError as error:
                return self._end_with(self.exit_codes.ERROR_NO_DATASET.format(detail=str(error)))
            self.ctx.must_calibrate = True
            self.ctx.must_train = has_changed or node.outputs.report["n_trainable"] > 0

        def take(outputs: Any) -> None:
            self.ctx.reports["labelling"] = outputs.report

        return self._inspect("label", take)

    def decide(self) -> None:
        """Decide whether the loop ends with this iteration."""
        optional = {
            "exploration": self.ctx.reports.get("exploration"),
            "labelled": self.ctx.newly_labelled,
            "history": self.ctx.history,
            "max_labels": self.inputs.get("max_labels", None),
            "properties": self.ctx.properties,
        }
        decision = decide(
            self.inputs.convergence,
            self.ctx.reports["evaluation"],
            self.ctx.dataset,
            self.inputs.max_iterations,
            **{key: node for key, node in optional.items() if node is not None},
        )
        self.ctx.reports["decision"] = decision
        self.report(f"iteration {self.ctx.plan['iteration'].value}: {decision['message']}")

    def should_validate(self) -> bool:
        """Return whether all conditions hold but the gates, whose properties are still to be computed."""
        return bool(self.ctx.reports["decision"]["reason"] == "validation_due")

    def run_validation(self) -> ExitCode | None:
        """Submit the process that computes the properties of the gates, for the committee that has searched."""
        label = self._link("validate")
        provided = {
            "potentials": self.ctx.potentials,
            "uncertainty": self.ctx.uncertainty,
            "dataset": self.ctx.dataset,
            "kernel": self.inputs.kernel,
        }
        return self._submit_child("validate", label, lambda: prepare_validation(self.inputs.validate, label, provided))

    def inspect_validation(self) -> ExitCode | None:
        """Keep the properties, if all that the gates judge are there."""
        exit_code = self._inspect("validate", lambda _: None)
        if exit_code is not None:
            return exit_code
        node = self.ctx.stage
        try:
            self.ctx.properties = take_properties(node, self.inputs.convergence)
        except ValueError as error:
            return self._end_with(self.exit_codes.ERROR_VALIDATE_FAILED.format(pk=node.pk, detail=str(error)))
        return None

    def record_iteration(self) -> None:
        """Write the row of this iteration, and see whether another follows."""
        before = self.ctx.history
        optional = {} if before is None else {"history": before}
        self.ctx.history = extend_history(self.ctx.trained_on, **optional, **self.ctx.reports)
        decision = self.ctx.reports.get("decision")
        self.ctx.reports, self.ctx.candidates = {}, {}
        self.ctx.selected = self.ctx.newly_labelled = self.ctx.properties = self.ctx.first_stage = None
        self.ctx.is_over = self.ctx.is_final
        if decision is not None and decision["stop"] is not None:
            self.ctx.is_final = True

    def attach_results(self) -> None:
        """Attach everything, and say why the loop ended."""
        self._attach_outputs()
        result = conclude(self.ctx.history)
        self.out("result", result)
        self.report(f"finished: {result['reason']} ({result['message']})")

    def _can_search(self) -> bool:
        has_candidates = "explore" in self.inputs or bool(self.inputs.get("candidates", None))
        return has_candidates and "evaluate" in self.inputs and "label" in self.inputs

    def _is_due(self, stage: str) -> bool:
        """Return whether a stage of this iteration is to run; before the one to resume with, all have."""
        return self.ctx.first_stage is None or RESUMABLE.index(stage) >= RESUMABLE.index(self.ctx.first_stage)

    def _link(self, stage: str) -> str:
        return f"iteration_{self.ctx.plan['iteration'].value:02d}_{stage}"

    def _submit_stage(self, stage: str, label: str, **provided: Any) -> ExitCode | None:
        """Submit a stage with its inputs and what the loop provides."""
        work_chain, _ = STAGES[stage]
        inputs = AttributeDict(self.exposed_inputs(work_chain, namespace=stage, agglomerate=False))
        if stage == "label" and (label != "label" or self.ctx.first_stage not in (None, "structures")):
            inputs.pop("check_stress", None)  # the first labelling did, of this campaign or the one it resumes
        inputs.update(provided)
        inputs.kernel = self.inputs.kernel
        inputs.metadata = {"call_link_label": label, "label": label}
        first = "structures" if "structures" in self.inputs else self.ctx.first_stage
        if "resume" in self.inputs and first == ("structures" if label == "label" else stage):
            inputs.checkpoints = dict(self.inputs.resume.get("checkpoints", {}))
            if stage == "label" and "labelling" in self.inputs.resume:
                inputs.resume_from = self.inputs.resume.labelling
        return self._submit_child(stage, label, lambda: Job(work_chain, inputs))

    def _submit_child(self, stage: str, label: str, prepare: Callable[[], Job]) -> ExitCode | None:
        """Submit a child; if its inputs are refused, end the loop with all there is."""
        try:
            node = submit_once(self, prepare, label)
        except (TypeError, ValueError) as error:
            exit_code = self.exit_codes[f"ERROR_{stage.upper()}_FAILED"]
            return self._end_with(exit_code.format(pk="not submitted", detail=str(error)))
        self.report(f"{label}: {node.process_label} <{node.pk}>")
        self.to_context(stage=node)
        return None

    def _inspect(self, stage: str, take: Callable[[Any], None]) -> ExitCode | None:
        """Hand the outputs of a stage that ended well to *take*; end the loop with all there is otherwise."""
        node = self.ctx.stage
        if node.is_finished_ok:
            take(node.outputs)
            return None
        exit_code = self.exit_codes[f"ERROR_{stage.upper()}_FAILED"]
        return self._end_with(exit_code.format(pk=node.pk, detail=describe_end(node)))

    def _end_with(self, exit_code: ExitCode) -> ExitCode:
        self._attach_outputs()
        self.report(str(exit_code.message))
        return exit_code

    def _attach_outputs(self) -> None:
        for name in ("dataset", "uncertainty", "history"):
            if self.ctx.get(name, None) is not None:
                self.out(name, self.ctx[name])
        self.out_many(namespace("potentials", self.ctx.potentials))
