"""The same inputs give the same outputs: in another profile, from the cache, as a clone, from an archive."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest

from aiida_alpot.kernel.potentials import load

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def outputs_of(campaign: dict[str, Any], process: str, label: str) -> list[dict[str, Any]]:
    return [job["outputs"][label] for job in campaign["jobs"] if job["process"] == process]


def committees_of(campaign: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """Return the potentials of each iteration."""
    potentials = outputs_of(campaign, "TrainMaceCalculation", "potential")
    size = len(campaign["potentials"])
    return [potentials[k : k + size] for k in range(0, len(potentials), size)]


def by_seed(campaign: dict[str, Any]) -> dict[int, str]:
    return {potential["seed"]: potential["content"] for members in committees_of(campaign) for potential in members}


def test_two_profiles_give_the_same_dataset(campaigns: Any) -> None:
    first, second = campaigns.first["dataset"], campaigns.elsewhere["dataset"]
    assert first["content_hash"] == second["content_hash"]
    assert first["usage_hash"] == second["usage_hash"]


@pytest.mark.parametrize(
    ("process", "label"),
    [
        ("AugmentCalculation", "frames"),
        ("LabelAseCalculation", "labelled"),
        ("ExploreAseCalculation", "candidates"),
        ("EvaluateCalculation", "selected"),
        ("CalibrateCalculation", "uncertainty"),
    ],
)
def test_two_profiles_give_the_same_outputs_of_every_stage(campaigns: Any, process: str, label: str) -> None:
    first, second = (outputs_of(campaign, process, label) for campaign in (campaigns.first, campaigns.elsewhere))
    assert first
    assert first == second


def test_two_profiles_give_the_same_potentials_byte_for_byte(campaigns: Any) -> None:
    first = by_seed(campaigns.first)
    assert len(first) == 4
    assert by_seed(campaigns.elsewhere) == first


def test_a_rerun_takes_its_jobs_from_the_cache(campaigns: Any) -> None:
    assert not any(job["is_cached"] for job in campaigns.first["jobs"])
    jobs = campaigns.again["jobs"]
    assert len(jobs) == len(campaigns.first["jobs"])
    share = sum(job["is_cached"] for job in jobs) / len(jobs)
    assert share >= 0.95, [job["process"] for job in jobs if not job["is_cached"]]


def test_a_rerun_from_the_cache_gives_the_same_results(campaigns: Any) -> None:
    assert campaigns.again["exit_status"] == 0, campaigns.again["exit_message"]
    assert campaigns.again["dataset"] == campaigns.first["dataset"]
    assert campaigns.again["potentials"] == campaigns.first["potentials"]
    assert campaigns.again["history"] == campaigns.first["history"]


def test_the_members_of_a_committee_are_no_clones_with_caching(campaigns: Any) -> None:
    for members in committees_of(campaigns.first) + committees_of(campaigns.again):
        assert len(members) == 2
        for field in ("seed", "content", "hash"):
            assert len({member[field] for member in members}) == len(members), field


def test_the_members_of_a_committee_disagree(campaigns: Any, make_copper: Any) -> None:
    frames = make_copper(3, seed=8)
    forces = [load(path, "mace").predict(frames).forces for path in campaigns.models.values()]
    assert len(forces) == 2
    for a, b in combinations(forces, 2):
        assert np.abs(a - b).max() > 1e-6


def test_a_clone_reads_the_same(campaigns: Any) -> None:
    assert_all_kinds(campaigns.cached["stored"])
    assert campaigns.cached["clones"] == campaigns.cached["stored"]


def test_a_packed_repository_reads_the_same(campaigns: Any) -> None:
    assert campaigns.cached["n_loose"] == 0
    packed, stored = campaigns.cached["packed"], campaigns.cached["stored"]
    assert {uuid: packed[uuid] for uuid in stored} == stored


def test_an_imported_archive_reads_the_same(campaigns: Any) -> None:
    imported, stored = campaigns.imported["stored"], campaigns.cached["stored"]
    assert_all_kinds(imported)
    assert imported == {uuid: stored[uuid] for uuid in imported}


def test_an_imported_potential_is_refused_until_it_is_trusted(campaigns: Any) -> None:
    assert "verdi data alpot.potential trust" in campaigns.imported["refused"]
    assert campaigns.imported["refused_when_trusted"] is None


def assert_all_kinds(nodes: dict[str, Any]) -> None:
    """Assert that there are datasets, potentials and uncertainties among *nodes*."""
    for field in ("content_hash", "sha256", "model_hashes"):
        assert any(field in node for node in nodes.values()), field
