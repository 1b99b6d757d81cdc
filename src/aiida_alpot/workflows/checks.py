"""What is refused before the first job of a campaign."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida_alpot.data.potential import validate_members, validate_species
from aiida_alpot.data.uncertainty import validate_committee
from aiida_alpot.plugins import Kind, known_engines, load_engine
from aiida_alpot.workflows.gates import check_validation
from aiida_alpot.workflows.train import check_members, check_settings


def committee_validator(value: Any, _: Any) -> str | None:
    """Refuse a committee of one and models of unknown origin; none at all is fine."""
    return validate_members(value) if value else None


def check_campaign(inputs: Mapping[str, Any], _: Any) -> str | None:
    """Return the first contradiction between the inputs of a campaign, or None."""
    for check in (
        _check_start,
        _check_resume,
        _check_stages,
        _check_datasets,
        _check_committee,
        _check_members,
        _check_engines,
        check_validation,
    ):
        problem = check(inputs)
        if problem is not None:
            return problem
    return None


def _check_start(inputs: Mapping[str, Any]) -> str | None:
    has_structures = inputs.get("structures") is not None  # an empty dataset is false, and has its own message
    if not has_structures and inputs.get("dataset") is None:
        return "structures or dataset: one of them is needed to begin with"
    if has_structures and not inputs.get("label"):
        return "label: its inputs are needed to label the structures (give labelled frames as dataset)"
    if inputs.get("augment") and not has_structures:
        return "structures: they are needed to augment them"
    return None


def _check_resume(inputs: Mapping[str, Any]) -> str | None:
    """Refuse to go on with a stage that lacks what the stages before it give."""
    resume = inputs.get("resume") or {}
    stage = resume["stage"].value if "stage" in resume else None
    if stage in (None, "structures", "train"):
        return None
    needed = {"calibrate": ["potentials"], "explore": ["potentials", "uncertainty"]}
    for name in needed.get(stage, ["potentials", "uncertainty"]):
        if not inputs.get(name):
            return f"{name}: it is needed to go on with the stage {stage!r}; resume with an earlier one"
    if stage == "evaluate" and inputs.get("explore") and not resume.get("candidates"):
        return "resume.candidates: they are needed to go on with the stage 'evaluate'; resume with 'explore'"
    if stage == "label" and (resume.get("selected") is None or "evaluation" not in resume.get("reports", {})):
        return "resume.selected: it is needed, with the report of its evaluation, to go on with the stage 'label'"
    return None


def _check_stages(inputs: Mapping[str, Any]) -> str | None:
    if not inputs.get("train") and not inputs.get("potentials"):
        return "train: its inputs are needed unless potentials are given"
    searches = bool(inputs.get("explore") or inputs.get("candidates"))
    if searches and not inputs.get("evaluate"):
        return "evaluate: its inputs are needed to choose among the candidates"
    if searches and not inputs.get("label"):
        return "label: its inputs are needed to label what is selected"
    has_thresholds = inputs.get("uncertainty") is not None and not inputs.get("train")
    if searches and not inputs.get("calibrate") and not has_thresholds:
        return "calibrate: its inputs are needed for the thresholds of the search, after every training anew"
    if inputs.get("explore") and inputs.get("candidates"):
        return "explore and candidates contradict each other: search by dynamics or in a pool"
    return None


def _check_datasets(inputs: Mapping[str, Any]) -> str | None:
    given = {name: inputs.get(name) for name in ("structures", "dataset", "test_frames", "explore_from")}
    given |= {f"candidates.{name}": node for name, node in (inputs.get("candidates") or {}).items()}
    for name, node in given.items():
        if node is not None and len(node) == 0:
            return f"{name}: the dataset has no frame"
    for name in ("dataset", "test_frames"):
        node = inputs.get(name)
        if node is not None and node.n_labelled == 0:
            return f"{name}: it has no labelled frame; give frames to be labelled as structures"
    return _check_settings(inputs) or _check_species(inputs)


def _check_settings(inputs: Mapping[str, Any]) -> str | None:
    """Refuse a dataset that would be trained on although its labels were made with several settings."""
    dataset, train = inputs.get("dataset"), inputs.get("train")
    if dataset is None or not train or ("allow_mixed" in train and train["allow_mixed"].value):
        return None
    return check_settings(dataset, "dataset", is_split=False) or None


def _check_species(inputs: Mapping[str, Any]) -> str | None:
    """Refuse frames of species that nothing in the campaign will ever be trained on."""
    known = set(known_symbols(inputs))
    searched = {f"candidates.{name}": node for name, node in (inputs.get("candidates") or {}).items()}
    for name, node in {**{key: inputs.get(key) for key in ("test_frames", "explore_from")}, **searched}.items():
        unknown = sorted(set(node.symbols) - known) if node is not None else []
        if unknown:
            return f"{name}: {', '.join(unknown)} do not occur in the structures or the dataset to learn from"
    return validate_species(inputs.get("potentials"), known, "structures or dataset")


def known_symbols(inputs: Mapping[str, Any]) -> list[str]:
    """Return the chemical symbols of all frames that a campaign is to learn from."""
    nodes = [inputs[name] for name in ("structures", "dataset") if inputs.get(name) is not None]
    nodes += ((inputs.get("resume") or {}).get("frames") or {}).values()
    return sorted({symbol for node in nodes for symbol in node.symbols})


def _check_committee(inputs: Mapping[str, Any]) -> str | None:
    if inputs.get("uncertainty") is None:
        return None
    if not inputs.get("potentials"):
        return "uncertainty: it belongs to a committee; give its potentials too"
    return validate_committee(inputs["uncertainty"], inputs["potentials"])


def _check_members(inputs: Mapping[str, Any]) -> str | None:
    train, warm_start = inputs.get("train"), inputs.get("warm_start")
    if not train:
        return None
    parents = inputs.get("potentials") or {}
    return check_members(train, parents if warm_start is not None and warm_start.value else {}, "potentials")


def _check_engines(inputs: Mapping[str, Any]) -> str | None:
    engines: tuple[tuple[Kind, str], ...] = (("label", "parameters"), ("train", "parameters"), ("explore", "settings"))
    for stage, key in engines:
        given = inputs.get(stage)
        if not given or "engine" not in given:
            continue
        name = given["engine"].value
        if name not in known_engines(stage):
            return f"{stage}.engine: {name!r} is unknown; known: {', '.join(known_engines(stage))}"
        if key in given:
            problem: str | None = load_engine(stage, name).validate(given[key].get_dict())
            if problem is None and stage == "train":
                problem = load_engine(stage, name).validate_symbols(given[key].get_dict(), known_symbols(inputs))
            if problem is not None:
                return problem
    return None
