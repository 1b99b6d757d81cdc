"""What interstitials, substitutions, alloys and swaps have in common, over random frames."""

import json
from collections import Counter
from functools import partial

import numpy as np
import pytest
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st

from aiida_alpot.kernel.augmentation.alloy import AlloySettings, Mixture, alloy
from aiida_alpot.kernel.augmentation.base import DroppedFrameError, NotApplicableError, Step
from aiida_alpot.kernel.augmentation.interstitial import InterstitialSettings, make_interstitials
from aiida_alpot.kernel.augmentation.species import round_count
from aiida_alpot.kernel.augmentation.substitution import SubstitutionSettings, substitute
from aiida_alpot.kernel.augmentation.swap import SwapSettings, swap
from aiida_alpot.kernel.geometry import atoms_in_contact

FOREIGN = {"Cu": ("Ni", "Zn"), "O": ("S",)}
HALVES = ({"Cu": 0.5, "Ni": 0.5},)
MANIPULATIONS = {
    "interstitial": (make_interstitials, InterstitialSettings(per_frame=3, species=("H", "Cu", "O"))),
    "exchange": (substitute, SubstitutionSettings(atom_fraction=0.3, molecules=True)),
    "replace": (substitute, SubstitutionSettings(mode="replace", atom_fraction=0.3, molecules=True)),
    "foreign": (substitute, SubstitutionSettings(mode="foreign", elements=FOREIGN, molecules=True)),
    "alloy": (alloy, AlloySettings(("Cu", "Ni", "Au"))),
    "quasirandom": (alloy, AlloySettings(("Cu", "Ni"), compositions=HALVES, arrangement="quasirandom", steps=50)),
    "sublattices": (
        alloy,
        AlloySettings(sublattices={"0": Mixture(("Cu", "Ni")), "2": Mixture(("Ag", "Au", "Pd"))}, column="layer"),
    ),
    "swap": (
        partial(swap, energy=lambda atoms: float(atoms.positions[0, 0])),
        SwapSettings(attempts=20, molecules=True),
    ),
}
NO_ROOM = {"no_periodic_axis", "too_few_atoms", "no_void", "close_contact"}
NO_SPECIES = {"single_species", "two_atoms", "no_such_species", "no_alloy_site"}
MOVING = ("exchange", "swap")
"""Those that let atoms change places; the others change what stands on a site, or add to it."""


def random_frame(seed: int, n_atoms: int, pbc: tuple[bool, bool, bool], n_species: int) -> Atoms:
    """Return atoms on some points of a skewed grid, a little off them, in any order and in any image of the cell."""
    rng = np.random.default_rng(seed)
    points = np.stack(np.meshgrid(*[np.arange(n) for n in grid_shape(n_atoms, rng)], indexing="ij"), axis=-1)
    shape = np.array(points.shape[:3])
    points = rng.permutation(points.reshape(-1, 3))[:n_atoms] / shape
    vectors = (np.eye(3) + np.triu(rng.uniform(-0.3, 0.3, (3, 3)), 1)) * shape[:, None] * rng.uniform(2.4, 3.2)
    periodic = np.asarray(pbc)
    images = points + np.where(periodic, rng.integers(-2, 3, size=(n_atoms, 3)), 0)
    positions = images @ vectors + rng.uniform(-0.1, 0.1, (n_atoms, 3))
    symbols = rng.choice(["Cu", "O", "Au", "Ti"][:n_species], size=n_atoms)
    atoms = Atoms(symbols, positions, cell=np.where(periodic[:, None], vectors, 0.0), pbc=pbc)
    atoms.set_array("identity", np.arange(n_atoms))
    atoms.set_array("layer", rng.integers(3, size=n_atoms))
    atoms.set_initial_magnetic_moments(rng.normal(size=n_atoms))
    atoms.info.update(charge=1.0, author="me")
    return atoms


