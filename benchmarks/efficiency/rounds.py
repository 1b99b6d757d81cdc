"""One run of active learning on a pool with hidden labels: train, measure, calibrate, select, and again.

Statistics, calibration, active set and selection are those of the package, called as its task ``evaluate`` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol, Self

import numpy as np
import numpy.typing as npt
from frames import COMMON, GROUPS

from aiida_alpot.kernel.potentials import Features, Predictions
from aiida_alpot.kernel.seeds import derive_seed
from aiida_alpot.kernel.selection import CandidateTable, Selection, get_strategy, select
from aiida_alpot.kernel.uncertainty import (
    ActiveSet,
    Calibration,
    ClusterSettings,
    LocalActiveSet,
    UncertaintyModel,
    disagreement,
    error,
)

START: Final = 40
BATCH: Final = 60
MOST_ROUNDS: Final = 10
CONTROL_AT_START: Final = 10
TOLERANCES: Final = {"energy": 0.005, "force": 0.1}
"""eV/atom and eV/Å: some twice the error of a committee on the bulk."""

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Frames(Protocol):
    """Labelled frames in the form that a committee wants."""

    def __len__(self) -> int: ...

    def take(self, rows: Ints) -> Self:
        """Return some of the frames."""

    def reference(self) -> Predictions:
        """Return the labels."""


class Committee(Protocol):
    """Potentials that are trained and evaluated together."""

    @classmethod
    def train(cls, frames: Any, seed: int) -> Self:
        """Return a committee trained on all of *frames*."""

    def predict(self, frames: Any) -> tuple[list[Predictions], Features]:
        """Return the predictions of every member, and what the energy of the first one is linear in."""


@dataclass(frozen=True)
class Data:
    """What a run is given.

    :param pool: frames to choose from.
    :param pool_group: of each, shape (n_pool,).
    :param test: frames to measure errors on.
    :param test_group: of each.
    """

    pool: Frames
    pool_group: npt.NDArray[np.str_]
    test: Frames
    test_group: npt.NDArray[np.str_]


@dataclass
class Labelled:
    """Rows of the pool that have a label, by what they are for."""

    train: list[int]
    held_out: list[int]

    @property
    def rows(self) -> list[int]:
        """All of them."""
        return self.train + self.held_out


def run(
    kind: type[Committee],
    data: Data,
    strategy: str,
    last: int,
    seed: int,
    control: bool = True,
    clusters: ClusterSettings | None = None,
) -> list[dict[str, Any]]:
    """Return what was measured after every round.

    :param kind: of the committee that is trained.
    :param strategy: a name known to the package.
    :param last: number of labels after which it ends.
    :param control: whether control frames are set apart; without, all labels are trained on.
    :param clusters: of the training atoms, with an active set each; one active set without.
    """
    labelled = _start(len(data.pool), seed, control)
    calibrations: dict[str, Calibration] = {}
    rounds: list[dict[str, Any]] = []
    while True:
        of_round = derive_seed(seed, f"round-{len(rounds)}")
        committee = kind.train(data.pool.take(np.array(labelled.train)), of_round)
        rounds.append(_measure(committee, data, labelled))
        if len(labelled.rows) >= last or len(rounds) == MOST_ROUNDS:
            return rounds
        if strategy == "random":
            table, model, features = _blind_table(len(data.pool)), UncertaintyModel(), None
        else:
            calibrations = _calibrate(committee, data.pool.take(np.array(labelled.held_out)), calibrations)
            table, model, features = _judge(committee, data.pool, strategy, labelled.train, calibrations, clusters)
        n = min(BATCH, last - len(labelled.rows))
        chosen = _select(table, model, features, strategy, n, labelled, of_round, control)
        rounds[-1]["flagged"] = chosen.report["n_flagged"]
        for row, held in zip(chosen.indices.tolist(), chosen.control.tolist(), strict=True):
            (labelled.held_out if held else labelled.train).append(row)


def _start(n_pool: int, seed: int, control: bool) -> Labelled:
    rows = np.random.default_rng(derive_seed(seed, "start")).permutation(n_pool)[:START].tolist()
    n_held = CONTROL_AT_START if control else 0
    return Labelled(rows[n_held:], rows[:n_held])


def _measure(committee: Committee, data: Data, labelled: Labelled) -> dict[str, Any]:
    """Return the errors of the mean of the committee by group, eV/Å and eV/atom, and what was labelled."""
    found = error(committee.predict(data.test)[0], data.test.reference(), target="committee_mean")
    n_atoms = np.diff(found.offsets)
    force, energy = {}, {}
    for group in GROUPS:
        rows = data.test_group == group
        force[group] = float(np.sqrt(np.average(found.force[rows] ** 2, weights=n_atoms[rows])))
        energy[group] = float(np.sqrt(np.mean(found.energy[rows] ** 2)))
    groups = data.pool_group[labelled.train]
    return {
        "labels": len(labelled.rows),
        "trained": {group: int((groups == group).sum()) for group in GROUPS},
        "force": force,
        "energy": energy,
    }


def _calibrate(committee: Committee, held_out: Frames, previous: dict[str, Calibration]) -> dict[str, Calibration]:
    members, truth = committee.predict(held_out)[0], held_out.reference()
    spread, wrong = disagreement(members), error(members, truth)
    return {
        name: Calibration.fit(
            spread.value(name),
            wrong.value(name),
            tolerance=tolerance,
            previous=previous.get(name),
            n_bootstrap=0,
        )
        for name, tolerance in TOLERANCES.items()
    }


def _blind_table(n: int) -> CandidateTable:
    """Return a table that knows nothing, which is enough for a random choice."""
    names, unknown = np.arange(n).astype(np.str_), np.full(n, np.nan)
    return CandidateTable(unknown, unknown, unknown, unknown, unknown, np.ones(n, dtype=bool), names, names)


def _judge(
    committee: Committee,
    pool: Frames,
    strategy: str,
    train: list[int],
    calibrations: dict[str, Calibration],
    clusters: ClusterSettings | None,
) -> tuple[CandidateTable, UncertaintyModel, Features]:
    """Return what the committee says of the pool, its uncertainty model, and the features of all atoms."""
    members, features = committee.predict(pool)
    spread = disagreement(members)
    active: ActiveSet | LocalActiveSet | None = None
    if get_strategy(strategy).needs_active_set:
        trained = take_frames(features, np.array(train))
        if clusters is None:
            active = ActiveSet.build(trained, start="eps", kind="last_layer")
        else:
            active = LocalActiveSet.build(trained, clusters=clusters, start="eps", kind="last_layer")
    names = np.arange(len(pool)).astype(np.str_)
    columns = {name: spread.value(name) for name in ("energy", "force", "force_max", "stress")}
    table = CandidateTable(
        **columns,
        grade=np.full(len(pool), np.nan),
        healthy=np.ones(len(pool), dtype=bool),
        group=names,
        structure_id=names,
        features=_mean_features(features, len(pool)),
    )
    return table, UncertaintyModel(calibrations, TOLERANCES, active), features


def _mean_features(features: Features, n_frames: int) -> Floats:
    """Return the mean of the features over the atoms of a frame, scaled to unit variance, shape (n_frames, n)."""
    total = np.zeros((n_frames, features.n_features))
    np.add.at(total, features.frame_index, features.values)
    means = total / np.bincount(features.frame_index)[:, None]
    return np.asarray(means / means.std(axis=0))


def take_frames(features: Features, rows: Ints) -> Features:
    """Return the features of the atoms of some frames, which are counted from 0."""
    first, last = np.searchsorted(features.frame_index, [rows, rows + 1])
    atoms = np.concatenate([np.arange(a, b) for a, b in zip(first, last, strict=True)])
    return Features(features.values[atoms], features.species[atoms], np.repeat(np.arange(len(rows)), last - first))


def _select(
    table: CandidateTable,
    model: UncertaintyModel,
    features: Features | None,
    strategy: str,
    n: int,
    labelled: Labelled,
    seed: int,
    control: bool,
) -> Selection:
    named = dict.fromkeys(map(str, labelled.train), "train") | dict.fromkeys(map(str, labelled.held_out), "calibration")
    return select(
        table,
        strategy,
        n,
        seed,
        thresholds=model.thresholds,
        known_ids=list(named),
        fixed_splits=named,
        training_features=table.features[labelled.train] if table.features is not None else None,
        active_set=model.active_set,
        atom_features=None if features is None else lambda rows: take_frames(features, rows),
        **({} if control else {"control_share": 0.0}),
    )


def draw_pool(groups: npt.NDArray[np.str_], counts: dict[str, int], seed: int) -> Ints:
    """Return the rows of a pool drawn from all frames: so many of each group, ascending."""
    rng = np.random.default_rng(derive_seed(seed, "pool"))
    rows = [rng.permutation(np.flatnonzero(groups == group))[: counts[group]] for group in GROUPS]
    return np.sort(np.concatenate(rows))


def pool_counts(n: int, share: float) -> dict[str, int]:
    """Return how many frames of each group a pool of *n* has, with *share* of them in equal parts of the rare ones."""
    n_rare = round(n * share / (len(GROUPS) - 1))
    return {group: n - n_rare * (len(GROUPS) - 1) if group == COMMON else n_rare for group in GROUPS}
