"""calcfunctions that plan: every stage, member and job has its own seed or part."""

from __future__ import annotations

from typing import Any

import pytest
from aiida import orm

from aiida_alpot.calculations.functions.plan import (
    cap_budget,
    plan_committee,
    plan_exploration,
    plan_iteration,
    plan_start,
)
from aiida_alpot.data.pes import PESData
from aiida_alpot.kernel.seeds import derive_seed

pytestmark = pytest.mark.usefixtures("aiida_profile")


def values(nodes: dict[str, orm.Int]) -> dict[str, int]:
    return {name: node.value for name, node in nodes.items()}


def test_the_start_has_a_seed_for_augmentation_and_splits() -> None:
    seeds = values(plan_start(orm.Int(7)))
    assert seeds == {"augment": derive_seed(7, "augment"), "split": derive_seed(7, "split")}


def test_the_first_iteration_is_number_zero() -> None:
    planned = values(plan_iteration(orm.Int(7)))
    assert planned["iteration"] == 0
    assert set(planned) == {"iteration", "train", "explore", "evaluate"}


def test_every_iteration_has_other_seeds() -> None:
    first = values(plan_iteration(orm.Int(7)))
    second = values(plan_iteration(orm.Int(7), history=orm.Dict({"iterations": [{}]})))
    assert second["iteration"] == 1
    names = ("train", "explore", "evaluate")
    assert len({planned[name] for planned in (first, second) for name in names}) == 6


def test_members_have_names_and_seeds_of_their_own() -> None:
    seeds = values(plan_committee(orm.Int(1), orm.Int(3)))
    assert list(seeds) == ["m000", "m001", "m002"]
    assert len(set(seeds.values())) == 3


def test_a_larger_committee_keeps_the_seeds_of_the_smaller() -> None:
    small, large = (values(plan_committee(orm.Int(1), orm.Int(size))) for size in (2, 4))
    assert large.items() >= small.items()


@pytest.mark.parametrize(("max_labels", "budget"), [(100, 10), (15, 3), (12, 1), (5, 1)])
def test_a_budget_stays_within_the_labels_that_are_left(copper_dataset: PESData, max_labels: int, budget: int) -> None:
    capped = cap_budget(orm.Dict({"budget": 10, "control_share": 0.2}), copper_dataset, orm.Int(max_labels))
    assert capped.get_dict() == {"budget": budget, "control_share": 0.2}


SETTINGS = {"temperatures": [300.0, 600.0, 900.0], "pressures": [0.0], "n_starting_frames": 2, "ensemble": "nvt"}


def plan(frames: PESData, settings: dict[str, Any], per_job: int) -> list[dict[str, int]]:
    parts = plan_exploration(frames, orm.Dict(settings), orm.Int(1), orm.Int(per_job), orm.Int(4))
    return [parts[name].get_dict() for name in sorted(parts)]


def test_the_parts_of_an_exploration_cover_the_plan_once(copper: PESData) -> None:
    parts = plan(copper, SETTINGS, 4)
    assert parts == [{"first": 0, "last": 4, "iteration": 4}, {"first": 4, "last": 6, "iteration": 4}]


def test_one_job_takes_a_plan_that_fits(copper: PESData) -> None:
    assert plan(copper, SETTINGS, 100) == [{"first": 0, "last": 6, "iteration": 4}]


def test_frames_unfit_to_start_from_are_planned_for_no_job(aiida_profile: Any, make_copper: Any) -> None:
    frames = make_copper(3)
    frames[0].set_cell(0.4 * frames[0].cell, scale_atoms=True)
    node = PESData.from_frames(frames, status=["unlabelled", "unlabelled", "failed"])
    assert plan(node, SETTINGS, 100) == [{"first": 0, "last": 3, "iteration": 4}]


def test_wrong_settings_of_an_exploration_are_refused_by_name(copper: PESData) -> None:
    with pytest.raises(ValueError, match="did you mean 'temperatures'"):
        plan(copper, {"temperature": [1.0]}, 1)
