"""Disturb campaigns at random times and see whether they end as if nothing had happened.

``python tests/faults/inject.py --work FOLDER --faults 200`` runs campaigns with fixed potentials (see campaign.py) in a
profile below FOLDER, one after the other, until so many faults were injected, and writes ``faults.json`` there. A
campaign that ends with an exit code is resumed by the command line, as a user would. Exit status 1 if a campaign
ended otherwise than the one that nothing befell, or a label was computed twice.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

HERE = Path(__file__).parent
PROFILE = "faults"
STILL = 45
"""Seconds without any change in the database after which the daemon is repaired, as a user would."""
STUCK = 180
"""Seconds after which the campaign counts as stuck."""
LONGEST = 900
"""Seconds after which a campaign counts as stuck although something changes."""
MAX_RESUMES = 10
DISK_MB = 64


@dataclass
class Fault:
    """One disturbance: what, when, in which stage, and how many processes (or disks) it hit."""

    kind: str
    seconds: float
    stage: str
    victims: int


@dataclass
class Outcome:
    """What became of one campaign."""

    name: str
    seconds: float = 0.0
    faults: list[Fault] = field(default_factory=list)
    exits: list[str] = field(default_factory=list)
    repairs: int = 0
    content_hash: str = ""
    usage_hash: str = ""
    labelled_twice: int = 0
    problem: str = ""


class Machine:
    """A profile with its daemon, a scratch disk for the jobs, and ways to disturb them."""

    def __init__(self, work: Path) -> None:
        self.work = work.resolve()
        self.scratch = self.work / "scratch"
        self.environment = {
            **os.environ,
            "AIIDA_PATH": str(self.work),
            "OMP_NUM_THREADS": "1",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        self.has_own_disk = False

    def call(self, *command: str, check: bool = True) -> str:
        """Run a command in the environment of the profile and return what it prints."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False, timeout=300)
        if check and done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.stdout

    def verdi(self, *arguments: str, check: bool = True) -> str:
        return self.call(sys.executable, "-m", "aiida", "-p", PROFILE, *arguments, check=check)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Make the profile, start the daemon, and clean up at the end."""
        self.scratch.mkdir(parents=True, exist_ok=True)
        self.has_own_disk = self._mount()
        self.call(sys.executable, "-m", "aiida", "presto", "-p", PROFILE, "--use-zeromq", "-n")
        for option, value in (("daemon.timeout", "60"), ("transport.task_retry_initial_interval", "2")):
            self.verdi("config", "set", option, value)
        setup = ["-L", "scratch", "-H", "localhost", "-T", "core.local", "-S", "core.direct", "-w", str(self.scratch)]
        self.verdi("computer", "setup", "-n", *setup, "--mpiprocs-per-machine", "1")
        configure = [
            "computer",
            "configure",
            "core.local",
            "scratch",
            "-n",
            "--no-use-login-shell",
            "--safe-interval",
            "0",
        ]
        self.verdi(*configure)
        try:
            self.verdi("daemon", "start")
            yield
        finally:
            self.verdi("daemon", "stop", check=False)
            if self.has_own_disk:
                subprocess.run(["umount", "-l", str(self.scratch)], check=False)

    def _mount(self) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(self.scratch)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def clean_scratch(self) -> None:
        """Remove the folders of jobs that are not needed any more: the disk is small."""
        for folder in self.scratch.iterdir():
            shutil.rmtree(folder, ignore_errors=True)

    # --- faults: each returns how many processes or files it hit ---

    def jobs(self) -> list[psutil.Process]:
        """Return the shells that the scheduler started for jobs, parents of everything a job runs."""
        return [process for process in self._mine() if "_aiidasubmit.sh" in " ".join(process.info["cmdline"] or [])]

    def _mine(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter(["cmdline"]):
            with contextlib.suppress(psutil.Error):
                home = process.environ().get("AIIDA_PATH", "")  # the daemon adds .aiida to it
                if Path(home).is_relative_to(self.work) and process.pid != os.getpid():
                    found.append(process)
        return found

    def kill_job(self, *, gently: bool = False) -> int:
        """Kill a job with all its processes; *gently* as a scheduler does at the walltime: SIGTERM first."""
        jobs = self.jobs()
        if not jobs:
            return 0
        victims = [jobs[0], *jobs[0].children(recursive=True)]
        if gently:
            _signal(victims, "terminate")
            psutil.wait_procs(victims, timeout=1)
        _signal(victims, "kill")
        return len(victims)

    def reach_walltime(self) -> int:
        """End a job as a scheduler does."""
        return self.kill_job(gently=True)

    def kill_worker(self) -> int:
        """Kill the daemon's worker; circus starts another."""
        workers = [p for p in self._mine() if (p.info["cmdline"] or [])[-2:] == ["daemon", "worker"]]
        _signal(workers, "kill")
        return len(workers)

    def restart_daemon(self) -> int:
        """Restart the daemon in good order."""
        self.verdi("daemon", "restart")
        return 1

    def fill_disk(self) -> int:
        """Fill the disk of the jobs, which is one of their own, for a few seconds."""
        filler = self.scratch / "filler"
        with contextlib.suppress(OSError), filler.open("wb") as file:
            while True:
                file.write(bytes(1 << 16))
        time.sleep(4)
        filler.unlink()
        return 1

    def reboot(self) -> int:
        """Kill everything at once, and start the daemon as docs/how-to/resume.md says."""
        victims = [p for p in self._mine() if "verdi" in " ".join(p.info["cmdline"] or []) or "circus" in str(p.info)]
        victims += [child for job in self.jobs() for child in (job, *job.children(recursive=True))]
        _signal(victims, "kill")
        psutil.wait_procs(victims, timeout=10)
        self.verdi("daemon", "start", check=False)
        self.repair()
        return len(victims)

    def repair(self) -> None:
        """Put tasks in order that the broker has lost or holds twice."""
        self.verdi("daemon", "stop")
        self.verdi("process", "repair", "-f")
        self.verdi("daemon", "start")


