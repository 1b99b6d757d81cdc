"""A pool is searched by a ladder and a committee of two families, and the end is gated by a property: real jobs.

The potentials come from outside and are not trained: one is an ASE calculator without features, the other of an engine
of a third party that has some.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida import orm
from aiida.common.links import LinkType
from aiida.engine import calcfunction, run_get_node
from aiida.plugins import entry_point
from aiida.tools.pytest_fixtures.entry_points import EntryPointManager
from ase import Atoms
from ase.build import bulk

from aiida_alpot.data.pes import PESData
from aiida_alpot.data.potential import PotentialData
from aiida_alpot.workflows.active_learning import ActiveLearningWorkChain

EXAMPLES = Path(__file__).parents[2] / "examples" / "property_gate"
ADAPTER = '''
import numpy as np
from ase.neighborlist import neighbor_list

from aiida_alpot.kernel.potentials.ase_calculator import AsePotential
from aiida_alpot.kernel.potentials.base import Features

CENTRES = np.linspace(2.0, 4.0, 5)


class Radial(AsePotential):
    """An ASE calculator whose atoms have the density of their neighbours by distance as features."""

    engine, feature_kinds = "radial", ("last_layer",)

    def features(self, frames, kind="last_layer", batch_size=32):
        values = []
        for atoms in frames:
            i, d = neighbor_list("id", atoms, 5.0)
            rows = np.zeros((len(atoms), len(CENTRES)))
            np.add.at(rows, i, np.exp(-(((d[:, None] - CENTRES) / 0.4) ** 2)))
            values.append(rows)
        index = np.repeat(np.arange(len(frames)), [len(atoms) for atoms in frames])
        return Features(np.concatenate(values), np.concatenate([atoms.numbers for atoms in frames]), index)
'''
GATES = {"lattice_constant": {"reference": 3.59, "tolerance": 0.02}, "bulk_modulus": {"min": 100.0, "max": 200.0}}


@calcfunction
def break_down(**inputs: Any) -> None:
    """A gate of a user that has a fault, and was given what the contract says."""
    raise RuntimeError(f"lost my way with {', '.join(sorted(inputs))} of {len(inputs['potentials'])} potentials")


@pytest.fixture(scope="module")
def plugins(aiida_profile: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The entry points of a third party: an engine with features, and two processes for gates."""
    folder = tmp_path_factory.mktemp("third")
    (folder / "radial_engine.py").write_text(ADAPTER)
    known = EntryPointManager(entry_point.eps())
    known.add("radial_engine:Radial", "aiida_alpot.potentials:radial")
    known.add("lattice:LatticeWorkChain", "aiida.workflows:third.lattice")
    known.add(break_down, "aiida.calculations:third.break_down")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.syspath_prepend(str(EXAMPLES))
        patch.setattr(entry_point, "eps", known.eps)
        patch.setattr(entry_point, "eps_select", known.eps_select)
        importlib.invalidate_caches()
        yield
    for name in ("radial_engine", "lattice"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def code(aiida_profile: Any, tmp_path_factory: pytest.TempPathFactory) -> orm.InstalledCode:
    """This Python on a computer that outlives a test."""
    computer = orm.Computer(
        "pool",
        "localhost",
        transport_type="core.local",
        scheduler_type="core.direct",
        workdir=str(tmp_path_factory.mktemp("jobs")),
    ).store()
    computer.configure(use_login_shell=False, safe_interval=0.0)
    computer.set_minimum_job_poll_interval(0.0)
    found = orm.InstalledCode(label="pool", computer=computer, filepath_executable=sys.executable)
    found.prepend_text = "export OMP_NUM_THREADS=1"
    return found.store()


@pytest.fixture(scope="module")
def committee(plugins: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, PotentialData]:
    """Effective medium theory twice, with another cut-off: by an engine without features and by one with some."""
    members = {}
    for name, engine, parameters in (("m000", "ase", {"asap_cutoff": True}), ("m001", "radial", {})):
        path = tmp_path_factory.mktemp(name) / "potential.json"
        path.write_text(json.dumps({"calculator": "ase.calculators.emt:EMT", "parameters": parameters}))
        members[name] = PotentialData.from_file(path, engine=engine, symbols=["Cu"]).store()
    return members


def cells(n_frames: int, scale: float, stdev: float, seed: int) -> list[Atoms]:
    rng = np.random.default_rng(seed)
    frames = []
    for k in range(n_frames):
        atoms = bulk("Cu", a=3.6, cubic=True)
        atoms.set_cell(scale * atoms.cell, scale_atoms=True)
        atoms.positions += rng.normal(0, stdev, atoms.positions.shape)
        atoms.info.update(group=f"{scale}-{stdev}-{k}", config_type="usual" if scale == 1.0 else "novel")
        frames.append(atoms)
    return frames


@pytest.fixture(scope="module")
def build(code: orm.InstalledCode, committee: dict[str, PotentialData]) -> Callable[..., Any]:
    """Return a function that makes the campaign with a process for its gates."""
    pool = {"usual": cells(10, 1.0, 0.1, 1), "novel": [*cells(3, 1.1, 0.1, 2), *cells(3, 0.93, 0.1, 3)]}
    nodes = {
        "structures": PESData.from_frames(cells(20, 1.0, 0.1, 0)).store(),
        "potentials": committee,
        "candidates": {name: PESData.from_frames(frames).store() for name, frames in pool.items()},
    }

    def make(**validate: Any) -> Any:
        overrides = {
            "augment": None,
            "train": None,
            "explore": None,
            "max_iterations": 6,
            "split": {"train": 0.6, "validation": 0.0, "test": 0.4},
            "label": {"parameters": {"calculator": "ase.calculators.emt:EMT"}},
            "calibrate": {"settings": {"tolerances": {"force": 10.0}, "n_min": 3, "active_set_start": "strict"}},
            "evaluate": {"settings": {"strategy": "ladder", "budget": 8, "validation_share": 0.0}},
            "convergence": {"n_min": 10, "n_control_min": 1, "tolerances": {"force": 1.0}, "gates": GATES},
            "validate": validate,
        }
        return ActiveLearningWorkChain.get_builder_from_protocol(code, overrides=overrides, **nodes)

    return make


@pytest.fixture(scope="module")
def stopped(build: Callable[..., Any]) -> orm.WorkChainNode:
    """A campaign of which everything converged but the process of its gates, which has a fault."""
    return run_get_node(build(process="aiida.calculations:third.break_down"))[1]


@pytest.fixture(scope="module")
def finished(stopped: orm.WorkChainNode, code: orm.InstalledCode) -> orm.WorkChainNode:
    """The campaign resumed with another process for its gates."""
    cell = PESData.from_frames([bulk("Cu", a=3.6, cubic=True)]).store()
    validate = {"process": orm.Str("aiida.workflows:third.lattice"), "inputs": {"code": code, "cell": cell}}
    builder = ActiveLearningWorkChain.get_builder_to_resume(stopped, validate=validate)
    return run_get_node(builder)[1]


def steps(campaign: orm.WorkChainNode) -> list[tuple[str, orm.ProcessNode]]:
    """Return the children of a campaign with their labels, in order."""
    links = campaign.base.links.get_outgoing(link_type=(LinkType.CALL_CALC, LinkType.CALL_WORK)).all()
    return [(link.link_label, link.node) for link in sorted(links, key=lambda link: link.node.pk)]


def stages(campaign: orm.WorkChainNode, name: str) -> list[orm.ProcessNode]:
    return [node for label, node in steps(campaign) if label.endswith(f"_{name}")]


def functions(campaign: orm.WorkChainNode, name: str) -> list[orm.ProcessNode]:
    return [node for _, node in steps(campaign) if node.process_label == name]


def counts(evaluation: orm.ProcessNode) -> dict[str, Any]:
    return evaluation.outputs.report["results"]


# the search


def test_a_ladder_takes_few_of_a_pool_and_says_the_grade(stopped: orm.WorkChainNode) -> None:
    evaluation = stages(stopped, "evaluate")[0]
    chosen = [atoms for atoms in evaluation.outputs.selected if not atoms.info["control"]]
    assert counts(evaluation)["n_candidates"] == 16
    assert 0 < len(chosen) < counts(evaluation)["flagged"]["grade"]
    assert all("ladder: grade " in atoms.info["selection_reason"] for atoms in chosen)
    assert {atoms.info["config_type"] for atoms in chosen} == {"novel"}


def test_grades_are_those_of_the_member_that_has_features(stopped: orm.WorkChainNode) -> None:
    """Five features and the constant."""
    calibration = stages(stopped, "calibrate")[0]
    assert calibration.is_finished_ok, calibration.exit_message
    assert calibration.outputs.report["results"]["active_atoms"] == {"Cu": 6}


def test_the_pool_is_searched_until_it_holds_nothing_new(stopped: orm.WorkChainNode) -> None:
    flagged = [counts(evaluation)["flagged"]["grade"] for evaluation in stages(stopped, "evaluate")]
    assert len(flagged) >= 2
    assert flagged[-1] == 0
    assert all(before > after for before, after in pairwise(flagged))


# the gates


def test_a_process_for_gates_that_raises_ends_the_campaign_with_its_reason(stopped: orm.WorkChainNode) -> None:
    assert stopped.exit_status == 407
    assert "it excepted: RuntimeError: lost my way with dataset, potentials, uncertainty of 2" in stopped.exit_message
    assert len(stages(stopped, "validate")) == 1
    assert {"dataset", "potentials", "uncertainty", "history"} <= set(stopped.outputs)


def test_it_is_resumed_with_another_process_and_nothing_is_labelled_again(
    stopped: orm.WorkChainNode, finished: orm.WorkChainNode
) -> None:
    assert finished.is_finished_ok, finished.exit_message
    assert finished.outputs.result["reason"] == "converged"
    assert not stages(finished, "evaluate")
    cost = []
    for campaign in (stopped, finished):
        with campaign.outputs.dataset.dataset() as reader:
            cost.append(dict(zip(reader.frame_ids().tolist(), reader.column("cost").tolist(), strict=True)))
    assert cost[0] == cost[1]


def test_the_decision_carries_value_bounds_and_verdict_of_every_gate(finished: orm.WorkChainNode) -> None:
    decision = next(row["decision"] for row in finished.outputs.history["iterations"][::-1] if "decision" in row)
    gates = decision["numbers"]["gates"]
    assert set(gates) == set(GATES)
    assert all(gate["passed"] for gate in gates.values())
    assert gates["lattice_constant"]["value"] == pytest.approx(3.59, abs=0.02)
    assert gates["lattice_constant"]["min"] == pytest.approx(3.57)
    assert (gates["bulk_modulus"]["min"], gates["bulk_modulus"]["max"]) == (100.0, 200.0)
    assert "within their gates" in finished.outputs.result["message"]


def test_the_properties_are_a_node_that_the_decision_is_made_from(finished: orm.WorkChainNode) -> None:
    first, second = functions(finished, "decide")
    assert first.outputs.result["reason"] == "validation_due"
    (validation,) = stages(finished, "validate")
    assert second.inputs.properties.uuid == validation.outputs.properties.uuid
    assert second.outputs.result["reason"] == "converged"


# provenance

OUTCOMES = ("uncertainty", "table", "selected", "report", "decision", "history")


def outcome(campaign: orm.WorkChainNode, name: str) -> orm.Data:
    """Return the last thresholds and slopes, grades, chosen frames with reasons, counts, decision or rows."""
    found = {
        "uncertainty": lambda: stages(campaign, "calibrate")[-1].outputs.uncertainty,
        "decision": lambda: functions(campaign, "decide")[-1].outputs.result,
        "history": lambda: functions(campaign, "extend_history")[-1].outputs.result,
    }
    return found[name]() if name in found else stages(campaign, "evaluate")[-1].outputs[name]


def ancestors(node: orm.Data) -> dict[str, orm.Node]:
    """Return everything that a node was made from, by uuid: back along creations and the inputs of calculations."""
    found: dict[str, orm.Node] = {}
    waiting: list[orm.Node] = [node]
    while waiting:
        links = waiting.pop().base.links.get_incoming(link_type=(LinkType.CREATE, LinkType.INPUT_CALC)).all_nodes()
        new = [parent for parent in links if parent.uuid not in found]
        found |= {parent.uuid: parent for parent in new}
        waiting += new
    return found


def gaps(node: orm.Data, *campaigns: orm.WorkChainNode) -> list[orm.Node]:
    """Return the data behind a node that nobody made and that was not given to a campaign.

    Settings that a stage fills in by default are no gap.
    """
    given = {node.uuid for campaign in campaigns for node in campaign.base.links.get_incoming().all_nodes()}
    settings = (orm.Dict, orm.Int, orm.Float, orm.Str, orm.Bool)
    data = [found for found in ancestors(node).values() if isinstance(found, orm.Data)]
    return [found for found in data if not (found.creator or found.uuid in given or isinstance(found, settings))]


def label_jobs(campaign: orm.WorkChainNode) -> list[orm.ProcessNode]:
    jobs = [job for job in campaign.called_descendants if job.process_label == "LabelAseCalculation"]
    return sorted(jobs, key=lambda job: job.pk)


@pytest.mark.parametrize("name", OUTCOMES)
def test_the_labels_behind_a_number_are_among_its_ancestors(stopped: orm.WorkChainNode, name: str) -> None:
    found = ancestors(outcome(stopped, name))
    # the labels of the last iteration judge the committee and are not what it was calibrated on
    behind = label_jobs(stopped)[: None if name == "decision" else -1]
    assert len(behind) >= 2
    assert {job.outputs.labelled.uuid for job in behind} <= set(found)


@pytest.mark.parametrize("name", OUTCOMES)
def test_there_is_no_gap_behind_a_number(stopped: orm.WorkChainNode, name: str) -> None:
    assert gaps(outcome(stopped, name), stopped) == []


def test_a_resumed_campaign_leads_back_to_the_labels_of_the_one_before(
    stopped: orm.WorkChainNode, finished: orm.WorkChainNode
) -> None:
    found = ancestors(finished.outputs.result)
    assert {job.outputs.labelled.uuid for job in label_jobs(stopped)} <= set(found)
    assert gaps(finished.outputs.result, stopped, finished) == []
