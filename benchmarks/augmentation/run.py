"""Measure strain and rattle: ``python benchmarks/augmentation/run.py`` prints the tables of README.md.

Every way of making the frames runs in a process of its own, several times; the fastest run counts, in CPU time.
Packages that are not installed are left out.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk

from aiida_alpot.kernel.augmentation import AugmentSettings, Report, stream_augmented
from aiida_alpot.kernel.dataset import write
from aiida_alpot.kernel.geometry import atoms_in_contact, nearest_neighbour_distance
from aiida_alpot.kernel.settings import parse_settings

RECIPES: dict[str, dict[str, Any]] = {
    "TrainsPot": {"strain": {"range": [-0.2, 0.6]}, "rattle": {}},
    "AutoPot": {
        "strain": {"mode": "components", "range": [-0.02, 0.02]},
        "rattle": {"distribution": "normal", "amplitude": 0.02},
    },
}
MIN_RATIO = 0.4


def tungsten() -> Atoms:
    """Return the cell of [AutoPot] Sec. 5.1: 54 atoms."""
    return bulk("W", cubic=True) * 3


# ways to make frames: each yields what its package calls one


def alpot(recipe: str, n_frames: int, **others: Any) -> Iterator[Atoms]:
    settings = parse_settings(AugmentSettings, {"copies": n_frames, **RECIPES[recipe], **others}, "augment")
    return stream_augmented([tungsten()], settings, 1, Report())


def alpot_checked(recipe: str, n_frames: int) -> Iterator[Atoms]:
    return alpot(recipe, n_frames, filters={"min_ratio": MIN_RATIO})


def ase_loop(recipe: str, n_frames: int) -> Iterator[Atoms]:
    """Yield what a loop over copies makes: no test of distances, nothing told of a frame."""
    base, rng = tungsten(), np.random.default_rng(1)
    low, high = (-0.2, 0.6) if recipe == "TrainsPot" else (-0.02, 0.02)
    for _ in range(n_frames):
        atoms = base.copy()
        strain = rng.uniform(low, high, (3, 3))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.5 * (strain + strain.T)), scale_atoms=True)
        atoms.positions += rng.normal(scale=0.02, size=(len(atoms), 3))
        yield atoms


def ase_loop_checked(recipe: str, n_frames: int) -> Iterator[Atoms]:
    """Yield the same, with the scale from the neighbours of each frame, and its closest pair tested.

    A frame whose atoms are too close is drawn anew from the strained cell, ten times at most, and then left out: some
    of the strains fold the cell up.
    """
    rng = np.random.default_rng(2)
    for atoms in ase_loop(recipe, n_frames):
        strained = atoms.positions.copy()
        scale = 0.2 * nearest_neighbour_distance(atoms) if recipe == "TrainsPot" else 0.0
        for _ in range(10):
            atoms.positions = strained + rng.normal(scale=scale, size=(len(atoms), 3))
            if len(atoms_in_contact(atoms, MIN_RATIO)) == 0:
                yield atoms
                break


def pymatgen_loop(recipe: str, n_frames: int) -> Iterator[Any]:
    """Yield structures that are strained along their axes and perturbed; no test of distances."""
    from pymatgen.io.ase import AseAtomsAdaptor

    base, rng = AseAtomsAdaptor.get_structure(tungsten()), np.random.default_rng(1)
    low, high = (-0.2, 0.6) if recipe == "TrainsPot" else (-0.02, 0.02)
    for _ in range(n_frames):
        structure = base.copy().apply_strain(rng.uniform(low, high, 3), inplace=False)
        yield structure.perturb(0.02)


def dpdata_system(recipe: str, n_frames: int) -> Iterator[Any]:
    """Yield what one call makes: a system with all frames; no test of distances."""
    import dpdata

    system = dpdata.System(tungsten(), fmt="ase/structure")
    spread = 0.2 if recipe == "TrainsPot" else 0.02
    made = system.perturb(n_frames, spread, atom_pert_distance=0.02, atom_pert_style="normal")
    yield from made["coords"]


WAYS: dict[str, tuple[Callable[..., Iterator[Any]], str, str]] = {
    "aiida-alpot": (alpot, "", "yes"),
    "aiida-alpot, closest pair filtered again": (alpot_checked, "", "twice"),
    "loop over ASE": (ase_loop, "ase", "no"),
    "loop over ASE with neighbour lists": (ase_loop_checked, "ase", "yes"),
    "dpdata, System.perturb": (dpdata_system, "dpdata", "no"),
    "pymatgen, apply_strain and perturb": (pymatgen_loop, "pymatgen", "no"),
}


# one measurement, in a process of its own


def time_way(name: str, recipe: str, n_frames: int, repeats: int) -> float:
    """Return frames per second of CPU time of the fastest of several runs."""
    way = WAYS[name][0]
    for _ in way(recipe, 20):  # imports
        pass
    rates = []
    for _ in range(repeats):
        start = time.process_time()
        made = sum(1 for _ in way(recipe, n_frames))
        rates.append(made / (time.process_time() - start))
    return max(rates)


def measure_memory(n_frames: int) -> dict[str, float]:
    """Return CPU seconds and the peak memory of writing frames to a file, MB."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "augmented.h5"
        start = time.process_time()
        if n_frames:
            write(path, alpot("TrainsPot", n_frames))
        elapsed = time.process_time() - start
        size = path.stat().st_size / 1e6 if n_frames else 0.0
    return {"cpu": elapsed, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "size": size}


