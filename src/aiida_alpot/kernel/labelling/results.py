"""From what a calculation gave to frames of a dataset: labels, reasons, and labels of other settings beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from aiida_alpot.kernel.dataset import Dataset
from aiida_alpot.kernel.labelling.gate import check_labels
from aiida_alpot.kernel.labelling.identity import label_ids
from aiida_alpot.kernel.labelling.residuals import PREDICTION_COLUMNS
from aiida_alpot.kernel.labelling.shards import without_labels
from aiida_alpot.kernel.units import FloatArray, IntArray

Row = Literal["keep", "renew", "label"]
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
    fingerprint: str = ""
    """Of the settings that it was made with, if these are others than were asked for: the review sets it aside."""


def label_frame(atoms: Atoms, result: Result, fingerprint: str) -> Atoms:
    """Return a frame with its labels, or why they are not to be used.

    Labels of a wrong shape or not finite make it ``failed``; those that must not be trained on ``quarantined``.

    :param atoms: the frame; book-keeping but ``status``, ``reason``, ``cost``, ``parent`` and ``fingerprint`` stays.
    """
    frame = without_labels(atoms)
    if result.positions is not None or result.cell is not None:
        _move(frame, result)
    frame.calc = SinglePointCalculator(frame, **result.labels)
    problem = check_labels(frame)
    status, _, reason = (problem or "labelled").partition(": ")
    if status == "failed":
        frame.calc = None
    notes = {"cost": result.cost, "parent": result.parent, **result.notes}
    frame.info.update(status=status, reason=reason, fingerprint=result.fingerprint or fingerprint, **notes)
    return frame


def _move(frame: Atoms, result: Result) -> None:
    """Make a frame the one that its calculation led to, of which no committee has said anything."""
    if result.positions is not None:
        frame.positions = result.positions
    if result.cell is not None:
        frame.cell[:] = result.cell
    for name in PREDICTION_COLUMNS:
        frame.info.pop(name, None)
        frame.arrays.pop(name, None)


def without_result(atoms: Atoms, status: str, reason: str, fingerprint: str) -> Atoms:
    """Return a frame without labels and why it has none.

    :param status: ``"failed"``, or ``"unlabelled"`` for one that was not reached or whose job was stopped.
    """
    frame = without_labels(atoms)
    frame.info.update(status=status, reason=reason, fingerprint=fingerprint if status == "failed" else "")
    frame.info.pop("cost", None)
    return frame


def sort_rows(dataset: Dataset, fingerprint: str, *, retry_failed: bool = False) -> list[Row]:
    """Return what labelling with these settings means for every row of a dataset.

    ``keep``: it was dealt with, or holds a label of other settings beside another row of its structure and starting
    moments. ``renew``: it holds a label of other settings, which stays and is followed by the new one. ``label``: it
    gets a label.

    :param retry_failed: label rows again that these settings failed to label.
    """
    done = COMPUTED if retry_failed else (*COMPUTED, "failed")
    ids = [str(identity) for identity in label_ids(dataset)]
    rows: list[Row] = []
    for status, found in zip(dataset.column("status"), dataset.column("fingerprint"), strict=True):
        is_known = status in done and found == fingerprint
        rows.append("keep" if is_known else "renew" if status in COMPUTED else "label")
    last = {identity: k for k, identity in enumerate(ids)}
    others = {identity for identity, row in zip(ids, rows, strict=True) if row != "renew"}
    for k, (identity, row) in enumerate(zip(ids, rows, strict=True)):
        if row == "renew" and (identity in others or k != last[identity]):
            rows[k] = "keep"
    return rows


def find_known_labels(dataset: Dataset, known: Dataset, fingerprint: str) -> dict[int, int]:
    """Return the row of *known* with a label of these settings, for each row of a dataset that is to be labelled.

    Rows with a label of other settings are among them: it stays, and the known one follows it.

    :param known: labels that were accepted before; the same structure and starting moments only, to the last digit.
    """
    good = (known.column("status") == "labelled") & (known.column("fingerprint") == fingerprint)
    ids_known = label_ids(known)
    of_structure = {str(ids_known[row]): int(row) for row in np.flatnonzero(good)}
    ids = label_ids(dataset)
    rows = sort_rows(dataset, fingerprint)
    return {k: of_structure[str(ids[k])] for k, row in enumerate(rows) if row != "keep" and ids[k] in of_structure}


def find_same_structures(dataset: Dataset, known: Dataset) -> IntArray:
    """Return the rows of *known* with a label, of whatever settings, of a structure that is in a dataset.

    For settings that are only known where the label is made, see :func:`find_known_labels` for the others.
    """
    is_same = np.isin(label_ids(known), label_ids(dataset))
    return np.flatnonzero(is_same & (known.column("status") == "labelled"))


def take_label(atoms: Atoms, source: Atoms) -> Atoms:
    """Return a frame with the label of another one of the same structure; its book-keeping stays, it has cost nothing.

    :param source: a labelled frame.
    """
    frame = without_labels(atoms)
    frame.calc = SinglePointCalculator(frame, **source.calc.results)
    frame.info.update(status="labelled", reason="", fingerprint=source.info["fingerprint"], cost=0.0)
    frame.info["parent"] = source.info.get("parent", "")
    return frame


def collect_frames(
    frames: Iterable[tuple[str, Row, Atoms]],
    results: Mapping[str, Sequence[Result]],
    failures: Mapping[str, str],
    fingerprint: str,
    lost: Mapping[str, str] | None = None,
) -> Iterator[Atoms]:
    """Yield frames with what labelling made of them.

    :param frames: each with its structure id and what :func:`sort_rows` says about it.
    :param results: by structure id; an empty sequence is a calculation that ended well but gave no label.
    :param failures: why there is none, by structure id.
    :param lost: why the machine stopped the last attempt at frames that stay unlabelled, by structure id.
    """
    stopped = lost or {}
    for identity, row, atoms in frames:
        if row in ("keep", "renew"):
            yield atoms
        if row == "keep":
            continue
        found = results.get(identity)
        if found:
            yield from (label_frame(atoms, result, fingerprint) for result in found)
        elif found is not None or identity in failures:
            reason = failures.get(identity, "there was no label in its output")
            yield without_result(atoms, "failed", reason, fingerprint)
        else:
            reason = f"stopped from outside: {stopped[identity]}" if identity in stopped else "not reached"
            yield without_result(atoms, "unlabelled", reason, fingerprint)
