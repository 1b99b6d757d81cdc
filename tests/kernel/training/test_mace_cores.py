"""The loss of MACE on core atoms: what is outside the core changes neither loss, gradient nor metrics."""

import importlib
from types import SimpleNamespace

import numpy as np
import pytest

from aiida_alpot.kernel.cutouts import CORE
from aiida_alpot.kernel.potentials import load
from aiida_alpot.kernel.training import mace_cores

pytestmark = pytest.mark.slow  # importing MACE takes eight seconds

LOSSES = {
    "weighted": "WeightedEnergyForcesLoss",
    "forces_only": "WeightedForcesLoss",
    "stress": "WeightedEnergyForcesStressLoss",
    "virials": "WeightedEnergyForcesVirialsLoss",
    "huber": "WeightedHuberEnergyForcesStressLoss",
    "universal": "UniversalLoss",
    "l1l2energyforces": "WeightedEnergyForcesL1L2Loss",
}


@pytest.fixture(scope="module")
def mace(tiny_models):
    """MACE, an untrained model for copper, and a function that makes batches of labelled frames."""
    potential = load(tiny_models[0], "mace")
    import torch
    from mace import data, modules
    from mace.tools import AtomicNumberTable, torch_geometric
    from mace.tools.torch_tools import default_dtype

    def batch(frames, cores=None, weights=None):
        graphs = []
        with default_dtype("float64"):
            for k, atoms in enumerate(frames):
                properties = dict(atoms.calc.results)
                if cores is not None:
                    properties[CORE] = cores[k]
                configuration = data.Configuration(
                    atomic_numbers=atoms.numbers,
                    positions=atoms.positions,
                    properties=properties,
                    property_weights={} if weights is None else weights[k],
                    cell=atoms.cell.array,
                    pbc=tuple(map(bool, atoms.pbc)),
                )
                graphs.append(data.AtomicData.from_config(configuration, AtomicNumberTable([29]), cutoff=4.0))
        return torch_geometric.Batch.from_data_list(graphs)

    for parameter in potential.model.parameters():
        parameter.requires_grad = True
    train = importlib.import_module("mace.tools.train")  # the attribute of that name is a function
    made = SimpleNamespace(torch=torch, modules=modules, train=train, model=potential.model, batch=batch)
    made.dtype = default_dtype
    return made


def evaluate(mace, loss, batch):
    """The loss of the model on a batch, and its gradient."""
    mace.model.zero_grad()
    with mace.dtype("float64"):
        prediction = mace.model(dict(batch.to_dict()), training=True, compute_force=True, compute_stress=True)
        prediction["virials"] = prediction["stress"]
        value = loss(ref=batch, pred=prediction)
    value.backward()
    gradient = [p.grad.clone() for p in mace.model.parameters() if p.grad is not None]
    return float(value.detach()), mace.torch.cat([part.reshape(-1) for part in gradient]).numpy()


def make_loss(mace, name):
    with mace.dtype("float64"):
        return getattr(mace.modules, LOSSES[name])()


CORES = [np.array([True, False, False, True]), np.ones(4, dtype=bool), np.arange(4) == 2]


def with_forces(frames, off_core):
    """The frames with random forces off their cores."""
    rng = np.random.default_rng(off_core)
    for atoms, core in zip(frames, CORES, strict=True):
        atoms.calc.results["forces"][~core] = rng.normal(scale=10.0 * off_core, size=((~core).sum(), 3))
    return frames


@pytest.mark.parametrize("name", LOSSES)
def test_forces_off_the_core_change_neither_loss_nor_gradient(mace, make, name):
    loss = mace_cores.core_loss(make_loss(mace, name))
    found = [evaluate(mace, loss, mace.batch(with_forces(make.crystals(3), k), CORES)) for k in (1, 2, 30)]
    for value, gradient in found[1:]:
        assert value == found[0][0]
        np.testing.assert_array_equal(gradient, found[0][1])
    assert np.abs(found[0][1]).max() > 0
    plain = [evaluate(mace, loss.loss, mace.batch(with_forces(make.crystals(3), k), CORES)) for k in (1, 2)]
    assert plain[0][0] != plain[1][0]


@pytest.mark.parametrize("name", LOSSES)
def test_a_core_of_all_atoms_gives_the_loss_of_mace_itself(mace, make, name):
    everything = [np.ones(4, dtype=bool)] * 3
    loss = mace_cores.core_loss(make_loss(mace, name))
    value, gradient = evaluate(mace, loss, mace.batch(make.crystals(3), everything))
    expected, expected_gradient = evaluate(mace, loss.loss, mace.batch(make.crystals(3)))
    assert value == expected
    np.testing.assert_array_equal(gradient, expected_gradient)
    assert loss.n_calls == 1


@pytest.mark.parametrize("name", LOSSES)
def test_the_mean_over_the_core_is_that_of_a_batch_with_as_many_core_atoms(mace, make, name):
    """Two copies of a frame, of which one has the core of the first half and one of the other, count as the frame."""
    frames = make.crystals(1) * 2
    halves = [np.array([True, True, False, False]), np.array([False, False, True, True])]
    loss = mace_cores.core_loss(make_loss(mace, name))
    value, gradient = evaluate(mace, loss, mace.batch(frames, halves))
    expected, expected_gradient = evaluate(mace, loss.loss, mace.batch(frames[:1]))
    assert value == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-9, atol=1e-12)


