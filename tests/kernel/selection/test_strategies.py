"""The strategies and distances, one by one."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from aiida_alpot.kernel.selection import (
    STRATEGIES,
    CandidateTable,
    PickContext,
    get_strategy,
    sorted_distance_features,
)
from aiida_alpot.kernel.selection.distance import nearest_distances, thin
from aiida_alpot.kernel.uncertainty import ActiveSet


def table(features, force_max=None, **columns) -> CandidateTable:
    features = np.asarray(features, dtype=float).reshape(len(features), -1)
    n = len(features)
    values = {
        **dict.fromkeys(("energy", "force", "stress", "grade"), np.zeros(n)),
        "force_max": np.ones(n) if force_max is None else force_max,
        "healthy": np.ones(n, dtype=bool),
        "group": np.array(["g"] * n),
        "structure_id": np.arange(n).astype(str),
        "features": features,
    }
    return CandidateTable(**{**values, **columns})


def pick(name, candidates, n, reference=None, seed=0, limits=None):
    pool = np.arange(len(candidates))
    context = PickContext(limits or {}, reference)
    return get_strategy(name).pick(candidates, pool, n, np.random.default_rng(seed), context).rows.tolist()


def test_threshold_draws_every_row_with_the_same_probability():
    candidates = table(np.arange(5))
    counts = np.bincount([row for seed in range(2000) for row in pick("threshold", candidates, 2, seed=seed)])
    assert counts == pytest.approx(np.full(5, 800), abs=120)


def test_top_takes_the_largest_multiples_of_a_limit():
    candidates = table(
        np.zeros(4), energy=[0.01, 0.0, 0.03, 0.0], force=[0.0, 0.5, 0.1, 0.2], grade=[1.0, 1.0, 1.0, 9.0]
    )
    limits = {"energy": 0.01, "force": 0.1, "grade": 3.0}
    # 1, 5, 3 and 3 times: the first of equal ones comes first
    assert pick("top", candidates, 4, limits=limits) == [1, 2, 3, 0]
    assert pick("top", candidates, 2, limits=limits) == [1, 2]


def test_top_ignores_what_has_no_limit_or_is_not_defined():
    candidates = table(np.zeros(3), force=[0.2, 0.1, 0.3], stress=[np.nan] * 3, energy=[0.0, 9.0, 0.0])
    assert pick("top", candidates, 2, limits={"force": 0.1, "stress": 1e-3}) == [2, 0]


def test_top_orders_infinite_grades_by_their_disagreement():
    candidates = table(np.zeros(3), force=[0.9, 0.2, 0.3], grade=[1.0, np.inf, np.inf])
    assert pick("top", candidates, 3, limits={"force": 0.1, "grade": 2.0}) == [2, 1, 0]


def test_top_measures_every_candidate_by_its_own_limit():
    candidates = table(np.zeros(4), force=[0.4, 0.3, 0.2, 0.1])
    assert pick("top", candidates, 3, limits={"force": np.array([0.4, 0.1, 0.2, 0.02])}) == [3, 1, 0]


def test_top_does_not_depend_on_the_order_of_rows():
    rng = np.random.default_rng(0)
    force, order = rng.uniform(size=30), rng.permutation(30)
    straight = pick("top", table(np.zeros(30), force=force), 7, limits={"force": 0.1})
    shuffled = pick("top", table(np.zeros(30), force=force[order]), 7, limits={"force": 0.1})
    assert order[shuffled].tolist() == straight


def test_farthest_points_are_the_ends_then_the_middle():
    assert pick("fps", table([0.0, 1.0, 5.0, 6.0, 10.1]), 3) == [4, 0, 2]


def test_farthest_point_set_does_not_depend_on_the_order_of_rows():
    features = np.random.default_rng(0).normal(size=(40, 3))
    order = np.random.default_rng(1).permutation(40)
    straight = set(pick("fps", table(features), 7))
    assert {int(order[row]) for row in pick("fps", table(features[order]), 7)} == straight


def test_farthest_points_keep_away_from_the_training_set():
    assert pick("fps", table([0.0, 1.0, 10.0]), 1, reference=np.array([[9.0]])) == [0]


def test_greedy_diverse_starts_with_the_most_uncertain_and_weighs_distance():
    candidates = table([0.0, 0.1, 3.0, 4.0], force_max=[1.0, 0.9, 0.5, 0.2])
    # after 0: 0.9·0.1, 0.5·3.0, 0.2·4.0; after 2: 0.9·0.1, 0.2·1.0
    assert pick("greedy_diverse", candidates, 3) == [0, 2, 3]


def test_greedy_diverse_counts_the_distance_to_the_training_set():
    candidates = table([0.0, 5.0], force_max=[1.0, 0.5])
    assert pick("greedy_diverse", candidates, 1, reference=np.array([[0.1]])) == [1]


def test_greedy_choice_matches_brute_force():
    rng = np.random.default_rng(3)
    features, weights = rng.normal(size=(30, 4)), rng.uniform(0.1, 2.0, 30)
    chosen = [int(np.argmax(weights))]
    while len(chosen) < 6:
        nearest = [min(np.linalg.norm(row - features[c]) for c in chosen) for row in features]
        chosen.append(int(np.argmax(weights * np.array(nearest))))
    assert pick("greedy_diverse", table(features, weights), 6) == chosen


def test_copies_are_never_chosen_twice():
    for name in ("fps", "greedy_diverse"):
        assert sorted(pick(name, table([1.0, 1.0, 2.0, 2.0]), 4)) == [0, 2]
        assert pick(name, table([1.0, 2.0]), 2, reference=np.array([[1.0], [2.0]])) == []


def test_single_model_without_a_deviation_falls_back_to_distance():
    assert pick("greedy_diverse", table([0.0, 1.0, 10.0], [np.nan] * 3), 2) == [2, 0]


def test_infinite_deviation_counts_as_the_largest():
    assert pick("greedy_diverse", table([0.0, 1.0, 9.0], [np.inf, 1.0, 0.1]), 1) == [0]


@pytest.mark.parametrize("name", ["fps", "greedy_diverse", "direct"])
def test_training_features_of_another_size_are_refused(name):
    with pytest.raises(ValueError, match="shape"):
        pick(name, table([1.0, 2.0]), 1, reference=np.zeros((3, 2)))


@pytest.mark.parametrize("name", STRATEGIES)
def test_strategies_return_nothing_from_an_empty_pool(name):
    nothing = np.zeros(0, dtype=np.int64)
    context = PickContext(active_set=ActiveSet({}, "strict", 1.01, False), atom_features=lambda rows: None)
    assert len(get_strategy(name).pick(table([1.0]), nothing, 3, np.random.default_rng(0), context).rows) == 0


def test_unknown_strategy_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'threshold'"):
        get_strategy("treshold")


def test_sorted_distances_are_invariant_to_motion_and_to_equal_atoms():
    atoms = molecule("CH3CH2OH")
    moved = atoms[[1, 0, 2, 8, 4, 5, 6, 7, 3]]
    moved.rotate(40.0, (1, 2, 3))
    moved.translate((1, 2, 3))
    features = sorted_distance_features([atoms, moved])
    assert features.shape == (2, 36)
    assert features[0] == pytest.approx(features[1])


def test_sorted_distances_need_one_composition():
    with pytest.raises(ValueError, match="one composition, frame 0 is H2O and frame 1 is HO2"):
        sorted_distance_features([molecule("H2O"), Atoms("O2H", np.eye(3))])


def test_nearest_distances_match_brute_force():
    rng = np.random.default_rng(0)
    rows, reference = rng.normal(size=(7, 3)), rng.normal(size=(11, 3))
    expected = np.linalg.norm(rows[:, None] - reference, axis=-1).min(axis=1)
    assert nearest_distances(rows, reference) == pytest.approx(expected)


def test_near_duplicates_go_within_a_trajectory_but_not_across():
    candidates = table([0.0, 0.1, 0.6, 0.05, 0.7])
    groups = np.array(["a", "a", "a", "b", "b"])
    object.__setattr__(candidates, "group", groups)
    assert thin(candidates, np.ones(5, dtype=bool), 0.5).tolist() == [True, False, True, True, True]
