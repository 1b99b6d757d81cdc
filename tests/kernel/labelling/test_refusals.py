"""Settings that make no label."""

from __future__ import annotations

from typing import Any

import pytest

from aiida_alpot.kernel.labelling.refusals import Rule, among, find_refusal, is_false, refuse, within
from aiida_alpot.kernel.settings import SettingsError

RULES = {
    "encut": Rule(within(100.0, 5000.0), "it is in eV"),
    "algo": Rule(among("normal", "all"), "no other ends in the ground state"),
    "lsorbit": Rule(is_false, "labels are of collinear spins"),
}


@pytest.mark.parametrize("value", [100, 5000.0, "520", None])
def test_a_number_within_its_limits_is_right_and_so_is_one_that_is_left_to_the_code(value: Any) -> None:
    assert find_refusal({"ENCUT": value}, RULES) is None


@pytest.mark.parametrize("value", [99.9, 5001, float("nan"), "high", True, [520], "1e9"])
def test_any_other_value_is_refused_with_its_key_and_the_remedy(value: Any) -> None:
    assert find_refusal({"ENCUT": value}, RULES, "incar.") == f"incar.ENCUT cannot be {value!r}: it is in eV"


@pytest.mark.parametrize(("value", "is_right"), [("Normal", True), (" ALL ", True), ("none", False), (3, False)])
def test_words_are_compared_without_their_case(value: Any, is_right: bool) -> None:
    assert (find_refusal({"algo": value}, RULES) is None) == is_right


@pytest.mark.parametrize(("value", "is_right"), [(False, True), (".FALSE.", True), (0, True), (True, False)])
@pytest.mark.parametrize("key", ["lsorbit", "LSORBIT"])
def test_truth_is_read_as_fortran_writes_it(key: str, value: Any, is_right: bool) -> None:
    assert (find_refusal({key: value}, RULES) is None) == is_right
    assert not is_false(".TRUE.")
    assert not is_false("T")


def test_keys_without_a_rule_are_free_and_the_first_that_breaks_one_is_named() -> None:
    refuse({"isym": 0, "algo": "all"}, RULES)
    with pytest.raises(SettingsError, match=r"^algo cannot be 'chi'"):
        refuse({"isym": 0, "algo": "chi", "encut": 1}, RULES)
