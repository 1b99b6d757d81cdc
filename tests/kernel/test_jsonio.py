"""JSON that is complete or not there."""

import json

import numpy as np
import pytest

from aiida_alpot.kernel.jsonio import plain, read_json, write_json


def test_plain_keeps_what_json_knows():
    value = {"a": [1, 2.5, "x", None, True]}
    assert plain(value) == value


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, np.float32(np.nan), np.array(np.nan)])
def test_plain_replaces_what_is_not_finite_by_none(value):
    assert plain(value) is None


def test_plain_turns_numpy_and_tuples_into_python():
    found = plain({1: np.int64(2), "b": np.bool_(True), "c": np.array([[1, 2]]), "d": (np.str_("x"), 1.0)})
    assert found == {"1": 2, "b": True, "c": [[1, 2]], "d": ["x", 1.0]}
    assert type(found["1"]) is int
    assert type(found["b"]) is bool
    assert type(found["d"][0]) is str


def test_what_was_written_is_read(tmp_path):
    write_json(tmp_path / "a.json", {"x": np.float64(1 / 3), "é": 1})
    assert read_json(tmp_path / "a.json") == {"x": 1 / 3, "é": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_equal_content_gives_equal_bytes(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1, "y": 2})
    write_json(tmp_path / "b.json", {"y": 2, "x": 1})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_the_file_is_replaced_in_one_step(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_json(path, {"x": 1})

    def fail(self, target):
        assert json.loads(self.read_text()) == {"x": 2}
        raise OSError("killed before the rename")

    monkeypatch.setattr(type(path), "replace", fail)
    with pytest.raises(OSError, match="killed"):
        write_json(path, {"x": 2})
    assert read_json(path) == {"x": 1}


def test_a_file_without_a_mapping_is_named(tmp_path):
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"list\.json: expected a JSON object, got list"):
        read_json(tmp_path / "list.json")
