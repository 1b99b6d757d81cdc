"""Several files, one after the other, read like one file with the same frames."""

import io
import itertools
import tracemalloc

import h5py
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from hypothesis import given, settings
from hypothesis import strategies as st

from aiida_alpot.kernel.dataset import (
    Dataset,
    DatasetError,
    filter_frames,
    find_parts,
    group_parts,
    ids,
    merge,
    part_names,
    write,
)

SIZES = (4, 1, 3, 2)


def make_frame(seed, part):
    """Return a frame; stress and the columns of the user differ from part to part."""
    rng = np.random.default_rng(seed)
    n_atoms = int(rng.integers(1, 6))
    atoms = Atoms(
        rng.choice([1, 8, 14], n_atoms), rng.random((n_atoms, 3)) * 5, cell=rng.random((3, 3)) + 7 * np.eye(3), pbc=True
    )
    results = {"energy": float(rng.normal()), "forces": rng.normal(size=(n_atoms, 3))}
    if part % 2:
        results["stress"] = rng.normal(size=6)
    atoms.calc = SinglePointCalculator(atoms, **results)
    atoms.info.update(group=f"md{seed // 3}", split=("train", "test")[seed % 2], config_type=f"part {part}")
    if part != 1:
        atoms.info["temperature"] = float(seed)
    if part == 2 and seed % 2:
        atoms.info["remark"] = f"é{seed}"
        atoms.arrays["site"] = np.array([f"s{k}" for k in range(n_atoms)])
    if part in (0, 3):
        atoms.arrays["descriptor"] = rng.normal(size=(n_atoms, 2))
    return atoms


def make_parts(sizes=SIZES):
    counter = itertools.count()
    return [[make_frame(next(counter), part) for _ in range(size)] for part, size in enumerate(sizes)]


def written(frames):
    handle = io.BytesIO()
    write(handle, frames)
    return handle


def opened(parts):
    return Dataset.open([written(frames) for frames in parts]), Dataset.open(written(itertools.chain(*parts)))


def assert_same(first, second):
    assert first.numbers.tolist() == second.numbers.tolist()
    assert first.positions.tobytes() == second.positions.tobytes()
    assert first.cell.array.tobytes() == second.cell.array.tobytes()
    assert first.pbc.tolist() == second.pbc.tolist()
    assert list(first.info) == list(second.info)
    for name, value in first.info.items():
        np.testing.assert_array_equal(value, second.info[name])
    for mine, other in ((first.arrays, second.arrays), (first.calc.results, second.calc.results)):
        assert list(mine) == list(other)
        for name, value in mine.items():
            np.testing.assert_array_equal(value, other[name])
    assert first.calc.atoms == second.calc.atoms


def assert_same_reader(parted, whole):
    assert len(parted) == len(whole)
    assert (parted.columns, parted.species, parted.n_atoms) == (whole.columns, whole.species, whole.n_atoms)
    assert parted.offsets.tolist() == whole.offsets.tolist()
    for name in [*whole.columns, "charge", "magmoms", "reason"]:
        np.testing.assert_array_equal(parted.column(name), whole.column(name), err_msg=name)
        assert parted.column(name).dtype == whole.column(name).dtype
        assert parted.present(name).tolist() == whole.present(name).tolist()
        if len(whole):
            blocks = np.concatenate(list(parted.iter_column(name)))
            np.testing.assert_array_equal(blocks, whole.column(name))
    for labels in (True, False):
        assert parted.frame_ids(labels).tolist() == whole.frame_ids(labels).tolist()
    assert (parted.content_hash, parted.usage_hash) == (whole.content_hash, whole.usage_hash)
    assert parted.summary() == whole.summary()
    for first, second in zip(parted, whole, strict=True):
        assert_same(first, second)


def test_parts_read_like_one_file():
    assert_same_reader(*opened(make_parts()))


def test_parts_without_frames_change_nothing():
    frames = make_parts()
    parted = Dataset.open([written(part) for part in ([], frames[0], [], frames[1], [])])
    assert_same_reader(parted, Dataset.open(written([*frames[0], *frames[1]])))
    assert len(Dataset.open([written([]), written([])])) == 0


