"""Scans: exact coordinates by ASE, nothing else changed, and coordinates that cannot change alone."""

import math
from collections import Counter

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.data import covalent_radii
from hypothesis import given, settings
from hypothesis import strategies as st

from aiida_alpot.kernel.augmentation import Step, augment
from aiida_alpot.kernel.augmentation.base import NotApplicableError
from aiida_alpot.kernel.augmentation.scan import ScanSettings, make_scans


def scans_of(atoms, **values):
    return list(make_scans(atoms, ScanSettings(**values)))


def points_of(atoms, **values):
    made = scans_of(atoms, **values)
    assert all(isinstance(step, Step) for step in made)
    return made


def reasons_of(atoms, **values):
    return Counter(str(made) for made in scans_of(atoms, **values) if not isinstance(made, Step))


def measured(atoms, members):
    measure = {2: atoms.get_distance, 3: atoms.get_angle, 4: atoms.get_dihedral}
    return measure[len(members)](*members)


def ammonia_borane():
    """Staggered, B–N of 1.66 Å."""
    turns = np.radians([0.0, 120.0, 240.0])
    boron = [[1.15 * np.cos(turn), 1.15 * np.sin(turn), -0.3] for turn in turns]
    nitrogen = [[0.95 * np.cos(turn + np.pi), 0.95 * np.sin(turn + np.pi), 2.02] for turn in turns]
    return Atoms("BNH6", [[0, 0, 0], [0, 0, 1.66], *boron, *nitrogen])


def test_dimers_of_all_pairs_from_a_share_of_the_covalent_radii_to_the_cutoff():
    steps = points_of(bulk("NaCl", "rocksalt", a=5.64), kinds=("dimer",))
    assert Counter(step.text for step in steps) == {f"scan dimer {pair}": 64 for pair in ("Cl-Cl", "Cl-Na", "Na-Na")}
    for k, step in enumerate(steps):
        distance = step.atoms.get_distance(0, 1)
        shortest = 0.6 * covalent_radii[step.atoms.numbers].sum()
        assert distance == pytest.approx(shortest + (k % 64) / 63 * (6.0 - shortest))
        assert step.parameters == {"coordinate": "dimer", "of": list(step.atoms.symbols), "value": distance}
        assert not step.atoms.pbc.any()
        assert not step.atoms.cell.array.any()


def test_dimer_that_is_longer_than_the_cutoff_is_none():
    assert reasons_of(bulk("Cs"), kinds=("dimer",), cutoff=2.0) == {"beyond_cutoff": 1}


def test_trimers_have_bonds_of_the_covalent_radii_and_every_element_in_the_middle():
    steps = points_of(bulk("CuO", "rocksalt", a=4.2), kinds=("trimer",), n_points=7, trimer_range=(70, 180))
    names = ("Cu-Cu-Cu", "Cu-Cu-O", "O-Cu-O", "Cu-O-Cu", "Cu-O-O", "O-O-O")
    assert Counter(step.text for step in steps) == {f"scan trimer {name}": 7 for name in names}
    for k, step in enumerate(steps):
        radii = covalent_radii[step.atoms.numbers]
        angle = 70.0 + 110.0 * (k % 7) / 6
        assert step.atoms.get_angle(0, 1, 2) == pytest.approx(angle, abs=1e-5)
        assert step.parameters["value"] == pytest.approx(angle)
        for end in (0, 2):
            assert step.atoms.get_distance(end, 1) == pytest.approx(radii[end] + radii[1])


def test_trimer_with_ends_that_meet_is_left_out():
    made = scans_of(Atoms("HCs", [[0, 0, 0], [0, 0, 2.5]]), kinds=("trimer",), trimer_range=(30.0, 180.0))
    reasons = [str(step) for step in made if not isinstance(step, Step)]
    assert set(reasons) == {"close_contact"}
    for step in (step for step in made if isinstance(step, Step)):
        radii = covalent_radii[step.atoms.numbers]
        assert step.atoms.get_distance(0, 2) >= 0.6 * (radii[0] + radii[2]) - 1e-9


def test_bond_scan_of_the_paper_moves_one_half_of_ammonia_borane():
    atoms = ammonia_borane()
    steps = points_of(atoms, kinds=(), coordinates=((0, 1),), bond_range=(0.8, 2.5))
    lengths = [step.atoms.get_distance(0, 1) for step in steps]
    assert lengths == pytest.approx(1.66 * np.linspace(0.8, 2.5, 64))
    for step in steps:
        assert step.parameters == {
            "coordinate": "bond",
            "of": [0, 1],
            "value": pytest.approx(measured(step.atoms, (0, 1))),
        }
        for half in ([0, 2, 3, 4], [1, 5, 6, 7]):
            assert step.atoms[half].get_all_distances() == pytest.approx(atoms[half].get_all_distances())


