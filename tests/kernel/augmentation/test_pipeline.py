"""The whole augmentation: order, seeds, groups, book-keeping and report."""

import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, make_supercell, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

from aiida_alpot.kernel.augmentation import MANIPULATIONS, AugmentSettings, augment
from aiida_alpot.kernel.dataset import Dataset, write
from aiida_alpot.kernel.geometry import perpendicular_heights
from aiida_alpot.kernel.settings import SettingsError, parse_settings

ALL = {"copies": 6, "supercell": {"min_length": 7.0}, "strain": {}, "rattle": {}, "vacancy": {"fraction": 0.5}}


def inputs() -> list[Atoms]:
    return [bulk("Cu"), bulk("NaCl", "rocksalt", a=5.6), fcc111("Al", (1, 1, 3), vacuum=6.0), molecule("CH3CH2OH")]


def same(one: Atoms, other: Atoms) -> bool:
    return len(one) == len(other) and bool((one.positions == other.positions).all() and (one.cell == other.cell).all())


def test_every_frame_tells_where_it_comes_from():
    frames = augment(inputs(), ALL, 1).frames
    origins = [atoms.info["origin"] for atoms in frames]
    assert origins[0].startswith("input 0 > supercell ")
    assert any(origin.endswith("> strain > rattle > vacancy 2") for origin in origins)
    assert "input 3 > rattle" in origins
    assert all(atoms.info["config_type"] and atoms.info["group"] for atoms in frames)


def test_each_distorted_frame_is_its_own_group_and_a_vacancy_stays_with_its_parent():
    frames = augment(inputs(), ALL, 1).frames
    with_gaps = [atoms for atoms in frames if "vacancy" in atoms.info["origin"]]
    others = [atoms for atoms in frames if "vacancy" not in atoms.info["origin"]]
    groups = {atoms.info["group"]: atoms for atoms in others}
    assert len(groups) == len(others)
    for atoms in with_gaps:
        parent = groups[atoms.info["group"]]
        assert atoms.info["origin"].startswith(parent.info["origin"])
        sites = {tuple(row) for row in parent.positions}
        assert {tuple(row) for row in atoms.positions} < sites


def test_equal_seeds_give_equal_frames_and_others_do_not():
    first, again, other = (augment(inputs(), ALL, seed).frames for seed in (5, 5, 6))
    assert all(same(a, b) and a.info == b.info for a, b in zip(first, again, strict=True))
    assert not any(same(a, b) for a, b in zip(first, other, strict=False) if "rattle" in a.info["origin"])


def test_one_more_manipulation_does_not_shift_the_others():
    plain = augment(inputs(), {"copies": 4, "rattle": {}}, 3).frames
    more = augment(inputs(), {"copies": 6, "rattle": {}, "vacancy": {"molecules": True}}, 3).frames
    by_position = [atoms.positions.tobytes() for atoms in more]
    assert all(atoms.positions.tobytes() in by_position for atoms in plain)


def test_separate_chains_have_strain_or_rattle():
    result = augment([bulk("Si")], {"copies": 3, "combined": False, "strain": {}, "rattle": {}}, 0)
    assert result.report["made"] == {"input": 1, "strain": 3, "rattle": 3}


def test_exact_share_of_the_rattled_frames_gets_vacancies():
    settings = {"copies": 20, "supercell": {"min_length": 7.0}, "rattle": {}, "vacancy": {"fraction": 0.3}}
    assert augment([bulk("Cu")], settings, 0).report["made"]["supercell+rattle+vacancy"] == 6


def test_labels_constraints_and_book_keeping_of_parents_are_dropped():
    atoms = bulk("Si")
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.zeros((2, 3)))
    atoms.set_constraint(FixAtoms([0]))
    atoms.info.update(REF_energy=-1.0, fingerprint="x", split="test", iteration=4, author="me", charge=1.0)
    atoms.info["spacegroup"] = object()
    atoms.set_array("REF_forces", np.zeros((2, 3)))
    atoms.set_array("site", np.array([7, 8]))
    for child in augment([atoms], {"copies": 2, "rattle": {}}, 0).frames:
        assert child.calc is None
        assert not child.constraints
        assert set(child.info) - {"parameters"} == {
            "author",
            "charge",
            "origin",
            "group",
            "config_type",
            "parent_index",
            "parent_id",
        }
        assert set(child.arrays) == {"numbers", "positions", "site"}
    assert atoms.calc is not None
    assert atoms.info["split"] == "test"


