"""Adapter for anything ASE can calculate: the "model" is a JSON text that names a calculator.

It makes classical potentials (EMT, Stillinger-Weber, a tight-binding code) members of a committee, references of a
validation, or stand-ins for a trained potential in tests::

    {"calculator": "ase.calculators.emt:EMT", "parameters": {}, "species": [13, 29], "cutoff": 5.4}
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.data import chemical_symbols

from aiida_alpot.kernel.jsonio import read_json
from aiida_alpot.kernel.potentials.base import (
    BATCH_SIZE,
    Potential,
    Predictions,
    check_species,
    has_stress,
    offsets_of,
    voigt_stress,
)
from aiida_alpot.kernel.potentials.calculators import CalculatorSpec, build_calculator
from aiida_alpot.kernel.settings import parse_settings

ALL_SPECIES = tuple(range(1, len(chemical_symbols)))


@dataclass(frozen=True)
class AseModel:
    """What the JSON text says.

    :param calculator: class of the calculator, see :class:`~.calculators.CalculatorSpec`.
    :param parameters: keyword arguments of its constructor.
    :param species: atomic numbers it is meant for; empty means that it decides itself.
    :param cutoff: its range, Å, None if not known.
    """

    calculator: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    species: tuple[int, ...] = ()
    cutoff: float | None = None

    def __post_init__(self) -> None:
        if any(not 1 <= number < len(chemical_symbols) for number in self.species):
            raise ValueError(f"species: expected atomic numbers, got {list(self.species)}")
        if self.cutoff is not None and self.cutoff <= 0:
            raise ValueError(f"cutoff must be positive, got {self.cutoff}")


class AsePotential(Potential):
    """A potential that is an ASE calculator.

    :param path: the JSON file.
    :param device: accepted for the common signature; the calculator decides where it runs.
    :param dtype: only ``"float64"``.
    :raises ValueError: if the file is not such a JSON text or the calculator cannot be built.
    :raises MissingPackageError: if the package of the calculator is not installed.
    """

    engine = "ase"

    def __init__(self, path: str | Path, device: str = "cpu", dtype: str = "float64") -> None:
        del device
        if dtype != "float64":
            raise ValueError(f"an ASE calculator works in float64, got dtype {dtype!r}")
        model = _read_model(Path(path))
        self.dtype = dtype
        self.species = tuple(sorted(model.species)) or ALL_SPECIES
        self.cutoff = math.nan if model.cutoff is None else model.cutoff
        self._spec = CalculatorSpec(model.calculator, model.parameters)
        self._calculator = build_calculator(self._spec)

    def predict(self, frames: Sequence[Atoms], batch_size: int = BATCH_SIZE) -> Predictions:
        """Return energies, forces and stresses, one frame after the other, see :meth:`Potential.predict`.

        Nothing is remembered from one frame to the next, so that the order of the frames does not matter. A stress
        the calculator does not implement is NaN.
        """
        del batch_size
        check_species(frames, self.species)
        offsets = offsets_of(frames)
        energy = np.empty(len(frames))
        forces = np.empty((int(offsets[-1]), 3))
        stress = np.full((len(frames), 6), np.nan)
        for k, atoms in enumerate(frames):
            results = evaluate(self._calculator, atoms)
            energy[k] = results["energy"]
            forces[offsets[k] : offsets[k + 1]] = results["forces"]
            if "stress" in results:
                stress[k] = results["stress"]
        return Predictions(energy, forces, stress, offsets)

    def calculator(self) -> Calculator:
        """Return a new calculator of the same kind."""
        return build_calculator(self._spec)


def evaluate(calculator: Calculator, atoms: Atoms) -> dict[str, Any]:
    """Return ``energy`` (eV), ``forces`` (eV/Å), ``stress`` (eV/Å³, Voigt) and ``magmoms`` of one structure.

    The energy is the one the forces are the derivative of (ASE's ``free_energy`` where there is one: with smeared
    occupations the two differ). Stress and magnetic moments are left out where they are not defined or not
    implemented. All is asked for in one call: some codes run again when the forces are asked for after the energy.
    The calculator is reset first, so that a result does not depend on what was calculated before.

    :param calculator: any ASE calculator.
    :param atoms: the structure; neither it nor its calculator is changed, constraints are ignored.
    :raises KeyError: if the calculator gives no energy or no forces.
    """
    structure = atoms.copy()
    structure.set_constraint()
    wanted = ["energy", "forces"]
    implemented = getattr(calculator, "implemented_properties", ())
    if has_stress(structure) and "stress" in implemented:
        wanted.append("stress")
    results = _results(calculator, structure, wanted)
    free_energy = results.get("free_energy")
    found: dict[str, Any] = {
        "energy": results["energy"] if free_energy is None else free_energy,
        "forces": np.array(results["forces"], dtype=np.float64),
    }
    if "stress" in wanted and results.get("stress") is not None:
        found["stress"] = voigt_stress(results["stress"])
    if results.get("magmoms") is not None:
        found["magmoms"] = np.array(results["magmoms"], dtype=np.float64)
    return found


def _results(calculator: Any, structure: Atoms, wanted: list[str]) -> dict[str, Any]:
    if hasattr(calculator, "reset"):
        calculator.reset()
    if hasattr(calculator, "get_property"):
        # the first call runs the code with everything that is wanted, the next find the results
        if hasattr(calculator, "calculate"):
            calculator.calculate(structure, wanted, _ALL_CHANGES)
            results = dict(calculator.results)
        else:
            results = {}
        return {name: calculator.get_property(name, structure) for name in wanted if name not in results} | results
    structure.calc = calculator
    results = {"energy": structure.get_potential_energy(), "forces": structure.get_forces()}
    return results | ({"stress": structure.get_stress()} if "stress" in wanted else {})


_ALL_CHANGES = ["positions", "numbers", "cell", "pbc", "initial_charges", "initial_magmoms"]


def _read_model(path: Path) -> AseModel:
    if not path.is_file():
        raise FileNotFoundError(f"there is no model file {path}")
    try:
        values = read_json(path)
    except (ValueError, RecursionError) as error:
        message = "is not a JSON text with the key 'calculator', expected a JSON object"
        raise ValueError(f"{path} {message}: {error}") from error
    return parse_settings(AseModel, values, str(path))
