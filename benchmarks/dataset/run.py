"""Measure the dataset against other formats: ``python benchmarks/dataset/run.py`` writes the tables of README.md.

Every operation runs in a process of its own, which gives its peak memory (ru_maxrss) and the CPU time of the operation
alone; files have just been written and lie in the page cache.
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
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from formats import FORMATS, Alpot, load_arrays, make_frames

from aiida_alpot.kernel.dataset import Dataset, filter_frames, merge, write

OPERATIONS = ("write", "arrays", "atoms", "pick", "filter", "merge")
N_PICKED = 500
LARGE_ATOMS = (4, 8)


# one operation, in a process of its own


def measure(call: Callable[[], Any]) -> dict[str, float]:
    """Run *call* once and return seconds and the peak memory of the process in MB."""
    start, cpu = time.perf_counter(), time.process_time()
    result = call()
    elapsed, used = time.perf_counter() - start, time.process_time() - cpu
    del result
    return {"wall": elapsed, "cpu": used, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def run_operation(job: dict[str, Any]) -> dict[str, float]:
    """Measure one operation of one format."""
    kind = FORMATS[job["format"]]()
    path, out = Path(job["path"]), Path(job["out"])
    if job["operation"] == "write":
        if job["format"].startswith("raw"):
            arrays = load_arrays(Path(job["reference"]))
            return measure(lambda: kind.write(path, arrays))
        frames = list(make_frames(job["n_frames"], job["n_atoms"]))
        return measure(lambda: kind.write(path, frames))
    rows = np.random.default_rng(1).integers(0, job["n_frames"], N_PICKED).tolist()
    calls: dict[str, Callable[[], Any]] = {
        "arrays": lambda: kind.arrays(path),
        "atoms": lambda: kind.atoms(path),
        "pick": lambda: kind.pick(path, rows),
        "filter": lambda: kind.filter(path, out),
        "merge": lambda: kind.merge([path, path], out),
    }
    return measure(calls[job["operation"]])


def run_large(job: dict[str, Any]) -> dict[str, float]:
    """Measure one operation of the dataset on many small frames."""
    path, out = Path(job["path"]), Path(job["out"])
    calls: dict[str, Callable[[], Any]] = {
        "idle": lambda: None,
        "write": lambda: write(out, make_frames(job["n_frames"], LARGE_ATOMS)),
        "merge": lambda: merge([path] * 10, out),
        "filter": lambda: filter_frames(path, lambda dataset: dataset.column("split") == "train", out),
        "verify": lambda: Dataset.open(path).verify(),
    }
    return measure(calls[job["operation"]])


def in_child(**job: Any) -> dict[str, float]:
    """Run a job in a new process."""
    done = subprocess.run(
        [sys.executable, __file__, "--job", json.dumps(job)], check=True, capture_output=True, text=True
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


# tables


def compare(folder: Path, n_frames: int, n_atoms: tuple[int, int]) -> dict[str, dict[str, Any]]:
    """Return the measurements of every format, and print them as a table."""
    table: dict[str, dict[str, Any]] = {}
    common = {"n_frames": n_frames, "n_atoms": n_atoms}
    reference = folder / "alpot.h5"
    print(f"\n### {n_frames:,} frames of {'–'.join(map(str, sorted(set(n_atoms))))} atoms\n")
    print("Seconds of CPU time, in brackets the peak memory of the process in MB.\n")
    print(f"| format | {' | '.join(OPERATIONS)} | size, MB |\n|---|{'---|' * (len(OPERATIONS) + 1)}")
    for name in FORMATS:
        kind = FORMATS[name]()
        path = reference if isinstance(kind, Alpot) else folder / f"{name.replace(' ', '-')}{kind.suffix}"
        row: dict[str, Any] = {}
        for operation in (operation for operation in OPERATIONS if hasattr(kind, operation)):
            out = folder / f"out{kind.suffix}"
            job = {"format": name, "operation": operation, "path": str(path), "out": str(out), **common}
            row[operation] = in_child(reference=str(reference), **job)
            out.unlink(missing_ok=True)
        row["size"] = path.stat().st_size / 1e6
        table[name] = row
        cells = [f"{row[op]['cpu']:.2f} ({row[op]['peak']:.0f})" if op in row else "–" for op in OPERATIONS]
        print(f"| {name} | {' | '.join(cells)} | {row['size']:.1f} |", flush=True)
        if not isinstance(kind, Alpot):
            path.unlink()
    reference.unlink()
    return table


def goals(table: dict[str, dict[str, Any]]) -> None:
    """Print every goal with what was measured."""
    ours, same, plain = table["alpot"], table["raw h5py, same filters"], table["raw h5py"]
    readers = {name: row["atoms"]["cpu"] for name, row in table.items() if "atoms" in row and "alpot" not in name}
    ase_name = min((name for name in readers if "ASE" in name or name == "extxyz"), key=readers.__getitem__)
    mine = ours["atoms"]["cpu"]
    rows = [
        ("arrays / raw h5py, same filters", ours["arrays"]["cpu"] / same["arrays"]["cpu"], "≤ 1.5"),
        ("arrays / raw h5py, no filters", ours["arrays"]["cpu"] / plain["arrays"]["cpu"], "–"),
        ("Atoms: extxyz / ours", readers["extxyz"] / mine, "≥ 5"),
        (f"Atoms: fastest of ASE ({ase_name}) / ours", readers[ase_name] / mine, "–"),
        (f"{N_PICKED} random frames, s", ours["pick"]["wall"], "≤ 1"),
        ("size / raw h5py, same filters", ours["size"] / same["size"], "≤ 1.05"),
        ("size / raw h5py, no filters", ours["size"] / plain["size"], "–"),
    ]
    print("\n| goal | measured | asked |\n|---|---|---|")
    for name, value, asked in rows:
        print(f"| {name} | {value:.2f} | {asked} |", flush=True)


def large(folder: Path, n_frames: int) -> None:
    """Print time and peak memory of streaming operations at a tenth of *n_frames* and at *n_frames*."""
    paths = {size: folder / f"{size}.h5" for size in (n_frames // 100, n_frames // 10, n_frames)}
    small, medium, _ = sorted(paths)
    idle = in_child(large=True, operation="idle", path="", out="")
    in_child(large=True, operation="write", path="", out=str(paths[small]), n_frames=small)
    print(f"\n### Memory: frames of {LARGE_ATOMS[0]}–{LARGE_ATOMS[1]} atoms\n")
    print(f"A process that only imports the package has {idle['peak']:.0f} MB.\n")
    print("| operation | frames | CPU, s | peak, MB |\n|---|---|---|---|")
    for size, source in ((medium, small), (n_frames, medium)):
        jobs = (("merge", source), ("filter", size), ("verify", size))
        for operation, taken in jobs:
            out = paths[size] if operation == "merge" else folder / "out.h5"
            found = in_child(large=True, operation=operation, path=str(paths[taken]), out=str(out))
            print(f"| {operation} | {size:,} | {found['cpu']:.1f} | {found['peak']:.0f} |", flush=True)


def main() -> None:
    """Run everything, or one job of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=10_000, help="frames of 20–200 atoms, 0: none")
    parser.add_argument("--fixed", type=int, default=2_000, help="frames of 108 atoms, 0: none")
    parser.add_argument("--frames-large", type=int, default=1_000_000, help="small frames for the memory, 0: none")
    parser.add_argument("--folder", type=Path, help="where files are made, by default a temporary folder")
    parser.add_argument("--job", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        print(json.dumps(run_large(options.job) if options.job.get("large") else run_operation(options.job)))
        return
    versions = ", ".join(f"{name} {version(name)}" for name in ("ase", "h5py", "numpy"))
    print(f"Python {platform.python_version()}, {versions}, {platform.machine()}")
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        for n_frames, n_atoms in ((options.frames, (20, 200)), (options.fixed, (108, 108))):
            if n_frames:
                goals(compare(folder, n_frames, n_atoms))
        if options.frames_large:
            large(folder, options.frames_large)


if __name__ == "__main__":
    main()
