"""Jobs whose features come from no potential: from calibration to prediction, and without the package."""

from __future__ import annotations

import json
import sys
from importlib import metadata

import numpy as np
import pytest

from aiida_alpot.kernel.__main__ import main
from aiida_alpot.kernel.dataset import Dataset
from aiida_alpot.kernel.uncertainty import UncertaintyModel

SMALL = {"r_cut": 4.5, "n_max": 3, "l_max": 2}
SHORT_MD = {"n_steps": 4, "sample_every": 2, "check_every": 2, "temperatures": [50.0], "pressures": [0.0]}
FUNCTION = """
import numpy as np


def volumes(frames):
    return [[atoms.get_volume(), 1.0] for atoms in frames for _ in atoms]
"""


@pytest.fixture
def tasks(job, tmp_path):
    """The task files of a chain of jobs by name, with the features of their settings."""
    job.write(tmp_path / "dataset.h5", job.argon(12), split=job.splits(12))
    unlabelled = job.argon(4, seed=1)
    for atoms in unlabelled:
        atoms.calc = None
    job.write(tmp_path / "pool.h5", unlabelled)
    job.write(tmp_path / "frames.h5", unlabelled[:1])
    common = {"potentials": job.committee(tmp_path)}
    bound = {**common, "uncertainty": "uncertainty.h5", "seed": 1}

    def make(kind, parameters, *, distances=True):
        features = {"features": kind, "feature_parameters": parameters} if distances else {}
        calibrate = {"n_min": 1, "feature_kind": kind, "feature_parameters": parameters, "gamma_save": 1.5}
        place = {"frames": "frames.h5", "first": 0, "last": 1, "label": "x", "iteration": 0}
        return {
            "calibrate": {**common, "dataset": "dataset.h5", "settings": calibrate},
            "explore_ase": {**bound, **place, "settings": SHORT_MD},
            "evaluate": {
                **bound,
                "candidates": ["pool.h5"],
                "dataset": "dataset.h5",
                "settings": {"strategy": "best_first", "budget": 3, "min_distance": 1e-6, **features},
            },
            "predict": {**bound, "frames": "frames.h5", "settings": {}},
        }

    return make


@pytest.fixture
def run(tmp_path):
    """Run a job and return its report."""

    def run_job(name, task):
        (tmp_path / "task.json").write_text(json.dumps(task))
        main([name, str(tmp_path / "task.json")])
        return json.loads((tmp_path / "report.json").read_text())

    return run_job


def forget_dscribe(monkeypatch):
    """Make this Python one without DScribe."""
    for module in [module for module in sys.modules if module.partition(".")[0] == "dscribe"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "dscribe", None)


@pytest.mark.parametrize("kind", ["soap", "volume_features:volumes"])
def test_a_chain_of_jobs_needs_no_features_of_a_potential(tasks, run, tmp_path, monkeypatch, kind):
    if kind == "soap":
        pytest.importorskip("dscribe")
    (tmp_path / "volume_features.py").write_text(FUNCTION)
    monkeypatch.syspath_prepend(str(tmp_path))
    reports = {name: run(name, task) for name, task in tasks(kind, SMALL if kind == "soap" else {}).items()}
    assert {name: report["message"] for name, report in reports.items()} == dict.fromkeys(reports, "")
    model = UncertaintyModel.load(tmp_path / "uncertainty.h5")
    assert model.feature_kind == kind
    assert reports["calibrate"]["results"]["active_atoms"] == {"Ar": len(model.active_set.owners[18])}
    assert reports["calibrate"]["results"]["features"] == {
        "kind": kind,
        "parameters": model.feature_parameters,
        "n_features": 27 if kind == "soap" else 2,
    }
    assert 0 < reports["explore_ase"]["results"]["trajectories"][0]["max_grade"] < np.inf
    low, *_, high = reports["evaluate"]["results"]["grade"]
    assert 0 < low <= high < np.inf
    with Dataset.open(tmp_path / "predicted.h5") as predicted:
        grades = predicted.column("atom_grade")
        assert np.isfinite(grades).all()
        assert predicted.column("grade").tolist() == [grades.max()]


def test_a_job_that_used_dscribe_reports_its_version(tasks, run):
    pytest.importorskip("dscribe")
    assert run("calibrate", tasks("soap", SMALL)["calibrate"])["packages"]["dscribe"] == metadata.version("dscribe")


@pytest.mark.parametrize("name", ["calibrate", "explore_ase", "evaluate", "predict"])
def test_a_job_without_dscribe_names_it_before_it_does_anything(tasks, run, tmp_path, monkeypatch, name):
    pytest.importorskip("dscribe")
    chain = tasks("soap", SMALL, distances=False)
    assert run("calibrate", chain["calibrate"])["status"] == "ok"
    forget_dscribe(monkeypatch)
    (tmp_path / "dataset.h5").write_bytes(b"never read")
    (tmp_path / "frames.h5").write_bytes(b"never read")
    report = run(name, chain[name])
    assert (report["status"], report["package"]) == ("missing_package", "dscribe")
    assert "pip install 'dscribe>=2.1' (where AiiDA is wanted too: 'aiida-alpot[soap]')" in report["message"]


def test_distances_by_soap_need_dscribe_too(tasks, run, job, tmp_path, monkeypatch):
    task = tasks("soap", SMALL)["evaluate"]
    job.uncertainty(tmp_path, task["potentials"])
    forget_dscribe(monkeypatch)
    report = run("evaluate", {**task, "settings": {**task["settings"], "strategy": "fps"}})
    assert (report["status"], report["package"]) == ("missing_package", "dscribe")


def test_a_function_that_the_node_lacks_is_named_as_a_package(tasks, run):
    report = run("calibrate", tasks("not_on_this_node.features:soap", {})["calibrate"])
    assert (report["status"], report["package"]) == ("missing_package", "not_on_this_node")
    assert "calibrate.settings.feature_kind 'not_on_this_node.features:soap' needs" in report["message"]


def test_features_that_the_potential_lacks_are_named(tasks, run):
    report = run("calibrate", tasks("last_layer", {})["calibrate"])
    assert report["status"] == "invalid_input"
    assert "features of kind 'last_layer' (engines: ase)" in report["message"]
    assert "feature_kind and evaluate.settings.features: soap" in report["message"]
