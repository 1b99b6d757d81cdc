"""A committee of scaled EMT potentials and an uncertainty model that grades by the largest force."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.cluster import Icosahedron

from aiida_alpot.kernel.exploration import Assessment, ExploreSettings, TrajectoryPlan
from aiida_alpot.kernel.features import FeatureSpec
from aiida_alpot.kernel.potentials import Features, Potential, Predictions, has_stress, offsets_of
from aiida_alpot.kernel.settings import parse_settings


class ScaledEmt(Potential):
    engine = "emt"
    species = (13, 29)
    cutoff = 6.0
    dtype = "float64"
    feature_kinds = ("last_layer",)

    def __init__(self, scale=1.0, fails_on=None, nan=False):
        self.scale, self.fails_on, self.nan = scale, fails_on, nan

    def predict(self, frames, batch_size=32):
        offsets = offsets_of(frames)
        energy, forces = np.zeros(len(frames)), np.zeros((offsets[-1], 3))
        stress = np.full((len(frames), 6), np.nan)
        for k, frame in enumerate(frames):
            if self.fails_on is not None and frame.get_chemical_symbols()[0] == self.fails_on:
                raise RuntimeError("the potential exploded")
            atoms = frame.copy()
            atoms.calc = EMT()
            energy[k] = np.nan if self.nan else self.scale * atoms.get_potential_energy()
            forces[offsets[k] : offsets[k + 1]] = self.scale * atoms.get_forces()
            if has_stress(frame):
                stress[k] = self.scale * atoms.get_stress()
        return Predictions(energy, forces, stress, offsets)

    def features(self, frames, kind="last_layer", batch_size=32):
        forces = self.predict(frames).forces
        index = np.repeat(np.arange(len(frames)), [len(frame) for frame in frames])
        return Features(np.linalg.norm(forces, axis=1)[:, None], np.concatenate([f.numbers for f in frames]), index)


class FakeModel:
    """Error = 2 D; grade = largest force norm."""

    feature_spec = FeatureSpec("last_layer")
    frame_clusters = None

    def __init__(self, gamma_save=None, gamma_break=None, properties=("energy", "force", "force_max")):
        self.gamma_save, self.gamma_break = gamma_save, gamma_break
        self.calibrations = dict.fromkeys(properties)
        self.active_set = object()

    def frame_categories(self, frames, clusters=None):
        return None

    def predict_error(self, found, categories=None):
        return {name: 2.0 * getattr(found, name) for name in self.calibrations}

    def grade(self, features):
        return features.values[:, 0]


class ScriptedAssessor:
    """Grades and force errors from a list, one per look."""

    def __init__(self, grades=(), errors=(), finite=True):
        self.grades, self.errors, self.finite, self.n_calls = list(grades), list(errors), finite, 0

    def assess(self, frames):
        k, self.n_calls = self.n_calls, self.n_calls + 1
        unknown = Assessment.unknown(len(frames))
        grade = np.array([self.grades[k]]) if k < len(self.grades) else unknown.grade
        error = {"force": np.array([self.errors[k]])} if k < len(self.errors) else {}
        return Assessment(unknown.disagreement, error, grade, np.array([self.finite]))


def make_plan(temperature=300.0, pressure=None, seed=1, name="md-00000"):
    ensemble = "nvt" if pressure is None else "npt"
    return TrajectoryPlan(0, 0, temperature, pressure, ensemble, seed, name)


def make_settings(**values):
    short = {"n_steps": 20, "sample_every": 10, "check_every": 5, "temperatures": [300.0], "pressures": [0.0]}
    return parse_settings(ExploreSettings, {**short, **values}, "explore")


def block_average(values, n_blocks=20):
    """Mean and standard error from block averages."""
    values = np.asarray(values)
    blocks = values[: len(values) // n_blocks * n_blocks].reshape(n_blocks, -1).mean(axis=1)
    return values.mean(), blocks.std(ddof=1) / np.sqrt(n_blocks)


@pytest.fixture
def tools():
    return SimpleNamespace(
        ScaledEmt=ScaledEmt,
        FakeModel=FakeModel,
        ScriptedAssessor=ScriptedAssessor,
        plan=make_plan,
        settings=make_settings,
        block_average=block_average,
    )


@pytest.fixture
def crystal():
    return bulk("Cu", "fcc", a=3.6, cubic=True)


@pytest.fixture
def cluster():
    return Icosahedron("Cu", 2)


@pytest.fixture
def committee():
    return [ScaledEmt(scale) for scale in (0.95, 1.0, 1.05)]
