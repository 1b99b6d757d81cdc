"""calcfunctions that make more frames from a few."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final

from aiida import orm
from aiida.engine import calcfunction
from ase import Atoms

from aiida_alpot.data.pes import PESData
from aiida_alpot.kernel.augmentation import AugmentSettings, Report, check_potential, stream_augmented
from aiida_alpot.kernel.settings import parse_settings
from aiida_alpot.kernel.tasks.augment import order_inputs, require_frames

REMEDY: Final = "run it as a job with 'potentials', with AugmentWorkChain and a code"

MAX_FRAMES: Final = 10_000
"""Most frames that are made in the process that calls; more are for a job, see AugmentWorkChain."""


@calcfunction
def augment_frames(frames: PESData, settings: orm.Dict, seed: orm.Int) -> dict[str, Any]:
    """Return the frames that manipulations make of others, and a report: what a job does, for few frames and here.

    :param frames: the frames to start from.
    :param settings: which manipulations and how, see :class:`~aiida_alpot.kernel.augmentation.AugmentSettings`.
    :param seed: seed of all draws.
    :return: ``frames``, without labels, and ``report``, see :class:`~aiida_alpot.kernel.augmentation.AugmentResult`.
    :raises ValueError: if a setting is wrong or needs a potential, no frame is left, or there are more than
        :data:`MAX_FRAMES`.
    """
    parsed = parse_settings(AugmentSettings, settings.get_dict(), "augment.settings")
    check_potential(parsed, is_given=False, remedy=REMEDY)
    report = Report()
    with frames.dataset() as reader:
        made = stream_augmented(order_inputs(reader), parsed, seed.value, report)
        augmented = PESData.from_frames(_at_most(made, MAX_FRAMES))
    require_frames(report)
    return {"frames": augmented, "report": orm.Dict(report.to_dict())}


def _at_most(made: Iterator[Atoms], n_frames: int) -> Iterator[Atoms]:
    yield from islice(made, n_frames)
    if next(made, None) is not None:
        raise ValueError(
            f"the settings make more than {n_frames} frames; run them as a job, with AugmentWorkChain and a code"
        )


@calcfunction
def collect_structures(**structures: orm.StructureData) -> PESData:
    """Return structures as frames, in the order of the names under which they are given.

    Initial magnetic moments and kinds are not kept, but as tags of the atoms.

    :raises ValueError: if a structure has Hubbard parameters, which a frame does not hold, see :func:`find_hubbard`.
    """
    problem = find_hubbard(structures)
    if problem is not None:
        raise ValueError(problem)
    return PESData.from_frames([structures[name].get_ase() for name in sorted(structures)])


def find_hubbard(structures: Mapping[str, orm.StructureData]) -> str | None:
    """Return which structure has Hubbard parameters (``HubbardStructureData``) and what to do instead, None for none.

    A frame holds none, and its label would be one without U.
    """
    for name, structure in sorted(structures.items()):
        hubbard: Any = getattr(structure, "hubbard", None)
        if hubbard is not None and hubbard.parameters:
            return (
                f"structures.{name}: it has Hubbard parameters, which frames do not hold; give U for all frames alike, "
                "label.parameters.hubbard = {'Fe-3d': 4.0}, and the structure without: "
                "StructureData(ase=structure.get_ase())"
            )
    return None
