"""What the label-minute benchmark calculates with: a reference that takes its time, and potentials that are wrong."""

from __future__ import annotations

import time
from typing import Any

from ase.calculators.emt import EMT


class SleepyEMT(EMT):
    """EMT, *seconds* late."""

    def __init__(self, seconds: float, **parameters: Any) -> None:
        super().__init__(**parameters)
        self.seconds = seconds

    def calculate(self, *arguments: Any, **keywords: Any) -> None:
        time.sleep(self.seconds)
        super().calculate(*arguments, **keywords)


class ScaledEMT(EMT):
    """EMT, all of it times *factor*."""

    def __init__(self, factor: float, **parameters: Any) -> None:
        super().__init__(**parameters)
        self.factor = factor

    def calculate(self, *arguments: Any, **keywords: Any) -> None:
        super().calculate(*arguments, **keywords)
        self.results = {name: self.factor * value for name, value in self.results.items()}