@pytest.mark.parametrize("blocks", [2, 3, 1024])
def test_blocks_that_cross_parts_read_the_same(monkeypatch, blocks):
    monkeypatch.setattr("aiida_alpot.kernel.dataset.reader.MAX_FRAMES", blocks)
    assert_same_reader(*opened(make_parts()))


def test_single_frames_are_found_in_any_order():
    parted, whole = opened(make_parts())
    for i in [*range(len(whole)), *range(-1, -len(whole) - 1, -1), 7, 0, 9, 4, 5]:
        assert_same(parted[i], whole[i])
    with pytest.raises(IndexError, match="the dataset has 10 frames"):
        parted[10]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=6), st.data())
def test_any_choice_of_frames_from_any_parts_is_that_of_one_file(sizes, data):
    parted, whole = opened(make_parts(sizes))
    n_frames = sum(sizes)
    rows = data.draw(st.lists(st.integers(0, n_frames - 1), max_size=8)) if n_frames else []
    assert_same_reader(parted[rows], whole[rows])
    assert_same_reader(parted[::-2], whole[::-2])
    for first, second in zip(parted.iter_chunks(3), whole.iter_chunks(3), strict=True):
        assert len(first) == len(second)


def test_parts_written_merged_and_filtered_give_the_files_of_the_whole(tmp_path):
    parted, whole = opened(make_parts())
    for name, dataset in (("parted", parted), ("whole", whole)):
        dataset.write(tmp_path / f"{name}.h5")
        merge([dataset, dataset[2:5]], tmp_path / f"{name}-merged.h5")
        filter_frames(dataset, lambda reader: reader.column("split") == "test", tmp_path / f"{name}-filtered.h5")
    for suffix in ("", "-merged", "-filtered"):
        pair = [Dataset.open(tmp_path / f"{name}{suffix}.h5") for name in ("parted", "whole")]
        pair[0].verify()
        assert_same_reader(*pair)


def test_a_column_of_different_types_is_refused_with_both_files(tmp_path):
    frames = make_parts()
    frames[2][0].info["temperature"] = "warm"
    for number in (0, 2):
        write(tmp_path / f"{number}.h5", frames[number][:1])
    with pytest.raises(DatasetError, match=r"'temperature' is float .* in .*0\.h5 and str .*2\.h5; rename"):
        Dataset.open([tmp_path / "0.h5", tmp_path / "2.h5"])


# folders


@pytest.fixture
def folder(tmp_path):
    """A folder with a dataset in four parts, and a file that is none."""
    for name, frames in zip(part_names(len(SIZES)), make_parts(), strict=True):
        write(tmp_path / name, frames)
    (tmp_path / "notes.txt").write_text("mine")
    return tmp_path


def test_a_folder_of_parts_reads_like_one_file(folder):
    with Dataset.open(folder) as parted, Dataset.open(str(folder)) as again:
        assert_same_reader(parted, Dataset.open(written(itertools.chain(*make_parts()))))
        assert len(parted.parts) == 4
        assert [len(part) for part in again.parts] == list(SIZES)
    merge([folder, folder], folder / "twice.h5")
    with Dataset.open(folder / "twice.h5") as twice:
        assert len(twice) == 2 * sum(SIZES)


def test_a_folder_with_one_file_is_a_dataset_in_one_part(tmp_path):
    write(tmp_path / "dataset.h5", make_parts()[0])
    with Dataset.open(tmp_path) as dataset:
        assert len(dataset) == 4
        assert dataset.parts == (dataset,)


@pytest.mark.parametrize("number", [0, 1, 3])
def test_a_missing_part_is_named(folder, number):
    (folder / part_names(4)[number]).unlink()
    with pytest.raises(DatasetError, match=f"lacks dataset-00{number + 1}-of-004.h5 of its 4 parts"):
        Dataset.open(folder)


def test_a_folder_with_the_parts_of_two_datasets_is_refused(folder):
    write(folder / "dataset-003-of-003.h5", make_parts()[0])
    with pytest.raises(DatasetError, match=r"mixes|lacks"):
        Dataset.open(folder)
    with pytest.raises(DatasetError, match="mixes the parts of several datasets"):
        find_parts(["dataset.h5", "dataset-001-of-002.h5", "dataset-002-of-002.h5"], "here")


