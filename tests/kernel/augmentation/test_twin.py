"""Twins and tilt boundaries: coherent twins, mirror symmetry, distances and composition."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.neighborlist import neighbor_list
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from aiida_alpot.kernel.augmentation.base import DroppedFrameError, NotApplicableError, Step
from aiida_alpot.kernel.augmentation.twin import TwinSettings, make_twins
from aiida_alpot.kernel.geometry import closest_pair_ratio, nearest_neighbour_distance

pytest.importorskip("spglib")

ROCKSALT = bulk("NaCl", "rocksalt", a=5.64)


def twins_of(atoms, **values):
    return [item for item in make_twins(atoms, TwinSettings(**values)) if isinstance(item, Step)]


def reasons_of(atoms, **values):
    return [str(item) for item in make_twins(atoms, TwinSettings(**values)) if not isinstance(item, Step)]


def twin_of(atoms, plane, mirror, **values):
    """The boundary without shift at one mirror."""
    (step,) = (step for step in twins_of(atoms, planes=(plane,), **values) if step.parameters["mirror"] == mirror)
    return step.atoms


def boundary_energy(twin, crystal):
    """Energy per area of the two boundaries of a cell, mJ/m²."""
    energies = []
    for frame in (twin.copy(), crystal.copy()):
        frame.calc = EMT()
        energies.append(frame.get_potential_energy() / len(frame))
    area = 2.0 * np.linalg.norm(np.cross(*twin.cell[:2]))
    return (energies[0] - energies[1]) * len(twin) / area * 16021.77


def coordination(atoms, reach):
    return np.bincount(neighbor_list("i", atoms, reach), minlength=len(atoms))


@pytest.mark.parametrize("crystal", [bulk("Cu", a=3.6), bulk("Cu", a=3.6, cubic=True)], ids=["primitive", "cubic"])
def test_coherent_twin_of_fcc_keeps_all_neighbours_and_the_density(crystal):
    twin = twin_of(crystal, (1, 1, 1), "layer 1")
    assert (coordination(twin, 3.0) == 12).all()
    assert nearest_neighbour_distance(twin) == pytest.approx(3.6 / np.sqrt(2))
    assert twin.get_volume() / len(twin) == pytest.approx(3.6**3 / 4)
    assert twin.pbc.all()
    assert twin.cell[2, 2] >= 20.0


@pytest.mark.parametrize("element", ["Cu", "Ni", "Al", "Pd"])
def test_coherent_twin_costs_much_less_than_other_boundaries(element):
    crystal = bulk(element)
    coherent = boundary_energy(twin_of(crystal, (1, 1, 1), "layer 1"), crystal)
    on_top = boundary_energy(twin_of(crystal, (1, 1, 1), "gap 1"), crystal)
    tilt = [boundary_energy(step.atoms, crystal) for step in twins_of(crystal, planes=((0, 1, 2),))]
    assert abs(coherent) < 0.05 * on_top
    assert 0.0 < abs(coherent) < 0.05 * min(tilt)


def test_coherent_twin_of_diamond_lies_between_two_layers_and_keeps_four_bonds():
    twin = twin_of(bulk("Si"), (1, 1, 1), "gap 1")
    assert (coordination(twin, 2.7) == 4).all()
    assert twin.get_volume() / len(twin) == pytest.approx(bulk("Si").get_volume() / 2)


def test_twin_of_bcc_has_the_known_distance_across_the_mirror():
    twin = twin_of(bulk("Fe", a=2.87), (1, 1, 2), "layer 1")
    # two layers of a/sqrt(6) apart on either side: 0.816 a instead of 0.866 a
    assert nearest_neighbour_distance(twin) == pytest.approx(2 / np.sqrt(6) * 2.87)
    assert twin.get_volume() / len(twin) == pytest.approx(2.87**3 / 2)


@pytest.mark.parametrize("plane", [(1, 0, 0), (1, 1, 0)])
def test_mirror_planes_of_the_crystal_make_no_boundary(plane):
    assert reasons_of(bulk("Cu"), planes=(plane,)) == ["mirror_plane"]
    assert twins_of(bulk("Cu"), planes=(plane,)) == []


@pytest.mark.parametrize("plane", [(1, 1, 1), (1, 1, 2), (0, 1, 2), (0, 1, 3), (1, 1, 3), (2, 2, 1)])
def test_each_grain_is_the_mirror_image_of_the_other(plane):
    for step in twins_of(bulk("Cu"), planes=(plane,)):
        mirrored = step.atoms.copy()
        mirrored.positions[:, 2] *= -1.0
        both = step.atoms + mirrored
        # every atom has its image on a site of the twin
        first, second = neighbor_list("ij", both, 1e-4)
        half = len(step.atoms)
        assert set(first[(first < half) & (second >= half)]) == set(range(half))


@pytest.mark.parametrize("crystal", [bulk("Cu"), bulk("Fe"), bulk("Ti"), bulk("Si"), ROCKSALT])
def test_atoms_across_a_boundary_keep_their_distance_and_the_composition_is_kept(crystal):
    values = TwinSettings(planes=((1, 1, 1), (1, 1, 2), (0, 1, 2), (0, 1, 3)))
    for made in make_twins(crystal, values):
        if isinstance(made, Step):
            twin = made.atoms
            assert closest_pair_ratio(twin) >= 0.7 * closest_pair_ratio(crystal) - 1e-6
            assert len(twin) <= 450
            counts = [np.bincount(frame.numbers, minlength=100) for frame in (twin, crystal)]
            assert (counts[0] * len(crystal) == counts[1] * len(twin)).all()
            density = twin.get_volume() / len(twin) / (crystal.get_volume() / len(crystal))
            assert 1.0 - 1e-9 < density < 1.2  # merged atoms leave room
        else:
            assert str(made) == "close_contact"


def test_rigid_shift_turns_the_mirror_in_a_gap_into_the_coherent_twin():
    steps = twins_of(bulk("Cu"), planes=((1, 1, 1),), n_shifts=3)
    shifted = [step for step in steps if step.parameters["mirror"] == "gap 1" and any(step.parameters["shift"])]
    assert shifted[0].text.startswith("twin 111 gap 1 shift ")
    coherent = [step for step in shifted if (coordination(step.atoms, 3.0) == 12).all()]
    assert {round(float(np.linalg.norm(step.parameters["shift"])), 4) for step in coherent} == {0.4082}
    assert len(coherent) == 2


def test_too_close_atoms_are_named():
    made = list(make_twins(bulk("Cu"), TwinSettings(planes=((1, 1, 1),), n_shifts=2, min_ratio=0.99)))
    assert {str(item) for item in made if isinstance(item, DroppedFrameError)} == {"close_contact"}
    nearest = nearest_neighbour_distance(bulk("Cu"))
    assert all(nearest_neighbour_distance(item.atoms) >= 0.99 * nearest for item in made if isinstance(item, Step))


@pytest.mark.parametrize("max_atoms", [1, 3, 4, 30, 450])
def test_cap_is_never_exceeded_and_what_does_not_fit_is_named(max_atoms):
    for made in make_twins(bulk("Cu"), TwinSettings(planes=((1, 1, 1),), max_atoms=max_atoms)):
        if isinstance(made, Step):
            assert 4 <= len(made.atoms) <= max_atoms
        else:
            assert str(made) == "above_max_atoms"
            assert max_atoms < 4


def test_molecule_is_no_crystal():
    with pytest.raises(NotApplicableError, match="not_a_crystal"):
        next(make_twins(molecule("H2O"), TwinSettings()))


def test_moments_columns_and_charge_follow_the_atoms():
    atoms = ROCKSALT.copy()
    atoms.set_initial_magnetic_moments([1.0, -1.0])
    atoms.set_array("site", np.array([1, 2]))
    atoms.info["charge"] = 1.0
    for step in twins_of(atoms, planes=((1, 1, 1),)):
        twin = step.atoms
        assert (twin.arrays["site"] == np.where(twin.symbols == "Na", 1, 2)).all()
        assert (twin.get_initial_magnetic_moments() == np.where(twin.symbols == "Na", 1.0, -1.0)).all()
        assert twin.info["charge"] == pytest.approx(0.5 * len(twin))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), n_atoms=st.integers(1, 4), plane=st.tuples(*[st.integers(-2, 2)] * 3))
def test_any_crystal_has_twins_or_reasons(seed, n_atoms, plane):
    assume(any(plane))
    rng = np.random.default_rng(seed)
    cell = np.diag(rng.uniform(2.5, 5.0, 3)) + rng.uniform(-1.0, 1.0, (3, 3))
    atoms = Atoms(rng.choice([8, 12], n_atoms), rng.uniform(0.0, 6.0, (n_atoms, 3)), cell=cell, pbc=True)
    assume(nearest_neighbour_distance(atoms) > 0.3)
    values = TwinSettings(planes=(plane,), min_width=4.0, max_atoms=150)
    made, again = (list(make_twins(atoms, values)) for _ in range(2))
    assert len(made) >= 1
    for item, same in zip(made, again, strict=True):
        if not isinstance(item, Step):
            assert str(item) in ("mirror_plane", "above_max_atoms", "close_contact")
            continue
        twin = item.atoms
        assert twin.positions.tobytes() == same.atoms.positions.tobytes()
        assert twin.pbc.all()
        assert len(twin) <= 150
        assert closest_pair_ratio(twin) >= 0.7 * closest_pair_ratio(atoms) - 1e-6
        counts = [np.bincount(frame.numbers, minlength=13) for frame in (twin, atoms)]
        assert (counts[0] * n_atoms == counts[1] * len(twin)).all()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("planes", ((0, 0, 0),)),
        ("n_shifts", 0),
        ("min_ratio", 0.0),
        ("min_thickness", 0.0),
        ("min_width", -1.0),
        ("max_atoms", 0),
    ],
)
def test_settings_out_of_range_are_named(name, value):
    with pytest.raises(ValueError, match=f"'{name}'"):
        TwinSettings(**{name: value})
