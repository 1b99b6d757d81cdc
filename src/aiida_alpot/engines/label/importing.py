"""Finished calculations of the profile as a labelled dataset."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

import numpy as np
from aiida import orm
from aiida.engine import calcfunction
from ase import Atoms

from aiida_alpot.calculations.functions.dataset import merge_datasets
from aiida_alpot.data.pes import PESData
from aiida_alpot.engines.label.base import LabelEngine
from aiida_alpot.engines.label.collecting import SEPARATOR
from aiida_alpot.engines.label.finished import FinishedCalculation, to_atoms
from aiida_alpot.kernel.labelling.identity import label_ids
from aiida_alpot.kernel.labelling.results import Result, label_frame
from aiida_alpot.kernel.labelling.settings import fingerprint_of
from aiida_alpot.plugins import known_engines, load_engine

CHUNK: Final = 50
"""Frames that one calcfunction takes."""
LARGEST_RATIO: Final[Mapping[str, float]] = {"kpoints_distance": 1.5, "scf_threshold": 10.0}
"""Between two labels of one fingerprint, by column, before it is worth a warning."""
TOLERANCE: Final = 1e-3
"""Relative, of what the settings of an engine ask for."""


@dataclass(frozen=True)
class ImportedCalculations:
    """What became of calculations that were to be imported.

    :param dataset: the labels, None if there are none.
    :param n_calculations: those that gave a label.
    :param skipped: why others did not, by pk of the process.
    :param n_replaced: labels left out since a later calculation gives one of the same structure and settings.
    :param others: what tells a calculation from the settings whose fingerprint was wanted, by pk.
    :param warnings: a sentence each.
    """

    dataset: PESData | None
    n_calculations: int
    skipped: Mapping[int, str]
    n_replaced: int
    others: Mapping[int, str]
    warnings: Sequence[str]


@dataclass
class _Source:
    """One calculation on its way into a dataset."""

    node: orm.CalcJobNode
    engine: str
    finished: FinishedCalculation
    fingerprint: str
    steps: dict[int, Atoms] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return f"c{self.node.pk}"

    def settings(self) -> dict[str, Any]:
        """Return what :func:`import_calculations` is told of this calculation."""
        parent = self.node.caller or self.node
        return {
            "engine": self.engine,
            "fingerprint": self.fingerprint,
            "details": dict(self.finished.details),
            "notes": {"parent": self.node.uuid, "origin": self.node.process_label, **self.finished.columns},
            "group": f"calculation-{parent.uuid}",  # the steps of a run, and of the runs that went on from it
            "steps": sorted(self.steps),
        }


@calcfunction
def import_calculations(settings: orm.Dict, **nodes: orm.Data) -> PESData:
    """Return the labels of finished calculations.

    :param settings: by key of the calculation: ``engine``, ``fingerprint`` of the labels, ``details`` of the engine,
        the ``steps`` to take, and ``notes`` and ``group`` of their frames.
    :param nodes: inputs and outputs of the calculations, named by key, two underscores and their own name.
    """
    of_calculation: dict[str, dict[str, orm.Data]] = defaultdict(dict)
    for name, node in nodes.items():
        key, _, output = name.partition(SEPARATOR)
        of_calculation[key][output] = node

    def frames() -> Iterator[Atoms]:
        for key, given in sorted(settings.get_dict().items(), key=lambda item: int(item[0][1:])):
            found = read_steps(of_calculation[key], given)
            yield from (found[step] for step in given["steps"])

    return PESData.from_frames(frames())


def read_steps(nodes: Mapping[str, orm.Data], given: Mapping[str, Any]) -> dict[int, Atoms]:
    """Return the frames of the ionic steps of a calculation that have labels, by the number of the step.

    :param nodes: inputs and outputs of the calculation, by name.
    :param given: what :func:`import_calculations` takes of it.
    :raises ValueError: if they cannot be read.
    """
    engine: type[LabelEngine] = load_engine("label", given["engine"])
    atoms = to_atoms(cast(orm.StructureData, nodes["structure"]), given["details"].get("charge", 0.0))
    atoms.info["group"] = given["group"]
    frames = {}
    for step, result in enumerate(engine.read_calculation(atoms, nodes, given["details"])):
        if result is not None:
            frames[step] = _frame(atoms, result, {**given["notes"], "ionic_step": step}, given["fingerprint"])
    return frames


def _frame(atoms: Atoms, result: Result, notes: Mapping[str, Any], fingerprint: str) -> Atoms:
    parent = str(notes["parent"])
    others = {name: value for name, value in notes.items() if name != "parent"}
    return label_frame(atoms, dataclasses.replace(result, parent=parent, notes=others), fingerprint)


def import_finished(
    processes: Iterable[orm.ProcessNode], like: tuple[str, Mapping[str, Any]] | None = None
) -> ImportedCalculations:
    """Import finished calculations; what cannot be imported is left out with its reason, before anything is stored.

    :param processes: CalcJobs, or WorkChains that call them.
    :param like: name and parameters of a label engine. Labels of calculations that had the same settings take its
        fingerprint, so that the engine does not compute them again.
    :raises ValueError: if these parameters are wrong.
    """
    calculations, skipped = find_calculations(processes)
    sources = []
    for calculation in calculations:
        try:
            sources.append(_inspect(calculation))
        except (AttributeError, KeyError, ValueError) as error:  # an archive may lack nodes
            skipped[_pk(calculation)] = str(error)
    others = {} if like is None else _adopt(sources, *like)
    sources = [source for source in sources if _read(source, skipped)]
    n_replaced = _keep_last(sources)
    sources = [source for source in sources if source.steps]
    chunks = _chunks(sources)
    parts = {f"d{k:03d}": _import(chunk) for k, chunk in enumerate(chunks)}
    dataset = None
    if parts:
        dataset = merge_datasets(**parts) if len(parts) > 1 else parts["d000"]
    return ImportedCalculations(dataset, len(sources), skipped, n_replaced, others, _warnings(sources))


def find_calculations(processes: Iterable[orm.ProcessNode]) -> tuple[list[orm.CalcJobNode], dict[int, str]]:
    """Return the CalcJobs among processes and below them, in the order of their submission, and what is none.

    :return: the CalcJobs, and why a process gives none, by pk.
    """
    found: dict[int, orm.CalcJobNode] = {}
    skipped: dict[int, str] = {}
    known = _known_types()
    for process in processes:
        below = [call for call in process.called_descendants if call.process_type in known]
        calculations = [process] if isinstance(process, orm.CalcJobNode) else below
        if not calculations:
            skipped[_pk(process)] = (
                f"{process.process_label or process.class_node_type} calls no calculation {_known()}"
            )
        found |= {_pk(node): cast(orm.CalcJobNode, node) for node in calculations}
    return [found[pk] for pk in sorted(found)], skipped


def _pk(node: orm.Node) -> int:
    assert node.pk is not None
    return int(node.pk)


def _known_types() -> dict[str, str]:
    """Return which engine reads the calculations of each process type."""
    names = known_engines("label")
    return {process_type: name for name in names for process_type in load_engine("label", name).CALCULATIONS}


def _known() -> str:
    return f"that an engine reads ({', '.join(kind.rpartition(':')[2] for kind in sorted(_known_types()))})"


def _inspect(calculation: orm.CalcJobNode) -> _Source:
    """Return a calculation with what its engine says of it.

    :raises ValueError: if it is not to be imported.
    """
    name = _known_types().get(str(calculation.process_type))
    if name is None:
        raise ValueError(f"{calculation.process_label} is no calculation {_known()}")
    engine: type[LabelEngine] = load_engine("label", name)
    if not calculation.is_finished:
        state = calculation.process_state
        raise ValueError(f"it has not finished but is {state.value if state else 'of no state'}")
    if calculation.exit_status not in engine.CALCULATIONS[str(calculation.process_type)]:
        raise ValueError(f"exit status {calculation.exit_status}: {calculation.exit_message or 'no message'}")
    finished = engine.inspect_calculation(calculation)
    return _Source(calculation, name, finished, fingerprint_of({"calculation": name, **finished.settings}))


def _read(source: _Source, skipped: dict[int, str]) -> bool:
    """Read a calculation once before anything is stored, and return whether it has labels."""
    try:
        source.steps = read_steps(source.finished.nodes, source.settings())
    except Exception as error:  # noqa: BLE001  whatever an engine stumbles over costs one calculation
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        skipped[_pk(source.node)] = f"its output cannot be used: {reason}"
        return False
    if not source.steps:
        skipped[_pk(source.node)] = "the electronic loop did not converge"
    return bool(source.steps)


def _adopt(sources: Sequence[_Source], name: str, parameters: Mapping[str, Any]) -> dict[int, str]:
    """Give calculations that had the settings of an engine its fingerprint, and return what tells others apart.

    :raises ValueError: if the parameters are wrong.
    """
    engine = load_engine("label", name)
    if not engine.CALCULATIONS:
        raise ValueError(f"the label engine {name!r} imports no calculations")
    problem = engine.validate(parameters)
    if problem is not None:
        raise ValueError(problem)
    chosen = [source for source in sources if source.engine == name]
    symbols = sorted({symbol for source in chosen for symbol in source.finished.nodes["structure"].get_symbols_set()})
    settings = engine.complete(parameters, symbols) if chosen else {}
    others = {}
    for source in chosen:
        try:
            expected = engine.expect_calculation(source.finished.nodes["structure"], settings)
            difference = find_difference(source.finished, expected)
        except ValueError as error:
            difference = str(error)
        if difference is None:
            source.fingerprint = engine.fingerprint(settings)
        else:
            others[_pk(source.node)] = difference
    return others


def find_difference(found: FinishedCalculation, expected: FinishedCalculation) -> str | None:
    """Return the first setting of a calculation that differs from those expected, None if none does.

    A mesh that is denser and a threshold that is tighter than expected are no difference.
    """
    differences = _differences("", found.settings, expected.settings)
    for name, value in expected.columns.items():
        if not found.columns.get(name, np.inf) <= value * (1 + TOLERANCE):
            differences.append(f"{name} is {found.columns.get(name, np.inf):.4g} instead of at most {value:.4g}")
    return differences[0] if differences else None


def _differences(where: str, found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    result = []
    for key in sorted({*found, *expected}):
        one, other = found.get(key), expected.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            result += _differences(f"{where}{key}.", one, other)
        elif one != other:
            result.append(f"{where}{key} is {one!r} instead of {other!r}")
    return result


def _keep_last(sources: Sequence[_Source]) -> int:
    """Leave out labels of a structure that a later calculation labels with the same settings; return how many."""
    rows = [(source, step) for source in sources for step in sorted(source.steps)]
    if not rows:
        return 0
    with PESData.from_frames(source.steps[step] for source, step in rows).dataset() as reader:
        ids = [str(identity) for identity in label_ids(reader)]
    seen: set[tuple[str, str]] = set()
    n_replaced = 0
    for (source, step), identity in reversed(list(zip(rows, ids, strict=True))):
        if (identity, source.fingerprint) in seen:
            del source.steps[step]
            n_replaced += 1
        seen.add((identity, source.fingerprint))
    return n_replaced


def _chunks(sources: Sequence[_Source]) -> list[list[_Source]]:
    """Return the calculations in groups of few frames; one with many has a group of its own."""
    chunks: list[list[_Source]] = []
    n_frames = CHUNK
    for source in sources:
        n_frames += len(source.steps)
        if n_frames > CHUNK:
            chunks.append([])
            n_frames = len(source.steps)
        chunks[-1].append(source)
    return chunks


def _import(sources: Sequence[_Source]) -> PESData:
    settings = {source.key: source.settings() for source in sources}
    nodes = {
        f"{source.key}{SEPARATOR}{name}": node for source in sources for name, node in source.finished.nodes.items()
    }
    return import_calculations(orm.Dict(settings), **nodes)


def _warnings(sources: Sequence[_Source]) -> list[str]:
    """Return what is doubtful about labels of equal fingerprint, and of cells that moved."""
    found = []
    for fingerprint in sorted({source.fingerprint for source in sources}):
        columns = [source.finished.columns for source in sources if source.fingerprint == fingerprint]
        for name, ratio in LARGEST_RATIO.items():
            values = [column[name] for column in columns if name in column]
            if values and max(values) > ratio * min(values):
                found.append(
                    f"{name} of the labels {fingerprint} goes from {min(values):.3g} to {max(values):.3g}: "
                    "look at this column before you fit to all of them"
                )
    n_strained = sum(_is_strained(source) for source in sources)
    if n_strained:
        found.append(
            f"in {n_strained} calculations the cell changes: plane waves are those of the first cell in all steps; "
            "ionic_step is 0 for the first"
        )
    return found


def _is_strained(source: _Source) -> bool:
    cells = [atoms.cell.array for atoms in source.steps.values()]
    return any(not np.allclose(cell, cells[0], atol=1e-6) for cell in cells[1:])
