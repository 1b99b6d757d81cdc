"""What the committee says of a frame while a trajectory runs: disagreement, calibrated error, grade."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
from ase import Atoms

from aiida_alpot.kernel.cutouts import core_of
from aiida_alpot.kernel.grading import grade_frames
from aiida_alpot.kernel.potentials import Potential, Predictions, predict_committee
from aiida_alpot.kernel.uncertainty.categories import StrArray
from aiida_alpot.kernel.uncertainty.committee import Disagreement, disagreement
from aiida_alpot.kernel.uncertainty.failures import find_failures
from aiida_alpot.kernel.units import PROPERTIES, BoolArray, FloatArray, IntArray

if TYPE_CHECKING:
    from aiida_alpot.kernel.features import FeatureFunction
    from aiida_alpot.kernel.uncertainty.model import UncertaintyModel


@dataclass(frozen=True)
class Assessment:
    """What the committee says of some frames; what is not known is NaN.

    :param disagreement: property to shape (n_frames,): eV/atom, eV/Å, eV/Å, eV/Å³.
    :param error: the same as calibrated errors, for the properties that have a calibration.
    :param grade: largest extrapolation grade of the atoms of a frame, shape (n_frames,).
    :param residual: largest share of the features of an atom of a frame outside the span of the training atoms, shape
        (n_frames,); None where nobody asked.
    :param finite: whether every member predicts finite numbers, shape (n_frames,).
    :param measured: what else was asked for, each of shape (n_frames,).
    :param failure: why a frame is not *finite*, see :func:`~aiida_alpot.kernel.uncertainty.failures.find_failures`;
        None where nobody knows.
    :param cluster: name of the cluster of each frame, empty for one that is not *finite*; None without clusters.
    """

    disagreement: Mapping[str, FloatArray]
    error: Mapping[str, FloatArray]
    grade: FloatArray
    finite: BoolArray
    residual: FloatArray | None = None
    measured: Mapping[str, FloatArray] = field(default_factory=dict)
    failure: StrArray | None = None
    cluster: StrArray | None = None

    @classmethod
    def unknown(cls, n_frames: int) -> Assessment:
        """Return an assessment that knows nothing of *n_frames* frames."""
        nothing = {name: np.full(n_frames, np.nan) for name in PROPERTIES}
        return cls(nothing, {}, np.full(n_frames, np.nan), np.ones(n_frames, dtype=bool))


class Assessor(Protocol):
    """Whoever assesses frames during a trajectory: :class:`Monitor`, or something cheaper in its place."""

    def assess(self, frames: Sequence[Atoms]) -> Assessment:
        """Return what is known of *frames*."""


Measure = Callable[[Sequence[Predictions], Sequence[Atoms], Disagreement], Mapping[str, FloatArray]]
"""From the predictions of a committee for frames, and its disagreement, to numbers of shape (n_frames,) by name."""


class Monitor:
    """A committee and its uncertainty model, ready to look at frames.

    :param potentials: the committee; a single member has no disagreement.
    :param model: calibrations and active set; None leaves errors and grades unknown.
    :param measure: what else is to be found of frames from the predictions of the committee.
    :param with_residual: whether the share outside the span is asked for.
    """

    def __init__(
        self,
        potentials: Sequence[Potential],
        model: UncertaintyModel | None = None,
        measure: Measure | None = None,
        *,
        with_residual: bool = False,
    ) -> None:
        if not potentials:
            raise ValueError("a monitor needs at least one potential, got none")
        self.potentials = tuple(potentials)
        self.model = model
        self._measure = measure
        self._with_residual = with_residual
        self._features: FeatureFunction | None = None
        if model is not None and model.active_set is not None:
            self._features = model.feature_spec.build(self.potentials)

    def assess(self, frames: Sequence[Atoms]) -> Assessment:
        """Return disagreement, calibrated error and grade of *frames*.

        The error of a frame that has a category is that of its category; a frame of a running trajectory has none
        unless the categories are clusters.
        Frames on which a member predicts something that is not finite are marked and left unknown. Of a piece of a
        larger frame, only the core counts.
        """
        result = Assessment.unknown(len(frames))
        members = predict_committee(self.potentials, frames)
        failure = find_failures(members)
        finite = failure == ""
        kept = np.flatnonzero(finite)
        residual = np.full(len(frames), np.nan) if self._with_residual else None
        if not len(kept):
            return Assessment(result.disagreement, {}, result.grade, finite, residual, failure=failure)
        known = [frames[int(k)] for k in kept]
        grades = None
        if self.model is not None and self._features is not None:
            grades = grade_frames(self.model, self._features, known, with_residual=self._with_residual)
            result.grade[kept] = grades.frame
            if residual is not None and grades.residual is not None:
                residual[kept] = grades.residual
        cluster = None if grades is None else grades.cluster
        error: dict[str, FloatArray] = {}
        measured: dict[str, FloatArray] = {}
        if len(members) > 1:
            shared = [member.take(kept) for member in members]
            pbc = np.array([atoms.pbc for atoms in known])
            found = disagreement(shared, pbc=pbc, core=core_of(known))
            for name in PROPERTIES:
                result.disagreement[name][kept] = getattr(found, name)
            error = _spread(self._predict_error(found, known, cluster), kept, len(frames))
            if self._measure is not None:
                measured = _spread(self._measure(shared, known, found), kept, len(frames))
        clusters = None if cluster is None else _spread_words(cluster, kept, len(frames))
        return Assessment(result.disagreement, error, result.grade, finite, residual, measured, failure, clusters)

    def _predict_error(
        self, found: Disagreement, frames: Sequence[Atoms], cluster: StrArray | None
    ) -> dict[str, FloatArray]:
        if self.model is None:
            return {}
        return self.model.predict_error(found, self.model.frame_categories(frames, cluster))


def _spread_words(words: StrArray, rows: IntArray, n_frames: int) -> StrArray:
    """Return the same for all frames: the words of those at *rows*, empty ones for the others."""
    spread = np.full(n_frames, "", dtype=words.dtype)
    spread[rows] = words
    return spread


def _spread(values: Mapping[str, FloatArray], rows: IntArray, n_frames: int) -> dict[str, FloatArray]:
    """Return the same for all frames: what is known of those at *rows*, NaN for the others."""
    spread = {name: np.full(n_frames, np.nan) for name in values}
    for name, found in values.items():
        spread[name][rows] = found
    return spread
