"""Run the quickstart for several seeds, by active learning and at random, and print the table of test errors.

``python benchmarks/quickstart/run.py --work FOLDER`` takes about six minutes per campaign on two quiet cores. Seeds and
settings are fixed before any result is seen (seeds 0 to 3 served to find the settings). A campaign that has ended is
not run again. The arms of a seed share a profile and its cache, as their first training and exploration are the same.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SEEDS = (6, 7, 8, 9, 10)
ARMS = ("greedy_diverse", "random")
QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart" / "run.py"


def run_campaign(work: Path, seed: int, arm: str) -> list[dict[str, Any]]:
    """Return the rows of one campaign in a profile of its own."""
    folder = work / f"{seed}-{arm}"
    results = folder / "results"
    found = list(results.glob("*/history.json"))
    if not found:
        folder.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "AIIDA_PATH": str(work / f"{seed}-aiida")}
        chosen = ["--seed", str(seed), "--strategy", arm, "--results", str(results), "--cached"]
        start = time.monotonic()
        with (folder / "log.txt").open("w", encoding="utf-8") as log:
            command = [sys.executable, str(QUICKSTART), *chosen]
            subprocess.run(command, env=environment, stdout=log, stderr=log, check=True)
        (folder / "seconds.txt").write_text(f"{time.monotonic() - start:.0f}\n", encoding="utf-8")
        found = list(results.glob("*/history.json"))
    rows: list[dict[str, Any]] = json.loads(found[0].read_text(encoding="utf-8"))
    return rows


def errors_of(rows: list[dict[str, Any]]) -> list[float]:
    """Return the test error of the forces after each iteration, meV/Å."""
    return [1000 * row["errors"]["external_test"]["committee_mean"]["force"] for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for the profiles and results")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="run only these (default: all five)")
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    print("| seed | " + " | ".join(f"{arm}, meV/Å" for arm in ARMS) + " | falls by | below random |")
    print("|---|---|---|---|---|")
    for seed in arguments.seeds:
        active, random = (errors_of(run_campaign(work, seed, arm)) for arm in ARMS)
        fall = 1 - active[-1] / active[0]
        cells = [" → ".join(f"{error:.0f}" for error in errors) for errors in (active, random)]
        is_below = "yes" if active[-1] <= random[-1] else "no"
        print(f"| {seed} | {cells[0]} | {cells[1]} | {100 * fall:.0f} % | {is_below} |", flush=True)


if __name__ == "__main__":
    main()
