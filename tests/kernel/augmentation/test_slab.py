"""Slabs: terminations of known surfaces, thickness, caps, and what is kept of the crystal."""

import math

import numpy as np
import pytest
from ase import Atoms
from ase.build import bcc110, bulk, fcc100, fcc110, fcc111, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.neighborlist import neighbor_list
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from aiida_alpot.kernel.augmentation.base import NotApplicableError, Step
from aiida_alpot.kernel.augmentation.slab import SlabSettings, make_slabs
from aiida_alpot.kernel.geometry import nearest_neighbour_distance, perpendicular_heights

pytest.importorskip("spglib")

ROCKSALT = bulk("NaCl", "rocksalt", a=5.64)
ZINCBLENDE = bulk("ZnS", "zincblende", a=5.41)


def slabs_of(atoms, **values):
    made = list(make_slabs(atoms, SlabSettings(**values)))
    assert all(isinstance(step, Step) for step in made)
    return made


def slab_of(atoms, plane, **values):
    (step,) = slabs_of(atoms, planes=(plane,), **values)
    return step.atoms


def faces(slab):
    """Species of the lowest and of the highest layer."""
    heights = slab.positions[:, 2]
    return tuple(
        "".join(sorted(set(slab.symbols[np.abs(heights - edge) < 0.1]))) for edge in (heights.min(), heights.max())
    )


def terminations(atoms, plane, **values):
    return [faces(step.atoms) for step in slabs_of(atoms, planes=(plane,), **values)]


def layers(slab):
    return len(np.unique(slab.positions[:, 2].round(3)))


def test_defaults_cut_the_planes_of_the_paper_with_its_thickness_and_vacuum():
    steps = slabs_of(bulk("Cu"))
    assert [step.text for step in steps] == [f"slab {plane} termination 1" for plane in ("100", "110", "111")]
    for step in steps:
        slab = step.atoms
        assert slab.pbc.tolist() == [True, True, False]
        thickness = np.ptp(slab.positions[:, 2])
        assert 10.0 <= thickness < 10.0 + 2.1
        assert slab.cell[2] == pytest.approx([0.0, 0.0, thickness + 15.0])
        assert slab.positions[:, 2].min() == pytest.approx(7.5)
        assert slab.cell[:2, 2] == pytest.approx(np.zeros(2))
        assert perpendicular_heights(slab.cell.array, slab.pbc).min() >= 10.0


@pytest.mark.parametrize(
    ("builder", "plane", "element"),
    [(fcc100, (1, 0, 0), "Cu"), (fcc110, (1, 1, 0), "Cu"), (fcc111, (1, 1, 1), "Cu")],
    ids=["fcc100", "fcc110", "fcc111"],
)
def test_surface_energy_is_that_of_the_slab_that_ase_builds(builder, plane, element):
    ours = slab_of(bulk(element), plane, min_width=1.0)
    theirs = builder(element, (1, 1, layers(ours)), vacuum=7.5)
    energies = []
    for slab in (ours, theirs):
        slab.calc = EMT()
        energies.append(slab.get_potential_energy() / len(slab))
    assert energies[0] == pytest.approx(energies[1], abs=1e-9)


def test_bcc_surface_has_the_atom_density_of_the_slab_that_ase_builds():
    ours = slab_of(bulk("Fe"), (1, 1, 0), min_width=1.0)
    theirs = bcc110("Fe", (1, 1, layers(ours)), vacuum=7.5)
    areas = [np.linalg.norm(np.cross(*slab.cell[:2])) / len(slab) for slab in (ours, theirs)]
    assert areas[0] == pytest.approx(areas[1])


# textbook: neutral planes of rocksalt, polar (111); one and three broken bonds at diamond (111)
@pytest.mark.parametrize(
    ("atoms", "plane", "expected"),
    [
        (ROCKSALT, (1, 0, 0), [("ClNa", "ClNa")]),
        (ROCKSALT, (1, 1, 0), [("ClNa", "ClNa")]),
        (ROCKSALT, (1, 1, 1), [("Cl", "Na")]),
        (bulk("Si"), (1, 1, 1), [("Si", "Si")] * 2),
        (bulk("Si"), (1, 0, 0), [("Si", "Si")]),
        (bulk("Ti"), (0, 0, 1), [("Ti", "Ti")]),
        (bulk("Ti"), (1, 0, 0), [("Ti", "Ti")] * 2),
        (ZINCBLENDE, (1, 1, 0), [("SZn", "SZn")]),
        (ZINCBLENDE, (1, 0, 0), [("S", "Zn")]),
    ],
    ids=["NaCl100", "NaCl110", "NaCl111", "Si111", "Si100", "Ti001", "Ti100", "ZnS110", "ZnS100"],
)
def test_distinct_terminations_with_the_composition_of_the_crystal(atoms, plane, expected):
    found = terminations(atoms, plane)
    assert sorted(tuple(sorted(pair)) for pair in found) == sorted(expected)


