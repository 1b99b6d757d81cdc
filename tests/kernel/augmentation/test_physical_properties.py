"""What supercells, vacancies, strains and the whole flow promise of any frame: random, triclinic, mixed periodicity."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from aiida_alpot.kernel.augmentation import (
    NotApplicableError,
    StrainSettings,
    SupercellSettings,
    VacancySettings,
    augment,
    draw_stretch,
    make_supercell,
    make_vacancies,
)
from aiida_alpot.kernel.geometry import closest_pair_ratio, perpendicular_heights

N_ATOMS = st.one_of(st.integers(1, 12), st.integers(13, 200))
PBC = st.tuples(*[st.booleans()] * 3)
SEED = st.integers(0, 2**32 - 1)
FLOW = {
    "copies": 3,
    "strain": {"range": [-0.1, 0.1], "min_ratio": 0.5},
    "rattle": {"fraction": 0.05, "min_ratio": 0.5},
    "vacancy": {"fraction": 1.0},
    "filters": {"min_ratio": 0.5},
}


def sorted_symbols(atoms):
    return sorted(atoms.get_chemical_symbols())


@settings(max_examples=30, deadline=None)
@given(n_atoms=N_ATOMS, pbc=PBC, seed=SEED, length=st.floats(3.0, 20.0), shape=st.sampled_from(["diagonal", "compact"]))
def test_a_supercell_holds_whole_cells_and_is_wide_enough_or_at_the_cap(
    random_frame, n_atoms, pbc, seed, length, shape
):
    atoms = random_frame(n_atoms, pbc, seed)
    try:
        cell = make_supercell(atoms, SupercellSettings(length, 400, shape), np.random.default_rng(0)).atoms
    except NotApplicableError:
        return
    n_cells, rest = divmod(len(cell), len(atoms))
    assert rest == 0
    assert n_cells > 1
    assert len(cell) <= 400
    assert sorted_symbols(cell) == sorted(atoms.get_chemical_symbols() * n_cells)
    assert (cell.pbc == atoms.pbc).all()
    assert np.array_equal(cell.cell[~cell.pbc], atoms.cell[~atoms.pbc])
    heights = perpendicular_heights(cell.cell.array, cell.pbc)
    assert heights.min() >= length - 1e-6 or len(cell) + len(atoms) > 400 / 2


@settings(max_examples=30, deadline=None)
@given(n_atoms=N_ATOMS, pbc=PBC, seed=SEED, per_frame=st.integers(1, 5))
def test_vacancies_take_atoms_away_and_touch_nothing_else(random_frame, n_atoms, pbc, seed, per_frame):
    atoms = random_frame(n_atoms, pbc, seed)
    try:
        step = make_vacancies(atoms, VacancySettings(per_frame=per_frame), np.random.default_rng(seed))
    except NotApplicableError:
        assert n_atoms < 4 or not any(pbc)
        return
    kept = np.delete(np.arange(n_atoms), step.parameters["removed"])
    assert n_atoms - len(step.atoms) == min(per_frame, n_atoms // 4)
    assert np.array_equal(step.atoms.arrays["site"], kept)
    assert np.array_equal(step.atoms.positions, atoms.positions[kept])
    assert np.array_equal(step.atoms.cell.array, atoms.cell.array)
    assert np.array_equal(step.atoms.pbc, atoms.pbc)


@settings(max_examples=15, deadline=None)
@given(
    low=st.floats(-0.3, -0.01),
    high=st.floats(0.01, 0.6),
    mode=st.sampled_from(["volumetric", "uniaxial"]),
    n_dim=st.integers(1, 3),
    seed=SEED,
)
def test_strains_are_uniform_in_any_range(low, high, mode, n_dim, seed):
    rng = np.random.default_rng(seed)
    chosen = StrainSettings(range=(low, high), mode=mode)
    stretches = np.array([draw_stretch(n_dim, chosen, rng) for _ in range(400)])
    principal = np.linalg.eigvalsh(stretches) - 1.0
    strained = np.where(np.abs(principal[:, 0]) > np.abs(principal[:, -1]), principal[:, 0], principal[:, -1])
    assert strained.min() >= low - 1e-9
    assert strained.max() <= high + 1e-9
    assert kstest(strained, "uniform", args=(low, high - low)).pvalue > 1e-7


@settings(max_examples=15, deadline=None)
@given(n_atoms=st.integers(1, 80), pbc=PBC, seed=SEED)
def test_the_flow_repeats_by_seed_and_keeps_species_periodicity_and_room(random_frame, n_atoms, pbc, seed):
    atoms = random_frame(n_atoms, pbc, seed)
    frames = augment([atoms], FLOW, seed).frames
    again = augment([atoms], FLOW, seed).frames
    assert [frame.positions.tobytes() for frame in frames] == [frame.positions.tobytes() for frame in again]
    for frame in frames:
        assert (frame.pbc == atoms.pbc).all()
        assert closest_pair_ratio(frame) >= 0.5 - 1e-9
        if not any(pbc):
            assert np.array_equal(frame.cell.array, atoms.cell.array)
        if "vacancy" not in frame.info["config_type"]:
            assert sorted_symbols(frame) == sorted_symbols(atoms)
