"""Protocols: every one gives inputs that validate; overrides change them, and nothing unknown passes."""

from __future__ import annotations

from typing import Any

import pytest
from aiida import orm

from aiida_alpot.kernel import defaults
from aiida_alpot.kernel.calibrating import CalibrateSettings
from aiida_alpot.kernel.convergence import ConvergenceSettings
from aiida_alpot.kernel.evaluating import EvaluateSettings
from aiida_alpot.kernel.exploration import ExploreSettings
from aiida_alpot.kernel.settings import merge_recursively
from aiida_alpot.kernel.splitting import SplitSettings
from aiida_alpot.protocols import list_protocols, load_protocol
from aiida_alpot.workflows.active_learning import STAGES, ActiveLearningWorkChain
from aiida_alpot.workflows.train import TrainingWorkChain

PROTOCOLS = sorted(list_protocols("active_learning"))
LABEL = {"label": {"parameters": {"calculator": "ase.calculators.emt:EMT"}}}


def build(code: Any, **arguments: Any) -> Any:
    given = arguments.pop("overrides", {})
    overrides = {**given, "label": merge_recursively(LABEL["label"], given.get("label", {}))}
    return ActiveLearningWorkChain.get_builder_from_protocol(code, overrides=overrides, **arguments)


def problem_of(builder: Any) -> str | None:
    """Return what the inputs of a builder would be refused for, as in ``submit``."""
    inputs = ActiveLearningWorkChain.spec().inputs
    error = inputs.validate(inputs.pre_process(builder._inputs(prune=True)))
    return None if error is None else str(error)


class TestBuilders:
    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_every_protocol_needs_only_structures_code_and_a_reference(
        self, protocol: str, python_code: Any, copper: Any
    ) -> None:
        builder = build(python_code, protocol=protocol, structures=copper)
        assert problem_of(builder) is None
        assert all(builder[stage]["code"] == python_code for stage in STAGES)

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_every_protocol_has_a_description(self, protocol: str, aiida_profile: Any) -> None:
        assert list_protocols("active_learning")[protocol].endswith(".")

    def test_without_a_name_the_default_is_taken(self) -> None:
        assert load_protocol("active_learning") == load_protocol("active_learning", "balanced")

    def test_every_stage_may_have_a_code_of_its_own(self, python_code: Any, copper: Any) -> None:
        other = orm.InstalledCode(label="other", computer=python_code.computer, filepath_executable="/bin/true").store()
        codes = {stage: other if stage == "label" else python_code for stage in STAGES}
        builder = build(codes, structures=copper)
        assert builder.label.code == other
        assert builder.train.code == python_code

    def test_a_stage_without_a_code_is_named(self, python_code: Any, copper: Any) -> None:
        with pytest.raises(ValueError, match="code: there is none for the stage 'augment'"):
            build({"label": python_code}, structures=copper)

    def test_options_of_a_stage_go_on_top_of_those_of_all_key_by_key(self, python_code: Any, copper: Any) -> None:
        common = {"resources": {"num_machines": 1, "num_mpiprocs_per_machine": 1}, "queue_name": "debug"}
        overrides = {
            "label": {"options": {"resources": {"num_mpiprocs_per_machine": 8}}},
            "train": {"options": {"max_wallclock_seconds": 7200, "queue_name": None}},
        }
        builder = build(python_code, structures=copper, options=common, overrides=overrides)
        resources = {"num_machines": 1, "num_mpiprocs_per_machine": 8}
        assert builder.label.options.get_dict() == {"resources": resources, "queue_name": "debug"}
        assert builder.train.options.get_dict() == {"resources": common["resources"], "max_wallclock_seconds": 7200}
        assert builder.explore.options.get_dict() == common

    def test_an_input_that_is_no_node_in_the_database_stays_plain(self, python_code: Any, copper: Any) -> None:
        builder = build(python_code, structures=copper, overrides={"label": {"max_concurrent": 3}})
        assert builder.label.max_concurrent == 3
        assert problem_of(builder) is None


class TestOverrides:
    def test_they_are_merged_recursively(self, python_code: Any, copper: Any) -> None:
        overrides = {"train": {"parameters": {"hyperparameters": {"r_max": 6.0}}}, "max_iterations": 2}
        builder = build(python_code, structures=copper, overrides=overrides)
        hyperparameters = builder.train.parameters["hyperparameters"]
        assert hyperparameters["r_max"] == 6.0
        assert hyperparameters["num_channels"] == 64
        assert builder.max_iterations.value == 2

    def test_none_removes_a_stage(self, python_code: Any, copper_dataset: Any) -> None:
        builder = build(python_code, dataset=copper_dataset, overrides={"augment": None, "explore": None})
        assert "augment" not in builder._inputs(prune=True)
        assert problem_of(builder) is None

    def test_none_removes_a_key_and_what_the_protocol_lacks_is_added(self) -> None:
        base = {"a": {"b": 1, "c": 2}}
        assert merge_recursively(base, {"a": {"b": None}, "d": {"e": None, "f": 3}}) == {"a": {"c": 2}, "d": {"f": 3}}
        assert base == {"a": {"b": 1, "c": 2}}

    def test_a_list_is_replaced_and_not_merged(self) -> None:
        assert merge_recursively({"t": [1, 2]}, {"t": [3]}) == {"t": [3]}


