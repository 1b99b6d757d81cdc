"""Writing, reading, hashes, merging and refusing."""

import io
import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from hypothesis import given, settings
from hypothesis import strategies as st

import aiida_alpot
from aiida_alpot.kernel.dataset import Dataset, DatasetError, filter_frames, merge, schema, write
from aiida_alpot.kernel.dataset.storage import read_rows


def make_frame(seed, n_atoms=None, stress=True, **info):
    rng = np.random.default_rng(seed)
    n_atoms = n_atoms or int(rng.integers(1, 6))
    atoms = Atoms(
        rng.choice([1, 8, 14], n_atoms), rng.random((n_atoms, 3)) * 5, cell=rng.random((3, 3)) + 7 * np.eye(3), pbc=True
    )
    results = {"energy": float(rng.normal()), "forces": rng.normal(size=(n_atoms, 3))}
    if stress:
        results["stress"] = rng.normal(size=6)
    atoms.calc = SinglePointCalculator(atoms, **results)
    atoms.info.update(info)
    return atoms


def make_frames(n, **info):
    return [make_frame(k, group=f"md{k // 3}", **info) for k in range(n)]


def written(frames, **columns):
    handle = io.BytesIO()
    write(handle, frames, **columns)
    return handle


def assert_same(first, second):
    assert np.array_equal(first.numbers, second.numbers)
    assert first.positions.tobytes() == second.positions.tobytes()
    assert first.cell.array.tobytes() == second.cell.array.tobytes()
    assert first.pbc.tolist() == second.pbc.tolist()
    assert set(first.arrays) == set(second.arrays)
    for name, values in first.arrays.items():
        assert values.dtype.kind == second.arrays[name].dtype.kind, name
        np.testing.assert_array_equal(values, second.arrays[name])
    ours, theirs = (getattr(atoms.calc, "results", {}) for atoms in (first, second))
    assert set(ours) == set(theirs)
    for name, value in ours.items():
        assert np.asarray(value).tobytes() == np.asarray(theirs[name]).tobytes(), name


def assert_same_info(first, second, skip=()):
    for name in (set(first) | set(second)) - set(skip):
        a, b = first[name], second[name]
        assert type(a) is type(b), (name, a, b)
        np.testing.assert_array_equal(a, b, err_msg=name)


def test_a_frame_comes_back_bit_by_bit(tmp_path):
    frames = make_frames(7, split="train", origin="rattle", weight=2.5, iteration=3)
    write(tmp_path / "a.h5", frames)
    with Dataset.open(tmp_path / "a.h5") as dataset:
        assert len(dataset) == 7
        for k, frame in enumerate(frames):
            assert_same(dataset[k], frame)
            assert dataset[k].info["status"] == "labelled"
            assert dataset[k].info["group"] == f"md{k // 3}"
            assert dataset[k - 7].info == dataset[k].info or np.isnan(dataset[k].info["cost"])
        assert dataset.column("forces").shape == (dataset.offsets[-1], 3)
        assert dataset.column("weight").tolist() == [2.5] * 7
        assert "magmoms" not in dataset.columns
        assert np.isnan(dataset.column("magmoms")).all()
        json.dumps(dataset.summary())


TEXT = st.text(max_size=8)
INFO = st.dictionaries(
    st.sampled_from(["a", "b/c", "x.y", "temperature", "größe", "d e", "."]),
    st.one_of(TEXT, st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.none()),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(INFO, max_size=1), st.integers(0, 4), st.data())
