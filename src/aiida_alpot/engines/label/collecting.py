"""The calcfunction that turns the outputs of finished calculations into labelled frames."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from aiida import orm
from aiida.engine import calcfunction
from ase import Atoms

from aiida_alpot.data.pes import PESData
from aiida_alpot.kernel.labelling.identity import label_ids
from aiida_alpot.kernel.labelling.results import Result, Row, collect_frames, sort_rows
from aiida_alpot.plugins import load_engine

SEPARATOR: Final = "__"
KEY_DIGITS: Final = 16


def job_key(identity: str) -> str:
    """Return the key of the job of the frame with this structure id."""
    return f"f_{identity[:KEY_DIGITS]}"


@calcfunction
def collect_labels(frames: PESData, settings: orm.Dict, **outputs: orm.Data) -> PESData:
    """Return some of *frames* with their labels, or the reason why they have none.

    :param frames: the frames that were to be labelled.
    :param settings: ``engine``, its completed ``parameters``, the ``fingerprint`` of the labels, structure ``ids`` of
        the frames to return, ``failures``: reasons by structure id, and ``lost``: likewise of frames whose job was
        stopped from outside, which stay unlabelled.
    :param outputs: of the jobs, named by the key of the job, two underscores and the name of the output.
    """
    given = settings.get_dict()
    engine = load_engine("label", given["engine"])
    of_job: dict[str, dict[str, orm.Data]] = defaultdict(dict)
    for name, node in outputs.items():
        key, _, output = name.partition(SEPARATOR)
        of_job[key][output] = node
    results: dict[str, list[Result]] = {}
    failures = dict(given["failures"])
    with frames.dataset() as reader:
        rows = defaultdict(list)
        for row, identity in enumerate(label_ids(reader)):
            rows[str(identity)].append(row)
        for identity in given["ids"]:
            found = of_job.get(job_key(identity))
            if found:
                try:
                    results[identity] = list(engine.read(reader[rows[identity][0]], found, given["parameters"]))
                except Exception as error:  # noqa: BLE001  whatever an engine stumbles over in one output costs one frame
                    reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
                    failures.setdefault(identity, f"the output of its calculation cannot be used: {reason}")

        kinds = sort_rows(reader, given["fingerprint"])

        def chosen() -> Iterator[tuple[str, Row, Atoms]]:
            for identity in given["ids"]:
                yield from ((identity, kinds[row], reader[row]) for row in rows[identity])

        return PESData.from_frames(collect_frames(chosen(), results, failures, given["fingerprint"], given["lost"]))
