"""From results of calculations to frames of a dataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from aiida_alpot.kernel.dataset import Dataset, write
from aiida_alpot.kernel.labelling.results import Result, collect_frames, label_frame, sort_rows


def labels(atoms: Atoms, energy: float = -1.0) -> dict[str, object]:
    return {"energy": energy, "forces": np.zeros((len(atoms), 3))}


def with_label(atoms: Atoms, fingerprint: str, status: str = "labelled") -> Atoms:
    frame = atoms.copy()
    if status == "labelled":
        frame.calc = SinglePointCalculator(frame, **labels(frame))
    frame.info.update(fingerprint=fingerprint, status=status)
    return frame


@pytest.fixture
def copper() -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.info.update(split="train", group="g1")
    return atoms


def test_a_frame_gets_its_labels_and_keeps_its_book_keeping(copper: Atoms) -> None:
    stress = np.arange(6.0)
    frame = label_frame(copper, Result({**labels(copper), "stress": stress}, cost=3.0, parent="abc"), "fp")
    assert frame.info == {
        "split": "train",
        "group": "g1",
        "status": "labelled",
        "reason": "",
        "fingerprint": "fp",
        "cost": 3.0,
        "parent": "abc",
    }
    np.testing.assert_array_equal(frame.get_stress(), stress)
    assert copper.calc is None


def test_labels_that_are_not_finite_make_a_frame_fail(copper: Atoms) -> None:
    frame = label_frame(copper, Result(labels(copper, energy=float("nan"))), "fp")
    assert (frame.info["status"], frame.info["reason"]) == ("failed", "energy is not finite")
    assert frame.calc is None


def test_atoms_that_overlap_are_quarantined_whatever_the_code_says() -> None:
    atoms = Atoms("Si2", positions=[[0, 0, 0], [0, 0, 0.001]], cell=[8, 8, 8], pbc=True)
    frame = label_frame(atoms, Result(labels(atoms, energy=229945.0)), "fp")
    assert frame.info["status"] == "quarantined"
    assert "overlap" in frame.info["reason"]


def test_an_ionic_step_has_positions_and_cell_of_its_own(copper: Atoms) -> None:
    moved, cell = copper.positions + 0.1, copper.cell.array * 1.01
    frame = label_frame(copper, Result(labels(copper), positions=moved, cell=cell), "fp")
    np.testing.assert_array_equal(frame.positions, moved)
    np.testing.assert_array_equal(frame.cell.array, cell)


def test_what_was_dealt_with_is_left_as_it_is(copper: Atoms) -> None:
    known = with_label(copper, "fp")
    assert list(collect_frames([("a", "keep", known)], {}, {}, "fp")) == [known]


def test_a_label_of_other_settings_stays_before_the_new_one(copper: Atoms) -> None:
    old = with_label(copper, "old")
    found = list(collect_frames([("a", "renew", old)], {"a": [Result(labels(copper, -2.0))]}, {}, "new"))
    assert [frame.info["fingerprint"] for frame in found] == ["old", "new"]
    assert [frame.get_potential_energy() for frame in found] == [-1.0, -2.0]


def test_one_frame_may_give_several_labels_or_none(copper: Atoms) -> None:
    results = [Result(labels(copper, -k)) for k in (1.0, 2.0, 3.0)]
    several = list(collect_frames([("a", "label", copper)], {"a": results}, {}, "f"))
    assert [frame.get_potential_energy() for frame in several] == [-1.0, -2.0, -3.0]
    (none,) = collect_frames([("a", "label", copper)], {"a": []}, {}, "f")
    assert (none.info["status"], none.info["reason"]) == ("failed", "there was no label in its output")


def test_a_failed_frame_keeps_its_reason_and_one_that_was_not_reached_says_so(copper: Atoms) -> None:
    frames = [("a", "label", copper), ("b", "label", copper)]
    failed, waiting = collect_frames(frames, {}, {"a": "exit status 410"}, "f")
    kept = ("status", "reason", "fingerprint")
    assert [failed.info[name] for name in kept] == ["failed", "exit status 410", "f"]
    assert [waiting.info[name] for name in kept] == ["unlabelled", "not reached", ""]


def test_a_frame_whose_job_was_lost_stays_unlabelled_and_says_how(copper: Atoms) -> None:
    frames = [("a", "label", copper), ("b", "label", copper)]
    lost, waiting = collect_frames(frames, {}, {}, "f", {"a": "exit status 140: its node failed"})
    assert [lost.info[name] for name in ("status", "fingerprint")] == ["unlabelled", ""]
    assert lost.info["reason"] == "stopped from outside: exit status 140: its node failed"
    assert waiting.info["reason"] == "not reached"


def rows_of(marks: list[tuple[int, str, str]], folder: Path, **options: bool) -> list[str]:
    """Return what labelling with the settings "f" means for rows of (structure, fingerprint, status)."""
    frames = []
    for structure, fingerprint, status in marks:
        atoms = bulk("Cu", cubic=True)
        atoms.positions[0] += 0.01 * structure
        frames.append(with_label(atoms, fingerprint, status))
    write(folder / "d.h5", frames)
    with Dataset.open(folder / "d.h5") as dataset:
        return list(sort_rows(dataset, "f", **options))


def test_rows_are_kept_labelled_or_labelled_anew_beside_their_old_label(tmp_path: Path) -> None:
    marks = [(0, "f", "labelled"), (1, "g", "labelled"), (2, "", "unlabelled"), (3, "f", "failed"), (4, "", "labelled")]
    assert rows_of(marks, tmp_path) == ["keep", "renew", "label", "keep", "renew"]
    assert rows_of(marks, tmp_path, retry_failed=True) == ["keep", "renew", "label", "label", "renew"]


@pytest.mark.parametrize("new", [("f", "labelled"), ("f", "failed"), ("", "unlabelled")])
def test_a_structure_that_was_labelled_anew_is_not_labelled_once_more(tmp_path: Path, new: tuple[str, str]) -> None:
    """What an interrupted or finished run left is the input of the next."""
    rows = rows_of([(0, "g", "labelled"), (0, *new)], tmp_path)
    assert rows == ["keep", "label" if new[1] == "unlabelled" else "keep"]


def test_of_several_old_labels_of_a_structure_the_last_is_followed_by_the_new_one(tmp_path: Path) -> None:
    assert rows_of([(0, "g", "labelled"), (0, "h", "labelled")], tmp_path) == ["keep", "renew"]
