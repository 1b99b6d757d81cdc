"""The table of a campaign: one line per iteration, in units for people."""

import io

import pytest
from rich.console import Console

from aiida_alpot.report.table import build_table, reported_split


def cells(table):
    """The cells of a table, row by row."""
    return list(zip(*(list(column.cells) for column in table.columns), strict=True))


def test_a_row_shows_labels_errors_and_what_was_found(make):
    row = make.row(1, 65, force=0.1304, energy=0.00712, disagreement=0.0999)
    assert cells(build_table([row])) == [("1", "65", "130.4", "7.1", "99.9", "200", "60", "25", "42")]


def test_columns_tell_their_units(history):
    headers = " ".join(str(column.header) for column in build_table(history).columns)
    assert headers.count("meV/Å") == 2
    assert "meV/atom" in headers


def test_training_time_is_that_of_the_slowest_member(make):
    row = make.row(0, 10, 0.1, 0.01, 0.1)
    row["training_seconds"] = {"a": 10.0, "b": 99.6}
    assert cells(build_table([row]))[0][-1] == "100"


def test_what_is_not_known_yet_is_a_dash():
    table = build_table([{"iteration": 0, "n_labels": 12}])
    assert cells(table) == [("0", "12", *["–"] * 7)]
    assert table.title == "No errors yet"


def test_an_error_that_is_not_defined_is_a_dash(make):
    row = make.row(0, 10, 0.1, 0.01, 0.1)
    row["errors"]["test"]["committee_mean"]["force"] = None
    assert cells(build_table([row]))[0][2:4] == ("–", "10.0")


def test_zero_is_a_number_and_no_dash(make):
    row = make.row(0, 10, 0.0, 0.0, 0.0)
    row["evaluation"]["n_flagged"] = 0
    assert cells(build_table([row]))[0][2:7] == ("0.0", "0.0", "0.0", "100", "0")


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        (("validation", "calibration", "test", "external_test"), "external_test"),
        (("validation", "calibration", "test", "train"), "test"),
        (("validation", "calibration", "train"), "calibration"),
        (("validation", "train"), "validation"),
        (("train",), None),
        ((), None),
    ],
)
def test_errors_are_reported_on_the_best_held_out_frames(splits, expected):
    assert reported_split({"errors": {split: {} for split in splits}}) == expected


def test_title_names_the_frames(make, history):
    assert "on the test split" in str(build_table(history).title)
    assert "on the test set" in str(build_table([make.row(0, 1, 1, 1, 1, split="external_test")]).title)


def test_all_rows_show_the_same_frames(history, make):
    rows = [*history, make.row(4, 140, 0.5, 0.5, 0.5, split="validation")]
    assert cells(build_table(rows))[4][2:5] == ("–", "–", "–")


def test_an_empty_history_has_an_empty_table():
    assert cells(build_table([])) == []


def test_the_table_fits_a_terminal_of_eighty_columns(history):
    console = Console(file=io.StringIO(), width=80)
    console.print(build_table(history))
    text = console.file.getvalue()
    assert "…" not in text
    assert all(number in text for number in ("210.0", "12.0", "190.0", "115"))
