"""Why unseen frames of a training kind are flagged: prints the second table of README.md.

``python benchmarks/heterogeneous/reasons.py``. An active set of frames of one kind and new frames of the same kind. If
a new frame is exchangeable with the N others, it has an active row of the N + 1 with the probability of (frames with an
active row)/(N + 1), and a grade above 1 makes it one of these: the share of flagged frames is at most that.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial

import linear
import numpy as np
import structures
from ase import Atoms
from measures import Floats, compute_scaled_grades

from aiida_alpot.kernel.potentials import Features
from aiida_alpot.kernel.uncertainty import ActiveSet, compute_adaptive_threshold, compute_frame_grade

N_NEW = 100
TINY = linear.Basis(n_radial=2, l_max=0, sharpness=2.0, triples=False)
"""Five columns."""
CASES = [
    ("strained", TINY, 30, 1.0),
    ("strained", linear.SMALL, 30, 1.0),
    ("strained", linear.SMALL, 100, 1.0),
    ("strained", linear.SMALL, 300, 1.0),
    ("strained", linear.SMALL, 1000, 1.0),
    ("strained", linear.SMALL, 30, 0.25),
    ("strained", linear.SMALL, 300, 0.25),
    ("strained", linear.LARGE, 30, 1.0),
    ("strained", linear.LARGE, 300, 1.0),
    ("strained", linear.LARGE, 1000, 1.0),
    ("sphere", TINY, 30, 1.0),
    ("sphere", linear.SMALL, 30, 1.0),
    ("sphere", linear.SMALL, 100, 1.0),
    ("sphere", linear.LARGE, 30, 1.0),
]
"""Kind, basis, frames to train on, and the factor on strains and displacements."""


@dataclass(frozen=True)
class Frames:
    """Features and energies of atoms."""

    features: Features
    energies: Floats

    @classmethod
    def compute(cls, frames: list[Atoms], basis: linear.Basis) -> Frames:
        """Return those of frames."""
        energies = np.concatenate([atoms.arrays["site_energy"] for atoms in frames])
        return cls(basis.compute_features(frames), energies)

    @property
    def n_frames(self) -> int:
        """How many there are."""
        return int(self.features.frame_index[-1]) + 1

    def largest(self, values: Floats) -> Floats:
        """Return the largest value of the atoms of each frame."""
        return compute_frame_grade(values, self.features.frame_index, self.n_frames)


def describe(training: Frames, new: Frames) -> list[str]:
    """Return one row: owners, bound, flagged, outside, with the scale; among wrong and right frames."""
    found = ActiveSet.build(training.features, kind="linear")
    n_owners = len(np.unique(np.concatenate(list(found.owners.values()))))
    grades = new.largest(found.grade(new.features))
    one_cluster = np.zeros(training.features.n_atoms, dtype=np.int64)
    scaled = new.largest(compute_scaled_grades(training.features, new.features, one_cluster, "linear")) > 1.0
    coefficients = linear.fit(training.features.values, training.energies)
    errors = new.largest(np.abs(linear.predict(new.features.values, coefficients) - new.energies))
    usual = training.largest(linear.left_out_errors(training.features, training.energies))
    wrong = errors > compute_adaptive_threshold(usual)
    fitted = training.largest(np.abs(linear.predict(training.features.values, coefficients) - training.energies))
    order = np.argsort(grades, kind="stable")
    low, high = errors[order[: len(order) // 2]], errors[order[len(order) // 2 :]]
    shares = [n_owners / (training.n_frames + 1), np.mean(grades > 1.0), np.mean(np.isinf(grades)), np.mean(scaled)]
    shares += [np.mean(scaled[wrong]) if wrong.any() else np.nan, np.mean(scaled[~wrong])]
    medians = [np.median(fitted), np.median(errors), np.median(low), np.median(high)]
    return [str(n_owners), *(f"{100 * value:.0f}" for value in shares), *(f"{1000 * value:.1f}" for value in medians)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=11)
    seed = parser.parse_args().seed
    print("| kind | features | frames | strain | owners | bound | γ > 1 | ∞ | scaled | of wrong | of right |", end="")
    print(f" error fitted | new | low γ | high γ |\n|{'---|' * 15}")
    for kind, basis, n_frames, amplitude in CASES:
        maker = structures.TRAINING[kind] if amplitude == 1.0 else partial(structures.strained, amplitude=amplitude)
        frames = [structures.make({kind: maker}, n, seed + k) for k, n in enumerate((n_frames, N_NEW))]
        training, new = (Frames.compute(part, basis) for part in frames)
        cells = [kind, str(training.features.n_features), str(n_frames), f"× {amplitude:g}", *describe(training, new)]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
