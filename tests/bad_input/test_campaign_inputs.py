"""Settings and inputs of a campaign and of its stages: refused before the first job, by the name of the key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from aiida import orm
from aiida.engine.utils import instantiate_process
from aiida.manage.manager import get_manager
from aiida.plugins import WorkflowFactory
from ase import Atoms

from aiida_alpot.data.pes import PESData
from aiida_alpot.data.potential import PotentialData
from aiida_alpot.kernel.archive import build_archive
from aiida_alpot.protocols import merge_recursively
from aiida_alpot.workflows.active_learning import ActiveLearningWorkChain

pytestmark = pytest.mark.timeout(60)

EMT = {"calculator": "ase.calculators.emt:EMT"}


@pytest.fixture
def structures(aiida_profile: Any, good: SimpleNamespace) -> PESData:
    """Three frames to be labelled."""
    return PESData.from_frames(good.frames()).store()


@pytest.fixture(scope="session")
def archive() -> bytes:
    """The kernel, packed once."""
    return build_archive()


@pytest.fixture(autouse=True)
def _packed_once(archive: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiida_alpot.calculations.kernel.build_archive", lambda _: archive)


@pytest.fixture
def campaign(python_code: Any, structures: PESData) -> Callable[..., Any]:
    """Return a function that builds a campaign from the protocol and starts it without running it."""

    def start(overrides: Any = None, code: Any = python_code, **arguments: Any) -> Any:
        base = {"label": {"parameters": EMT}}
        given = overrides or base
        if isinstance(overrides, dict):
            label = overrides.get("label", {})
            given = {**overrides, "label": merge_recursively(base["label"], label) if label is not None else None}
        nodes = {"structures": structures, **arguments}
        builder = ActiveLearningWorkChain.get_builder_from_protocol(code, overrides=given, **nodes)
        return instantiate_process(get_manager().get_runner(), builder)

    return start


def test_the_good_campaign_starts(campaign: Any) -> None:
    assert campaign().inputs.max_iterations.value == 10


ARGUMENTS: dict[str, tuple[dict[str, Any], Sequence[str]]] = {
    "call-01 no code": ({"code": None}, ["augment", "'code'", "AbstractCode"]),
    "call-02 the label of a code": ({"code": "python@localhost"}, ["augment", "'code'"]),
    "call-03 codes without one for a stage": ({"code": {}}, ["code: there is none for the stage 'augment'"]),
    "call-04 a protocol with a typing error": ({"protocol": "fsat"}, ["protocol", "'fsat'", "did you mean 'fast'?"]),
    "call-05 a number for a protocol": ({"protocol": 3}, ["protocol", "'3'", "balanced"]),
    "call-06 an empty protocol": ({"protocol": ""}, ["protocol", "balanced, fast, stringent"]),
    "call-07 a path for a protocol": ({"protocol": "../../setup"}, ["protocol", "balanced, fast, stringent"]),
    "call-08 overrides in words": ({"overrides": "abc"}, ["overrides: expected a mapping, got 'abc'"]),
    "call-09 overrides in a list": ({"overrides": [1]}, ["overrides: expected a mapping"]),
    "call-10 options in a list": ({"options": [1]}, ["options: expected a mapping"]),
    "call-11 an option with a typing error": ({"options": {"resorces": {}}}, ["'resorces'", "'resources'"]),
    "call-12 no machine": (
        {"options": {"resources": {"num_machines": 0}}}, ["options.resources.num_machines", "at least 1, got 0"]),
    "call-13 machines in words": (
        {"options": {"resources": {"num_machines": "two"}}}, ["options.resources.num_machines", "'two'"]),
    "call-14 a walltime that is true": ({"options": {"max_wallclock_seconds": True}}, ["max_wallclock_seconds"]),
    "call-15 a walltime below zero": ({"options": {"max_wallclock_seconds": -1}}, ["max_wallclock_seconds", "-1"]),
    "call-16 a walltime in words": ({"options": {"max_wallclock_seconds": "1h"}}, ["max_wallclock_seconds"]),
    "call-17 one tolerance for all": ({"tolerances": 0.1}, ["tolerances: expected a mapping, got 0.1"]),
    "call-18 a tolerance with a typing error": ({"tolerances": {"forces": 0.1}}, ["tolerances", "'forces'", "force"]),
    "call-19 a tolerance in words": ({"tolerances": {"force": "low"}}, ["tolerances.force", "float, got 'low'"]),
    "call-20 a negative tolerance": ({"tolerances": {"force": -0.1}}, ["tolerances.force must be positive"]),
    "call-21 a tolerance that is NaN": ({"tolerances": {"force": float("nan")}}, ["tolerances.force", "finite", "nan"]),
    "call-22 no tolerance": ({"tolerances": {}}, ["tolerances must name at least one property"]),
    "call-23 atoms in place of a node": ({"structures": [Atoms("Cu")]}, ["structures", "PESData"]),
    "call-24 a pk in place of a node": ({"structures": 7}, ["structures", "PESData"]),
    "call-25 an input with a typing error": ({"strcutures": 1}, ["'strcutures'", "did you mean 'structures'?"]),
    "call-26 a seed in words": ({"seed": "one"}, ["seed", "Int"]),
    "call-27 nothing to begin with": ({"structures": None}, ["structures", "needed"]),
    "call-28 a code of a stage with a typing error": (
        {"code": {"tarin": None}}, ["code: unknown key 'tarin'", "did you mean 'train'?"]),
    "call-29 one frame in place of a node": ({"structures": Atoms("Cu")}, ["structures", "PESData"]),
    "call-30 a protocol in a list": ({"protocol": ["fast"]}, ["protocol: unknown key \"['fast']\"", "'fast'"]),
}  # fmt: skip


@pytest.mark.parametrize("case", ARGUMENTS)
def test_a_wrong_argument_is_named(case: str, campaign: Any, refused: Any) -> None:
    arguments, words = ARGUMENTS[case]
    refused(lambda: campaign(**arguments), words)


def test_a_whole_number_will_do_for_a_float(campaign: Any) -> None:
    started = campaign({"label": {"max_failed_fraction": 0}})
    assert started.inputs.label.max_failed_fraction.value == 0.0
    assert isinstance(started.inputs.label.max_failed_fraction, orm.Float)


def setting(stage: str, **values: Any) -> dict[str, Any]:
    return {stage: {"parameters" if stage in ("label", "train") else "settings": values}}


SETTINGS: dict[str, tuple[dict[str, Any], Sequence[str]]] = {
    "set-01 a stage that does not exist": ({"trian": {}}, ["'trian'", "did you mean 'train'?"]),
    "set-02 a stage that is a number": ({"train": 5}, ["train: expected a mapping", "got 5"]),
    "set-03 an input of a stage with a typing error": ({"train": {"commitee": 3}}, ["train", "'commitee'"]),
    "set-04 a committee in words": ({"train": {"committee_size": "four"}}, ["train", "committee_size", "Int"]),
    "set-05 a committee of one": ({"train": {"committee_size": 1}}, ["committee_size", "at least 2"]),
    "set-06 more members needed than trained": (
        {"train": {"committee_size": 2, "min_members": 5}}, ["train.min_members", "can never be usable"]),
    "set-07 no job at once": ({"train": {"max_concurrent": 0}}, ["max_concurrent", "at least 1"]),
    "set-08 no attempt": ({"label": {"max_iterations": 0}}, ["max_iterations", "at least 1"]),
    "set-09 iterations with a fraction": ({"max_iterations": 1.5}, ["max_iterations", "Int"]),
    "set-10 settings in words": ({"convergence": "fast"}, ["convergence", "Dict"]),
    "set-11 settings of no plain value": (
        setting("explore", temperatures=np.array([1.0])), ["explore.settings", "expected plain values"]),
    "set-12 settings with an object": (setting("train", device=object()), ["train.parameters", "plain values"]),
    "set-13 temperatures of none": (setting("explore", temperatures=[]), ["temperatures must not be empty"]),
    "set-14 a negative temperature": (setting("explore", temperatures=[-5]), ["temperatures", "at least 0", "-5"]),
    "set-15 a temperature in words": (
        setting("explore", temperatures=["hot"]), ["explore.settings.temperatures[0]", "'hot'"]),
    "set-16 one temperature without a list": (
        setting("explore", temperatures=300), ["explore.settings.temperatures", "expected a list, got 300"]),
    "set-17 a word for a list": (setting("explore", temperatures="300"), ["temperatures", "expected a list"]),
    "set-18 a temperature that is NaN": (setting("explore", temperatures=[float("nan")]), ["[0]", "finite"]),
    "set-19 a temperature twice": (setting("explore", temperatures=[300, 300]), ["temperatures", "repeat"]),
    "set-20 an infinite pressure": (setting("explore", pressures=[float("inf")]), ["pressures[0]", "finite"]),
    "set-21 a time step of zero": (setting("explore", timestep=0), ["timestep must be above 0"]),
    "set-22 steps that are true": (setting("explore", n_steps=True), ["explore.settings.n_steps", "expected int"]),
    "set-23 a driver that does not exist": (setting("explore", driver="last"), ["driver"]),
    "set-24 an ensemble with a typing error": (setting("explore", ensemble="ntp"), ["ensemble", "'ntp'", "'npt'"]),
    "set-25 a device nobody has": (setting("explore", device="gpu"), ["device", "'gpu'", "cuda"]),
    "set-26 a stop at a negative error": (setting("explore", error_break={"force": -1}), ["error_break", "positive"]),
    "set-27 a limit of health in words": (
        setting("explore", health={"max_force": "big"}), ["explore.settings.health.max_force", "'big'"]),
    "set-28 a calculator without a path": (setting("label", calculator="EMT"), ["'package.module:Name'", "'EMT'"]),
    "set-29 a path upwards for a calculator": (setting("label", calculator="../x:Y"), ["package.module", "'../x:Y'"]),
    "set-30 no worker": (setting("label", n_workers=0), ["n_workers must be positive, got 0"]),
    "set-31 a time limit of zero": (setting("label", frame_timeout_s=0), ["frame_timeout_s must be positive"]),
    "set-32 a time limit without a process": (
        setting("label", frame_timeout_s=5, isolated=False), ["isolated must be true"]),
    "set-33 a parameter that is NaN": (
        setting("label", parameters={"sigma": float("nan")}), ["parameters must be plain data", "NaN"]),
    "set-34 e0s that are NaN": (setting("train", e0s={"Cu": float("nan")}), ["train.parameters.e0s.Cu", "finite"]),
    "set-35 e0s of no element": (setting("train", e0s={"Qq": -1.0}), ["e0s", "'Qq'", "chemical symbol"]),
    "set-36 e0s without a species": (setting("train", e0s={"H": -1.0}), ["train.parameters.e0s", "Cu"]),
    "set-37 e0s in other words": (setting("train", e0s="mean"), ["e0s", "'average'", "'mean'"]),
    "set-38 a hyperparameter with a typing error": (
        setting("train", hyperparameters={"r_maks": 5}), ["hyperparameters", "'r_maks'", "'r_max'"]),
    "set-39 a negative cut-off": (setting("train", hyperparameters={"r_max": -4.0}), ["hyperparameters.r_max", "-4"]),
    "set-40 a cut-off in words": (setting("train", hyperparameters={"r_max": "wide"}), ["hyperparameters.r_max"]),
    "set-41 a learning rate that is NaN": (setting("train", hyperparameters={"lr": float("nan")}), ["lr"]),
    "set-42 a batch of no frame": (setting("train", hyperparameters={"batch_size": 0}), ["hyperparameters.batch_size"]),
    "set-43 a hyperparameter that starts an option": (
        setting("train", hyperparameters={"--help": True}), ["hyperparameters", "'--help'"]),
    "set-44 a hyperparameter of this package": (
        setting("train", hyperparameters={"train_file": "/etc/passwd"}), ["'train_file'", "remove it"]),
    "set-45 epochs given twice": (
        setting("train", n_updates=5, hyperparameters={"max_num_epochs": 5}), ["n_updates", "contradict"]),
    "set-46 a tolerance of zero": (setting("calibrate", tolerances={"force": 0}), ["force must be positive"]),
    "set-47 calibration on training frames": (setting("calibrate", splits=["train"]), ["splits", "leave 'train' out"]),
    "set-48 a method with a typing error": (setting("calibrate", method="isotonik"), ["method", "'isotonik'"]),
    "set-49 grades in the wrong order": (setting("calibrate", gamma_save=5.0, gamma_break=2.0), ["gamma_break"]),
    "set-50 a grade below zero": (setting("calibrate", gamma_save=-1.0), ["gamma_save", "positive"]),
    "set-51 a rate above one": (setting("calibrate", target_tpr=1.5), ["target_tpr", "1.5"]),
    "set-52 no frame to calibrate on": (setting("calibrate", splits=[], fallback_splits=[]), ["splits"]),
    "set-53 a budget of none": (setting("evaluate", budget=0), ["budget must be positive"]),
    "set-54 a control share of all": (setting("evaluate", control_share=1.0), ["control_share must be in [0, 1)"]),
    "set-55 a strategy with a typing error": (setting("evaluate", strategy="treshold"), ["'treshold'", "'threshold'"]),
    "set-56 an upper bound of zero": (setting("evaluate", upper={"force": 0.0}), ["upper", "force"]),
    "set-57 a negative distance": (setting("evaluate", min_distance=-1.0), ["min_distance must be positive"]),
    "set-58 shares above one": ({"split": {"train": 0.9, "test": 0.9}}, ["split", "add up to 1"]),
    "set-59 nothing to train on": ({"split": {"train": 0.0, "validation": 0.9}}, ["train", "above 0"]),
    "set-60 a patience of zero": ({"convergence": {"patience": 0}}, ["convergence", "'patience'", "at least 1"]),
    "set-61 a share of failures above one": ({"label": {"max_failed_fraction": 1.5}}, ["max_failed_fraction"]),
    "set-62 a share of failures that is NaN": (
        {"label": {"max_failed_fraction": float("nan")}}, ["max_failed_fraction", "0 to 1"]),
    "set-63 supercells of no length": (
        setting("augment", supercell={"min_length": 0}), ["augment.settings.supercell", "'min_length'", "positive"]),
    "set-64 a strain that tears": (setting("augment", strain={"range": [-2, 0.1]}), ["'range'", "above -1"]),
    "set-65 a strain of three numbers": (setting("augment", strain={"range": [0, 1, 2]}), ["range", "2 values"]),
    "set-66 a rattle above one": (setting("augment", rattle={"fraction": 5}), ["'fraction'", "between 0 and 1"]),
    "set-67 a negative number of copies": (setting("augment", copies=-1), ["'copies' must not be negative"]),
    "set-68 an engine that does not exist": ({"label": {"engine": "../ase"}}, ["label.engine", "known: ase"]),
    "set-69 a search without its labels": ({"label": None}, ["label", "needed"]),
    "set-70 a search without its thresholds": ({"calibrate": None}, ["calibrate", "thresholds"]),
    "set-71 a seed below zero": ({"seed": -1}, ["seed", "at least 0"]),
    "set-73 no sample of a trajectory": (
        setting("explore", sample_every=100, n_steps=10), ["explore.settings.sample_every", "at most n_steps"]),
    "set-74 a time step of a picosecond": (
        setting("explore", timestep=1000), ["timestep must be above 0 and at most 20, got 1000"]),
    "set-75 copies without end": (setting("augment", copies=10**9), ["'copies' must be at most 100000"]),
    "set-76 supercells of a tenth of a millimetre": (
        setting("augment", supercell={"min_length": 1e6}), ["'min_length' must be at most 1000 Å"]),
    "set-72 no label allowed": ({"max_labels": 0}, ["max_labels", "at least 1"]),
}  # fmt: skip


@pytest.mark.parametrize("case", SETTINGS)
def test_a_wrong_setting_is_named(case: str, campaign: Any, refused: Any) -> None:
    overrides, words = SETTINGS[case]
    refused(lambda: campaign(overrides), words)


def labelled_gold() -> PESData:
    from ase.calculators.singlepoint import SinglePointCalculator

    atoms = Atoms("Au", cell=[4, 4, 4], pbc=True)
    atoms.calc = SinglePointCalculator(atoms, energy=-3.0, forces=np.zeros((1, 3)))
    return PESData.from_frames([atoms]).store()


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        pytest.param(lambda p: {"structures": empty()}, ["structures", "no frame"], id="input-01 no frame"),
        pytest.param(
            lambda p: {"structures": None, "dataset": unlabelled(), "augment": None},
            ["dataset", "no labelled frame"],
            id="input-02 a dataset without labels",
        ),
        pytest.param(
            lambda p: {"test_frames": labelled_gold()}, ["test_frames: Au"], id="input-03 species in the test"
        ),
        pytest.param(lambda p: {"explore_from": labelled_gold()}, ["explore_from: Au"], id="input-04 species to start"),
        pytest.param(
            lambda p: {"candidates": {"pool": labelled_gold()}, "explore": None},
            ["candidates.pool: Au"],
            id="input-05 species in the pool",
        ),
        pytest.param(
            lambda p: {"candidates": {"pool": unlabelled()}}, ["explore and candidates"], id="input-06 two searches"
        ),
        pytest.param(
            lambda p: {"potentials": {"m000": p["m000"]}}, ["at least 2 members"], id="input-07 a committee of one"
        ),
        pytest.param(
            lambda p: {"potentials": {"m000": p["m000"], "m001": p["m000"]}}, ["same model"], id="input-08 clones"
        ),
        pytest.param(
            lambda p: {"potentials": dict(zip(("../m", "m001"), p.values(), strict=True))},
            ["../m"],
            id="input-09 a member named by a path",
        ),
        pytest.param(
            lambda p: {"candidates": {"..": unlabelled()}, "explore": None},
            [".."],
            id="input-10 a pool named by a path",
        ),
    ],
)
def test_contradictory_inputs_are_named(
    inputs: Any, words: Sequence[str], campaign: Any, potentials: dict[str, PotentialData], refused: Any
) -> None:
    given = inputs(potentials)
    stages = {key: given.pop(key) for key in ("augment", "explore") if key in given}
    refused(lambda: campaign(stages, **given), words)


def empty() -> PESData:
    return PESData.from_frames([]).store()


def unlabelled() -> PESData:
    return PESData.from_frames([Atoms("Cu", cell=[4, 4, 4], pbc=True)]).store()


STAGES: dict[str, tuple[str, dict[str, Any], Sequence[str]]] = {
    "stage-01 labelling of no frame": ("label", {"frames": "empty", "parameters": EMT}, ["frames", "no frame"]),
    "stage-02 labelling without parameters": ("label", {"frames": "some"}, ["parameters"]),
    "stage-03 training without labels": (
        "train", {"dataset": "some", "parameters": {}, "seed": 1}, ["dataset", "no labelled frame"]),
    "stage-04 training without a seed": ("train", {"dataset": "labelled", "parameters": {}}, ["seed"]),
    "stage-05 augmenting with a wrong key": (
        "augment", {"frames": "some", "settings": {"ratle": {}}, "seed": 1}, ["'ratle'", "'rattle'"]),
    "stage-06 augmenting with a negative seed": ("augment", {"frames": "some", "settings": {}, "seed": -1}, ["seed"]),
    "stage-07 calibrating without a committee": ("calibrate", {"dataset": "labelled"}, ["potentials"]),
    "stage-08 exploring without error bars": (
        "explore", {"frames": "some", "seed": 1, "potentials": "two"}, ["uncertainty"]),
    "stage-09 evaluating without error bars": (
        "evaluate", {"seed": 1, "potentials": "two", "candidates": {}}, ["uncertainty"]),
    "stage-10 calibrating species that are unknown": (
        "calibrate", {"dataset": "gold", "potentials": "two"}, ["dataset: Au unknown to the potential m000"]),
}  # fmt: skip


@pytest.mark.parametrize("case", STAGES)
def test_a_stage_on_its_own_refuses_by_name(
    case: str, python_code: Any, structures: PESData, potentials: dict[str, PotentialData], refused: Any
) -> None:
    name, inputs, words = STAGES[case]
    nodes = {"empty": empty, "some": unlabelled, "labelled": lambda: structures, "gold": labelled_gold}

    def node(value: Any) -> Any:
        if isinstance(value, str):
            return potentials if value == "two" else nodes[value]()
        return value if value == {} and name == "evaluate" else orm.to_aiida_type(value)

    given = {key: node(value) for key, value in inputs.items()}
    process = WorkflowFactory(f"alpot.{name}")
    refused(lambda: instantiate_process(get_manager().get_runner(), process, code=python_code, **given), words)