def test_any_plain_value_survives(template, n_frames, data):
    frames = []
    for k in range(n_frames):
        frame = make_frame(k, stress=bool(k % 2))
        for name, value in (template[0] if template else {}).items():
            kind = {str: TEXT, bool: st.booleans(), int: st.integers(-9, 9), float: st.floats(), type(None): st.none()}
            if data.draw(st.booleans()):
                frame.info[name] = value if k == 0 else data.draw(kind[type(value)])
        if data.draw(st.booleans()):
            frame.arrays["site"] = np.arange(len(frame))
            frame.arrays["label"] = np.array(["a b"] * len(frame))
            frame.arrays["tensor"] = np.full((len(frame), 2, 2), np.nan)
        frames.append(frame)
    with Dataset.open(written(frames)) as dataset:
        for k, frame in enumerate(frames):
            assert_same(dataset[k], frame)
            given_info = {name: value for name, value in frame.info.items() if value is not None}
            found = {name: value for name, value in dataset[k].info.items() if name not in schema.SCHEMA}
            assert_same_info(given_info, found)
        dataset.verify()


def test_missing_is_not_empty_zero_or_nan():
    frames = [make_frame(k) for k in range(4)]
    frames[1].info.update(number=0, text="", flag=False, real=np.nan)
    with Dataset.open(written(frames)) as dataset:
        assert "number" not in dataset[0].info
        assert dataset[1].info["number"] == 0
        assert dataset[1].info["text"] == ""
        assert dataset[1].info["flag"] is False
        assert np.isnan(dataset[1].info["real"])
        assert dataset.present("number").tolist() == [False, True, False, False]


def test_column_first_seen_after_many_blocks(monkeypatch):
    monkeypatch.setattr("aiida_alpot.kernel.dataset.writer.MAX_FRAMES", 3)
    monkeypatch.setattr("aiida_alpot.kernel.dataset.storage.MAX_DICTIONARY", 3)
    frames = [make_frame(k, stress=k > 6, parent=f"uuid {k}") for k in range(12)]
    frames[8].info["late"] = 5
    frames[9].arrays["site"] = np.arange(len(frames[9]))
    with Dataset.open(written(frames)) as dataset:
        assert [("late" in atoms.info) for atoms in dataset] == [k == 8 for k in range(12)]
        for k, frame in enumerate(frames):
            assert_same(dataset[k], frame)
        assert dataset.column("parent").tolist() == [f"uuid {k}" for k in range(12)]


def test_empty_dataset_is_legal(tmp_path):
    write(tmp_path / "a.h5", [])
    with Dataset.open(tmp_path / "a.h5") as dataset:
        assert len(dataset) == 0
        assert list(dataset) == list(dataset.iter_chunks(3)) == []
        assert dataset.column("forces").shape == (0, 3)
        assert dataset.column("split").shape == (0,)
        assert dataset.species == ()
        assert dataset.frame_ids().shape == (0,)
        assert dataset.summary()["n_frames"] == 0
        dataset.verify()
        merge([dataset, dataset[:0]], tmp_path / "b.h5")
    with Dataset.open(tmp_path / "b.h5") as dataset:
        assert len(dataset[[]]) == 0


def test_nested_iteration_is_independent():
    with Dataset.open(written(make_frames(5))) as dataset:
        assert sum(1 for _ in dataset for _ in dataset) == 25


def test_views_slice_mask_index_and_repeat():
    frames = make_frames(9)
    with Dataset.open(written(frames)) as dataset:
        for key in (slice(7, 1, -2), [3, 3, 0], np.arange(9) % 2 == 0, [-1]):
            view = dataset[key]
            expected = [frames[k] for k in np.arange(9)[key]]
            assert view.indices.tolist() == np.arange(9)[key].tolist()
            for k, frame in enumerate(expected):
                assert_same(view[k], frame)
            for ours, theirs in zip(view, expected, strict=True):
                assert_same(ours, theirs)
            assert np.array_equal(view.column("positions"), np.concatenate([f.positions for f in expected]))
        assert dataset[2:8][1:3].indices.tolist() == [3, 4]
        with pytest.raises(IndexError, match="mask has 2 entries for 9 frames"):
            dataset[[True, False]]
        with pytest.raises(IndexError, match="frame 9 does not exist"):
            dataset[9]