def test_the_loss_is_the_one_written_out(mace, make):
    frames = make.crystals(3)
    weights = [{"energy": 0.0, "forces": 2.0, "stress": 0.0}, {}, {}]
    batch = mace.batch(frames, CORES, weights)
    with mace.dtype("float64"):
        loss = mace_cores.core_loss(mace.modules.WeightedEnergyForcesStressLoss(3.0, 5.0, 7.0))
        prediction = mace.model(dict(batch.to_dict()), compute_force=True, compute_stress=True)
    of = {name: prediction[name].detach().numpy() for name in ("energy", "forces", "stress")}
    energy = [((of["energy"][k] - frames[k].calc.results["energy"]) / 4) ** 2 * (k > 0) for k in range(3)]
    square = [(of["forces"][4 * k : 4 * k + 4] - frames[k].calc.results["forces"]) ** 2 for k in range(3)]
    square[0] *= 2.0
    forces = np.concatenate([part[core] for part, core in zip(square, CORES, strict=True)])
    stress = np.square(of["stress"] - batch.stress.numpy()) * np.array([0, 1, 1])[:, None, None]
    expected = 3 * np.mean(energy) + 5 * np.mean(forces) + 7 * np.mean(stress)
    assert float(loss(ref=batch, pred=prediction).detach()) == pytest.approx(expected, rel=1e-12)


def test_errors_that_mace_reports_are_those_on_the_core(mace, make):
    frames = with_forces(make.crystals(3), 4)
    weights = [{}, {"forces": 0.0}, {"energy": 0.0}]
    batches = [mace.batch(frames[:2], CORES[:2], weights[:2]), mace.batch(frames[2:], CORES[2:], weights[2:])]
    loss = mace_cores.core_loss(make_loss(mace, "weighted"))
    metrics = mace_cores.core_metrics(mace.train.MACELoss)(loss_fn=loss)
    deltas, labels, energies = [], [], []
    for batch, counts in zip(batches, ([0, 3], [2]), strict=True):
        with mace.dtype("float64"):
            prediction = mace.model(dict(batch.to_dict()), compute_force=True)
        metrics(batch, prediction)
        deltas.append((batch.forces - prediction["forces"].detach())[counts].numpy())
        labels.append(batch.forces[counts].numpy())
        energies += ((batch.energy - prediction["energy"].detach()) / 4).tolist()
    _, found = metrics.compute()
    delta, label = np.concatenate(deltas), np.concatenate(labels)
    assert found["rmse_f"] == pytest.approx(np.sqrt(np.mean(delta**2)), rel=1e-12)
    assert found["rmse_e_per_atom"] == pytest.approx(np.sqrt(np.mean(np.square(energies[:2]))), rel=1e-12)
    assert found["mae_f"] == pytest.approx(np.mean(np.abs(delta)), rel=1e-12)
    relative = 100 * np.sqrt(np.mean(delta**2) / np.mean(label**2))
    assert found["rel_rmse_f"] == pytest.approx(relative, rel=1e-6)


def test_a_mace_that_does_not_hand_the_column_on_is_told(mace, make):
    loss = mace_cores.core_loss(make_loss(mace, "weighted"))
    with pytest.raises(RuntimeError, match="does not hand the column cutout_core of the atoms to its loss"):
        evaluate(mace, loss, mace.batch(make.crystals(3)))


@pytest.mark.parametrize("missing", ["get_loss_fn", "get_swa", "MACELoss"])
def test_a_mace_of_another_shape_is_told(mace, missing):
    run_train = SimpleNamespace(__name__="mace.cli.run_train", get_loss_fn=None, get_swa=None)
    train = SimpleNamespace(__name__="mace.tools.train", MACELoss=mace.train.MACELoss)
    delattr(train if missing == "MACELoss" else run_train, missing)
    with pytest.raises(SystemExit, match=rf"has no mace\..*\.{missing}"):
        mace_cores.install(run_train, train)


def test_both_stages_of_a_training_get_the_loss_of_the_core(mace):
    swa = SimpleNamespace(loss_fn=make_loss(mace, "weighted"))
    run_train = SimpleNamespace(
        __name__="run_train", get_loss_fn=lambda _: make_loss(mace, "stress"), get_swa=lambda *_, **__: (swa, [True])
    )
    losses = mace_cores.install(run_train, SimpleNamespace(__name__="train", MACELoss=mace.train.MACELoss))
    assert run_train.get_loss_fn(None) is losses[0]
    found, swas = run_train.get_swa(None, model=None)
    assert type(found.loss_fn).__name__ == "CoreLoss"
    assert swas == [True]


def test_a_mace_that_makes_its_loss_elsewhere_is_told_at_the_end(mace, monkeypatch):
    from mace.cli import run_train

    monkeypatch.setattr(run_train, "main", lambda: None)
    for name in ("get_loss_fn", "get_swa"):
        monkeypatch.setattr(run_train, name, getattr(run_train, name))
    monkeypatch.setattr(mace.train, "MACELoss", mace.train.MACELoss)
    with pytest.raises(SystemExit, match="does not use the loss of get_loss_fn"):
        mace_cores.main()
