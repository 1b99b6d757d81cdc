"""Sign and unit of the stress of an engine, once per engine: by the energy of strained frames.

``σ = (1/V) dE/dε`` (ASE's sign: positive in tension). The energies of a frame that was stretched and compressed by ε
along an axis tell the stress that the label must have, whatever the engine calls it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np
from ase import Atoms, units

from aiida_alpot.kernel.dataset.frames import read_labels
from aiida_alpot.kernel.jsonio import plain
from aiida_alpot.kernel.units import FloatArray

Outcome = Literal["right", "wrong_sign", "wrong_unit", "wrong", "inconclusive"]
REFUSED: Final = frozenset({"wrong_sign", "wrong_unit", "wrong"})
"""Outcomes after which labels with this stress are not to be fitted."""
UNITS: Final = {
    "GPa": 1.0 / units.GPa,
    "kB": 10.0 / units.GPa,
    "bar": 1e4 / units.GPa,
    "Pa": 1e9 / units.GPa,
    "Ry/bohr³": units.Bohr**3 / units.Ry,
    "Ha/bohr³": units.Bohr**3 / units.Hartree,
}
"""Value of 1 eV/Å³ in other units."""
SMALLEST: Final = 1.0 * units.GPa
"""eV/Å³, largest Pulay stress: below it nothing is concluded, and an isotropic difference that is no larger may be one.

