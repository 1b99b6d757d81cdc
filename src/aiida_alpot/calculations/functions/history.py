"""calcfunction that keeps the record of a campaign."""

from __future__ import annotations

from collections import Counter

from aiida import orm
from aiida.engine import calcfunction

from aiida_alpot.data.pes import PESData
from aiida_alpot.kernel import deciding

_STAGES = ("training", "calibration", "exploration", "evaluation", "labelling", "decision")


@calcfunction
def extend_history(dataset: PESData, history: orm.Dict | None = None, **reports: orm.Dict) -> orm.Dict:
    """Return the history with one row more.

    :param dataset: what the iteration trained on.
    :param history: the rows before, None for the first.
    :param reports: reports of the stages that ran, by name.
    """
    with dataset.dataset() as reader:
        labelled = reader.column("status") == "labelled"
        counts = Counter(str(split) or "none" for split in reader.column("split")[labelled])
    rows = [] if history is None else list(history["iterations"])
    known = {name: reports[name].get_dict() for name in _STAGES if name in reports}
    rows.append({"iteration": len(rows), **deciding.iteration_row(known, counts)})
    return orm.Dict({"iterations": rows})


@calcfunction
def conclude(history: orm.Dict) -> orm.Dict:
    """Return why a loop ended and what it reached.

    :param history: the rows of all iterations.
    """
    return orm.Dict(deciding.conclude(history["iterations"]))
