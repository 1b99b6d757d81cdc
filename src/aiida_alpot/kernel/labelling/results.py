"""From what a calculation gave to frames of a dataset: labels, reasons, and labels of other settings beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from aiida_alpot.kernel.dataset import Dataset
from aiida_alpot.kernel.labelling.gate import check_labels
from aiida_alpot.kernel.labelling.shards import without_labels
from aiida_alpot.kernel.units import FloatArray

COMPUTED: Final = ("labelled", "quarantined")
"""Status of a frame that has labels."""


@dataclass(frozen=True)
class Result:
    """What a calculation gave for a frame: labels of it, or of one it led to.

    :param labels: ``energy`` (eV), ``forces`` (eV/Å, shape (n_atoms, 3)), and where there are any ``stress`` (eV/Å³,
        Voigt order xx yy zz yz xz xy, positive under tension) and ``magmoms`` (μB).
    :param positions: Å, of an ionic step that is not the frame itself.
    :param cell: Å, likewise.
    :param cost: seconds.
    :param parent: uuid of the calculation.
    """

    labels: Mapping[str, Any]
    positions: FloatArray | None = None
    cell: FloatArray | None = None
    cost: float = float("nan")
    parent: str = ""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """Further columns of the frame."""


def label_frame(atoms: Atoms, result: Result, fingerprint: str) -> Atoms:
    """Return a frame with its labels, or why they are not to be used.

    Labels of a wrong shape or not finite make it ``failed``; those that must not be trained on ``quarantined``.

    :param atoms: the frame; book-keeping but ``status``, ``reason``, ``cost``, ``parent`` and ``fingerprint`` stays.
    """
    frame = without_labels(atoms)
    if result.positions is not None:
        frame.positions = result.positions
    if result.cell is not None:
        frame.cell[:] = result.cell
    frame.calc = SinglePointCalculator(frame, **result.labels)
    problem = check_labels(frame)
    status, _, reason = (problem or "labelled").partition(": ")
    if status == "failed":
        frame.calc = None
    notes = {"cost": result.cost, "parent": result.parent, **result.notes}
    frame.info.update(status=status, reason=reason, fingerprint=fingerprint, **notes)
    return frame


def without_result(atoms: Atoms, status: str, reason: str, fingerprint: str) -> Atoms:
    """Return a frame without labels and why it has none.

    :param status: ``"failed"``, or ``"unlabelled"`` for one that was not reached.
    """
    frame = without_labels(atoms)
    frame.info.update(status=status, reason=reason, fingerprint=fingerprint if status == "failed" else "")
    frame.info.pop("cost", None)
    return frame


def is_computed(atoms: Atoms, fingerprint: str, *, retry_failed: bool = False) -> bool:
    """Return whether labelling with these settings has dealt with a frame before."""
    status = atoms.info.get("status")
    is_done = status in COMPUTED or (status == "failed" and not retry_failed)
    return is_done and atoms.info.get("fingerprint") == fingerprint


def has_other_label(atoms: Atoms, fingerprint: str) -> bool:
    """Return whether a frame has a label of other settings, which is kept beside the new one."""
    return atoms.info.get("status") in COMPUTED and atoms.info.get("fingerprint", "") != fingerprint


def find_unlabelled(dataset: Dataset, fingerprint: str, *, retry_failed: bool = False) -> list[str]:
    """Return the structure ids of the frames that have no label of these settings, each once, in their order.

    :param retry_failed: count those that these settings failed to label among them.
    """
    ids = [str(identity) for identity in dataset.frame_ids(labels=False)]
    rows = zip(ids, dataset.column("status"), dataset.column("fingerprint"), strict=True)
    done = COMPUTED if retry_failed else (*COMPUTED, "failed")
    known = {identity for identity, status, found in rows if status in done and found == fingerprint}
    return [identity for identity in dict.fromkeys(ids) if identity not in known]


def collect_frames(
    frames: Iterable[tuple[str, Atoms]],
    results: Mapping[str, Sequence[Result]],
    failures: Mapping[str, str],
    fingerprint: str,
) -> Iterator[Atoms]:
    """Yield frames with what labelling made of them.

    Of a frame that has labels of these settings nothing changes. One that has labels of others keeps them and is
    followed by the new one.

    :param frames: each with its structure id.
    :param results: by structure id; an empty sequence is a calculation that ended well but gave no label.
    :param failures: why there is none, by structure id.
    """
    for identity, atoms in frames:
        if is_computed(atoms, fingerprint) and identity not in results:
            yield atoms
            continue
        if has_other_label(atoms, fingerprint):
            yield atoms
        found = results.get(identity)
        if found:
            yield from (label_frame(atoms, result, fingerprint) for result in found)
        elif found is not None or identity in failures:
            yield without_result(
                atoms, "failed", failures.get(identity, "there was no label in its output"), fingerprint
            )
        else:
            yield without_result(atoms, "unlabelled", "not reached", fingerprint)