def test_config_type_of_the_user_is_kept():
    atoms = bulk("Si")
    atoms.info["config_type"] = "diamond"
    assert {a.info["config_type"] for a in augment([atoms], {"copies": 2, "rattle": {}}, 0).frames} == {"diamond"}


def test_isolated_atom_frame_is_kept_but_never_multiplied():
    atom = Atoms("H", cell=[9, 9, 9])
    atom.info["config_type"] = "IsolatedAtom"
    result = augment([atom], {**ALL, "strain": {"molecules": True}}, 0)
    assert len(result.frames) == 1


def test_exact_duplicates_are_removed():
    result = augment([bulk("Si"), bulk("Si")], {"copies": 0}, 0)
    assert (len(result.frames), result.report["n_duplicates"]) == (1, 1)


def test_undefined_charge_is_no_obstacle():
    atoms = bulk("Si")
    atoms.info["charge"] = float("nan")
    assert len(augment([atoms], {"copies": 2, "rattle": {}}, 0).frames) == 3


def test_untouched_copies_are_not_sent_as_duplicates():
    result = augment([molecule("H2O")], {"copies": 5, "strain": {}}, 0)
    assert len(result.frames) == 1
    assert result.report["skipped"]["strain"] == {"no_periodic_axis": 5}


def test_two_atom_cells_are_left_without_vacancies_and_reported():
    result = augment([bulk("Si")], {"copies": 4, "rattle": {}, "vacancy": {"fraction": 1.0}}, 0)
    assert len(result.frames) == 5
    assert result.report["skipped"]["vacancy"] == {"too_few_atoms": 4}


def test_lost_frames_are_counted_and_the_rest_goes_on():
    crushed = {"copies": 3, "strain": {"range": [-0.9, 0.0], "min_ratio": 0.99}}
    result = augment([bulk("Cu"), bulk("Si")], crushed, 0)
    assert len(result.frames) == 2
    assert result.report["dropped"] == {"strain": {"close_contact": 6}}
    assert json.loads(json.dumps(result.report)) == result.report


def test_all_axes_conventions_survive_and_no_frame_is_empty():
    for atoms in augment(inputs(), ALL, 2).frames:
        source = inputs()[int(atoms.info["origin"].split()[1])]
        assert (atoms.pbc == source.pbc).all()
        assert len(atoms) > 0
        assert np.isfinite(atoms.positions).all()


def test_quickstart_recipe_makes_distorted_molecules():
    recipe = {
        "copies": 25,
        "keep_input": False,
        "rattle": {"distribution": "normal", "amplitude": 0.05},
        "strain": {"distribution": "normal", "stdev": 0.03, "molecules": True},
    }
    frames = augment([molecule("CH3CH2OH")], recipe, 0).frames
    assert len(frames) == 25
    assert {atoms.info["origin"] for atoms in frames} == {"input 0 > strain > rattle"}


def test_no_input_gives_no_frame():
    assert augment([], ALL, 0).frames == []


def test_unknown_manipulation_names_the_nearest():
    with pytest.raises(SettingsError, match="did you mean 'rattle'"):
        augment([bulk("Si")], {"ratle": {}}, 0)
    with pytest.raises(SettingsError, match=r"augment\.rattle: unknown key 'fractoin'"):
        augment([bulk("Si")], {"rattle": {"fractoin": 0.1}}, 0)


def test_registry_and_settings_have_the_same_manipulations():
    no_default = {"alloy": {"alloy_species": ["Cu", "Au"]}, "decorate": {"elements": ["Cu", "Au"]}}
    given = parse_settings(AugmentSettings, {name: no_default.get(name, {}) for name in MANIPULATIONS}, "augment")
    for name, manipulation in MANIPULATIONS.items():
        assert isinstance(getattr(given, name), manipulation.settings)


