"""Ladder and best-first: what an active set takes in covers the rest, with few frames."""

import numpy as np
import pytest

from aiida_alpot.kernel.potentials import Features
from aiida_alpot.kernel.selection import CandidateTable, PickContext, get_strategy
from aiida_alpot.kernel.selection import absorbing as absorbing_module
from aiida_alpot.kernel.uncertainty import ActiveSet, LocalActiveSet

STRATEGIES = ("ladder", "best_first")


class Case:
    """Candidates of some atoms each, and an active set of few training atoms."""

    def __init__(self, frames, training, start="eps", species=None):
        self.frames = np.asarray(frames, dtype=float)
        self.species = np.full(self.frames.shape[:2], 29) if species is None else np.asarray(species)
        numbers, training = np.full(len(training), 29), np.asarray(training, dtype=float)
        build = ActiveSet.build(Features(training, numbers, np.zeros(len(training))), start, constant_column=False)
        self.active_set = build
        self.n_asked = 0

    def features(self, rows) -> Features:
        self.n_asked += len(rows)
        n_atoms = self.frames.shape[1]
        values = self.frames[rows].reshape(-1, self.frames.shape[2])
        return Features(values, self.species[rows].ravel(), np.repeat(np.arange(len(rows)), n_atoms))

    def pick(self, strategy, n=10**6, gamma=None, pool=None, context=None):
        n_frames = len(self.frames)
        text, zeros = np.arange(n_frames).astype(str), np.zeros(n_frames)
        table = CandidateTable(zeros, zeros, zeros, zeros, zeros, zeros == 0, text, text)
        if context is None:
            limits = {} if gamma is None else {"grade": gamma}
            context = PickContext(limits, active_set=self.active_set, atom_features=self.features)
        pool = np.arange(n_frames) if pool is None else np.asarray(pool)
        return get_strategy(strategy).pick(table, pool, n, np.random.default_rng(0), context)

    def left_after(self, rows):
        """Return the largest grade of the other frames once those at *rows* were taken in, one after the other."""
        grown = self.active_set.copy()
        for row in rows:
            grown.absorb(self.features(np.array([row])))
        features = self.features(np.setdiff1d(np.arange(len(self.frames)), rows))
        return grown.grade(features).max()