def test_frames_share_no_memory_with_the_reader():
    with Dataset.open(written(make_frames(5))) as dataset:
        first = dataset[2]
        first.positions += 1
        first.calc.results["forces"][:] = 0
        first.cell[:] = 0
        assert_same(dataset[2], make_frames(5)[2])
        for k in range(5):
            dataset[k].positions += 1
        assert_same(dataset[3], make_frames(5)[3])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 999), max_size=40))
def test_scattered_rows_match_numpy(rows):
    with h5py.File(io.BytesIO(), "w") as file:
        data = np.arange(2000.0).reshape(1000, 2)
        dataset = file.create_dataset("x", data=data, chunks=(7, 2))
        rows = np.array(rows, dtype=np.int64)
        assert np.array_equal(read_rows(dataset, rows), data[rows])


def test_fast_frames_have_what_ase_builds_and_share_nothing():
    frame = make_frame(1, n_atoms=3)
    with Dataset.open(written([frame, frame])) as dataset:
        first, second = list(dataset)
    assert set(vars(first)) == set(vars(frame))
    assert set(vars(first.calc)) == set(vars(frame.calc))
    for ours, theirs in ((first, second), (first.calc, second.calc), (first, first.calc.atoms)):
        shared = [k for k, v in vars(ours).items() if isinstance(v, (dict, list, np.ndarray)) and v is vars(theirs)[k]]
        assert shared == []
    first.pbc = False
    first.set_constraint(FixAtoms([0]))
    first.set_celldisp([1, 1, 1])
    first.calc.results["stress"][:] = 0
    assert_same(second, frame)
    assert second.get_stress().tolist() == frame.get_stress().tolist()
    assert second.constraints == []
    assert not second.get_celldisp().any()


# hashes


def test_content_hash_ignores_order_bookkeeping_and_signed_zero(tmp_path):
    frames = make_frames(6)
    frames[0].positions[0] = 0.0
    frames[0].calc = SinglePointCalculator(frames[0], **frames[0].calc.results)
    reference = Dataset.open(written(frames))
    shuffled = [frames[k].copy() for k in (5, 2, 0, 1, 4, 3)]
    for ours, k in zip(shuffled, (5, 2, 0, 1, 4, 3), strict=True):
        ours.positions[ours.positions == 0] = -0.0
        ours.calc = SinglePointCalculator(ours, **frames[k].calc.results)
    other = Dataset.open(written(shuffled, cost=3.0, split="test", group="g"))
    assert other.content_hash == reference.content_hash
    assert other.usage_hash != reference.usage_hash
    assert set(other.frame_ids().tolist()) == set(reference.frame_ids().tolist())
    assert (
        Dataset.open(written(frames, cost=1.0, parent="x", origin="y", reason="z")).usage_hash == reference.usage_hash
    )


def test_usage_hash_pairs_with_the_right_frame():
    frames = make_frames(2)
    one = Dataset.open(written(frames, split=["train", "test"])).usage_hash
    assert Dataset.open(written(frames[::-1], split=["test", "train"])).usage_hash == one
    assert Dataset.open(written(frames, split=["test", "train"])).usage_hash != one
    assert Dataset.open(written(frames, split=["train", "test"], mine=[1, 2])).usage_hash != one


@pytest.mark.parametrize("change", ["positions", "energy", "stress", "fingerprint", "charge", "pbc", "numbers"])
def test_content_hash_sees_every_science_column(change):
    frame = make_frame(1, n_atoms=3)
    before = Dataset.open(written([frame])).content_hash
    results = dict(frame.calc.results)
    if change in results:
        results[change] = results[change] + 1e-12
    elif change in ("fingerprint", "charge"):
        frame.info[change] = "pbe" if change == "fingerprint" else 1.0
    elif change == "pbc":
        frame.pbc = [True, True, False]
    else:
        frame.arrays[change] = frame.arrays[change] + 1
    frame.calc = SinglePointCalculator(frame, **results)
    assert Dataset.open(written([frame])).content_hash != before


