"""calcfunctions on datasets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida import orm
from ase import Atoms
from ase.io import write

from aiida_alpot.calculations.functions.dataset import (
    extend_dataset,
    import_frames,
    merge_datasets,
    merge_structures,
    select_frames,
    select_new,
    split_dataset,
)
from aiida_alpot.data.pes import PESData
from aiida_alpot.kernel.labelling.residuals import ERROR_COLUMNS, MEAN_COLUMNS

pytestmark = pytest.mark.usefixtures("aiida_profile")
Make = Callable[..., list[Atoms]]


def column(node: PESData, name: str) -> list[Any]:
    with node.dataset() as dataset:
        return list(dataset.column(name).tolist())


@pytest.mark.parametrize(("name", "file_format"), [("frames.xyz", None), ("frames.dat", "extxyz")])
def test_import_reads_the_frames_of_a_file_and_links_them_to_it(
    tmp_path: Path, make_copper: Make, label_emt: Any, name: str, file_format: str | None
) -> None:
    frames = label_emt(make_copper(3))
    write(tmp_path / name, frames, format="extxyz")
    file = orm.SinglefileData(tmp_path / name)
    given = {} if file_format is None else {"file_format": orm.Str(file_format)}
    node = import_frames(file, **given)
    assert (len(node), node.n_labelled) == (3, 3)
    assert node.creator.inputs.file.uuid == file.uuid
    np.testing.assert_allclose(
        [atoms.calc.results["energy"] for atoms in node], [a.calc.results["energy"] for a in frames]
    )


def test_import_refuses_a_file_without_frames_by_name(tmp_path: Path) -> None:
    (tmp_path / "none.xyz").write_text("")
    with pytest.raises(ValueError, match=r"none\.xyz holds no frame"):
        import_frames(orm.SinglefileData(tmp_path / "none.xyz"))


def test_merged_structures_occur_once_and_keep_their_label_whichever_dataset_has_it(
    make_copper: Make, label_emt: Any
) -> None:
    frames = make_copper(4)
    a = PESData.from_frames([*label_emt(frames[:1]), *frames[1:3]]).store()
    b = PESData.from_frames([frames[0], *label_emt(frames[1:2]), *frames[2:]]).store()
    merged = merge_structures(a=a, b=b)
    assert column(merged, "group") == ["copper-0-0", "copper-0-2", "copper-0-1", "copper-0-3"]
    assert column(merged, "status") == ["labelled", "unlabelled", "labelled", "unlabelled"]


def test_new_structures_are_those_that_no_other_dataset_has(make_copper: Make, label_emt: Any) -> None:
    frames = make_copper(4)
    known = {"a": PESData.from_frames(label_emt(frames[:1])).store(), "b": PESData.from_frames(frames[2:3]).store()}
    new = select_new(PESData.from_frames(frames).store(), **known)
    assert column(new, "group") == ["copper-0-1", "copper-0-3"]
    assert len(select_new(known["b"], **known)) == 0


def test_merge_takes_datasets_in_the_order_of_their_names(make_copper: Make) -> None:
    a, b = (PESData.from_frames(make_copper(2, seed=seed)).store() for seed in (1, 2))
    merged = merge_datasets(second=b, first=a)
    assert column(merged, "group") == ["copper-1-0", "copper-1-1", "copper-2-0", "copper-2-1"]


def test_select_keeps_frames_that_match_every_entry(copper_dataset: PESData) -> None:
    chosen = select_frames(copper_dataset, orm.Dict({"split": ["test", "calibration"]}))
    assert column(chosen, "split") == ["test", "calibration", "calibration"]
    assert column(select_frames(chosen, orm.Dict({"split": "test", "status": "labelled"})), "split") == ["test"]
    assert len(select_frames(chosen, orm.Dict({"split": "test", "status": "failed"}))) == 0


def test_select_by_ids_keeps_the_order_of_the_frames(copper_dataset: PESData) -> None:
    with copper_dataset.dataset() as reader:
        ids = [str(reader.frame_ids()[i]) for i in (5, 2)]
    chosen = select_frames(copper_dataset, orm.Dict({"ids": ids}))
    assert column(chosen, "group") == [column(copper_dataset, "group")[i] for i in (2, 5)]


def test_select_refuses_an_unknown_column_by_name(copper_dataset: PESData) -> None:
    with pytest.raises(KeyError, match="no column 'splits'"):
        select_frames(copper_dataset, orm.Dict({"splits": "test"}))


def test_select_knows_no_row_numbers_because_datasets_in_another_order_are_equal(copper_dataset: PESData) -> None:
    with pytest.raises(KeyError, match="no column 'indices'"):
        select_frames(copper_dataset, orm.Dict({"indices": [0]}))


SHARES = {"train": 0.5, "validation": 0.25, "test": 0.25}


def test_split_gives_every_labelled_group_a_split_by_seed(make_copper: Make, label_emt: Any) -> None:
    source = PESData.from_frames(label_emt(make_copper(8))).store()
    first, again, other = (split_dataset(source, orm.Dict(SHARES), orm.Int(seed)) for seed in (1, 1, 2))
    assert {name: column(first, "split").count(name) for name in SHARES} == {"train": 4, "validation": 2, "test": 2}
    assert column(again, "split") == column(first, "split")
    assert column(other, "split") != column(first, "split")
    assert first.content_hash == source.content_hash


def test_split_does_not_move_frames_that_have_one(copper_dataset: PESData) -> None:
    assert column(split_dataset(copper_dataset, orm.Dict(SHARES), orm.Int(3)), "split") == column(
        copper_dataset, "split"
    )


def test_split_leaves_unlabelled_frames_without(make_copper: Make, label_emt: Any) -> None:
    labelled = label_emt(make_copper(4, seed=1))
    node = PESData.from_frames([*labelled, *make_copper(1, seed=2)]).store()
    assert column(split_dataset(node, orm.Dict(SHARES), orm.Int(0)), "split")[-1] == ""


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"train": 0.5, "test": 0.1}, "the shares must add up to 1"),
        ({"trian": 1.0}, "unknown key 'trian'; did you mean 'train'"),
        ({"train": 1.5, "test": -0.5, "validation": 0.0}, "train must be between 0 and 1, got 1.5"),
    ],
)
def test_split_refuses_wrong_shares_by_name(copper_dataset: PESData, shares: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split_dataset(copper_dataset, orm.Dict(shares), orm.Int(0))


@pytest.fixture
def judged(make_copper: Make, label_emt: Any) -> PESData:
    """Two newly labelled frames with the predictions they were judged by."""
    frames = label_emt(make_copper(2, seed=77))
    for atoms in frames:
        energy = atoms.calc.results["energy"] + 0.02
        atoms.info.update(committee_energy=energy, committee_stress=np.zeros(6), split="train", control=False)
        atoms.info.update(committee_energy_disagreement=0.01, committee_force_disagreement=0.05)
        atoms.arrays["committee_forces"] = np.zeros((4, 3))
    return PESData.from_frames(frames).store()


def test_extend_puts_new_frames_behind_the_old_ones_with_their_splits(copper_dataset: PESData, judged: PESData) -> None:
    extended = extend_dataset(copper_dataset, judged)
    assert (len(extended), extended.n_labelled) == (14, 14)
    assert column(extended, "split") == [*column(copper_dataset, "split"), "train", "train"]


def test_extend_keeps_the_errors_of_the_predictions_in_place_of_these(copper_dataset: PESData, judged: PESData) -> None:
    with extend_dataset(copper_dataset, judged).dataset() as dataset:
        assert not set(MEAN_COLUMNS) & set(dataset.columns)
        assert "control" in dataset.columns
        frames = list(dataset)
    assert not set(ERROR_COLUMNS) & set(frames[0].info)
    new = frames[-1]
    assert new.info["committee_energy_error"] == pytest.approx(0.02 / len(new))
    forces = new.calc.results["forces"]
    assert new.info["committee_force_error"] == pytest.approx(np.sqrt(np.mean(forces**2)), rel=1e-3)
    assert new.info["committee_force_disagreement"] == 0.05
