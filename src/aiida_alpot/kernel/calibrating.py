"""From a committee and labelled frames to an :class:`~aiida_alpot.kernel.uncertainty.UncertaintyModel` and errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from ase import Atoms

from aiida_alpot.kernel import defaults
from aiida_alpot.kernel.active_rows import OutlierKind, build_active_set
from aiida_alpot.kernel.cutouts import core_of, keep_core
from aiida_alpot.kernel.features import FeatureFunction, FeatureSpec
from aiida_alpot.kernel.potentials import Potential, Predictions, predict_committee, reference_predictions
from aiida_alpot.kernel.settings import check_device
from aiida_alpot.kernel.uncertainty import (
    PROPERTIES,
    ActiveSet,
    Calibration,
    ClusterSettings,
    FrameClusters,
    FrameClusterSettings,
    LocalActiveSet,
    UncertaintyModel,
    disagreement,
    error,
    find_failures,
    mean_over_atoms,
    mean_prediction,
    report_rates,
)
from aiida_alpot.kernel.uncertainty.active_set import Mode
from aiida_alpot.kernel.uncertainty.categories import StrArray, frame_categories
from aiida_alpot.kernel.units import FloatArray, IntArray

HELD_OUT: Final = ("validation", "test", "calibration")
"""Splits whose frames were not fitted to."""


def _default_tolerances() -> dict[str, float]:
    return {
        "energy": defaults.TOLERANCE_ENERGY,
        "force": defaults.TOLERANCE_FORCE,
        "stress": defaults.TOLERANCE_STRESS,
    }


@dataclass(frozen=True)
class CalibrateSettings:
    """How error bars are made.

    :param tolerances: largest error wanted by property: ``energy`` eV/atom, ``force`` and ``force_max`` eV/Å,
        ``stress`` eV/Å³. Only these properties get a threshold; all with labels are calibrated.
    :param method: of :class:`~aiida_alpot.kernel.uncertainty.Calibration`.
    :param confidence: share of errors below the prediction, ``conformal`` only.
    :param category_column: column of the frames (``config_type``, or the number of a cluster) whose values get a scale
        of their own, ``conformal`` only; None for one scale. Frames to predict that lack the column, or have a value
        that no frame of the calibration has, get the scale of all.
    :param target: ``"member_rms"`` calibrates on the error of a member drawn at random (that drives the dynamics),
        ``"committee_mean"`` on the error of the mean (that is used in production).
    :param splits: held-out frames to calibrate on.
    :param fallback_splits: added when the held-out frames are fewer than *n_min*; the report says so.
    :param n_min: see *fallback_splits*.
    :param target_tpr: share of the frames with too large an error that the threshold should catch, or None.
    :param feature_kind: features of the active sets: ``"last_layer"`` or ``"invariants"`` of the first member that has
        them, ``"soap"``, or a function ``"module:name"``, see :class:`~aiida_alpot.kernel.features.FeatureSpec`; None
        for no active sets.
    :param feature_parameters: of ``"soap"``, see :class:`~aiida_alpot.kernel.features.SoapSettings`, or keyword
        arguments of the function.
    :param active_set_start: ``"eps"`` keeps grades finite outside the span of the training features, ``"strict"``
        makes them infinite.
    :param clusters: parts the training atoms into clusters that each have an active set; a grade is then the smallest
        of theirs. None for one active set.
    :param frame_clusters: parts the training frames into clusters; any other frame belongs to the nearest one, by the
        same features. With the method ``conformal`` each has a scale of its own, and the criterion of ``evaluate`` may
        go by them.
    :param mode: what the rows of the active sets are: ``"neighbourhood"``, atoms, or ``"configuration"``, frames, by
        the sums of the features of their atoms (MLIP-2, AutoPot); every atom then has the grade of its frame.
    :param force_outliers: leaves training atoms out of the active set whose reference force (``"force"``), or the error
        of the mean force of the committee (``"force_error"``), exceeds Q3 + 1.5 IQR of their species; None keeps all.
    :param scale_grades: give grades in units of what nine of ten training frames keep that are left out, group by
        group: one unit per species and cluster. Needs *active_set_start* ``"eps"``.
    :param gamma_save: grade above which a frame is kept and may be selected.
    :param gamma_break: grade above which a trajectory stops.
    :param device: where the potentials are evaluated.
    :param batch_size: frames evaluated at once.
    """

    tolerances: Mapping[str, float] = field(default_factory=_default_tolerances)
    method: Literal["median_ratio", "ols_origin", "rms_ratio", "loglog", "isotonic", "conformal"] = "median_ratio"
    confidence: float = 0.9
    category_column: str | None = None
    target: Literal["member_rms", "committee_mean"] = "member_rms"
    splits: tuple[str, ...] = ("calibration", "test")
    fallback_splits: tuple[str, ...] = ("validation",)
    n_min: int = 10
    target_tpr: float | None = None
    feature_kind: str | None = "last_layer"
    feature_parameters: Mapping[str, Any] = field(default_factory=dict)
    active_set_start: Literal["strict", "eps"] = "eps"
    clusters: ClusterSettings | None = None
    frame_clusters: FrameClusterSettings | None = None
    mode: Mode = "neighbourhood"
    force_outliers: OutlierKind | None = None
    scale_grades: bool = False
    gamma_save: float | None = None
    gamma_break: float | None = None
    device: str = "cpu"
    batch_size: int = 32

    def __post_init__(self) -> None:
        for name, value in self.tolerances.items():
            if name not in PROPERTIES:
                raise ValueError(f"tolerances: expected one of {', '.join(PROPERTIES)}, got {name!r}")
            if value <= 0:
                raise ValueError(f"tolerances.{name} must be positive, got {value}")
        if not self.tolerances:
            raise ValueError("tolerances must name at least one property")
        if not self.splits + self.fallback_splits:
            raise ValueError("splits and fallback_splits are both empty; name a split to calibrate on")
        for name in ("splits", "fallback_splits"):
            _check_splits(name, getattr(self, name))
        if self.n_min < 0:
            raise ValueError(f"n_min must not be negative, got {self.n_min}")
        self._check_method()
        check_device(self.device)
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be positive, got {self.batch_size}")
        _check_grades(self.gamma_save, self.gamma_break)
        self._check_features()

    @property
    def feature_spec(self) -> FeatureSpec | None:
        """The features of the active sets.

        :raises ValueError: if kind or parameters are not valid.
        """
        return None if self.feature_kind is None else FeatureSpec(self.feature_kind, self.feature_parameters)

    def _check_features(self) -> None:
        if self.feature_spec is None:
            for name in (
                "feature_parameters",
                "clusters",
                "frame_clusters",
                "force_outliers",
                "scale_grades",
                "gamma_save",
                "gamma_break",
            ):
                if getattr(self, name):
                    raise ValueError(f"{name}: needs the active set that feature_kind null leaves out")
            if self.mode != "neighbourhood":
                raise ValueError("mode: needs the active set that feature_kind null leaves out")
        if self.scale_grades and self.active_set_start != "eps":
            raise ValueError("scale_grades: an infinite grade has no unit; set active_set_start to 'eps'")
        if self.mode == "configuration":
            if self.force_outliers is not None:
                raise ValueError("force_outliers: a configuration has all its atoms; set mode to 'neighbourhood'")
            if self.clusters is not None and self.clusters.method != "column" and self.clusters.level == "atom":
                raise ValueError("clusters.level: clusters of configurations are made of frames, set it to 'frame'")

    def _check_method(self) -> None:
        if self.target_tpr is not None and not 0 < self.target_tpr <= 1:
            raise ValueError(f"target_tpr must be in (0, 1], got {self.target_tpr}")
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence must be in (0, 1), got {self.confidence}")
        if self.category_column is not None and self.method != "conformal":
            raise ValueError(f"category_column needs the method 'conformal', got {self.method!r}")
        if self.category_column is not None and self.frame_clusters is not None:
            raise ValueError("category_column and frame_clusters: frames have one category each, set one of the two")
        if self.category_column == "":
            raise ValueError("category_column must be the name of a column, or None")


def _check_grades(gamma_save: float | None, gamma_break: float | None) -> None:
    for name, value in (("gamma_save", gamma_save), ("gamma_break", gamma_break)):
        if value is not None and value <= 0:
            raise ValueError(f"{name} must be positive, got {value}")
    if gamma_save is not None and gamma_break is not None and gamma_break < gamma_save:
        raise ValueError(f"gamma_break {gamma_break} must not be below gamma_save {gamma_save}")


def _check_splits(name: str, splits: Sequence[str]) -> None:
    if "train" in splits:
        raise ValueError(f"{name}: error bars from frames of the training are too small; leave 'train' out")
    for split in splits:
        if split not in HELD_OUT:
            raise ValueError(f"{name}: expected some of {', '.join(HELD_OUT)}, got {split!r}")


@dataclass(frozen=True)
class SplitErrors:
    """What the committee gets wrong on one set of frames.

    :param disagreement: frame-wise disagreement by property, each (n_frames,); NaN for a frame that a member fails to
        predict, as is the error.
    :param error: frame-wise error by property, each (n_frames,).
    :param summary: root-mean-square errors over all frames that are predicted, for the report.
    :param categories: of the frames, shape (n_frames,); None without a column for them.
    :param failures: why a frame is not predicted, shape (n_frames,), see
        :func:`~aiida_alpot.kernel.uncertainty.find_failures`; None where all are.
    :param frames: themselves, for their clusters.
    """

    disagreement: Mapping[str, FloatArray]
    error: Mapping[str, FloatArray]
    summary: Mapping[str, Any]
    categories: StrArray | None = None
    failures: StrArray | None = None
    frames: Sequence[Atoms] = ()


def assess(potentials: Sequence[Potential], frames: Sequence[Atoms], settings: CalibrateSettings) -> SplitErrors:
    """Return disagreement and error of a committee on labelled frames; of pieces, the forces of cores count alone.

    A frame that a member fails to predict has neither.
    """
    members = predict_committee(potentials, frames, batch_size=settings.batch_size)
    failures = find_failures(members)
    kept = np.flatnonzero(failures == "")
    if len(kept) < len(frames):
        members = [member.take(kept) for member in members]
    known = [frames[k] for k in kept.tolist()]
    reference = reference_predictions(known)
    pbc = np.array([atoms.pbc for atoms in known], dtype=bool).reshape(-1, 3)
    core = core_of(known)
    d = disagreement(members, pbc=pbc, core=core)
    e = error(members, reference, target=settings.target, pbc=pbc, core=core)
    summary = {
        "n_frames": len(known),
        "n_not_predicted": len(frames) - len(known),
        "committee_mean": rms_errors(mean_prediction(members), reference, pbc, core),
        "members": [rms_errors(member, reference, pbc, core) for member in members],
        "disagreement": {name: _rms(getattr(d, name)) for name in PROPERTIES},
    }
    return SplitErrors(
        {name: _spread(getattr(d, name), kept, len(frames)) for name in PROPERTIES},
        {name: _spread(getattr(e, name), kept, len(frames)) for name in PROPERTIES},
        summary,
        frame_categories(frames, settings.category_column) if settings.category_column else None,
        failures,
        frames,
    )


def _spread(values: FloatArray, rows: IntArray, n_frames: int) -> FloatArray:
    """Return the same for all frames: what is known of those at *rows*, NaN for the others."""
    spread = np.full(n_frames, np.nan)
    spread[rows] = values
    return spread


def rms_errors(
    predicted: Predictions,
    reference: Predictions,
    pbc: npt.ArrayLike | None = None,
    core: npt.ArrayLike | None = None,
) -> dict[str, float]:
    """Return root-mean-square errors over all frames: energy per atom, force components, stress components.

    :param pbc: periodicity per frame, shape (n_frames, 3): stress components that touch an axis without are left out.
    :param core: which atoms count, shape (n_atoms,); of a frame with others too neither energy nor stress counts.
    :return: eV/atom, eV/Å and eV/Å³ (over the nine components of the tensor); NaN where no frame has the label.
    """
    deviation = error([predicted], reference, pbc=pbc, core=core)
    in_core = slice(None) if core is None else np.asarray(core, dtype=bool)
    return {
        "energy": _rms(deviation.energy),
        "force": _rms((predicted.forces - reference.forces)[in_core]),
        "stress": _rms(deviation.stress),
    }


def _rms(values: FloatArray) -> float:
    known = values[np.isfinite(values)]
    return float(np.sqrt(np.mean(known**2))) if known.size else float("nan")


def fit_uncertainty(
    potentials: Sequence[Potential],
    hashes: Sequence[str],
    held_out: SplitErrors,
    train_frames: Sequence[Atoms],
    settings: CalibrateSettings,
    previous: UncertaintyModel | None = None,
    folder: Path | None = None,
) -> UncertaintyModel:
    """Return calibrations from held-out frames and active sets from the training frames.

    :param hashes: sha256 of the model files, in the order of *potentials*.
    :param train_frames: their features, by the first member that has any, make the active sets.
    :param previous: of the committee before; scales from few points are drawn towards its scales.
    :param folder: for temporary files; that of the system if None.
    """
    spec = settings.feature_spec
    if spec is not None and train_frames:
        spec = spec.complete(number for atoms in train_frames for number in atoms.numbers)
    active_set: ActiveSet | LocalActiveSet | None = None
    report: dict[str, Any] = {}
    clusters, categories = None, held_out.categories
    if spec is not None:
        active_set, report = build_active_set(potentials, train_frames, settings, spec, folder)
        compute = spec.build(potentials, settings.batch_size)
        clusters = _find_clusters(compute, train_frames, settings)
        if clusters is not None and settings.method == "conformal":
            categories = clusters.assign(_frame_rows(compute, held_out.frames, settings))
    calibrations = _fit_calibrations(held_out, categories, settings, previous)
    return UncertaintyModel(
        calibrations=calibrations,
        tolerances=dict(settings.tolerances),
        active_set=active_set,
        active_set_report=report,
        feature_kind="" if spec is None else spec.kind,
        feature_parameters={} if spec is None else spec.parameters,
        gamma_save=settings.gamma_save,
        gamma_break=settings.gamma_break,
        model_hashes=tuple(hashes),
        points={name: (held_out.disagreement[name], held_out.error[name]) for name in calibrations},
        category_column=settings.category_column or "",
        point_categories=categories,
        frame_clusters=clusters,
    )


def _fit_calibrations(
    held_out: SplitErrors, categories: StrArray | None, settings: CalibrateSettings, previous: UncertaintyModel | None
) -> dict[str, Calibration]:
    """Return the calibration of each property that a frame has an error of."""
    calibrations = {}
    for name in PROPERTIES:
        d, e = held_out.disagreement[name], held_out.error[name]
        if np.any(np.isfinite(d) & np.isfinite(e)):
            calibrations[name] = Calibration.fit(
                d,
                e,
                settings.method,
                tolerance=settings.tolerances.get(name),
                previous=_previous_calibration(previous, name, settings),
                target_tpr=_target_tpr(settings, name),
                confidence=settings.confidence,
                categories=categories,
            )
    return calibrations


def _find_clusters(
    compute: FeatureFunction, frames: Sequence[Atoms], settings: CalibrateSettings
) -> FrameClusters | None:
    """Return the clusters of training frames, if there are to be any."""
    if settings.frame_clusters is None or not frames:
        return None
    return FrameClusters.build(_frame_rows(compute, frames, settings), settings.frame_clusters)


def _frame_rows(compute: FeatureFunction, frames: Sequence[Atoms], settings: CalibrateSettings) -> FloatArray:
    """Return the mean features of the cores of frames, at least one, some frames at a time."""
    chunks = [frames[k : k + settings.batch_size] for k in range(0, len(frames), settings.batch_size)]
    return np.concatenate([mean_over_atoms(keep_core(compute(chunk), chunk), len(chunk)) for chunk in chunks])


def rates(model: UncertaintyModel, held_out: SplitErrors) -> dict[str, Any]:
    """Return coverage, and how well the thresholds tell too large errors, on the frames of the calibration.

    :return: by property, see :func:`~aiida_alpot.kernel.uncertainty.report_rates`.
    """
    return {
        name: report_rates(
            calibration,
            held_out.disagreement[name],
            held_out.error[name],
            model.tolerances.get(name),
            model.point_categories,
        )
        for name, calibration in model.calibrations.items()
    }


def _previous_calibration(
    previous: UncertaintyModel | None, name: str, settings: CalibrateSettings
) -> Calibration | None:
    """Return the calibration of before, if by the same method, without categories of another column or other clusters.

    The scales of two methods are of different things: of a conformal one, nine of ten errors are smaller.
    """
    found = None if previous is None else previous.calibrations.get(name)
    if found is not None and found.method != settings.method:
        return None
    if found is None or previous is None:
        return found
    by_cluster = previous.frame_clusters is not None or settings.frame_clusters is not None
    if not by_cluster and previous.category_column == (settings.category_column or ""):
        return found
    return replace(found, categories={})


def _target_tpr(settings: CalibrateSettings, name: str) -> float | None:
    return settings.target_tpr if name in settings.tolerances else None