def _signal(processes: list[psutil.Process], name: str) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            getattr(process, name)()


FAULTS: dict[str, Callable[[Machine], int]] = {
    "job killed": Machine.kill_job,
    "walltime": Machine.reach_walltime,
    "worker killed": Machine.kill_worker,
    "daemon restarted": Machine.restart_daemon,
    "disk full": Machine.fill_disk,
    "reboot": Machine.reboot,
}


class Campaigns:
    """Runs campaigns on a machine and looks at them through the database."""

    def __init__(self, machine: Machine) -> None:
        os.environ["AIIDA_PATH"] = str(machine.work)  # read when AiiDA is imported
        from aiida import load_profile

        load_profile(PROFILE)
        self.machine = machine

    def ledger(self, name: str) -> Path:
        return self.machine.work / f"{name}.ledger"

    def submit(self, name: str, label_seconds: float) -> int:
        """Submit a campaign from a process of its own: a client outlives no restart of its broker."""
        script = [sys.executable, str(HERE / "campaign.py"), str(self.ledger(name)), str(label_seconds)]
        return int(self.machine.call(*script).split()[-1])

    def resume(self, pk: int) -> int:
        text = self.machine.call("aiida-alpot", "-p", PROFILE, "resume", str(pk))
        return int(text.split(" goes on as <")[1].split(">")[0])

    def look(self, pk: int) -> tuple[Any, str, float]:
        """Return the campaign, the stage that runs, and when anything in the database last changed."""
        from aiida import orm

        node = orm.load_node(pk)
        stages = [child for child in node.called if isinstance(child, orm.WorkChainNode)]
        stage = max(stages, key=lambda child: child.pk, default=None)
        latest = (
            orm.QueryBuilder().append(orm.ProcessNode, project="mtime").order_by({orm.ProcessNode: {"mtime": "desc"}})
        )
        return node, "" if stage is None else stage.label, latest.first(flat=True).timestamp()

    def play_paused(self) -> None:
        """Let processes go on that AiiDA paused after too many failed attempts to reach the disk."""
        self.machine.verdi("process", "play", "--all", check=False)

    def run(self, name: str, planned: deque[tuple[float, str]], most: int, label_seconds: float) -> Outcome:
        """Run a campaign to its end, disturb it at most *most* times as *planned*, resume it when it fails."""
        outcome, start = Outcome(name), time.monotonic()
        pk = self.submit(name, label_seconds)
        next_fault, repaired = _time_of_next(planned, most), 0.0
        while True:
            node, stage, changed = self.look(pk)
            if node.is_terminated:
                outcome.exits.append(f"{node.process_state.value} {node.exit_status}: {node.exit_message or ''}")
                if node.is_finished_ok:
                    outcome.content_hash = node.outputs.dataset.content_hash
                    outcome.usage_hash = node.outputs.dataset.usage_hash
                    break
                if len(outcome.exits) > MAX_RESUMES:
                    outcome.problem = "resumed too often"
                    break
                pk = self.resume(pk)
            elif time.time() - changed > STUCK or time.monotonic() - start > LONGEST:
                outcome.problem = f"stuck in {stage or 'the beginning'}"
                break
            elif time.time() - max(changed, repaired) > STILL:
                # the ZeroMQ broker of aiida-core 2.9 may not notice that a worker was killed, or lose a task
                self.machine.repair()
                outcome.repairs, repaired = outcome.repairs + 1, time.time()
            elif time.monotonic() >= next_fault and (victims := FAULTS[planned[0][1]](self.machine)):
                outcome.faults.append(Fault(planned.popleft()[1], time.monotonic() - start, stage, victims))
                next_fault = _time_of_next(planned, most - len(outcome.faults))
            if any(child.paused for child in node.called_descendants):
                self.play_paused()
            time.sleep(0.3)
        outcome.seconds = time.monotonic() - start
        self.machine.clean_scratch()
        lines = self.ledger(name).read_text(encoding="utf-8").split() if self.ledger(name).exists() else []
        outcome.labelled_twice = sum(n > 1 for n in Counter(lines).values())
        return outcome


