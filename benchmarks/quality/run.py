"""Measure the review of labels: ``python benchmarks/quality/run.py`` prints the tables of README.md.

Seeds 0–99 are for development, the default is fresh. One run makes clean frames, spoils one in twenty in equal parts
by every kind, and reviews all of them as one batch without known labels: the hardest case. They are judged twice: as
engines hand them over (an SCF that did not converge is refused when its output is read, another cut-off has another
fingerprint), and as if nobody had said so, the case of labels from elsewhere.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version

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

from aiida_alpot.kernel.dataset.code_output import NOT_CONVERGED
from aiida_alpot.kernel.labelling.quality import QualitySettings, Residuals, Verdict, review

KINDS = {
    "alloys": ("unconverged", "unit", "stress sign", "cut-off", "swapped", "nonsense"),
    "molecules": ("unconverged", "unit", "cut-off", "swapped", "nonsense"),
}
SHARE = 0.05


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


def simulate_committee(clean: Sequence[Atoms], frames: Sequence[Atoms], rng: Rng) -> Residuals:
    """Return the residuals of a committee that is off the truth by as much as a trained one is.

    A stand-in, not a trained committee. Its mean is the truth with Gaussian errors of 20 meV/Å plus 5 % of the rms
    force of the frame, and of 1 meV/atom plus as much again times the rms force over its median; its disagreement is
    1.7 times too small (as measured for the quickstart) and scatters by a factor of 1.4.
    """
    size = np.array([np.sqrt(np.mean(atoms.calc.results["forces"] ** 2)) for atoms in clean])
    width_f, width_e = 0.02 + 0.05 * size, 1e-3 * (1.0 + size / np.median(size))
    energy, force = np.empty(len(clean)), np.empty(len(clean))
    for k, (true, label) in enumerate(zip(clean, frames, strict=True)):
        n_atoms = len(true)
        predicted = true.calc.results["forces"] + rng.normal(0, width_f[k], (n_atoms, 3))
        force[k] = np.sqrt(np.mean((predicted - label.calc.results["forces"]) ** 2))
        off = (true.calc.results["energy"] - label.calc.results["energy"]) / n_atoms
        energy[k] = abs(off + rng.normal(0, width_e[k]))
    scatter = np.exp(rng.normal(0, np.log(1.4), (2, len(clean)))) / 1.7
    return Residuals(energy, force, width_e * scatter[0], width_f * scatter[1])


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
    verdicts: dict[str, list[Verdict]],
    refused: set[int],
) -> None:
    """Print a row per fault and the share of false alarms.

    :param title: of the table.
    :param refused: rows that never became labels, in the columns "gate".
    """
    print(f"\n### {title}: {len(frames)} labels, {len(faults)} spoilt\n")
    print(
        f"| fault | labels | {' | '.join(f'caught {name}' for name in verdicts)} | missed undeclared with a committee |"
    )
    print(f"|---|---|{'---|' * len(verdicts)}---|")
    bad = {
        name: {v.frame for v in found if v.status == "quarantined"} | (refused if name.startswith("gate") else set())
        for name, found in verdicts.items()
    }
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
        checks = Counter(v.check for v in verdicts[name] if v.frame in found)
        print(f"\nFalse alarms {name}: {dict(checks)}", flush=True)


@dataclass
class Judged:
    """Labels of several seeds one behind the other, what was spoilt, and the verdicts on each seed alone."""

    clean: list[Atoms] = field(default_factory=list)
    frames: list[Atoms] = field(default_factory=list)
    faults: dict[int, str] = field(default_factory=dict)
    verdicts: dict[str, list[Verdict]] = field(default_factory=dict)
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
            self.verdicts.setdefault(name, []).extend(replace(v, frame=n + v.frame) for v in found)


def judge(what: str, n_frames: int, seed: int) -> Judged:
    """Make, spoil and review the frames of one seed."""
    rng = np.random.default_rng([seed, sorted(KINDS).index(what)])
    clean = make_clean(what, n_frames, rng)
    frames, faults = spoil(what, clean, rng)
    residuals = simulate_committee(clean, frames, rng)
    start = time.process_time()
    found = review(frames, QualitySettings(), residuals=residuals)
    used = time.process_time() - start
    declared = declare(frames, faults)
    asked = QualitySettings(fingerprint="reference")  # as a labelling sets it to that of its engine
    verdicts = {
        "gate alone": review(declared, asked),
        "gate with a committee": review(declared, asked, residuals=residuals),
        "undeclared alone": review(frames, QualitySettings()),
        "undeclared with a committee": found,
    }
    refused = {k for k, atoms in enumerate(declared) if atoms.info["status"] == "failed"}
    return Judged(clean, frames, faults, verdicts, refused, used)


def measure(what: str, n_frames: int, seeds: Sequence[int]) -> None:
    """Report one kind of frames, each seed and all together."""
    pooled = Judged()
    for seed in seeds:
        judged = judge(what, n_frames, seed)
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
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[100, 101])
    parser.add_argument("--only", choices=sorted(KINDS))
    options = parser.parse_args()
    print(f"Python {platform.python_version()}, {', '.join(f'{n} {version(n)}' for n in ('ase', 'numpy', 'scipy'))}")
    for what in [options.only] if options.only else sorted(KINDS):
        measure(what, options.frames, options.seeds)


if __name__ == "__main__":
    main()
