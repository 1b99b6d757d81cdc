"""SOAP rows: those of DScribe where it is right, invariant, and right where it is not."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, make_supercell
from ase.neighborlist import neighbor_list
from hypothesis import given, settings
from hypothesis import strategies as st

from aiida_alpot.kernel.features import SoapSettings
from aiida_alpot.kernel.features.soap import MAX_FEATURES, Soap, gather
from aiida_alpot.kernel.settings import SettingsError, parse_settings

dscribe = pytest.importorskip("dscribe.descriptors")

SPECIES = ("Cu", "Au")
COMPRESSIONS = ("mu1nu1", "crossover", "off")


def make_soap(species=SPECIES, **values):
    return Soap(SoapSettings(species, **values))


def assert_equal(found, expected):
    """Rows are sums of squares up to about a hundred."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10 * np.abs(expected).max())


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_rows_are_those_that_dscribe_gives_for_the_frame_alone(frame, compression):
    values = {"r_cut": 4.5, "n_max": 5, "l_max": 2, "sigma": 0.4}
    soap = make_soap(compression=compression, **values)
    mode = {"mode": compression, "species_weighting": None}
    inside = frame.copy()
    inside.wrap()  # what DScribe needs
    direct = dscribe.SOAP(species=SPECIES, periodic=bool(frame.pbc.any()), compression=mode, **values)
    assert_equal(soap([frame]), direct.create(inside))
    assert soap([frame]).shape == (len(frame), SoapSettings(SPECIES, compression=compression, **values).n_features)


def test_rotation_changes_nothing(frame, random_rotation):
    rotated = frame.copy()
    rotated.positions = frame.positions @ random_rotation
    rotated.set_cell(frame.cell.array @ random_rotation)
    assert_equal(make_soap()([rotated]), make_soap()([frame]))


def test_translation_changes_nothing(frame):
    moved = frame.copy()
    moved.positions += [1.234, -17.0, 300.0]
    assert_equal(make_soap()([moved]), make_soap()([frame]))


def test_an_atom_is_the_same_in_any_image_of_the_cell(frame):
    """DScribe itself misses the neighbours of an atom that left the cell, as all do in molecular dynamics."""
    moved = frame.copy()
    for axis in np.flatnonzero(frame.pbc):
        moved.positions[0] += 3 * frame.cell[axis]
        moved.positions[1] -= 2 * frame.cell[axis]
    assert_equal(make_soap()([moved]), make_soap()([frame]))


def test_permutation_permutes_the_rows(frame):
    order = np.random.default_rng(0).permutation(len(frame))
    assert_equal(make_soap()([frame[order]]), make_soap()([frame])[order])


def test_a_supercell_repeats_the_rows(frame):
    repeats = np.where(frame.pbc, 2, 1)
    larger = frame.repeat(repeats)
    assert_equal(make_soap()([larger]), np.tile(make_soap()([frame]), (int(np.prod(repeats)), 1)))


def test_an_oblique_cell_of_the_same_crystal_gives_the_same_rows(frames):
    crystal = frames["crystal"]
    sheared = make_supercell(crystal, [[1, 0, 0], [2, 1, 0], [-1, 1, 1]], wrap=False)
    assert_equal(make_soap()([sheared]), make_soap()([crystal]))


def test_a_primitive_cell_that_is_smaller_than_the_range_gives_the_rows_of_the_crystal():
    primitive, cubic = bulk("Cu"), bulk("Cu", cubic=True)
    rows = make_soap()([primitive])
    assert_equal(make_soap()([cubic]), np.repeat(rows, 4, axis=0))


@pytest.mark.parametrize("vacuum", [8.0, 1e4])
def test_more_vacuum_changes_nothing_of_a_slab(frames, vacuum):
    wider = frames["slab"].copy()
    wider.center(vacuum=vacuum, axis=2)
    assert_equal(make_soap()([wider]), make_soap()([frames["slab"]]))


def test_the_third_vector_of_a_slab_means_nothing(frames):
    slab = frames["slab"]
    expected = make_soap()([slab])
    for vector in ([0, 0, 0], [3.0, 1.0, 2.0], slab.cell[0], [0, 0, 1e6]):
        other = slab.copy()
        other.cell[2] = vector
        assert_equal(make_soap()([other]), expected)


def test_a_slab_is_no_stack_of_slabs(frames):
    stack = frames["slab"].copy()
    stack.pbc = True
    assert np.abs(make_soap()([stack]) - make_soap()([frames["slab"]])).max() > 0.1


def test_frames_of_every_periodicity_go_together(frames):
    soap, together = make_soap(), list(frames.values())
    assert_equal(soap(together), np.concatenate([soap([atoms]) for atoms in together]))


def test_parts_that_are_far_apart_are_as_if_alone(frames):
    """DScribe bins the box around all atoms: this one would take more memory than there is."""
    cluster, far = frames["cluster"], frames["cluster"].copy()
    far.positions += 1e6
    assert_equal(make_soap()([cluster + far]), np.tile(make_soap()([cluster]), (2, 1)))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    pbc=st.tuples(*[st.booleans()] * 3),
    spread=st.sampled_from([3.0, 30.0, 300.0]),
    reach=st.floats(1.0, 6.0),
)
def test_gathering_keeps_all_neighbours_where_they_are(seed, pbc, spread, reach):
    rng = np.random.default_rng(seed)
    cell = 4.0 * np.eye(3) + rng.normal(0, 0.7, (3, 3))
    atoms = Atoms("CuAu2Cu3", rng.normal(0, spread, (6, 3)), cell=cell, pbc=pbc)
    gathered = gather(atoms, reach)
    fractions = gathered.get_scaled_positions(wrap=False)[:, list(pbc)]
    assert np.all((fractions > -1e-9) & (fractions < 1 + 1e-9))
    found = [
        sorted(zip(first, second, *np.round(vectors.T, 6), strict=True))
        for first, second, vectors in (neighbor_list("ijD", frame, reach) for frame in (atoms, gathered))
    ]
    np.testing.assert_allclose(np.array(found[0]), np.array(found[1]), atol=1e-5)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_species_that_change_places_around_an_atom_are_noticed(compression):
    atoms = Atoms("CuCuAu", [[0, 0, 0], [2.5, 0, 0], [0, 3.0, 0]])
    exchanged = atoms.copy()
    exchanged.symbols = "CuAuCu"
    rows = make_soap(compression=compression)([atoms, exchanged])
    assert np.abs(rows[0] - rows[3]).max() > 0.1