def test_duplicates_count_as_a_multiset():
    frame = make_frame(1)
    hashes = [Dataset.open(written([frame] * n)).content_hash for n in (1, 2, 3)]
    assert len(set(hashes)) == 3
    assert len(set(Dataset.open(written([frame] * 2)).frame_ids().tolist())) == 1


def test_structure_id_does_not_see_labels():
    frame, bare = make_frame(1), make_frame(1)
    bare.calc = None
    with Dataset.open(written([frame, bare])) as dataset:
        assert len(set(dataset.frame_ids(labels=False).tolist())) == 1
        assert len(set(dataset.frame_ids().tolist())) == 2


def test_view_and_block_size_do_not_change_the_hash(monkeypatch):
    frames = make_frames(7)
    dataset = Dataset.open(written(frames))
    monkeypatch.setattr("aiida_alpot.kernel.dataset.writer.MAX_FRAMES", 2)
    monkeypatch.setattr("aiida_alpot.kernel.dataset.reader.MAX_FRAMES", 3)
    assert Dataset.open(written(frames)).content_hash == dataset.content_hash == dataset[::-1].content_hash
    assert dataset[::-1].usage_hash == dataset.usage_hash


def test_content_hash_is_pinned():
    atoms = Atoms("H", [[0.0, 0.0, 1.0]])
    hashed = Dataset.open(written([atoms])).content_hash
    assert hashed == PINNED, "the definition of the hash changed: it needs a new version"


PINNED = "9a25a86ea5b758a0ddadf042d716a2455fcdfe7f709d4969163c174ccaf33a86"

SCRIPT = """
import sys, numpy as np
from ase import Atoms
from aiida_alpot.kernel.dataset import write
rng = np.random.default_rng(0)
info = {"x": "é", "group": "g"}
frames = [Atoms("Si2", rng.random((2, 3)), cell=np.eye(3), pbc=True, info=info) for _ in range(50)]
write(sys.argv[1], frames, REF="a")
"""


def test_equal_frames_give_equal_bytes_in_two_processes(tmp_path):
    source = str(Path(aiida_alpot.__file__).parents[1])
    for name, seed in (("a", "1"), ("b", "2")):
        environment = {"PYTHONPATH": source, "PYTHONHASHSEED": seed, "PATH": ""}
        subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path / name)], check=True, env=environment, timeout=60)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


# damage


def verify_message(path, good):
    try:
        with Dataset.open(path) as dataset:
            dataset.verify()
            assert dataset.content_hash == good
    except DatasetError as error:
        return str(error)
    return ""


def test_any_flipped_bit_is_found_or_harmless(tmp_path):
    data = bytearray(written(make_frames(40)).getvalue())
    path = tmp_path / "flipped.h5"
    with Dataset.open(io.BytesIO(bytes(data))) as dataset:
        good = dataset.content_hash
    found = 0
    for position in np.linspace(0, len(data) - 1, 150).astype(int):
        data[position] ^= 16
        path.write_bytes(bytes(data))
        data[position] ^= 16
        message = verify_message(path, good)
        assert not message or "flipped.h5" in message
        found += bool(message)
    assert found > 50


def test_corrupt_chunk_names_file_and_column(tmp_path):
    path = tmp_path / "a.h5"
    write(path, make_frames(20))
    with h5py.File(path) as file:
        start = file["atom/forces"].id.get_chunk_info(0).byte_offset
    data = bytearray(path.read_bytes())
    data[start + 40] ^= 1
    path.write_bytes(bytes(data))
    with Dataset.open(path) as dataset:
        assert dataset.column("energy").shape == (20,)
        with pytest.raises(DatasetError, match=r"a\.h5: column 'forces' is corrupt"):
            dataset.column("forces")
        with pytest.raises(DatasetError, match="forces"):
            dataset.verify()
        with pytest.raises(DatasetError, match="forces"):
            dataset[3]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_truncated_file_is_a_clear_error(tmp_path, share):
    path = tmp_path / "a.h5"
    write(path, make_frames(20))
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(DatasetError, match=r"a\.h5 cannot be opened as a dataset: it is truncated"):
        Dataset.open(path)


