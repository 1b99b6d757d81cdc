"""Settings at the border: every name and type is checked, and what passed survives a round trip."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiida_alpot.kernel.settings import (
    SettingsError,
    check_device,
    parse_settings,
    settings_to_dict,
    unknown_key_message,
)


@dataclass(frozen=True)
class Inner:
    length: float = 1.0
    name: str = "a"

    def __post_init__(self) -> None:
        if self.length < 0:
            raise ValueError(f"length must not be negative, got {self.length}")


@dataclass(frozen=True)
class Outer:
    count: int
    share: float = 0.5
    switch: bool = False
    method: Literal["fast", "good"] = "fast"
    limit: float | None = None
    driver: Literal["first"] | int = "first"
    pair: tuple[float, int] = (0.0, 1)
    values: tuple[float, ...] = ()
    words: list[str] = field(default_factory=list)
    inner: Inner = field(default_factory=Inner)
    maybe: Inner | None = None
    table: Mapping[str, float] = field(default_factory=dict)
    parts: Mapping[str, Inner] = field(default_factory=dict)
    anything: Any = None


def parse(**values):
    return parse_settings(Outer, {"count": 1, **values}, "stage")


FLOATS = st.floats(allow_nan=False, allow_infinity=False)
LENGTHS = st.floats(0, 1e300)
INNERS = st.builds(Inner, length=LENGTHS, name=st.text())
OUTERS = st.builds(
    Outer,
    count=st.integers(),
    share=FLOATS,
    switch=st.booleans(),
    method=st.sampled_from(["fast", "good"]),
    limit=st.none() | FLOATS,
    driver=st.just("first") | st.integers(),
    pair=st.tuples(FLOATS, st.integers()),
    values=st.lists(FLOATS).map(tuple),
    words=st.lists(st.text()),
    inner=INNERS,
    maybe=st.none() | INNERS,
    table=st.dictionaries(st.text(), FLOATS),
    parts=st.dictionaries(st.text(), INNERS),
    anything=st.none() | st.booleans() | st.text(),
)


@given(OUTERS)
def test_settings_survive_a_round_trip_through_json(settings):
    text = json.dumps(settings_to_dict(settings), allow_nan=False)
    assert parse_settings(Outer, json.loads(text), "stage") == settings


def test_missing_keys_take_their_defaults():
    assert parse() == Outer(1)


def test_a_required_key_that_is_missing_is_named():
    with pytest.raises(SettingsError, match="stage: 'count' is required"):
        parse_settings(Outer, {}, "stage")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"shar": 1}, "stage: unknown key 'shar'; did you mean 'share'?"),
        ({"inner": {"lenght": 1}}, "stage.inner: unknown key 'lenght'; did you mean 'length'?"),
        ({"parts": {"x": {"nam": "b"}}}, "stage.parts.x: unknown key 'nam'; did you mean 'name'?"),
        ({"maybe": {"lenght": 1}}, "stage.maybe: unknown key 'lenght'; did you mean 'length'?"),
    ],
)
def test_an_unknown_key_names_the_nearest_one(values, message):
    with pytest.raises(SettingsError) as caught:
        parse(**values)
    assert str(caught.value) == message


def test_an_unknown_key_far_from_all_lists_them():
    assert unknown_key_message("zzz", ["b", "a"], "stage") == "stage: unknown key 'zzz'; valid keys: a, b"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": "3"}, "stage.count: expected int, got '3'"),
        ({"count": 3.5}, "stage.count: expected int, got 3.5"),
        ({"count": True}, "stage.count: expected int, got True"),
        ({"count": None}, "stage.count: expected int, got None"),
        ({"count": float("inf")}, "stage.count: expected int, got inf"),
        ({"count": float("nan")}, "stage.count: expected int, got nan"),
        ({"share": "0.5"}, "stage.share: expected float, got '0.5'"),
        ({"share": True}, "stage.share: expected float, got True"),
        ({"share": float("nan")}, "stage.share: expected a finite number, got nan"),
        ({"share": float("-inf")}, "stage.share: expected a finite number, got -inf"),
        ({"limit": float("inf")}, "stage.limit: expected a finite number, got inf"),
        ({"switch": 1}, "stage.switch: expected bool, got 1"),
        ({"switch": "yes"}, "stage.switch: expected bool, got 'yes'"),
        ({"method": "best"}, "stage.method: expected one of ['fast', 'good'], got 'best'"),
        ({"method": ["fast"]}, "stage.method: expected one of ['fast', 'good'], got ['fast']"),
        ({"driver": "last"}, "stage.driver: expected one of ['first'], got 'last'"),
        ({"pair": [1.0]}, "stage.pair: expected 2 values, got 1"),
        ({"pair": [1.0, 2, 3]}, "stage.pair: expected 2 values, got 3"),
        ({"pair": [1.0, 2.5]}, "stage.pair[1]: expected int, got 2.5"),
        ({"values": 1.0}, "stage.values: expected a list, got 1.0"),
        ({"values": "12"}, "stage.values: expected a list, got '12'"),
        ({"values": [1, None]}, "stage.values[1]: expected float, got None"),
        ({"words": ["a", 1]}, "stage.words[1]: expected str, got 1"),
        ({"inner": 1}, "stage.inner: expected a mapping, got 1"),
        ({"inner": None}, "stage.inner: expected a mapping, got None"),
        ({"inner": {"length": "a"}}, "stage.inner.length: expected float, got 'a'"),
        ({"table": [1]}, "stage.table: expected a mapping, got [1]"),
        ({"table": {"x": "a"}}, "stage.table.x: expected float, got 'a'"),
        ({"inner": {"length": -1}}, "stage.inner: length must not be negative, got -1.0"),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_what_was_expected(values, message):
    with pytest.raises(SettingsError) as caught:
        parse(**values)
    assert str(caught.value) == message


def test_a_whole_number_given_as_float_is_an_int():
    found = parse(count=3.0).count
    assert (found, type(found)) == (3, int)


def test_an_int_is_a_float():
    found = parse(share=2).share
    assert (found, type(found)) == (2.0, float)


def test_an_int_beyond_every_float_is_refused_as_float_and_kept_as_int():
    assert parse(count=10**400).count == 10**400
    with pytest.raises(SettingsError, match=r"stage\.share: expected a finite number"):
        parse(share=10**400)


def test_none_is_a_value_of_what_is_optional():
    assert parse(limit=None, maybe=None) == Outer(1)


def test_a_union_takes_either_kind():
    assert parse(driver=2).driver == 2
    assert parse(driver="first").driver == "first"


def test_lists_become_tuples_of_the_declared_type():
    assert parse(pair=[1, 2.0], values=[1, 2]) == Outer(1, pair=(1.0, 2), values=(1.0, 2.0))


def test_mappings_of_dataclasses_are_parsed():
    assert parse(parts={"x": {"length": 2}}, maybe={}).parts == {"x": Inner(2.0)}
    assert parse(maybe={}).maybe == Inner()


def test_every_settings_error_is_a_value_error():
    assert issubclass(SettingsError, ValueError)


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:1", "mps", "xpu:0"])
def test_devices_of_torch_are_accepted(device):
    check_device(device)


@pytest.mark.parametrize("device", ["cudaa", "", "gpu", "cuda:", "CPU"])
def test_other_devices_are_refused_by_name(device):
    with pytest.raises(SettingsError, match=f"device: .*'{device}'"):
        check_device(device)
