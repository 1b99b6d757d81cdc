"""What the features of frames say: grades, shares outside the span, and clusters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ase import Atoms

from aiida_alpot.kernel.cutouts import core_of, keep_core
from aiida_alpot.kernel.uncertainty.active_set import compute_frame_grade
from aiida_alpot.kernel.uncertainty.categories import StrArray
from aiida_alpot.kernel.uncertainty.frame_clusters import mean_over_atoms
from aiida_alpot.kernel.units import FloatArray

if TYPE_CHECKING:
    from aiida_alpot.kernel.features import FeatureFunction
    from aiida_alpot.kernel.uncertainty.model import UncertaintyModel


@dataclass(frozen=True)
class Grades:
    """What the features of some frames say; of a piece of a larger frame, the core alone counts.

    :param atom: extrapolation grade of every atom, those around a core included, shape (n_atoms,).
    :param frame: the largest grade of each frame, shape (n_frames,).
    :param residual: largest share of the features of an atom outside the span, shape (n_frames,); None if not wanted.
    :param cluster: of each frame, shape (n_frames,); None if the model has no clusters of frames.
    """

    atom: FloatArray
    frame: FloatArray
    residual: FloatArray | None
    cluster: StrArray | None


def grade_frames(
    model: UncertaintyModel, compute: FeatureFunction, frames: Sequence[Atoms], *, with_residual: bool = True
) -> Grades:
    """Return the grades of frames.

    :param model: with an active set.
    :param compute: its features.
    :param frames: at least one.
    """
    features = compute(frames)
    atom, core = model.grade(features), core_of(frames)
    inner = keep_core(features, frames)
    return Grades(
        atom,
        compute_frame_grade(atom[core], inner.frame_index, len(frames)),
        model.frame_residual(inner, len(frames)) if with_residual else None,
        None if model.frame_clusters is None else model.frame_clusters.assign(mean_over_atoms(inner, len(frames))),
    )
