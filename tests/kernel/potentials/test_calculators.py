"""Building calculators from plain data, and the engine "ase"."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms

from aiida_alpot.kernel._extras import MissingPackageError
from aiida_alpot.kernel.potentials import CalculatorSpec, build_calculator, load
from aiida_alpot.kernel.potentials.ase_calculator import evaluate


@pytest.mark.parametrize("path", ["ase.calculators.emt:EMT", "ase.calculators.emt.EMT"])
def test_both_ways_to_write_a_class_are_accepted(path):
    assert isinstance(build_calculator(CalculatorSpec(path)), EMT)


def test_nested_calculators_are_built_first():
    part = {"calculator": "ase.calculators.lj:LennardJones", "parameters": {"sigma": 2.0}}
    spec = CalculatorSpec("ase.calculators.mixing:SumCalculator", {"calcs": [part, part]})
    atoms = molecule("N2")
    single = atoms.copy()
    single.calc = LennardJones(sigma=2.0)
    assert evaluate(build_calculator(spec), atoms)["energy"] == pytest.approx(2 * single.get_potential_energy())


@pytest.mark.parametrize(
    ("path", "parameters", "error", "message"),
    [
        ("nosuchpackage.calc:Foo", {}, MissingPackageError, "needs the package 'nosuchpackage'"),
        ("ase.calculators.emtt:EMT", {}, ValueError, "the package 'ase' has no module 'ase.calculators.emtt'"),
        ("ase.calculators.emt:EMTT", {}, ValueError, "the module 'ase.calculators.emt' has no 'EMTT'"),
        ("ase.calculators.demon:Demon", {"nonsense": 1}, ValueError, "refused its parameters"),
        ("ase.build:bulk", {"name": "Cu"}, TypeError, "gives a Atoms, which is not an ASE calculator"),
        ("ase.units:fs", {}, TypeError, "expected a class or a function"),
    ],
)
def test_what_cannot_be_built_is_named(path, parameters, error, message):
    with pytest.raises(error, match=message):
        build_calculator(CalculatorSpec(path, parameters))


@pytest.mark.parametrize("path", ["EMT", "ase.calculators.emt:", ":EMT", "ase calculators:EMT", ""])
def test_a_malformed_path_is_refused(path):
    with pytest.raises(ValueError, match=r"expected 'package\.module:Name'"):
        CalculatorSpec(path)


def test_a_missing_package_names_itself(tmp_path, monkeypatch):
    (tmp_path / "needs_missing.py").write_text("import nosuchdependency.sub\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(MissingPackageError) as caught:
        build_calculator(CalculatorSpec("needs_missing:Calc"))
    assert caught.value.package == "nosuchdependency"


class Smeared(Calculator):
    """Counts its runs and has a free energy that differs from the energy."""

    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012
    runs = 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        self.runs += 1
        self.results = {"energy": 1.0, "free_energy": 2.0, "forces": np.zeros((len(atoms), 3))}
        if "stress" in properties:
            self.results["stress"] = np.arange(9.0).reshape(3, 3)


def test_evaluation_takes_the_energy_the_forces_belong_to_in_one_run():
    calculator = Smeared()
    results = evaluate(calculator, bulk("Cu"))
    assert results["energy"] == 2.0
    assert results["stress"].shape == (6,)
    assert calculator.runs == 1
    assert "stress" not in evaluate(calculator, molecule("H2O"))


def test_constraints_do_not_zero_the_forces():
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=1)
    free = evaluate(EMT(), atoms)["forces"]
    atoms.set_constraint(FixAtoms([0]))
    np.testing.assert_array_equal(evaluate(EMT(), atoms)["forces"], free)


def write_model(folder: Path, **content) -> Path:
    path = folder / "model.json"
    path.write_text(json.dumps({"calculator": "ase.calculators.emt:EMT"} | content))
    return path


def test_ase_engine_predicts_what_its_calculator_gives(tmp_path):
    frames = [bulk("Cu", cubic=True), bulk("Al"), molecule("CO")]
    frames[0].rattle(0.1, seed=0)
    predicted = load(write_model(tmp_path), "ase").predict(frames)
    for k, atoms in enumerate(frames):
        atoms.calc = EMT()
        assert predicted.energy[k] == pytest.approx(atoms.get_potential_energy(), abs=1e-12)
        np.testing.assert_allclose(predicted.frame(k).forces, atoms.get_forces(), atol=1e-12)
    np.testing.assert_allclose(predicted.stress[0], frames[0].get_stress(), atol=1e-12)
    assert np.isnan(predicted.stress[2]).all()


def test_ase_engine_knows_the_species_and_cutoff_it_was_given(tmp_path):
    potential = load(write_model(tmp_path, species=[29, 13], cutoff=5.4), "ase")
    assert (potential.species, potential.cutoff, potential.engine) == ((13, 29), 5.4, "ase")
    with pytest.raises(ValueError, match="frame 0 contains Ag"):
        potential.predict([bulk("Ag")])
    assert isinstance(potential.calculator(), EMT)
    with pytest.raises(ValueError, match="no features of kind 'last_layer'"):
        potential.features([bulk("Cu")])
    assert potential.predict([]).n_frames == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json", "is not a JSON text"),
        ("[]", "expected a JSON object"),
        ('{"calculater": "a.b:C"}', "did you mean 'calculator'"),
        ('{"calculator": "ase.calculators.emt:EMT", "species": [0]}', "species"),
        ('{"calculator": "ase.calculators.emt:EMT", "cutoff": -1}', "cutoff must be positive"),
    ],
)
def test_a_malformed_ase_model_is_refused(tmp_path, text, message):
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "model.json", "ase")