def in_child(**job: Any) -> Any:
    """Run a job in a new process."""
    done = subprocess.run([sys.executable, __file__, "--job", json.dumps(job)], check=True, capture_output=True)
    return json.loads(done.stdout)


# tables


def installed(package: str) -> str:
    """Return the version of a package, empty if it is not installed."""
    try:
        return version(package or "aiida-alpot")
    except PackageNotFoundError:
        return ""


def print_rates(n_frames: int, repeats: int) -> None:
    """Print frames per second of every way and recipe."""
    print(f"\n| 54 atoms, frames per second | distances tested | {' | '.join(RECIPES)} |")
    print(f"|---|---|{'---|' * len(RECIPES)}")
    for name, (_, package, is_tested) in WAYS.items():
        if not installed(package):
            continue
        rates = [in_child(way=name, recipe=recipe, n_frames=n_frames, repeats=repeats) for recipe in RECIPES]
        print(f"| {name} | {is_tested} | {' | '.join(f'{rate:,.0f}' for rate in rates)} |", flush=True)


def print_memory(n_frames: int) -> None:
    """Print time and peak memory of writing a tenth of *n_frames*, and *n_frames*."""
    print("\n| frames written to a file | CPU, s | frames per second | peak memory, MB | file, MB |")
    print("|---|---|---|---|---|")
    for n in (0, n_frames // 10, n_frames):
        found = in_child(n_frames=n)
        rate = f"{n / found['cpu']:,.0f}" if n else "–"
        print(f"| {n:,} | {found['cpu']:.1f} | {rate} | {found['peak']:.0f} | {found['size']:.0f} |", flush=True)


def processor() -> str:
    """Return the name of the processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    """Run everything, or one job of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=2_000, help="frames of one run")
    parser.add_argument("--repeats", type=int, default=5, help="runs, of which the fastest counts")
    parser.add_argument("--frames-large", type=int, default=100_000, help="frames for the memory, 0: none")
    parser.add_argument("--job", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job is not None:
        job = options.job
        print(json.dumps(time_way(job.pop("way"), **job) if "way" in job else measure_memory(**job)))
        return
    packages = [name for name in ("ase", "numpy", "scipy", "dpdata", "pymatgen") if installed(name)]
    print(f"{date.today()}, {processor()}, Python {platform.python_version()}", end="")
    print("".join(f", {name} {installed(name)}" for name in packages))
    print_rates(options.frames, options.repeats)
    if options.frames_large:
        print_memory(options.frames_large)


if __name__ == "__main__":
    main()
