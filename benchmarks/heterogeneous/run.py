"""Global, local and ensemble uncertainty where the training set is of two kinds: prints the tables of README.md.

``python benchmarks/heterogeneous/run.py``. Thirty strained cells of two atoms and thirty balls to train on, and frames
between the two to test on: does a measure of novelty see that these are new?
"""

from __future__ import annotations

import argparse
import platform
from dataclasses import dataclass
from importlib.metadata import version

import linear
import numpy as np
import numpy.typing as npt
from ase import Atoms
from scipy.stats import rankdata, spearmanr
from structures import NOVEL, TRAINING, make

from aiida_alpot.kernel.potentials import Features
from aiida_alpot.kernel.uncertainty import ActiveSet, LocalActiveSet, compute_adaptive_threshold

N_TRAINING = 30
N_TEST = 20
N_MEMBERS = 20
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Measure:
    """A measure of novelty of the atoms of the test frames.

    :param score: shape (n_atoms,).
    :param limit: above which an atom is flagged.
    """

    name: str
    score: Floats
    limit: float


def measure_linear(
    training: Features, test: Features, energies: Floats, rng: np.random.Generator
) -> tuple[Floats, Floats, list[Measure]]:
    """Return predicted energies of the test atoms, errors of the training atoms, and the measures.

    :param energies: of the training atoms, eV.
    """
    coefficients = linear.fit(training.values, energies)
    errors = np.abs(linear.predict(training.values, coefficients) - energies)
    members = []
    n_frames = int(training.frame_index[-1]) + 1
    for _ in range(N_MEMBERS):
        counts = np.bincount(rng.integers(0, n_frames, n_frames), minlength=n_frames)
        members.append(
            linear.predict(test.values, linear.fit(training.values, energies, counts[training.frame_index] + 0.0))
        )
    spread = np.abs(np.array(members) - np.mean(members, axis=0)).max(axis=0)
    return (
        linear.predict(test.values, coefficients),
        errors,
        [Measure("ensemble of 20, Q3 + 1.5 IQR", spread, compute_adaptive_threshold(errors))],
    )


def measure_grades(training: Features, test: Features, kinds: npt.NDArray[np.str_], seed: int) -> list[Measure]:
    """Return global and local grades, and the local one without the flag of the span.

    :param kinds: of the training atoms.
    """
    whole = ActiveSet.build(training, kind="linear")
    by_kind = LocalActiveSet.build(training, labels=kinds, kind="linear", rows_per_rank=1.0)
    by_kmeans = LocalActiveSet.build(training, n_clusters=6, seed=seed, kind="linear", rows_per_rank=1.0)
    local = by_kind.grade(test)
    return [
        Measure("global γ", whole.grade(test), 1.0),
        Measure("local γ, by kind", local, 1.0),
        Measure("local γ, outside the span of every kind", np.where(np.isinf(local), 2.0, 0.0), 1.0),
        Measure("local γ, k-means of 6", by_kmeans.grade(test), 1.0),
    ]


def auroc(score: Floats, positive: npt.NDArray[np.bool_]) -> float:
    """Return the probability that a positive has the larger score; NaN without positives or negatives."""
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        return float("nan")
    ranks = rankdata(score)[positive].sum()
    return float((ranks - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def report(frames: list[Atoms], errors: Floats, limit: float, measures: list[Measure]) -> None:
    """Print how many frames and atoms each measure flags, and how well its order is that of the errors."""
    kinds = np.array([atoms.info["config_type"] for atoms in frames])
    sizes = np.array([len(atoms) for atoms in frames])
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    of_atom = np.repeat(kinds, sizes)
    names = list(dict.fromkeys(kinds))
    print(f"\n| measure | {' | '.join(names)} | AUROC | Spearman |\n|---|{'---|' * (len(names) + 2)}", flush=True)
    finite = [np.where(np.isinf(m.score), np.nanmax(m.score[np.isfinite(m.score)]) * 10, m.score) for m in measures]
    for measure, score in zip(measures, finite, strict=True):
        flagged = measure.score > measure.limit
        frame = np.maximum.reduceat(flagged.astype(int), starts)
        cells = [f"{100 * frame[kinds == k].mean():.0f} ({100 * flagged[of_atom == k].mean():.0f})" for k in names]
        rank = spearmanr(score, errors).statistic if np.ptp(score) > 0 else float("nan")
        order = f"{auroc(score, errors > limit):.2f} | {rank:.2f}"
        print(f"| {measure.name} | {' | '.join(cells)} | {order} |", flush=True)
    wrong = errors > limit
    frame = np.maximum.reduceat(wrong.astype(int), starts)
    cells = [f"{100 * frame[kinds == k].mean():.0f} ({100 * wrong[of_atom == k].mean():.0f})" for k in names]
    print(f"| error above the limit | {' | '.join(cells)} | | |")
    cells = [f"{1000 * np.sqrt(np.mean(errors[of_atom == k] ** 2)):.0f}" for k in names]
    print(f"| error, rms, meV | {' | '.join(cells)} | | |")


def main() -> None:
    """Make frames, fit, grade, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=11)
    options = parser.parse_args()
    print(f"Python {platform.python_version()}, {', '.join(f'{n} {version(n)}' for n in ('numpy', 'scipy', 'ase'))}")
    training = make(TRAINING, N_TRAINING, options.seed)
    test = make(TRAINING, N_TEST, options.seed + 1) + make(NOVEL, N_TEST, options.seed + 2)
    print(
        f"{len(training)} frames of {sum(map(len, training))} atoms to train on, {sum(map(len, test))} atoms to test on"
    )
    energies, reference = (np.concatenate([atoms.arrays["site_energy"] for atoms in part]) for part in (training, test))
    kinds = np.concatenate([np.repeat(atoms.info["config_type"], len(atoms)) for atoms in training])
    of_training, of_test = linear.compute_features(training), linear.compute_features(test)
    rng = np.random.default_rng(options.seed)
    predicted, errors, measures = measure_linear(of_training, of_test, energies, rng)
    measures += measure_grades(of_training, of_test, kinds, options.seed)
    limit = compute_adaptive_threshold(errors)
    print(f"\n### Linear basis of {of_training.n_features}; errors up to {1000 * limit:.0f} meV are usual in training")
    report(test, np.abs(predicted - reference), limit, measures)


if __name__ == "__main__":
    main()
