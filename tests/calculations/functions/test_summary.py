"""calcfunctions that sum up the jobs of a stage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from aiida import orm
from ase import Atoms

from aiida_alpot.calculations.functions.summary import summarise_committee, summarise_exploration, summarise_labels
from aiida_alpot.data.pes import PESData

pytestmark = pytest.mark.usefixtures("aiida_profile")


def test_labels_are_counted_with_reasons_and_cost(make_copper: Callable[..., list[Atoms]], label_emt: Any) -> None:
    frames = [*label_emt(make_copper(2, seed=1)), *make_copper(2, seed=2)]
    for atoms, cost in zip(frames[:2], (1.0, 2.5), strict=True):
        atoms.info.update(cost=cost, fingerprint="abc")
    frames[2].info.update(status="failed", reason="SCF did not converge")
    frames[3].info.update(status="unlabelled", reason="walltime")
    summary = summarise_labels(PESData.from_frames(frames).store()).get_dict()
    assert (summary["n_frames"], summary["n_labelled"], summary["n_failed"], summary["n_unlabelled"]) == (4, 2, 1, 1)
    assert summary["failed_fraction"] == 0.5
    assert summary["reasons"] == {"SCF did not converge": 1, "walltime": 1}
    assert summary["cost_s"] == 3.5
    assert summary["fingerprints"] == ["abc"]


def test_no_frames_are_summed_up_too() -> None:
    summary = summarise_labels(PESData.from_frames([]).store()).get_dict()
    assert (summary["n_frames"], summary["failed_fraction"], summary["example"]) == (0, 0.0, "")


def test_errors_of_members_are_averaged_by_split() -> None:
    def report(force: float, **splits: Any) -> orm.Dict:
        return orm.Dict({"seconds": 2.0, "results": {"rmse": {"train": {"force": force}, **splits}}})

    summary = summarise_committee(m000=report(0.1), m001=report(0.3, test={"force": 0.5})).get_dict()
    assert summary["mean"] == {"train": {"force": pytest.approx(0.2)}, "test": {"force": 0.5}}
    assert set(summary["members"]) == {"m000", "m001"}
    assert summary["seconds"] == {"m000": 2.0, "m001": 2.0}


def test_trajectories_of_all_jobs_are_counted_also_those_of_a_failed_job() -> None:
    def trajectory(outcome: str, healthy: bool, n_frames: int) -> dict[str, Any]:
        return {"outcome": outcome, "healthy": healthy, "n_frames": n_frames}

    good = orm.Dict({"results": {"trajectories": [trajectory("completed", True, 3), trajectory("stopped", True, 2)]}})
    bad = orm.Dict({"status": "failed", "results": {"trajectories": [trajectory("broken", False, 0)]}})
    empty = orm.Dict({"status": "invalid_input"})
    summary = summarise_exploration(j000=good, j001=bad, j002=empty).get_dict()
    assert (summary["n_jobs"], summary["n_trajectories"], summary["n_healthy_trajectories"]) == (3, 3, 2)
    assert summary["n_frames"] == 5
    assert summary["outcomes"] == {"broken": 1, "completed": 1, "stopped": 1}
