"""The formats compared: each writes, reads, picks, filters and merges the same frames."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ase.io
import h5py
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io.trajectory import Trajectory

from aiida_alpot.kernel.dataset import Dataset, filter_frames, merge, write

KEPT = "train"
FILTERS = {"compression": "gzip", "compression_opts": 1, "shuffle": True, "fletcher32": True}


def make_frames(n_frames: int, n_atoms: tuple[int, int], seed: int = 0) -> Iterator[Atoms]:
    """Yield labelled frames with random numbers in every column, the worst case of compression."""
    rng = np.random.default_rng(seed)
    for k in range(n_frames):
        size = int(rng.integers(n_atoms[0], n_atoms[1] + 1))
        atoms = Atoms(
            numbers=rng.choice([1, 6, 8], size), positions=rng.random((size, 3)) * 20, cell=np.eye(3) * 20, pbc=True
        )
        atoms.calc = SinglePointCalculator(
            atoms, energy=rng.normal(), forces=rng.normal(size=(size, 3)), stress=rng.normal(size=6)
        )
        atoms.info.update(
            group=f"md{k // 50}",
            split=KEPT if k % 5 else "test",
            config_type="md",
            fingerprint="ab" * 32,
            iteration=k // 1000,
            cost=float(rng.random()),
            temperature=float(rng.random()),
        )
        yield atoms


class Alpot:
    """The dataset of this package."""

    suffix = ".h5"

    def write(self, path: Path, frames: list[Atoms]) -> None:
        write(path, frames)

    def arrays(self, path: Path) -> int:
        with Dataset.open(path) as dataset:
            return sum(dataset.column(name).nbytes for name in dataset.columns) + dataset.offsets.nbytes

    def atoms(self, path: Path) -> list[Atoms]:
        with Dataset.open(path) as dataset:
            return list(dataset)

    def pick(self, path: Path, rows: list[int]) -> list[Atoms]:
        with Dataset.open(path) as dataset:
            return [dataset[row] for row in rows]

    def filter(self, path: Path, out: Path) -> None:
        filter_frames(path, lambda dataset: dataset.column("split") == KEPT, out)

    def merge(self, paths: list[Path], out: Path) -> None:
        merge(paths, out)


class Raw:
    """The arrays of the dataset in plain h5py: contiguous, or with the same filters and chunks.

    It writes arrays that lie in memory, checks, hashes and decodes nothing, and texts stay codes and bytes.
    """

    suffix = ".h5"

    def __init__(self, *, filters: bool) -> None:
        self._filters = filters

    def write(self, path: Path, arrays: dict[str, tuple[Any, tuple[int, ...]]]) -> None:
        with h5py.File(path, "w", libver=("v110", "v110")) as file:
            for name, (values, chunks) in arrays.items():
                self._create(file, name, values, chunks)

    def _create(self, file: h5py.File, name: str, values: Any, chunks: tuple[int, ...]) -> None:
        settings = {"chunks": tuple(map(min, chunks, values.shape)), **FILTERS} if self._filters and values.size else {}
        file.create_dataset(name, data=values, **settings)

    def arrays(self, path: Path) -> int:
        return sum(values.nbytes for values, _ in load_arrays(path).values())

    def pick(self, path: Path, rows: list[int]) -> list[Any]:
        with h5py.File(path) as file:
            offsets = file["offsets"][...]
            return [
                [file[name][offsets[row] : offsets[row + 1]] for name in ("atom/positions", "atom/forces")]
                + [file[name][row] for name in ("frame/cell", "frame/energy")]
                for row in rows
            ]

    def filter(self, path: Path, out: Path) -> None:
        arrays = load_arrays(path)
        codes = arrays["frame/split"][0]
        keep = codes == codes[1]
        counts = np.diff(arrays["offsets"][0])
        masks = {"frame": keep, "atom": np.repeat(keep, counts)}
        for name, (values, chunks) in arrays.items():
            mask = masks.get(name.split("/")[0])
            arrays[name] = (values if mask is None else values[mask], chunks)
        arrays["offsets"] = (np.concatenate([[0], np.cumsum(counts[keep])]), arrays["offsets"][1])
        self.write(out, arrays)

    def merge(self, paths: list[Path], out: Path) -> None:
        sources = [load_arrays(path) for path in paths]
        joined = {name: (np.concatenate([s[name][0] for s in sources]), sources[0][name][1]) for name in sources[0]}
        shifts = np.cumsum([0, *(source["offsets"][0][-1] for source in sources)])
        pieces = [source["offsets"][0][1:] + shift for source, shift in zip(sources, shifts, strict=False)]
        joined["offsets"] = (np.concatenate([[0], *pieces]), sources[0]["offsets"][1])
        self.write(out, joined)


def load_arrays(path: Path) -> dict[str, tuple[Any, tuple[int, ...]]]:
    """Return every array of an HDF5 file with its chunks, without the digests that only our dataset has."""
    found: dict[str, tuple[Any, tuple[int, ...]]] = {}

    def take(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and not name.startswith("digests/"):
            found[name] = (item[...], item.chunks or item.shape)

    with h5py.File(path) as file:
        file.visititems(take)
    return found


class Ase:
    """A format that ``ase.io`` reads and writes as a whole."""

    def __init__(self, suffix: str) -> None:
        self.suffix = suffix

    def write(self, path: Path, frames: list[Atoms]) -> None:
        ase.io.write(path, frames)

    def atoms(self, path: Path) -> list[Atoms]:
        frames: list[Atoms] = ase.io.read(path, ":")
        return frames

    def pick(self, path: Path, rows: list[int]) -> list[Atoms]:
        if self.suffix == ".traj":
            with Trajectory(path) as trajectory:
                return [trajectory[row] for row in rows]
        frames = self.atoms(path)
        return [frames[row] for row in rows]

    def filter(self, path: Path, out: Path) -> None:
        ase.io.write(out, [atoms for atoms in self.atoms(path) if atoms.info["split"] == KEPT])

    def merge(self, paths: list[Path], out: Path) -> None:
        if self.suffix == ".extxyz":
            with out.open("wb") as target:
                for path in paths:
                    with path.open("rb") as source:
                        shutil.copyfileobj(source, target)
            return
        ase.io.write(out, [atoms for path in paths for atoms in self.atoms(path)])


class AseDb:
    """The SQLite database of ASE, with book-keeping as key-value pairs."""

    suffix = ".db"

    def write(self, path: Path, frames: list[Atoms]) -> None:
        with connect(path, append=False) as database:
            for atoms in frames:
                database.write(atoms, key_value_pairs=atoms.info)

    def atoms(self, path: Path) -> list[Atoms]:
        return [row.toatoms(add_additional_information=True) for row in connect(path).select()]

    def pick(self, path: Path, rows: list[int]) -> list[Atoms]:
        database = connect(path)
        return [database.get(id=row + 1).toatoms(add_additional_information=True) for row in rows]

    def filter(self, path: Path, out: Path) -> None:
        with connect(out, append=False) as database:
            for row in connect(path).select(split=KEPT):
                database.write(row)

    def merge(self, paths: list[Path], out: Path) -> None:
        with connect(out, append=False) as database:
            for path in paths:
                for row in connect(path).select():  # a row as it is keeps its unique id and cannot come twice
                    database.write(row.toatoms(), key_value_pairs=row.key_value_pairs)


class Groups:
    """One HDF5 group per frame, as several packages of the field store them; no compression."""

    suffix = ".h5"

    def write(self, path: Path, frames: list[Atoms]) -> None:
        with h5py.File(path, "w") as file:
            for k, atoms in enumerate(frames):
                group = file.create_group(f"{k:08d}")
                arrays = {"numbers": atoms.numbers, "positions": atoms.positions, "cell": atoms.cell.array}
                for name, values in {**arrays, "pbc": atoms.pbc, **atoms.calc.results}.items():
                    group[name] = values
                for name, value in atoms.info.items():
                    group.attrs[name] = value

    def atoms(self, path: Path) -> list[Atoms]:
        with h5py.File(path) as file:
            return [_atoms_of_group(group) for group in file.values()]

    def pick(self, path: Path, rows: list[int]) -> list[Atoms]:
        with h5py.File(path) as file:
            return [_atoms_of_group(file[f"{row:08d}"]) for row in rows]

    def filter(self, path: Path, out: Path) -> None:
        with h5py.File(path) as source, h5py.File(out, "w") as target:
            for name, group in source.items():
                if group.attrs["split"] == KEPT:
                    source.copy(group, target, name)

    def merge(self, paths: list[Path], out: Path) -> None:
        with h5py.File(out, "w") as target:
            count = 0
            for path in paths:
                with h5py.File(path) as source:
                    for group in source.values():
                        source.copy(group, target, f"{count:08d}")
                        count += 1


def _atoms_of_group(group: h5py.Group) -> Atoms:
    values = {name: item[()] for name, item in group.items()}
    atoms = Atoms(**{name: values.pop(name) for name in ("numbers", "positions", "cell", "pbc")})
    atoms.calc = SinglePointCalculator(atoms, **values)
    atoms.info.update(group.attrs)
    return atoms


FORMATS: dict[str, Callable[[], Any]] = {
    "alpot": Alpot,
    "raw h5py": lambda: Raw(filters=False),
    "raw h5py, same filters": lambda: Raw(filters=True),
    "extxyz": lambda: Ase(".extxyz"),
    "ASE db": AseDb,
    "ASE traj": lambda: Ase(".traj"),
    "group per frame": Groups,
}
