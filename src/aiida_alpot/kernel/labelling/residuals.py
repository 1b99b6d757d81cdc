"""Labels against a committee: errors beside what the committee expected of itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from ase import Atoms

from aiida_alpot.kernel.cutouts import core_of, whole_frames
from aiida_alpot.kernel.labelling.limits import Finding
from aiida_alpot.kernel.labelling.quality_settings import QualitySettings
from aiida_alpot.kernel.labelling.robust import excess, lognormal_limit, tail_limit
from aiida_alpot.kernel.units import FloatArray, IntArray

MEAN_COLUMNS: Final = ("committee_energy", "committee_forces", "committee_stress")
"""Columns of selected frames with the mean prediction of the committee, until the label tells its error."""
DISAGREEMENT_COLUMNS: Final = ("committee_energy_disagreement", "committee_force_disagreement")
"""Columns of selected frames with what the committee expected this error to be, eV/atom and eV/Å."""
ERROR_COLUMNS: Final = ("committee_energy_error", "committee_force_error")
"""Columns of frames in a dataset with the errors that the committee had, in the same units, beside what it expected."""
PREDICTION_COLUMNS: Final = (*MEAN_COLUMNS, *DISAGREEMENT_COLUMNS, *ERROR_COLUMNS)
"""All that a committee has said of a frame."""

_NAMES: Final = ("energy", "force", "expected_energy", "expected_force")


@dataclass(frozen=True)
class Residuals:
    """What a committee that was not fitted to the labels gets wrong on them, beside what it expected to.

    :param energy: error of the committee mean, shape (n_frames,), eV/atom; NaN for frames without a label, and for
        pieces of larger frames, whose energy says little of their core.
    :param force: rms over the force components of the core, shape (n_frames,), eV/Å; NaN for frames without a label.
    :param expected_energy: calibrated error or disagreement, shape (n_frames,), eV/atom.
    :param expected_force: the same for the forces, shape (n_frames,), eV/Å.
    """

    energy: FloatArray
    force: FloatArray
    expected_energy: FloatArray
    expected_force: FloatArray

    def __post_init__(self) -> None:
        shapes = {name: np.shape(getattr(self, name)) for name in _NAMES}
        if len(set(shapes.values())) != 1 or len(shapes["energy"]) != 1:
            raise ValueError(f"residuals: expected four arrays of one length, got the shapes {shapes}")
        for name in _NAMES:
            if np.any(np.asarray(getattr(self, name)) < 0):
                raise ValueError(f"residuals: {name} must not be negative")

    def check_length(self, n_frames: int) -> None:
        """Refuse residuals of other frames.

        :raises ValueError: if their number is not *n_frames*.
        """
        if len(self.energy) != n_frames:
            raise ValueError(f"residuals: expected one entry for each of {n_frames} frames, got {len(self.energy)}")

    def join(self, other: Residuals) -> Residuals:
        """Return the residuals of these frames and of others behind them."""
        return Residuals(*(np.concatenate([getattr(self, name), getattr(other, name)]) for name in _NAMES))

    def take(self, rows: npt.ArrayLike) -> Residuals:
        """Return the residuals of some frames."""
        return Residuals(*(np.asarray(getattr(self, name))[np.asarray(rows)] for name in _NAMES))


def read_residuals(frames: Iterable[Atoms]) -> Residuals:
    """Return the residuals of labelled frames that carry what a committee had predicted; NaN for all others.

    :param frames: selected frames with their labels, columns :data:`MEAN_COLUMNS`, or :func:`keep_errors` of them.
    """
    rows = [_residual(atoms) for atoms in frames]
    return Residuals(*np.array(rows, dtype=np.float64).reshape(-1, len(_NAMES)).T)


def keep_errors(atoms: Atoms) -> None:
    """Put the errors of the committee that selected a labelled frame in place of what it predicted, to four digits."""
    of_energy, of_force, *_ = _residual(atoms)
    for name in (*MEAN_COLUMNS, *ERROR_COLUMNS):
        atoms.info.pop(name, None)
        atoms.arrays.pop(name, None)
    for name, error in zip(ERROR_COLUMNS, (of_energy, of_force), strict=True):
        if np.isfinite(error):
            atoms.info[name] = float(f"{error:.4g}")


def drop_errors(atoms: Atoms) -> None:
    """Take away what a committee said of a frame if it is the error of a label, which belongs to that label."""
    if any(name in atoms.info for name in ERROR_COLUMNS):
        for name in (*ERROR_COLUMNS, *DISAGREEMENT_COLUMNS):
            atoms.info.pop(name, None)


def _residual(atoms: Atoms) -> tuple[float, ...]:
    labels: dict[str, Any] = {} if atoms.calc is None else atoms.calc.results
    energy, forces = (atoms.info.get("committee_energy"), atoms.arrays.get("committee_forces"))
    expected = [atoms.info.get(name) for name in DISAGREEMENT_COLUMNS]
    if None in expected or not {"energy", "forces"} <= labels.keys():
        return (np.nan,) * len(_NAMES)
    if energy is None or forces is None:
        return (*(float(atoms.info.get(name, np.nan)) for name in ERROR_COLUMNS), *map(float, expected))
    is_whole = bool(whole_frames([atoms])[0])
    of_energy = abs(float(labels["energy"]) - float(energy)) / len(atoms) if is_whole else np.nan
    of_force = float(np.sqrt(np.mean((np.asarray(labels["forces"]) - forces)[core_of([atoms])] ** 2)))
    return (of_energy, of_force, *map(float, expected))


def check_committee(
    residuals: Residuals, settings: QualitySettings, resolution: Mapping[str, FloatArray]
) -> list[Finding]:
    """Compare the error of a committee with what it expected, relative to how that usually goes.

    Members that were trained on the same labels are wrong together where these say nothing, and do not disagree: an
    error of the label that would have shown in the surrogate, and did not, is one of the committee.

    :param resolution: by ``"energy"`` and ``"force"``, the size of error that would have shown, (n_frames,), see
        :func:`~aiida_alpot.kernel.labelling.consistency.check_consistency`; NaN where nothing can be said.
    """
    findings = []
    for name, unit, floor, known, residual, ratio in _compare(residuals, settings):
        limit = max(tail_limit(ratio, settings.committee_factor), lognormal_limit(ratio))
        is_refuted = residual > resolution[name][known] if name in resolution else np.zeros(len(known), dtype=bool)
        for k in np.flatnonzero((ratio > limit) & (residual > floor) & ~is_refuted):
            reason = (
                f"{name}: the committee is {residual[k]:.3g} {unit} off, {ratio[k]:.2g} times as much as usual for its "
                "disagreement"
            )
            findings.append(Finding(int(known[k]), "committee", reason, float(ratio[k]), limit))
    return findings


def find_foretold(residuals: Residuals, settings: QualitySettings) -> set[int]:
    """Return the frames whose energy and forces the committee foretold, as well as it usually does or nearly.

    It was not fitted to their labels, so that agreement by chance is as good as excluded. Of pieces of larger frames
    the forces on the core tell it alone.
    """
    compared = list(_compare(residuals, settings))
    near: set[int] = set()
    far: set[int] = set()
    for _, _, floor, known, residual, ratio in compared:
        is_near = (ratio <= settings.foretold_factor) | (residual <= floor)
        near.update(known[is_near].tolist())
        far.update(known[~is_near].tolist())
    if "energy" not in [one.name for one in compared]:
        far.update(np.flatnonzero(np.isfinite(residuals.energy)).tolist())
    return near - far


class _Compared(NamedTuple):
    """Errors of one quantity of the frames that have everything, beside what is usual."""

    name: str
    unit: str
    floor: float
    known: IntArray  # the frames, (n_known,)
    residual: FloatArray  # (n_known,)
    ratio: FloatArray  # of the residual to the usual one, (n_known,)


def _compare(residuals: Residuals, settings: QualitySettings) -> Iterator[_Compared]:
    """Yield errors of energy and forces beside what is usual for what was expected; nothing if there are too few.

    Both are compared with what is usual for the expected errors of energy and forces together, so that a calibration
    that is off by a factor, or not linear, does no harm.
    """
    for name, unit, errors, floor in (
        ("energy", "eV/atom", residuals.energy, settings.committee_energy_floor),
        ("force", "eV/Å", residuals.force, settings.committee_force_floor),
    ):
        columns = np.column_stack([errors, residuals.expected_energy, residuals.expected_force])
        known = np.flatnonzero(np.isfinite(columns).all(axis=1))
        if len(known) >= settings.n_min:
            residual, *expected = columns[known].T
            yield _Compared(name, unit, floor, known, residual, excess(residual, expected))
