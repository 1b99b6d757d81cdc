"""A committee of MACE potentials for Cu-Au, and what it says of frames that it was not trained on.

The frames are those of ``benchmarks/quality``: rattled, strained, hot, with vacancies, torn apart, slabs, with EMT as
the truth. The training frames are drawn by one seed, all others by another.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
from ase import Atoms

from aiida_alpot.kernel.dataset import write
from aiida_alpot.kernel.evaluating import EvaluateSettings, build_frame_features
from aiida_alpot.kernel.potentials import Potential, load, predict_committee, reference_predictions
from aiida_alpot.kernel.tasks.train_mace import run as train_mace
from aiida_alpot.kernel.uncertainty import PROPERTIES, disagreement, error

sys.path.insert(0, str(Path(__file__).parents[1] / "quality"))

from frames import label_emt, make_alloys, with_labels

KINDS = ("rattled", "strained", "hot", "vacancies", "torn", "slab")
N_MEMBERS = 4
N_TRAINING = 240
N_VALIDATION = 48
SEED_OF_TRAINING = 7
SETTINGS = {
    "n_updates": 600,
    "dtype": "float32",
    "lr_decay": 0.02,
    "hyperparameters": {
        "r_max": 4.5,
        "num_channels": 16,
        "max_L": 0,
        "correlation": 2,
        "max_ell": 2,
        "radial_MLP": "[32,32]",
        "MLP_irreps": "16x0e",
        "num_radial_basis": 8,
        "loss": "stress",
        "energy_weight": 1000,
        "forces_weight": 100,
        "stress_weight": 1000,
        "batch_size": 5,
        "lr": 0.03,
        "eval_interval": 10,
    },
}
CHUNK = 200


def make_frames(n_frames: int, seed: int) -> list[Atoms]:
    """Return labelled frames of all kinds in equal parts, which follow one another in the order of :data:`KINDS`."""
    frames = [
        with_labels(atoms, label_emt(atoms)) for atoms in make_alloys(n_frames, np.random.default_rng([seed, 26]))
    ]
    for k, atoms in enumerate(frames):
        atoms.info["config_type"] = KINDS[k % len(KINDS)]
    return frames


def train(folder: Path, make: Callable[[int, int], list[Atoms]] = make_frames) -> list[Potential]:
    """Train the committee into *folder*, two members at a time, and load it; members that are there are kept.

    :param make: returns as many labelled frames as the first argument says, drawn by the seed in the second one.
    """
    members = [folder / f"member-{seed}" for seed in range(N_MEMBERS)]
    left = [(seed, member) for seed, member in enumerate(members) if not (member / "potential.model").is_file()]
    if left:
        frames = make(N_TRAINING + N_VALIDATION, SEED_OF_TRAINING)
        with ProcessPoolExecutor(max_workers=2, mp_context=get_context("spawn")) as pool:
            list(pool.map(_train_member, *zip(*left, strict=True), [frames] * len(left)))
    return [load(member / "potential.model", "mace", dtype="float32") for member in members]


def _train_member(seed: int, folder: Path, frames: list[Atoms]) -> None:
    for k, atoms in enumerate(frames):
        atoms.info.update(split="train" if k < N_TRAINING else "validation", group=f"frame-{k}")
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "dataset.h5", frames)
    train_mace({"settings": SETTINGS, "seed": seed, "dataset": "dataset.h5"}, folder)


@dataclass(frozen=True)
class Judged:
    """Disagreement and error of frames, (n_frames,) by property, with their kind and mean features.

    :param member_rms: error of a member drawn at random.
    :param committee_mean: error of the mean.
    """

    disagreement: dict[str, npt.NDArray[np.float64]]
    member_rms: dict[str, npt.NDArray[np.float64]]
    committee_mean: dict[str, npt.NDArray[np.float64]]
    kind: npt.NDArray[np.str_]
    features: npt.NDArray[np.float64]

    def save(self, path: Path) -> None:
        """Write everything into one file."""
        arrays = {
            f"{field.name}/{name}": values
            for field in fields(self)
            if field.name not in ("kind", "features")
            for name, values in getattr(self, field.name).items()
        }
        np.savez(path, kind=self.kind, features=self.features, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: Path) -> Judged:
        """Read what :meth:`save` wrote."""
        with np.load(path) as arrays:
            parts = {
                part: {name: arrays[f"{part}/{name}"] for name in PROPERTIES}
                for part in ("disagreement", "member_rms", "committee_mean")
            }
            return cls(kind=arrays["kind"], features=arrays["features"], **parts)


def judge(potentials: Sequence[Potential], n_frames: int, seed: int) -> Judged:
    """Return what the committee says of fresh frames and how wrong it is."""
    frames = make_frames(n_frames, seed)
    parts: dict[str, dict[str, list[npt.NDArray[np.float64]]]] = {
        part: {name: [] for name in PROPERTIES} for part in ("disagreement", "member_rms", "committee_mean")
    }
    features = []
    frame_features = build_frame_features(EvaluateSettings(features="last_layer"), potentials)
    for first in range(0, n_frames, CHUNK):
        chunk = frames[first : first + CHUNK]
        members, reference = predict_committee(potentials, chunk), reference_predictions(chunk)
        pbc = np.array([atoms.pbc for atoms in chunk])
        for part, found in (
            ("disagreement", disagreement(members, pbc=pbc)),
            ("member_rms", error(members, reference, "member_rms", pbc=pbc)),
            ("committee_mean", error(members, reference, "committee_mean", pbc=pbc)),
        ):
            for name in PROPERTIES:
                parts[part][name].append(found.value(name))
        features.append(frame_features(chunk))
    joined = {part: {name: np.concatenate(v) for name, v in values.items()} for part, values in parts.items()}
    kinds = np.array([atoms.info["config_type"] for atoms in frames])
    return Judged(kind=kinds, features=np.concatenate(features), **joined)