It is ``(2/3V) dE/d ln E_cut``: at 10 Å³ per atom 1 GPa stands for an energy that falls by 9 meV/atom with a cut-off
10 % higher, which no label that is worth fitting has.
"""
PROBE: Final = "stress_probe"
"""``config_type`` of the frames that a labelling adds to check its engine."""
COMPRESSION: Final = (0.95, 0.97, 0.99)
"""Of the frame that the probes are made of, along x, y and z: a solid is then under several GPa, which differ by axis
also if it is cubic, so that a stress of which only the trace is right does not pass."""


@dataclass(frozen=True)
class StressVerdict:
    """Whether a stress is what the energies say.

    :param outcome: ``"right"``, ``"wrong_sign"``, ``"wrong_unit"`` (with either sign), ``"wrong"`` (in no unit, and no
        Pulay stress explains it) or ``"inconclusive"``.
    :param factor: label over the stress from energies, by least squares; NaN if inconclusive.
    :param reason: in words.
    :param expected: stress from energies, shape (3,), eV/Å³: xx, yy, zz; NaN along axes that were not strained.
    """

    outcome: Outcome
    factor: float
    reason: str
    expected: FloatArray


def probe_frames(atoms: Atoms, strain: float = 0.01) -> list[Atoms]:
    """Return the frames to be labelled for :func:`check_stress`: *atoms*, then each axis stretched and compressed.

    Choose a frame that is under stress, of several GPa if the code has a Pulay stress.

    :param atoms: a frame with at least one periodic axis whose cell vector lies along x, y or z.
    :param strain: ε, without unit.
    :return: ``1 + 2 n`` frames without labels: as it is, then +ε and −ε along each of n axes.
    :raises ValueError: if no axis can be strained, or *strain* is not in (0, 0.1].
    """
    if not 0 < strain <= 0.1:
        raise ValueError(f"strain must be in (0, 0.1], got {strain}")
    frames = [_bare(atoms)]
    for axis in _axes(atoms):
        for step in (strain, -strain):
            frames.append(_bare(atoms))
            factors = np.ones(3)
            factors[axis] += step
            frames[-1].set_cell(atoms.cell.array * factors, scale_atoms=True)
    return frames


def check_stress(labelled: Sequence[Atoms], strain: float = 0.01, tolerance: float = 0.15) -> StressVerdict:
    """Compare the stress of a frame with the energies of the same frame strained.

    :param labelled: :func:`probe_frames` with labels of one engine, in their order.
    :param strain: as given to :func:`probe_frames`.
    :param tolerance: share of the factor that may be wrong: a Pulay stress, and the third derivative of the energy.
        Nothing is concluded up to three times as much, nor from a frame whose stress is smaller than :data:`SMALLEST`.
    :raises ValueError: if the frames are not those of :func:`probe_frames`, or labels are missing.
    """
    axes = _axes(labelled[0]) if len(labelled) else []
    if not axes or len(labelled) != 1 + 2 * len(axes):
        raise ValueError(
            f"expected the {1 + 2 * len(axes)} frames of probe_frames with labels, in their order, got {len(labelled)}"
        )
    labels = [read_labels(atoms, f"probe {k}") for k, atoms in enumerate(labelled)]
    if "stress" not in labels[0] or any("energy" not in found for found in labels):
        raise ValueError("every probe needs an energy and the first one a stress: ask the engine for the stress")
    _check_strains(labelled, axes, strain)
    volume = labelled[0].get_volume()
    expected = np.full(3, np.nan)
    for n, axis in enumerate(axes):
        up, down = (float(labels[1 + 2 * n + k]["energy"]) for k in (0, 1))
        expected[axis] = (up - down) / (2.0 * strain * volume)
    return _judge(np.asarray(labels[0]["stress"])[:3], expected, tolerance)


def _judge(stress: FloatArray, expected: FloatArray, tolerance: float) -> StressVerdict:
    known = np.isfinite(expected)
    size = float(np.linalg.norm(expected[known]) / np.sqrt(known.sum()))
    if size < SMALLEST:
        reason = (
            f"the frame is under {size / units.GPa:.2g} GPa only, which a Pulay stress can hide: "
            f"take a frame under more than {SMALLEST / units.GPa:.2g} GPa"
        )
        return StressVerdict("inconclusive", float("nan"), reason, expected)
    label, energies = stress[known], expected[known]
    factor = float(label @ energies / (energies @ energies))
    rest = float(np.linalg.norm(label - factor * energies))
    is_proportional = rest <= 2.0 * tolerance * abs(factor) * np.linalg.norm(energies)
    outcome, reason = _name_factor(factor, tolerance) if is_proportional else (None, "")
    if outcome in (None, "right", "inconclusive") and _lacks_shear(label, energies):
        reason = "the stress is nearly equal along all axes where the energies differ: only its trace can be right; "
        return StressVerdict("wrong", factor, reason + "ask the engine for the whole tensor (VASP: ISIF 2)", expected)
    if outcome is not None:
        return StressVerdict(outcome, factor, reason, expected)
    if _may_be_pulay(label - energies, tolerance * size):
        reason = f"the stress differs from the one from energies as with a Pulay stress (best factor {factor:.3g})"
        return StressVerdict("inconclusive", factor, f"{reason}: a higher cut-off makes it smaller", expected)
    kind = "is off by" if is_proportional else "is not proportional to the one from energies, best factor"
    found = ", ".join(f"{value / units.GPa:.3g}" for value in (*label, *energies))
    reason = f"the stress {kind} {factor:.4g}: no unit that is known, and no Pulay stress is so large; does the k-mesh "
    reason += f"change with strain, or is the stress incomplete? (labels, then energies, in GPa: {found})"
    return StressVerdict("wrong", factor, reason, expected)


def _name_factor(factor: float, tolerance: float) -> tuple[Outcome | None, str]:
    """Return what a factor between stress and energies means, None if it is neither a unit nor near 1."""
    sign = "with the opposite sign (as VASP and Quantum ESPRESSO)" if factor < 0 else "with ASE's sign"
    if abs(factor - 1.0) <= tolerance:
        return "right", f"the stress is what the energies say, factor {factor:.3g}"
    if abs(factor + 1.0) <= tolerance:
        return "wrong_sign", f"the stress is off by {factor:.3g}: it is eV/Å³ {sign}"
    for name, value in UNITS.items():
        if abs(abs(factor) / value - 1.0) <= tolerance:
            return "wrong_unit", f"the stress is off by {factor:.4g}: it looks like {name} {sign}"
    if abs(factor - 1.0) <= 3.0 * tolerance:
        return (
            "inconclusive",
            f"a factor of {factor:.3g} between stress and energies: a Pulay stress, or loosely converged",
        )
    return None, ""


def _lacks_shear(label: FloatArray, energies: FloatArray) -> bool:
    """Return whether axes differ by much less than the energies say; a Pulay stress is isotropic and cancels."""
    wanted, found = energies - energies.mean(), label - label.mean()
    size = float(np.linalg.norm(wanted))
    return size > SMALLEST and float(found @ wanted) < 0.5 * size**2


def _may_be_pulay(difference: FloatArray, scatter: float) -> bool:
    """Return whether a difference is isotropic up to a *scatter* (rms, eV/Å³), and at most :data:`SMALLEST`."""
    mean = float(difference.mean())
    return abs(mean) <= SMALLEST and float(np.std(difference)) <= scatter


def _axes(atoms: Atoms) -> list[int]:
    """Return the Cartesian axes along which all vectors that reach there are periodic."""
    cell = atoms.cell.array
    found = [
        axis
        for axis in range(3)
        if atoms.cell.rank == 3
        and all(atoms.pbc[k] for k in range(3) if abs(cell[k, axis]) > 1e-8 * np.linalg.norm(cell[k]))
    ]
    if not found:
        raise ValueError("no axis can be strained: the stress needs a cell with a periodic axis along x, y or z")
    return found


def _check_strains(labelled: Sequence[Atoms], axes: Sequence[int], strain: float) -> None:
    wanted = probe_frames(labelled[0], strain)
    for k, (atoms, probe) in enumerate(zip(labelled, wanted, strict=True)):
        if len(atoms) != len(probe) or not np.allclose(atoms.cell.array, probe.cell.array, atol=1e-6):
            raise ValueError(
                f"probe {k} is not the one of probe_frames with strain {strain:g} and axes "
                f"{', '.join('xyz'[axis] for axis in axes)}"
            )


def _bare(atoms: Atoms) -> Atoms:
    copy = atoms.copy()
    copy.calc = None
    return copy


def add_probes(frames: Sequence[Atoms]) -> Iterator[Atoms]:
    """Yield frames, and behind them the probes made of the smallest one that is periodic along all axes, if any is."""
    yield from frames
    periodic = [k for k, atoms in enumerate(frames) if all(atoms.pbc)]
    if not periodic:
        return
    smallest = min(periodic, key=lambda k: (len(frames[k]), frames[k].get_volume()))
    base = Atoms(frames[smallest].numbers, frames[smallest].positions, cell=frames[smallest].cell, pbc=True)
    base.arrays |= {name: value for name, value in frames[smallest].arrays.items() if name == "initial_magmoms"}
    base.set_cell(base.cell.array * np.array(COMPRESSION), scale_atoms=True)
    for k, probe in enumerate(probe_frames(base)):
        probe.info.update(config_type=PROBE, group=f"{PROBE}_{k}")
        yield probe


def judge_probes(frames: Iterable[Atoms]) -> dict[str, Any]:
    """Return what the probes say about an engine, as plain values.

    :param frames: those of :func:`add_probes` with their labels, in any order.
    :return: ``outcome`` (see :class:`StressVerdict`; ``"inconclusive"`` also if there are no probes or one has no
        label), ``factor`` (None if it is not known) and ``reason``.
    """
    first: dict[int, Atoms] = {}  # a frame may have several labels, of ionic steps
    for atoms in frames:
        if atoms.calc is not None:
            first.setdefault(int(atoms.info["group"].rpartition("_")[2]), atoms)
    probes = [first[k] for k in sorted(first)]
    try:
        verdict = check_stress(probes)
    except ValueError as error:
        return {"outcome": "inconclusive", "factor": None, "reason": str(error)}
    return {name: value for name, value in plain(asdict(verdict)).items() if name != "expected"}
