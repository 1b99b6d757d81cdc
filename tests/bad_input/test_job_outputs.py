"""Outputs of jobs that are damaged or lie: a parser ends with an exit code that names the file, and keeps the rest."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from aiida import orm

from aiida_alpot.data.pes import PESData
from aiida_alpot.kernel.dataset import write
from aiida_alpot.kernel.labelling.shards import Shard, read_shard, without_labels, write_shard
from aiida_alpot.kernel.uncertainty import UncertaintyModel

pytestmark = pytest.mark.timeout(60)

OK = {"status": "ok", "message": "", "results": {}}
NAMES = ("augment", "label_ase", "train_mace", "calibrate", "explore_ase", "evaluate")


@pytest.fixture
def parse(parse_files: Callable[..., Any]) -> Callable[..., tuple[dict[str, Any], int, str]]:
    """Return a function that parses planted files and gives outputs, exit status and message."""
    return lambda name, *files, **others: parse_files(f"alpot.{name}", *files, **others)


def report(**changes: Any) -> bytes:
    return json.dumps({**OK, **changes}).encode()


REPORTS: dict[str, tuple[bytes, Sequence[str]]] = {
    "report-01 no content": (b"", ["report.json cannot be read"]),
    "report-02 cut in the middle": (b'{"status": "ok", "mess', ["report.json cannot be read"]),
    "report-03 no object": (b"[]", ["report.json", "expected a JSON object, got list"]),
    "report-04 no UTF-8": (b'{"status": "ok\xff"}', ["report.json cannot be read", "utf-8"]),
    "report-05 NaN": (b'{"status": "ok", "results": {"n": NaN}}', ["report.json", "NaN is no number"]),
    "report-06 nested too deep": (b'{"a":' * 100_000, ["report.json cannot be read"]),
    "report-07 no status": (b'{"message": "fine"}', ["report.json", "status"]),
    "report-08 a status nobody knows": (report(status="done"), ["report.json", "status is 'done'"]),
    "report-09 a status that is a number": (report(status=0), ["report.json", "status is 0"]),
    "report-10 results in a list": (report(results=[1]), ["report.json", "results is [1]"]),
    "report-11 a message that is none": (report(message=None), ["report.json", "message is None"]),
}


@pytest.mark.parametrize("case", REPORTS)
@pytest.mark.parametrize("name", ["augment", "explore_ase"])
def test_a_damaged_report_is_told_from_a_missing_one(case: str, name: str, parse: Any, says: Any) -> None:
    content, words = REPORTS[case]
    outputs, status, message = parse(name, {"report.json": content})
    assert (outputs, status) == ({}, 302)
    says(message, words)


@pytest.mark.parametrize("name", NAMES)
def test_a_failure_without_a_message_is_a_failure(name: str, parse: Any) -> None:
    """report-12 a report of one word."""
    assert parse(name, {"report.json": b'{"status": "failed"}'})[1] == 400


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/"), content)
    return buffer.getvalue()


def npy(values: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=True)
    return buffer.getvalue()


TABLES: dict[str, bytes] = {
    "table-01 no content": b"",
    "table-02 cut in the middle": zipped(**{"grade.npy": npy(np.zeros(999))})[:500],
    "table-03 one array in place of a table": npy(np.zeros(3)),
    "table-04 a pickle in it": zipped(**{"grade.npy": npy(np.array([{}], dtype=object))}),
    "table-05 a member that is no array": zipped(**{"grade.npy": b"hello"}),
    "table-06 a member that climbs out of the folder": zipped(**{"..__..__evil.npy": npy(np.zeros(3))}),
    "table-07 a member with a broken header": zipped(**{"grade.npy": npy(np.zeros(3)).replace(b"descr", b"d\0scr")}),
}


@pytest.mark.parametrize("case", TABLES)
def test_a_damaged_table_is_named(case: str, parse: Any, good: SimpleNamespace, says: Any) -> None:
    files = {"report.json": report(), "table.npz": TABLES[case], "selected.h5": good.h5}
    outputs, status, message = parse("evaluate", files)
    assert status == 303
    says(message, ["table.npz"])
    assert "table" not in outputs


LIES = {
    "lie-01 frames of an augmentation": ("augment", "augmented.h5", "n_frames"),
    "lie-02 candidates of an exploration": ("explore_ase", "candidates.h5", "n_frames"),
    "lie-03 selected frames": ("evaluate", "selected.h5", "n_selected"),
}


@pytest.mark.parametrize("case", LIES)
def test_a_report_that_counts_other_frames_is_not_believed(
    case: str, parse: Any, good: SimpleNamespace, says: Any
) -> None:
    name, file, key = LIES[case]
    files = {"report.json": report(results={key: 7}), file: good.h5, "table.npz": zipped(**{"a.npy": npy(np.zeros(1))})}
    outputs, status, message = parse(name, files)
    assert status == 303
    says(message, [file, "holds 3 frames", "tells of 7"])
    assert not {"frames", "candidates", "selected"} & set(outputs)


def test_labels_of_other_frames_are_refused(parse: Any, good: SimpleNamespace, says: Any) -> None:
    """lie-04 a labelled dataset that is not that of the frames of the job."""
    given = PESData.from_frames(good.frames(2)).store()
    files = {"report.json": report(), "labelled.h5": good.h5}
    outputs, status, message = parse("label_ase", files, {"frames": given})
    assert status == 303
    says(message, ["labelled.h5", "not those that the job was given"])
    assert "labelled" not in outputs


def test_error_bars_of_another_committee_are_refused(parse: Any, tmp_path: Path, potentials: Any, says: Any) -> None:
    """lie-05 a calibration that an earlier job left in the folder."""
    UncertaintyModel(tolerances={"force": 0.1}, model_hashes=("0" * 64, "1" * 64)).save(tmp_path / "uncertainty.h5")
    files = {"report.json": report(), "uncertainty.h5": (tmp_path / "uncertainty.h5").read_bytes()}
    inputs = {f"potentials__{name}": node for name, node in potentials.items()}
    outputs, status, message = parse("calibrate", files, inputs)
    assert status == 303
    says(message, ["uncertainty.h5", "other potentials", "run the calibrate stage"])
    assert "uncertainty" not in outputs


MODELS: dict[str, tuple[dict[str, Any], bytes, str]] = {
    "lie-06 no atomic energies": ({"cutoff": 4.0}, b"model", "report.json"),
    "lie-07 atomic energies in a list": ({"cutoff": 4.0, "atomic_energies": ["Cu"]}, b"model", "report.json"),
    "lie-08 an element that does not exist": ({"cutoff": 4.0, "atomic_energies": {"999": 0}}, b"model", "report.json"),
    "lie-09 a negative cut-off": ({"cutoff": -4.0, "atomic_energies": {"29": 0}}, b"model", "potential.model"),
    "lie-10 a cut-off in words": ({"cutoff": "wide", "atomic_energies": {"29": 0}}, b"model", "report.json"),
    "lie-11 a model of no byte": ({"cutoff": 4.0, "atomic_energies": {"29": 0}}, b"", "potential.model"),
}


@pytest.mark.parametrize("case", MODELS)
def test_a_training_that_lies_gives_no_potential(case: str, parse: Any, says: Any) -> None:
    results, model, name = MODELS[case]
    inputs = {"parameters": orm.Dict({}).store(), "seed": orm.Int(1).store()}
    files = {"report.json": report(results=results), "potential.model": model}
    outputs, status, message = parse("train_mace", files, inputs)
    assert status == 303
    says(message, [name])
    assert "potential" not in outputs


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"retry_failed": false}', b"\xff"], ids=["empty", "list", "no fingerprint", "no text"]
)
def test_a_killed_labelling_with_a_damaged_record_is_named(
    content: bytes, parse: Any, good: SimpleNamespace, tmp_path: Path, says: Any
) -> None:
    """shard-01 to 04 the record beside the shards is damaged."""
    given = PESData.from_frames(good.frames()).store()
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "labelling.json").write_bytes(content)
    (tmp_path / "shards" / "frame-000000.npz").write_bytes(b"")
    outputs, status, message = parse("label_ase", {}, {"frames": given}, temporary=tmp_path)
    assert (outputs, status) == ({}, 303)
    says(message, ["shards"])


def test_a_damaged_shard_costs_its_frame_and_no_more(parse: Any, good: SimpleNamespace, tmp_path: Path) -> None:
    """shard-05 every byte of a shard flipped, one at a time: the other frame keeps its label."""
    frames = good.frames(2)
    given = PESData.from_frames(without_labels(atoms) for atoms in frames).store()
    with given.dataset() as reader:
        ids = reader.frame_ids(labels=False).tolist()
    folder = tmp_path / "shards"
    folder.mkdir()
    (folder / "labelling.json").write_text('{"fingerprint": "f"}')
    for index, atoms in enumerate(frames):
        labels = {name: np.asarray(atoms.calc.results[name]) for name in ("energy", "forces")}
        write_shard(folder, index, Shard(ids[index], "f", "labelled", labels=labels))
    content = (folder / "frame-000000.npz").read_bytes()
    for position in range(0, len(content), 41):
        damaged = bytearray(content)
        damaged[position] ^= 0xFF
        (folder / "frame-000000.npz").write_bytes(damaged)
        shard = read_shard(folder, 0)
        assert shard is None or shard.labels["energy"] == -1.0, f"byte {position}"
    (folder / "frame-000000.npz").write_bytes(content[:-30])
    outputs, status, _ = parse("label_ase", {}, {"frames": given}, temporary=tmp_path)
    assert status == 501
    assert [atoms.info["status"] for atoms in outputs["labelled"]] == ["unlabelled", "labelled"]
    assert outputs["labelled"][1].get_potential_energy() == -2.0


def test_a_shard_that_lies_is_refused(parse: Any, good: SimpleNamespace, tmp_path: Path, says: Any) -> None:
    """shard-06 a shard that calls NaN a label."""
    frames = good.frames(1)
    given = PESData.from_frames(without_labels(atoms) for atoms in frames).store()
    with given.dataset() as reader:
        identity = str(reader.frame_ids(labels=False)[0])
    folder = tmp_path / "shards"
    folder.mkdir()
    (folder / "labelling.json").write_text('{"fingerprint": "f"}')
    labels = {"energy": np.array(np.nan), "forces": np.zeros((4, 3))}
    write_shard(folder, 0, Shard(identity, "f", "labelled", labels=labels))
    outputs, status, message = parse("label_ase", {}, {"frames": given}, temporary=tmp_path)
    assert "labelled" not in outputs
    assert status == 303
    says(message, ["shards", "frame 0", "energy"])


def test_a_dataset_with_labels_that_are_not_finite_is_never_attached(
    parse: Any, good: SimpleNamespace, tmp_path: Path, says: Any
) -> None:
    """lie-12 a dataset of another program: energies exchanged for NaN, hashes renewed by hand."""
    import h5py

    write(tmp_path / "labelled.h5", good.frames())
    with h5py.File(tmp_path / "labelled.h5", "r+") as file:
        file["frame/energy"][:] = np.nan
    given = PESData.from_frames(good.frames()).store()
    files = {"report.json": report(), "labelled.h5": (tmp_path / "labelled.h5").read_bytes()}
    outputs, status, message = parse("label_ase", files, {"frames": given})
    assert (set(outputs), status) == ({"report"}, 303)
    says(message, ["labelled.h5", "changed after it was written"])