def test_every_bond_angle_and_rotatable_bond_is_found():
    def names(kind):
        return {step.text for step in scans_of(molecule("CH3CH2OH"), kinds=(kind,), n_points=2)}

    assert len(names("bond")) == 8
    assert len(names("angle")) == 6 + 6 + 1
    assert len(names("dihedral")) == 2


@settings(max_examples=20, deadline=None)
@given(
    name=st.sampled_from(["CH3CH2OH", "C2H6", "H2O2", "CH3CHO", "C3H7Cl"]),
    kind=st.sampled_from(["bond", "angle", "dihedral"]),
    n_points=st.integers(2, 7),
    seed=st.integers(0, 1000),
)
def test_coordinate_has_its_value_and_fragments_are_rigid(name, kind, n_points, seed):
    atoms = molecule(name)
    atoms.rotate(*np.random.default_rng(seed).normal(size=(2, 3)))
    made = scans_of(atoms, kinds=(kind,), n_points=n_points)
    for step in (step for step in made if isinstance(step, Step)):
        members = step.parameters["of"]
        difference = measured(step.atoms, members) - step.parameters["value"]
        assert abs((difference + 180.0) % 360.0 - 180.0) < 1e-4
        moved = np.linalg.norm(step.atoms.positions - atoms.positions, axis=1) > 1e-9
        assert not moved[members[0]]
        for part in (moved, ~moved):
            assert step.atoms[part].get_all_distances() == pytest.approx(atoms[part].get_all_distances())
        if kind != "bond":
            lengths = [frame.get_distance(members[-2], members[-1]) for frame in (step.atoms, atoms)]
            assert lengths[0] == pytest.approx(lengths[1])
    assert [step.atoms for step in made if isinstance(step, Step)] == [
        step.atoms for step in scans_of(atoms, kinds=(kind,), n_points=n_points) if isinstance(step, Step)
    ]


def test_full_turn_does_not_repeat_its_first_point_and_a_part_has_both_ends():
    bond = {"kinds": (), "coordinates": ((2, 0, 1, 5),)}
    turn = points_of(ammonia_borane(), **bond, n_points=6)
    values = [(step.parameters["value"] + 1.0) % 360.0 - 1.0 for step in turn]  # 360° is 0
    assert sorted(values) == pytest.approx(np.arange(0.0, 360.0, 60.0), abs=1e-6)
    part = points_of(ammonia_borane(), **bond, n_points=3, dihedral_range=(-60.0, 60.0))
    assert [measured(step.atoms, (2, 0, 1, 5)) for step in part] == pytest.approx([120.0, 180.0, 240.0])


def test_angle_of_a_linear_molecule_is_bent():
    steps = points_of(molecule("CO2"), kinds=("angle",), n_points=4)
    angles = [step.atoms.get_angle(1, 0, 2) for step in steps]
    assert angles == pytest.approx([150.0, 160.0, 170.0, 180.0], abs=1e-4)


def test_two_molecules_are_pulled_apart():
    water = molecule("H2O")
    pair = water.copy()
    pair.extend(Atoms(water.symbols, water.positions + np.array([0.0, 0.0, 3.0])))
    steps = points_of(pair, kinds=(), coordinates=((0, 3),), n_points=5)
    assert [step.atoms.get_distance(0, 3) for step in steps] == pytest.approx([2.4, 3.3, 4.2, 5.1, 6.0])


def test_what_a_ring_holds_is_refused_and_what_hangs_on_it_moves():
    benzene = molecule("C6H6")
    assert reasons_of(benzene, kinds=("bond",), n_points=2) == {"ring": 6}
    assert reasons_of(benzene, kinds=("angle",), n_points=2, angle_range=(-5, 5)) == {"ring": 6}
    assert reasons_of(benzene, kinds=("dihedral",), n_points=2) == {"ring": 6}
    assert len(points_of(benzene, kinds=(), coordinates=((0, 6),), n_points=2, bond_range=(1.0, 1.5))) == 2


@pytest.mark.parametrize(
    ("atoms", "members", "code"),
    [
        (molecule("H2O"), (0, 3), "no_such_atom"),
        (molecule("C2H2"), (3, 0, 1, 2), "linear"),
        (molecule("C2H6"), (2, 0, 1, 3), "not_bonded"),
    ],
)
def test_coordinate_without_meaning_is_refused(atoms, members, code):
    assert reasons_of(atoms, kinds=(), coordinates=(members,)) == {code: 1}


