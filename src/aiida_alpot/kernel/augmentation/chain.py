"""Distorted copies of a base, block by block."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from aiida_alpot.kernel.augmentation.copies import Base, Copies, same_geometry
from aiida_alpot.kernel.augmentation.draft import Draft, Run
from aiida_alpot.kernel.augmentation.registry import MANIPULATIONS
from aiida_alpot.kernel.units import FloatArray

BLOCK_ATOMS: Final = 20_000
"""Atoms of the copies that are made together; no result depends on it."""

Designs = Mapping[str, FloatArray | None]


def plan_chains(run: Run) -> list[list[str]]:
    """Return which manipulations copies get, a list of names for each set of copies.

    What says which element is where precedes what distorts: the latter share a copy, or have one each.
    """
    names = run.names("chain")
    distorting = [name for name in names if MANIPULATIONS[name].many is not None]
    placing = [name for name in names if name not in distorting]
    if not distorting or run.settings.combined:
        return [names] if names else []
    return [[*placing, name] for name in distorting]


def iterate_copies(base: Draft, chain: Sequence[str], run: Run) -> Iterator[Draft]:
    """Yield the copies of a base, without those that nothing changed."""
    n_copies = run.settings.copies
    reference = Base(base.atoms)
    designs = {name: _design(name, base, run) for name in chain}
    n_block = max(1, BLOCK_ATOMS // len(base.atoms))
    for start in range(0, n_copies, n_block):
        numbers = range(start, min(start + n_block, n_copies))
        drafts = {number: base._replace(key=f"{base.key}/{number}") for number in numbers}
        for name in chain:
            if MANIPULATIONS[name].many is None:
                rows = designs[name]
                made = {k: run.apply(name, draft, None if rows is None else rows[k]) for k, draft in drafts.items()}
                drafts = {number: draft for number, draft in made.items() if draft is not None}
        for block in _split(drafts, reference):
            yield from (draft for draft in _distort(*block, chain, run, designs) if draft.steps != base.steps)


def _design(name: str, base: Draft, run: Run) -> FloatArray | None:
    """Return what a manipulation plans for all copies of a base together, one row each."""
    plan = MANIPULATIONS[name].design
    if plan is None:
        return None
    return plan(base.atoms, getattr(run.settings, name), run.settings.copies, run.rng(f"{name}-design", base.key))


def _split(drafts: Mapping[int, Draft], reference: Base) -> Iterator[tuple[Base, dict[int, Draft]]]:
    """Yield runs of drafts that differ in nothing but species, each with its base."""
    is_same = {number: same_geometry(draft.atoms, reference.atoms) for number, draft in drafts.items()}
    for shared, numbers in itertools.groupby(drafts, is_same.__getitem__):
        block = {number: drafts[number] for number in numbers}
        if shared:
            yield reference, block
        else:
            yield from ((Base(draft.atoms), {number: draft}) for number, draft in block.items())


def _distort(
    reference: Base, drafts: dict[int, Draft], chain: Sequence[str], run: Run, designs: Designs
) -> list[Draft]:
    """Return the drafts after those manipulations of the chain that act on many copies at once."""
    copies = Copies(reference, [draft.atoms for draft in drafts.values()])
    for name in chain:
        many, design = MANIPULATIONS[name].many, designs[name]
        if many is None or not drafts:
            continue
        rngs = [run.rng(name, draft.key) for draft in drafts.values()]
        rows = None if design is None else design[list(drafts)]
        outcomes = many(copies, getattr(run.settings, name), rngs, rows)
        noted = [run.note(name, draft, said) for draft, said in zip(drafts.values(), outcomes, strict=True)]
        kept = [k for k, draft in enumerate(noted) if draft is not None]
        if len(kept) < len(noted):
            copies = copies.select(np.array(kept, dtype=np.int64))
        drafts = {number: draft for number, draft in zip(drafts, noted, strict=True) if draft is not None}
    crowded = _find_crowded(copies, run)
    return [draft._replace(atoms=copies.atoms(k), is_crowded=crowded[k]) for k, draft in enumerate(drafts.values())]


def _find_crowded(copies: Copies, run: Run) -> list[bool | None]:
    """Return for each copy what the filters would find out about its distances one by one."""
    filters = run.settings.filters
    if filters is None or filters.min_ratio is None:
        return [None] * len(copies)
    crowded = np.zeros(len(copies), dtype=bool)
    crowded[copies.contacts(np.arange(len(copies)), filters.min_ratio)[0]] = True
    return crowded.tolist()
