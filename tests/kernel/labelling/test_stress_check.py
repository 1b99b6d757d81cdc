"""The stress of an engine against its energies."""

from __future__ import annotations

import numpy as np
import pytest
from ase import units
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from aiida_alpot.kernel.labelling.stress_check import add_probes, check_stress, judge_probes, probe_frames


def labelled(atoms, factor=1.0, pulay=0.0, strain=0.01):
    """Label probes with EMT and spoil the stress."""
    frames = probe_frames(atoms, strain)
    for frame in frames:
        frame.calc = EMT()
        energy, forces = frame.get_potential_energy(), frame.get_forces()
        stress = factor * (frame.get_stress() + np.array([1, 1, 1, 0, 0, 0]) * pulay)
        frame.calc = SinglePointCalculator(frame, energy=energy, forces=forces, stress=stress)
    return frames


@pytest.fixture
def crystal():
    """A compressed and sheared crystal, some 10 GPa."""
    atoms = bulk("Cu", "fcc", a=3.5, cubic=True)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.02 * np.eye(3, k=1)), scale_atoms=True)
    return atoms


def test_the_stress_of_a_correct_engine_is_right(crystal):
    verdict = check_stress(labelled(crystal))
    assert verdict.outcome == "right"
    assert verdict.factor == pytest.approx(1.0, abs=0.02)
    np.testing.assert_allclose(verdict.expected, labelled(crystal)[0].get_stress()[:3], rtol=0.02)


def test_the_opposite_sign_is_found(crystal):
    verdict = check_stress(labelled(crystal, factor=-1.0))
    assert verdict.outcome == "wrong_sign"
    assert "opposite sign" in verdict.reason


@pytest.mark.parametrize(
    ("factor", "name"),
    [
        (1 / units.GPa, "GPa with ASE's sign"),
        (-1 / units.GPa, "GPa with the opposite sign"),
        (-10 / units.GPa, "kB with the opposite sign"),
        (-(units.Bohr**3) / units.Ry, "Ry/bohr³ with the opposite sign"),
        (units.Bohr**3 / units.Hartree, "Ha/bohr³ with ASE's sign"),
    ],
)
def test_a_wrong_unit_is_named_with_its_sign(crystal, factor, name):
    verdict = check_stress(labelled(crystal, factor=factor))
    assert verdict.outcome == "wrong_unit"
    assert name in verdict.reason
    assert verdict.factor == pytest.approx(factor, rel=0.02)


@pytest.mark.parametrize("factor", [7.0, -7.0, -0.5, 0.3, 1.6, 1e-3])
def test_a_factor_that_no_unit_has_is_still_wrong(crystal, factor):
    verdict = check_stress(labelled(crystal, factor=factor))
    assert verdict.outcome == "wrong"
    assert "no unit that is known" in verdict.reason


def test_a_stress_of_zero_is_wrong_where_the_energies_say_several_gpa(crystal):
    verdict = check_stress(labelled(crystal, factor=0.0))
    assert (verdict.outcome, verdict.factor) == ("wrong", 0.0)


def with_stress(frames, change):
    """Replace the stress of the first probe by what *change* makes of it."""
    labels = frames[0].calc.results
    frames[0].calc = SinglePointCalculator(frames[0], **{**labels, "stress": change(labels["stress"])})
    return frames


@pytest.mark.parametrize("stretch", [(0.95, 0.97, 0.99), (1.0, 0.93, 0.98)])
def test_a_stress_of_which_only_the_trace_is_right_is_wrong(stretch):
    """As that of VASP with ISIF 1: the pressure on the diagonal; the energy has only the right trace."""
    atoms = bulk("Cu", "fcc", a=3.6, cubic=True)
    atoms.set_cell(atoms.cell.array * np.array(stretch), scale_atoms=True)
    assert check_stress(labelled(atoms)).outcome == "right"
    verdict = check_stress(with_stress(labelled(atoms), lambda s: np.array([1, 1, 1, 0, 0, 0]) * s[:3].mean()))
    assert verdict.outcome == "wrong"
    assert "only its trace can be right" in verdict.reason


def test_the_axes_of_a_stress_exchanged_are_wrong():
    atoms = bulk("Cu", "fcc", a=3.6, cubic=True)
    atoms.set_cell(atoms.cell.array * np.array([1.04, 0.99, 0.95]), scale_atoms=True)
    verdict = check_stress(with_stress(labelled(atoms), lambda s: s[[2, 1, 0, 3, 4, 5]]))
    assert verdict.outcome == "wrong"


def test_the_probes_of_a_cubic_crystal_tell_its_axes_apart():
    probes = list(add_probes([bulk("Cu", "fcc", a=3.6, cubic=True)]))[1:]
    for probe in probes:
        probe.calc = EMT()
        results = {name: probe.calc.get_property(name, probe) for name in ("energy", "forces", "stress")}
        probe.calc = SinglePointCalculator(probe, **results)
    assert judge_probes(probes)["outcome"] == "right"
    pressure = np.array([1, 1, 1, 0, 0, 0]) * probes[0].get_stress()[:3].mean()
    assert judge_probes(with_stress(probes, lambda _: pressure))["outcome"] == "wrong"


def test_an_isotropic_difference_below_a_gpa_may_be_a_pulay_stress_and_a_larger_one_not():
    atoms = bulk("Cu", "fcc", a=3.57, cubic=True)  # under 2 GPa
    assert check_stress(labelled(atoms, pulay=0.9 * units.GPa)).outcome == "inconclusive"
    assert check_stress(labelled(atoms, pulay=1.5 * units.GPa)).outcome == "wrong"


def test_a_small_pulay_stress_is_tolerated_and_a_large_one_is_inconclusive(crystal):
    size = np.abs(labelled(crystal)[0].get_stress()[:3]).mean()
    assert check_stress(labelled(crystal, pulay=-0.05 * size)).outcome == "right"
    assert check_stress(labelled(crystal, pulay=0.3 * size)).outcome == "inconclusive"


def test_a_frame_without_stress_concludes_nothing():
    atoms = bulk("Cu", "fcc", a=3.59, cubic=True)
    assert check_stress(labelled(atoms, factor=-1.0)).outcome == "inconclusive"


def test_only_periodic_axes_are_strained():
    slab = fcc111("Cu", (2, 2, 3), vacuum=6.0, orthogonal=True)
    frames = probe_frames(slab, 0.02)
    assert len(frames) == 5
    for frame in frames:
        np.testing.assert_allclose(frame.cell[2], slab.cell[2])
        np.testing.assert_allclose(frame.positions[:, 2], slab.positions[:, 2])
    np.testing.assert_allclose(frames[1].cell.lengths()[0], 1.02 * slab.cell.lengths()[0])


def test_a_molecule_cannot_be_probed():
    with pytest.raises(ValueError, match="no axis can be strained"):
        probe_frames(molecule("H2O"))


def test_probes_of_another_strain_or_without_labels_are_refused(crystal):
    with pytest.raises(ValueError, match="is not the one of probe_frames"):
        check_stress(labelled(crystal), strain=0.02)
    with pytest.raises(ValueError, match="expected the 7 frames"):
        check_stress(labelled(crystal)[:3])
    with pytest.raises(ValueError, match="ask the engine for the stress"):
        check_stress(probe_frames(crystal))
    with pytest.raises(ValueError, match="strain must be"):
        probe_frames(crystal, 0.5)
