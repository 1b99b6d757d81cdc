"""Measure calibrations with a real committee: ``python benchmarks/calibration/run.py`` prints the tables of README.md.

It trains four MACE potentials (some 20 minutes on two cores), judges fresh frames by them, divides these at random into
frames to calibrate on and frames to test on, again and again, and counts how many errors of the latter lie below the
prediction. What was trained and judged is kept in ``--work``; a second run uses it.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
from committee import KINDS, Judged, judge, train

from aiida_alpot.kernel.uncertainty import Calibration
from aiida_alpot.kernel.uncertainty.local import cluster_kmeans

CONFIDENCE = 0.9
PROPERTIES = {"energy": "meV/atom", "force": "meV/Å", "force_max": "meV/Å", "stress": "meV/Å³"}
N_CLUSTERS = 6

Floats = npt.NDArray[np.float64]
Words = npt.NDArray[np.str_]


def clusters(features: Floats) -> Words:
    """Return the cluster of each frame by k-means on its mean features, each scaled to unit variance."""
    scale = features.std(axis=0)
    points = (features - features.mean(axis=0))[:, scale > 1e-9] / scale[scale > 1e-9]
    return cluster_kmeans(points, N_CLUSTERS, seed=0).astype(np.str_)


def resplit(
    spread: Floats,
    error: Floats,
    fit: Callable[[npt.NDArray[np.int64]], Calibration],
    categories: Words | None,
    names: Words,
    n_calibration: int,
    n_splits: int,
    seed: int,
) -> tuple[Floats, dict[str, Floats]]:
    """Return the coverage of every split, and of every group in *names*.

    :param categories: that the calibration knows.
    """
    known = np.flatnonzero(np.isfinite(spread) & np.isfinite(error))
    rng = np.random.default_rng([seed, 5])
    total, by_name = [], {name: [] for name in np.unique(names[known])}
    for _ in range(n_splits):
        order = rng.permutation(known)
        calibration, test = fit(order[:n_calibration]), order[n_calibration:]
        predicted = calibration.predict_error(spread[test], None if categories is None else categories[test])
        covered = error[test] <= predicted
        total.append(covered.mean())
        for name, shares in by_name.items():
            shares.append(covered[names[test] == name].mean())
    return np.array(total), {name: np.array(shares) for name, shares in by_name.items()}


def report(judged: Judged, target: str, n_calibration: int, n_splits: int, seed: int) -> None:
    """Print the table of one target."""
    errors = judged.member_rms if target == "member_rms" else judged.committee_mean
    groups = {"config_type": judged.kind, "cluster": clusters(judged.features)}
    n_test = len(judged.kind) - n_calibration
    print(f"\n### {target}: {n_calibration} frames to calibrate on, {n_test} to test on, {n_splits} resplits\n")
    print("| property | calibration | coverage | worst kind | worst cluster |\n|---|---|---|---|---|", flush=True)
    for name in PROPERTIES:
        spread, error = judged.disagreement[name], errors[name]
        arms: list[tuple[str, str, Words | None]] = [
            ("median_ratio", "median_ratio", None),
            ("ols_origin", "ols_origin", None),
            ("conformal", "conformal, pooled", None),
            *(("conformal", f"conformal by {column}", values) for column, values in groups.items()),
        ]
        for method, title, categories in arms:

            def fit(rows: npt.NDArray[np.int64], method: str = method, known: Words | None = categories) -> Calibration:
                return Calibration.fit(
                    spread[rows],  # noqa: B023  it is called within this round
                    error[rows],  # noqa: B023
                    method,  # type: ignore[arg-type]
                    confidence=CONFIDENCE,
                    n_bootstrap=0,
                    categories=None if known is None else known[rows],
                )

            cells = []
            for names in groups.values():
                total, parts = resplit(spread, error, fit, categories, names, n_calibration, n_splits, seed)
                worst = min(parts, key=lambda key, parts=parts: float(parts[key].mean()))
                cells.append(f"{100 * parts[worst].mean():.1f} ({worst})")
            print(
                f"| {name} | {title} | {100 * total.mean():.1f} ± {100 * total.std():.1f} | {cells[0]} | {cells[1]} |",
                flush=True,
            )


def describe(judged: Judged) -> None:
    """Print what the committee is worth."""
    print("\n| property | error of the mean, rms | of a member | disagreement |\n|---|---|---|---|")
    for name, unit in PROPERTIES.items():
        parts = (judged.committee_mean, judged.member_rms, judged.disagreement)
        values = [1000 * float(np.sqrt(np.nanmean(part[name] ** 2))) for part in parts]
        print(f"| {name}, {unit} | {values[0]:.1f} | {values[1]:.1f} | {values[2]:.1f} |")
    print(
        "\n| kind | frames | force, rms error of a member, meV/Å | error over disagreement, median |\n|---|---|---|---|"
    )
    for kind in KINDS:
        rows = judged.kind == kind
        errors, spread = judged.member_rms["force"][rows], judged.disagreement["force"][rows]
        ratio = float(np.median(errors / spread))
        print(f"| {kind} | {rows.sum()} | {1000 * float(np.sqrt(np.mean(errors**2))):.0f} | {ratio:.2f} |")


def main() -> None:
    """Train, judge and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("calibration-work"), help="folder of what is trained")
    parser.add_argument("--frames", type=int, default=3600)
    parser.add_argument("--calibration", type=int, default=1200, help="frames to calibrate on; the others test")
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1234, help="of the fresh frames and of the resplits")
    options = parser.parse_args()
    print(f"Python {platform.python_version()}, {', '.join(f'{n} {version(n)}' for n in ('numpy', 'mace-torch'))}")
    path = options.work / f"judged-{options.seed}-{options.frames}.npz"
    if not path.is_file():
        judge(train(options.work), options.frames, options.seed).save(path)
    judged = Judged.load(path)
    describe(judged)
    for target in ("member_rms", "committee_mean"):
        report(judged, target, options.calibration, options.splits, options.seed)


if __name__ == "__main__":
    main()