def test_foreign_and_newer_files_are_refused(tmp_path):
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(DatasetError, match="no aiida-alpot dataset"):
        Dataset.open(tmp_path / "foreign.h5")
    write(tmp_path / "a.h5", make_frames(2))
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file.attrs["schema_version"] = 99
    with pytest.raises(DatasetError, match=r"schema version 99.*upgrade aiida-alpot"):
        Dataset.open(tmp_path / "a.h5")
    with pytest.raises(FileNotFoundError, match="no dataset file"):
        Dataset.open(tmp_path / "none.h5")


def test_older_layout_is_migrated_when_opened(tmp_path, monkeypatch):
    write(tmp_path / "a.h5", make_frames(3, config_type="bulk"))
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file.attrs["schema_version"] = 0
        file["frame"].move("config_type", "kind")
        file["strings"].move("config_type", "kind")

    def rename(layout):
        old = layout.pop("kind")
        layout["config_type"] = schema.StoredColumn(schema.SCHEMA["config_type"], old.path, old.stored_name)
        return layout

    with pytest.raises(DatasetError, match="no migration"):
        Dataset.open(tmp_path / "a.h5")
    monkeypatch.setitem(schema.MIGRATIONS, 0, rename)
    with Dataset.open(tmp_path / "a.h5") as dataset:
        assert dataset[1].info["config_type"] == "bulk"
        assert dataset.column("config_type").tolist() == ["bulk"] * 3


# refusing


def spoil(**changes):
    frame = make_frame(3, n_atoms=2)
    results = dict(frame.calc.results)
    for name, value in changes.items():
        if name in results:
            results[name] = value
        elif name == "pbc_without_cell":
            frame.cell = np.zeros((3, 3))
        elif name == "position":
            frame.positions[1, 1] = value
        elif name == "number":
            frame.numbers[0] = value
        else:
            frame.info[name] = value
    frame.calc = SinglePointCalculator(frame, **results)
    return frame


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (spoil(position=np.nan), "frame 2 has a position that is not finite"),
        (spoil(energy=np.nan), "frame 2 is labelled but its energy"),
        (spoil(forces=np.full((2, 3), np.inf)), "frame 2 is labelled but its forces"),
        (spoil(forces=np.zeros((3, 3))), r"frame 2: forces has shape \(3, 3\), expected \(2, 3\)"),
        (spoil(stress=[0, 0, 0, 0, 0, np.nan]), "frame 2 is labelled but its stress"),
        (spoil(number=0), "frame 2 has an atomic number outside"),
        (spoil(number=119), "frame 2 has an atomic number outside"),
        (spoil(pbc_without_cell=True), "frame 2 is periodic along an axis whose cell vector is zero"),
        (spoil(split="trian"), "frame 2 has the unknown split 'trian'; did you mean 'train'"),
        (spoil(status="done"), "frame 2 has the unknown status 'done'"),
        (spoil(weight=-1.0), "frame 2 has a weight"),
        (spoil(forces_info=None, forces=None), None),
        (Atoms(), "frame 2 has no atoms"),
        (Atoms("H", info={"energy": 1.0}), "frame 2: 'energy' stands in info"),
        (Atoms("H", info={"status": "labelled"}), "frame 2 is labelled but its energy is missing"),
        (Atoms("H", info={"group": 1}), r"frame 2: info\['group'\] is int64"),
    ],
)
def test_bad_frame_is_named_and_nothing_is_left(tmp_path, frame, message):
    frames = [make_frame(0), make_frame(1), frame]
    if message is None:
        write(tmp_path / "a.h5", frames)
        return
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "a.h5", frames)
    assert list(tmp_path.iterdir()) == []


