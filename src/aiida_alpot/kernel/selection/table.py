"""The candidates of a selection: what is known of each frame, without the frames themselves."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from aiida_alpot.kernel.units import PROPERTIES, BoolArray, FloatArray

UNITS: Final = {"energy": "eV/atom", "force": "eV/Å", "force_max": "eV/Å", "stress": "eV/Å³"}


@dataclass(frozen=True, eq=False)
class CandidateTable:
    """One row per candidate frame.

    :param energy: committee disagreement, shape (n_frames,), eV/atom; this and the next three are NaN where undefined.
    :param force: D_F over all atoms and components, shape (n_frames,), eV/Å.
    :param force_max: the largest D_F,atom, shape (n_frames,), eV/Å.
    :param stress: shape (n_frames,), eV/Å³; NaN for a frame without a stress.
    :param grade: largest extrapolation grade of its atoms, shape (n_frames,); NaN if there are no active sets.
    :param healthy: whether frame and trajectory were physical up to here, shape (n_frames,).
    :param group: trajectory (or augmented frame) that the frame belongs to, shape (n_frames,).
    :param structure_id: content-derived id of the structure without labels, shape (n_frames,).
    :param features: per-frame features, shape (n_frames, n_features), for strategies that measure distances.
    :raises ValueError: if a length does not fit, a disagreement is negative, or a feature is not finite.
    """

    energy: FloatArray
    force: FloatArray
    force_max: FloatArray
    stress: FloatArray
    grade: FloatArray
    healthy: BoolArray
    group: npt.NDArray[np.str_]
    structure_id: npt.NDArray[np.str_]
    features: FloatArray | None = None

    def __post_init__(self) -> None:
        kinds: dict[str, Any] = {"healthy": np.bool_, "group": np.str_, "structure_id": np.str_}
        for item in fields(self):
            value = getattr(self, item.name)
            if value is not None:
                object.__setattr__(self, item.name, np.asarray(value, dtype=kinds.get(item.name, np.float64)))
        for item in fields(self):
            self._check(item.name)

    def _check(self, name: str) -> None:
        value = getattr(self, name)
        if value is None:
            return
        shape = value.shape[:1] if name == "features" else value.shape
        if shape != (len(self),) or (name == "features" and value.ndim != 2):
            raise ValueError(f"column {name!r} has shape {value.shape}, expected {len(self)} rows")
        if name in (*PROPERTIES, "grade") and (value < 0.0).any():
            raise ValueError(f"column {name!r} holds a negative number at row {int(np.flatnonzero(value < 0.0)[0])}")
        if name == "features" and not np.isfinite(value).all():
            raise ValueError("a feature is not finite")

    def __len__(self) -> int:
        return int(np.shape(self.group)[0])

    @property
    def n_candidates(self) -> int:
        """Return the number of rows."""
        return len(self)