@pytest.mark.parametrize(
    ("atoms", "code"),
    [
        (bulk("Cu"), "not_a_molecule"),
        (Atoms("H"), "no_coordinate"),
        (Atoms("H2", np.zeros((2, 3))), "close_contact"),
        (Atoms("BkO", [[0, 0, 0], [0, 0, 1.9]]), "no_covalent_radius_of_Bk"),
    ],
)
def test_frame_without_internal_coordinates_is_refused(atoms, code):
    with pytest.raises(NotApplicableError, match=code):
        scans_of(atoms, kinds=("bond",))


def test_charge_moments_and_columns_of_the_molecule_stay_and_the_input_too():
    atoms = molecule("H2O")
    atoms.info.update(charge=1.0, source="mine")
    atoms.set_initial_magnetic_moments([1.0, 0.0, 0.0])
    atoms.set_array("site", np.arange(3))
    before = atoms.copy()
    for step in points_of(atoms, kinds=("angle",), n_points=3):
        assert step.atoms.info == {"charge": 1.0, "source": "mine"}
        assert step.atoms.get_initial_magnetic_moments().tolist() == [1.0, 0.0, 0.0]
        assert step.atoms.arrays["site"].tolist() == [0, 1, 2]
    assert atoms == before


@pytest.mark.parametrize("kind", ["bond", "angle"])
def test_molecules_in_a_periodic_box_are_scanned_as_if_they_were_not(kind):
    water = molecule("H2O")
    boxed = water.copy()
    boxed.set_cell([15.0, 15.0, 15.0])
    boxed.pbc = True
    boxed.wrap()
    assert np.ptp(boxed.positions, axis=0).max() > 10.0  # torn apart by the border
    steps, expected = (points_of(atoms, kinds=(kind,), n_points=5) for atoms in (boxed, water))
    assert [step.parameters for step in steps] == [
        {**step.parameters, "value": pytest.approx(step.parameters["value"])} for step in expected
    ]
    for step, reference in zip(steps, expected, strict=True):
        assert step.atoms.pbc.all()
        assert step.atoms.cell.lengths() == pytest.approx([15.0] * 3)
        distances = [step.atoms.get_all_distances(mic=True), reference.atoms.get_all_distances()]
        assert distances[0] == pytest.approx(distances[1])


def test_a_chain_through_the_cell_is_no_molecule():
    chain = Atoms("C2", [[0, 0, 0], [1.3, 0, 0]], cell=[2.6, 12, 12], pbc=True)
    with pytest.raises(NotApplicableError, match="not_a_molecule"):
        scans_of(chain, kinds=("bond",))


def test_a_molecule_beside_a_slab_is_scanned_and_the_slab_is_not():
    frame = fcc111("Cu", (2, 2, 2), a=3.6, vacuum=8.0)
    frame.pbc = True
    water = molecule("H2O")
    water.positions += frame.cell.array.sum(axis=0) / 2 + [0.0, 0.0, 7.0]
    frame.extend(water)
    frame.wrap()
    steps = points_of(frame, kinds=("bond",), n_points=2, bond_range=(0.9, 1.2))
    assert {tuple(step.parameters["of"]) for step in steps} == {(8, 9), (8, 10)}
    assert reasons_of(frame, kinds=(), coordinates=((0, 1), (0, 99)), n_points=2) == {"not_a_molecule": 2}


def test_each_scan_is_a_group_of_its_own_and_is_not_distorted():
    on = {"copies": 2, "rattle": {}, "scan": {"n_points": 5}}
    result = augment([molecule("H2O"), bulk("Cu")], on, 0)
    scans = [atoms for atoms in result.frames if atoms.info["config_type"].startswith("scan")]
    groups = Counter(atoms.info["group"] for atoms in scans)
    assert sorted(groups.values()) == [5] * 6  # H-H, H-O, O-O and two bonds of water, Cu-Cu
    assert {atoms.info["config_type"] for atoms in scans} == {"scan"}
    assert result.report["skipped"]["scan"] == {"not_a_molecule": 1}


@pytest.mark.parametrize(
    "bad",
    [
        {"kinds": ("torsion",)},
        {"kinds": ()},
        {"coordinates": ((0,),)},
        {"coordinates": ((0, 0),)},
        {"coordinates": ((0, -1),)},
        {"coordinates": ((0, 1, 2, 3, 4),)},
        {"n_points": 1},
        {"min_ratio": 0.0},
        {"cutoff": math.nan},
        {"bond_ratio": 0.5},
        {"trimer_range": (60.0, 190.0)},
        {"bond_range": (0.0, 2.0)},
        {"bond_range": (2.0, 1.0)},
        {"angle_range": (0.0, math.nan)},
        {"dihedral_range": (-200.0, 200.0)},
    ],
)
def test_settings_out_of_range_are_named(bad):
    with pytest.raises(ValueError, match=f"'{next(iter(bad))}'"):
        ScanSettings(**bad)