class TestRefusals:
    def test_an_unknown_protocol_is_refused_with_the_nearest(self, python_code: Any, copper: Any) -> None:
        with pytest.raises(ValueError, match="protocol: unknown key 'balancd'; did you mean 'balanced'"):
            build(python_code, protocol="balancd", structures=copper)

    def test_an_unknown_override_is_refused_with_the_nearest(self, python_code: Any, copper: Any) -> None:
        with pytest.raises(ValueError, match=r"active_learning: unknown key 'max_iteration'; .*'max_iterations'"):
            build(python_code, structures=copper, overrides={"max_iteration": 3})

    def test_an_unknown_override_of_a_stage_is_refused_with_the_nearest(self, python_code: Any, copper: Any) -> None:
        with pytest.raises(ValueError, match="train: unknown key 'comittee_size'; did you mean 'committee_size'"):
            build(python_code, structures=copper, overrides={"train": {"comittee_size": 3}})

    def test_an_unknown_input_is_refused_with_the_nearest(self, python_code: Any, copper: Any) -> None:
        with pytest.raises(ValueError, match="active_learning: unknown key 'structure'; did you mean 'structures'"):
            build(python_code, structure=copper)

    def test_an_unknown_setting_is_refused_with_the_nearest(self, python_code: Any, copper: Any) -> None:
        with pytest.raises(ValueError, match=r"evaluate\.settings: unknown key 'budgett'; did you mean 'budget'"):
            build(python_code, structures=copper, overrides={"evaluate": {"settings": {"budgett": 3}}})


class TestDefaults:
    """The numbers of the papers stand once and are what the settings use."""

    def test_tolerances(self) -> None:
        expected = {"energy": 1e-3, "force": 0.1, "stress": 1e-3}  # 1 meV/atom, 100 meV/Å, 1 meV/Å³
        assert CalibrateSettings().tolerances == expected
        assert ConvergenceSettings().tolerances == expected
        assert expected == {
            "energy": defaults.TOLERANCE_ENERGY,
            "force": defaults.TOLERANCE_FORCE,
            "stress": defaults.TOLERANCE_STRESS,
        }

    def test_splits(self) -> None:
        settings = SplitSettings()
        assert (settings.train, settings.validation, settings.test, settings.calibration) == (0.8, 0.1, 0.1, 0.0)
        assert EvaluateSettings().validation_share == defaults.SPLIT_VALIDATION == 0.1

    def test_selection(self) -> None:
        assert EvaluateSettings().budget == defaults.SELECTION_BUDGET == 1000
        assert EvaluateSettings().strategy is None  # direct, where there are features
        assert EvaluateSettings().control_share == defaults.CONTROL_SHARE == 0.1

    def test_exploration(self) -> None:
        settings = ExploreSettings()
        assert settings.n_starting_frames == 20
        assert (min(settings.temperatures), max(settings.temperatures)) == (0.0, 1000.0)
        assert (min(settings.pressures), max(settings.pressures)) == (-0.5, 0.5)
        assert settings.timestep == 1.0
        assert settings.n_steps * settings.timestep == 1e7  # 10 ns
        assert settings.sample_every * settings.timestep == 1e6  # 1 ns

    def test_augmentation(self) -> None:
        assert (defaults.SUPERCELL_LENGTH, defaults.SUPERCELL_MAX_ATOMS) == (18.0, 450)
        assert defaults.RATTLE_FRACTION == 0.3
        low, high = defaults.STRAIN_RANGE  # ours: the paper's −20 % to +60 % is up to four times the volume
        assert 0.7 < (1.0 + low) ** 3 < (1.0 + high) ** 3 < 1.8
        assert (defaults.VACANCY_FRACTION, defaults.VACANCIES_PER_FRAME) == (0.3, 2)

    def test_the_committee(self) -> None:
        size = TrainingWorkChain.spec().inputs["committee_size"].default
        assert defaults.COMMITTEE_SIZE == 4
        assert load_protocol("active_learning")["train"]["committee_size"] == 4
        assert callable(size)

    def test_the_balanced_protocol_changes_no_number_of_a_paper(self) -> None:
        inputs = load_protocol("active_learning", "balanced")
        assert inputs["explore"]["settings"] == {"error_break": {"force": 1.0}}  # no paper gives one
        assert inputs["evaluate"]["settings"] == {}
        assert inputs["calibrate"]["settings"] == {}
        assert "convergence" not in inputs
        assert "split" not in inputs


def test_tolerances_reach_thresholds_and_convergence_and_overrides_stay_on_top(python_code: Any, copper: Any) -> None:
    builder = ActiveLearningWorkChain.get_builder_from_protocol(
        python_code,
        tolerances={"force": 0.2},
        overrides={
            "convergence": {"tolerances": {"force": 0.05}},
            "train": {"parameters": {"n_updates": 10, "hyperparameters": {"max_num_epochs": None}}},
            "label": {"parameters": {"calculator": "ase.calculators.emt:EMT"}},
        },
        structures=copper,
    )
    assert builder.calibrate.settings["tolerances"] == {"force": 0.2}
    assert builder.convergence["tolerances"] == {"force": 0.05}
    assert "max_num_epochs" not in builder.train.parameters["hyperparameters"]
