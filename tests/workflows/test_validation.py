"""A campaign that cannot work is refused before its first job, and the message names the input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from aiida import orm
from ase import Atoms

from aiida_alpot.data.pes import PESData
from aiida_alpot.workflows.active_learning import STAGES, ActiveLearningWorkChain
from aiida_alpot.workflows.checks import check_campaign

EMT = {"calculator": "ase.calculators.emt:EMT"}


@pytest.fixture
def inputs(python_code: Any, pes: Any) -> dict[str, Any]:
    """A complete campaign from structures."""
    return {
        "structures": pes(3),
        "augment": {"code": python_code, "settings": {}},
        "label": {"code": python_code, "parameters": EMT},
        "train": {"code": python_code, "parameters": {}},
        "calibrate": {"code": python_code},
        "explore": {"code": python_code},
        "evaluate": {"code": python_code},
    }


@pytest.fixture
def refusal(start: Any, inputs: dict[str, Any]) -> Callable[..., str]:
    """Return a function that changes the inputs (None removes, a mapping is merged) and returns the refusal."""

    def make(**changes: Any) -> str:
        for key, change in changes.items():
            is_stage = isinstance(change, dict) and key in inputs
            inputs[key] = {**inputs[key], **change} if is_stage else change
        given = {key: value for key, value in inputs.items() if value is not None}
        with pytest.raises(ValueError, match=r".+") as caught:
            start(ActiveLearningWorkChain, None, **given)
        return str(caught.value)

    return make


def test_the_complete_inputs_pass(start: Any, inputs: dict[str, Any]) -> None:
    assert start(ActiveLearningWorkChain, None, **inputs).process.inputs.max_iterations.value == 10


@pytest.mark.parametrize(
    "features",
    [
        ("soap", {"r_cut": 4.0, "species": ["Cu", "Au"]}),
        ("a_package.that_only_the_compute_node:has", {"any": "thing"}),
    ],
)
def test_features_without_a_potential_pass(start: Any, inputs: dict[str, Any], features: tuple[str, Any]) -> None:
    kind, parameters = features
    inputs["calibrate"]["settings"] = {"feature_kind": kind, "feature_parameters": parameters}
    inputs["evaluate"]["settings"] = {"features": kind, "feature_parameters": parameters, "strategy": "fps"}
    assert start(ActiveLearningWorkChain, None, **inputs).process.inputs.max_iterations.value == 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"augment": {"settings": {"ratle": {}}}}, "augment.settings: unknown key 'ratle'; did you mean 'rattle'"),
        (
            {"augment": {"settings": {"rattle": {"fractoin": 1}}}},
            "augment.settings.rattle: unknown key 'fractoin'; did you mean",
        ),
        (
            {"label": {"parameters": {"calculater": "a:B"}}},
            "label.parameters: unknown key 'calculater'; did you mean 'calculator'",
        ),
        ({"label": {"parameters": {}}}, "label.parameters: 'calculator' is required"),
        ({"train": {"parameters": {"devise": "cpu"}}}, "train.parameters: unknown key 'devise'; did you mean 'device'"),
        (
            {"train": {"parameters": {"hyperparameters": {"r_maxx": 5.0}}}},
            "hyperparameters: unknown key 'r_maxx'; did you mean 'r_max'",
        ),
        (
            {"calibrate": {"settings": {"metod": "isotonic"}}},
            "calibrate.settings: unknown key 'metod'; did you mean 'method'",
        ),
        (
            {"calibrate": {"settings": {"feature_kind": "soap", "feature_parameters": {"rcut": 4.0}}}},
            "calibrate.settings.feature_parameters: unknown key 'rcut'; did you mean 'r_cut'",
        ),
        (
            {"evaluate": {"settings": {"features": "sorted_distance"}}},
            "evaluate.settings.features: unknown kind 'sorted_distance'; did you mean 'sorted_distances'",
        ),
        (
            {"explore": {"settings": {"temperature": [300]}}},
            "explore.settings: unknown key 'temperature'; did you mean 'temperatures'",
        ),
        (
            {"evaluate": {"settings": {"budgte": 10}}},
            "evaluate.settings: unknown key 'budgte'; did you mean 'budget'",
        ),
        ({"convergence": {"patiense": 2}}, "convergence: unknown key 'patiense'; did you mean 'patience'"),
        ({"split": {"vaildation": 0.1}}, "split: unknown key 'vaildation'; did you mean 'validation'"),
        ({"label": {"options": {"max_walltime": 60}}}, "options: unknown key 'max_walltime'; did you mean 'max_wall"),
        ({"label": {"engine": "asse"}}, "label.engine: 'asse' is unknown; known: ase"),
        ({"train": {"engine": "mase"}}, "train.engine: 'mase' is unknown; known: mace"),
        ({"explore": {"engine": "lamps"}}, "explore.engine: 'lamps' is unknown; known: ase"),
        ({"train": {"committee_size": 1}}, "committee_size: a committee needs at least 2 members to disagree, got 1"),
        ({"train": {"committee_size": 2, "min_members": 3}}, "train.min_members: 3 of a committee_size of 2"),
        ({"explore": {"settings": {"temperatures": [300, -1]}}}, "temperatures must be finite and at least 0"),
        ({"explore": {"trajectories_per_job": 0}}, "trajectories_per_job: expected at least 1, got 0"),
        ({"seed": -1}, "seed: expected at least 0, got -1"),
        ({"max_iterations": -1}, "max_iterations: expected at least 0, got -1"),
        ({"max_labels": 0}, "max_labels: expected at least 1, got 0"),
        ({"split": {"train": 0.9}}, "split: the shares must add up to 1"),
        ({"structures": None}, "structures or dataset: one of them is needed"),
        ({"label": None}, "label: its inputs are needed to label the structures"),
        ({"train": None}, "train: its inputs are needed unless potentials are given"),
        ({"evaluate": None}, "evaluate: its inputs are needed to choose among the candidates"),
        ({"calibrate": None}, "calibrate: its inputs are needed for the thresholds"),
    ],
)
def test_wrong_inputs_are_refused_by_name(refusal: Any, changes: dict[str, Any], message: str) -> None:
    assert message in refusal(**changes)


@pytest.mark.parametrize("stage", STAGES)
def test_a_misspelt_input_of_a_stage_is_refused(refusal: Any, stage: str) -> None:
    message = refusal(**{stage: {"setings": orm.Dict({})}})
    assert f"inputs.{stage}" in message
    assert "setings" in message


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_alone_takes_no_inputs_that_it_does_not_declare(stage: str) -> None:
    builder = STAGES[stage][0].get_builder()
    with pytest.raises(AttributeError, match="setings"):
        builder.setings = orm.Dict({})


def test_a_dataset_with_labels_of_several_settings_is_refused_unless_they_are_allowed_to_mix(
    refusal: Any, start: Any, inputs: dict[str, Any], pes: Any
) -> None:
    mixed = pes(4, labelled=True, fingerprint=["a", "a", "b", ""])
    message = refusal(structures=None, augment=None, dataset=mixed)
    assert "dataset: its labels were made with several settings (2 of a, 1 of b)" in message
    assert "train.allow_mixed" in message
    inputs["train"]["allow_mixed"] = orm.Bool(True)
    given = {key: value for key, value in inputs.items() if value is not None}
    assert start(ActiveLearningWorkChain, None, **given).process.inputs.train.allow_mixed.value


def test_an_empty_dataset_is_refused(refusal: Any, pes: Any) -> None:
    assert "dataset: the dataset has no frame" in refusal(structures=None, augment=None, dataset=pes(0))


def test_empty_structures_are_refused(refusal: Any, pes: Any) -> None:
    assert "structures: the dataset has no frame" in refusal(structures=pes(0))


def test_a_dataset_without_labels_is_refused(refusal: Any, pes: Any) -> None:
    message = refusal(structures=None, augment=None, dataset=pes(2))
    assert "dataset: it has no labelled frame; give frames to be labelled as structures" in message


def test_test_frames_without_labels_are_refused(refusal: Any, pes: Any) -> None:
    assert "test_frames: it has no labelled frame" in refusal(test_frames=pes(2))


def test_augmentation_without_structures_is_refused(refusal: Any, pes: Any) -> None:
    message = refusal(structures=None, dataset=pes(4, labelled=True))
    assert "structures: they are needed to augment them" in message


@pytest.mark.parametrize("name", ["test_frames", "explore_from"])
def test_frames_of_species_that_are_never_learned_are_refused(refusal: Any, name: str) -> None:
    gold = Atoms("Au", cell=[3, 3, 3], pbc=True)
    gold.info.update(status="labelled")
    from ase.calculators.singlepoint import SinglePointCalculator

    gold.calc = SinglePointCalculator(gold, energy=-3.0, forces=[[0.0, 0.0, 0.0]])
    assert f"{name}: Au do not occur in the structures or the dataset" in refusal(
        **{name: PESData.from_frames([gold]).store()}
    )


def test_a_pool_and_an_exploration_contradict_each_other(refusal: Any, pes: Any) -> None:
    assert "explore and candidates contradict each other" in refusal(candidates={"pool": pes(2)})


def test_an_empty_pool_is_refused(refusal: Any, pes: Any) -> None:
    assert "candidates.pool: the dataset has no frame" in refusal(explore=None, candidates={"pool": pes(0)})


def test_a_pool_without_evaluation_or_labelling_is_refused(refusal: Any, pes: Any) -> None:
    assert "evaluate: its inputs are needed" in refusal(explore=None, candidates={"pool": pes(2)}, evaluate=None)


def test_a_search_without_labelling_is_refused(refusal: Any, pes: Any) -> None:
    message = refusal(structures=None, augment=None, dataset=pes(4, labelled=True), label=None)
    assert "label: its inputs are needed to label what is selected" in message


def test_a_committee_of_one_is_refused(refusal: Any, committee: Any) -> None:
    assert "potentials: a committee needs at least 2 members" in refusal(potentials=committee("one", 1))


def test_error_bars_of_another_committee_are_refused(refusal: Any, committee: Any, error_bars: Any) -> None:
    uncertainty = error_bars(committee("other"))
    message = refusal(potentials=committee(), uncertainty=uncertainty)
    assert "uncertainty: it was calibrated with other potentials than those given" in message


def test_error_bars_without_their_committee_are_refused(refusal: Any, committee: Any, error_bars: Any) -> None:
    assert "uncertainty: it belongs to a committee" in refusal(uncertainty=error_bars(committee()))


def test_given_error_bars_do_not_replace_the_calibration_of_a_new_committee(
    refusal: Any, committee: Any, error_bars: Any
) -> None:
    potentials = committee()
    message = refusal(potentials=potentials, uncertainty=error_bars(potentials), calibrate=None)
    assert "calibrate: its inputs are needed" in message


def test_a_warm_start_from_members_of_other_names_is_refused(refusal: Any, committee: Any) -> None:
    members = dict(zip(("a", "b"), committee().values(), strict=True))
    message = refusal(potentials=members, warm_start=True)
    assert "potentials: unknown key 'a'; valid keys: m000, m001" in message


def test_a_model_of_unknown_origin_is_refused(refusal: Any, committee: Any, monkeypatch: Any) -> None:
    members = committee()
    monkeypatch.setattr("aiida_alpot.data.potential.is_trusted", lambda _: False)
    assert "potentials.m000: the model file of" in refusal(potentials=members)


def test_partial_inputs_of_a_builder_do_not_break_the_check() -> None:
    message = check_campaign({}, None)
    assert message is not None
    assert message.startswith("structures or dataset")
