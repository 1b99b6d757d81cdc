"""Measure the review of labels: ``python benchmarks/quality/run.py`` prints the tables of README.md.

Seeds 0–99 are for development, the default is fresh. One run makes clean frames, spoils one in twenty in equal parts
by every kind, and reviews all of them as a campaign does, without known labels: the hardest case. They are judged
twice: as engines hand them over (an SCF that did not converge is refused when its output is read, another cut-off has
another fingerprint), and as if nobody had said so, the case of labels from elsewhere; each with and without a committee
of MACE potentials that was trained on other frames.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from io import BytesIO
from pathlib import Path

import numpy as np
from ase import Atoms
from corruptions import (
    Results,
    Rng,
    nonsense,
    swapped_species,
    unconverged_model,
    wrong_cutoff_model,
    wrong_stress_sign,
    wrong_unit,
)
from frames import label_emt, label_xtb, make_alloys, make_molecules, with_labels

from aiida_alpot.kernel.dataset import Dataset, write
from aiida_alpot.kernel.dataset.code_output import NOT_CONVERGED
from aiida_alpot.kernel.evaluating import attach_predictions
from aiida_alpot.kernel.labelling.quality import QualitySettings, count_parts, review_part
from aiida_alpot.kernel.labelling.residuals import PREDICTION_COLUMNS
from aiida_alpot.kernel.potentials import Potential

sys.path.insert(0, str(Path(__file__).parents[1] / "calibration"))

from committee import train

KINDS = {
    "alloys": ("unconverged", "unit", "stress sign", "cut-off", "swapped", "nonsense"),
    "molecules": ("unconverged", "unit", "cut-off", "swapped", "nonsense"),
}
SHARE = 0.05
CHUNK = 200


def make_clean(what: str, n_frames: int, rng: Rng) -> list[Atoms]:
    """Return labelled frames without faults."""
    if what == "alloys":
        return [with_labels(atoms, label_emt(atoms)) for atoms in make_alloys(n_frames, rng)]
    return [with_labels(atoms, label_xtb(atoms)) for atoms in make_molecules(n_frames, rng)]


def spoil(what: str, clean: Sequence[Atoms], rng: Rng) -> tuple[list[Atoms], dict[int, str]]:
    """Return the frames with one in twenty spoilt, and what was done to which."""
    frames, faults = list(clean), {}
    chosen = rng.choice(len(clean), int(SHARE * len(clean)), replace=False)
    for n, k in enumerate(chosen.tolist()):
        faults[k] = KINDS[what][n % len(KINDS[what])]
        frames[k] = with_labels(clean[k], _spoilt(what, faults[k], clean[k], clean, rng))
    return frames, faults


def _spoilt(what: str, fault: str, atoms: Atoms, clean: Sequence[Atoms], rng: Rng) -> Results:
    good = dict(atoms.calc.results)
    label = label_emt if what == "alloys" else label_xtb
    if fault == "unconverged" and what == "molecules":  # a real SCF, stopped early
        return label_xtb(atoms, accuracy=float(rng.choice([1e4, 1e5])))
    if fault == "swapped":
        return swapped_species(atoms, good, rng, label)
    if fault == "nonsense":
        return nonsense(atoms, good, rng, list(clean))
    makers = {
        "unconverged": unconverged_model,
        "unit": wrong_unit,
        "stress sign": wrong_stress_sign,
        "cut-off": wrong_cutoff_model,
    }
    return makers[fault](atoms, good, rng)


def declare(frames: Sequence[Atoms], faults: dict[int, str]) -> list[Atoms]:
    """Return the labels as engines hand them over: with what they say about convergence and settings."""
    declared = []
    for k, atoms in enumerate(frames):
        frame = with_labels(atoms, atoms.calc.results)
        if faults.get(k) == "unconverged":
            frame.calc = None
            frame.info.update(status="failed", reason=NOT_CONVERGED)
        if faults.get(k) == "cut-off":
            frame.info["fingerprint"] = "lower cut-off"
        declared.append(frame)
    return declared


def train_committee(what: str, folder: Path) -> list[Potential]:
    """Return four MACE potentials, trained on clean frames that are in no batch; those in *folder* are used again."""
    return train(folder / what, partial(make_training, what))


def make_training(what: str, n_frames: int, seed: int) -> list[Atoms]:
    """Return clean frames to train on."""
    return make_clean(what, n_frames, np.random.default_rng([seed, 26]))


def review_batch(frames: Sequence[Atoms], *, fingerprint: str | None, committee: bool) -> dict[int, str]:
    """Judge labels as a campaign does: in parts of some hundred, each beside a sample of the others.

    :param fingerprint: of the settings that were asked for; None accepts any.
    :param committee: use what the committee predicted.
    :return: by the frame set aside, the check that objects.
    """
    given = [atoms if committee else _without_predictions(atoms) for atoms in frames]
    file = BytesIO()
    write(file, given)
    found: dict[int, str] = {}
    with Dataset.open(file) as labelled:
        row = {str(identity): k for k, identity in enumerate(labelled.frame_ids())}
        n_parts = count_parts(int(np.sum(labelled.column("status") == "labelled")))
        for k in range(n_parts):
            settings = QualitySettings(fingerprint=fingerprint)
            review = review_part(labelled, None, settings, part=k, n_parts=n_parts)
            found |= {row[identity]: verdict["check"] for identity, verdict in review["quarantined"].items()}
    return found


def _without_predictions(atoms: Atoms) -> Atoms:
    bare = atoms.copy()
    bare.calc = atoms.calc
    for name in PREDICTION_COLUMNS:
        bare.info.pop(name, None)
        bare.arrays.pop(name, None)
    return bare


def change(clean: Atoms, label: Atoms) -> tuple[float, float]:
    """Return how wrong a label is: energy in meV/atom, rms force in eV/Å."""
    good, bad = clean.calc.results, label.calc.results
    energy = abs(bad["energy"] - good["energy"]) / len(clean)
    return 1e3 * float(energy), float(np.sqrt(np.mean((bad["forces"] - good["forces"]) ** 2)))


def report(
    title: str,
    what: str,
    clean: Sequence[Atoms],
    frames: Sequence[Atoms],
    faults: dict[int, str],
    verdicts: dict[str, dict[int, str]],
    refused: set[int],
) -> None:
    """Print a row per fault and the share of false alarms.

    :param title: of the table.
    :param verdicts: by column, of :func:`review_batch`.
    :param refused: rows that never became labels, in the columns "gate".
    """
    print(f"\n### {title}: {len(frames)} labels, {len(faults)} spoilt\n")
    print(
        f"| fault | labels | {' | '.join(f'caught {name}' for name in verdicts)} | missed undeclared with a committee |"
    )
    print(f"|---|---|{'---|' * len(verdicts)}---|")
    bad = {name: set(found) | (refused if name.startswith("gate") else set()) for name, found in verdicts.items()}
    for fault in (*KINDS[what], "all"):
        rows = [k for k, kind in faults.items() if fault in (kind, "all")]
        cells = [
            f"{sum(k in caught for k in rows)} ({sum(k in caught for k in rows) / len(rows):.0%})"
            for caught in bad.values()
        ]
        missed = [change(clean[k], frames[k]) for k in rows if k not in list(bad.values())[-1]]
        size = f"≤ {max(m[0] for m in missed):.3g} meV/atom, ≤ {max(m[1] for m in missed):.2g} eV/Å" if missed else "–"
        print(f"| {fault} | {len(rows)} | {' | '.join(cells)} | {size if fault != 'all' else ''} |")
    n_clean = len(frames) - len(faults)
    alarms = {name: sorted(caught - set(faults)) for name, caught in bad.items()}
    cells = [f"{len(found)} ({len(found) / n_clean:.1%})" for found in alarms.values()]
    print(f"| false alarms | {n_clean} | {' | '.join(cells)} | |")
    for name, found in alarms.items():
        checks = Counter(verdicts[name][k] for k in found)
        print(f"\nFalse alarms {name}: {dict(checks)}", flush=True)


@dataclass
class Judged:
    """Labels of several seeds one behind the other, what was spoilt, and the verdicts on each seed alone."""

    clean: list[Atoms] = field(default_factory=list)
    frames: list[Atoms] = field(default_factory=list)
    faults: dict[int, str] = field(default_factory=dict)
    verdicts: dict[str, dict[int, str]] = field(default_factory=dict)
    refused: set[int] = field(default_factory=set)
    seconds: float = 0.0

    def extend(self, other: Judged) -> None:
        """Put the labels of another seed behind these."""
        n = len(self.frames)
        self.clean += other.clean
        self.frames += other.frames
        self.faults |= {n + k: fault for k, fault in other.faults.items()}
        self.refused |= {n + k for k in other.refused}
        self.seconds += other.seconds
        for name, found in other.verdicts.items():
            self.verdicts.setdefault(name, {}).update({n + k: check for k, check in found.items()})


def judge(what: str, potentials: Sequence[Potential], n_frames: int, seed: int) -> Judged:
    """Make, spoil and review the frames of one seed."""
    rng = np.random.default_rng([seed, sorted(KINDS).index(what)])
    clean = make_clean(what, n_frames, rng)
    for first in range(0, n_frames, CHUNK):
        attach_predictions(clean[first : first + CHUNK], potentials)
    frames, faults = spoil(what, clean, rng)
    declared = declare(frames, faults)
    start = time.process_time()
    verdicts = {
        f"{title} {'with a committee' if committee else 'alone'}": review_batch(
            labels, fingerprint=fingerprint, committee=committee
        )
        for title, labels, fingerprint in (("gate", declared, "reference"), ("undeclared", frames, None))
        for committee in (False, True)
    }
    used = (time.process_time() - start) / len(verdicts)
    refused = {k for k, atoms in enumerate(declared) if atoms.info["status"] == "failed"}
    return Judged(clean, frames, faults, verdicts, refused, used)


def measure(what: str, folder: Path, n_frames: int, seeds: Sequence[int]) -> None:
    """Report one kind of frames, each seed and all together."""
    potentials = train_committee(what, folder)
    pooled = Judged()
    for seed in seeds:
        judged = judge(what, potentials, n_frames, seed)
        pooled.extend(judged)
        _report(f"{what}, seed {seed}", what, judged)
    if len(seeds) > 1:
        _report(f"{what}, seeds {', '.join(map(str, seeds))} together", what, pooled)
    print(
        f"\nReview: {pooled.seconds:.1f} s of CPU time, {1e3 * pooled.seconds / len(pooled.frames):.0f} ms a label.",
        flush=True,
    )


def _report(title: str, what: str, judged: Judged) -> None:
    report(title, what, judged.clean, judged.frames, judged.faults, judged.verdicts, judged.refused)


def main() -> None:
    """Run the kinds that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("quality-work"), help="folder of the committees")
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[104, 105])
    parser.add_argument("--only", choices=sorted(KINDS))
    options = parser.parse_args()
    print(f"Python {platform.python_version()}, {', '.join(f'{n} {version(n)}' for n in ('ase', 'numpy', 'scipy'))}")
    for what in [options.only] if options.only else sorted(KINDS):
        measure(what, options.work, options.frames, options.seeds)


if __name__ == "__main__":
    main()
