"""Random crystals: the space group, the composition, the distances, the seed."""

from importlib.util import find_spec

import numpy as np
import pytest
import spglib
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.spacegroup import Spacegroup

from aiida_alpot.kernel import _extras
from aiida_alpot.kernel.augmentation import DroppedFrameError, augment
from aiida_alpot.kernel.augmentation.random_crystal import RandomSettings, make_random_crystals
from aiida_alpot.kernel.geometry import closest_pair_ratio


def made(given: RandomSettings, seed=0, energy=None, elements=("Cu", "O", "Ti")):
    return list(make_random_crystals(elements, given, np.random.default_rng(seed), energy))


needs_pyxtal = pytest.mark.skipif(find_spec("pyxtal") is None, reason="PyXtal is not installed")


@needs_pyxtal
def test_crystals_have_their_space_group_their_size_and_room():
    given = RandomSettings(count=25, min_atoms=3, max_atoms=6, max_species=2)
    crystals = made(given)
    assert not any(isinstance(crystal, DroppedFrameError) for crystal in crystals)
    for atoms, text, parameters in crystals:
        group = parameters["space_group"]
        found = spglib.get_symmetry_dataset((atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers), 1e-3)
        # chance may give more symmetry, never less: the point group has the one that was asked for as a subgroup
        wanted = {rotation.tobytes() for rotation in Spacegroup(group).get_op()[0].astype(int)}
        assert len({rotation.tobytes() for rotation in found.rotations}) % len(wanted) == 0
        assert text.endswith(f"group {group}")
        assert len(atoms) <= 6
        assert len(set(atoms.symbols)) <= 2
        assert closest_pair_ratio(atoms) >= 0.6
    assert len({crystal.parameters["space_group"] for crystal in crystals}) > 5


@needs_pyxtal
def test_equal_seeds_give_equal_bytes_and_others_do_not():
    given = RandomSettings(count=4)
    one, again, other = (b"".join(step.atoms.positions.tobytes() for step in made(given, seed)) for seed in (1, 1, 2))
    assert one == again != other


@needs_pyxtal
def test_a_group_that_cannot_hold_the_atoms_is_told():
    # the smallest orbit of 228 has four atoms in the primitive cell
    steps = made(RandomSettings(count=1, space_groups=(228,), max_atoms=3, max_tries=5), elements=("Cu",))
    assert [str(step) for step in steps] == ["no_crystal"]


@needs_pyxtal
def test_the_volume_can_be_that_of_a_potential():
    given = {"copies": 0, "keep_input": False, "random": {"count": 2, "space_groups": [225], "volume": "potential"}}
    with pytest.raises(ValueError, match="random: the energies of a potential are needed"):
        augment([bulk("Cu")], given, 0)
    for atoms in augment([bulk("Cu")], given, 0, EMT()).frames:
        atoms.calc = EMT()
        pressure = -atoms.get_stress()[:3].mean()
        assert abs(pressure) < 2e-3
        assert atoms.info["origin"].startswith("random crystal ")


def test_without_the_package_the_extra_is_named(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(_extras.importlib, "import_module", missing)
    with pytest.raises(_extras.MissingPackageError, match=r"aiida-alpot\[random\]"):
        made(RandomSettings())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"space_groups": (231,)}, "'space_groups' must hold numbers from 1 to 230"),
        ({"space_groups": ()}, "'space_groups' must hold numbers from 1 to 230"),
        ({"min_atoms": 5, "max_atoms": 4}, "'max_atoms' must lie in"),
        ({"factor": 0.0}, "'factor' must lie in"),
        ({"elements": ()}, "'elements' must name an element"),
    ],
)
def test_wrong_settings_are_named(given, message):
    with pytest.raises(ValueError, match=message):
        RandomSettings(**given)
