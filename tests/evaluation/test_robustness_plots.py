"""The figure of a stress test by its content: marks, lines, labels, limits."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

mpl.use("Agg")

import matplotlib.pyplot as plt

import pneumolib as pn
from pneumolib.data.stress import STRESSES
from pneumolib.errors import DataError
from pneumolib.evaluation.robustness_plots import plot_stress

RNG = np.random.default_rng(0)
ROWS: list[dict[str, Any]] = [
    {"group": "untouched", "label": "untouched", "auc": 0.99, "accuracy": 0.95},
    *(
        {"group": s.group, "label": s.label, "auc": 0.98 + 0.01 * RNG.random(), "accuracy": 0.93 + 0.03 * RNG.random()}
        for s in STRESSES
    ),
]
ROWS[-2] |= {"auc": 0.55, "accuracy": 0.35}


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


def test_every_stress_has_its_marks_in_its_row_under_its_label() -> None:
    ax = plot_stress(pd.DataFrame(ROWS))
    assert [text.get_text() for text in ax.get_yticklabels()] == [s.label for s in STRESSES]
    auc, accuracy = (line for line in ax.lines if line.get_marker() in ("o", "D"))
    assert list(auc.get_xdata()) == [row["auc"] for row in ROWS[1:]]
    assert list(accuracy.get_xdata()) == [row["accuracy"] for row in ROWS[1:]]
    for marks in (auc, accuracy):
        assert np.abs(marks.get_ydata() - ax.get_yticks()).max() < 0.25
    assert auc.get_color() != accuracy.get_color()
    top, bottom = sorted(ax.get_ylim())
    assert top < min(ax.get_yticks()) < max(ax.get_yticks()) < bottom
    assert ax.yaxis_inverted()


def test_the_untouched_values_are_lines_and_stand_in_the_legend() -> None:
    ax = plot_stress(pd.DataFrame(ROWS))
    dashed = [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == "--"]
    assert dashed == [0.99, 0.95]
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["AUC, untouched 0.990", "accuracy, untouched 0.950"]


def test_a_row_beyond_the_axis_is_written_and_the_others_keep_their_room() -> None:
    ax = plot_stress(pd.DataFrame(ROWS))
    low, high = ax.get_xlim()
    assert 0.8 < low < 0.93
    assert 1 < high < 1.02
    assert sorted(text.get_text() for text in ax.texts) == ["0.350", "0.550"]
    assert {text.get_position()[1] for text in ax.texts} == {ax.get_yticks()[-2]}
    mild = [row for row in ROWS if row["auc"] > 0.9]
    assert not plot_stress(pd.DataFrame(mild)).texts


def test_labels_do_not_overlap_and_nothing_is_cut_off() -> None:
    ax = plot_stress(pd.DataFrame(ROWS))
    figure = ax.figure
    figure.canvas.draw()
    boxes = [label.get_window_extent() for label in ax.get_yticklabels()]
    assert all(upper.y0 > lower.y1 - 2 for upper, lower in pairwise(boxes))
    box = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert box.x0 > -0.05
    assert box.y0 > -0.05
    assert box.x1 < width + 0.05
    assert box.y1 < height + 0.05
    assert height < 13


def test_phantom_stands_in_the_title_of_a_table_that_is_one() -> None:
    assert plot_stress({"rows": ROWS, "phantom": True}).get_title().startswith("PHANTOM: ")
    assert "PHANTOM" not in plot_stress({"rows": ROWS, "phantom": False}).get_title()
    assert "PHANTOM" in plot_stress(pd.DataFrame(ROWS), phantom=True).get_title()
    ax = plt.subplots()[1]
    assert pn.plots.plot_stress(pd.DataFrame(ROWS), ax=ax) is ax


def test_an_area_that_is_undefined_is_left_out() -> None:
    ax = plot_stress({"rows": [{**row, "auc": None} for row in ROWS], "phantom": False})
    assert [text.get_text() for text in ax.texts] == ["0.350"]


def test_nothing_is_changed_for_other_figures() -> None:
    before = dict(mpl.rcParams)
    plot_stress(pd.DataFrame(ROWS))
    assert dict(mpl.rcParams) == before


def test_tables_that_lack_something_are_refused() -> None:
    with pytest.raises(DataError, match=r"Missing: \['accuracy'\]"):
        plot_stress(pd.DataFrame(ROWS).drop(columns="accuracy"))
    with pytest.raises(DataError, match="Missing"):
        plot_stress({})
    with pytest.raises(DataError, match="Received: 0 untouched, 42 stresses"):
        plot_stress(pd.DataFrame(ROWS[1:]))
    with pytest.raises(DataError, match="Received: 1 untouched, 0 stresses"):
        plot_stress(pd.DataFrame(ROWS[:1]))
