"""Property gates: bounds as data, and verdicts that carry value, error and bounds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiida_alpot.kernel.gates import Gate, judge_properties
from aiida_alpot.kernel.settings import SettingsError, parse_settings

finite = st.floats(-1e6, 1e6)


def passed(gate, found):
    return judge_properties({"x": gate}, {"x": found})["x"].passed


@pytest.mark.parametrize(
    ("gate", "values"),
    [
        (Gate(reference=3.5, tolerance=0.25), {3.25: True, 3.75: True, 3.2: False, 3.8: False}),
        (Gate(min=100.0, max=150.0), {100.0: True, 150.0: True, 99.0: False, 151.0: False}),
        (Gate(min=0.0), {0.0: True, 1e9: True, -1e-9: False}),
        (Gate(max=0.02), {0.02: True, -5.0: True, 0.03: False}),
        (Gate(min=2.0, max=2.0), {2.0: True, 2.1: False}),
    ],
)
def test_the_bounds_themselves_pass(gate, values):
    assert {value: passed(gate, value) for value in values} == values


def test_the_whole_error_bar_must_be_within_the_bounds():
    gate = Gate(reference=3.5, tolerance=0.25)
    for value, error, expected in ((3.5, 0.25, True), (3.5, 0.3, False), (3.7, 0.1, False), (3.3, 0.1, False)):
        assert passed(gate, {"value": value, "error": error}) is expected


@given(low=finite, width=st.floats(0, 1e6), value=finite, error=st.floats(0, 1e3), smaller=st.floats(0, 1))
def test_a_smaller_error_never_closes_a_gate(low, width, value, error, smaller):
    gate = Gate(min=low, max=low + width)
    if passed(gate, {"value": value, "error": error}):
        assert passed(gate, {"value": value, "error": smaller * error})


def test_a_property_that_could_not_be_computed_does_not_pass():
    for found in (None, {"value": None}, {"value": None, "error": 0.1}):
        assert not passed(Gate(min=0.0), found)


def test_a_verdict_carries_value_error_and_bounds():
    gates = {"a": Gate(reference=2.0, tolerance=0.5), "b": Gate(max=1.0)}
    found = judge_properties(gates, {"b": {"value": 3, "error": 0.25, "unit": "GPa"}, "a": 2, "c": "of no gate"})
    assert [(v.value, v.error, v.min, v.max, v.passed) for v in found.values()] == [
        (2.0, 0.0, 1.5, 2.5, True),
        (3.0, 0.25, None, 1.0, False),
    ]
    assert str(found["a"]) == "is 2, wanted at least 1.5 and at most 2.5"
    assert str(found["b"]) == "is 3 ± 0.25, wanted at most 1"


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({}, "properties: 'x' is missing, which a gate judges; got none"),
        ({"y": 1.0, "z": 2.0}, "'x' is missing, which a gate judges; got y, z"),
        ({"x": "3.6"}, r"properties\.x: expected float, got '3.6'"),
        ({"x": True}, r"properties\.x: expected float, got True"),
        ({"x": [3.6]}, r"properties\.x: expected float"),
        ({"x": {"error": 0.1}}, r"properties\.x: expected a number, or 'value' and 'error'"),
        ({"x": {"value": 1.0, "error": "small"}}, r"properties\.x\.error: expected float"),
        ({"x": {"value": 1.0, "error": -0.1}}, r"properties\.x\.error must not be negative, got -0.1"),
    ],
)
def test_a_property_that_is_missing_or_no_number_is_named(properties, message):
    with pytest.raises(ValueError, match=message):
        judge_properties({"x": Gate(min=0.0)}, properties)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "expected 'reference' and 'tolerance', or 'min', 'max'"),
        ({"reference": 1.0}, "'reference' and 'tolerance' belong together"),
        ({"tolerance": 1.0, "min": 0.0}, "'reference' and 'tolerance' belong together"),
        ({"reference": 1.0, "tolerance": 0.1, "max": 2.0}, "expected 'reference' and 'tolerance', or"),
        ({"reference": 1.0, "tolerance": 0.0}, "'tolerance' must be positive"),
        ({"min": 2.0, "max": 1.0}, "'max' 1.0 is below 'min' 2.0"),
        ({"minimum": 2.0}, "gates.x: unknown key 'minimum'; did you mean 'min'"),
    ],
)
def test_a_gate_that_says_nothing_or_contradicts_itself_is_refused(values, message):
    with pytest.raises(SettingsError, match=message):
        parse_settings(Gate, values, "gates.x")