def heavy_tails(n_frames=300, n_atoms=4, d=40, seed=0, order="random", **options):
    """Return frames of different size, in an order of their size; the training atoms are fewer than the features."""
    rng = np.random.default_rng(seed)
    size = np.exp(0.5 * rng.normal(size=n_frames))
    size = {"random": size, "ascending": np.sort(size), "descending": np.sort(size)[::-1]}[order]
    frames = size[:, None, None] * rng.normal(size=(n_frames, n_atoms, d))
    return Case(frames, 0.05 * rng.normal(size=(3 * d // 4, d)), **options)


def one_level(case, limit=2.0):
    """Return how many frames a single sweep with a single threshold takes in."""
    grown, taken = case.active_set.copy(), 0
    for row in range(len(case.frames)):
        features = case.features(np.array([row]))
        if grown.grade(features).max() > limit:
            grown.absorb(features)
            taken += 1
    return taken


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_in_one_dimension_the_largest_is_enough(strategy):
    case = Case([[[3.0]], [[50.0]], [[1.5]], [[8.0]]], [[1.0]])
    picks = case.pick(strategy)
    assert picks.rows.tolist() == [1]
    limit = {"ladder": "10", "best_first": "2"}[strategy]
    assert picks.reasons == {1: f"{strategy}: grade 50 > {limit}"}


def test_the_ladder_takes_what_exceeds_a_level_in_the_order_of_the_rows():
    case = Case([[[3.0]], [[20.0]], [[50.0]], [[30.0]]], [[1.0]])
    # 20 enters above 10 and leaves 50 at 2.5, which enters above 2
    picks = case.pick("ladder")
    assert picks.rows.tolist() == [1, 2]
    assert picks.reasons == {1: "ladder: grade 20 > 10", 2: "ladder: grade 2.5 > 2"}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_nothing_new_gives_nothing(strategy):
    case = Case([[[1.0, 0.5]], [[-1.9, 1.0]]], np.eye(2))
    assert case.pick(strategy).rows.tolist() == []
    assert case.pick(strategy).rows.dtype == np.int64


@pytest.mark.parametrize("start", ["eps", "strict"])
@pytest.mark.parametrize("order", ["random", "ascending", "descending"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_in_the_end_no_candidate_exceeds_the_limit(strategy, order, start):
    case = heavy_tails(order=order, start=start)
    picks = case.pick(strategy)
    assert case.left_after(picks.rows) <= 2.0
    assert len(set(picks.rows.tolist())) == len(picks.rows)
    assert set(picks.reasons) == set(picks.rows.tolist())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("order", ["random", "ascending"])
def test_a_ladder_takes_fewer_frames_than_one_level(order, seed):
    case = heavy_tails(order=order, seed=seed)
    assert len(case.pick("ladder").rows) <= one_level(case)


@pytest.mark.parametrize("order", ["random", "ascending", "descending"])
def test_best_first_takes_no_more_frames_than_the_ladder(order):
    case = heavy_tails(order=order)
    assert len(case.pick("best_first").rows) <= len(case.pick("ladder").rows)


@pytest.mark.parametrize("start", ["eps", "strict"])
def test_the_set_of_best_first_does_not_depend_on_the_order_of_rows(start):
    case = heavy_tails(start=start)
    order = np.random.default_rng(1).permutation(len(case.frames))
    other = heavy_tails(start=start)
    other.frames = case.frames[order]
    assert set(order[other.pick("best_first").rows]) == set(case.pick("best_first").rows.tolist())


def test_best_first_grades_few_candidates_again():
    case = heavy_tails()
    n_picked = len(case.pick("best_first").rows)
    case.n_asked = 0
    case.pick("best_first")
    assert case.n_asked < n_picked * len(case.frames) / 1.5


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_result_does_not_depend_on_how_many_are_graded_at_a_time(strategy, monkeypatch):
    case = heavy_tails()
    expected = case.pick(strategy)
    monkeypatch.setattr(absorbing_module, "BLOCK", 7)
    again = case.pick(strategy)
    assert again.rows.tolist() == expected.rows.tolist()
    assert again.reasons == expected.reasons


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_equal_calls_give_the_same_and_leave_the_active_set_alone(strategy):
    case = heavy_tails()
    before = case.active_set.to_arrays()
    first, second = case.pick(strategy), case.pick(strategy)
    assert first.rows.tolist() == second.rows.tolist()
    after = case.active_set.to_arrays()
    assert all(np.array_equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_budget_keeps_the_first_ones(strategy):
    case = heavy_tails()
    everything = case.pick(strategy).rows.tolist()
    assert len(everything) > 5
    assert case.pick(strategy, n=5).rows.tolist() == everything[:5]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_only_rows_of_the_pool_are_chosen(strategy):
    case = heavy_tails()
    assert set(case.pick(strategy, pool=np.arange(0, 300, 3)).rows.tolist()) <= set(range(0, 300, 3))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_higher_limit_takes_fewer_frames(strategy):
    case = heavy_tails()
    picks = case.pick(strategy, gamma=20.0)
    assert 0 < len(picks.rows) < len(case.pick(strategy).rows)
    assert case.left_after(picks.rows) <= 20.0


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_limit_below_what_an_exchange_leaves_ends_all_the_same(strategy):
    case = heavy_tails(n_frames=60)
    picks = case.pick(strategy, gamma=1.0)
    assert case.left_after(picks.rows) <= case.active_set.tol


@pytest.mark.parametrize("start", ["eps", "strict"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_species_without_training_atoms_enters(strategy, start):
    case = Case(
        [[[0.5], [0.5]], [[0.5], [3.0]], [[0.5], [2.0]]], [[1.0]], start, species=[[29, 29], [29, 79], [29, 79]]
    )
    rows = case.pick(strategy).rows.tolist()
    assert 1 <= len(rows) <= 2
    assert 0 not in rows
    assert case.left_after(rows) <= 2.0


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_infinite_grades_enter_until_the_span_is_covered(strategy):
    rng = np.random.default_rng(0)
    case = Case(rng.normal(size=(40, 2, 6)), np.eye(6)[:3], "strict")
    picks = case.pick(strategy)
    assert "grade inf > " in picks.reasons[int(picks.rows[0])]
    assert case.left_after(picks.rows) <= 2.0


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_without_an_active_set_the_way_to_one_is_named(strategy):
    case = heavy_tails(n_frames=2)
    with pytest.raises(ValueError, match="no active set: calibrate with 'feature_kind' set"):
        case.pick(strategy, context=PickContext(atom_features=case.features))
    with pytest.raises(ValueError, match="needs the per-atom features"):
        case.pick(strategy, context=PickContext(active_set=case.active_set))


@pytest.mark.parametrize("start", ["eps", "strict"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_in_the_end_no_candidate_exceeds_the_limit_of_any_cluster(strategy, start):
    case = heavy_tails(n_frames=80, d=12, start=start)
    other = heavy_tails(n_frames=2, d=12, seed=1, start=start).active_set
    one = case.pick(strategy).rows
    case.active_set = LocalActiveSet([case.active_set, other])
    picks = case.pick(strategy)
    assert len(picks.rows) > 0
    assert case.left_after(picks.rows) <= 2.0
    case.active_set = LocalActiveSet([case.active_set.members[0]])
    assert case.pick(strategy).rows.tolist() == one.tolist()


@pytest.mark.parametrize("start", ["strict", "eps"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_frames_with_features_that_are_not_defined_are_all_taken(strategy, start):
    """An atom of a species that the features do not know cannot be told from the next one."""
    case = heavy_tails(n_frames=40, start=start)
    case.frames[[7, 23], 0] = np.nan
    found = case.pick(strategy)
    assert {7, 23} <= set(found.rows.tolist())
    assert all("grade inf" in found.reasons[row] for row in (7, 23))
    case.frames[[7, 23], 0] = 0.0  # nothing instead of something that is not defined
    assert case.left_after(found.rows) <= 2.0
