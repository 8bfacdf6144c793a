"""Figures by their content: points, bars, labels, limits, titles; never by pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from sklearn import metrics as oracle

from pneumolib.errors import DataError
from pneumolib.evaluation import plots
from pneumolib.evaluation.calibration import OperatingPoint
from pneumolib.evaluation.report import make_report

RNG = np.random.default_rng(0)
KINDS = np.repeat(["normal", "bacterial", "viral"], [40, 50, 30])
Y = KINDS != "normal"
P = (1 / (1 + np.exp(-RNG.normal(np.where(Y, 1.5, -1.5), 1.5)))).round(2)
POINT = OperatingPoint("balanced", 0.37, 0.9, 0.9, "rule")
HISTORY = [
    {"epoch": e, "loss": 1 / e, "val_loss": 1.1 / e, "val_auc": 1 - 0.1 / e, "shifted_auc": 1 - 0.2 / e}
    for e in (1, 2, 3)
]
COUNTS = {"train": {"NORMAL": 1341, "PNEUMONIA": 3875}, "test": {"NORMAL": 234, "PNEUMONIA": 390}}

ONE_AXES: dict[str, Callable[..., Axes]] = {
    "roc": lambda **k: plots.plot_roc(Y, P, **k),
    "precision_recall": lambda **k: plots.plot_precision_recall(Y, P, **k),
    "reliability": lambda **k: plots.plot_reliability(Y, P, **k),
    "confusion": lambda **k: plots.plot_confusion({"tn": 30, "fp": 10, "fn": 4, "tp": 76}, **k),
    "scores": lambda **k: plots.plot_scores(P, KINDS, **k),
    "counts": lambda **k: plots.plot_counts(COUNTS, **k),
}
one_axes = pytest.mark.parametrize("draw", ONE_AXES.values(), ids=ONE_AXES)


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


def texts(ax: Axes) -> list[str]:
    legend = ax.get_legend()
    return [text.get_text() for text in legend.get_texts()] if legend else []


@one_axes
def test_each_draws_into_the_axes_given_and_makes_its_own_otherwise(draw: Callable[..., Axes]) -> None:
    ax = plt.subplots()[1]
    assert draw(ax=ax) is ax
    assert len(plt.get_fignums()) == 1
    assert draw().figure is not ax.figure


@one_axes
def test_title_says_phantom_where_it_is_one(draw: Callable[..., Axes]) -> None:
    assert draw(phantom=True).get_title().startswith("PHANTOM: ")
    assert "PHANTOM" not in draw(phantom=False).get_title()
    assert draw().get_title()


@one_axes
def test_axes_are_labelled_and_nothing_is_cut_off(draw: Callable[..., Axes]) -> None:
    ax = draw()
    figure = ax.figure
    assert ax.get_ylabel()
    assert any(other.get_xlabel() for other in figure.axes) or ax.get_xticklabels()
    figure.canvas.draw()
    box = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert box.x0 > -0.05
    assert box.y0 > -0.05
    assert box.x1 < width + 0.05
    assert box.y1 < height + 0.05


@one_axes
def test_nothing_is_changed_for_other_figures(draw: Callable[..., Axes]) -> None:
    before = dict(mpl.rcParams)
    draw()
    assert dict(mpl.rcParams) == before


def test_roc_passes_through_the_points_of_scikit_learn() -> None:
    ax = plots.plot_roc(Y, P, label="ours")
    x, y = ax.lines[0].get_data()
    fpr, tpr, _ = oracle.roc_curve(Y, P, drop_intermediate=False)
    assert x == pytest.approx(fpr)
    assert y == pytest.approx(tpr)
    assert texts(ax)[0].startswith(f"ours: AUC {oracle.roc_auc_score(Y, P):.3f} [")
    assert ax.get_xlim() == ax.get_ylim() == (0, 1)


def test_operating_point_is_marked_where_it_falls_on_these_data() -> None:
    ax = plots.plot_roc(Y, P, operating_point=POINT)
    sensitivity, false_alarms = (P[Y] >= 0.37).mean(), (P[~Y] >= 0.37).mean()
    assert [float(v[0]) for v in ax.lines[-1].get_data()] == [false_alarms, sensitivity]
    assert f"sensitivity {sensitivity:.3f}" in texts(ax)[-1]
    assert "balanced threshold 0.370" in texts(ax)[-1]
    ax = plots.plot_precision_recall(Y, P, operating_point=0.37)
    assert [float(v[0]) for v in ax.lines[-1].get_data()] == [sensitivity, Y[P >= 0.37].mean()]


def test_the_interval_widens_with_patients_of_several_images() -> None:
    several = texts(plots.plot_roc(np.tile(Y, 4), np.tile(P, 4), patients=np.tile(np.arange(120), 4)))[0]
    assert several == texts(plots.plot_roc(Y, P))[0]
    assert several != texts(plots.plot_roc(np.tile(Y, 4), np.tile(P, 4)))[0]


def test_two_curves_share_one_axes() -> None:
    ax = plots.plot_roc(Y, P, label="one")
    plots.plot_roc(Y, 1 - P, label="other", ax=ax)
    assert [text.split(":")[0] for text in texts(ax)] == ["one", "other"]
    assert ax.lines[0].get_color() != ax.lines[2].get_color()


def test_precision_recall_passes_through_the_points_of_scikit_learn() -> None:
    ax = plots.plot_precision_recall(Y, P)
    recall, precision = ax.lines[0].get_data()
    wanted_precision, wanted_recall, _ = oracle.precision_recall_curve(Y, P)
    assert recall == pytest.approx(wanted_recall[::-1])
    assert precision[1:] == pytest.approx(wanted_precision[::-1][1:])
    assert f"{oracle.average_precision_score(Y, P):.3f}" in texts(ax)[0]
    assert "blind guess 0.667" in texts(ax)


def test_curves_need_both_classes() -> None:
    for draw in (plots.plot_roc, plots.plot_precision_recall):
        with pytest.raises(DataError, match="both classes"):
            draw([True, True], [0.5, 0.6])


def test_reliability_shows_each_used_bin_and_counts_every_image() -> None:
    p, y = np.array([0.05, 0.05, 0.95, 0.95, 0.95, 0.95]), np.array([0, 0, 1, 1, 1, 0], bool)
    ax = plots.plot_reliability(y, p)
    points = ax.containers[0].lines[0]
    assert points.get_xdata() == pytest.approx([0.05, 0.95])
    assert points.get_ydata() == pytest.approx([0, 0.75])
    below = ax.figure.axes[1]
    assert [bar.get_height() for bar in below.patches] == [2, 0, 0, 0, 0, 0, 0, 0, 0, 4]
    assert below.get_xlim() == ax.get_xlim() == (0, 1)


def test_reliability_needs_a_place_to_share() -> None:
    with pytest.raises(DataError, match=r"plt\.subplots"):
        plots.plot_reliability(Y, P, ax=plt.figure().add_axes((0, 0, 1, 1)))


def test_confusion_writes_counts_and_shares_of_the_row() -> None:
    ax = plots.plot_confusion({"tn": 30, "fp": 10, "fn": 4, "tp": 76})
    assert [text.get_text() for text in ax.texts] == ["30\n75.0%", "10\n25.0%", "4\n5.0%", "76\n95.0%"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["normal", "pneumonia"]
    empty = plots.plot_confusion({"tn": 0, "fp": 0, "fn": 1, "tp": 3})
    assert empty.texts[0].get_text() == "0\n0.0%"
    with pytest.raises(DataError, match="tn, fp, fn and tp"):
        plots.plot_confusion({"tp": 1})


def test_confusion_of_a_report_knows_whether_it_is_a_phantom() -> None:
    result = make_report(
        Y, P, names=[str(i) for i in range(120)], subtypes=KINDS, patients=np.arange(120), threshold=0.5,
        operating_point="balanced", source="x", phantom=True, n_bootstrap=20,
    )  # fmt: skip
    ax = plots.plot_confusion(result)
    assert ax.get_title() == "PHANTOM: Confusion"
    assert ax.texts[3].get_text().startswith(f"{result.confusion['tp']}\n")


def test_scores_have_a_histogram_for_each_subtype_and_a_line_at_the_threshold() -> None:
    ax = plots.plot_scores(P, KINDS, threshold=POINT)
    assert texts(ax) == ["normal (n = 40)", "bacterial (n = 50)", "viral (n = 30)", "balanced threshold 0.370"]
    assert list(ax.lines[0].get_xdata()) == [0.37, 0.37]
    assert ax.get_yscale() == "log"
    colours = {patch.get_edgecolor()[:3] for patch in ax.patches if not patch.get_fill()}
    assert len(colours) == 3


def test_counts_draw_a_bar_for_each_number_and_write_it() -> None:
    ax = plots.plot_counts(COUNTS)
    assert [bar.get_height() for bar in ax.patches] == [1341, 234, 3875, 390]
    assert [text.get_text() for text in ax.texts] == ["1,341", "234", "3,875", "390"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["train", "test"]
    assert texts(ax) == ["NORMAL", "PNEUMONIA"]


def test_counts_take_a_table_in_any_order_with_gaps() -> None:
    table = pd.DataFrame({"viral": [3.0, np.nan], "other": [1, 1], "normal": [2, 5]}, index=["train", "test"])
    ax = plots.plot_counts(table)
    assert texts(ax) == ["normal", "viral", "other"]
    assert [bar.get_height() for bar in ax.patches] == [2, 5, 3, 0, 1, 1]
    with pytest.raises(DataError, match="nothing to draw"):
        plots.plot_counts({})


def test_history_has_a_panel_of_losses_and_one_of_areas() -> None:
    figure = plots.plot_history(HISTORY, phantom=True)
    loss, area = figure.axes
    assert [ax.get_title() for ax in figure.axes] == ["PHANTOM: Loss", "PHANTOM: AUC"]
    assert texts(loss) == ["training", "validation"]
    assert texts(area) == ["validation", "shifted validation"]
    assert list(loss.lines[0].get_ydata()) == [row["loss"] for row in HISTORY]
    assert list(area.lines[1].get_ydata()) == [row["shifted_auc"] for row in HISTORY]
    plots.plot_history([{"epoch": 1, "loss": 0.5}])


@pytest.mark.parametrize("history", [[], [{"loss": 1.0}]])
def test_history_needs_an_epoch(history: Any) -> None:
    with pytest.raises(DataError, match="at least one epoch"):
        plots.plot_history(history)


def test_colours_of_the_classes_are_seaborns_colour_blind_ones() -> None:
    import seaborn as sns

    assert set(plots.COLOURS.values()) <= set(sns.color_palette("colorblind"))
    assert len(set(plots.COLOURS.values())) == len(plots.COLOURS)
