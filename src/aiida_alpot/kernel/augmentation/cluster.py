"""Clusters that grow atom by atom."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii

from aiida_alpot.kernel.augmentation.base import DroppedFrameError, Made, Step
from aiida_alpot.kernel.augmentation.species import check_symbols, require_radii
from aiida_alpot.kernel.defaults import CLUSTER_MAX_RATIO
from aiida_alpot.kernel.units import FloatArray

_TRIES = 1000
"""Places that are tried for one atom."""


@dataclass(frozen=True)
class ClusterSettings:
    """Which clusters are made, [TrainsPot] Sec. II A 2.

    The paper has one distance for all elements, 1.5 Å, which is twice the covalent radius of carbon and two thirds of
    the bond of Cu₂. Here each pair has its own, the sum of its covalent radii (Cordero 2008, as in ASE).

    :param count: clusters; this and the sizes are ours.
    :param min_atoms: fewest atoms of a cluster; sizes are drawn with equal chances.
    :param max_atoms: most atoms of a cluster.
    :param elements: those of all inputs if omitted.
    :param distances: Å, by pair of elements (``Cu-O``): no two atoms are closer.
    :param max_ratio: largest distance of a new atom to one of the cluster over that of the pair.
    """

    count: int = 20
    min_atoms: int = 2
    max_atoms: int = 30
    elements: tuple[str, ...] | None = None
    distances: Mapping[str, float] = field(default_factory=dict)
    max_ratio: float = CLUSTER_MAX_RATIO

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"'count' must be at least 1, got {self.count}")
        if self.min_atoms < 2:
            raise ValueError(f"'min_atoms' must be at least 2, got {self.min_atoms}")
        if not self.min_atoms <= self.max_atoms <= 10_000:
            raise ValueError(f"'max_atoms' must lie in [{self.min_atoms}, 10000], got {self.max_atoms}")
        if not 1.0 <= self.max_ratio <= 10.0:
            raise ValueError(f"'max_ratio' must lie in [1, 10], got {self.max_ratio}")
        if self.elements is not None:
            check_symbols("elements", self.elements)
            if not self.elements:
                raise ValueError("'elements' must name an element, got none; omit it for those of the inputs")
        self._check_distances()

    def _check_distances(self) -> None:
        pairs: set[tuple[str, ...]] = set()
        for key, distance in self.distances.items():
            symbols = tuple(sorted(key.split("-")))
            if len(symbols) != 2 or any(atomic_numbers.get(symbol, 0) == 0 for symbol in symbols):
                raise ValueError(f"'distances' must be by pair of elements, such as Cu-O, got {key!r}")
            if symbols in pairs:
                raise ValueError(f"'distances' must hold every pair once, got {'-'.join(symbols)} twice")
            if not 0.0 < distance <= 20.0:
                raise ValueError(f"'distances' must lie in (0, 20] Å, got {distance} for {key}")
            pairs.add(symbols)


def make_clusters(elements: Sequence[str], settings: ClusterSettings, rng: np.random.Generator) -> Iterator[Made]:
    """Yield clusters, not periodic, without a cell, centred at the origin, or the reason ``no_room`` in their place.

    Atoms are added one at a time, at 1 to *max_ratio* times the distance of the pair from an atom of the cluster, in a
    direction without preference, and not closer to any other than the distance of that pair. So the cluster is
    connected, and the nearest neighbour of every atom lies in that range. Concentrations of the elements are drawn for
    each cluster with equal chances of all (Dirichlet), then the element of each atom.

    :raises NotApplicableError: if an element of a pair without a given distance has no covalent radius.
    """
    symbols = settings.elements or tuple(elements)
    require_radii(_without_distance(symbols, settings.distances))
    closest = pair_distances(symbols, settings.distances)
    for _ in range(settings.count):
        n_atoms = int(rng.integers(settings.min_atoms, settings.max_atoms + 1))
        kinds = rng.choice(len(symbols), size=n_atoms, p=rng.dirichlet(np.ones(len(symbols))))
        positions = _grow(closest[np.ix_(kinds, kinds)], settings.max_ratio, rng)
        if positions is None:
            yield DroppedFrameError("no_room")
            continue
        cluster = Atoms([symbols[kind] for kind in kinds], positions - positions.mean(axis=0))
        yield Step(cluster, f"cluster {cluster.get_chemical_formula()}", {"n_atoms": n_atoms})


def pair_distances(symbols: Sequence[str], given: Mapping[str, float]) -> FloatArray:
    """Return the distance of each pair of elements, Å, shape (n, n): the given one, else the sum of covalent radii."""
    radii = covalent_radii[[atomic_numbers[symbol] for symbol in symbols]]
    distances = np.add.outer(radii, radii)
    for i, first in enumerate(symbols):
        for j, second in enumerate(symbols):
            default = given.get(f"{second}-{first}", distances[i, j])
            distances[i, j] = given.get(f"{first}-{second}", default)
    return np.asarray(distances)


def _without_distance(symbols: Sequence[str], given: Mapping[str, float]) -> Iterator[str]:
    """Yield the elements of pairs whose distance is not given."""
    for first, second in itertools.combinations_with_replacement(symbols, 2):
        if f"{first}-{second}" not in given and f"{second}-{first}" not in given:
            yield from (first, second)


def _grow(closest: FloatArray, max_ratio: float, rng: np.random.Generator) -> FloatArray | None:
    """Return positions, ``None`` if an atom found no place.

    :param closest: least distance of each pair of atoms, shape (n_atoms, n_atoms), Å.
    """
    positions = np.zeros((len(closest), 3))
    for n in range(1, len(closest)):
        for _ in range(_TRIES):
            neighbour = rng.integers(n)
            direction = rng.normal(size=3)
            length = closest[n, neighbour] * rng.uniform(1.0, max_ratio)
            place = positions[neighbour] + length * direction / np.linalg.norm(direction)
            distances = np.linalg.norm(positions[:n] - place, axis=1)
            distances[neighbour] = length
            if (distances >= closest[n, :n]).all():
                positions[n] = place
                break
        else:
            return None
    return positions