def grid_shape(n_atoms: int, rng: np.random.Generator) -> list[int]:
    """Return three numbers whose product is at least *n_atoms*."""
    first = int(rng.integers(1, 7))
    second = int(rng.integers(1, 7))
    return [first, second, -(-n_atoms // (first * second))]


frames = st.builds(
    random_frame,
    st.integers(0, 2**32 - 1),
    st.integers(1, 200),
    st.tuples(*[st.booleans()] * 3),
    st.integers(1, 4),
)


def make(name: str, atoms: Atoms, seed: int = 0) -> Step | None:
    """Return the step, ``None`` if there is a reason for none."""
    function, given_settings = MANIPULATIONS[name]
    try:
        return function(atoms, given_settings, np.random.default_rng(seed))
    except (NotApplicableError, DroppedFrameError) as reason:
        if str(reason) not in NO_ROOM | NO_SPECIES:
            raise
        return None


def same(one: Atoms, other: Atoms) -> bool:
    return (
        one.arrays.keys() == other.arrays.keys()
        and all(np.array_equal(one.arrays[key], other.arrays[key]) for key in one.arrays)
        and np.array_equal(one.cell.array, other.cell.array)
        and np.array_equal(one.pbc, other.pbc)
        and one.info == other.info
    )


@pytest.mark.parametrize("name", MANIPULATIONS)
@settings(max_examples=25, deadline=None)
@given(atoms=frames, seed=st.integers(0, 100))
def test_equal_seeds_give_equal_frames_and_the_parent_is_not_touched(name, atoms, seed):
    before = atoms.copy()
    first, again = make(name, atoms, seed), make(name, atoms, seed)
    assert same(atoms, before)
    assert (first is None) == (again is None)
    if first is not None and again is not None:
        assert same(first.atoms, again.atoms)
        assert first[1:] == again[1:]
        assert json.loads(json.dumps(dict(first.parameters))) == first.parameters


@pytest.mark.parametrize("name", MANIPULATIONS)
@settings(max_examples=25, deadline=None)
@given(atoms=frames)
def test_cell_sites_and_columns_stay(name, atoms):
    step = make(name, atoms)
    if step is None:
        return
    changed, n_atoms = step.atoms, len(atoms)
    assert np.array_equal(changed.cell.array, atoms.cell.array)
    assert np.array_equal(changed.pbc, atoms.pbc)
    assert changed.info == atoms.info
    for column in ("identity", "layer", "initial_magmoms"):
        assert np.array_equal(changed.arrays[column][:n_atoms], atoms.arrays[column])
    if name in MOVING:
        assert np.array_equal(changed.numbers, atoms.numbers)
        assert Counter(map(tuple, changed.positions)) == Counter(map(tuple, atoms.positions))
    else:
        assert np.array_equal(changed.positions[:n_atoms], atoms.positions)


@pytest.mark.parametrize("name", [name for name in MANIPULATIONS if name != "swap"])
@settings(max_examples=25, deadline=None)
@given(atoms=frames)
def test_no_pair_that_was_made_is_closer_than_the_bound(name, atoms):
    step = make(name, atoms)
    if step is not None:
        close = atoms_in_contact(step.atoms, MANIPULATIONS[name][1].min_ratio - 1e-9)
        assert (close < len(atoms)).all() if name == "interstitial" else len(close) == 0


@pytest.mark.parametrize("name", ["exchange", "replace", "foreign"])
@settings(max_examples=40, deadline=None)
@given(atoms=frames)
def test_as_many_sites_change_their_element_as_asked(name, atoms):
    step = make(name, atoms)
    if step is None:
        return
    old, new = (dict(zip(map(tuple, a.positions), a.symbols, strict=True)) for a in (atoms, step.atoms))
    n_changed = sum(old[site] != new[site] for site in old)
    share = MANIPULATIONS[name][1].atom_fraction
    counts = Counter(atoms.symbols)
    most_pairs = min(len(atoms) // 2, len(atoms) - max(counts.values()))
    expected = {
        "exchange": 2 * min(round_count(share, len(atoms) / 2), most_pairs),
        "replace": min(round_count(share, len(atoms)), len(atoms) - 1),
        "foreign": min(round_count(share, len(atoms)), counts["Cu"] + counts["O"]),
    }
    assert n_changed == expected[name] == sum(step.parameters["changes"].values())


@settings(max_examples=40, deadline=None)
@given(atoms=frames)
def test_interstitials_are_as_many_as_asked_and_inside(atoms):
    step = make("interstitial", atoms)
    if step is None:
        return
    n_added = len(step.atoms) - len(atoms)
    assert n_added == min(3, len(atoms) // 4) == len(step.parameters["species"])
    assert step.atoms.get_chemical_symbols()[len(atoms) :] == list(step.parameters["species"])
    if atoms.pbc.sum() == 2:  # between the outermost atoms
        normal = np.linalg.svd(atoms.cell.array[atoms.pbc])[2][2]
        heights = step.atoms.positions @ normal
        assert heights[: len(atoms)].min() < heights[len(atoms) :].min()
        assert heights[len(atoms) :].max() < heights[: len(atoms)].max()


@settings(max_examples=40, deadline=None)
@given(atoms=frames)
def test_alloys_have_the_composition_that_they_tell(atoms):
    for name, labels in (("alloy", None), ("quasirandom", None), ("sublattices", atoms.arrays["layer"].astype(str))):
        step = make(name, atoms)
        if step is None:
            continue
        on_alloy = np.isin(atoms.symbols, MANIPULATIONS[name][1].alloy_species)
        for part, shares in step.parameters["composition"].items():
            sites = on_alloy if labels is None else labels == part
            found = Counter(step.atoms.symbols[sites])
            assert {symbol: found[symbol] / sites.sum() for symbol in shares} == pytest.approx(shares)
            assert sum(shares.values()) == pytest.approx(1.0)
        untouched = ~on_alloy if labels is None else labels == "1"
        assert (step.atoms.symbols[untouched] == atoms.symbols[untouched]).all()
