"""The settings of every example make a campaign that would be accepted; a real run takes minutes and has its page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from aiida_alpot.data.pes import PESData
from aiida_alpot.workflows.active_learning import ActiveLearningWorkChain

EXAMPLES = Path(__file__).parents[2] / "examples"
STRUCTURES = {"quickstart": "ethanol.xyz", "silicon_dft": "silicon.xyz"}


def test_every_example_is_tested_here() -> None:
    assert {path.parent.name for path in EXAMPLES.glob("*/settings.yaml")} == set(STRUCTURES)


@pytest.mark.parametrize("name", sorted(STRUCTURES))
def test_settings_of_an_example_are_accepted(name: str, python_code: Any) -> None:
    builder = ActiveLearningWorkChain.get_builder_from_protocol(
        python_code,
        protocol="fast",
        overrides=yaml.safe_load((EXAMPLES / name / "settings.yaml").read_text(encoding="utf-8")),
        structures=PESData.from_file(EXAMPLES / name / STRUCTURES[name]),
        test_frames=PESData.from_file(EXAMPLES / name / "test.xyz"),
    )
    inputs = ActiveLearningWorkChain.spec().inputs
    assert inputs.validate(inputs.pre_process(builder._inputs(prune=True))) is None