def _time_of_next(planned: deque[tuple[float, str]], most: int) -> float:
    return time.monotonic() + planned[0][0] if planned and most > 0 else np.inf


def draw_faults(rng: np.random.Generator, mean: float, kinds: list[str]) -> Iterator[tuple[float, str]]:
    """Yield the seconds to the next fault and its kind, without end; each kind once before one comes again."""
    while True:
        for kind in rng.permutation(kinds):
            yield float(rng.exponential(mean)), str(kind)


def judge(outcome: Outcome, expected: Outcome) -> str:
    """Return what is wrong with the end of a campaign, or an empty text."""
    if outcome.problem:
        return outcome.problem
    if (outcome.content_hash, outcome.usage_hash) != (expected.content_hash, expected.usage_hash):
        return "another dataset"
    # a label in the making when its job is killed is no finished label: it is begun again
    return f"{outcome.labelled_twice} labels computed twice" if outcome.labelled_twice > len(outcome.faults) else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="new folder for profile, jobs and results")
    parser.add_argument("--faults", type=int, default=200, help="faults in all")
    parser.add_argument("--per-campaign", type=int, default=5, help="faults of one campaign")
    parser.add_argument("--every", type=float, default=8.0, help="mean seconds between two faults")
    parser.add_argument("--kinds", nargs="+", choices=FAULTS, default=list(FAULTS))
    parser.add_argument("--label-seconds", type=float, default=0.3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    machine = Machine(arguments.work)
    with machine.running():
        kinds = [kind for kind in arguments.kinds if kind != "disk full" or machine.has_own_disk]
        planned = deque(itertools.islice(draw_faults(rng, arguments.every, kinds), arguments.faults))
        campaigns = Campaigns(machine)
        expected = campaigns.run("undisturbed", deque(), 0, arguments.label_seconds)
        outcomes = [expected]
        while planned and len(outcomes) <= arguments.faults:
            name = f"disturbed-{len(outcomes)}"
            outcome = campaigns.run(name, planned, arguments.per_campaign, arguments.label_seconds)
            outcome.problem = judge(outcome, expected)
            outcomes.append(outcome)
            kinds = ", ".join(f"{fault.kind} in {fault.stage} ({fault.victims})" for fault in outcome.faults)
            sys.stdout.write(
                f"{outcome.name}: {outcome.seconds:.0f} s, {kinds}; {outcome.exits}; {outcome.problem or 'good'}\n"
            )
            sys.stdout.flush()
            result = [asdict(item) for item in outcomes]
            (machine.work / "faults.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    return int(any(outcome.problem for outcome in outcomes))


if __name__ == "__main__":
    raise SystemExit(main())
