"""What a selection promises: success with nothing flagged, clean splits, an unbiased control share."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiida_alpot.kernel.potentials import Features
from aiida_alpot.kernel.selection import STRATEGIES, CandidateTable, flag, select
from aiida_alpot.kernel.uncertainty import ActiveSet

LIMITS = {"force": 0.1}
ABSORBING = ("ladder", "best_first")


def table(n_groups=10, n_frames=10, *, flagged=0.5, seed=0, **columns) -> CandidateTable:
    """Return trajectories with a share of frames above 0.1 eV/Å."""
    rng = np.random.default_rng(seed)
    n = n_groups * n_frames
    force = np.where(rng.random(n) < flagged, rng.uniform(0.11, 0.3, n), rng.uniform(0.0, 0.1, n))
    values = {
        "energy": np.zeros(n),
        "force": force,
        "force_max": 2 * force,
        "stress": np.full(n, np.nan),
        "grade": np.full(n, np.nan),
        "healthy": np.ones(n, dtype=bool),
        "group": [f"traj-{i // n_frames}" for i in range(n)],
        "structure_id": [f"id-{i}" for i in range(n)],
        "features": rng.normal(size=(n, 3)),
    }
    return CandidateTable(**{**values, **columns})


def one_atom_each(candidates) -> dict:
    """Return an active set of three small atoms, and candidates that are one atom each."""

    def of(values) -> Features:
        return Features(values, np.full(len(values), 29), np.arange(len(values)))

    active_set = ActiveSet.build(of(0.1 * np.eye(3)), constant_column=False)
    return {"active_set": active_set, "atom_features": lambda rows: of(candidates.features[rows])}


def training(selection) -> np.ndarray:
    return selection.indices[~selection.control]


def test_nothing_flagged_is_a_success_with_control_frames_only():
    result = select(table(flagged=0.0), "threshold", 20, 0, thresholds=LIMITS)
    assert len(result) == 5
    assert result.control.all()
    assert set(result.reasons) == {"control"}
    assert result.report["n_flagged"] == 0


def test_no_candidates_give_an_empty_selection():
    result = select(table(0), "threshold", 20, 0, thresholds=LIMITS)
    assert len(result) == 0
    assert result.report["n_candidates"] == 0


def test_no_healthy_candidates_give_an_empty_selection():
    candidates = table(healthy=np.zeros(100, dtype=bool))
    assert len(select(candidates, "threshold", 20, 0, thresholds=LIMITS)) == 0


def test_zero_budget_gives_an_empty_selection():
    assert len(select(table(), "greedy_diverse", 0, 0, thresholds=LIMITS)) == 0


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name not in ABSORBING])
def test_budget_holds_for_control_and_training_together(strategy):
    result = select(table(), strategy, 30, 0, thresholds=LIMITS, validation_share=0.2)
    assert len(result) == 30
    assert result.control.sum() == 7
    assert (np.diff(result.indices) > 0).all()


def test_training_frames_are_flagged_and_say_why():
    candidates = table()
    result = select(candidates, "threshold", 20, 0, thresholds=LIMITS)
    assert (candidates.force[training(result)] > 0.1).all()
    index = int(np.flatnonzero(~result.control)[0])
    assert result.reasons[index] == f"force {candidates.force[result.indices[index]]:.4g} > 0.1 eV/Å"


def test_reason_names_every_exceeded_limit():
    columns = {"force": [0.31], "grade": [12.0], "energy": [0.0], "force_max": [0.4]}
    candidates = table(1, 1, **columns)
    result = select(candidates, "threshold", 1, 0, thresholds={"energy": 1e-3, "force": 0.1}, gamma_select=2.0)
    assert result.reasons == ("force 0.31 > 0.1 eV/Å; grade 12 > 2",)


def test_control_frames_are_drawn_from_all_healthy_candidates_and_not_from_flagged_ones():
    candidates = table(flagged=0.3)
    share = [
        candidates.force[result.indices[result.control]] > 0.1
        for result in (select(candidates, "threshold", 50, seed, thresholds=LIMITS) for seed in range(200))
    ]
    assert np.concatenate(share).mean() == pytest.approx((candidates.force > 0.1).mean(), abs=0.06)


def test_every_healthy_candidate_can_become_a_control_frame():
    seen = set()
    for seed in range(400):
        result = select(table(4, 5), "threshold", 20, seed, thresholds=LIMITS)
        seen.update(result.indices[result.control].tolist())
    assert seen == set(range(20))


def uneven_trajectories() -> CandidateTable:
    """Return twenty trajectories of 40 frames and twenty of 4, unflagged; the short ones have an energy of 1."""
    sizes = [40] * 20 + [4] * 20
    group = np.repeat([f"t{k:02d}" for k in range(40)], sizes)
    is_short = np.repeat([0.0, 1.0], [800, 80])
    return table(1, 880, force=np.zeros(880), energy=is_short, group=group, features=None)


def test_control_share_represents_the_frames_and_not_the_trajectories():
    candidates = uneven_trajectories()
    draws = [select(candidates, "threshold", 40, seed, thresholds=LIMITS) for seed in range(300)]
    short = np.array([candidates.energy[draw.indices].mean() for draw in draws])
    # 9 % of the frames and half of the trajectories are short
    assert short.mean() == pytest.approx(80 / 880, abs=0.025)
    assert {len(draw) for draw in draws} == {10}


def test_control_size_is_reached_by_taking_further_trajectories():
    result = select(table(20, 2, flagged=0.0), "threshold", 40, 0, thresholds=LIMITS, control_share=0.05)
    assert len(result) == 10
    assert len(result.report["control_groups"]) == 5


def test_control_ends_short_when_only_the_last_trajectory_worth_training_on_is_left():
    candidates = table(2, 3, force=[0.2] * 3 + [0.0] * 3)
    result = select(candidates, "threshold", 40, 0, thresholds=LIMITS)
    assert result.indices[result.control].tolist() == [3, 4, 5]
    assert result.report["control_excluded_groups"] == ["traj-0"]


def test_report_names_a_lone_trajectory_that_was_left_to_training():
    assert select(table(1), "threshold", 20, 0, thresholds=LIMITS).report["control_excluded_groups"] == ["traj-0"]
    assert select(table(5), "threshold", 20, 0, thresholds=LIMITS).report["control_excluded_groups"] == []


@pytest.mark.parametrize("seed", range(5))
def test_a_validation_trajectory_does_not_count_as_one_to_train_on(seed):
    fixed = {"traj-0": "validation"}
    result = select(table(2, flagged=1.0), "threshold", 10, seed, thresholds=LIMITS, fixed_splits=fixed)
    assert "train" in result.split


def test_only_control_candidates_become_control_frames():
    sampled = np.arange(100) % 10 == 0
    result = select(table(), "threshold", 20, 0, thresholds=LIMITS, control_candidates=sampled)
    assert result.control.sum() == 5
    assert sampled[result.indices[result.control]].all()
    assert not sampled[training(result)].all()


@pytest.mark.parametrize(
    ("budget", "share", "n_flagged", "n_control"),
    [
        (15, 0.2, 100, 3),  # the quickstart
        (1000, 0.1, 45, 10),  # the budget is not spent: 5 of 50, but at least ten
        (1000, 0.1, 180, 20),
        (400, 0.5, 100, 100),
        (20, 0.9, 100, 10),  # never more than half
        (2, 0.1, 100, 1),
        (20, 0.1, 0, 5),
        (1, 0.5, 100, 0),
        (20, 0.0, 100, 0),
    ],
)
def test_control_size_is_a_share_of_the_expected_selection(budget, share, n_flagged, n_control):
    force = np.where(np.arange(400) < n_flagged, 0.2, 0.0)
    candidates = table(1, 400, force=force, group=[f"t{k}" for k in range(400)], features=None)
    result = select(candidates, "threshold", budget, 0, thresholds=LIMITS, control_share=share)
    assert result.control.sum() == n_control


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    n_groups=st.integers(1, 8),
    n_frames=st.integers(1, 6),
    budget=st.integers(0, 40),
    flagged=st.floats(0.0, 1.0),
    shares=st.tuples(st.floats(0.0, 0.9), st.floats(0.0, 0.9)),
    strategy=st.sampled_from(sorted(STRATEGIES)),
)
def test_a_trajectory_is_never_on_both_sides(seed, n_groups, n_frames, budget, flagged, shares, strategy):
    candidates = table(n_groups, n_frames, flagged=flagged, seed=seed)
    control, validation = shares
    result = select(
        candidates,
        strategy,
        budget,
        seed,
        thresholds=LIMITS,
        control_share=control,
        validation_share=validation,
        **one_atom_each(candidates),
    )
    assert len(result) <= budget
    assert len(set(result.indices.tolist())) == len(result)
    splits = {}
    for index, split in zip(result.indices, result.split, strict=True):
        assert splits.setdefault(str(candidates.group[index]), split) == split
    held_out = [split in ("calibration", "test") for split in result.split]
    assert held_out == result.control.tolist()
    if budget >= 2 and flagged == 1.0 and strategy not in ABSORBING:
        assert "train" in result.split


def test_small_numbers_of_groups_reach_validation_and_control():
    result = select(table(3), "threshold", 20, 0, thresholds=LIMITS, validation_share=0.1)
    assert {"train", "validation", "calibration"} == set(result.split)


def test_lone_trajectory_with_flagged_frames_is_trained_on():
    result = select(table(1), "threshold", 20, 0, thresholds=LIMITS, validation_share=0.2)
    assert set(result.split) == {"train"}
    assert not result.control.any()


def test_lone_trajectory_without_flagged_frames_is_control():
    result = select(table(1, flagged=0.0), "threshold", 20, 0, thresholds=LIMITS)
    assert set(result.split) == {"calibration"}


@pytest.mark.parametrize("seed", range(10))
def test_last_trajectory_worth_training_on_is_not_taken_for_control(seed):
    candidates = table(4, 5, force=[0.2] * 5 + [0.0] * 15)
    result = select(candidates, "threshold", 10, seed, thresholds=LIMITS, control_share=0.8)
    assert "train" in result.split


def test_control_groups_alternate_between_calibration_and_test():
    kwargs = {"thresholds": LIMITS, "control_share": 0.4}
    assert {"calibration", "test"} <= set(select(table(), "threshold", 60, 0, **kwargs).split)
    one = {"thresholds": LIMITS, "control_share": 0.1}  # the ten frames of one trajectory
    assert "test" not in select(table(), "threshold", 60, 0, **one).split
    later = select(table(), "threshold", 60, 0, n_control_groups_before=1, **one)
    assert {split for split, held in zip(later.split, later.control, strict=True) if held} == {"test"}


def test_splits_of_earlier_iterations_are_kept_for_life():
    fixed = {"traj-0": "test", "traj-1": "train", "traj-2": "validation"}
    for seed in range(20):
        candidates = table(5)
        result = select(candidates, "threshold", 40, seed, thresholds=LIMITS, validation_share=0.3, fixed_splits=fixed)
        for index, split in zip(result.indices, result.split, strict=True):
            assert split == fixed.get(str(candidates.group[index]), split)
    no_control = select(table(5), "threshold", 40, 0, thresholds=LIMITS, control_share=0.0, fixed_splits=fixed)
    assert "traj-0" not in {f"traj-{index // 10}" for index in no_control.indices}


def test_known_and_repeated_structures_are_skipped():
    candidates = table(2, 4, force=np.full(8, 0.2), structure_id=["a", "a", "b", "c", "d", "a", "e", "b"])
    result = select(candidates, "threshold", 8, 0, thresholds=LIMITS, control_share=0.0, known_ids={"c"})
    assert candidates.structure_id[result.indices].tolist() == ["a", "b", "d", "e"]
    assert (result.report["n_known"], result.report["n_duplicates"]) == (1, 3)


def test_healthy_copy_of_a_structure_is_preferred():
    candidates = table(1, 2, force=[0.2, 0.2], structure_id=["a", "a"], healthy=[False, True])
    assert select(candidates, "threshold", 2, 0, thresholds=LIMITS).indices.tolist() == [1]


def test_near_duplicates_of_a_trajectory_are_thinned():
    candidates = table(1, 4, force=np.full(4, 0.2), features=[[0.0], [0.01], [1.0], [1.01]])
    result = select(candidates, "threshold", 4, 0, thresholds=LIMITS, min_distance=0.1)
    assert result.indices.tolist() == [0, 2]
    assert result.report["n_near_duplicates"] == 2


def test_undefined_disagreement_never_flags():
    candidates = table(2, 3, flagged=0.0)
    assert not flag(candidates, {"stress": 1e-9}, 2.0).any.any()


def test_infinite_grade_flags():
    candidates = table(1, 2, flagged=0.0, grade=[np.inf, 1.0])
    result = select(candidates, "threshold", 2, 0, thresholds=LIMITS, gamma_select=2.0)
    assert result.indices.tolist() == [0]
    assert result.reasons == ("grade inf > 2",)


def test_threshold_itself_is_not_above():
    assert flag(table(1, 2, force=[0.1, 0.1000001]), LIMITS, None).any.tolist() == [False, True]


def test_unhealthy_frames_are_trained_on_only_when_allowed_and_never_control():
    healthy = np.arange(100) % 10 < 5
    candidates = table(flagged=1.0, healthy=healthy)
    strict = select(candidates, "threshold", 100, 0, thresholds=LIMITS)
    loose = select(candidates, "threshold", 100, 0, thresholds=LIMITS, allow_unhealthy=True)
    assert healthy[strict.indices].all()
    assert not healthy[training(loose)].all()
    assert healthy[loose.indices[loose.control]].all()
    assert strict.report["n_flagged_unhealthy"] == 50


def test_unphysical_frames_are_counted_but_not_trained_on():
    candidates = table(2, 2, force=[0.2, 5.0, 0.3, 9.0])
    result = select(candidates, "threshold", 4, 0, thresholds=LIMITS, control_share=0.0, upper={"force": 10.0})
    assert result.indices.tolist() == [0, 2]
    assert (result.report["n_above_upper"], result.report["n_flagged"]) == (2, 4)


def test_random_strategy_draws_unflagged_frames_too():
    candidates = table(flagged=0.2)
    result = select(candidates, "random", 60, 0, thresholds=LIMITS)
    assert (candidates.force[training(result)] <= 0.1).any()
    assert "random" in result.reasons


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_equal_seeds_give_equal_selections(strategy):
    kwargs = {"thresholds": LIMITS, "validation_share": 0.2, **one_atom_each(table())}
    one, two = (select(table(), strategy, 20, 7, **kwargs) for _ in range(2))
    assert one.indices.tolist() == two.indices.tolist()
    assert (one.split, one.reasons) == (two.split, two.reasons)


def graded(candidates) -> tuple[CandidateTable, dict]:
    """Return candidates of one atom each with the grade they have in the active set that is returned too."""
    kwargs = one_atom_each(candidates)
    grade = kwargs["active_set"].grade(kwargs["atom_features"](np.arange(len(candidates))))
    return replace(candidates, grade=grade), kwargs


@pytest.mark.parametrize("strategy", ABSORBING)
def test_frames_that_an_active_set_takes_in_are_flagged_by_grade_and_say_it(strategy):
    candidates, kwargs = graded(table(flagged=0.2))
    result = select(candidates, strategy, 20, 0, thresholds=LIMITS, control_share=0.0, **kwargs)
    assert (candidates.force[result.indices] <= 0.1).any()
    assert result.report["limits"]["grade"] == 2.0
    for row, reason in zip(result.indices, result.reasons, strict=True):
        assert f"grade {candidates.grade[row]:.4g} > 2; {strategy}: grade " in reason


@pytest.mark.parametrize("strategy", ABSORBING)
@pytest.mark.parametrize("gamma_select", [None, 1.0, 1.005, 6.0])
def test_a_strategy_by_grade_takes_nothing_if_and_only_if_nothing_is_flagged_by_grade(strategy, gamma_select):
    n_taken = []
    for size in (0.05, 0.1, 0.1005, 0.3, 1.0):
        candidates, kwargs = graded(table(1, 3, flagged=0.0, features=size * np.eye(3)))
        result = select(
            candidates, strategy, 9, 0, thresholds={}, gamma_select=gamma_select, control_share=0.0, **kwargs
        )
        n_taken.append(len(result))
        assert (len(result) == 0) == (result.report["flagged"]["grade"] == 0)
    assert n_taken[0] == 0
    assert n_taken[-1] == 3


@pytest.mark.parametrize("strategy", ABSORBING)
def test_control_size_is_a_share_of_what_a_strategy_by_grade_takes_and_not_of_its_pool(strategy):
    candidates, kwargs = graded(table(400, 1, flagged=0.0))
    alone = select(candidates, strategy, 400, 0, thresholds=LIMITS, control_share=0.0, **kwargs)
    assert len(alone) < 20
    shared = select(candidates, strategy, 400, 0, thresholds=LIMITS, control_share=0.25, **kwargs)
    assert shared.control.sum() == 10


@pytest.mark.parametrize("strategy", ABSORBING)
@pytest.mark.parametrize("seed", range(5))
def test_control_frames_leave_the_only_trajectory_that_an_active_set_takes_frames_of(strategy, seed):
    features = np.where(np.arange(40)[:, None] < 10, 1.0, 0.05) * np.eye(3)[np.arange(40) % 3]
    candidates, kwargs = graded(table(4, 10, flagged=0.0, features=features))
    result = select(candidates, strategy, 12, seed, thresholds=LIMITS, **kwargs)
    assert {candidates.group[row] for row in training(result)} == {"traj-0"}
    assert result.control.sum() == 3


def test_what_the_dataset_holds_is_no_longer_counted_as_flagged():
    candidates = table(1, 4, force=[0.2, 0.2, 0.2, 0.0], structure_id=["a", "a", "b", "c"])
    report = select(candidates, "threshold", 4, 0, thresholds=LIMITS, known_ids={"b", "c"}).report
    assert (report["n_flagged"], report["flagged"]) == (2, {"force": 2})
    report = select(candidates, "threshold", 4, 0, thresholds=LIMITS, known_ids={"a", "b"}).report
    assert (report["n_flagged"], report["flagged"], report["n_known"]) == (0, {"force": 0}, 3)


@pytest.mark.parametrize("strategy", ABSORBING)
def test_validation_and_control_leave_the_active_set_as_it_is(strategy):
    candidates = table()
    graded = one_atom_each(candidates)
    before = graded["active_set"].to_arrays()
    result = select(candidates, strategy, 8, 0, thresholds=LIMITS, validation_share=0.3, **graded)
    assert {"train", "validation", "calibration"} <= set(result.split)
    assert len(result) <= 8
    after = graded["active_set"].to_arrays()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_top_spends_the_budget_on_the_most_uncertain_of_the_trainable_frames():
    candidates = table()
    result = select(candidates, "top", 20, 0, thresholds=LIMITS)
    chosen = training(result)
    control = {candidates.group[row] for row in result.indices[result.control]}
    others = [k for k in range(100) if candidates.group[k] not in control and k not in chosen]
    assert candidates.force[chosen].min() >= candidates.force[others].max()


def test_other_seeds_give_other_selections():
    one, two = (select(table(), "threshold", 20, seed, thresholds=LIMITS) for seed in (1, 2))
    assert one.indices.tolist() != two.indices.tolist()


def test_unused_validation_budget_goes_to_training():
    result = select(table(5, 2, flagged=1.0), "threshold", 8, 0, thresholds=LIMITS, validation_share=0.8)
    assert len(result) <= 8
    assert "train" in result.split


def test_report_is_plain_and_adds_up():
    result = select(table(), "threshold", 20, 0, thresholds=LIMITS, gamma_select=2.0, validation_share=0.2)
    report = result.report
    assert json.loads(json.dumps(report)) == report
    names = ("n_train", "n_validation", "n_calibration", "n_test")
    assert sum(report[name] for name in names) == report["n_selected"] == len(result)
    assert report["flagged"] == {"force": report["n_flagged"], "grade": 0}


@pytest.mark.parametrize("strategy", ["greedy_diverse", "fps", "direct"])
def test_strategies_with_distances_need_features(strategy):
    with pytest.raises(ValueError, match="needs candidates with features"):
        select(table(features=None), strategy, 5, 0, thresholds=LIMITS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"budget": -1}, "budget"),
        ({"control_share": 1.0}, "control_share"),
        ({"validation_share": -0.1}, "validation_share"),
        ({"min_distance": 0.0}, "min_distance"),
        ({"thresholds": {"forces": 0.1}}, "did you mean 'force'"),
        ({"thresholds": {"force": np.nan}}, "positive and finite"),
        ({"gamma_select": 0.0}, "gamma_select"),
        ({"upper": {"energy": 2.0}}, "no threshold"),
        ({"upper": {"force": 0.5}}, "larger than 1"),
        ({"fixed_splits": {"traj-0": "training"}}, "'training'"),
        ({"control_candidates": np.ones(3, dtype=bool)}, r"'control_candidates' has shape \(3,\), expected 100 rows"),
        ({"strategy": "best"}, "unknown key"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    defaults = {"strategy": "threshold", "budget": 5, "seed": 0, "thresholds": LIMITS}
    with pytest.raises(ValueError, match=message):
        select(table(), **{**defaults, **arguments})
