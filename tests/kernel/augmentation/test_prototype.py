"""Elements in prototypes: the structures they are, none twice, at volumes from radii or of the lowest energy."""

import itertools
import json
import math

import numpy as np
import pytest
import spglib
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.data import covalent_radii
from hypothesis import given, settings
from hypothesis import strategies as st

from aiida_alpot.kernel.augmentation import augment
from aiida_alpot.kernel.augmentation.base import DroppedFrameError, NotApplicableError, Step
from aiida_alpot.kernel.augmentation.duplicates import NearDuplicates
from aiida_alpot.kernel.augmentation.prototype import (
    PROTOTYPES,
    DecorateSettings,
    PrototypeSettings,
    decorate,
    make_prototypes,
)
from aiida_alpot.kernel.augmentation.volume import fit_volume
from aiida_alpot.kernel.geometry import closest_pair_ratio

ELEMENTS = ("Cu", "Au", "O", "Na")


def made(given: PrototypeSettings, elements=ELEMENTS, seed=0, energy=None) -> list[Step | DroppedFrameError]:
    return list(make_prototypes(elements, given, np.random.default_rng(seed), energy))


def same_structure(one: Atoms, other: Atoms) -> bool:
    seen = NearDuplicates(1e-2)
    seen.is_known(one)
    return seen.is_known(other)


@pytest.mark.parametrize("name", PROTOTYPES)
def test_a_prototype_is_the_primitive_cell_of_its_space_group(name):
    prototype = PROTOTYPES[name]
    atoms = prototype.occupy(ELEMENTS[: prototype.n_species])
    spglib_cell = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
    assert spglib.get_symmetry_dataset(spglib_cell).number == prototype.space_group
    assert len(spglib.find_primitive(spglib_cell)[2]) == len(atoms) <= 8
    assert len(set(atoms.symbols)) == prototype.n_species <= 3


@pytest.mark.parametrize("name", [name for name, prototype in PROTOTYPES.items() if prototype.n_species > 1])
def test_orbits_of_one_letter_may_change_places_and_no_others(name):
    prototype = PROTOTYPES[name]
    symbols = list(ELEMENTS[: prototype.n_species])
    one = prototype.occupy(symbols)
    for i, j in itertools.combinations(range(len(symbols)), 2):
        swapped = symbols.copy()
        swapped[i], swapped[j] = symbols[j], symbols[i]
        is_same = prototype.kinds[i] == prototype.kinds[j]
        assert same_structure(one, prototype.occupy(swapped)) == is_same


@pytest.mark.parametrize(
    ("name", "structure", "symbols"),
    [
        ("rocksalt", "rocksalt", "NaCl"),
        ("zincblende", "zincblende", "ZnS"),
        ("cesiumchloride", "cesiumchloride", "CsCl"),
        ("wurtzite", "wurtzite", "ZnO"),
        ("fluorite", "fluorite", "CaFF"),
        ("hcp", "hcp", "Mg"),
        ("diamond", "diamond", "Si"),
    ],
)
def test_prototypes_are_those_of_ase(name, structure, symbols):
    expected = bulk(symbols, structure, a=4.0, c=4.0 * math.sqrt(8 / 3))
    found = PROTOTYPES[name].occupy(list(dict.fromkeys(expected.get_chemical_symbols())))
    assert same_structure(fit_volume(found, 1.0), fit_volume(expected, 1.0))


@settings(max_examples=10, deadline=None)
@given(
    elements=st.lists(st.sampled_from(["H", "Li", "O", "Fe", "Cu", "W", "Pb"]), min_size=1, max_size=5, unique=True),
    contact=st.floats(0.6, 1.5),
    seed=st.integers(0, 1000),
)
def test_closest_atoms_touch_none_comes_twice_and_seeds_repeat(elements, contact, seed):
    chosen = PrototypeSettings(count=12, contact=contact)
    steps = made(chosen, tuple(elements), seed)
    for step in steps:
        assert closest_pair_ratio(step.atoms) == pytest.approx(contact)
        assert set(step.atoms.symbols) <= set(elements)
        assert step.atoms.pbc.all()
        assert json.loads(json.dumps(step.parameters)) == step.parameters
    for one, other in itertools.combinations(steps, 2):
        assert not same_structure(one.atoms, other.atoms)
    again = made(chosen, tuple(elements), seed)
    assert [step.atoms for step in again] == [step.atoms for step in steps]


def test_every_prototype_has_its_turn_and_all_decorations_are_made_once():
    counts = {"rocksalt": 6, "L1_2": 12, "half-heusler": 12, "heusler": 12, "perovskite": 24, "fcc": 4}
    steps = made(PrototypeSettings(names=tuple(counts), count=1000))
    assert {name: sum(s.parameters["prototype"] == name for s in steps) for name in counts} == counts
    assert {step.parameters["prototype"] for step in steps[:6]} == set(counts)


def test_one_element_has_the_prototypes_of_one_and_too_few_are_told():
    assert {s.parameters["prototype"] for s in made(PrototypeSettings(), ("Cu",))} == {
        "sc", "fcc", "bcc", "hcp", "diamond",
    }  # fmt: skip
    with pytest.raises(NotApplicableError, match="too_few_elements"):
        made(PrototypeSettings(names=("perovskite",)), ("Cu", "O"))


