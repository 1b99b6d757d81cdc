"""TrainMaceCalculation with models of eight channels and a few epochs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from aiida import orm
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from aiida_alpot.calculations.train_mace import TrainMaceCalculation
from aiida_alpot.data.pes import PESData
from aiida_alpot.data.potential import PotentialData
from aiida_alpot.kernel.potentials import load

HYPERPARAMETERS = {
    "num_channels": 8,
    "max_L": 0,
    "num_interactions": 1,
    "correlation": 2,
    "max_ell": 1,
    "num_radial_basis": 4,
    "r_max": 4.0,
    "MLP_irreps": "4x0e",
    "batch_size": 4,
    "valid_batch_size": 4,
    "max_num_epochs": 2,
}
PARAMETERS = {"hyperparameters": HYPERPARAMETERS, "e0s": {"Cu": -0.25}}


@pytest.fixture(scope="module")
def training_set(aiida_profile: Any, make_copper: Callable[..., list[Atoms]], label_emt: Any) -> PESData:
    """Eight frames to train on, three held out, and one isolated atom among the training frames."""
    frames = label_emt(make_copper(11, seed=31))
    atom = Atoms("Cu", positions=[[0.0, 0.0, 0.0]], cell=[20.0] * 3, pbc=False)
    atom.calc = SinglePointCalculator(atom, energy=7.5, forces=np.zeros((1, 3)))
    atom.info.update(status="labelled", group="atom", config_type="IsolatedAtom")
    splits = ["train"] * 8 + ["validation"] * 2 + ["test"] + ["train"]
    return PESData.from_frames([*frames, atom], split=splits).store()


@pytest.fixture(scope="module")
def trained(run_job: Callable[..., Any], training_set: PESData) -> Any:
    return run_job(TrainMaceCalculation, dataset=training_set, parameters=PARAMETERS, seed=42)


def with_hyperparameters(**changes: Any) -> dict[str, Any]:
    return {**PARAMETERS, "hyperparameters": {**HYPERPARAMETERS, **changes}}


def load_model(node: PotentialData, folder: Any, name: str = "m.model") -> Any:
    node.export(folder / name)
    return load(folder / name, "mace")


def test_a_training_gives_a_trusted_potential_that_says_what_it_is(trained: Any) -> None:
    outputs, node = trained
    assert node.is_finished_ok, node.exit_message
    potential = outputs["potential"]
    assert (potential.engine, potential.symbols, potential.cutoff) == ("mace", ["Cu"], 4.0)
    assert (potential.seed, potential.dtype, potential.is_trusted) == (42, "float64", True)


def test_the_report_has_the_errors_of_every_split(trained: Any) -> None:
    results = trained[0]["report"]["results"]
    assert set(results["rmse"]) == {"train", "validation", "test"}
    for errors in results["rmse"].values():
        assert set(errors) == {"energy", "force", "stress"}
        assert all(value > 0 for value in errors.values())


def test_the_report_has_the_learning_curve(trained: Any) -> None:
    curve = trained[0]["report"]["results"]["learning_curve"]
    assert curve["epoch"] == [None, 0, 1]
    for name in ("loss", "rmse_energy", "rmse_force", "rmse_stress"):
        assert len(curve[name]) == 3
        assert all(value > 0 for value in curve[name])


def test_forces_are_the_gradient_of_the_energy(trained: Any) -> None:
    check = trained[0]["report"]["results"]["finite_difference"]
    assert check["force_relative"] < 1e-4


def test_an_isolated_atom_does_not_override_the_energies_that_are_given(trained: Any, tmp_path: Any) -> None:
    results = trained[0]["report"]["results"]
    assert results["atomic_energies"] == {"29": -0.25}
    assert results["n_frames"] == {"train": 8, "validation": 2, "test": 1}
    model = load_model(trained[0]["potential"], tmp_path).model
    assert model.atomic_energies_fn.atomic_energies.reshape(-1).tolist() == [-0.25]


def test_the_log_and_the_results_of_mace_are_kept(trained: Any) -> None:
    retrieved = trained[0]["retrieved"].base.repository
    assert "mace.out" in retrieved.list_object_names()
    assert any(name.endswith("_train.txt") for name in retrieved.list_object_names("results"))


@pytest.mark.slow
def test_the_same_seed_gives_the_same_predictions_and_another_seed_does_not(
    run_job: Callable[..., Any], trained: Any, training_set: PESData, tmp_path: Any
) -> None:
    again, node = run_job(TrainMaceCalculation, dataset=training_set, parameters=PARAMETERS, seed=42)
    assert node.is_finished_ok, node.exit_message
    other, _ = run_job(TrainMaceCalculation, dataset=training_set, parameters=PARAMETERS, seed=43)
    frames = list(training_set)[:3]
    first = load_model(trained[0]["potential"], tmp_path, "a").predict(frames)
    second = load_model(again["potential"], tmp_path, "b").predict(frames)
    third = load_model(other["potential"], tmp_path, "c").predict(frames)
    np.testing.assert_allclose(second.energy, first.energy, rtol=0, atol=1e-9)
    np.testing.assert_allclose(second.forces, first.forces, rtol=0, atol=1e-9)
    assert np.abs(third.forces - first.forces).max() > 1e-6


@pytest.mark.slow
def test_a_checkpoint_continues_where_the_job_before_ended(
    run_job: Callable[..., Any], trained: Any, training_set: PESData
) -> None:
    outputs, node = run_job(
        TrainMaceCalculation,
        dataset=training_set,
        parameters=with_hyperparameters(max_num_epochs=4),
        seed=42,
        checkpoint=trained[0]["remote_folder"],
    )
    assert node.is_finished_ok, node.exit_message
    epochs = [epoch for epoch in outputs["report"]["results"]["learning_curve"]["epoch"] if epoch is not None]
    assert epochs[-1] == 3
    assert 0 not in epochs


@pytest.mark.slow
def test_a_given_potential_is_what_the_training_starts_from(
    run_job: Callable[..., Any], trained: Any, training_set: PESData, tmp_path: Any
) -> None:
    parameters = {**with_hyperparameters(max_num_epochs=1, lr=1e-9), "warm_start_lr_factor": 1e-3}
    parent = trained[0]["potential"]
    outputs, node = run_job(TrainMaceCalculation, dataset=training_set, parameters=parameters, seed=1, parent=parent)
    assert node.is_finished_ok, node.exit_message
    frames = list(training_set)[:3]
    before = load_model(parent, tmp_path, "before").predict(frames)
    after = load_model(outputs["potential"], tmp_path, "after").predict(frames)
    np.testing.assert_allclose(after.forces, before.forces, rtol=0, atol=1e-5)


def test_a_training_stops_in_good_order_before_its_walltime(run_job: Callable[..., Any], training_set: PESData) -> None:
    outputs, node = run_job(
        TrainMaceCalculation,
        dataset=training_set,
        parameters=with_hyperparameters(max_num_epochs=100000),
        seed=1,
        walltime_s=8,
    )
    assert node.exit_status == 500, node.exit_message
    assert "continues from its checkpoint" in node.exit_message
    assert "potential" not in outputs
    assert outputs["report"]["status"] == "interrupted"


def test_a_python_without_mace_is_named(
    run_job: Callable[..., Any], make_code: Callable[..., Any], training_set: PESData, tmp_path: Any
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['mace'] = None\n")
    outputs, node = run_job(
        TrainMaceCalculation,
        code=make_code("without-mace", f"export PYTHONPATH={tmp_path}"),
        dataset=training_set,
        parameters=PARAMETERS,
        seed=1,
    )
    assert node.exit_status == 310, node.exit_message
    assert "lacks the package mace" in node.exit_message
    assert "aiida-alpot[mace]" in node.exit_message
    assert set(outputs) >= {"report"}


def test_an_error_of_mace_is_passed_on(run_job: Callable[..., Any], training_set: PESData) -> None:
    outputs, node = run_job(
        TrainMaceCalculation, dataset=training_set, parameters=with_hyperparameters(max_ell="two"), seed=1
    )
    assert node.exit_status == 410, node.exit_message
    assert "max_ell" in node.exit_message
    assert "mace.out" in outputs["retrieved"].base.repository.list_object_names()


def test_errors_that_are_not_finite_count_as_diverged(tmp_path: Any) -> None:
    from aiida_alpot.kernel.tasks import TaskError
    from aiida_alpot.kernel.tasks.train_mace import collect_results

    table = (
        "| config_type | RMSE E / meV / atom | RMSE F / meV / A | relative F RMSE % |\n"
        "| train_Default | nan | nan | nan |\n"
    )
    (tmp_path / "mace.out").write_text(table)
    (tmp_path / "potential.model").write_bytes(b"weights")
    with pytest.raises(TaskError, match="not finite; lower lr") as caught:
        collect_results(tmp_path, {"train": 1}, {29: 0.0})
    assert caught.value.code == "diverged"
    (tmp_path / "potential.model").unlink()
    with pytest.raises(TaskError) as caught:
        collect_results(tmp_path, {"train": 1}, {29: 0.0})
    assert caught.value.code == "no_model"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parameters": {"hyperparameter": {}}}, "unknown key 'hyperparameter'; did you mean 'hyperparameters'"),
        (
            {"parameters": {"hyperparameters": {"num_chanels": 8}}},
            "unknown key 'num_chanels'; did you mean 'num_channels'",
        ),
        ({"parameters": {"hyperparameters": {"seed": 8}}}, "'seed' follows from the dataset and the job"),
        ({"parameters": {"e0s": {"Xy": 1.0}}}, "e0s: 'Xy' is not a chemical symbol"),
        ({"parameters": {"n_updates": 0}}, "n_updates must be positive, got 0"),
        ({"seed": -1}, "seed: expected at least 0, got -1"),
    ],
)
def test_wrong_parameters_are_refused_by_name(
    run_job: Callable[..., Any], training_set: PESData, change: dict[str, Any], message: str
) -> None:
    inputs = {"dataset": training_set, "parameters": PARAMETERS, "seed": 1}
    with pytest.raises(ValueError, match=message):
        run_job(TrainMaceCalculation, **{**inputs, **change})


def test_parameters_are_checked_when_they_are_put_into_a_builder() -> None:
    builder = TrainMaceCalculation.get_builder()
    with pytest.raises(ValueError, match="did you mean 'e0s'"):
        builder.parameters = orm.Dict({"E0s": "average"})


def test_a_dataset_without_labels_is_refused(run_job: Callable[..., Any], starting_frames: PESData) -> None:
    with pytest.raises(ValueError, match="dataset: it has no labelled frame to train on; run the label stage first"):
        run_job(TrainMaceCalculation, dataset=starting_frames, parameters=PARAMETERS, seed=1)