def test_polar_plane_has_two_terminations_of_equal_faces():
    steps = slabs_of(ROCKSALT, planes=((1, 1, 1),), equal_faces=True)
    assert sorted(faces(step.atoms) for step in steps) == [("Cl", "Cl"), ("Na", "Na")]
    for step in steps:
        counts = np.unique(step.atoms.numbers, return_counts=True)[1]
        assert np.ptp(counts) * layers(step.atoms) == len(step.atoms)  # one layer more of one species
        assert np.ptp(step.atoms.positions[:, 2]) >= 10.0


def test_equal_faces_keep_the_composition_where_it_allows_them():
    for plane in ((1, 0, 0), (1, 1, 0)):
        slab = slab_of(ROCKSALT, plane, equal_faces=True)
        assert np.ptp(np.unique(slab.numbers, return_counts=True)[1]) == 0


def test_crystal_that_cannot_be_turned_round_keeps_its_two_sides():
    pairs = terminations(ZINCBLENDE, (1, 1, 1), equal_faces=True)
    assert sorted(tuple(sorted(pair)) for pair in pairs) == [("S", "Zn"), ("S", "Zn")]


@pytest.mark.parametrize("plane", [(1, 1, 1), (1, 1, 0), (1, 0, 0), (2, 1, 0)])
@pytest.mark.parametrize("structure", ["rocksalt", "zincblende"])
def test_terminations_and_layers_agree_with_pymatgen(structure, plane):
    surface = pytest.importorskip("pymatgen.core.surface")
    adaptor = pytest.importorskip("pymatgen.io.ase").AseAtomsAdaptor
    conventional = bulk("ZnS", structure, a=5.4, cubic=True)
    generator = surface.SlabGenerator(adaptor.get_structure(conventional), plane, 10.0, 15.0)
    theirs = [adaptor.get_atoms(slab) for slab in generator.get_slabs()]
    ours = [step.atoms for step in slabs_of(bulk("ZnS", structure, a=5.4), planes=(plane,))]
    assert len(ours) == len(theirs)
    assert [atoms_per_layer_and_area(slab) for slab in ours] == pytest.approx(
        [atoms_per_layer_and_area(slab) for slab in theirs]
    )


def atoms_per_layer_and_area(slab):
    normal = np.cross(*slab.cell[:2])
    n_layers = len(np.unique((slab.positions @ normal / np.linalg.norm(normal)).round(2)))
    return len(slab) / n_layers / np.linalg.norm(normal)


@pytest.mark.parametrize("element", ["Cu", "Si", "Ti", "Fe"])
def test_primitive_conventional_and_supercell_give_the_same_surfaces(element):
    primitive = bulk(element)
    inputs = [primitive, primitive * (2, 1, 3)]
    if element != "Ti":
        inputs.append(bulk(element, cubic=True))
    signatures = []
    for atoms in inputs:
        atoms.rotate(33.0, (1, 2, 3), rotate_cell=True)
        signatures.append(sorted(signature(step) for step in slabs_of(atoms, min_width=1.0)))
    assert signatures[1:] == signatures[:1] * (len(inputs) - 1)


def signature(step):
    """What does not depend on the orientation of a slab: size, layers, and its energy in a pair potential."""
    slab = step.atoms
    area = np.linalg.norm(np.cross(*slab.cell[:2]))
    energy = np.exp(-neighbor_list("d", slab, 6.0)).sum()
    return step.text[:8], len(slab), round(area, 3), layers(slab), round(energy, 2)


@pytest.mark.parametrize("max_atoms", [1, 2, 7, 20, 60, 450])
@pytest.mark.parametrize("equal_faces", [False, True])
@pytest.mark.parametrize("atoms", [bulk("Cu"), ROCKSALT, bulk("Si", cubic=True)], ids=["Cu", "NaCl", "Si"])
def test_cap_is_never_exceeded_and_no_slab_is_empty(atoms, equal_faces, max_atoms):
    values = SlabSettings(max_index=2, max_atoms=max_atoms, equal_faces=equal_faces)
    for made in make_slabs(atoms, values):
        if isinstance(made, Step):
            assert 1 <= len(made.atoms) <= max_atoms
            assert nearest_neighbour_distance(made.atoms) >= nearest_neighbour_distance(atoms) - 1e-6
        else:
            assert str(made) == "above_max_atoms"


