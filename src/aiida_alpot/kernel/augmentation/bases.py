"""What distorted copies are made of: the inputs, what is cut from them, and what is made of their elements alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from aiida_alpot.kernel.augmentation.base import (
    Done,
    DroppedFrameError,
    Made,
    NotApplicableError,
    Step,
    clean_child,
)
from aiida_alpot.kernel.augmentation.draft import Draft, Run
from aiida_alpot.kernel.augmentation.duplicates import name_group, series_key
from aiida_alpot.kernel.augmentation.registry import MANIPULATIONS
from aiida_alpot.kernel.dataset import DatasetView
from aiida_alpot.kernel.dataset.ids import structure_id
from aiida_alpot.kernel.geometry import compact_cell, perpendicular_heights

Frames = Sequence[Atoms] | DatasetView
"""Input frames, in memory or read one after the other."""

KNOWN_ELEMENTS: Final = frozenset(range(1, len(chemical_symbols)))
"""Atomic numbers; 0 is a dummy atom."""

MIN_HEIGHT: Final = 1e-3
"""Å, of a cell along its periodic axes, however skew it is."""

MIN_REPEAT: Final = 0.5
"""Å, between an atom and its nearest image; two atoms of hydrogen are 0.74 Å apart."""


@dataclass(frozen=True)
class BaseDraft:
    """A frame that copies are made of.

    :ivar is_kept: whether it is itself a result.
    :ivar is_final: whether no copies are made.
    """

    draft: Draft
    is_kept: bool = True
    is_final: bool = False


def iterate_bases(inputs: Frames, run: Run) -> Iterator[BaseDraft]:
    """Yield the bases: each input, followed by the shapes made of it, then those of the sources."""
    elements: set[int] = set()
    for index, atoms in enumerate(inputs):
        elements.update(atoms.numbers.tolist())
        draft = Draft(clean_child(atoms), str(index), f"input {index}", index)
        yield BaseDraft(_fit_cell(draft, run, is_repeated=True), is_kept=run.settings.keep_input)
        for name in run.names("shape"):
            yield from _make(name, draft, run, clean_child(atoms))
    symbols = [chemical_symbols[number] for number in sorted(elements)]
    for name in run.names("source"):
        yield from _make(name, Draft(Atoms(), "", "", -1), run, symbols)


def _make(name: str, parent: Draft, run: Run, material: Atoms | Sequence[str]) -> Iterator[BaseDraft]:
    """Yield what a manipulation makes of an input, or of elements."""
    manipulation = MANIPULATIONS[name]
    is_repeated = manipulation.is_repeated or (manipulation.stage == "source" and not manipulation.is_final)
    key = f"{parent.key}/{name}" if parent.key else name
    for number, step in enumerate(_iterate_steps(name, material, run, parent.key)):
        done = Done(step.text, step.parameters)
        draft = parent.after(name, done, clean_child(step.atoms), f"{key}/{number}")
        if manipulation.is_final:  # points of one scan are as close to each other as frames of one trajectory
            draft = draft._replace(group=name_group(series_key(parent.atoms, f"{name}/{step.text}")))
        yield BaseDraft(_fit_cell(draft, run, is_repeated=is_repeated), is_final=manipulation.is_final)


def _iterate_steps(name: str, material: Atoms | Sequence[str], run: Run, key: str) -> Iterator[Step]:
    """Yield what a manipulation makes, and count the reasons that stand in the place of a frame, or end them all."""
    try:
        made: Iterator[Made] = run.perform(name, material, key)
        for step in made:
            if isinstance(step, Step):
                yield step
            else:
                run.report.count(name, step)
    except (NotApplicableError, DroppedFrameError) as reason:
        run.report.count(name, reason)


def _fit_cell(draft: Draft, run: Run, *, is_repeated: bool) -> Draft:
    """Return the draft with the vacuum and repeats that its cell is to have.

    :param is_repeated: whether it is a cell of a crystal, not of a shape that was given its size.
    """
    for name in run.names("cell"):
        if name == "supercell" and not is_repeated:
            run.report.count(name, NotApplicableError("not_repeated"))
        else:
            draft = run.apply(name, draft) or draft
    return draft


def input_ids(inputs: Frames) -> list[str]:
    """Return the ids of the inputs without labels, by which they are found in their dataset whatever its order."""
    if isinstance(inputs, DatasetView):
        return [str(identity) for identity in inputs.frame_ids(labels=False)]
    return [structure_id(_bare(atoms)) for atoms in inputs]


def _bare(atoms: Atoms) -> Atoms:
    """Return a frame with nothing but what its id depends on."""
    bare = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    if "charge" in atoms.info:
        bare.info["charge"] = atoms.info["charge"]
    return bare


def validate_inputs(inputs: Frames) -> None:
    """Refuse frames that nothing can be made of.

    :raises ValueError: naming the first one.
    """
    for index, atoms in enumerate(inputs):
        if len(atoms) == 0 or not np.isfinite(atoms.positions).all():
            raise ValueError(f"input {index}: a frame needs atoms with finite positions")
        unknown = sorted(set(atoms.numbers.tolist()) - KNOWN_ELEMENTS)
        if unknown:
            raise ValueError(f"input {index}: there are no elements with the atomic numbers {unknown}")
        if not np.isfinite(atoms.cell.array).all():
            raise ValueError(f"input {index}: the cell is not finite: {atoms.cell.array.tolist()}")
        vectors = atoms.cell.array[np.asarray(atoms.pbc, dtype=bool)]
        if np.linalg.matrix_rank(vectors) < len(vectors):
            raise ValueError(f"input {index}: the vectors of the periodic axes do not span a cell: {vectors.tolist()}")
        _check_heights(atoms, f"input {index}")


def _check_heights(atoms: Atoms, where: str) -> None:
    """Refuse cells of which no search for neighbours comes to an end.

    :raises ValueError: if the cell is flat, or its lattice denser than matter.
    """
    height = float(perpendicular_heights(atoms.cell.array, atoms.pbc).min())
    if height < MIN_HEIGHT:
        raise ValueError(f"{where}: the cell is only {height:.1g} Å high; give a reduced cell of the same lattice")
    vectors = compact_cell(atoms.cell.array, atoms.pbc)[np.asarray(atoms.pbc, dtype=bool)]
    repeat = float(np.linalg.norm(vectors, axis=1).min(initial=np.inf))
    if repeat < MIN_REPEAT:
        raise ValueError(f"{where}: the cell repeats every {repeat:.2g} Å, closer than atoms; is it in Å?")
