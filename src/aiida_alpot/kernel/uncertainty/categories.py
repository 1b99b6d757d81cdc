"""Conformal scales of categories of frames (Mondrian conformal prediction, Vovk, Gammerman and Shafer 2005).

A pooled scale covers the errors of all frames together, and those of a category with larger errors too rarely. With a
scale of its own each category is covered. (A category is what the frames are, a ``config_type`` or a cluster; a group
is the trajectory they came from.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from ase import Atoms

from aiida_alpot.kernel.uncertainty._scales import fit_power
from aiida_alpot.kernel.units import FloatArray

StrArray = npt.NDArray[np.str_]


def frame_categories(frames: Sequence[Atoms], column: str) -> StrArray:
    """Return the value of a column of each frame in words, shape (n_frames,); empty where it has none."""
    return as_labels([str(atoms.info.get(column, "")) for atoms in frames], len(frames))


def as_labels(categories: npt.ArrayLike, n: int) -> StrArray:
    """Return categories as words.

    :param categories: words or numbers of clusters, shape (n,).
    :raises ValueError: if there are not *n* of them.
    """
    labels = np.asarray(categories).astype(np.str_)
    if labels.shape != (n,):
        raise ValueError(f"categories: expected one for each of {n} values, got the shape {labels.shape}")
    return labels


def fewest_points(confidence: float) -> int:
    """Return how many frames a category needs for a scale of its own: ``ceil(1/(1 − confidence))``."""
    return int(np.ceil(1.0 / (1.0 - confidence) - 1e-9))


def fit_categories(
    D: FloatArray, e: FloatArray, labels: StrArray, confidence: float, pooled: float
) -> tuple[dict[str, float], list[str]]:
    """Return the conformal scale of each category and warnings.

    A category of fewer than :func:`fewest_points` frames gets the pooled scale, or its own if that is larger: few
    frames cannot show that a category is easier than the others, but they can show that it is harder.

    :param D: disagreements, shape (n,).
    :param e: errors, shape (n,).
    :param labels: category of each frame, shape (n,); empty for none.
    :param pooled: scale of all frames together.
    :return: the categories that are missing have the pooled scale.
    """
    names = [str(name) for name in np.unique(labels) if name]
    if not names:
        return {}, ["no frame has a category: the pooled scale is used"]
    scales: dict[str, float] = {}
    few: list[str] = []
    for name in names:
        own = labels == name
        power, _ = fit_power("conformal", D[own], e[own], confidence)
        enough = np.count_nonzero(own) >= fewest_points(confidence)
        if power is not None and (enough or power.scale > pooled):
            scales[name] = power.scale
        if not enough or power is None:
            few.append(f"{name} ({np.count_nonzero(own)})")
    if not few:
        return scales, []
    return scales, [
        f"categories with fewer than {fewest_points(confidence)} points of use have the pooled scale {pooled:.3g}, "
        f"or their own if it is larger: {', '.join(few)}"
    ]
