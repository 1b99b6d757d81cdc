"""A hand-made history of a campaign."""

from __future__ import annotations

from types import SimpleNamespace

import pytest


def make_row(iteration, n_labels, force, energy, disagreement, split="test", n_members=4):
    """One row as the loop records it; errors in eV/Å and eV/atom."""
    spread = [1.0 + 0.1 * (k - (n_members - 1) / 2) for k in range(n_members)]
    errors = {
        "n_frames": 20,
        "committee_mean": {"force": force, "energy": energy, "stress": None},
        "members": [{"force": 1.2 * force * s, "energy": 1.2 * energy * s, "stress": None} for s in spread],
        "disagreement": {"force": disagreement, "energy": energy / 2, "force_max": None, "stress": None},
    }
    return {
        "iteration": iteration,
        "n_labels": n_labels,
        "errors": {split: errors},
        "evaluation": {"n_candidates": 100 * (iteration + 1), "n_flagged": 90 - 30 * iteration, "n_selected": 25},
        "training_seconds": {"m000": 31.2, "m001": 42.4},
    }


@pytest.fixture
def make():
    return SimpleNamespace(row=make_row)


@pytest.fixture
def history():
    """Four iterations in which everything gets better."""
    numbers = [(40, 0.21, 0.012, 0.19), (65, 0.13, 0.0071, 0.1), (90, 0.095, 0.0042, 0.07), (115, 0.082, 0.0031, 0.06)]
    return [make_row(k, *row) for k, row in enumerate(numbers)]
