"""The networks of the benchmark of data efficiency give forces that are derivatives of their energies."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator

FOLDER = Path(__file__).parents[2] / "benchmarks" / "efficiency"
STEP = 1e-4


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what imports a module of the benchmark, which is not installed."""
    pytest.importorskip("torch")
    pytest.importorskip("matscipy")
    for name in ("frames", "descriptors", "network", "reaching"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module


@pytest.mark.parametrize("group", ["bulk", "surface", "cluster"])
def test_derivatives_of_descriptors_are_those_of_finite_differences(benchmark: Any, group: str) -> None:
    frames, descriptors = benchmark("frames"), benchmark("descriptors")
    atoms = frames.GROUPS[group](np.random.default_rng(3))
    direction = np.random.default_rng(4).normal(size=(len(atoms), 3))
    ends = []
    for sign in (1, -1):
        moved = atoms.copy()
        moved.positions += sign * STEP * direction
        ends.append(descriptors.compute_descriptors(moved)[0])
    slope = np.einsum("ifjx,jx->if", descriptors.compute_descriptors(atoms)[1], direction)
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / (2 * STEP), atol=1e-5)


def test_descriptors_do_not_change_with_a_rotation(benchmark: Any) -> None:
    frames, descriptors = benchmark("frames"), benchmark("descriptors")
    atoms = frames.bulk_cell(np.random.default_rng(3))
    turned = atoms.copy()
    turned.rotate(37.0, (1, 2, 3), rotate_cell=True)
    values = [descriptors.compute_descriptors(a)[0] for a in (atoms, turned)]
    np.testing.assert_allclose(values[0], values[1], atol=1e-10)


def test_forces_of_a_committee_are_derivatives_of_its_energies(benchmark: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    frames, network = benchmark("frames"), benchmark("network")
    monkeypatch.setattr(network, "N_STEPS", 5)
    atoms = [frames.GROUPS[group](np.random.default_rng(3)) for group in ("bulk", "surface", "cluster")]
    for frame in atoms:
        frame.calc = SinglePointCalculator(frame, energy=1.0, forces=frame.positions)
    inputs = network.Inputs.of(atoms, scale_by=3)
    committee = network.Committee.train(inputs, seed=1)
    committee.weights = [weight.double() for weight in committee.weights]
    inputs = network.Inputs(*(part.double() for part in vars(inputs).values()))
    direction = np.random.default_rng(4).normal(size=(3, inputs.forces.shape[1]))
    change = inputs.jacobian.new_tensor(np.einsum("kfx,kx->kf", inputs.jacobian, direction)).view_as(inputs.values)
    plus, minus = (replace(inputs, values=inputs.values + sign * 1e-6 * change) for sign in (1, -1))
    slope = (committee.evaluate(plus)[0] - committee.evaluate(minus)[0]).detach().numpy() / 2e-6
    work = np.einsum("mkx,kx->mk", committee.evaluate(inputs)[1].detach().numpy(), direction)
    np.testing.assert_allclose(work, -slope, rtol=1e-6)


def test_labels_to_reach_is_where_the_error_stays_below(benchmark: Any) -> None:
    reaching = benchmark("reaching")
    labels = np.array([10.0, 20.0, 40.0, 80.0])
    assert reaching.labels_to_reach(labels, np.array([8.0, 1.0, 4.0, 1.0]), 2.0) == pytest.approx(40 * np.sqrt(2))
    assert reaching.labels_to_reach(labels, np.array([8.0, 1.0, 1.0, 3.0]), 2.0) == np.inf
    assert reaching.labels_to_reach(labels, np.ones(4), 2.0) == 10.0


def test_an_arm_with_the_errors_of_half_the_labels_has_a_ratio_of_a_half(benchmark: Any) -> None:
    reaching = benchmark("reaching")
    grid = np.array([50.0, 100.0, 200.0, 400.0])
    baseline = [(grid, scale / grid) for scale in (1.0, 2.0, 3.0)]
    arm = [(labels, errors / 2) for labels, errors in baseline]
    assert reaching.compare(arm, baseline, grid, 400.0) == pytest.approx((0.5, 0.5, 0.5))
