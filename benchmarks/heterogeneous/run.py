"""Global, local and ensemble uncertainty where the training set is of two kinds: prints the tables of README.md.

``python benchmarks/heterogeneous/run.py linear | mace``. Thirty strained cells of two atoms and thirty balls to train
on, and frames between the two to test on: does a measure of novelty see that these are new?
"""

from __future__ import annotations

import argparse
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import committee
import linear
import numpy as np
from ase import Atoms
from measures import Bools, Floats, Measure, measure_grades
from scipy.stats import rankdata, spearmanr
from structures import NOVEL, TRAINING, make

from aiida_alpot.kernel.potentials import Features, offsets_of, predict_committee, reference_predictions
from aiida_alpot.kernel.uncertainty import compute_abf, compute_adaptive_threshold

N_TRAINING = 30
N_VALIDATION = 5
N_TEST = 20
N_MEMBERS = 20


@dataclass(frozen=True)
class Data:
    """Frames with labels: what is trained on and what is asked about."""

    training: list[Atoms]
    test: list[Atoms]

    @classmethod
    def make(cls, seed: int) -> Data:
        """Return the frames of one seed."""
        unseen = make(TRAINING, N_TEST, seed + 1)
        return cls(make(TRAINING, N_TRAINING, seed), unseen + make(NOVEL, N_TEST, seed + 2))


@dataclass(frozen=True)
class Case:
    """A model of the training frames: features, errors, and its ensemble.

    :param errors: of the test atoms, shape (n_atoms,), in *unit*.
    :param usual: errors of the training atoms: their Q3 + 1.5 IQR, atom by atom and frame by frame, is the limit.
    :param spread: largest deviation of a member from the mean, of the test atoms, shape (n_atoms,).
    """

    name: str
    feature_kind: str
    training: Features
    test: Features
    errors: Floats
    usual: Floats
    spread: Floats
    unit: str


def make_linear(basis: linear.Basis, data: Data, seed: int) -> Case:
    """Return a linear fit to the energies of atoms; its usual errors are those of frames left out of the fit."""
    training, test = basis.compute_features(data.training), basis.compute_features(data.test)
    energies, reference = (_column(frames, "site_energy") for frames in (data.training, data.test))
    rng, n_frames = np.random.default_rng(seed), len(data.training)
    members = []
    for _ in range(N_MEMBERS):
        counts = np.bincount(rng.integers(0, n_frames, n_frames), minlength=n_frames)
        weights = counts[training.frame_index] + 0.0
        members.append(linear.predict(test.values, linear.fit(training.values, energies, weights)))
    return Case(
        name=f"linear basis of {training.n_features}",
        feature_kind="linear",
        training=training,
        test=test,
        errors=np.abs(linear.predict(test.values, linear.fit(training.values, energies)) - reference),
        usual=linear.left_out_errors(training, energies),
        spread=np.abs(np.array(members) - np.mean(members, axis=0)).max(axis=0),
        unit="eV",
    )


def make_mace(folder: Path, data: Data, seed: int) -> Case:
    """Return a committee of MACE potentials, its errors those of forces."""
    potentials = committee.train(folder, data.training, make(TRAINING, N_VALIDATION, seed + 3))
    training, test = (potentials[0].features(frames) for frames in (data.training, data.test))
    found = {}
    for name, frames in (("training", data.training), ("test", data.test)):
        members = predict_committee(potentials, frames)
        forces = np.mean([member.forces for member in members], axis=0)
        found[name] = np.linalg.norm(forces - reference_predictions(frames).forces, axis=1)
    return Case(
        name=f"last layer of MACE, {training.n_features} features",
        feature_kind="last_layer",
        training=training,
        test=test,
        errors=found["test"],
        usual=found["training"],
        spread=compute_abf(members),
        unit="eV/Å",
    )


