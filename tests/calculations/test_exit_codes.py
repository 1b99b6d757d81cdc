"""Which ends of a job may be taken from the cache."""

from __future__ import annotations

import pytest
from aiida.plugins import CalculationFactory

from aiida_alpot.kernel.tasks import TASKS

OF_THE_MACHINE = {302, 303, 305, 310, 320, 400, 410, 413, 414, 500, 501}
OF_THE_INPUTS = {411, 412, 420, 430}


@pytest.mark.parametrize("task", sorted(TASKS))
def test_only_what_the_inputs_decide_is_taken_from_the_cache(task: str) -> None:
    codes = [code for code in CalculationFactory(f"alpot.{task}").spec().exit_codes.values() if code.status >= 302]
    assert codes
    for code in codes:
        assert code.status in OF_THE_MACHINE | OF_THE_INPUTS, code
        assert code.invalidates_cache == (code.status in OF_THE_MACHINE), code
