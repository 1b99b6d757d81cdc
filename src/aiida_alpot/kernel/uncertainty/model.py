"""The uncertainty model of one committee: what turns its disagreement into error bars and its features into grades."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ase import Atoms

from aiida_alpot.kernel.features import FeatureSpec
from aiida_alpot.kernel.potentials.base import Features
from aiida_alpot.kernel.uncertainty._hdf5 import read_arrays, write_arrays
from aiida_alpot.kernel.uncertainty.active_set import ActiveSet, compute_frame_grade
from aiida_alpot.kernel.uncertainty.calibration import Calibration
from aiida_alpot.kernel.uncertainty.categories import StrArray, frame_categories
from aiida_alpot.kernel.uncertainty.committee import Disagreement
from aiida_alpot.kernel.uncertainty.frame_clusters import FrameClusters
from aiida_alpot.kernel.uncertainty.local import LocalActiveSet
from aiida_alpot.kernel.units import PROPERTIES, FloatArray

Arrays = dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class UncertaintyModel:
    """Calibrations, tolerances and active set that belong to one committee.

    :param calibrations: per property, names of :data:`~.committee.PROPERTIES`.
    :param tolerances: largest acceptable error per property: eV/atom, eV/Å, eV/Å, eV/Å³.
    :param active_set: training atoms of the committee, in the features of its first member that has any, or of none;
        None without grades.
    :param feature_kind: kind of these features, see :class:`~aiida_alpot.kernel.features.FeatureSpec`.
    :param feature_parameters: all that it takes to compute the same columns again.
    :param gamma_save: grade from which a frame is kept.
    :param gamma_break: grade from which a trajectory is stopped, not below *gamma_save*. Both are per kind of
        features: the bands 1, 2 and 10 of Novikov et al. (2021) are for moment tensor potentials.
    :param model_hashes: sha256 of the models, in the order of the committee.
    :param points: the pairs (D, ε) of each calibration, for plots and for intervals at another confidence.
    :param category_column: column of the frames with the categories of the calibrations, empty if no column has them.
    :param point_categories: of the frames of the points, shape (n_points,); None without categories, or not known.
    :param active_set_report: how the active set was made, for people: what was left out of it and why.
    :param frame_clusters: clusters of the training frames, by the same features as the active set; then these are the
        categories of the calibrations.
    :raises ValueError: if a property is unknown or a number out of range.
    """

    calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    tolerances: Mapping[str, float] = field(default_factory=dict)
    active_set: ActiveSet | LocalActiveSet | None = None
    feature_kind: str = "last_layer"
    gamma_save: float | None = None
    gamma_break: float | None = None
    model_hashes: tuple[str, ...] = ()
    points: Mapping[str, tuple[FloatArray, FloatArray]] = field(default_factory=dict)
    category_column: str = ""
    point_categories: StrArray | None = None
    feature_parameters: Mapping[str, Any] = field(default_factory=dict)
    active_set_report: Mapping[str, Any] = field(default_factory=dict)
    frame_clusters: FrameClusters | None = None

    def __post_init__(self) -> None:
        for name in ("calibrations", "tolerances", "points"):
            unknown = sorted(set(getattr(self, name)) - set(PROPERTIES))
            if unknown:
                raise ValueError(f"{name}: unknown property {unknown[0]!r}; expected one of {', '.join(PROPERTIES)}")
        for name, value in self.tolerances.items():
            if not (np.isfinite(value) and value > 0.0):
                raise ValueError(f"tolerances: {name} must be positive and finite, got {value!r}")
        for name in ("gamma_save", "gamma_break"):
            value = getattr(self, name)
            if value is not None and not (np.isfinite(value) and value > 0.0):
                raise ValueError(f"{name} must be positive and finite, got {value!r}")
        if self.gamma_save is not None and self.gamma_break is not None and self.gamma_break < self.gamma_save:
            raise ValueError(f"gamma_break = {self.gamma_break} is below gamma_save = {self.gamma_save}")
        self._check_points()
        object.__setattr__(self, "model_hashes", tuple(self.model_hashes))

    def _check_points(self) -> None:
        for name, (spread, error) in self.points.items():
            if np.ndim(spread) != 1 or np.shape(spread) != np.shape(error):
                raise ValueError(f"points: {name} must be two 1-d arrays of one length")
            if self.point_categories is not None and np.shape(self.point_categories) != np.shape(spread):
                raise ValueError(
                    f"point_categories: expected one for each of the {len(spread)} points of {name}, "
                    f"got the shape {np.shape(self.point_categories)}"
                )

    @property
    def feature_spec(self) -> FeatureSpec:
        """The features of the active set."""
        return FeatureSpec(self.feature_kind, self.feature_parameters)

    @property
    def thresholds(self) -> dict[str, float]:
        """Disagreement beyond which a frame is flagged, for every property with calibration and tolerance.

        Of a frame without category, see :meth:`frame_thresholds`.
        """
        return {
            name: self.calibrations[name].threshold(self.tolerances[name])
            for name in PROPERTIES
            if name in self.calibrations and name in self.tolerances
        }

    def frame_categories(self, frames: Sequence[Atoms], clusters: StrArray | None = None) -> StrArray | None:
        """Return the category of each frame, shape (n_frames,), empty where it has none; None without categories.

        :param clusters: the cluster of each frame, see :func:`~aiida_alpot.kernel.grading.grade_frames`.
        """
        return frame_categories(frames, self.category_column) if self.category_column else clusters

    def frame_thresholds(self, categories: npt.ArrayLike) -> dict[str, FloatArray]:
        """Return :attr:`thresholds` frame by frame, each of shape (n_frames,).

        :param categories: of the frames, shape (n_frames,); one that is not known has the pooled threshold.
        """
        return {
            name: self.calibrations[name].frame_thresholds(self.tolerances[name], categories)
            for name in self.thresholds
        }

    def predict_error(
        self, disagreement: Disagreement, categories: npt.ArrayLike | None = None
    ) -> dict[str, FloatArray]:
        """Return the error expected of each frame, per calibrated property, shape (n_frames,); NaN where D is.

        :param disagreement: of the committee this model belongs to.
        :param categories: of the frames, shape (n_frames,), see :meth:`frame_categories`; the pooled scales without.
        """
        return {
            name: self.calibrations[name].predict_error(disagreement.value(name), categories)
            for name in PROPERTIES
            if name in self.calibrations
        }

    def grade(self, features: Features) -> FloatArray:
        """Return the extrapolation grade of each atom, shape (n_atoms,).

        :raises ValueError: if the model has no active set, or the features are of another size.
        """
        if self.active_set is None:
            raise ValueError("this uncertainty model has no active set: grades are not defined")
        return self.active_set.grade(features)

    def frame_grade(self, features: Features, n_frames: int) -> FloatArray:
        """Return the largest grade of the atoms of each frame, shape (n_frames,).

        :raises ValueError: as :meth:`grade`, or if a frame has no atom.
        """
        return compute_frame_grade(self.grade(features), features.frame_index, n_frames)

    def frame_residual(self, features: Features, n_frames: int) -> FloatArray:
        """Return the largest share of an atom's features outside the span of the active set, shape (n_frames,).

        :raises ValueError: as :meth:`frame_grade`.
        """
        if self.active_set is None:
            raise ValueError("this uncertainty model has no active set: it spans nothing")
        return compute_frame_grade(self.active_set.residual(features), features.frame_index, n_frames)

    def require_models(self, hashes: Sequence[str]) -> None:
        """Refuse models that are not the committee this model was made for.

        The order of the members matters to the active set only: the first of them that has features gave it its own.

        :param hashes: sha256 of the models.
        :raises ValueError: if they differ; the message names what is missing and what is too much.
        """
        expected, got = Counter(self.model_hashes), Counter(hashes)
        if expected != got:
            missing, extra = sorted((expected - got).elements()), sorted((got - expected).elements())
            raise ValueError(
                "the uncertainty model belongs to other models: "
                f"missing {_short(missing)}, not expected {_short(extra)}; calibrate again for this committee"
            )
        if self.active_set is not None and tuple(hashes) != self.model_hashes:
            raise ValueError(
                "the active set holds features of the first member that has any, and the members are in another order: "
                f"expected {_short(self.model_hashes)}, got {_short(tuple(hashes))}"
            )

    def save(self, path: str | Path) -> None:
        """Write the model to one HDF5 file; equal models give equal bytes."""
        header: dict[str, Any] = {
            "calibrations": {name: self.calibrations[name].to_dict() for name in sorted(self.calibrations)},
            "tolerances": {name: float(self.tolerances[name]) for name in sorted(self.tolerances)},
            "category_column": self.category_column,
            "feature_kind": self.feature_kind,
            "feature_parameters": dict(self.feature_parameters),
            "gamma_save": self.gamma_save,
            "gamma_break": self.gamma_break,
            "model_hashes": list(self.model_hashes),
            "active_set": _KINDS.get(type(self.active_set), ""),
            "active_set_report": dict(self.active_set_report),
        }
        # as an array: an attribute is limited to 64 kB, which an isotonic fit may exceed
        text = json.dumps(header, sort_keys=True, allow_nan=False).encode()
        arrays: Arrays = {"header": np.frombuffer(text, dtype=np.uint8)}
        for name, (spread, error) in self.points.items():
            arrays[f"points/{name}"] = np.stack([spread, error]).astype(np.float64)
        if self.point_categories is not None:
            # fixed-width text is no array of HDF5
            words = json.dumps(np.asarray(self.point_categories).tolist()).encode()
            arrays["point_categories"] = np.frombuffer(words, dtype=np.uint8)
        if self.frame_clusters is not None:
            arrays |= {f"frame_clusters/{key}": value for key, value in self.frame_clusters.to_arrays().items()}
        if self.active_set is not None:
            arrays |= {f"active_set/{key}": value for key, value in self.active_set.to_arrays().items()}
        write_arrays(path, arrays, {"kind": "uncertainty_model"})

    @classmethod
    def load(cls, path: str | Path) -> UncertaintyModel:
        """Return the model that :meth:`save` wrote.

        :raises ValueError: if the file is of another kind or of an unknown schema version.
        """
        arrays, _ = read_arrays(path, "uncertainty_model")
        try:
            return cls._from_arrays(arrays)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: its content is not that of an uncertainty model ({type(error).__name__}: {error}); "
                "run the calibrate stage again"
            ) from error

    @classmethod
    def _from_arrays(cls, arrays: Arrays) -> UncertaintyModel:
        header = json.loads(np.asarray(arrays["header"], dtype=np.uint8).tobytes())
        points, clusters = _within(arrays, "points/"), _within(arrays, "frame_clusters/")
        return cls(
            calibrations={name: _load_calibration(value) for name, value in header["calibrations"].items()},
            tolerances=header["tolerances"],
            active_set=_load_active_set(header["active_set"], _within(arrays, "active_set/")),
            feature_kind=header["feature_kind"],
            gamma_save=header["gamma_save"],
            gamma_break=header["gamma_break"],
            model_hashes=tuple(header["model_hashes"]),
            points={name: (_floats(value)[0], _floats(value)[1]) for name, value in points.items()},
            category_column=header.get("category_column", ""),
            point_categories=_load_words(arrays.get("point_categories")),
            feature_parameters=header.get("feature_parameters", {}),
            active_set_report=header.get("active_set_report", {}),
            frame_clusters=FrameClusters.from_arrays(clusters) if clusters else None,
        )


_NEWER = ("categories", "largest_disagreement")
"""Entries of a calibration that older files do without: they have no categories and do not know the largest D."""

_KINDS: dict[type, str] = {ActiveSet: "active_set", LocalActiveSet: "local_active_set"}


def _load_calibration(values: Mapping[str, Any]) -> Calibration:
    """Return a calibration; one that lost a number must not get the default in its place."""
    missing = [field.name for field in fields(Calibration) if field.name not in {*values, *_NEWER}]
    if missing:
        raise KeyError(missing[0])
    return Calibration.from_dict(values)


def _load_active_set(kind: str, arrays: Arrays) -> ActiveSet | LocalActiveSet | None:
    if not kind:
        return None
    return ActiveSet.from_arrays(arrays) if kind == "active_set" else LocalActiveSet.from_arrays(arrays)


def _within(arrays: Arrays, prefix: str) -> Arrays:
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}


def _load_words(values: npt.NDArray[np.generic] | None) -> StrArray | None:
    if values is None:
        return None
    return np.array(json.loads(np.asarray(values, dtype=np.uint8).tobytes()), dtype=np.str_)


def _floats(values: npt.NDArray[np.generic]) -> FloatArray:
    return np.asarray(values, dtype=np.float64)


def _short(hashes: Sequence[str]) -> str:
    return ", ".join(value[:12] for value in hashes) or "nothing"