def report(case: Case, data: Data, seed: int) -> None:
    """Print which frames and atoms each measure flags, and how that compares with the errors."""
    kind_of = {kind: k for k, kind in enumerate(TRAINING)}
    kinds = np.array([kind_of[atoms.info["config_type"]] for atoms in data.training])[case.training.frame_index]
    starts = offsets_of(data.training)[:-1]
    limits = [compute_adaptive_threshold(e) for e in (case.usual, np.maximum.reduceat(case.usual, starts))]
    print(f"\n### {case.name}; errors up to {limits[0]:.3g} {case.unit} (atoms), {limits[1]:.3g} (frames) are usual")
    measures = [
        Measure("ensemble, Q3 + 1.5 IQR", case.spread, *limits),
        *measure_grades(case.training, case.test, kinds, case.feature_kind, seed),
        Measure("error itself", case.errors, *limits),
    ]
    _print_shares(measures, data.test)
    _print_quality(measures, case.errors, data.test)
    names, of_frame = _kinds(data.test)
    of_atom = np.repeat(of_frame, [len(atoms) for atoms in data.test])
    rms = ", ".join(f"{name} {np.sqrt(np.mean(case.errors[of_atom == name] ** 2)):.3f}" for name in names)
    print(f"\nrms errors, {case.unit}: {rms}")


def _print_shares(measures: Sequence[Measure], frames: Sequence[Atoms]) -> None:
    names, of_frame = _kinds(frames)
    of_atom = np.repeat(of_frame, [len(atoms) for atoms in frames])
    print(f"\n| frames (atoms) flagged, % | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    for measure in measures:
        atoms, flagged = measure.score > measure.limit, _of_frames(measure.score, frames) > measure.frame_limit
        cells = [f"{_percent(flagged[of_frame == k])} ({_percent(atoms[of_atom == k])})" for k in names]
        print(f"| {measure.name} | {' | '.join(cells)} |", flush=True)


def _print_quality(measures: Sequence[Measure], errors: Floats, frames: Sequence[Atoms]) -> None:
    new = ~np.isin(_kinds(frames)[1], list(TRAINING))
    wrong = measures[-1].score > measures[-1].limit
    wrong_frames = _of_frames(errors, frames) > measures[-1].frame_limit
    print(
        "\n| | new frames | unseen of training kinds | frames that are wrong | frames that are right "
        f"| new or not, AUROC | wrong atoms, AUROC | Spearman, frames | atoms |\n|{'---|' * 9}"
    )
    for measure in measures:
        score = _of_frames(measure.score, frames)
        flagged = score > measure.frame_limit
        shares = [_percent(flagged[group]) for group in (new, ~new, wrong_frames, ~wrong_frames)]
        orders = [auroc(score, new), auroc(measure.score, wrong)]
        orders += [rank_correlation(score, _of_frames(errors, frames)), rank_correlation(measure.score, errors)]
        print(f"| {measure.name} | {' | '.join([*shares, *(f'{value:.2f}' for value in orders)])} |", flush=True)


def auroc(score: Floats, positive: Bools) -> float:
    """Return the probability that a positive has the larger score; NaN without positives or negatives."""
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        return float("nan")
    ranks = rankdata(score)[positive].sum()
    return float((ranks - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def rank_correlation(score: Floats, errors: Floats) -> float:
    """Return Spearman's correlation; NaN for a score that is one number. Infinite scores come last together."""
    return float("nan") if len(np.unique(score)) == 1 else float(spearmanr(rankdata(score), errors).statistic)


def _kinds(frames: Sequence[Atoms]) -> tuple[list[str], np.ndarray]:
    kinds = np.array([atoms.info["config_type"] for atoms in frames])
    return list(dict.fromkeys(kinds.tolist())), kinds


def _of_frames(values: Floats, frames: Sequence[Atoms]) -> Floats:
    return np.maximum.reduceat(values, offsets_of(frames)[:-1])


def _column(frames: Sequence[Atoms], name: str) -> Floats:
    return np.concatenate([atoms.arrays[name] for atoms in frames])


def _percent(flags: Bools) -> str:
    return f"{100 * flags.mean():.0f}" if len(flags) else "–"


def main() -> None:
    """Make frames, fit, grade, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=("linear", "mace"))
    parser.add_argument("--folder", type=Path, help="where MACE potentials are kept; a temporary one by default")
    parser.add_argument("--seed", type=int, default=11)
    options = parser.parse_args()
    print(f"Python {platform.python_version()}, {', '.join(f'{n} {version(n)}' for n in ('numpy', 'scipy', 'ase'))}")
    data = Data.make(options.seed)
    print(f"{sum(map(len, data.training))} atoms to train on, {sum(map(len, data.test))} to test on")
    if options.model == "linear":
        for basis in (linear.SMALL, linear.LARGE):
            report(make_linear(basis, data, options.seed), data, options.seed)
        return
    with tempfile.TemporaryDirectory() as temporary:
        report(make_mace(options.folder or Path(temporary), data, options.seed), data, options.seed)


if __name__ == "__main__":
    main()
