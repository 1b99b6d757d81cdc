"""PESData: what goes in comes out, two equal datasets are one to the caching, and a damaged file is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida import orm
from aiida.common.exceptions import ValidationError
from aiida.manage import get_manager
from aiida.manage.caching import enable_caching
from aiida.storage.sqlite_zip.backend import SqliteZipBackend
from aiida.tools import delete_nodes
from aiida.tools.archive import create_archive, import_archive
from ase import Atoms

from aiida_alpot.calculations.functions.summary import summarise_labels
from aiida_alpot.data.pes import PESData

pytestmark = pytest.mark.usefixtures("aiida_profile")

Frames = list[Atoms]


@pytest.fixture
def labelled(make_copper: Callable[..., Frames], label_emt: Callable[[Frames], Frames]) -> Frames:
    """Five labelled frames, one of them with a split, and a user column."""
    frames = label_emt(make_copper(5, seed=3))
    for k, atoms in enumerate(frames):
        atoms.info["temperature"] = 100.0 * k
        atoms.info["split"] = "test" if k == 4 else "train"
    return frames


@pytest.fixture(params=["one file", "parts"])
def unstored(request: pytest.FixtureRequest, labelled: Frames) -> PESData:
    """The five frames as an unstored node with one file, or with three."""
    if request.param == "one file":
        return PESData.from_frames(labelled)
    return PESData.join([PESData.from_frames(labelled[a:b]).store() for a, b in ((0, 2), (2, 4), (4, 5))])


def assert_same_frames(found: Any, expected: Any) -> None:
    found, expected = list(found), list(expected)
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a.numbers, b.numbers)
        np.testing.assert_array_equal(a.positions, b.positions)
        np.testing.assert_array_equal(a.cell.array, b.cell.array)
        np.testing.assert_array_equal(a.pbc, b.pbc)
        for name in ("group", "split", "temperature"):
            assert a.info[name] == b.info[name]
        for name in ("energy", "forces", "stress"):
            np.testing.assert_array_equal(a.calc.results[name], b.calc.results[name])


@pytest.mark.parametrize("name", ["frames.xyz", "frames.extxyz", "frames.db", "frames.h5", "frames.hdf5"])
def test_export_and_import_keep_frames_labels_and_columns(
    tmp_path: Path, labelled: Frames, unstored: PESData, name: str
) -> None:
    node = unstored
    node.export(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    again = PESData.from_file(tmp_path / name)
    assert_same_frames(again, labelled)
    assert (again.content_hash, again.usage_hash) == (node.content_hash, node.usage_hash)


def test_a_given_format_wins_over_the_ending_of_the_file(tmp_path: Path, labelled: Frames) -> None:
    node = PESData.from_frames(labelled).store()
    for file_format in ("extxyz", "hdf5"):
        path = tmp_path / f"{file_format}.dat"
        node.export(path, file_format)
        assert PESData.from_file(path, file_format).content_hash == node.content_hash


def test_attributes_count_what_the_file_holds(labelled: Frames, make_copper: Callable[..., Frames]) -> None:
    unlabelled = make_copper(2, seed=9)
    unlabelled[0].numbers[0] = 79
    for atoms in unlabelled:
        atoms.info["temperature"] = 0.0
    node = PESData.from_frames([*labelled, *unlabelled])
    assert (len(node), node.n_frames, node.n_labelled, node.n_atoms) == (7, 7, 5, 28)
    assert node.symbols == ["Cu", "Au"]


def test_columns_given_by_name_replace_those_of_the_frames(labelled: Frames) -> None:
    node = PESData.from_frames(labelled, split=["calibration"] * 5)
    with node.dataset() as dataset:
        assert dataset.column("split").tolist() == ["calibration"] * 5


def test_a_frame_is_read_by_index_from_either_end(labelled: Frames) -> None:
    node = PESData.from_frames(labelled).store()
    assert_same_frames([node[0], node[-1]], [labelled[0], labelled[-1]])
    with pytest.raises(IndexError, match="5"):
        node[5]


def test_the_reader_takes_slices_masks_and_indices(labelled: Frames) -> None:
    with PESData.from_frames(labelled).store().dataset() as dataset:
        assert_same_frames(dataset[1:4], labelled[1:4])
        assert_same_frames(dataset[[3, 0]], [labelled[3], labelled[0]])
        assert_same_frames(dataset[dataset.column("split") == "test"], [labelled[4]])


def test_nested_iteration_visits_every_pair(unstored: PESData) -> None:
    node = unstored.store()
    pairs = {(a.info["group"], b.info["group"]) for a in node for b in node}
    assert len(pairs) == 25


def test_an_unstored_node_reads_like_a_stored_one(labelled: Frames, unstored: PESData) -> None:
    node = unstored
    assert not node.is_stored
    assert_same_frames(node, labelled)
    assert_same_frames(node.store(), labelled)


def test_a_reader_lives_as_long_as_it_is_held(labelled: Frames, unstored: PESData) -> None:
    dataset = unstored.store().dataset()
    assert_same_frames(dataset, labelled)


def hash_of(node: PESData) -> str:
    return str((node if node.is_stored else node.store()).base.caching.compute_hash())


def test_row_order_does_not_change_the_hash(labelled: Frames) -> None:
    assert hash_of(PESData.from_frames(labelled)) == hash_of(PESData.from_frames(labelled[::-1]))


def test_the_name_of_the_file_does_not_change_the_hash(tmp_path: Path, labelled: Frames) -> None:
    node = PESData.from_frames(labelled).store()
    node.export(tmp_path / "other.h5")
    assert hash_of(PESData.from_file(tmp_path / "other.h5")) == hash_of(node)


def test_a_clone_has_the_same_hash_and_frames(labelled: Frames, unstored: PESData) -> None:
    node = unstored.store()
    clone = node.clone()
    assert clone.uuid != node.uuid
    assert hash_of(clone) == hash_of(node)
    assert_same_frames(clone.store(), labelled)


def test_another_split_changes_the_hash_but_not_the_science(labelled: Frames) -> None:
    node, other = PESData.from_frames(labelled), PESData.from_frames(labelled, split=["train"] * 5)
    assert hash_of(other) != hash_of(node)
    assert other.content_hash == node.content_hash


def test_another_label_changes_the_hash(labelled: Frames) -> None:
    before = hash_of(PESData.from_frames(labelled))
    labelled[2].calc.results["energy"] += 1e-9
    assert hash_of(PESData.from_frames(labelled)) != before


def test_a_calculation_on_an_equal_dataset_comes_from_the_cache(labelled: Frames) -> None:
    node, twin = PESData.from_frames(labelled).store(), PESData.from_frames(labelled[::-1]).store()
    other = PESData.from_frames(labelled, split=["train"] * 5).store()
    with enable_caching():
        _, first = summarise_labels.run_get_node(node)
        _, second = summarise_labels.run_get_node(twin)
        _, third = summarise_labels.run_get_node(other)
    assert second.base.caching.get_cache_source() == first.uuid
    assert third.base.caching.get_cache_source() is None


def test_a_packed_repository_reads_the_same(labelled: Frames, unstored: PESData) -> None:
    node = unstored.store()
    storage = get_manager().get_profile_storage()
    storage.maintain(full=True)
    assert storage.get_repository().get_info()["Objects"]["loose"] == 0
    reloaded = orm.load_node(node.uuid)
    assert_same_frames(reloaded, labelled)
    with reloaded.dataset() as dataset:
        dataset.verify()


@pytest.fixture
def archive(tmp_path: Path, unstored: PESData) -> tuple[Path, str, str]:
    """An archive with one dataset that is no longer in the profile, its uuid and hash."""
    node = unstored.store()
    uuid, digest = node.uuid, hash_of(node)
    path = create_archive([node], filename=tmp_path / "archive.aiida")
    delete_nodes([node.pk], dry_run=False)
    return path, uuid, digest


def test_an_imported_archive_reads_the_same(archive: tuple[Path, str, str], labelled: Frames) -> None:
    path, uuid, digest = archive
    import_archive(path, create_group=False)
    node = orm.load_node(uuid)
    assert_same_frames(node, labelled)
    assert hash_of(node) == digest


def test_a_dataset_is_read_straight_from_an_archive(archive: tuple[Path, str, str], labelled: Frames) -> None:
    path, uuid, _ = archive
    backend = SqliteZipBackend(SqliteZipBackend.create_profile(path))
    try:
        node = orm.QueryBuilder(backend=backend).append(PESData, filters={"uuid": uuid}).first(flat=True)
        assert_same_frames(node, labelled)
    finally:
        backend.close()


def test_a_node_that_was_never_filled_cannot_be_stored() -> None:
    with pytest.raises(ValidationError, match=r"needs its file dataset\.h5; make it with from_frames"):
        PESData().store()


def test_a_node_with_a_file_but_no_attributes_cannot_be_stored(tmp_path: Path, labelled: Frames) -> None:
    PESData.from_frames(labelled).export(tmp_path / "d.h5")
    node = PESData()
    node.base.repository.put_object_from_file(str(tmp_path / "d.h5"), PESData.FILENAME)
    with pytest.raises(ValidationError, match="needs its attributes"):
        node.store()


def test_no_frame_at_all_makes_an_empty_dataset_with_equal_hashes() -> None:
    node = PESData.from_frames([]).store()
    assert (len(node), node.n_atoms, node.symbols, list(node)) == (0, 0, [], [])
    assert hash_of(node) == hash_of(PESData.from_frames([]))


def test_a_file_without_frames_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "nothing.xyz").write_text("")
    with pytest.raises(ValueError, match=r"nothing\.xyz holds no frame"):
        PESData.from_file(tmp_path / "nothing.xyz")


@pytest.mark.parametrize("name", ["absent.xyz", "absent.h5"])
def test_a_missing_file_is_refused_by_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=f"there is no file .*{name}"):
        PESData.from_file(tmp_path / name)


def test_a_truncated_file_is_refused_by_name(tmp_path: Path, labelled: Frames) -> None:
    path = tmp_path / "short.h5"
    PESData.from_frames(labelled).export(path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ValueError, match=r"short\.h5"):
        PESData.from_file(path)


def test_a_flipped_byte_in_any_part_of_the_data_is_refused_by_name(tmp_path: Path, labelled: Frames) -> None:
    path = tmp_path / "flipped.h5"
    PESData.from_frames(labelled).export(path)
    content = bytearray(path.read_bytes())
    original, refused, unharmed = bytes(content), 0, 0
    for position in range(len(content) // 3, len(content), len(content) // 40):
        content[position] ^= 0xFF
        path.write_bytes(content)
        try:
            node = PESData.from_file(path)
        except ValueError as error:
            refused += 1
            assert "flipped.h5" in str(error)  # noqa: PT017
        else:  # the byte was in unused space of the file
            unharmed += 1
            assert_same_frames(node, labelled)
        content = bytearray(original)
    assert refused > 0


def test_a_file_of_another_program_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("energy, forces")
    with pytest.raises(ValueError, match=r"text\.h5 cannot be opened as a dataset"):
        PESData.from_file(tmp_path / "text.h5")


def test_an_unusable_frame_is_refused_by_number(labelled: Frames) -> None:
    labelled[3].calc = None
    labelled[3].info["status"] = "unlabelled"
    labelled[3].positions[0, 0] = np.nan
    with pytest.raises(ValueError, match="frame 3 has a position that is not finite"):
        PESData.from_frames(labelled)


def test_an_unknown_export_format_is_refused_by_name(tmp_path: Path, labelled: Frames) -> None:
    with pytest.raises(ValueError, match=r"cannot write '\.cif'; formats: extxyz, db, hdf5"):
        PESData.from_frames(labelled).export(tmp_path / "frames.cif")
    assert list(tmp_path.iterdir()) == []


def test_sizes_and_symbols_are_queryable(labelled: Frames) -> None:
    node = PESData.from_frames(labelled).store()
    query = orm.QueryBuilder().append(
        PESData,
        filters={PESData.fields.uuid: node.uuid, PESData.fields.n_frames: {"==": 5}},
        project=[PESData.fields.n_frames, PESData.fields.n_labelled, PESData.fields.symbols],
    )
    assert query.all() == [[5, 5, ["Cu"]]]
    more = orm.QueryBuilder().append(PESData, filters={PESData.fields.n_frames: {">": 1000000}})
    assert more.count() == 0


def test_a_node_serialises_with_its_attributes(unstored: PESData) -> None:
    node = unstored.store()
    serialized = node.serialize()
    assert serialized["attributes"]["n_frames"] == 5
    assert serialized["attributes"]["content_hash"] == node.content_hash
