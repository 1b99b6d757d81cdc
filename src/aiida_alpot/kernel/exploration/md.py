"""One trajectory: molecular dynamics that keeps frames and knows when to stop."""

from __future__ import annotations

import time
from array import array
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from aiida_alpot.kernel.dataset.checks import MIN_CELL_HEIGHT
from aiida_alpot.kernel.disk import is_disk_error
from aiida_alpot.kernel.geometry import smallest_heights
from aiida_alpot.kernel.potentials import has_stress
from aiida_alpot.kernel.units import PROPERTIES, FloatArray

from .barostat import MaskedBarostat
from .health import check_geometry, check_motion
from .integrator import LangevinIntegrator
from .monitor import Assessment, Assessor
from .schedule import TrajectoryPlan
from .settings import ExploreSettings
from .state import ExplorationState, Snapshot, StateError

KEPT_INFO: Final = ("charge", "spin")
"""Science of the starting frame that its descendants share; everything else in ``info`` belongs to that one frame."""
KEPT_ARRAYS: Final = ("initial_magmoms", "initial_charges", "tags", "masses")
"""Per-atom arrays that stay with the atoms."""


@dataclass(frozen=True)
class StopRules:
    """When to keep a frame or to stop, beyond health; None or empty switches a rule off.

    :param gamma_save: grade from which a frame is kept.
    :param gamma_break: grade from which a frame is kept and the trajectory stops.
    :param error_break: property to calibrated error from which the same happens.
    """

    gamma_save: float | None = None
    gamma_break: float | None = None
    error_break: dict[str, float] = field(default_factory=dict)

    def decide(self, assessment: Assessment) -> tuple[str, str]:
        """Return (*save_reason*, *stop_reason*) for one frame; an empty string is a no.

        γ ≥ γ_break is tested first, then the errors, then γ ≥ γ_save. An unknown (NaN) value fulfils no rule.
        """
        grade = float(assessment.grade[0])
        if self.gamma_break is not None and grade >= self.gamma_break:
            return "gamma_break", f"gamma_break: grade {grade:.4g} ≥ {self.gamma_break:g}"
        for name in PROPERTIES:
            if name in self.error_break and name in assessment.error:
                value = float(assessment.error[name][0])
                if value >= self.error_break[name]:
                    return "error_break", f"error_break: {name} {value:.4g} ≥ {self.error_break[name]:g}"
        if self.gamma_save is not None and grade >= self.gamma_save:
            return "gamma_save", ""
        return "", ""


@dataclass
class TrajectoryResult:
    """What one trajectory yielded.

    :param frames: kept frames, candidates without labels; see :func:`run_trajectory`.
    :param reason: why it ended: ``completed``, ``max_saved``, ``walltime``, or a word and a text: ``gamma_break: …``,
        ``error_break: …``, ``unfit: …`` (the start was not healthy), ``health: …``, ``failed: …``.
    :param n_steps: MD steps made.
    :param stats: JSON-able numbers: mean temperature (K, second half of the steps), volumes (Å³), largest disagreements
        and grade seen, number of checks.
    """

    frames: list[Atoms]
    reason: str
    n_steps: int
    stats: dict[str, Any]

    @property
    def outcome(self) -> str:
        """The word that *reason* begins with."""
        return self.reason.split(":", 1)[0]


def run_trajectory(
    atoms: Atoms,
    plan: TrajectoryPlan,
    calculator: Calculator,
    assessor: Assessor,
    settings: ExploreSettings,
    *,
    rules: StopRules | None = None,
    deadline: float | None = None,
    state: ExplorationState | None = None,
) -> TrajectoryResult:
    """Run one trajectory and keep frames on the way. It never raises for what happens during the dynamics.

    Health is tested before the committee is asked. The frame that fails is kept with ``healthy=False`` (unless its
    numbers are not finite or its cell has collapsed), and the trajectory ends. Kept frames have the user columns
    time_fs, md_temperature and md_pressure (targets; NaN in NVT), disagreement_energy/force/force_max/stress, grade,
    healthy, sampled (whether the frame would have been kept whatever the committee says) and save_reason (``sample``,
    ``gamma_save``, ``gamma_break``, ``error_break``, ``health: …``). They are translated so that the centre of mass
    is where it was at the start, in fractional coordinates if the cell moved.

    :param atoms: the starting frame; not changed, its labels and constraints are ignored.
    :param calculator: of the driving member.
    :param deadline: value of ``time.monotonic()`` after which to stop in good order.
    :param state: keeps snapshots on the way, from the last of which the trajectory goes on. It then ends as if it had
        never stopped, bit by bit if the calculator remembers nothing from one step to the next.
    :raises ValueError: if an NPT plan meets a frame without a periodic axis or with dependent cell vectors.
    :raises ImportError: if the potential lacks a package, which no other trajectory would survive either.
    :raises StateError: if a snapshot cannot be written.
    """
    if plan.ensemble == "npt" and not has_stress(atoms):
        raise ValueError(f"{plan.name}: an NPT trajectory needs a periodic axis and three independent cell vectors")
    run = _Run(atoms, plan, calculator, assessor, settings, rules or StopRules(), state)
    reason = run.execute(deadline)
    return TrajectoryResult(run.frames, reason, run.n_steps, run.statistics())


