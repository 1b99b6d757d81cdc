"""PESData in several files: growth stores what is new, and a file that is not the right one is refused."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from aiida import orm
from aiida.common.exceptions import ValidationError
from aiida.engine import run_get_node
from aiida.manage import get_manager
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from aiida_alpot.calculations.augment import AugmentCalculation
from aiida_alpot.calculations.base import TaskInputs
from aiida_alpot.calculations.functions.dataset import extend_dataset, merge_datasets, select_frames, split_dataset
from aiida_alpot.data.pes import PESData
from aiida_alpot.kernel.dataset import MAX_PARTS, Dataset, DatasetError, part_names

pytestmark = pytest.mark.usefixtures("aiida_profile")

Frames = list[Atoms]


@pytest.fixture
def frames(make_copper: Callable[..., Frames], label_emt: Callable[[Frames], Frames]) -> Frames:
    """Six labelled frames with splits."""
    labelled = label_emt(make_copper(6, seed=13))
    for k, atoms in enumerate(labelled):
        atoms.info["split"] = ("train", "test")[k % 2]
    return labelled


@pytest.fixture
def pieces(frames: Frames) -> list[PESData]:
    """The frames in three stored nodes."""
    return [PESData.from_frames(frames[k : k + 2]).store() for k in (0, 2, 4)]


@pytest.fixture
def joined(pieces: list[PESData]) -> PESData:
    """The frames in one stored node of three files."""
    return PESData.join(pieces).store()


def keys_of(node: PESData) -> list[str | None]:
    """Return the keys of the files in the repository: the SHA-256 of their bytes."""
    return [node.base.repository.get_object(name).key for name in node.filenames]


def identity(node: PESData) -> tuple[Any, ...]:
    whole = (len(node), node.n_labelled, node.n_atoms, node.symbols, node.content_hash, node.usage_hash)
    return (*whole, node.base.caching.compute_hash())


def test_a_joined_dataset_is_the_same_to_the_caching_as_one_file(frames: Frames, joined: PESData) -> None:
    assert identity(joined) == identity(PESData.from_frames(frames).store())


def test_a_joined_dataset_shares_the_files_of_its_sources(pieces: list[PESData], joined: PESData) -> None:
    assert joined.filenames == part_names(3)
    assert keys_of(joined) == [keys_of(node)[0] for node in pieces]


def test_joining_goes_on_from_parts_and_skips_sources_without_frames(frames: Frames, pieces: list[PESData]) -> None:
    empty = PESData.from_frames([]).store()
    first = PESData.join([pieces[0], empty]).store()
    assert first.filenames == ["dataset.h5"]
    second = PESData.join([PESData.join([first, pieces[1]]).store(), empty, pieces[2]]).store()
    assert identity(second) == identity(PESData.from_frames(frames).store())
    assert identity(PESData.join([empty, empty]).store()) == identity(empty)


def test_joining_does_not_read_the_frames_there_are(pieces: list[PESData], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("frames were read")

    monkeypatch.setattr("aiida_alpot.kernel.dataset.store.BaseStore.batch", refuse)
    PESData.join(pieces).store()


def test_columns_of_different_types_are_refused_with_both_files(frames: Frames, pieces: list[PESData]) -> None:
    frames[0].info["mine"], frames[1].info["mine"] = 1, "one"
    clashing = [PESData.from_frames([atoms]).store() for atoms in frames[:2]]
    with pytest.raises(ValueError, match=rf"'mine' is int .*{clashing[0].uuid}.* and str .*{clashing[1].uuid}"):
        PESData.join(clashing)


def test_calcfunctions_read_parts_like_one_file(frames: Frames, pieces: list[PESData]) -> None:
    merged = merge_datasets(a=pieces[0], b=pieces[1], c=pieces[2])
    whole = PESData.from_frames(frames).store()
    assert (len(merged.filenames), identity(merged)) == (3, identity(whole))
    shares = orm.Dict({"train": 0.5, "validation": 0.25, "test": 0.25})
    for function, *rest in ((select_frames, orm.Dict({"split": "test"})), (split_dataset, shares, orm.Int(1))):
        results = [function(node, *rest) for node in (merged, whole)]
        assert identity(results[0]) == identity(results[1])
        assert results[0].filenames == ["dataset.h5"]


# growth


def random_frames(n_frames: int, seed: int, n_atoms: int = 108) -> Frames:
    rng = np.random.default_rng(seed)
    found = []
    for k in range(n_frames):
        atoms = bulk("Cu", cubic=True) * (3, 3, n_atoms // 36)
        atoms.positions += rng.normal(0, 0.1, atoms.positions.shape)
        atoms.calc = SinglePointCalculator(atoms, energy=rng.normal(), forces=rng.normal(size=(len(atoms), 3)))
        atoms.info.update(group=f"{seed}-{k}", split="train", iteration=seed)
        found.append(atoms)
    return found


def stored_bytes(nodes: list[PESData]) -> int:
    """Return the size of all different objects of some nodes."""
    sizes = {}
    for node in nodes:
        for name, key in zip(node.filenames, keys_of(node), strict=True):
            with node.base.repository.open(name, "rb") as handle:
                sizes[key] = handle.seek(0, io.SEEK_END)
    return sum(sizes.values())


def test_twenty_iterations_store_little_more_than_the_final_dataset(tmp_path: Path) -> None:
    nodes = [PESData.from_frames(random_frames(100, 0)).store()]
    container = get_manager().get_profile_storage().get_repository()
    before = container.get_info()["Objects"]["loose"]
    for iteration in range(1, 21):
        labelled = PESData.from_frames(random_frames(20, iteration)).store()
        nodes.append(extend_dataset(nodes[-1], labelled))
    assert container.get_info()["Objects"]["loose"] == before + 20
    nodes[-1].export(tmp_path / "whole.h5")
    whole = PESData.from_file(tmp_path / "whole.h5").store()
    final = (tmp_path / "whole.h5").stat().st_size
    assert len(whole) == 500
    assert identity(whole) == identity(nodes[-1])
    assert stored_bytes(nodes) < 1.25 * final  # 20 kB of HDF5 structure for each part of 20 frames
    assert stored_bytes([node for node in nodes if len(node.filenames) == 1]) < final / 4


def test_the_newest_files_become_one_when_there_are_too_many(frames: Frames) -> None:
    node = PESData.join([PESData.from_frames(frames).store()] * 3).store()
    one = PESData.from_frames(frames[:1]).store()
    for _ in range(3):
        node = PESData.join([node, *[one] * (MAX_PARTS // 2)]).store()
        assert len(node.filenames) <= MAX_PARTS
    whole = PESData.from_frames([*frames * 3, *frames[:1] * (3 * (MAX_PARTS // 2))]).store()
    assert identity(node) == identity(whole)
    with node.dataset() as dataset:
        dataset.verify()


# nodes made otherwise


def planted(attributes: dict[str, Any], files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> PESData:
    """Store a node as an import would, without a look at its content."""
    node = PESData()
    for name, content in files.items():
        node.base.repository.put_object_from_filelike(io.BytesIO(content), name)
    node.base.attributes.set_many(attributes)
    monkeypatch.setattr(PESData, "_validate", lambda _: True)
    return node.store()


def files_of(node: PESData) -> dict[str, bytes]:
    return {name: node.base.repository.get_object_content(name, "rb") for name in node.filenames}


def test_a_node_that_lacks_a_file_says_which(joined: PESData, monkeypatch: pytest.MonkeyPatch) -> None:
    files = files_of(joined)
    del files["dataset-002-of-003.h5"]
    node = planted(joined.base.attributes.all, files, monkeypatch)
    with pytest.raises(DatasetError, match=rf"PESData<{node.uuid}> lacks dataset-002-of-003\.h5 of its 3 parts"):
        node.dataset()


def test_a_node_with_a_file_of_other_content_says_which(
    joined: PESData, pieces: list[PESData], frames: Frames, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = PESData.from_frames(frames[2:4], split=["train", "train"])
    for content in (files_of(other)["dataset.h5"], files_of(pieces[0])["dataset.h5"]):
        files = files_of(joined) | {"dataset-002-of-003.h5": content}
        node = planted(joined.base.attributes.all, files, monkeypatch)
        with pytest.raises(DatasetError, match=rf"PESData<{node.uuid}>: dataset-002-of-003\.h5 is not the file the"):
            node[0]


def test_a_node_with_its_files_in_another_order_is_refused(joined: PESData, monkeypatch: pytest.MonkeyPatch) -> None:
    files = files_of(joined)
    first, second, _ = files
    files[first], files[second] = files[second], files[first]
    with pytest.raises(DatasetError, match=r"dataset-001-of-003\.h5 is not the file"):
        list(planted(joined.base.attributes.all, files, monkeypatch))


def test_a_node_with_fewer_files_than_it_was_made_with_is_refused(
    joined: PESData, pieces: list[PESData], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = files_of(pieces[0])["dataset.h5"]
    with pytest.raises(DatasetError, match="has 1 files instead of 3; import it again"):
        planted(joined.base.attributes.all, {"dataset.h5": one}, monkeypatch).dataset()
    two = dict(zip(part_names(2), [one, files_of(pieces[1])["dataset.h5"]], strict=True))
    with pytest.raises(DatasetError, match="has 2 files instead of 3"):
        planted(joined.base.attributes.all, two, monkeypatch).dataset()


def test_a_node_of_one_file_with_other_content_is_refused(
    pieces: list[PESData], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = planted(pieces[0].base.attributes.all, files_of(pieces[1]), monkeypatch)
    with pytest.raises(DatasetError, match=rf"PESData<{node.uuid}>: dataset\.h5 is not the file"):
        node.dataset()


def test_a_node_that_lacks_a_file_cannot_be_stored(joined: PESData) -> None:
    node = PESData()
    for name, content in list(files_of(joined).items())[:2]:
        node.base.repository.put_object_from_filelike(io.BytesIO(content), name)
    node.base.attributes.set_many(joined.base.attributes.all)
    with pytest.raises(ValidationError, match=r"lacks dataset-003-of-003\.h5"):
        node.store()


def test_a_damaged_file_of_a_node_is_named(joined: PESData, monkeypatch: pytest.MonkeyPatch) -> None:
    files = files_of(joined)
    content = bytearray(files["dataset-003-of-003.h5"])
    with h5py.File(io.BytesIO(content)) as file:
        content[file["atom/forces"].id.get_chunk_info(0).byte_offset + 9] ^= 255
    node = planted(joined.base.attributes.all, files | {"dataset-003-of-003.h5": bytes(content)}, monkeypatch)
    with pytest.raises(DatasetError, match=rf"{node.uuid}> dataset-003-of-003\.h5: column 'forces' is corrupt"):
        list(node)


def test_nodes_whose_files_have_no_digests_read_and_grow(
    tmp_path: Path, frames: Frames, pieces: list[PESData], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "early.h5"
    pieces[0].export(path)
    with h5py.File(path, "r+") as file:
        del file["digests"]
    early = planted(pieces[0].base.attributes.all, {"dataset.h5": path.read_bytes()}, monkeypatch)
    assert len(list(early)) == 2
    grown = PESData.join([early, *pieces[1:]]).store()
    assert identity(grown) == identity(PESData.from_frames(frames).store())


# jobs


def test_a_job_gets_every_part_in_a_folder_and_one_file_as_a_file(joined: PESData, pieces: list[PESData]) -> None:
    inputs = TaskInputs()
    inputs.add_dataset("dataset", joined)
    inputs.add_dataset("frames", pieces[0], "start.h5")
    assert inputs.task == {"dataset": "dataset", "frames": "start.h5"}
    expected = [(joined.uuid, name, f"dataset/{name}") for name in part_names(3)]
    assert inputs.files == [*expected, (pieces[0].uuid, "dataset.h5", "start.h5")]


@pytest.fixture
def opened_by_a_task(joined: PESData, tmp_path: Path) -> Iterator[Dataset]:
    """The parts as a job has them."""
    inputs = TaskInputs()
    inputs.add_dataset("dataset", joined)
    (tmp_path / "dataset").mkdir()
    for _, name, target in inputs.files:
        (tmp_path / target).write_bytes(files_of(joined)[name])
    with Dataset.open(tmp_path / inputs.task["dataset"]) as dataset:
        yield dataset


def test_a_task_opens_the_folder_as_one_dataset(opened_by_a_task: Dataset, joined: PESData) -> None:
    assert (opened_by_a_task.content_hash, opened_by_a_task.usage_hash) == (joined.content_hash, joined.usage_hash)


def test_a_job_on_parts_gives_what_a_job_on_one_file_gives(
    python_code: orm.InstalledCode, fast_options: dict[str, Any], make_copper: Callable[..., Frames]
) -> None:
    source = make_copper(4, seed=31)
    halves = [PESData.from_frames(source[k : k + 2]).store() for k in (0, 2)]
    hashes = set()
    for node in (PESData.join(halves).store(), PESData.from_frames(source).store()):
        results, job = run_augment(python_code, fast_options, node)
        assert job.is_finished_ok, job.exit_message
        hashes.add((results["frames"].content_hash, results["frames"].usage_hash))
    assert len(hashes) == 1


def run_augment(code: orm.InstalledCode, options: dict[str, Any], frames: PESData) -> Any:
    settings = orm.Dict({"copies": 1, "rattle": {}})
    return run_get_node(
        AugmentCalculation, code=code, frames=frames, settings=settings, seed=orm.Int(1), metadata={"options": options}
    )
