"""What tells the labels of frames apart, beside the settings: the structure, its charge and its starting moments."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from typing import Final

import numpy as np

from aiida_alpot.kernel.dataset import Dataset, DatasetView
from aiida_alpot.kernel.dataset.schema import AnyArray

_MOMENTS: Final = "initial_magmoms"


def label_ids(frames: Dataset | DatasetView) -> AnyArray:
    """Return an id of each frame that is the same for those of one calculation, 64 hexadecimal digits, (n_frames,).

    That of the structure, and of the starting moments too where one is not zero: a ferromagnetic and an
    antiferromagnetic start of one structure end in different states.
    """
    ids = frames.frame_ids(labels=False)
    if _MOMENTS not in frames.columns:
        return ids
    moments = np.nan_to_num(np.asarray(frames.column(_MOMENTS), dtype=np.float64)) + 0.0
    found = []
    for identity, (start, end) in zip(ids.tolist(), pairwise(frames.offsets.tolist()), strict=True):
        of_frame = moments[start:end]
        start_state = hashlib.sha256(identity.encode() + of_frame.tobytes()).hexdigest()
        found.append(start_state if of_frame.any() else identity)
    return np.array(found, dtype=ids.dtype)
