"""Frames and columns that cannot be used, names that play tricks, and labels that are doubtful together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from aiida_alpot.kernel.dataset import Dataset, merge, read_frames, write, write_frames
from aiida_alpot.kernel.labelling.gate import check_labels
from aiida_alpot.kernel.splitting import split_columns
from aiida_alpot.kernel.summaries import summarise_labels

pytestmark = pytest.mark.timeout(60)

Change = Callable[[Atoms], Any]


def relabel(atoms: Atoms, **labels: Any) -> None:
    atoms.calc = SinglePointCalculator(atoms, **{**atoms.calc.results, **labels})


def calc_only(atoms: Atoms, **changes: Any) -> None:
    """Change a frame and keep its labels fitting to it."""
    results = atoms.calc.results
    for name, value in changes.items():
        setattr(atoms, name, value)
    atoms.calc = SinglePointCalculator(atoms, **results)


FRAMES: dict[str, tuple[Change, Sequence[str]]] = {
    "frame-01 an energy that is NaN": (
        lambda a: relabel(a, energy=np.nan), ["frame 1", "energy", "not finite", "give finite labels"]),
    "frame-02 an energy that is infinite": (lambda a: relabel(a, energy=np.inf), ["frame 1", "energy", "not finite"]),
    "frame-03 one force component that is NaN": (
        lambda a: relabel(a, forces=np.full((4, 3), np.nan)), ["frame 1", "forces", "'unlabelled' or 'failed'"]),
    "frame-04 a stress that is NaN in part": (
        lambda a: relabel(a, stress=[np.nan, 0, 0, 0, 0, 0]), ["frame 1", "stress", "not finite"]),
    "frame-05 forces of another number of atoms": (
        lambda a: a.calc.results.update(forces=np.zeros((3, 3))), ["frame 1", "forces", "(3, 3)", "4 atoms"]),
    "frame-06 forces of two components": (
        lambda a: a.calc.results.update(forces=np.zeros((4, 2))), ["frame 1", "forces", "(4, 2)"]),
    "frame-07 a stress of five numbers": (
        lambda a: a.calc.results.update(stress=np.zeros(5)), ["frame 1", "stress", "(5,)"]),
    "frame-08 an energy in words": (lambda a: a.calc.results.update(energy="low"), ["frame 1", "energy", "'low'"]),
    "frame-09 labels of another geometry": (
        lambda a: a.rattle(0.1), ["frame 1", "another geometry", "attach new labels"]),
    "frame-10 labels twice and different": (
        lambda a: a.info.update(REF_energy=5.0), ["frame 1", "REF_energy", "different labels", "remove one"]),
    "frame-11 a position that is infinite": (
        lambda a: calc_only(a, positions=np.full((4, 3), np.inf)), ["frame 1", "position", "leave the frame out"]),
    "frame-12 a cell of zeros, periodic": (
        lambda a: calc_only(a, cell=np.zeros((3, 3))), ["frame 1", "cell vector is zero", "pbc to False"]),
    "frame-13 mixed periodicity along a missing vector": (
        lambda a: calc_only(a, cell=[3.6, 3.6, 0], pbc=[True, False, True]), ["frame 1", "cell vector is zero"]),
    "frame-14 a cell that is NaN": (
        lambda a: calc_only(a, cell=np.full((3, 3), np.nan)), ["frame 1", "cell", "not finite"]),
    "frame-32 a cell in one plane": (
        lambda a: calc_only(a, cell=[[3.6, 0, 0], [0, 3.6, 0], [3.6, 3.6, 0]]),
        ["frame 1", "cell vectors in one plane or line", "pbc to False"],
    ),
    "frame-33 two equal vectors of a slab": (
        lambda a: calc_only(a, cell=[[3.6, 0, 0], [3.6, 0, 0], [0, 0, 9]], pbc=[True, True, False]),
        ["frame 1", "cell vectors in one plane or line"],
    ),
    "frame-34 a cell in another unit": (
        lambda a: calc_only(a, cell=np.eye(3) * 0.36), ["frame 1", "less than 0.5 Å", "is its cell in Å?"]),
    "frame-35 a cell of long vectors and no height": (
        lambda a: calc_only(a, cell=[[90, 0, 0], [90, 0.1, 0], [0, 0, 9]]), ["frame 1", "less than 0.5 Å"]),
    "frame-15 a species beyond the periodic table": (
        lambda a: calc_only(a, numbers=[29, 29, 29, 130]), ["frame 1", "outside 1–118", "replace"]),
    "frame-16 a status nobody knows": (
        lambda a: a.info.update(status="labeled"), ["frame 1", "'labeled'", "did you mean 'labelled'?"]),
    "frame-17 a split nobody knows": (
        lambda a: a.info.update(split="tran"), ["frame 1", "'tran'", "did you mean 'train'?"]),
    "frame-18 a negative weight": (lambda a: a.info.update(weight=-1.0), ["frame 1", "weight", "use 0 to skip"]),
    "frame-19 a weight that is NaN": (lambda a: a.info.update(weight=np.nan), ["frame 1", "weight", "not finite"]),
    "frame-20 a group that is a number": (lambda a: a.info.update(group=3), ["frame 1", "'group'", "one type"]),
    "frame-21 a column of two types": (lambda a: a.info.update(note=3), ["frame 1", "'note'", "one type and shape"]),
    "frame-22 an energy in info": (lambda a: a.info.update(energy=1.0), ["frame 1", "'energy'", "REF_energy"]),
    "frame-23 forces among the arrays": (
        lambda a: a.arrays.update(forces=np.zeros((4, 3))), ["frame 1", "'forces'", "REF_forces"]),
    "frame-24 an array of objects": (
        lambda a: a.arrays.update(thing=np.array([{}, [], 1, "x"], dtype=object)), ["frame 1", "'thing'", "expected"]),
    "frame-25 an array that is too short": (
        lambda a: a.arrays.update(tags=np.zeros(3)), ["frame 1", "'tags'", "3 rows for 4 atoms", "one row per atom"]),
    "frame-26 one name in info and in arrays": (
        lambda a: (a.info.update(site=1), a.arrays.update(site=np.zeros(4))), ["'site'", "rename one"]),
}  # fmt: skip


@pytest.mark.parametrize("case", FRAMES)
def test_a_bad_frame_is_refused_by_its_number(case: str, good: SimpleNamespace, tmp_path: Path, refused: Any) -> None:
    damage, words = FRAMES[case]
    frames = good.frames()
    frames[0].info["note"] = frames[2].info["note"] = "text"
    damage(frames[1])
    refused(lambda: write(tmp_path / "out.h5", frames), words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        pytest.param([Atoms()], ["frame 0 has no atoms", "leave it out"], id="frame-27 a frame of no atom"),
        pytest.param([Atoms("Cu"), None], ["frame 1", "expected ase.Atoms"], id="frame-28 no frame at all"),
        pytest.param(["Cu"], ["frame 0", "got str"], id="frame-29 a list of names"),
    ],
)
def test_what_is_no_frame_is_refused(frames: Any, words: Sequence[str], tmp_path: Path, refused: Any) -> None:
    refused(lambda: write(tmp_path / "out.h5", frames), words)


COLUMNS: dict[str, tuple[dict[str, Any], Sequence[str]]] = {
    "column-01 a value too few": ({"split": ["train"]}, ["'split'", "1 values", "one per frame"]),
    "column-02 a value too much": ({"split": ["train"] * 4}, ["'split'", "4 values for 3 frames"]),
    "column-03 positions": ({"positions": [0, 0, 0]}, ["'positions'", "cannot be replaced"]),
    "column-04 numbers for words": ({"split": [1, 2, 3]}, ["'split'", "str"]),
    "column-05 words for numbers": ({"iteration": "one"}, ["'iteration'", "int"]),
    "column-06 mixed types": ({"note": ["a", 1, 2.0]}, ["'note'", "one type and shape"]),
    "column-07 an iteration with a fraction": ({"iteration": 1.5}, ["'iteration'", "int"]),
    "column-08 an unknown status": ({"status": "done"}, ["frame 0", "'done'", "valid values"]),
}


@pytest.mark.parametrize("case", COLUMNS)
def test_a_bad_column_is_refused_by_name(case: str, good: SimpleNamespace, tmp_path: Path, refused: Any) -> None:
    columns, words = COLUMNS[case]
    refused(lambda: write(tmp_path / "out.h5", good.frames(), **columns), words)


NAMES = {
    "name-01 a path upwards": "../../etc/passwd",
    "name-02 an absolute path": "/etc/passwd",
    "name-03 a dot": ".",
    "name-04 two dots": "..",
    "name-05 a NUL": "a\0b",
    "name-06 a line break": "a\nb",
    "name-07 bytes that are no UTF-8": "caf\udce9",
    "name-08 an empty word": "",
    "name-09 a quote and a command": "\"; rm -rf $HOME; '",
    "name-10 ten thousand letters": "x" * 10_000,
    "name-11 a per cent code": "%2F..%00",
    "name-12 writing from right to left": "\u202egnp.exe",
}


@pytest.mark.parametrize("case", NAMES)
@pytest.mark.parametrize("suffix", [".h5", ".xyz", ".db"])
def test_a_name_is_kept_as_it_is_and_never_becomes_a_path(
    case: str, suffix: str, good: SimpleNamespace, tmp_path: Path, refused: Any
) -> None:
    name, folder = NAMES[case], tmp_path / "folder"
    folder.mkdir()
    frames = good.frames()
    for atoms in frames:
        atoms.info.update(group=name, config_type=name)
        atoms.info[f"column {name}"] = 1.5
        atoms.arrays[f"array {name}"] = np.arange(4)
    if case.startswith("name-07"):  # a text of any kind may stand in a column, not over it
        refused(lambda: write(folder / "first.h5", frames), [r"\udce9", "rename the column"])
        for atoms in frames:
            del atoms.info[f"column {name}"], atoms.arrays[f"array {name}"]
    write(folder / "first.h5", frames)
    with Dataset.open(folder / "first.h5") as dataset:
        dataset.verify()
        write_frames(dataset, folder / f"second{suffix}")
    for atoms in read_frames(folder / f"second{suffix}"):
        assert (atoms.info.get("group", ""), atoms.info.get("config_type", "")) == (name, name)
        if f"column {name}" in frames[0].info:
            assert atoms.info[f"column {name}"] == 1.5
            assert atoms.arrays[f"array {name}"].tolist() == [0, 1, 2, 3]
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted({"folder", "first.h5", f"second{suffix}"})


def summary(frames: list[Atoms], folder: Path, **columns: Any) -> list[str]:
    write(folder / "frames.h5", frames, **columns)
    with Dataset.open(folder / "frames.h5") as dataset:
        return list(summarise_labels(dataset)["warnings"])


def test_good_labels_raise_no_doubt(good: SimpleNamespace, tmp_path: Path) -> None:
    assert summary(good.frames(), tmp_path, fingerprint="a") == []


def test_labels_of_two_settings_are_reported(good: SimpleNamespace, tmp_path: Path) -> None:
    """labels-01 two fingerprints, and labels of unknown origin, in one dataset."""
    (warning,) = summary(good.frames(), tmp_path, fingerprint=["a", "b", ""])
    for word in ("3 settings", "1 of a", "1 of b", "1 of unknown", "one reference only"):
        assert word in warning


def test_labels_in_mixed_units_are_reported(good: SimpleNamespace, tmp_path: Path) -> None:
    """labels-02 every other energy in kcal/mol."""
    frames = [atoms for _ in range(4) for atoms in good.frames()]
    for k, atoms in enumerate(frames):
        atoms.positions += 0.001 * k
        unit = 23.06 if k % 2 else 1.0
        atoms.calc = SinglePointCalculator(atoms, energy=-14.9 * unit, forces=np.zeros((4, 3)))
    (warning,) = summary(frames, tmp_path)
    assert "mixed units" in warning
    assert "eV/atom" in warning


def test_huge_forces_are_reported(good: SimpleNamespace, tmp_path: Path) -> None:
    """labels-03 a force of a million eV/Å."""
    frames = good.frames()
    relabel(frames[2], forces=np.full((4, 3), 1e6))
    (warning,) = summary(frames, tmp_path)
    for word in ("1 frames", "1.73e+06 eV/Å", "frame 2", "quarantined"):
        assert word in warning


def test_copies_are_reported(good: SimpleNamespace, tmp_path: Path) -> None:
    """labels-04 a frame twice in one file; labels-05 with another energy."""
    (warning,) = summary([*good.frames(), good.frames()[0]], tmp_path)
    assert "1 labelled frames are copies" in warning
    other = good.frames()[0]
    relabel(other, energy=3.0)
    counted, differing = summary([*good.frames(), other], tmp_path)
    assert "copies" in counted
    assert "differ by up to 1 eV/atom" in differing


def splits(frames: list[Atoms], folder: Path, **columns: Any) -> list[str]:
    write(folder / "frames.h5", frames, **columns)
    with Dataset.open(folder / "frames.h5") as dataset:
        return split_columns(dataset, {"train": 0.5, "validation": 0.25, "test": 0.25}, 3)["split"]


def test_copies_under_different_groups_never_meet_in_train_and_test(good: SimpleNamespace, tmp_path: Path) -> None:
    """labels-06 each frame three times, each time in another group."""
    frames = [atoms for k in range(3) for atoms in good.frames(8)]
    groups = [f"copy-{k}-{i}" for k in range(3) for i in range(8)]
    found = np.array(splits(frames, tmp_path, group=groups)).reshape(3, 8)
    assert (found == found[0]).all()
    assert set(found[0]) == {"train", "validation", "test"}


def test_copies_in_different_splits_are_refused(good: SimpleNamespace, tmp_path: Path, refused: Any) -> None:
    """labels-07 a frame that the user put into train and into test."""
    frames = [*good.frames(4), good.frames(4)[1]]
    given = ["", "train", "", "", "test"]
    refused(lambda: splits(frames, tmp_path, split=given), ["frames 1 and 4", "'train' and 'test'", "remove one"])


def test_merging_a_file_with_itself_is_reported(good: SimpleNamespace, tmp_path: Path) -> None:
    """labels-08 the same dataset twice."""
    write(tmp_path / "one.h5", good.frames())
    merge([tmp_path / "one.h5", tmp_path / "one.h5"], tmp_path / "two.h5")
    with Dataset.open(tmp_path / "two.h5") as dataset:
        assert "3 labelled frames are copies" in summarise_labels(dataset)["warnings"][0]


def test_datasets_of_different_types_are_not_merged(good: SimpleNamespace, tmp_path: Path, refused: Any) -> None:
    """labels-09 a column that is a number in one file and text in the other."""
    write(tmp_path / "one.h5", good.frames(), note=1)
    write(tmp_path / "two.h5", good.frames(), note="one")
    refused(
        lambda: merge([tmp_path / "one.h5", tmp_path / "two.h5"], tmp_path / "out.h5"),
        ["'note'", "one.h5", "two.h5", "rename or convert"],
    )


def test_a_left_handed_cell_gives_no_negative_volume(good: SimpleNamespace, tmp_path: Path) -> None:
    """frame-30 cell vectors in another order: the same crystal."""
    frames = good.frames(1)
    cell = frames[0].cell.array[[1, 0, 2]]
    calc_only(frames[0], cell=cell)
    write(tmp_path / "out.h5", frames)
    with Dataset.open(tmp_path / "out.h5") as dataset:
        assert dataset[0].get_volume() == pytest.approx(frames[0].get_volume())
        assert np.linalg.det(dataset[0].cell.array) < 0 < dataset[0].get_volume()


def test_overlapping_atoms_are_quarantined_with_their_names() -> None:
    """frame-31 two atoms in one place."""
    atoms = Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 1e-3]])
    atoms.calc = SinglePointCalculator(atoms, energy=229945.0, forces=np.zeros((2, 3)))
    verdict = check_labels(atoms)
    assert verdict is not None
    assert verdict.startswith("quarantined: atoms overlap: 0 (Cu), 1 (Cu)")


def test_small_flat_and_low_dimensional_cells_of_real_matter_are_taken(tmp_path: Path) -> None:
    """frame-36 solid hydrogen under pressure, a skewed cell, a slab and a wire without the vectors they do not need."""
    frames = [
        Atoms("H", cell=np.eye(3), pbc=True),
        Atoms("Cu", cell=[[2.5, 0, 0], [5, 2.2, 0], [0, 0, 2.5]], pbc=True),
        Atoms("C", cell=[[2.4, 0, 0], [1.2, 2.1, 0], [0, 0, 0]], pbc=[True, True, False]),
        Atoms("C", cell=[[0, 0, 0], [0, 0, 0], [0, 0, 1.3]], pbc=[False, False, True]),
        Atoms("C", cell=np.eye(3) * 0.1, pbc=False),
    ]
    write(tmp_path / "out.h5", frames)
    with Dataset.open(tmp_path / "out.h5") as dataset:
        assert len(dataset) == len(frames)
