"""Measure the choice of active rows and the grades: ``python benchmarks/maxvol/run.py`` prints the tables of README.md.

Every case runs in a process of its own with one BLAS thread, which gives its CPU time and its peak memory; what makes
the matrix is not counted in the time. ``--only gemm select_300 grade`` runs some of the cases, ``--repeats`` sets
how often each row of the table of the grades is measured.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import numpy as np
from matrices import Array, make_matrix, monomial_chunks
from scipy.linalg import blas, lapack

from aiida_alpot.kernel.potentials import Features
from aiida_alpot.kernel.uncertainty.active_set import ActiveSet
from aiida_alpot.kernel.uncertainty.maxvol import compute_log_volume, maxvol

TOL = 1.01
MAX_SWAPS = 300
"""Exchanges after which pace gives up; the classical algorithm is capped there too."""
N_GRADED = 1_000_000
N_GRADED_FEATURES = 300
"""Of a row, the constant one included."""


# what is compared


def select_ours(matrix: Array) -> dict[str, Any]:
    """Choose rows with this package."""
    result = maxvol(matrix, TOL)
    return {
        "indices": result.indices,
        "grade": result.grade_max,
        "swaps": result.n_swaps,
        "passes": result.n_passes,
        "converged": result.converged,
    }


def select_classically(matrix: Array) -> dict[str, Any]:
    """Choose rows by pivots of an LU, then exchange the largest coefficient of all rows (Goreinov et al. 2010)."""
    n_rows, n_columns = matrix.shape
    factors, pivots, _ = lapack.dgetrf(np.asfortranarray(matrix))
    order = np.arange(n_rows)
    for k, pivot in enumerate(pivots):
        order[[k, pivot]] = order[[pivot, k]]
    index = order[:n_columns].copy()
    del factors
    coefficients = np.asfortranarray(matrix @ np.linalg.inv(matrix[index]))
    flat = coefficients.reshape(-1, order="F")
    n_swaps = 0
    while True:
        column, row = divmod(int(blas.idamax(flat)), n_rows)
        pivot = coefficients[row, column]
        if abs(pivot) <= TOL or n_swaps == MAX_SWAPS:
            break
        change = coefficients[row].copy()
        change[column] -= 1.0
        blas.dger(-1.0 / pivot, coefficients[:, column].copy(), change, a=coefficients, overwrite_a=1)
        index[column] = row
        n_swaps += 1
    return {
        "indices": index,
        "grade": float(abs(pivot)),
        "swaps": n_swaps,
        "passes": None,
        "converged": bool(abs(pivot) <= TOL),
    }


def select_teneva(matrix: Array) -> dict[str, Any]:
    """Choose rows with teneva, which builds a dense permutation of all rows."""
    import teneva

    index, coefficients = teneva.maxvol(matrix, TOL, 10_000)
    grade = float(np.abs(coefficients).max())
    return {"indices": index, "grade": grade, "swaps": None, "passes": None, "converged": grade <= TOL}


SELECT = {"aiida-alpot": select_ours, "classical": select_classically, "teneva": select_teneva}
GRADE = {
    "aiida-alpot float64": "aiida-alpot, double",
    "aiida-alpot float32": "aiida-alpot, single",
    "numpy float64": "numpy, `abs(B @ inverse).max(axis=1)`, double",
    "numpy float32": "the same, single",
}
SIZES = {
    "select_100": ("monomials", 20_000, 100, ("aiida-alpot", "classical", "teneva")),
    "select_300": ("monomials", 100_000, 300, ("aiida-alpot", "classical")),
    "select_300_gauss": ("gauss", 100_000, 300, ("aiida-alpot", "classical")),
    "select_945": ("monomials", 100_000, 945, ("aiida-alpot", "classical")),
}


# one case, in a process of its own


def measure(call: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """Run *call* once and return its result, seconds of CPU and wall time, and the peak memory of the process in MB."""
    before = peak_memory()
    start, cpu = time.perf_counter(), time.process_time()
    result = call()
    elapsed, used = time.perf_counter() - start, time.process_time() - cpu
    return result, {"wall": elapsed, "cpu": used, "peak": peak_memory(), "more": peak_memory() - before}


def peak_memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_case(job: dict[str, Any]) -> dict[str, Any]:
    """Measure one row of a table."""
    case: str = job["case"]
    if case == "gemm":
        return measure_gemm()
    if case == "grade":
        return measure_grades(job["method"])
    if case == "stream":
        return measure_stream()
    kind, n_rows, n_columns, _ = SIZES[case]
    matrix = make_matrix(kind, n_rows, n_columns)
    found, cost = measure(lambda: SELECT[job["method"]](matrix))
    rows = matrix[found.pop("indices")] / np.sqrt(np.mean(matrix**2, axis=0))
    return {**cost, **found, "log_det": compute_log_volume(rows)}


def measure_gemm() -> dict[str, Any]:
    """Return GF/s of products of the shapes that passes are made of."""
    rates = {}
    for name, kind in (("float64", np.float64), ("float32", np.float32)):
        for n in (300, 945):
            a, b = np.ones((1024, n), kind), np.ones((n, n), kind)
            seconds = min(measure(lambda a=a, b=b: [a @ b for _ in range(20)])[1]["cpu"] for _ in range(5))
            rates[f"{name} {n}"] = 20 * 2 * 1024 * n * n / seconds / 1e9
    return rates


def measure_grades(method: str) -> dict[str, Any]:
    """Grade a million rows of 300 features."""
    kind = np.float32 if method.endswith("float32") else np.float64
    rng = np.random.default_rng(0)
    training = make_matrix("monomials", 20_000, N_GRADED_FEATURES - 1)
    species = np.full(len(training), 29)
    active = ActiveSet.build(Features(training, species, np.arange(len(training))), kind="last_layer")
    values = training[rng.integers(0, len(training), N_GRADED)].astype(kind)
    block = active.blocks[29]
    if method.startswith("numpy"):
        with_ones = np.column_stack([values, np.ones(len(values), kind)])
        operator = np.linalg.inv(block.rows)
        grades, cost = measure(lambda: np.abs(with_ones @ operator).max(axis=1))
    else:
        candidates = Features(values, np.full(N_GRADED, 29), np.arange(N_GRADED))
        grades, cost = measure(lambda: active.grade(candidates))
    return {**cost, "largest": float(grades.max())}


def measure_stream() -> dict[str, Any]:
    """Choose rows of a million that are made anew in every pass."""
    result, cost = measure(lambda: maxvol(lambda: monomial_chunks(N_GRADED, 300), TOL))
    making = measure(lambda: sum(len(chunk) for chunk in monomial_chunks(N_GRADED, 300)))[1]["cpu"]
    return {**cost, "cpu": cost["cpu"] - making * result.n_passes, "grade": result.grade_max, "passes": result.n_passes}


# all cases


def run_alone(case: str, method: str = "") -> dict[str, Any]:
    """Run one case in a process of its own."""
    command = [sys.executable, __file__, "--job", json.dumps({"case": case, "method": method})]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return {"failed": done.stderr.strip().splitlines()[-1] if done.stderr else f"exit status {done.returncode}"}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def report_selection(case: str) -> None:
    """Print the table of one matrix."""
    kind, n_rows, n_columns, methods = SIZES[case]
    print(f"\n### {kind}, {n_rows} rows of {n_columns}\n")
    print("| | CPU, s | memory beyond the matrix, MB | exchanges | passes | largest grade | log of the volume |")
    print("|---|---:|---:|---:|---:|---:|---:|", flush=True)
    for method in methods:
        if method == "teneva" and find_spec("teneva") is None:
            print("| teneva | not installed | | | | | |")
            continue
        row = run_alone(case, method)
        if "failed" in row:
            print(f"| {method} | {row['failed']} | | | | | |", flush=True)
            continue
        passes, swaps = row["passes"] or "–", row["swaps"] if row["swaps"] is not None else "–"
        note = "" if row["converged"] else ", not converged"
        numbers = f"{row['cpu']:.2f} | {row['more']:.0f} | {swaps} | {passes}"
        print(f"| {method} | {numbers} | {row['grade']:.3f}{note} | {row['log_det']:.2f} |", flush=True)


def report_grades(repeats: int) -> None:
    """Print the table of the grades: every run beside the rate of products of this shape at that minute."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in GRADE}
    products: dict[str, list[float]] = {"float64": [], "float32": []}
    for _ in range(repeats):
        rates = run_alone("gemm")
        for kind, seconds in products.items():
            seconds.append(2 * N_GRADED * N_GRADED_FEATURES**2 / 1e9 / rates[f"{kind} {N_GRADED_FEATURES}"])
        for method, rows in runs.items():
            rows.append(run_alone("grade", method))
    print(f"\n### Grades of {N_GRADED:,} rows of {N_GRADED_FEATURES}\n")
    print(f"{repeats} runs, each beside the rate of products of this shape at that minute.\n")
    print("| | CPU, s | more memory, MB | largest grade |\n|---|---:|---:|---:|", flush=True)
    for method, rows in runs.items():
        failed = [row["failed"] for row in rows if "failed" in row]
        if failed:
            print(f"| {GRADE[method]} | {failed[0]} | | |", flush=True)
            continue
        cells = [_seconds([row["cpu"] for row in rows]), f"{max(row['more'] for row in rows):.0f}"]
        print(f"| {GRADE[method]} | {' | '.join(cells)} | {rows[0]['largest']:.3f} |", flush=True)
        package, kind = method.split()
        if package == "aiida-alpot":
            precision = "double" if kind == "float64" else "single"
            print(f"| the product alone, {precision}, from its rate | {_seconds(products[kind])} | | |", flush=True)


def _seconds(values: list[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in values)


def main() -> None:
    """Run the cases that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    cases = ("gemm", *SIZES, "grade", "stream")
    parser.add_argument("--only", nargs="+", choices=cases, default=cases)
    parser.add_argument("--repeats", type=int, default=4, help="runs of every row of the table of the grades")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        print(json.dumps(run_case(json.loads(options.job))))
        return
    print(f"Python {platform.python_version()}, {', '.join(f'{n} {version(n)}' for n in ('numpy', 'scipy'))}")
    if "gemm" in options.only:
        rates = run_alone("gemm")
        print("GEMM, GF/s: " + ", ".join(f"{name} {rate:.0f}" for name, rate in rates.items()), flush=True)
    for case in SIZES:
        if case in options.only:
            report_selection(case)
    if "grade" in options.only:
        report_grades(options.repeats)
    if "stream" in options.only:
        row = run_alone("stream")
        print(f"\nA million rows of 300, made in chunks: {row['cpu']:.1f} s of CPU time without making them, ", end="")
        print(f"{row['passes']} passes, {row['more']:.0f} MB, largest grade {row['grade']:.3f}")


if __name__ == "__main__":
    main()