def test_failing_write_keeps_the_old_file_and_empties_a_handle(tmp_path):
    write(tmp_path / "a.h5", make_frames(2))
    before = (tmp_path / "a.h5").read_bytes()
    with pytest.raises(ValueError, match="no atoms"):
        write(tmp_path / "a.h5", [Atoms()])
    assert (tmp_path / "a.h5").read_bytes() == before
    handle = io.BytesIO()
    with pytest.raises(ValueError, match="no atoms"):
        write(handle, [Atoms()])
    assert handle.getvalue() == b""


def test_stale_labels_wrong_arrays_and_type_changes_are_refused():
    stale = make_frame(0)
    stale.positions += 0.1
    with pytest.raises(ValueError, match="frame 0: the labels belong to another geometry"):
        written([stale])
    short = make_frame(1, n_atoms=3)
    short.arrays["site"] = np.arange(2)
    with pytest.raises(ValueError, match="frame 0: the per-atom array 'site' has 2 rows for 3 atoms"):
        written([short])
    with pytest.raises(ValueError, match=r"frame 1: info\['t'\] is float64"):
        written([make_frame(0, t=1), make_frame(1, t=1.5)])
    with pytest.raises(ValueError, match="column 'split' has 1 values"):
        written(make_frames(2), split=["train"])
    with pytest.raises(ValueError, match="has 3 values for 2 frames"):
        written(make_frames(2), split=["train"] * 3)


def test_failed_frames_keep_whatever_labels_they_have():
    frame = spoil(energy=np.inf, status="failed", reason="scf\nnot converged")
    with Dataset.open(written([frame])) as dataset:
        assert dataset[0].calc.results["energy"] == np.inf
        assert dataset[0].info["reason"] == "scf\nnot converged"


def test_labels_from_live_calculators_and_ref_keys():
    live = bulk("Cu", cubic=True)
    live.calc = EMT()
    idle = live.copy()
    idle.calc = EMT()
    live.get_forces()
    moved = live.copy()
    moved.calc = EMT()
    moved.get_forces()
    moved.positions[0, 0] += 0.1
    keys = Atoms("H2", [[0, 0, 0], [0, 0, 1]], cell=np.eye(3) * 5, pbc=True)
    keys.info.update(REF_energy=-1.0, REF_stress=np.diag([1.0, 2.0, 3.0]) + 0.5 * (1 - np.eye(3)))
    keys.arrays["REF_forces"] = np.ones((2, 3))
    with Dataset.open(written([live, idle, moved, keys])) as dataset:
        assert dataset.column("status").tolist() == ["labelled", "unlabelled", "unlabelled", "labelled"]
        assert dataset[0].get_potential_energy() == live.get_potential_energy()
        assert dataset[3].get_stress().tolist() == [1, 2, 3, 0.5, 0.5, 0.5]
        assert not [name for name in dataset[3].info if name.startswith("REF_")]
    assert idle.calc.results == {}
    keys.calc = SinglePointCalculator(keys, energy=-2.0, forces=np.ones((2, 3)))
    with pytest.raises(ValueError, match="REF_energy give different labels"):
        written([keys])


def test_slab_with_constraint_and_objects_in_info_is_accepted():
    slab = fcc111("Al", (1, 1, 2), vacuum=5)
    slab.set_constraint(FixAtoms([0]))
    slab.set_initial_magnetic_moments([1.0, 0.0])
    slab.set_initial_charges([0.5, -0.5])
    slab.set_momenta(np.ones((2, 3)), apply_constraint=False)
    slab.calc = SinglePointCalculator(slab, energy=0.0, forces=np.ones((2, 3)), magmoms=[1.0, 2.0])
    with Dataset.open(written([slab])) as dataset:
        assert_same(dataset[0], slab)
        assert dataset[0].constraints == []
        assert dataset[0].get_forces().tolist() == np.ones((2, 3)).tolist()


# merging


def merged(*sources):
    handle = io.BytesIO()
    merge(sources, handle)
    return Dataset.open(handle)


