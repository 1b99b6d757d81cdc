"""Train one MACE potential with ``mace_run_train``: its input from a dataset, its results from the files it leaves."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_numbers, chemical_symbols

from aiida_alpot.kernel.cutouts import CORE, core_of, whole_frames
from aiida_alpot.kernel.dataset import write_frames
from aiida_alpot.kernel.settings import SettingsError, check_device, unknown_key_message
from aiida_alpot.kernel.training.mace_options import ALWAYS_ON, FLAGS, MANAGED, OPTIONS, POSITIVE

MODEL_NAME: Final = "potential"
SPLIT_FILES: Final[Mapping[str, str]] = {"train": "train.xyz", "validation": "valid.xyz", "test": "test.xyz"}
_TABLE_ROWS: Final[Mapping[str, str]] = {"train_Default": "train", "valid_Default": "validation"}


@dataclass(frozen=True)
class MaceSettings:
    """How one MACE potential is trained.

    :param hyperparameters: options of ``mace_run_train`` by their own names; those of
        :data:`~aiida_alpot.kernel.training.mace_options.MANAGED` follow from the data and cannot be set.
    :param e0s: energies of the isolated atoms in eV: ``"average"`` (least squares over the training frames),
        ``"isolated"`` (the dataset's frames of one atom without periodicity) or ``{symbol: energy}``.
    :param n_updates: number of optimiser steps; sets ``max_num_epochs`` from the size of the dataset, so that a small
        dataset is not trained less than a large one.
    :param lr_decay: learning rate at the end over that at the start; sets an exponential schedule over the epochs.
    :param device: ``"cpu"`` or ``"cuda"``.
    :param dtype: ``"float64"`` or ``"float32"``.
    :param warm_start_lr_factor: factor on ``lr`` when the training starts from a given potential: with the full rate
        a trained potential is damaged in the first epoch.
    :param fd_tolerance: largest deviation of forces and stress from finite differences, over their rms values.
    :param cutout_energies: fit energy and stress of pieces of larger frames too, which are those of all their atoms. By
        default the forces on the core of a piece are fitted alone.
    """

    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    e0s: str | Mapping[str, float] = "average"
    n_updates: int | None = None
    lr_decay: float | None = None
    device: str = "cpu"
    dtype: str = "float64"
    warm_start_lr_factor: float = 0.1
    fd_tolerance: float = 1e-3
    cutout_energies: bool = False

    def __post_init__(self) -> None:
        _check_hyperparameters(self.hyperparameters)
        _check_e0s(self.e0s)
        check_device(self.device)
        if self.n_updates is not None and self.n_updates < 1:
            raise SettingsError(f"n_updates must be positive, got {self.n_updates}")
        if self.n_updates is not None and "max_num_epochs" in self.hyperparameters:
            raise SettingsError("n_updates and hyperparameters.max_num_epochs contradict each other; give one")
        if self.lr_decay is not None:
            _check_lr_decay(self.lr_decay, self.hyperparameters, self.n_updates)
        if self.dtype not in ("float64", "float32"):
            raise SettingsError(f"dtype: expected 'float64' or 'float32', got {self.dtype!r}")
        if not 0 < self.warm_start_lr_factor <= 1:
            raise SettingsError(f"warm_start_lr_factor must be in (0, 1], got {self.warm_start_lr_factor}")
        if self.fd_tolerance <= 0:
            raise SettingsError(f"fd_tolerance must be positive, got {self.fd_tolerance}")


def _check_hyperparameters(hyperparameters: Mapping[str, Any]) -> None:
    for key, value in hyperparameters.items():
        if key in MANAGED:
            raise SettingsError(f"hyperparameters: {key!r} follows from the dataset and the job; remove it")
        if key not in OPTIONS:
            raise SettingsError(unknown_key_message(key, OPTIONS, "hyperparameters"))
        if key in FLAGS and not isinstance(value, bool):
            raise SettingsError(f"hyperparameters.{key}: expected bool, got {value!r}")
        if key in POSITIVE and not (type(value) in (int, float) and 0 < value < math.inf):
            raise SettingsError(f"hyperparameters.{key}: expected a positive number, got {value!r:.60}")
        if key in ALWAYS_ON and not value:
            raise SettingsError(f"hyperparameters: {key!r} cannot be switched off in mace_run_train")


def _check_lr_decay(lr_decay: float, hyperparameters: Mapping[str, Any], n_updates: int | None) -> None:
    if not 0 < lr_decay <= 1:
        raise SettingsError(f"lr_decay must be in (0, 1], got {lr_decay}")
    if n_updates is None and "max_num_epochs" not in hyperparameters:
        raise SettingsError("lr_decay needs n_updates or hyperparameters.max_num_epochs")
    for key in ("scheduler", "lr_scheduler_gamma"):
        if key in hyperparameters:
            raise SettingsError(f"lr_decay and hyperparameters.{key} contradict each other; give one")


def _check_e0s(e0s: str | Mapping[str, float]) -> None:
    if isinstance(e0s, str):
        if e0s not in ("average", "isolated"):
            raise SettingsError(f"e0s: expected 'average', 'isolated' or a mapping of energies, got {e0s!r}")
        return
    for symbol in e0s:
        if symbol not in atomic_numbers:
            raise SettingsError(f"e0s: {symbol!r} is not a chemical symbol")


def compute_atomic_energies(frames: Sequence[Atoms], e0s: str | Mapping[str, float]) -> dict[int, float]:
    """Return the energy of the isolated atom of each species, eV.

    ``"average"`` is the least-squares solution of smallest norm of Σ_Z n_Z E0_Z = E over the frames, which is what
    MACE's own ``average`` computes.

    :param frames: the labelled training frames.
    :raises ValueError: if a species has no energy; the message names it.
    """
    species = sorted({int(number) for atoms in frames for number in atoms.numbers})
    if isinstance(e0s, Mapping):
        known = {atomic_numbers[symbol]: float(energy) for symbol, energy in e0s.items()}
    elif e0s == "isolated":
        known = {int(atoms.numbers[0]): _energy(atoms) for atoms in frames if is_isolated_atom(atoms)}
    else:
        counts = np.array([[np.count_nonzero(atoms.numbers == z) for z in species] for atoms in frames], dtype=float)
        energies = np.array([_energy(atoms) for atoms in frames])
        solution = np.linalg.lstsq(counts, energies, rcond=None)[0]
        known = dict(zip(species, solution.tolist(), strict=True))
    missing = [chemical_symbols[z] for z in species if z not in known]
    if missing:
        raise ValueError(f"no energy of the isolated atom for {', '.join(missing)}: e0s = {e0s!r} does not give it")
    return {z: known[z] for z in species}


def is_isolated_atom(atoms: Atoms) -> bool:
    """Return whether a frame is one atom without periodic images."""
    return len(atoms) == 1 and not any(atoms.pbc)


def counts_as_whole(atoms: Atoms, settings: MaceSettings) -> bool:
    """Return whether energy and stress of a frame are fitted, and not the forces on its core alone."""
    return settings.cutout_energies or bool(whole_frames([atoms])[0])


def write_mace_input(
    frames: Mapping[str, Sequence[Atoms]], folder: Path, settings: MaceSettings | None = None
) -> dict[str, int]:
    """Write the extended-xyz files of each split with ``REF_`` keys and return how many frames each holds.

    Labels go under ``REF_energy``, ``REF_forces``, ``REF_stress`` (nine numbers): ASE drops bare keys. They keep all
    their digits; ASE would write eight decimals. Frames of a single isolated atom are left out, because MACE would let
    them override the explicit atomic energies. The stress of a frame with a non-periodic axis is left out too, because
    MACE divides by a cell of its own making there. If a frame is a piece of a larger one, all have the column
    :data:`~aiida_alpot.kernel.cutouts.CORE`.

    :param frames: labelled frames by split (``train``, ``validation``, ``test``).
    :param settings: whether energy and stress of pieces count.
    :raises ValueError: if training or validation would be empty, or a frame has no label.
    """
    settings = MaceSettings() if settings is None else settings
    counts: dict[str, int] = {}
    with_cores = has_pieces(frames)
    for split, name in SPLIT_FILES.items():
        members = [atoms for atoms in frames.get(split, ()) if not is_isolated_atom(atoms)]
        chosen = [_reference_atoms(atoms, counts_as_whole(atoms, settings)) for atoms in members]
        if with_cores:
            for atoms, reference in zip(members, chosen, strict=True):
                reference.arrays[CORE] = core_of([atoms])
        counts[split] = len(chosen)
        if not chosen and split != "test":
            raise ValueError(f"no labelled frame in split {split!r}: label more frames or change the fractions")
        if chosen:
            write_frames(chosen, folder / name)
    return counts


def has_pieces(frames: Mapping[str, Sequence[Atoms]]) -> bool:
    """Return whether a frame of some split is a piece of a larger one."""
    return not all(whole_frames(members).all() for members in frames.values())


def _reference_atoms(atoms: Atoms, is_whole: bool) -> Atoms:
    reference = Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    reference.info["REF_energy"] = _energy(atoms)
    reference.arrays["REF_forces"] = np.array(atoms.calc.results["forces"])
    if not is_whole:
        reference.info["config_energy_weight"] = 0.0
    if is_whole and has_fitted_stress(atoms):
        reference.info["REF_stress"] = np.array(atoms.calc.results["stress"])
    weight = float(atoms.info.get("weight", 1.0))
    if weight != 1.0:
        reference.info["config_weight"] = weight
    return reference


def has_fitted_stress(atoms: Atoms) -> bool:
    """Return whether the stress of a labelled frame is one that MACE can be fitted to."""
    return "stress" in atoms.calc.results and bool(all(atoms.pbc))


def compute_scaling(frames: Sequence[Atoms], e0s: Mapping[int, float], settings: MaceSettings) -> tuple[float, float]:
    """Return mean interaction energy (eV/atom) and rms force (eV/Å) of what is fitted, MACE's units for its outputs.

    MACE computes them from all atoms; forces that are not fitted would change the potential through them.

    :param frames: the labelled training frames.
    """
    frames = [atoms for atoms in frames if not is_isolated_atom(atoms)]
    of_atoms = [_energy(atoms) - sum(e0s[int(z)] for z in atoms.numbers) for atoms in frames]
    energies = [e / len(atoms) for e, atoms in zip(of_atoms, frames, strict=True) if counts_as_whole(atoms, settings)]
    forces = np.concatenate([atoms.calc.results["forces"][core_of([atoms])] for atoms in frames])
    rms = float(np.sqrt(np.mean(forces**2)))
    return float(np.mean(energies)) if energies else 0.0, rms if rms > 0.0 else 1.0


def _energy(atoms: Atoms) -> float:
    if not isinstance(atoms.calc, SinglePointCalculator) or "energy" not in atoms.calc.results:
        raise ValueError(f"the frame {atoms.get_chemical_formula()} in the training data has no energy label")
    return float(atoms.calc.results["energy"])


@dataclass(frozen=True)
class MaceRun:
    """What a command line of ``mace_run_train`` needs beside the settings.

    :param counts: frames per split, as :func:`write_mace_input` returns them.
    :param e0s: energies of the isolated atoms by atomic number, eV.
    :param has_stress: whether a training frame has a stress label.
    :param parent: model file of a warm start, or None.
    :param restart: continue from the checkpoint in the folder.
    :param scaling: of :func:`compute_scaling`, if some frames are pieces of larger ones; None if all are whole.
    """

    seed: int
    counts: Mapping[str, int]
    e0s: Mapping[int, float]
    has_stress: bool
    parent: str | None = None
    restart: bool = False
    scaling: tuple[float, float] | None = None


def build_arguments(settings: MaceSettings, run: MaceRun) -> list[str]:
    """Return the arguments of ``mace_run_train`` for one training."""
    options: dict[str, Any] = dict(settings.hyperparameters)
    batch_size = min(int(options.get("batch_size", 10)), run.counts["train"])
    options["batch_size"] = batch_size
    if settings.n_updates is not None:
        options["max_num_epochs"] = count_epochs(settings.n_updates, run.counts["train"], batch_size)
        options["eval_interval"] = min(int(options.get("eval_interval", 1)), options["max_num_epochs"])
    if settings.lr_decay is not None:
        gamma = settings.lr_decay ** (1.0 / int(options["max_num_epochs"]))
        options.update(scheduler="ExponentialLR", lr_scheduler_gamma=gamma)
    options.update(
        name=MODEL_NAME,
        seed=run.seed,
        train_file=SPLIT_FILES["train"],
        valid_file=SPLIT_FILES["validation"],
        energy_key="REF_energy",
        forces_key="REF_forces",
        stress_key="REF_stress",
        E0s=repr(dict(run.e0s)),
        atomic_numbers=repr(sorted(run.e0s)),
        default_dtype=settings.dtype,
        device=settings.device,
        plot=False,
    )
    if run.counts["test"]:
        options["test_file"] = SPLIT_FILES["test"]
    if run.has_stress:
        options.update(compute_stress=True, error_table="PerAtomRMSEstressvirials")
        options.setdefault("loss", "stress")
    else:
        options["error_table"] = "PerAtomRMSE"
    if run.parent is not None:
        options.update(foundation_model=run.parent, multiheads_finetuning=False)
        options["lr"] = float(options.get("lr", 0.01)) * settings.warm_start_lr_factor
    if run.restart:
        options["restart_latest"] = True
    if run.scaling is not None:
        _add_cores(options, run.scaling, settings)
    return _format_options(options)


def _add_cores(options: dict[str, Any], scaling: tuple[float, float], settings: MaceSettings) -> None:
    """Let MACE hand the column of the core to its loss, and not compute the scale of forces from all atoms."""
    if options.get("loss") == "huber" and not settings.cutout_energies:
        raise SettingsError(
            "hyperparameters.loss: 'huber' has no weights and would fit the energies of pieces of larger frames; take "
            "'universal', or set cutout_energies"
        )
    head = {"arrays_keys": {CORE: CORE}, "test_file": options.get("test_file")}
    options["heads"] = repr({"Default": head})
    if options.get("scaling", "rms_forces_scaling") == "rms_forces_scaling" and not {"mean", "std"} & options.keys():
        options["mean"], options["std"] = scaling


def _format_options(options: Mapping[str, Any]) -> list[str]:
    arguments = []
    for key, value in options.items():
        if key in FLAGS:
            argument, meaning = FLAGS[key]
            arguments += [f"--{argument}"] if value is meaning else []
        else:
            arguments.append(f"--{key}={value}")
    return arguments


def count_epochs(n_updates: int, n_frames: int, batch_size: int) -> int:
    """Return how many epochs make *n_updates* optimiser steps; MACE drops the last, incomplete batch of an epoch."""
    return max(1, round(n_updates / max(1, n_frames // batch_size)))


def parse_learning_curve(lines: Iterable[str]) -> dict[str, list[float | None]]:
    """Return the validation errors over the epochs from the results file of MACE (JSON lines).

    :return: ``epoch`` (None before the first), ``loss``, ``rmse_energy`` (eV/atom), ``rmse_force`` (eV/Å) and
        ``rmse_stress`` (eV/Å³, None without stress), one entry per evaluation. A line cut off by a kill is skipped.
    """
    keys = {"loss": "loss", "rmse_energy": "rmse_e_per_atom", "rmse_force": "rmse_f", "rmse_stress": "rmse_stress"}
    curve: dict[str, list[float | None]] = {"epoch": [], **{name: [] for name in keys}}
    for line in lines:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if row.get("mode") != "eval":
            continue
        curve["epoch"].append(row.get("epoch"))
        for name, key in keys.items():
            value = row.get(key)
            curve[name].append(float(value) if value is not None and math.isfinite(value) else None)
    return curve


def parse_final_errors(log: str) -> dict[str, dict[str, float]]:
    """Return the root-mean-square errors per split from the tables at the end of MACE's log.

    :return: ``{"train": {"energy": …, "force": …, "stress": …}, …}`` in eV/atom, eV/Å and eV/Å³; a property that no
        frame of a split has a label of (MACE prints ``None``) is left out.
    """
    errors: dict[str, dict[str, float]] = {}
    header: list[str] = []
    for line in log.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if cells[0] == "config_type":
            header = cells
        elif header and line.startswith("|") and len(cells) == len(header):
            split = _TABLE_ROWS.get(cells[0], "test")
            errors[split] = {
                name: float(value) / 1000.0
                for title, value in zip(header, cells, strict=True)
                if (name := _column_property(title)) is not None and value != "None"
            }
    return errors


def _column_property(title: str) -> str | None:
    patterns = {"energy": r"^RMSE E / meV", "force": r"^RMSE F / meV", "stress": r"^RMSE Stress.* / meV"}
    return next((name for name, pattern in patterns.items() if re.match(pattern, title)), None)
