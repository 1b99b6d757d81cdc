"""The limits above which a candidate is worth a label: calibrated ones, or those of others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from ase import Atoms
from ase.data import atomic_numbers

from aiida_alpot.kernel.cutouts import core_of, keep_core, whole_frames
from aiida_alpot.kernel.dataset import Dataset, DatasetView
from aiida_alpot.kernel.potentials import Potential, Predictions, predict_committee, reference_predictions
from aiida_alpot.kernel.selection import Limit
from aiida_alpot.kernel.settings import unknown_key_message
from aiida_alpot.kernel.uncertainty import (
    PROPERTIES,
    QUERY_THRESHOLDS,
    Disagreement,
    UncertaintyModel,
    assign_thresholds,
    compute_adaptive_thresholds,
    compute_cbe,
    compute_cbf,
    error,
    find_failures,
    mean_over_atoms,
    rate_by_element,
)
from aiida_alpot.kernel.units import FloatArray

_CHUNK: Final = 256
_ROUND_OFF: Final = 1e-6
_VALUE, _FACTOR = "criterion_", "factor_"
Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class CriterionSettings:
    """By what a candidate is flagged, apart from its grade.

    :param kind: ``"calibrated"``: the disagreement for which the calibration expects an error of the tolerance.
        ``"fixed"``: *thresholds*, as in MP-ALOE. ``"adaptive"``: UQ-ACE; the largest deviation of a member from the
        mean, of the energy (CBE) and of a force (CBF), above ``Q3 + 1.5 IQR`` of the errors of the mean on the frames
        trained on.
    :param thresholds: of the disagreement by property, ``"fixed"`` only: eV/atom, eV/Å, eV/Å, eV/Å³.
    :param element_factors: of the thresholds by chemical symbol, see
        :func:`~aiida_alpot.kernel.uncertainty.rate_by_element`; not for ``"adaptive"``.
    :param force_level: whose errors give the threshold of the forces, ``"adaptive"`` only: ``"frame"``, the largest of
        each frame (CBF), or ``"atom"``, those of all atoms (ABF), which is lower: the largest of a frame is an extreme.
    :param by: what has thresholds of its own, ``"adaptive"`` only: the values of *column*, or each ``"cluster"`` that
        the calibration found among the training frames (its ``frame_clusters``).
    :param column: column of the frames (``config_type``) whose values have thresholds of their own, ``"adaptive"``
        only. A value that fewer than four training frames have, or whose frames have no errors, gets the smallest
        threshold of the others.
    """

    kind: Literal["calibrated", "fixed", "adaptive"] = "calibrated"
    thresholds: Mapping[str, float] = field(default_factory=lambda: dict(QUERY_THRESHOLDS))
    element_factors: Mapping[str, float] = field(default_factory=dict)
    force_level: Literal["frame", "atom"] = "frame"
    by: Literal["column", "cluster"] = "column"
    column: str | None = None

    def __post_init__(self) -> None:
        for name, value in self.thresholds.items():
            if name not in PROPERTIES:
                raise ValueError(unknown_key_message(name, PROPERTIES, "criterion.thresholds"))
            _check_positive(f"criterion.thresholds.{name}", value)
        for symbol, value in self.element_factors.items():
            if symbol not in atomic_numbers:
                raise ValueError(f"criterion.element_factors: {symbol!r} is not the symbol of an element")
            _check_positive(f"criterion.element_factors.{symbol}", value)
        if self.kind == "fixed" and not self.thresholds:
            raise ValueError("criterion.thresholds must name at least one property")
        if self.kind == "adaptive" and self.element_factors:
            raise ValueError("criterion.element_factors: thresholds from the training errors have none")
        if self.kind != "adaptive" and self.column is not None:
            raise ValueError(f"criterion.column needs the kind 'adaptive', got {self.kind!r}")
        if self.kind != "adaptive" and (self.by, self.force_level) != ("column", "frame"):
            raise ValueError(f"criterion.by and criterion.force_level need the kind 'adaptive', got {self.kind!r}")
        if self.by == "cluster" and self.column is not None:
            raise ValueError("criterion.column: thresholds by 'cluster' need no column; leave it out")

    @property
    def measure(self) -> Callable[..., dict[str, FloatArray]] | None:
        """What has to be found of the candidates, see :class:`~aiida_alpot.kernel.exploration.monitor.Monitor`."""
        if self.kind == "adaptive":
            return _measure_largest
        return self._measure_by_element if self.element_factors else None

    def _measure_by_element(
        self, members: Sequence[Predictions], frames: Sequence[Atoms], found: Disagreement
    ) -> dict[str, FloatArray]:
        del members
        species = np.concatenate([atoms.numbers for atoms in frames])
        values, factors = rate_by_element(found, species, self.element_factors, core_of(frames))
        return {
            **{_VALUE + name: array for name, array in values.items()},
            **{_FACTOR + name: array for name, array in factors.items()},
        }


def _measure_largest(
    members: Sequence[Predictions], frames: Sequence[Atoms], found: Disagreement
) -> dict[str, FloatArray]:
    energy = np.where(whole_frames(frames), compute_cbe(members), np.nan)
    unknown = np.full(found.n_frames, np.nan)
    values = {"energy": energy, "force": unknown, "force_max": compute_cbf(members, core_of(frames)), "stress": unknown}
    return {_VALUE + name: array for name, array in values.items()}


def criterion_columns(disagreement: Mapping[str, FloatArray], arrays: Arrays) -> dict[str, FloatArray]:
    """Return what is compared with the limits by property, shape (n_frames,) each.

    :param arrays: what :attr:`CriterionSettings.measure` found of the candidates.
    """
    return {name: arrays.get(_VALUE + name, values) for name, values in disagreement.items()}


def find_limits(
    candidates: Dataset | DatasetView,
    model: UncertaintyModel,
    settings: CriterionSettings,
    arrays: Arrays,
    adaptive: Mapping[str, Mapping[str, float]] | None = None,
) -> dict[str, Limit]:
    """Return the limits of :func:`criterion_columns` by property: one number, or one for each frame.

    :param arrays: what :attr:`CriterionSettings.measure` found of the candidates.
    :param adaptive: of :func:`adaptive_thresholds`, for the kind ``"adaptive"``.
    """
    if settings.kind == "adaptive":
        by_cluster = settings.by == "cluster"
        categories = arrays["cluster"] if by_cluster else _categories(candidates, settings.column)
        return {name: assign_thresholds(limits, categories) for name, limits in (adaptive or {}).items()}
    limits: dict[str, Limit]
    if settings.kind == "fixed":
        limits = dict(settings.thresholds)
    elif model.frame_clusters is not None:
        limits = dict(model.frame_thresholds(arrays["cluster"]))
    elif model.category_column:
        limits = dict(model.frame_thresholds(_categories(candidates, model.category_column)))
    else:
        limits = dict(model.thresholds)
    if settings.element_factors:
        for name, limit in limits.items():
            # nothing is known of a frame that a member cannot predict, and it is not flagged
            factor = arrays.get(_FACTOR + name, np.ones(len(candidates)))
            limits[name] = limit * np.where(np.isnan(factor), 1.0, factor)
    return limits


def adaptive_thresholds(
    potentials: Sequence[Potential],
    dataset: Dataset | DatasetView | None,
    column: str | None,
    force_level: Literal["frame", "atom"] = "frame",
    clusters_of: UncertaintyModel | None = None,
) -> dict[str, dict[str, float]]:
    """Return ``Q3 + 1.5 IQR`` of the errors of the mean of a committee on the frames that it was trained on.

    :param dataset: the frames with the split ``train`` count, but for those that a member fails to predict.
    :param column: its values have thresholds of their own; None for one threshold, of the category ``""``.
    :param force_level: see :class:`CriterionSettings`.
    :param clusters_of: a model whose clusters have thresholds of their own, in place of *column*.
    :return: by property (``energy``, ``force_max``) and category; a property without labels has none.
    :raises ValueError: if there are no such frames, or too few to have quartiles, or the model has no clusters.
    """
    train = None if dataset is None else dataset[np.flatnonzero(dataset.column("split") == "train")]
    if train is None or not len(train):
        raise ValueError("criterion 'adaptive' needs the frames that were trained on; give the dataset of the training")
    sort = None if clusters_of is None else cluster_sorter(clusters_of, potentials)
    words = _categories(train, column)
    errors = _TrainingErrors(force_level)
    first = 0
    for frames in train.iter_chunks(_CHUNK):
        categories = words[first : first + len(frames)] if sort is None else sort(frames)
        errors.add(potentials, frames, categories)
        first += len(frames)
    limits = errors.find_limits()
    if not limits:
        kind = "cluster" if sort is not None else f"value of {column!r}"
        where = "" if sort is None and column is None else f" that share a {kind}"
        raise ValueError(
            "criterion 'adaptive' needs the quartiles of at least four labelled training frames, and errors above "
            f"zero{where}"
        )
    return limits


def cluster_sorter(
    model: UncertaintyModel, potentials: Sequence[Potential]
) -> Callable[[Sequence[Atoms]], npt.NDArray[np.str_]]:
    """Return the function that names the cluster of each frame, by the features of its core.

    :raises ValueError: if the model has no clusters of frames.
    """
    clusters = model.frame_clusters
    if clusters is None:
        raise ValueError(
            "criterion.by 'cluster': the calibration has no clusters of frames; calibrate with 'frame_clusters' set, "
            "or name a column"
        )
    compute = model.feature_spec.build(potentials)
    return lambda frames: clusters.assign(mean_over_atoms(keep_core(compute(frames), frames), len(frames)))


class _TrainingErrors:
    """Errors of the mean of a committee on training frames, with the category of each.

    :param force_level: see :class:`CriterionSettings`.
    """

    def __init__(self, force_level: str) -> None:
        self._by_atom = force_level == "atom"
        self._parts: dict[str, list[FloatArray]] = {"energy": [], "force_max": []}
        self._categories: dict[str, list[npt.NDArray[np.str_]]] = {"energy": [], "force_max": []}

    def add(self, potentials: Sequence[Potential], frames: Sequence[Atoms], categories: npt.NDArray[np.str_]) -> None:
        """Add the errors on some frames, without those that a member fails to predict."""
        members = predict_committee(potentials, frames)
        kept = np.flatnonzero(find_failures(members) == "")
        known = [frames[k] for k in kept.tolist()]
        pbc, core = np.array([atoms.pbc for atoms in known], dtype=bool).reshape(-1, 3), core_of(known)
        members = [member.take(kept) for member in members]
        found = error(members, reference_predictions(known), "committee_mean", pbc, core)
        owner = np.repeat(kept, np.diff(found.offsets))
        self._add("energy", found.energy, categories[kept])
        if self._by_atom:
            self._add("force_max", found.force_atom[core], categories[owner[core]])
        else:
            self._add("force_max", found.force_max, categories[kept])

    def _add(self, name: str, values: FloatArray, categories: npt.NDArray[np.str_]) -> None:
        self._parts[name].append(values)
        self._categories[name].append(categories)

    def find_limits(self) -> dict[str, dict[str, float]]:
        """Return the thresholds by property and category; a property without any is missing."""
        found = {
            name: _without_exact(
                compute_adaptive_thresholds(np.concatenate(parts), np.concatenate(self._categories[name]))
            )
            for name, parts in self._parts.items()
        }
        return {name: thresholds for name, thresholds in found.items() if thresholds}


def _without_exact(thresholds: Mapping[str, float]) -> dict[str, float]:
    """Return the thresholds that are more than round-off: forces of isolated atoms have no errors."""
    largest = max(thresholds.values(), default=0.0)
    return {name: value for name, value in thresholds.items() if value > _ROUND_OFF * largest}


def _categories(frames: Dataset | DatasetView, column: str | None) -> npt.NDArray[np.str_]:
    """Return the values of a column as text, shape (n_frames,), empty where there is none."""
    if column is None or column not in frames.columns:
        return np.full(len(frames), "", dtype=np.str_)
    words = np.asarray(frames.column(column)).astype(np.str_)
    return np.where(frames.present(column), words, "")


def _check_positive(name: str, value: float) -> None:
    if not (np.isfinite(value) and value > 0.0):
        raise ValueError(f"{name} must be positive and finite, got {value!r}")