def test_columns_do_not_depend_on_the_order_of_the_species_nor_on_those_of_a_frame(frames):
    crystal, copper = frames["crystal"], bulk("Cu", cubic=True)
    rows = make_soap(("Cu", "Au"))([crystal, copper])
    assert_equal(
        make_soap(("Au", "Cu"))([copper, crystal]), np.concatenate([rows[len(crystal) :], rows[: len(crystal)]])
    )


def test_a_species_that_is_not_named_and_what_is_around_it_have_no_row():
    chain = Atoms("Cu6", np.arange(6)[:, None] * [[3.0, 0.0, 0.0]])
    soap = make_soap(r_cut=3.5, sigma=0.25)
    assert 3.0 < soap.reach < 6.0
    stranger = chain.copy()
    stranger.symbols[0] = "Ni"
    rows = soap([stranger])
    assert np.isnan(rows).all(axis=1).tolist() == [True, True, False, False, False, False]
    assert_equal(rows[2:], soap([chain[1:]])[1:])
    assert np.isnan(soap([Atoms("Ni")])).all()


def test_a_stranger_is_found_across_the_boundary_of_the_cell():
    atoms = Atoms("CuNi", [[0.5, 0, 0], [11.5, 0, 0]], cell=[12, 9, 9], pbc=[True, False, False])
    assert np.isnan(make_soap(r_cut=3.0, sigma=0.2)([atoms])).all()
    atoms.pbc = False
    assert np.isfinite(make_soap(r_cut=3.0, sigma=0.2)([atoms])).all(axis=1).tolist() == [True, False]


def test_positions_that_are_not_finite_have_no_row(frames):
    broken = frames["crystal"].copy()
    broken.positions[2, 1] = np.nan
    assert np.isnan(make_soap()([broken])).all()


@pytest.mark.parametrize("cell", [np.zeros((3, 3)), np.diag([4.0, 4.0, 0.0]), np.ones((3, 3))])
def test_a_periodic_axis_without_a_vector_of_its_own_is_refused(cell):
    with pytest.raises(ValueError, match="Cu2: the cell vectors of the periodic axes are not independent"):
        make_soap()([Atoms("Cu2", [[0, 0, 0], [2, 0, 0]], cell=cell, pbc=True)])


def test_the_number_of_columns_is_linear_in_the_species_unless_all_pairs_are_asked_for():
    def count(n_species, compression):
        species = ("H", "C", "N", "O", "F", "Na", "Mg", "Al")[:n_species]
        return SoapSettings(species, n_max=6, l_max=4, compression=compression).n_features

    assert [count(n, "mu1nu1") for n in (1, 2, 4, 8)] == [180, 360, 720, 1440]
    assert [count(n, "crossover") for n in (1, 2, 4, 8)] == [105, 210, 420, 840]
    assert [count(n, "off") for n in (1, 2, 4)] == [105, 390, 1500]
    with pytest.raises(ValueError, match=f"8 species.* make 5880 features of at most {MAX_FEATURES}; lower n_max"):
        count(8, "off")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"species": ["Cu", "Xx"]}, "species: expected symbols of elements, got 'Xx'"),
        ({"species": ["X"]}, "got 'X'"),
        ({"species": ["Cu", "Cu"]}, "species: expected different ones, got Cu, Cu"),
        ({"species": [29]}, "expected str, got 29"),
        ({"r_cut": 1.0}, r"r_cut must be from 2 to 12, got 1\.0"),
        ({"n_max": 0}, "n_max must be from 1 to 10, got 0"),
        ({"n_max": 11}, "n_max must be from 1 to 10, got 11"),
        ({"l_max": 9}, "l_max must be from 0 to 8, got 9"),
        ({"sigma": 0.0}, r"sigma must be positive, got 0\.0"),
        ({"compression": "mu2"}, "compression: expected one of"),
        ({"rcut": 5.0}, "did you mean 'r_cut'"),
    ],
)
def test_settings_out_of_range_are_named(values, message):
    with pytest.raises(SettingsError, match=message):
        parse_settings(SoapSettings, values, "feature_parameters")


@pytest.mark.parametrize("r_cut", [2.0, 12.0])
@pytest.mark.parametrize(("n_max", "l_max"), [(10, 0), (10, 8), (1, 0), (1, 8)])
def test_every_size_that_the_settings_allow_can_be_computed(r_cut, n_max, l_max):
    rows = make_soap(("Cu",), compression="crossover", r_cut=r_cut, n_max=n_max, l_max=l_max)([Atoms("Cu2")])
    assert np.isfinite(rows).all()


def test_no_species_are_refused():
    with pytest.raises(ValueError, match="species: name those of all frames"):
        Soap(SoapSettings())
