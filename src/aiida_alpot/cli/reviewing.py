"""The review of labels that a command brings in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
from aiida import orm

from aiida_alpot.calculations.functions.review import review_dataset, set_aside
from aiida_alpot.data.pes import PESData
from aiida_alpot.kernel.summaries import describe_review, sum_reviews

review_option: Callable[[Any], Any] = click.option(
    "--review/--no-review",
    "is_reviewed",
    default=True,
    show_default=True,
    help="Put labels that do not fit the others into quarantine, as a labelling does.",
)


def review_imported(dataset: PESData) -> tuple[PESData, list[str]]:
    """Return a dataset with labels that do not fit set aside, and what the review says; nothing without a label.

    :param dataset: stored. Its labels may be of any settings; they are compared with those of the same.
    """
    if not dataset.n_labelled:
        return dataset, []
    reviews = review_dataset(dataset, orm.Dict({}))
    lines = describe_review(sum_reviews([review.get_dict() for review in reviews.values()]))
    return set_aside(dataset, reviews), [f"review: {line}" for line in lines]
