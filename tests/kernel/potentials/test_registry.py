"""Engines by name, committees, and the check by finite differences."""

from __future__ import annotations

import json
import pkgutil

import numpy as np
import pytest
from ase.build import bulk, fcc111, molecule

from aiida_alpot.kernel.potentials import (
    Potential,
    Predictions,
    adapters,
    finite_difference_check,
    load,
    predict_committee,
)


@pytest.fixture
def emt(tmp_path) -> Potential:
    (tmp_path / "emt.json").write_text('{"calculator": "ase.calculators.emt:EMT"}')
    return load(tmp_path / "emt.json", "ase")


def rattled(atoms, seed=0):
    atoms.rattle(0.1, seed=seed)
    return atoms


def test_unknown_engine_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"engines \(ase, mace\): unknown key 'mac'; did you mean 'mace'"):
        load("x", "mac")


def test_engines_of_third_parties_travel_in_the_archive(monkeypatch, tmp_path, emt):
    (tmp_path / "their_adapter.py").write_text(
        "from aiida_alpot.kernel.potentials.ase_calculator import AsePotential\n"
        "class Theirs(AsePotential):\n    engine = 'theirs'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    content = {"theirs": "their_adapter:Theirs", "gone": "their_adapter:Gone"}
    monkeypatch.setattr(pkgutil, "get_data", lambda *_: json.dumps(content).encode())
    assert set(adapters()) == {"ase", "mace", "theirs", "gone"}
    assert load(tmp_path / "emt.json", "theirs").engine == "theirs"
    with pytest.raises(ValueError, match="the adapter of 'gone' is not there"):
        load(tmp_path / "emt.json", "gone")


@pytest.mark.parametrize(
    ("text", "message"), [("[]", "expected a mapping"), ('{"ase": "a:B"}', "engine of the kernel")]
)
def test_malformed_adapters_are_refused(monkeypatch, text, message):
    monkeypatch.setattr(pkgutil, "get_data", lambda *_: text.encode())
    with pytest.raises(ValueError, match=message):
        adapters()


def test_committee_keeps_the_order_of_its_members(emt):
    frames = [rattled(bulk("Cu", cubic=True))]
    members = predict_committee([emt, Scaled(emt, 2.0), emt, Scaled(emt, 3.0)], frames)
    single = emt.predict(frames).energy
    np.testing.assert_allclose([member.energy[0] / single[0] for member in members], [1, 2, 1, 3])
    assert predict_committee([], frames) == []


def test_right_derivatives_pass_the_finite_difference_check(emt):
    frames = [rattled(bulk("Cu", cubic=True)), rattled(molecule("CO")), rattled(fcc111("Al", (2, 2, 2), vacuum=4.0))]
    report = finite_difference_check(emt, frames, seed=1)
    assert report["force_relative"] < 1e-6
    assert report["stress_relative"] < 1e-5
    assert report["force_components"] == report["stress_components"] == 12
    assert report == finite_difference_check(emt, frames, seed=1)


def test_forces_wrong_by_five_per_cent_are_found(emt):
    frames = [rattled(bulk("Cu", cubic=True))]
    report = finite_difference_check(Scaled(emt, 1.0, derivatives=1.05), frames, seed=1)
    assert report["force_relative"] > 0.01
    assert report["stress_relative"] > 0.01


def test_molecules_have_no_stress_to_check(emt):
    report = finite_difference_check(emt, [rattled(molecule("CO"))], seed=0, n_components=3)
    assert report["stress_deviation"] is None
    assert report["stress_components"] == 0
    with pytest.raises(ValueError, match="needs a frame"):
        finite_difference_check(emt, [], seed=0)


class Scaled(Potential):
    """Another potential, with energies and derivatives multiplied by a factor each."""

    def __init__(self, base: Potential, energy: float, derivatives: float = 1.0) -> None:
        self.base, self.energy, self.derivatives = base, energy, derivatives
        self.engine, self.species, self.cutoff, self.dtype = "scaled", base.species, base.cutoff, base.dtype

    def predict(self, frames, batch_size=32) -> Predictions:
        found = self.base.predict(frames, batch_size)
        return Predictions(
            found.energy * self.energy, found.forces * self.derivatives, found.stress * self.derivatives, found.offsets
        )