def test_cap_takes_layers_first_and_names_what_does_not_fit():
    thin = slab_of(bulk("Cu"), (1, 1, 1), max_atoms=3, min_thickness=30.0)
    assert layers(thin) == len(thin) == 3
    (reason,) = make_slabs(ROCKSALT, SlabSettings(planes=((1, 0, 0),), max_atoms=1))
    assert isinstance(reason, NotApplicableError)
    assert str(reason) == "above_max_atoms"


@pytest.mark.parametrize(
    ("atoms", "reason"),
    [(molecule("H2O"), "not_a_crystal"), (fcc111("Cu", (1, 1, 3), vacuum=8.0, periodic=True), "holds_vacuum")],
)
def test_what_is_no_crystal_has_no_slabs(atoms, reason):
    with pytest.raises(NotApplicableError, match=reason):
        next(make_slabs(atoms, SlabSettings()))


def test_moments_user_columns_and_charge_follow_the_atoms_and_labels_do_not():
    atoms = ROCKSALT * (1, 1, 2)
    atoms.set_initial_magnetic_moments([1.0, -1.0] * 2)
    atoms.set_array("site", np.where(atoms.symbols == "Na", 1, 2))
    atoms.set_array("forces", np.ones((4, 3)))
    atoms.set_constraint(FixAtoms([0]))
    atoms.info.update(charge=2.0, source="mine", energy=-1.0)
    atoms.calc = EMT()
    for step in slabs_of(atoms):
        slab = step.atoms
        assert (slab.arrays["site"] == np.where(slab.symbols == "Na", 1, 2)).all()
        assert (slab.get_initial_magnetic_moments() == np.where(slab.symbols == "Na", 1.0, -1.0)).all()
        assert slab.info["charge"] == pytest.approx(0.5 * len(slab))
        assert slab.info["source"] == "mine"
        assert "energy" not in slab.info
        assert "forces" not in slab.arrays
        assert slab.calc is None
        assert not slab.constraints


def test_parameters_say_what_was_cut():
    steps = slabs_of(bulk("Si"), planes=((1, 1, 1),), max_terminations=1)
    assert [dict(step.parameters) for step in steps] == [{"miller": [1, 1, 1], "termination": 1, "n_terminations": 2}]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n_atoms=st.integers(1, 8),
    plane=st.tuples(*[st.integers(-2, 2)] * 3),
    equal_faces=st.booleans(),
)
def test_slabs_of_any_crystal_are_pieces_of_it(seed, n_atoms, plane, equal_faces):
    assume(any(plane))
    rng = np.random.default_rng(seed)
    cell = np.diag(rng.uniform(2.5, 6.0, 3)) + rng.uniform(-1.0, 1.0, (3, 3))
    atoms = Atoms(rng.choice([8, 12], n_atoms), rng.uniform(0.0, 6.0, (n_atoms, 3)), cell=cell, pbc=True)
    assume(nearest_neighbour_distance(atoms) > 0.3)
    values = SlabSettings(planes=(plane,), equal_faces=equal_faces, min_width=6.0, max_atoms=200)
    made = list(make_slabs(atoms, values))
    assert 1 <= len(made) <= min(n_atoms, 10)
    for step, again in zip(made, make_slabs(atoms, values), strict=True):
        slab = step.atoms
        assert slab.positions.tobytes() == again.atoms.positions.tobytes()
        assert slab.pbc.tolist() == [True, True, False]
        assert slab.cell[2, 2] - np.ptp(slab.positions[:, 2]) == pytest.approx(15.0)
        assert 1 <= len(slab) <= 200
        assert nearest_neighbour_distance(slab) >= nearest_neighbour_distance(atoms) - 1e-6
        # without symmetry slabs consist of whole cells
        counts = [np.bincount(frame.numbers, minlength=13) for frame in (slab, atoms)]
        assert (counts[0] * n_atoms == counts[1] * len(slab)).all() or equal_faces
        assert (slab.get_scaled_positions(wrap=False)[:, :2] > -1e-6).all()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("planes", ((0, 0, 0),)),
        ("planes", ()),
        ("max_index", 0),
        ("max_index", 7),
        ("min_thickness", 0.0),
        ("min_width", math.nan),
        ("vacuum", -1.0),
        ("max_atoms", 0),
        ("max_terminations", 0),
        ("symprec", 0.0),
    ],
)
def test_settings_out_of_range_are_named(name, value):
    with pytest.raises(ValueError, match=f"'{name}'"):
        SlabSettings(**{name: value})