def test_merge_is_associative_and_fills_columns():
    a = Dataset.open(written([make_frame(k, stress=False, mine=k) for k in range(3)]))
    b = Dataset.open(written([make_frame(k + 10, other="x") for k in range(2)]))
    c = Dataset.open(written([make_frame(k + 20) for k in range(4)], split="test"))
    left, right, turned = merged(merged(a, b), c), merged(a, merged(b, c)), merged(c, b, a)
    assert left.content_hash == right.content_hash == turned.content_hash
    assert left.usage_hash == right.usage_hash == turned.usage_hash
    assert [atoms.info.get("mine") for atoms in left] == [0, 1, 2] + [None] * 6
    assert np.isnan(left.column("stress")[:3]).all()
    left.verify()
    for ours, theirs in zip(left, [*a, *b, *c], strict=True):
        assert_same(ours, theirs)
    assert merged(a, b).content_hash == Dataset.open(written([*a, *b])).content_hash


def test_merge_refuses_clashing_columns(tmp_path):
    write(tmp_path / "a.h5", [make_frame(0, mine=1)])
    write(tmp_path / "b.h5", [make_frame(1, mine="one")])
    with pytest.raises(ValueError, match=r"'mine' is int .* in dataset 0 .*a\.h5.* and str .*b\.h5"):
        merge([tmp_path / "a.h5", tmp_path / "b.h5"], tmp_path / "c.h5")
    assert not (tmp_path / "c.h5").exists()


def test_view_write_and_filter_replace_columns(tmp_path):
    write(tmp_path / "a.h5", make_frames(6, mine=1))
    with Dataset.open(tmp_path / "a.h5") as dataset:
        dataset[[4, 1]].write(tmp_path / "b.h5", split=["test", ""], mine=None, iteration=2)
        ids = dataset.frame_ids()
    with Dataset.open(tmp_path / "b.h5") as view:
        assert view.frame_ids().tolist() == ids[[4, 1]].tolist()
        assert view.column("split").tolist() == ["test", ""]
        assert "mine" not in view.columns
        assert view.column("iteration").tolist() == [2, 2]
    filter_frames(tmp_path / "a.h5", lambda dataset: dataset.column("group") == "md1", tmp_path / "a.h5")
    with Dataset.open(tmp_path / "a.h5") as dataset:
        assert dataset.column("group").tolist() == ["md1"] * 3
    with pytest.raises(ValueError, match=r"'energy' describes the frames themselves"):
        written(make_frames(1), energy=[1.0])


def test_view_drops_columns_that_no_frame_uses():
    dataset = Dataset.open(written([make_frame(0, stress=False), make_frame(1, mine=2)]))
    handle = io.BytesIO()
    dataset[:1].write(handle)
    assert not {"stress", "mine"} & set(Dataset.open(handle).columns)


def test_merge_memory_does_not_grow_with_the_data(tmp_path, monkeypatch):
    monkeypatch.setattr("aiida_alpot.kernel.dataset.reader.MAX_ATOMS", 4096)
    frames = [make_frame(k, n_atoms=200, parent=f"uuid{k}") for k in range(60)]
    write(tmp_path / "a.h5", frames)

    def peak(n_sources):
        tracemalloc.start()
        merge([tmp_path / "a.h5"] * n_sources, tmp_path / "out.h5")
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(1)
    small, large = peak(20), peak(40)
    assert large < 1.2 * small
    assert large < 40 * 60 * 200 * 56 / 10


def test_any_seekable_handle_can_be_read(tmp_path):
    write(tmp_path / "a.h5", make_frames(3))
    with (tmp_path / "a.h5").open("rb") as handle, Dataset.open(handle) as dataset:
        assert_same(dataset[1], make_frames(3)[1])
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["atom/forces"].compression == "gzip"
        assert file["atom/forces"].fletcher32
        assert 1024 <= file["atom/forces"].chunks[0] <= 4096
