"""Measure how many labels each strategy of selection needs: prints the tables of README.md.

``python benchmarks/efficiency/run.py --work FOLDER``; ``--model mace`` repeats the main arms with MACE on a smaller
pool, which takes hours. What was measured is kept in the folder; a second run goes on from there. Seeds 100 and above
are for development.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from ase import Atoms
from frames import COMMON, GROUPS, make
from network import Committee, Inputs
from reaching import Curve, compare, mean_curve
from rounds import BATCH, START, Data, draw_pool, pool_counts, run

from aiida_alpot.kernel.dataset import Dataset, write
from aiida_alpot.kernel.uncertainty import ClusterSettings

ARMS = {
    "random": ("random", True),
    "random, all trained on": ("random", False),
    **{name: (name, True) for name in ("threshold", "top", "greedy_diverse", "direct", "fps", "ladder", "best_first")},
}
LOCAL_ARMS = {f"{name}, local": (name, True) for name in ("ladder", "best_first")}
"""With an active set for each cluster; they run only if they are named."""
RARE_SHARE = 0.1
N_POOL = 5000
N_TEST = 1000
SEED_OF_FRAMES = 1
Metric = Callable[[Mapping[str, float]], float]
METRICS: dict[str, Metric] = {
    "mean of the groups": lambda force: float(np.mean(list(force.values()))),
    "worst group": lambda force: max(force.values()),
}
Rounds = list[dict[str, Any]]


@dataclass(frozen=True)
class Setup:
    """One model with its arms.

    :param n_pool: frames in the pool of a seed.
    :param n_test: frames to test on.
    :param final: labels at which the error of random is the one to reach.
    :param last: labels after which a run ends.
    """

    name: str
    arms: tuple[str, ...]
    n_pool: int
    n_test: int
    final: int
    last: int

    def path(self, folder: Path, arm: str, seed: int) -> Path:
        """Return the file of a result."""
        return folder / f"{self.name}-{arm.replace(', ', '-').replace(' ', '-')}-{seed}.json"


SETUPS = {
    "network": Setup("network", tuple(ARMS), N_POOL, N_TEST, final=400, last=460),
    "mace": Setup("mace", ("random", "threshold", "fps"), 1000, 300, final=160, last=160),
}


def make_frames(folder: Path) -> tuple[list[Atoms], list[Atoms]]:
    """Return the frames that pools are drawn from, a fifth more than one holds, and those to test on."""
    counts = {
        "pool": pool_counts(N_POOL * 6 // 5, RARE_SHARE),
        "test": dict.fromkeys(GROUPS, N_TEST // len(GROUPS)),
    }
    for k, (name, of_group) in enumerate(counts.items()):
        if not (folder / f"{name}.h5").is_file():
            write(folder / f"{name}.h5", list(make(of_group, SEED_OF_FRAMES + k)))
    with Dataset.open(folder / "pool.h5") as pool, Dataset.open(folder / "test.h5") as test:
        return list(pool), list(test)


def groups_of(frames: list[Atoms]) -> npt.NDArray[np.str_]:
    """Return the group of each frame."""
    return np.array([atoms.info["config_type"] for atoms in frames])


def measure(setup: Setup, folder: Path, arms: list[str], seeds: range) -> None:
    """Run the arms that *folder* has no result of, seed by seed."""
    missing = [(seed, arm) for seed in seeds for arm in arms if not setup.path(folder, arm, seed).is_file()]
    if not missing:
        return
    source, test = make_frames(folder)
    of_source, of_test = groups_of(source), groups_of(test)
    rows = draw_pool(of_test, dict.fromkeys(GROUPS, setup.n_test // len(GROUPS)), SEED_OF_FRAMES)
    kind, inputs = _prepare(setup, source, [test[row] for row in rows.tolist()])
    tested, of_tested = inputs.take(np.arange(len(source), len(inputs))), of_test[rows]
    drawn = -1
    for seed, arm in missing:
        if seed != drawn:
            rows, drawn = draw_pool(of_source, pool_counts(setup.n_pool, RARE_SHARE), seed), seed
            data = Data(inputs.take(rows), of_source[rows], tested, of_tested)
        strategy, control = {**ARMS, **LOCAL_ARMS}[arm]
        clusters = ClusterSettings() if arm in LOCAL_ARMS else None
        rounds = run(kind, data, strategy, setup.last, seed, control, clusters)
        setup.path(folder, arm, seed).write_text(json.dumps(rounds))
        errors = [metric(rounds[-1]["force"]) for metric in METRICS.values()]
        print(
            f"seed {seed}, {arm}: {rounds[-1]['labels']} labels, {errors[0]:.3f} and {errors[1]:.3f} eV/Å", flush=True
        )


def _prepare(setup: Setup, source: list[Atoms], test: list[Atoms]) -> tuple[Any, Any]:
    """Return the kind of committee, and what it sees of all frames."""
    if setup.name == "network":
        return Committee, Inputs.of(source + test, scale_by=len(source))
    from mace_committee import Frames, MaceCommittee

    return MaceCommittee, Frames(source + test)


def load(setup: Setup, folder: Path, arms: list[str], seeds: range) -> dict[str, list[Rounds]]:
    """Return what was measured, arm by arm, for the seeds that all arms have."""
    complete = [seed for seed in seeds if all(setup.path(folder, arm, seed).is_file() for arm in arms)]
    return {arm: [json.loads(setup.path(folder, arm, seed).read_text()) for seed in complete] for arm in arms}


def curves(runs: list[Rounds], metric: Metric) -> list[Curve]:
    """Return the force error of every run as a function of its labels."""
    return [
        (np.array([float(r["labels"]) for r in rounds]), np.array([metric(r["force"]) for r in rounds]))
        for rounds in runs
    ]


def report(setup: Setup, runs: dict[str, list[Rounds]]) -> None:
    """Print labels needed, learning curves, errors by group and what was trained on."""
    final, most = setup.final, setup.last / setup.final
    grid = np.arange(START, setup.last + 1, BATCH / 3)
    print(f"\n### Labels for the error of random at {final}, as a share of {final}\n")
    print(f"| strategy | {' | '.join(METRICS)} |\n|---|{'---|' * len(METRICS)}")
    for arm, found in runs.items():
        ratios = [compare(curves(found, m), curves(runs["random"], m), grid, final) for m in METRICS.values()]
        cells = [f"{_share(ratio, most)} ({_share(low, most)} – {_share(high, most)})" for ratio, low, high in ratios]
        print(f"| {arm} | {' | '.join(cells) if arm != 'random' else ' | '.join('1' * len(METRICS))} |")
    shown = grid[::3]
    for name, metric in METRICS.items():
        print(f"\n### Force error, {name}, meV/Å, by labels\n")
        print(f"| strategy | {' | '.join(f'{n:.0f}' for n in shown)} |\n|---|{'---|' * len(shown)}")
        for arm, found in runs.items():
            print(f"| {arm} | {' | '.join(_milli(mean_curve(curves(found, metric), shown)))} |")
    print(f"\n### Force error at {final} labels by group, meV/Å; labels, rare ones of those trained on, flagged\n")
    print(
        f"| strategy | {' | '.join(GROUPS)} | labels | rare | flagged first, last |\n|---|{'---|' * (len(GROUPS) + 3)}"
    )
    for arm, found in runs.items():
        at = np.array([float(final)])
        errors = [_milli(mean_curve(curves(found, lambda force, g=group: force[g]), at))[0] for group in GROUPS]
        ends = [rounds[-1] for rounds in found]
        labels = np.mean([end["labels"] for end in ends])
        rare = np.mean([1 - end["trained"][COMMON] / sum(end["trained"].values()) for end in ends])
        flagged = [np.median([rounds[k]["flagged"] for rounds in found]) for k in (0, -2)]
        print(f"| {arm} | {' | '.join(errors)} | {labels:.0f} | {rare:.0%} | {flagged[0]:.0f}, {flagged[1]:.0f} |")


def _milli(errors: npt.NDArray[np.float64]) -> list[str]:
    return [f"{1000 * error:.0f}" for error in errors]


def _share(ratio: float, most: float) -> str:
    return f"{ratio:.2f}" if np.isfinite(ratio) else f"> {most:.2f}"


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for frames and results")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--model", choices=SETUPS, default="network")
    parser.add_argument("--arms", nargs="+", choices=[*ARMS, *LOCAL_ARMS], help="all of the model by default")
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = ("numpy", "torch", "ase")
    print(f"Python {platform.python_version()}, {', '.join(f'{name} {version(name)}' for name in names)}")
    options.work.mkdir(parents=True, exist_ok=True)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    setup = SETUPS[options.model]
    arms = options.arms or list(setup.arms)
    measure(setup, options.work, arms, seeds)
    runs = load(setup, options.work, arms, seeds)
    print(f"\n{len(next(iter(runs.values())))} seeds")
    report(setup, runs)


if __name__ == "__main__":
    main()
