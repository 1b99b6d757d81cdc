import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiida_alpot.kernel.exploration import ExploreSettings, choose_driver, count_trajectories, plan_trajectories


def settings_with(**values):
    return ExploreSettings(**{"temperatures": (100.0, 300.0), "pressures": (-0.5, 0.0, 0.5), "walkers": 2, **values})


def test_the_schedule_is_the_product_of_frames_conditions_and_walkers():
    plans = plan_trajectories(3, settings_with(), 1)
    assert len(plans) == 3 * 2 * 3 * 2
    assert [plan.index for plan in plans] == list(range(len(plans)))
    assert {(plan.frame, plan.temperature, plan.pressure) for plan in plans} == {
        (frame, t, p) for frame in range(3) for t in (100.0, 300.0) for p in (-0.5, 0.0, 0.5)
    }
    assert len({plan.seed for plan in plans}) == len(plans)
    assert len({plan.name for plan in plans}) == len(plans)


def test_nvt_ignores_pressures_without_duplicates():
    plans = plan_trajectories(2, settings_with(), 1, periodic=[True, False])
    assert sum(plan.frame == 0 for plan in plans) == 2 * 3 * 2
    molecules = [plan for plan in plans if plan.frame == 1]
    assert len(molecules) == 2 * 2
    assert {(plan.ensemble, plan.pressure) for plan in molecules} == {("nvt", None)}
    assert len(plan_trajectories(2, settings_with(ensemble="nvt"), 1)) == 2 * 2 * 2


def test_npt_for_a_frame_that_has_no_periodic_axis_becomes_nvt():
    plans = plan_trajectories(1, settings_with(ensemble="npt"), 1, periodic=[False])
    assert {plan.ensemble for plan in plans} == {"nvt"}


def test_starting_frames_are_drawn_without_replacement_by_the_seed():
    settings = settings_with(n_starting_frames=5)
    frames = [sorted({plan.frame for plan in plan_trajectories(50, settings, seed)}) for seed in (1, 1, 2)]
    assert frames[0] == frames[1] != frames[2]
    assert all(len(drawn) == 5 and max(drawn) < 50 for drawn in frames)


def test_walkers_and_campaigns_have_their_own_seeds_and_labels_make_names_unique():
    one, two = (plan_trajectories(1, settings_with(), seed) for seed in (1, 2))
    assert not {plan.seed for plan in one} & {plan.seed for plan in two}
    labelled = plan_trajectories(1, settings_with(), 1, label="iteration-1/")
    assert labelled[0].name == "iteration-1/md-00000"


def test_at_zero_kelvin_one_walker_runs_since_all_would_be_the_same():
    settings = settings_with(temperatures=(0.0, 300.0), pressures=(0.0, 0.5), walkers=3)
    plans = plan_trajectories(1, settings, 1)
    assert [(plan.temperature, plan.pressure) for plan in plans] == [
        *[(0.0, 0.0), (0.0, 0.5)],
        *[(300.0, 0.0)] * 3,
        *[(300.0, 0.5)] * 3,
    ]
    assert count_trajectories(1, settings) == 8


def test_nothing_to_start_from_is_an_empty_schedule():
    assert plan_trajectories(0, settings_with(), 1) == ()


def test_periodic_of_the_wrong_length_is_refused():
    with pytest.raises(ValueError, match="3 frames, got 2"):
        plan_trajectories(3, settings_with(), 1, periodic=[True, False])


@given(st.lists(st.booleans(), max_size=8), st.integers(1, 3), st.integers(0, 100))
def test_the_count_agrees_with_the_schedule(periodic, n_starting_frames, seed):
    settings = settings_with(n_starting_frames=n_starting_frames)
    plans = plan_trajectories(len(periodic), settings, seed, periodic=periodic)
    assert count_trajectories(len(periodic), settings, periodic, seed=seed) == len(plans)


def test_the_driver_is_a_member_chosen_by_setting_and_seed():
    assert choose_driver(4, settings_with(driver="first"), 1) == 0
    assert choose_driver(4, settings_with(driver=3), 1) == 3
    drawn = [choose_driver(4, settings_with(driver="random"), seed) for seed in range(50)]
    assert set(drawn) == {0, 1, 2, 3}
    assert drawn == [choose_driver(4, settings_with(driver="random"), seed) for seed in range(50)]
    with pytest.raises(ValueError, match="driver is 3"):
        choose_driver(3, settings_with(driver=3), 1)
    with pytest.raises(ValueError, match="at least one potential"):
        choose_driver(0, settings_with(), 1)
