"""Predictions with error bars for frames that nobody labelled: what a committee says in production."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from ase import Atoms

from aiida_alpot.kernel.cutouts import core_of
from aiida_alpot.kernel.features import FeatureFunction
from aiida_alpot.kernel.grading import grade_frames
from aiida_alpot.kernel.potentials import BATCH_SIZE, Potential, Predictions, predict_committee
from aiida_alpot.kernel.settings import check_device
from aiida_alpot.kernel.uncertainty import (
    OUT_OF_SPAN,
    PROPERTIES,
    Calibration,
    UncertaintyModel,
    disagreement,
    find_failures,
    mean_prediction,
)
from aiida_alpot.kernel.units import FloatArray

GRADE: Final = "grade"
RESIDUAL: Final = "outside_span"
QUANTILES: Final = (0.5, 0.9, 1.0)


@dataclass(frozen=True)
class PredictSettings:
    """How error bars of production frames are made.

    :param confidence: share of the errors that lie within the conformal radius, if the frames are like those of the
        calibration.
    :param device: where the potentials are evaluated.
    :param batch_size: frames evaluated at once.
    """

    confidence: float = 0.9
    device: str = "cpu"
    batch_size: int = BATCH_SIZE

    def __post_init__(self) -> None:
        if not 0.0 < self.confidence < 1.0:
            raise ValueError(f"confidence must be in (0, 1), got {self.confidence}")
        check_device(self.device)
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be positive, got {self.batch_size}")


@dataclass(frozen=True)
class Predictor:
    """A committee with its error bars.

    :param potentials: the committee, in the order of the hashes of *model*.
    :param model: its calibrations and active set.
    :param radii: conformal calibrations by property, fitted to the points of *model*, with a scale for each of their
        categories if they have any.
    :param features: what grades are computed from; None without an active set.
    """

    potentials: Sequence[Potential]
    model: UncertaintyModel
    settings: PredictSettings
    radii: Mapping[str, Calibration] = field(init=False)
    features: FeatureFunction | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        radii = {
            name: Calibration.fit(
                *points,
                method="conformal",
                confidence=self.settings.confidence,
                n_bootstrap=0,
                categories=self.model.point_categories,
            )
            for name, points in self.model.points.items()
        }
        object.__setattr__(self, "radii", radii)
        if self.model.active_set is not None:
            features = self.model.feature_spec.build(self.potentials, self.settings.batch_size)
            object.__setattr__(self, "features", features)

    @property
    def warnings(self) -> list[str]:
        """What a user should know before trusting the radii."""
        return [f"radius_{name}: {text}" for name, radius in self.radii.items() for text in radius.warnings]

    def predict(self, frames: Sequence[Atoms]) -> list[Atoms]:
        """Return copies of frames that carry the mean prediction and its error bars.

        Columns of a frame: ``committee_energy`` (eV), ``committee_stress`` (eV/Å³); for every property that is
        calibrated ``disagreement_…``, ``error_…`` (calibrated) and ``radius_…`` (conformal), in eV/atom, eV/Å, eV/Å³;
        with an active set ``grade``, the largest of its atoms, and ``outside_span``, the largest share of an atom's
        features that no combination of training atoms has. Columns of atoms: ``committee_forces`` (eV/Å),
        ``force_disagreement`` (eV/Å), ``atom_grade``. A frame of which a member predicts something that is not finite
        has NaN everywhere. In what is said of a piece of a larger frame its core counts alone.

        :raises ValueError: if a frame has a species that the potentials do not know.
        """
        members = predict_committee(self.potentials, frames, batch_size=self.settings.batch_size)
        finite = np.flatnonzero(find_failures(members) == "").tolist()
        results = [_blank(atoms, self.radii, has_grade=self.model.active_set is not None) for atoms in frames]
        if not finite:
            return results
        chosen = [frames[k] for k in finite]
        if len(finite) < len(frames):
            members = [member.take(finite) for member in members]
        columns, arrays = self._error_bars(members, chosen)
        offsets = members[0].offsets
        for n, k in enumerate(finite):
            results[k].info.update({name: values[n] for name, values in columns.items()})
            for name, values in arrays.items():
                results[k].arrays[name] = values[offsets[n] : offsets[n + 1]]
        return results

    def _error_bars(
        self, members: Sequence[Predictions], frames: Sequence[Atoms]
    ) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
        """Return columns of frames and of atoms."""
        mean = mean_prediction(members)
        core = core_of(frames)
        found = disagreement(members, pbc=np.array([atoms.pbc for atoms in frames]), core=core)
        columns = {"committee_energy": mean.energy, "committee_stress": mean.stress}
        arrays = {"committee_forces": mean.forces, "force_disagreement": found.force_atom}
        grades = None if self.features is None else grade_frames(self.model, self.features, frames)
        categories = self.model.frame_categories(frames, None if grades is None else grades.cluster)
        errors = self.model.predict_error(found, categories)
        for name, radius in self.radii.items():
            columns[f"disagreement_{name}"] = found.value(name)
            columns[f"error_{name}"] = errors[name]
            columns[f"radius_{name}"] = radius.predict_error(found.value(name), categories)
        if grades is not None and grades.residual is not None:
            arrays["atom_grade"] = grades.atom
            columns.update({GRADE: grades.frame, RESIDUAL: grades.residual})
        return columns, arrays


def summarise(frames: Iterable[Atoms], model: UncertaintyModel) -> dict[str, Any]:
    """Return what became of all frames: quantiles by column, and how many are beyond what is known.

    :param frames: of :meth:`Predictor.predict` with *model*.
    :return: for JSON: ``quantiles`` by column; how many frames are expected above tolerance (``above_tolerance``), and
        how many disagree more than any frame of the calibration (``extrapolated``), by property; how many have an atom
        outside the span of the training atoms (``n_out_of_span``, None without an active set).
    """
    values: dict[str, list[float]] = {}
    n_frames = n_unknown = 0
    for atoms in frames:
        n_frames += 1
        n_unknown += bool(np.isnan(atoms.info["committee_energy"]))
        for name, value in atoms.info.items():
            if name in (GRADE, RESIDUAL) or name.startswith(("error_", "radius_", "disagreement_")):
                values.setdefault(name, []).append(float(value))
    columns = {name: np.array(column) for name, column in sorted(values.items())}
    quantiles = {name: _quantiles(column) for name, column in columns.items() if not name.startswith("disagreement_")}
    calibrated = [name for name in PROPERTIES if name in model.calibrations and f"error_{name}" in columns]
    return {
        "n_frames": n_frames,
        "n_unknown": n_unknown,
        "quantiles": quantiles,
        "above_tolerance": {
            name: int(np.count_nonzero(columns[f"error_{name}"] > model.tolerances[name]))
            for name in calibrated
            if name in model.tolerances
        },
        "extrapolated": {
            name: int(np.count_nonzero(model.calibrations[name].extrapolates(columns[f"disagreement_{name}"])))
            for name in calibrated
        },
        "n_out_of_span": int(np.count_nonzero(columns[RESIDUAL] > OUT_OF_SPAN)) if RESIDUAL in columns else None,
    }


def extrapolation_warnings(summary: Mapping[str, Any]) -> list[str]:
    """Return which error bars rest on nothing that was measured.

    :param summary: of :func:`summarise`.
    """
    n_frames = summary["n_frames"]
    notes = [
        f"{name}: {n} of {n_frames} frames disagree more than any frame of the calibration; their errors and radii are "
        "extrapolated"
        for name, n in summary["extrapolated"].items()
        if n
    ]
    if summary["n_out_of_span"]:
        notes.append(
            f"{summary['n_out_of_span']} of {n_frames} frames have an atom with features that no combination of "
            "training atoms has; their error bars promise nothing"
        )
    return notes


def _quantiles(values: FloatArray) -> list[float] | None:
    """Return median, 90 % quantile and maximum of what is known."""
    known = values[~np.isnan(values)]
    return [float(q) for q in np.quantile(known, QUANTILES, method="lower")] if known.size else None


def _blank(atoms: Atoms, properties: Iterable[str], *, has_grade: bool) -> Atoms:
    """Return a copy of a frame with nothing known of it."""
    result = atoms.copy()
    result.calc = atoms.calc
    nothing = np.nan
    result.info.update(committee_energy=nothing, committee_stress=np.full(6, nothing))
    result.arrays["committee_forces"] = np.full((len(atoms), 3), nothing)
    result.arrays["force_disagreement"] = np.full(len(atoms), nothing)
    for name in properties:
        result.info.update({f"{kind}_{name}": nothing for kind in ("disagreement", "error", "radius")})
    if has_grade:
        result.info.update({GRADE: nothing, RESIDUAL: nothing})
        result.arrays["atom_grade"] = np.full(len(atoms), nothing)
    return result
