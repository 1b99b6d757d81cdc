"""Judge candidates by a committee and select those worth a label."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from ase import Atoms

from aiida_alpot.kernel import defaults
from aiida_alpot.kernel.atom_features import AtomFeatures
from aiida_alpot.kernel.clustering import CONSTANT
from aiida_alpot.kernel.criterion import CriterionSettings, criterion_columns
from aiida_alpot.kernel.cutouts import core_of
from aiida_alpot.kernel.cutting import CuttingSettings
from aiida_alpot.kernel.dataset import Dataset, DatasetView
from aiida_alpot.kernel.dataset.ids import usage_digests
from aiida_alpot.kernel.exploration.monitor import Assessment, Monitor
from aiida_alpot.kernel.features import SORTED_DISTANCES, FeatureSpec
from aiida_alpot.kernel.potentials import Potential, predict_committee
from aiida_alpot.kernel.selection import (
    CandidateTable,
    Limit,
    Selection,
    Strategy,
    get_strategy,
    grade_limit,
    require_active_set,
    require_one_composition,
    select,
    sorted_distance_features,
)
from aiida_alpot.kernel.settings import check_device
from aiida_alpot.kernel.uncertainty import (
    OUT_OF_SPAN,
    PROPERTIES,
    UncertaintyModel,
    disagreement,
    mean_over_atoms,
    mean_prediction,
)
from aiida_alpot.kernel.uncertainty.categories import StrArray
from aiida_alpot.kernel.units import BoolArray, FloatArray

_CHUNK: Final = 256
_WITH_FEATURES, _WITHOUT_FEATURES = "direct", "threshold"


@dataclass(frozen=True)
class EvaluateSettings:
    """How candidates are judged and selected.

    :param strategy: among the flagged ones ``"direct"`` (one of each cluster, Qi et al. 2024), ``"threshold"`` (at
        random, Bidoggia et al. 2026), ``"top"`` (the most uncertain ones), ``"greedy_diverse"`` (uncertain and
        different) or ``"fps"`` (far from each other and from the training frames); among all healthy ones ``"ladder"``
        (AutoPot) or ``"best_first"`` (both by the grade that is left once the frames before are in the active set,
        until none exceeds *gamma_select* or else 2), or ``"random"``. None: see :func:`choose_strategy`.
    :param budget: most frames selected, control frames included.
    :param control_share: share of the selection drawn at random from all healthy candidates that were sampled
        regularly, and never trained on: at least ten frames or a quarter of a small budget, at most half of it.
    :param validation_share: share of the other frames that goes to the validation split.
    :param gamma_select: grade above which a frame is flagged; None takes that of the calibration above which
        trajectories keep frames (``gamma_save``), 2 for a strategy that chooses by grade, or else flags none by grade.
    :param features: what distances are measured in: ``"last_layer"`` or ``"invariants"`` of the first member that has
        them, ``"soap"`` or a function ``"module:name"``, see :class:`~aiida_alpot.kernel.features.FeatureSpec`,
        averaged over the atoms and scaled to unit variance, or ``"sorted_distances"`` for molecules of one composition.
    :param feature_parameters: of ``"soap"``, see :class:`~aiida_alpot.kernel.features.SoapSettings`, or keyword
        arguments of the function.
    :param min_distance: frames of one trajectory that are closer than this in their features count as duplicates.
    :param criterion: what flags a candidate: calibrated thresholds by default.
    :param upper: multiples of the thresholds above which a frame counts as unphysical and is not trained on.
    :param allow_unhealthy: also train on frames at which a trajectory broke.
    :param cutout: pieces of a selected frame take its place if it has too many atoms to be labelled; frames of any size
        are labelled if None.
    :param device: where the potentials are evaluated.
    """

    strategy: str | None = None
    budget: int = defaults.SELECTION_BUDGET
    control_share: float = defaults.CONTROL_SHARE
    validation_share: float = defaults.SPLIT_VALIDATION
    gamma_select: float | None = None
    features: str = "last_layer"
    feature_parameters: Mapping[str, Any] = field(default_factory=dict)
    min_distance: float | None = None
    criterion: CriterionSettings = field(default_factory=CriterionSettings)
    upper: Mapping[str, float] | None = None
    allow_unhealthy: bool = False
    cutout: CuttingSettings | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        get_strategy(self.strategy or _WITHOUT_FEATURES)
        check_device(self.device)
        if self.budget < 1:
            raise ValueError(f"budget must be positive, got {self.budget}")
        if self.gamma_select is not None and self.gamma_select <= 0:
            raise ValueError(f"gamma_select must be positive, got {self.gamma_select}")
        for name in ("control_share", "validation_share"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        if self.min_distance is not None and self.min_distance <= 0:
            raise ValueError(f"min_distance must be positive, got {self.min_distance}")
        for name, value in (self.upper or {}).items():
            if name not in PROPERTIES:
                raise ValueError(f"upper: expected one of {', '.join(PROPERTIES)}, got {name!r}")
            if value <= 1:
                raise ValueError(f"upper.{name} is a multiple of the threshold and must be above 1, got {value}")
        if self.feature_spec is None and self.feature_parameters:
            raise ValueError(f"feature_parameters: {SORTED_DISTANCES!r} takes none")

    @property
    def feature_spec(self) -> FeatureSpec | None:
        """The features of atoms that are averaged; None for sorted distances.

        :raises ValueError: if kind or parameters are not valid.
        """
        if self.features == SORTED_DISTANCES:
            return None
        return FeatureSpec(self.features, self.feature_parameters, "evaluate.settings.features")

    @property
    def rule(self) -> Strategy:
        """The strategy, that for committees without features if none is set."""
        return get_strategy(self.strategy or _WITHOUT_FEATURES)

    @property
    def needs_features(self) -> bool:
        """Whether the selection measures distances."""
        return self.rule.needs_features or self.min_distance is not None


def choose_strategy(settings: EvaluateSettings, potentials: Sequence[Potential]) -> EvaluateSettings:
    """Return settings with a strategy: if none is set, ``"direct"`` where there are features, else ``"threshold"``.

    ``benchmarks/efficiency`` says why.
    """
    if settings.strategy is not None:
        return settings
    spec = settings.feature_spec
    known = spec is None or spec.known_to(potentials)
    return replace(settings, strategy=_WITH_FEATURES if known else _WITHOUT_FEATURES)


def canonical_order(candidates: Dataset | DatasetView) -> DatasetView:
    """Return the frames in an order that depends on what they are and not on the files that they came from."""
    usage = [digest.hex() for batch in candidates.iter_batches() for digest in usage_digests(batch)]
    group = np.asarray(candidates.column("group"), dtype=np.str_)
    return candidates[np.lexsort((np.array(usage, dtype=np.str_), group, candidates.frame_ids(labels=False)))]


def complete_features(settings: EvaluateSettings, *frames: Dataset | DatasetView | None) -> EvaluateSettings:
    """Return settings whose features have the same columns for all of *frames*: with the species that occur in them."""
    if settings.feature_spec is None or not settings.needs_features:
        return settings
    numbers = [np.unique(found.column("numbers")) for found in frames if found is not None and len(found)]
    spec = settings.feature_spec.complete(number for part in numbers for number in part)
    return replace(settings, feature_parameters=spec.parameters)


def build_table(
    candidates: Dataset | DatasetView,
    potentials: Sequence[Potential],
    model: UncertaintyModel,
    settings: EvaluateSettings,
) -> tuple[CandidateTable, dict[str, npt.NDArray[Any]]]:
    """Evaluate the committee on all candidates, a chunk at a time.

    :param settings: of :func:`complete_features`.
    :return: the table that a selection needs, and the same with calibrated errors as arrays for people.
    :raises ValueError: if distances need one composition and the candidates have several, or the strategy or a limit
        of grades an active set that the model lacks, or frames are to be cut by grades of configurations.
    """
    _check_settings(settings, model, candidates)
    monitor = Monitor(potentials, model, settings.criterion.measure, with_residual=True)
    has_features = settings.needs_features and len(candidates) > 0
    frame_features = build_frame_features(settings, potentials) if has_features else None
    parts: list[Assessment] = []
    features: list[FloatArray] = []
    for frames in candidates.iter_chunks(_CHUNK):
        parts.append(monitor.assess(frames))
        # what breaks a prediction breaks the features too; such a frame is never selected and needs none
        known = [frames[int(k)] for k in np.flatnonzero(parts[-1].finite)]
        if frame_features is not None and known:
            features.append(frame_features(known))
    arrays = _collect(parts)
    healthy = arrays["finite"].astype(bool) & _healthy_column(candidates)
    columns = {name: arrays[f"disagreement_{name}"] for name in PROPERTIES}
    table = CandidateTable(
        **criterion_columns(columns, arrays),
        grade=arrays["grade"],
        healthy=healthy,
        group=group_names(candidates),
        structure_id=candidates.frame_ids(labels=False),
        features=_spread(features, arrays["finite"].astype(bool)) if settings.needs_features else None,
    )
    del arrays["finite"]
    arrays.update(
        healthy=healthy,
        group=np.asarray(table.group, dtype=np.str_),
        structure_id=np.asarray(table.structure_id, dtype=np.str_),
    )
    if model.frame_clusters is not None:
        found = [np.full(len(part.grade), "") if part.cluster is None else part.cluster for part in parts]
        arrays["cluster"] = _join(found).astype(np.str_)
    return table, arrays


def _collect(parts: Sequence[Assessment]) -> dict[str, npt.NDArray[Any]]:
    """Return what assessments say by name, those of all frames one behind the other."""
    sizes = [len(part.grade) for part in parts]
    arrays = {f"disagreement_{name}": _join([part.disagreement[name] for part in parts]) for name in PROPERTIES}
    if parts:
        for name in PROPERTIES:
            found = [part.error.get(name, np.full(n, np.nan)) for part, n in zip(parts, sizes, strict=True)]
            arrays[f"error_{name}"] = _join(found)
    arrays.update(
        _join_by_name([part.measured for part in parts], sizes),
        grade=_join([part.grade for part in parts]),
        residual=_join([part.residual for part in parts if part.residual is not None]),
        finite=_join([part.finite for part in parts]),
        rejected=_join([_rejections(part) for part in parts]).astype(np.str_),
    )
    return arrays


def _check_settings(settings: EvaluateSettings, model: UncertaintyModel, candidates: Dataset | DatasetView) -> None:
    """Refuse settings that the calibration or the candidates do not allow, before anything is computed."""
    if settings.rule.needs_active_set:
        require_active_set(model.active_set)
    if settings.gamma_select is not None and model.active_set is None:
        raise ValueError(
            f"gamma_select = {settings.gamma_select} needs grades, and the calibration has none; calibrate with "
            "'feature_kind' set, or leave gamma_select out"
        )
    if settings.cutout is not None and model.active_set is not None and model.active_set.mode == "configuration":
        raise ValueError(
            "cutout: the grade of a configuration does not tell which of its atoms is new; calibrate with "
            "mode 'neighbourhood', or leave cutout out"
        )
    if settings.needs_features and settings.features == SORTED_DISTANCES:
        require_one_composition(_numbers(candidates))


def _rejections(part: Assessment) -> StrArray:
    """Return why a frame can never be selected, shape (n_frames,); empty for one that can."""
    return np.full(len(part.grade), "", dtype=np.str_) if part.failure is None else part.failure


def _join(parts: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(0)


def _join_by_name(parts: Sequence[Mapping[str, FloatArray]], sizes: Sequence[int]) -> dict[str, FloatArray]:
    """Return arrays one behind the other, NaN where a part lacks a name."""
    names = sorted({name for part in parts for name in part})
    return {
        name: _join([part.get(name, np.full(size, np.nan)) for part, size in zip(parts, sizes, strict=True)])
        for name in names
    }


def _spread(parts: Sequence[FloatArray], rows: npt.NDArray[np.bool_]) -> FloatArray:
    """Return the features of the frames marked in *rows*, zeros for the others; no column if no frame is marked."""
    values = np.concatenate(parts) if parts else np.zeros((0, 0))
    spread = np.zeros((len(rows), values.shape[1]))
    spread[rows] = values
    return spread


def build_frame_features(
    settings: EvaluateSettings, potentials: Sequence[Potential]
) -> Callable[[Sequence[Atoms]], FloatArray]:
    """Return the function that computes one row of features per frame, see :class:`EvaluateSettings`.

    :param settings: of :func:`complete_features`.
    :param potentials: the committee; its first member that has such features gives them.
    """
    spec = settings.feature_spec
    if spec is None:
        return sorted_distance_features
    compute = spec.build(potentials)
    return lambda frames: mean_over_atoms(spec.require_known(compute(frames), frames), len(frames))


def _numbers(frames: Dataset | DatasetView) -> list[npt.NDArray[Any]]:
    return np.split(frames.column("numbers"), frames.offsets[1:-1]) if len(frames) else []


def group_names(candidates: Dataset | DatasetView) -> npt.NDArray[np.str_]:
    """Return the group of each frame, shape (n_frames,); a frame without one is its own, named by its structure id."""
    group = np.asarray(candidates.column("group"), dtype=np.str_)
    return np.where(group == "", candidates.frame_ids(labels=False), group)


def _healthy_column(candidates: Dataset | DatasetView) -> BoolArray:
    if "healthy" not in candidates.columns:
        return np.ones(len(candidates), dtype=bool)
    return np.asarray(~candidates.present("healthy") | candidates.column("healthy"), dtype=bool)


def _control_column(dataset: Dataset) -> BoolArray:
    if "control" not in dataset.columns:
        return np.zeros(len(dataset), dtype=bool)
    return np.asarray(dataset.present("control") & dataset.column("control"), dtype=bool)


def count_extrapolated(model: UncertaintyModel, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, int]:
    """Return how many candidates disagree more than any frame of the calibration, by calibrated property.

    :param arrays: of :func:`build_table`.
    """
    return {
        name: int(np.count_nonzero(model.calibrations[name].extrapolates(arrays[f"disagreement_{name}"])))
        for name in PROPERTIES
        if name in model.calibrations
    }


def count_out_of_span(arrays: Mapping[str, npt.NDArray[Any]]) -> int | None:
    """Return how many candidates have an atom with features that no combination of training atoms has.

    :param arrays: of :func:`build_table`.
    :return: None if nothing is known of any candidate.
    """
    known = arrays["residual"][~np.isnan(arrays["residual"])]
    return int(np.count_nonzero(known > OUT_OF_SPAN)) if known.size else None


def flagging_grade(model: UncertaintyModel, settings: EvaluateSettings) -> float | None:
    """Return the grade above which candidates are flagged: what was kept for its grade may be selected for it."""
    limit = model.gamma_save if settings.gamma_select is None else settings.gamma_select
    if settings.rule.needs_active_set:
        return grade_limit(limit, model.active_set)
    return limit


def selection_warnings(n_members: int, model: UncertaintyModel, settings: EvaluateSettings) -> list[str]:
    """Return what to know of a selection that rests on the disagreement alone."""
    by_disagreement = settings.rule.pool == "flagged" and flagging_grade(model, settings) is None
    if not by_disagreement or n_members >= defaults.COMMITTEE_SIZE_ALONE:
        return []
    return [
        f"a committee of {n_members} selects by its disagreement alone: the share of frames that it flags is stable "
        f"from {defaults.COMMITTEE_SIZE_ALONE} members on; set gamma_select to select by grade too"
    ]


def sampled_regularly(candidates: Dataset | DatasetView) -> BoolArray:
    """Return which frames were not kept for being uncertain or broken, shape (n_frames,).

    A frame without the column ``sampled`` did not come from a trajectory and counts as sampled.
    """
    if "sampled" not in candidates.columns:
        return np.ones(len(candidates), dtype=bool)
    return np.asarray(candidates.column("sampled") | ~candidates.present("sampled"), dtype=bool)


def select_candidates(
    table: CandidateTable,
    model: UncertaintyModel,
    settings: EvaluateSettings,
    seed: int,
    *,
    limits: Mapping[str, Limit] | None = None,
    candidates: Dataset | DatasetView | None = None,
    dataset: Dataset | None = None,
    potentials: Sequence[Potential] = (),
) -> Selection:
    """Return which candidates are labelled, given what is labelled already.

    :param limits: of the columns of the table by property, see :func:`~aiida_alpot.kernel.criterion.find_limits`; those
        of the calibration if None.
    :param candidates: the frames of the table, for how they were sampled and the features of their atoms; without them
        all count as sampled regularly.
    :param dataset: frames with labels: not selected again; the splits of their groups are kept.
    :param potentials: the committee, for the features of the training frames and of the atoms of candidates.
    """
    past = _Past() if dataset is None else _Past.of(dataset)
    training: FloatArray | None = None
    if dataset is not None and potentials and table.features is not None and table.features.shape[1]:
        view = dataset[np.flatnonzero(dataset.column("split") == "train")]
        if candidates is not None and settings.features == SORTED_DISTANCES:
            require_one_composition([*_numbers(view), *_numbers(candidates)])
        training = _training_features(settings, potentials, list(view))
    if table.features is not None and len(table) and settings.features != SORTED_DISTANCES:
        table, training = _whiten(table, training)
    atom_features: AtomFeatures | None = None
    if candidates is not None and settings.rule.needs_active_set:
        atom_features = AtomFeatures(candidates, model.feature_spec.build(potentials))
    return select(
        table,
        settings.strategy or _WITHOUT_FEATURES,
        settings.budget,
        seed,
        thresholds=model.thresholds if limits is None else limits,
        gamma_select=flagging_grade(model, settings),
        control_share=settings.control_share,
        validation_share=settings.validation_share,
        known_ids=past.known_ids,
        min_distance=settings.min_distance,
        upper=settings.upper,
        allow_unhealthy=settings.allow_unhealthy,
        training_features=training,
        active_set=model.active_set,
        atom_features=atom_features,
        fixed_splits=past.fixed_splits,
        n_control_groups_before=past.n_control_groups,
        control_candidates=None if candidates is None else sampled_regularly(candidates),
    )


@dataclass(frozen=True)
class _Past:
    """What earlier iterations decided.

    :ivar known_ids: structures that are in the dataset.
    :ivar fixed_splits: of their groups.
    :ivar n_control_groups: groups that gave control frames.
    """

    known_ids: tuple[str, ...] = ()
    fixed_splits: Mapping[str, str] = field(default_factory=dict)
    n_control_groups: int = 0

    @classmethod
    def of(cls, dataset: Dataset) -> _Past:
        """Return what a dataset tells."""
        groups, splits = dataset.column("group"), dataset.column("split")
        return cls(
            known_ids=tuple(str(identity) for identity in dataset.frame_ids(labels=False)),
            fixed_splits={str(g): str(s) for g, s in zip(groups, splits, strict=True) if g and s},
            n_control_groups=len(set(groups[_control_column(dataset)].tolist())),
        )


def _training_features(
    settings: EvaluateSettings, potentials: Sequence[Potential], frames: Sequence[Atoms]
) -> FloatArray | None:
    """Return one row of features per training frame, without those that the potential fails to give any for."""
    if not frames:
        return None
    spec = settings.feature_spec
    if spec is None or not spec.is_of_potential:
        return build_frame_features(settings, potentials)(frames)
    rows = mean_over_atoms(spec.build(potentials)(frames), len(frames))
    rows = rows[np.isfinite(rows).all(axis=1)]
    return rows if len(rows) else None


def _whiten(table: CandidateTable, training: FloatArray | None) -> tuple[CandidateTable, FloatArray | None]:
    """Scale every feature to unit variance over the candidates and the training frames; a constant one becomes zero."""
    assert table.features is not None
    rows = table.features if training is None else np.concatenate([table.features, training])
    scale = rows.std(axis=0)
    scale[scale <= CONSTANT * np.abs(rows).max(axis=0)] = np.inf
    scaled = CandidateTable(**{**vars(table), "features": table.features / scale})
    return scaled, None if training is None else training / scale


def selected_frames(candidates: Dataset | DatasetView, selection: Selection) -> list[Atoms]:
    """Return the selected frames with group, split and reason."""
    view = candidates[selection.indices]
    frames, groups = list(view), group_names(view).tolist() if len(view) else []
    for k, atoms in enumerate(frames):
        atoms.calc = None
        atoms.info.update(
            group=groups[k],
            split=selection.split[k],
            status="unlabelled",
            selection_reason=selection.reasons[k],
            control=bool(selection.control[k]),
        )
    return frames


def attach_predictions(frames: Sequence[Atoms], potentials: Sequence[Potential]) -> None:
    """Add mean prediction and disagreement of the committee to the columns of selected frames.

    The force disagreement of a piece of a larger frame is that of its core.
    """
    if not frames:
        return
    members = predict_committee(potentials, frames)
    mean, spread, of_core = mean_prediction(members), disagreement(members), disagreement(members, core=core_of(frames))
    for k, atoms in enumerate(frames):
        atoms.info.update(
            committee_energy=float(mean.energy[k]),
            committee_stress=mean.stress[k],
            committee_energy_disagreement=float(spread.energy[k]),
            committee_force_disagreement=float(of_core.force[k]),
        )
        atoms.arrays["committee_forces"] = mean.forces[mean.offsets[k] : mean.offsets[k + 1]]
