"""The stress of an engine against its energies."""

from __future__ import annotations

import numpy as np
import pytest
from ase import units
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from aiida_alpot.kernel.labelling.stress_check import check_stress, probe_frames


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


def test_a_factor_that_no_unit_has_is_still_wrong(crystal):
    verdict = check_stress(labelled(crystal, factor=7.0))
    assert verdict.outcome == "inconclusive"
    assert "no unit that is known" in verdict.reason


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