BAD = {
    "no atoms": (Atoms(), "a frame needs atoms with finite positions"),
    "a position that is not finite": (Atoms("H", [[np.inf, 0, 0]]), "a frame needs atoms with finite positions"),
    "a cell that is not finite": (Atoms("H", cell=[np.nan, 1, 1], pbc=True), "the cell is not finite"),
    "periodic without a cell": (Atoms("H", pbc=True), "do not span a cell"),
    "flat": (Atoms("H", cell=[[1, 0, 0], [2, 0, 0], [0, 0, 1]], pbc=True), "do not span a cell"),
    "nearly flat": (Atoms("H", cell=[[3, 0, 0], [3, 1e-4, 0], [0, 0, 3]], pbc=True), "only 0.0001 Å high; give a red"),
    "too dense": (Atoms("H", cell=[3, 3, 0.1], pbc=True), "repeats every 0.1 Å, closer than atoms; is it in Å"),
    "a dummy atom": (Atoms("HX", [[0, 0, 0], [0, 0, 2]]), r"there are no elements with the atomic numbers \[0\]"),
    "beyond the periodic table": (Atoms([1, 119], [[0, 0, 0], [0, 0, 2]]), r"atomic numbers \[119\]"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    bad, message = BAD[name]
    with pytest.raises(ValueError, match=f"input 1: .*{message}"):
        augment([bulk("Si"), bad], ALL, 0)


@pytest.mark.parametrize("n", [40, 400])
def test_a_skew_cell_of_a_sound_lattice_is_augmented_like_any_other(n):
    skew = make_supercell(bulk("NaCl", "rocksalt", a=5.6), [[1, 0, 0], [n, 1, 0], [0, 0, 1]])
    assert perpendicular_heights(skew.cell.array).min() < 0.2
    recipe = {"copies": 2, "strain": {}, "rattle": {}, "interstitial": {"fraction": 1.0, "max_fraction": 1.0}}
    report = augment([skew], {**recipe, "filters": {"min_ratio": 0.4, "near_duplicates": 0.02}}, 0).report
    assert report["made"]["input"] == 1
    assert report["made"]["strain+rattle"] == 2


def test_one_atom_cell_is_strained_and_says_why_nothing_else_was_done():
    result = augment([bulk("Cu")], {"copies": 3, "strain": {}, "rattle": {}, "vacancy": {"fraction": 1.0}}, 0)
    assert result.report["made"] == {"input": 1, "strain": 3}
    assert result.report["skipped"] == {"rattle": {"single_atom": 3}, "vacancy": {"too_few_atoms": 3}}


def test_molecule_says_which_manipulations_of_bulk_it_was_left_out_of():
    result = augment([molecule("CH3CH2OH")], {"copies": 3, "strain": {}, "rattle": {}, "vacancy": {"fraction": 1}}, 0)
    assert result.report["made"] == {"input": 1, "rattle": 3}
    assert result.report["skipped"] == {"strain": {"no_periodic_axis": 3}, "vacancy": {"no_periodic_axis": 3}}


def test_cells_that_are_left_as_they_are_say_why():
    given = [bulk("Cu"), bulk("Cu") * 4, fcc111("Al", (1, 1, 3), vacuum=10.0), molecule("H2O", vacuum=9.0)]
    report = augment(given, {"copies": 0, "supercell": {"min_length": 5.0}, "vacuum": {"thickness": 15.0}}, 0).report
    assert report["made"] == {"input": 2, "supercell": 2}
    assert report["skipped"] == {
        "supercell": {"already_large": 1, "no_periodic_axis": 1},
        "vacuum": {"all_axes_periodic": 2, "enough_vacuum": 2},
    }


def test_impossible_atom_cap_leaves_cells_as_they_are_and_says_so():
    result = augment([bulk("Si")], {"copies": 0, "supercell": {"max_atoms": 1}}, 0)
    assert result.report["skipped"] == {"supercell": {"above_max_atoms": 1}}
    result = augment([bulk("Si")], {"copies": 2, "rattle": {}, "filters": {"max_atoms": 1}}, 0)
    assert result.frames == []
    assert result.report["removed"] == {"max_atoms": {"too_many_atoms": 3}}


def test_parent_index_is_a_column_of_the_dataset_with_the_parameters(tmp_path):
    write(tmp_path / "out.h5", augment(inputs(), ALL, 1).frames)
    with Dataset.open(tmp_path / "out.h5") as dataset:
        parents, kinds = dataset.column("parent_index"), dataset.column("config_type")
        used = dataset.column("parameters")
        assert sorted(set(parents.tolist())) == [0, 1, 2, 3]
        assert all(
            set(json.loads(text)) == set(kind.split("+")) for text, kind in zip(used, kinds, strict=True) if text
        )
        assert dataset.present("parameters").tolist() == [kind != "input" for kind in kinds]


def test_parent_id_is_that_of_the_input_in_its_dataset_with_labels_and_charge(tmp_path):
    first, second = bulk("Si"), molecule("CH3CH2OH")
    first.calc = SinglePointCalculator(first, energy=-1.0)
    second.info["charge"] = 1.0
    write(tmp_path / "in.h5", [first, second])
    with Dataset.open(tmp_path / "in.h5") as dataset:
        ids = dataset.frame_ids(labels=False).tolist()
        read = augment(dataset[:], {"copies": 0}, 0).frames
    for frames in (augment([first, second], {"copies": 0}, 0).frames, read):
        assert [atoms.info["parent_id"] for atoms in frames] == ids


def test_augmenting_again_begins_a_new_history():
    first = augment([bulk("Si")], {"copies": 1, "keep_input": False, "rattle": {}}, 0).frames
    first[0].info["config_type"] = ""
    again = augment(first, {"copies": 1, "strain": {}}, 0).frames
    assert [atoms.info["origin"] for atoms in again] == ["input 0", "input 0 > strain"]
    assert "parameters" not in again[0].info


def test_swaps_follow_the_alloy_and_distort_the_arrangement_that_they_end_in():
    cell = bulk("Cu", a=3.8, cubic=True) * (2, 1, 1)
    halves = {"alloy_species": ["Cu", "Au"], "compositions": [{"Cu": 0.5, "Au": 0.5}]}
    settings = {"copies": 3, "keep_input": False, "alloy": halves, "swap": {"attempts": 30}, "rattle": {}}

    def energy(atoms):
        return -float(np.abs(atoms.positions[atoms.symbols == "Au", 0]).sum())

    result = augment([cell], settings, 1, energy)
    assert [atoms.info["config_type"] for atoms in result.frames] == ["alloy+swap+rattle"] * 3
    for atoms in result.frames:
        told = json.loads(atoms.info["parameters"])["swap"]
        assert told["energy_end"] <= told["energy_start"] + 0.6  # some k_B T at 1000 K
        assert sorted(atoms.symbols) == ["Au"] * 4 + ["Cu"] * 4
    assert augment([cell], settings, 1, energy).frames == result.frames


def test_swaps_without_energies_and_energies_without_swaps_are_refused():
    with pytest.raises(ValueError, match="swap: the energies of a potential are needed, got none; give 'energy'"):
        augment([bulk("Cu")], {"swap": {}}, 1)
    with pytest.raises(ValueError, match="no manipulation asks them"):
        augment([bulk("Cu")], {"rattle": {}}, 1, lambda _: 0.0)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("vector", [[100.0, 0.0, 0.05], [1e6, 0.0, 20.0]])
def test_the_vector_along_which_a_slab_is_not_periodic_changes_nothing(vector):
    slab = fcc111("Cu", (2, 2, 3), vacuum=5.0)
    leaning = slab.copy()
    leaning.cell[2] = vector
    expected, frames = (augment([atoms], {"copies": 1, "rattle": {}}, 0).frames for atoms in (slab, leaning))
    assert len(frames) == len(expected) == 2
    for frame, other in zip(frames, expected, strict=True):
        assert frame.positions == pytest.approx(other.positions)