def test_the_volume_of_a_potential_is_that_of_its_lowest_energy():
    # EMT's own lattice constants: fcc Cu and Au, and Cu3Au by an independent fit
    chosen = PrototypeSettings(names=("fcc",), elements=("Cu", "Au"), volume="potential")
    for step in made(chosen, energy=EMT()):
        edges = np.linspace(0.98, 1.02, 9)
        cells = [step.atoms.cell.array * edge for edge in edges]
        energies = []
        for cell in cells:
            atoms = Atoms(step.atoms.numbers, step.atoms.positions, cell=cell, pbc=True)
            atoms.calc = EMT()
            energies.append(atoms.get_potential_energy())
        a, b, _ = np.polyfit(edges, energies, 2)
        assert -b / (2 * a) == pytest.approx(1.0, abs=2e-3)
        assert step.parameters["volume_per_atom"] == pytest.approx(step.atoms.get_volume())


def test_an_energy_without_a_minimum_or_none_at_all_drops_the_frame():
    repulsive = made(PrototypeSettings(names=("fcc",), volume="potential"), energy=lambda a: -a.get_volume())
    assert [str(reason) for reason in repulsive] == ["no_equilibrium_volume"] * 4
    broken = made(PrototypeSettings(names=("fcc",), volume="potential"), energy=lambda _: math.nan)
    assert [str(reason) for reason in broken] == ["energy_not_finite"] * 4


def test_input_frames_are_prototypes_too():
    perovskite = bulk("NaCl", "rocksalt", a=5.6)
    perovskite.set_initial_magnetic_moments([1.0, 0.0])
    steps = list(decorate(perovskite, DecorateSettings(("Na", "Cl", "K")), np.random.default_rng(0)))
    pairs = {tuple(sorted(step.parameters["elements"].values())) for step in steps}
    assert len(steps) == 6 - 1  # without Cl on Cl and Na on Na
    assert pairs == {("Cl", "K"), ("Cl", "Na"), ("K", "Na")}
    for step in steps:
        assert not step.atoms.has("initial_magmoms")
        radii = covalent_radii[step.atoms.numbers]
        edge = max(2 * radii.sum(), 2 * math.sqrt(2) * radii.max())  # unlike neighbours touch, or the larger ones
        assert step.atoms.get_volume() == pytest.approx(edge**3 / 4)


@pytest.mark.parametrize(
    ("atoms", "given", "reason"),
    [
        (molecule("H2O"), {}, "not_a_crystal"),
        (bulk("Cu") * 3, {}, "above_max_atoms"),
        (bulk("NaCl", "rocksalt", a=5.6), {"max_species": 1}, "above_max_species"),
        (bulk("NaCl", "rocksalt", a=5.6), {"elements": ("K",)}, "too_few_elements"),
    ],
)
def test_frames_that_are_no_prototype_say_why(atoms, given, reason):
    with pytest.raises(NotApplicableError, match=reason):
        list(decorate(atoms, DecorateSettings(**{"elements": ("K", "F"), **given}), np.random.default_rng(0)))


def test_in_the_flow_prototypes_are_repeated_distorted_and_tell_their_origin():
    settings = {"copies": 2, "prototype": {"count": 3}, "decorate": {"elements": ["Ag"]}, "rattle": {}}
    result = augment([bulk("Cu")], {**settings, "supercell": {"min_length": 6.0}}, 1)
    assert result.report["made"] == {
        "decorate+supercell": 1,
        "decorate+supercell+rattle": 2,
        "prototype+supercell": 3,
        "prototype+supercell+rattle": 6,
        "supercell": 1,
        "supercell+rattle": 2,
    }
    prototypes = [atoms for atoms in result.frames if atoms.info["parent_index"] == -1]
    assert prototypes[0].info["origin"].startswith("prototype ")


def test_a_potential_is_asked_if_the_volume_is_to_be_its_own():
    given = {"copies": 0, "prototype": {"names": ["fcc"], "volume": "potential"}}
    with pytest.raises(ValueError, match="prototype: the energies of a potential are needed, got none"):
        augment([bulk("Cu")], given, 0)
    assert augment([bulk("Cu")], given, 0, EMT()).report["made"] == {"input": 1, "prototype": 1}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"names": ("perovskit",)}, "'names' must hold prototypes .*, got \\['perovskit'\\]"),
        ({"names": ()}, "'names' must hold prototypes"),
        ({"elements": ("Xx",)}, "'elements' must hold chemical symbols, got 'Xx'"),
        ({"elements": ()}, "'elements' must name an element, got none"),
        ({"count": 0}, "'count' must be at least 1, got 0"),
        ({"contact": 3.0}, "'contact' must lie in"),
    ],
)
def test_wrong_settings_are_named(given, message):
    with pytest.raises(ValueError, match=message):
        PrototypeSettings(**given)


def test_atoms_on_top_of_each_other_have_no_volume():
    atoms = Atoms("Cu2", np.zeros((2, 3)), cell=[3.0] * 3, pbc=True)
    assert str(fit_volume(atoms, 1.0)) == "close_contact"
    result = augment([atoms], {"copies": 0, "decorate": {"elements": ["Al", "Ni"]}}, 1)
    assert "close_contact" in json.dumps(result.report)
