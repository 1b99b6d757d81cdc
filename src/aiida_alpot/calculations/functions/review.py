"""calcfunctions of the review of labels: which ones are not to be trained on."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

import numpy as np
from aiida import orm
from aiida.engine import calcfunction

from aiida_alpot.calculations.functions.dataset import store_view
from aiida_alpot.data.pes import PESData
from aiida_alpot.kernel.labelling.quality import QualitySettings, count_parts, quarantine_columns, review_part
from aiida_alpot.kernel.labelling.stress_check import PROBE, add_probes, judge_probes
from aiida_alpot.kernel.settings import parse_settings


def review_dataset(
    labelled: PESData,
    settings: orm.Dict,
    frames: PESData | None = None,
    known: PESData | None = None,
    fingerprint: str | None = None,
) -> dict[str, orm.Dict]:
    """Return the verdicts on a dataset, by part.

    :param labelled: stored.
    :param settings: stored or not, see :func:`review_labels` for all inputs.
    :param fingerprint: that new labels must have, None if any will do.
    :raises ValueError: if a labelled frame has no finite energy and forces, or settings are wrong.
    """
    given = {name: node for name, node in (("frames", frames), ("known", known)) if node is not None}
    n_parts = count_parts(labelled.n_labelled)
    parts = [orm.Dict({"part": k, "n_parts": n_parts, "fingerprint": fingerprint}) for k in range(n_parts)]
    return {f"p{k:03d}": review_labels(labelled, settings, part, **given) for k, part in enumerate(parts)}


def set_aside(dataset: PESData, reviews: Mapping[str, orm.Dict]) -> PESData:
    """Return a dataset with the labels set aside that reviews object to; itself, if these are none of its own.

    :param dataset: stored.
    :param reviews: of :func:`review_labels`, by part.
    """
    objections = [identity for review in reviews.values() for identity in review["quarantined"]]
    if not objections:
        return dataset
    with dataset.dataset() as reader:
        is_meant = np.isin(reader.frame_ids(), objections) & (reader.column("status") == "labelled")
    return quarantine_labels(dataset, **reviews) if is_meant.any() else dataset


@calcfunction
def review_labels(
    labelled: PESData,
    settings: orm.Dict,
    part: orm.Dict,
    frames: PESData | None = None,
    known: PESData | None = None,
) -> orm.Dict:
    """Return the verdicts on one part of the labels that a labelling or an import has made.

    :param labelled: the labels.
    :param settings: see :class:`~aiida_alpot.kernel.labelling.quality_settings.QualitySettings`.
    :param part: ``part`` of ``n_parts``, and the ``fingerprint`` that the labels must have, null if any will do.
    :param frames: what a labelling was given; labels that these had are not judged again.
    :param known: labels that were accepted before; those that were too few to be compared are judged as soon as they
        are enough with the new ones.
    """
    parsed = parse_settings(QualitySettings, settings.get_dict(), "label.quality")
    with ExitStack() as stack:
        found = stack.enter_context(labelled.dataset())
        given = None if frames is None else stack.enter_context(frames.dataset())
        before = None if known is None else stack.enter_context(known.dataset())
        return orm.Dict(review_part(found, given, parsed, before, **part.get_dict()))


@calcfunction
def quarantine_labels(labelled: PESData, **reviews: orm.Dict) -> PESData:
    """Return a dataset with the labels set aside that reviews object to; they stay in it, with the reason.

    :param labelled: the dataset that was reviewed.
    :param reviews: of :func:`review_labels`, by part.
    """
    reasons = {
        identity: f"{verdict['check']}: {verdict['reason']}"
        for review in reviews.values()
        for identity, verdict in review["quarantined"].items()
    }
    with labelled.dataset() as reader:
        return store_view(reader[:], **quarantine_columns(reader, reasons))


@calcfunction
def add_stress_probes(frames: PESData) -> PESData:
    """Return frames with a few more whose energies tell the stress that a label of one of them must have.

    :param frames: the frames that are to be labelled.
    """
    return PESData.from_frames(add_probes(list(frames)))


@calcfunction
def take_stress_probes(labelled: PESData, frames: PESData) -> dict[str, orm.Data]:
    """Return labelled frames without the probes among them as ``labelled``, and what these say as ``verdict``.

    The verdict names the ``fingerprint`` of their labels, by which :func:`find_right_stress` finds it.

    :param labelled: frames of :func:`add_stress_probes` with their labels.
    :param frames: what that was given: a frame of its own that bears the name of a probe is none.
    """
    with labelled.dataset() as reader, frames.dataset() as given:
        is_own = np.isin(reader.frame_ids(labels=False), given.frame_ids(labels=False))
        is_probe = (reader.column("config_type") == PROBE) & ~is_own
        verdict = judge_probes(reader[np.flatnonzero(is_probe)])
        verdict["fingerprint"] = max(reader.column("fingerprint")[is_probe].tolist(), default="")
        return {"labelled": store_view(reader[np.flatnonzero(~is_probe)]), "verdict": orm.Dict(verdict)}


def find_right_stress(fingerprint: str) -> orm.Dict | None:
    """Return the last verdict of the profile that the stress of labels of these settings is right, or None."""
    query = orm.QueryBuilder()
    query.append(orm.CalcFunctionNode, filters={"attributes.process_label": "take_stress_probes"}, tag="check")
    filters = {"attributes.outcome": "right", "attributes.fingerprint": fingerprint}
    query.append(orm.Dict, with_incoming="check", filters=filters, tag="verdict").order_by({"verdict": {"id": "desc"}})
    found: orm.Dict | None = query.first(flat=True)
    return found
