"""Figures of an audit by their content: marks, panels, labels, titles; never by pixels."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

mpl.use("Agg")

import matplotlib.pyplot as plt

from pneumolib.errors import DataError
from pneumolib.evaluation.audit_plots import plot_facts, plot_shortcuts, plot_sizes, varying
from pneumolib.evaluation.style import COLOURS

BASELINES = pd.DataFrame(
    {
        "features": ["majority class", "width and height", "JPEG quality"],
        "auc_cv_train": [0.5, 0.9187, 0.9995],
        "auc_test": [0.5, 0.9085, 0.2],
    }
)
FACTS = pd.DataFrame(
    {
        "split": ["train"] * 6 + ["test"] * 2,
        "label": ["normal", "pneumonia"] * 4,
        "width": [100, 200, 110, 210, 120, 220, 130, 230],
        "height": [90, 80] * 4,
        "n_bytes": [1000, 9000] * 4,
        "jpeg_quality": [95.0, 75.0] * 3 + [75.0, np.nan],
        "mean": [120.0, 121.0] * 4,
        "contrast": 60.0,
    }
)


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


def test_each_baseline_has_its_marks_in_its_row() -> None:
    ax = plot_shortcuts(BASELINES)
    assert [text.get_text() for text in ax.get_yticklabels()] == BASELINES["features"].tolist()
    train, test = (next(line for line in ax.lines if line.get_marker() == mark) for mark in "oD")
    assert list(train.get_xdata()) == BASELINES["auc_cv_train"].tolist()
    assert list(test.get_xdata()) == BASELINES["auc_test"].tolist()
    assert list(train.get_ydata()) == list(ax.get_yticks())
    low, high = ax.get_xlim()
    assert low < 0.2
    assert high > 1
    assert ax.yaxis_inverted()


def test_without_a_test_part_there_are_no_marks_for_it() -> None:
    ax = plot_shortcuts(BASELINES.assign(auc_test=np.nan))
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["cross-validated on train"]
    plot_shortcuts(BASELINES.assign(auc_test=np.nan, auc_cv_train=np.nan)).figure.canvas.draw()


def test_each_part_has_a_panel_with_a_dot_for_each_file_in_the_colour_of_its_label() -> None:
    figure = plot_sizes(FACTS)
    train, test = figure.axes
    assert [ax.get_title() for ax in figure.axes] == ["train (6)", "test (2)"]
    normal, ill = train.lines
    assert list(normal.get_xdata()) == [100, 110, 120]
    assert list(ill.get_ydata()) == [80, 80, 80]
    assert normal.get_color() == COLOURS["normal"]
    assert ill.get_color() == COLOURS["pneumonia"]
    assert [len(line.get_xdata()) for line in test.lines] == [1, 1]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["normal", "pneumonia"]


def test_each_fact_has_a_row_of_panels_whose_bars_are_shares() -> None:
    figure = plot_facts(FACTS)
    grid = np.array(figure.axes).reshape(3, 2)
    assert [row[0].get_xlabel() for row in grid] == ["file size, kB", "JPEG quality", "mean gray value"]
    assert [ax.get_title() for ax in grid[0]] == ["train", "test"]
    outlines = [patch for patch in grid[0][0].patches if patch.get_label() in ("normal", "pneumonia")]
    heights = [np.asarray(patch.get_xy())[:, 1].max() for patch in outlines]
    assert heights == [1, 1]
    assert len(plot_facts(FACTS, ["width"]).axes) == 2


def test_a_fact_that_is_the_same_in_all_files_is_drawn_when_asked_for_only() -> None:
    assert "contrast" not in varying(FACTS)
    ax = plot_facts(FACTS, ["contrast"]).axes[0]
    assert ax.get_xlim()[0] < 60 < ax.get_xlim()[1]


def test_labels_of_any_number_have_colours_and_a_part_without_a_label_draws() -> None:
    facts = FACTS.assign(label=["a", "b", "c", "d", "e", "f", "g", "normal"])
    figure = plot_sizes(facts)
    colours = {line.get_label(): line.get_color() for line in figure.axes[0].lines}
    assert colours["normal"] == COLOURS["normal"]
    assert len(set(map(tuple, colours.values()))) >= 6
    plot_facts(facts).canvas.draw()


def test_phantom_stands_in_every_title() -> None:
    assert plot_shortcuts(BASELINES, phantom=True).get_title().startswith("PHANTOM: ")
    for draw in (plot_sizes, plot_facts):
        assert draw(FACTS, phantom=True).get_suptitle().startswith("PHANTOM: ")
        assert "PHANTOM" not in draw(FACTS).get_suptitle()


def test_axes_are_used_and_other_figures_are_left_alone() -> None:
    before = dict(mpl.rcParams)
    ax = plt.subplots()[1]
    assert plot_shortcuts(BASELINES, ax=ax) is ax
    plot_facts(FACTS)
    assert dict(mpl.rcParams) == before


def test_tables_that_lack_something_are_refused() -> None:
    with pytest.raises(DataError, match="without auc_test"):
        plot_shortcuts(BASELINES.drop(columns="auc_test"))
    with pytest.raises(DataError, match="empty"):
        plot_sizes(FACTS[:0])
    with pytest.raises(DataError, match="without blue"):
        plot_facts(FACTS, ["blue"])
    with pytest.raises(DataError, match="nothing to draw"):
        plot_facts(FACTS[["split", "label"]])
