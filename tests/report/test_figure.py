"""The figure of a campaign shows the numbers of its history."""

import copy
import itertools

import pytest

from aiida_alpot.report.figure import plot_history

pyplot = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Draw a history and give the figure, kept open for a look at what is in it."""
    opened = []
    subplots = pyplot.subplots

    def keep(*args, **kwargs):
        figure, axes = subplots(*args, **kwargs)
        opened.append(figure)
        return figure, axes

    monkeypatch.setattr(pyplot, "subplots", keep)

    def draw(history, **kwargs):
        plot_history(history, tmp_path / "history.png", **kwargs)
        return opened[-1]

    return draw


def line(axes, label):
    return next(line for line in axes.lines if line.get_label() == label)


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_the_ending_gives_the_format(history, tmp_path, ending):
    path = tmp_path / f"history.{ending}"
    plot_history(history, path)
    magic = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[ending]
    assert path.read_bytes().startswith(magic)


def test_errors_are_drawn_in_thousandths_against_the_labels(history, drawn):
    force, energy = drawn(history).axes
    mean = line(force, "error of the committee mean")
    assert mean.get_xdata().tolist() == [40, 65, 90, 115]
    assert mean.get_ydata() == pytest.approx([210, 130, 95, 82])
    assert line(force, "disagreement").get_ydata() == pytest.approx([190, 100, 70, 60])
    assert line(energy, "error of the committee mean").get_ydata() == pytest.approx([12, 7.1, 4.2, 3.1])
    assert len(line(energy, "error of each member").get_ydata()) == 16


def test_axes_tell_their_units_and_start_at_zero(history, drawn):
    force, energy = drawn(history).axes
    assert (force.get_ylabel(), energy.get_ylabel()) == ("rms force, meV/Å", "rms energy, meV/atom")
    assert force.get_xlabel() == energy.get_xlabel() == "labelled frames"
    assert force.get_ylim()[0] == energy.get_ylim()[0] == 0
    assert force.get_ylim()[1] > 1.2 * 1.15 * 210


def test_lines_differ_in_more_than_colour(history, drawn):
    axes = drawn(history).axes[0]
    lines = [line(axes, label) for label in ("error of the committee mean", "disagreement")]
    assert len({item.get_linestyle() for item in lines}) == len({item.get_marker() for item in lines}) == 2


def test_one_legend_stands_outside_the_panels(history, drawn):
    figure = drawn(history)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "error of each member",
        "error of the committee mean",
        "disagreement",
    ]
    assert all(axes.get_legend() is None for axes in figure.axes)


@pytest.mark.parametrize(("split", "name"), [("external_test", "test set"), ("validation", "validation split")])
def test_title_names_the_frames(make, drawn, split, name):
    rows = [make.row(0, 10, 0.1, 0.01, 0.1, split=split)]
    assert drawn(rows).get_suptitle() == f"errors on the {name}"
    assert drawn(rows, title="ethanol").get_suptitle() == f"ethanol: errors on the {name}"


def test_tick_labels_of_a_long_campaign_do_not_overlap(make, drawn):
    rows = [make.row(k, 20 + 25 * k, 0.3 * 0.9**k, 0.01, 0.1) for k in range(30)]
    figure = drawn(rows)
    for axes in figure.axes:
        boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
        assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))


def test_numbers_that_are_missing_leave_a_gap(history, drawn):
    rows = copy.deepcopy(history)
    rows[1]["errors"]["test"]["committee_mean"]["force"] = None
    rows[2]["errors"]["test"]["members"][0]["force"] = None
    mean = line(drawn(rows).axes[0], "error of the committee mean").get_ydata()
    assert mean[1] != mean[1]
    assert mean[[0, 2, 3]] == pytest.approx([210, 95, 82])


def test_iterations_without_errors_on_these_frames_are_left_out(history, make, drawn):
    rows = [*history, {"iteration": 4, "n_labels": 140}, make.row(5, 150, 0.1, 0.01, 0.1, split="validation")]
    assert line(drawn(rows).axes[0], "disagreement").get_xdata().tolist() == [40, 65, 90, 115]


@pytest.mark.parametrize("rows", [[], [{"iteration": 0, "n_labels": 10}], [{"iteration": 0, "errors": {}}]])
def test_a_history_without_errors_is_refused(rows, tmp_path):
    with pytest.raises(ValueError, match="no iteration was calibrated"):
        plot_history(rows, tmp_path / "history.png")
    assert not (tmp_path / "history.png").exists()


def test_no_figure_stays_open(history, tmp_path):
    before = pyplot.get_fignums()
    plot_history(history, tmp_path / "history.png")
    assert pyplot.get_fignums() == before