class _Run:
    """State of one trajectory."""

    def __init__(
        self,
        atoms: Atoms,
        plan: TrajectoryPlan,
        calculator: Calculator,
        assessor: Assessor,
        settings: ExploreSettings,
        rules: StopRules,
        state: ExplorationState | None = None,
    ) -> None:
        self.plan, self.settings, self.rules = plan, settings, rules
        self.assessor = assessor
        self.state = state
        self._rng = np.random.default_rng(plan.seed)
        self.start = bare_copy(atoms)
        self.atoms = bare_copy(atoms)
        self.atoms.calc = calculator
        self.frames: list[Atoms] = []
        self.n_steps = 0
        self.integrator: LangevinIntegrator | None = None
        self._temperatures = array("d")
        self._volumes: list[float] = []
        self._worst: dict[str, float] = {}
        self._n_checks = 0

    def execute(self, deadline: float | None) -> str:
        """Run to the end and return the reason for it."""
        try:
            return self._loop(deadline)
        except (ImportError, StateError):
            raise
        except Exception as error:  # a calculator may raise anything; the reason is kept and reported
            if is_disk_error(error):
                raise
            text = f"{type(error).__name__}: {error}"
            self._keep(f"health: failed at step {self.n_steps + 1}", Assessment.unknown(1), healthy=False)
            return f"failed: step {self.n_steps + 1}: {text}"

    def _loop(self, deadline: float | None) -> str:
        self.integrator = self._prepare()
        snapshot = None if self.state is None else self.state.load_snapshot(self.plan)
        if snapshot is not None:
            self._restore(self.integrator, snapshot)
        else:
            fault = self._check_motion() or check_geometry(self.atoms, self.start, self.settings.health)
            if fault:
                return f"unfit: {fault}"
        while self.n_steps < self.settings.n_steps:
            is_late = deadline is not None and time.monotonic() >= deadline
            if self.state is not None and self.n_steps > 0 and (is_late or self.state.is_due()):
                self.state.save_snapshot(self.plan, self._take_snapshot(self.integrator))
            if is_late:
                return "walltime"
            self.integrator.step()
            self.n_steps += 1
            reason = self._look()
            if reason:
                return reason
        return "completed"

    def _take_snapshot(self, integrator: LangevinIntegrator) -> Snapshot:
        arrays = {
            "positions": self.atoms.positions,
            "cell": np.array(self.atoms.cell),
            "velocities": integrator.velocities,
            "forces": integrator.forces,
            "temperatures": np.array(self._temperatures),
            "volumes": np.array(self._volumes),
        }
        numbers = {
            "n_steps": self.n_steps,
            "n_checks": self._n_checks,
            "worst": self._worst,
            "random": self._rng.bit_generator.state,
        }
        return Snapshot(arrays, numbers, self.frames)

    def _restore(self, integrator: LangevinIntegrator, snapshot: Snapshot) -> None:
        arrays, numbers = snapshot.arrays, snapshot.numbers
        self.atoms.set_cell(arrays["cell"], scale_atoms=False)
        self.atoms.set_positions(arrays["positions"], apply_constraint=False)
        integrator.velocities, integrator.forces = arrays["velocities"], arrays["forces"]
        self.n_steps = integrator.n_steps = numbers["n_steps"]
        self._rng.bit_generator.state = numbers["random"]
        self._temperatures, self._volumes = array("d", arrays["temperatures"]), arrays["volumes"].tolist()
        self._worst, self._n_checks = dict(numbers["worst"]), numbers["n_checks"]
        self.frames = list(snapshot.frames)

    def _prepare(self) -> LangevinIntegrator:
        settings, plan = self.settings, self.plan
        barostat = None
        if plan.ensemble == "npt":
            barostat = MaskedBarostat(
                self.atoms,
                pressure=plan.pressure or 0.0,
                temperature=plan.temperature,
                time=settings.barostat_time,
                interval=settings.barostat_every * settings.timestep,
                rng=self._rng,
                bulk_modulus=settings.bulk_modulus,
                isotropic=settings.barostat == "isotropic",
            )
        return LangevinIntegrator(
            self.atoms,
            timestep=settings.timestep,
            temperature=plan.temperature,
            friction=settings.friction,
            rng=self._rng,
            barostat=barostat,
            barostat_every=settings.barostat_every,
        )

    def _look(self) -> str:
        """Look at the frame of this step, keep it if a rule says so, and return a reason to stop or ''."""
        is_sample = self.n_steps % self.settings.sample_every == 0
        is_due = is_sample or self.n_steps % self.settings.check_every == 0
        fault = self._check_motion()
        if not fault and is_due:
            fault = check_geometry(self.atoms, self.start, self.settings.health)
        if fault:
            self._keep(f"health: {fault}", Assessment.unknown(1), healthy=False)
            return f"health: {fault}"
        return self._assess(is_sample) if is_due else ""

    def _assess(self, is_sample: bool) -> str:
        assessment = self.assessor.assess([bare_copy(self.atoms)])
        if not assessment.finite[0]:
            fault = "health: the committee predicts a value that is not finite"
            self._keep(fault, assessment, healthy=False)
            return fault
        self._record(assessment)
        save, stop = self.rules.decide(assessment)
        if save or is_sample:
            self._keep(save or "sample", assessment, healthy=True, sampled=is_sample)
        if not stop and len(self.frames) >= self.settings.max_saved:
            return "max_saved"
        return stop

    def _check_motion(self) -> str | None:
        assert self.integrator is not None
        temperature = self.integrator.temperature
        self._temperatures.append(temperature)
        return check_motion(
            self.atoms, self.integrator.forces, temperature, self.plan.temperature, self.settings.health
        )

    def _keep(self, save_reason: str, assessment: Assessment, *, healthy: bool, sampled: bool = False) -> None:
        frame = bare_copy(self.atoms)
        if not _can_be_kept(frame):
            return
        _undo_drift(frame, self.start)
        pressure = self.plan.pressure
        frame.info.update(
            time_fs=self.n_steps * self.settings.timestep,
            md_temperature=self.plan.temperature,
            md_pressure=float("nan") if pressure is None else pressure,
            grade=float(assessment.grade[0]),
            healthy=healthy,
            save_reason=save_reason,
            sampled=sampled,
            **{f"disagreement_{name}": float(assessment.disagreement[name][0]) for name in PROPERTIES},
        )
        self.frames.append(frame)

    def _record(self, assessment: Assessment) -> None:
        self._n_checks += 1
        if has_stress(self.atoms):
            self._volumes.append(float(self.atoms.cell.volume))
        seen = {f"max_disagreement_{name}": float(assessment.disagreement[name][0]) for name in PROPERTIES}
        seen["max_grade"] = float(assessment.grade[0])
        for name, value in seen.items():
            if not np.isnan(value):
                self._worst[name] = max(value, self._worst.get(name, -np.inf))

    def statistics(self) -> dict[str, Any]:
        """Return numbers about the trajectory for the report."""
        half = np.frombuffer(self._temperatures)[len(self._temperatures) // 2 :]
        return {
            "mean_temperature": float(np.mean(half)) if len(half) else None,
            "volume_start": float(self.start.cell.volume) if has_stress(self.start) else None,
            "volume_mean": float(np.mean(self._volumes[len(self._volumes) // 2 :])) if self._volumes else None,
            "n_checks": self._n_checks,
            **self._worst,
        }


def bare_copy(atoms: Atoms) -> Atoms:
    """Return structure, charge, spin and constants of the atoms: no labels, constraints, velocities, columns."""
    copy = Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    for name in KEPT_ARRAYS:
        if atoms.has(name):
            copy.set_array(name, atoms.get_array(name))
    copy.info.update({name: atoms.info[name] for name in KEPT_INFO if name in atoms.info})
    return copy


def _can_be_kept(frame: Atoms) -> bool:
    """Return whether a dataset would take the frame: finite, and not of a cell that has collapsed."""
    cell = frame.cell.array
    if not (np.all(np.isfinite(frame.positions)) and np.all(np.isfinite(cell))):
        return False
    return bool(smallest_heights(cell[None], frame.pbc[None])[0] >= MIN_CELL_HEIGHT)


def _undo_drift(frame: Atoms, start: Atoms) -> None:
    """Translate *frame* so that its centre of mass has not moved, in fractional coordinates if the cell has.

    Langevin dynamics lets the whole system diffuse, which would carry a slab or molecule out of its cell and give
    periodic frames that differ by a translation alone.
    """
    old, new = np.asarray(start.cell), np.asarray(frame.cell)
    target = _centre_of_mass(start)
    if not np.array_equal(old, new):
        target = np.linalg.solve(old.T, target) @ new
    frame.positions = (frame.positions - _centre_of_mass(frame)) + target


def _centre_of_mass(atoms: Atoms) -> FloatArray:
    """Return the centre of mass, which for one atom is its position bit by bit."""
    origin: FloatArray = atoms.positions[0]
    masses = atoms.get_masses()
    return np.asarray(origin + masses @ (atoms.positions - origin) / masses.sum())