def test_a_folder_or_list_without_a_dataset_is_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"holds no dataset: there is neither dataset\.h5"):
        Dataset.open(tmp_path)
    with pytest.raises(ValueError, match="at least one file"):
        Dataset.open([])


@pytest.mark.parametrize("n_parts", [1, 2, 32, 100])
def test_names_of_parts_are_found_in_the_order_of_the_frames(n_parts):
    names = part_names(n_parts)
    assert find_parts([*reversed(names), "other.h5"], "here") == names


# damage


def test_a_damaged_part_is_named(folder):
    path = folder / part_names(4)[2]
    data = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        position = file["atom/positions"].id.get_chunk_info(0).byte_offset
    data[position + 5] ^= 255
    path.write_bytes(bytes(data))
    with Dataset.open(folder) as dataset, pytest.raises(DatasetError, match=r"dataset-003-of-004\.h5: column 'pos"):
        dataset.verify()


def test_digests_that_are_not_those_of_the_frames_are_found(folder):
    with h5py.File(folder / part_names(4)[1], "r+") as file:
        file["digests/usage"][0, 3] += 1
    with Dataset.open(folder) as dataset, pytest.raises(DatasetError, match=r"002-of-004\.h5: the digests of frames 0"):
        dataset.verify()


def test_digests_of_another_number_of_frames_are_refused(folder):
    with h5py.File(folder / part_names(4)[1], "r+") as file:
        file["digests/usage"].resize(2, axis=0)
    with pytest.raises(DatasetError, match=r"002-of-004\.h5: the usage digests do not fit"):
        Dataset.open(folder)


def test_files_without_digests_read_the_same(folder):
    with h5py.File(folder / part_names(4)[1], "r+") as file:
        del file["digests"]
    with Dataset.open(folder) as dataset:
        dataset.verify()
        assert_same_reader(dataset, Dataset.open(written(itertools.chain(*make_parts()))))


# hashes of many frames


def blocks_of_digests(n_frames, size=100):
    rng = np.random.default_rng(0)
    for start in range(0, n_frames, size):
        yield rng.integers(0, 256, (min(size, n_frames - start), 64), dtype=np.uint8)


@pytest.mark.parametrize("at_once", [1, 7, 100, 131072])
def test_hashes_sorted_range_by_range_are_those_of_one_sort(monkeypatch, at_once):
    reference = ids.combine_digests(lambda: blocks_of_digests(250), 250)
    monkeypatch.setattr(ids, "SORTED_AT_ONCE", at_once)
    assert ids.combine_digests(lambda: blocks_of_digests(250), 250) == reference
    rows = [row.tobytes() for block in blocks_of_digests(250) for row in block]
    content, usage = (ids.hashlib.sha256(f"alpot-{name}-1\0".encode()) for name in ("content", "usage"))
    content.update(b"".join(sorted(row[:32] for row in rows)))
    usage.update(b"".join(sorted(rows)))
    assert reference == (content.hexdigest(), usage.hexdigest())


def test_memory_of_the_hashes_does_not_grow_with_the_frames(monkeypatch):
    monkeypatch.setattr(ids, "SORTED_AT_ONCE", 1024)

    def peak(n_frames):
        tracemalloc.start()
        ids.combine_digests(lambda: blocks_of_digests(n_frames), n_frames)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(16384) < 1.5 * peak(4096)


# growth


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=60), st.integers(1, 40))
def test_groups_of_parts_keep_the_order_and_the_limit(sizes, limit):
    groups = group_parts(sizes, limit)
    assert [k for group in groups for k in group] == list(range(len(sizes)))
    assert len(groups) <= limit
    assert len(sizes) > limit or len(groups) == len(sizes)


@pytest.mark.parametrize(("n_steps", "most"), [(20, 1.0), (100, 2.0), (1000, 3.0)])
def test_what_growth_writes_again_is_a_small_multiple_of_the_dataset(n_steps, most):
    parts, bytes_written = [100], 100
    for _ in range(n_steps):
        groups = group_parts([*parts, 50])
        old, parts = [*parts, 50], [sum([*parts, 50][k] for k in group) for group in groups]
        bytes_written += 50 + sum(sum(old[k] for k in group) for group in groups if len(group) > 1)
    assert bytes_written <= most * sum(parts)
