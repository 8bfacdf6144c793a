"""Figures of heat maps: picture and overlay side by side, opacity by heat, a bar in words, outcomes in rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")

import matplotlib.pyplot as plt

import pneumolib as pn
from pneumolib.errors import DataError
from pneumolib.evaluation.heatmaps import plot_heatmap, plot_heatmap_gallery

IMAGE = np.random.default_rng(0).integers(0, 256, (32, 40), dtype=np.uint8)
HEAT = np.clip(np.add.outer(np.linspace(0, 1.5, 32), np.linspace(-0.5, 0.5, 40)), 0, 1)


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


def colour_bar(figure: Any) -> Any:
    return next(ax for ax in figure.axes if ax.get_label() == "<colorbar>")


def test_the_picture_stands_beside_itself_under_its_heat() -> None:
    ax = plot_heatmap(IMAGE, HEAT, title="a child")
    plain, under, over = ax.images
    for shown in (plain, under):
        assert (shown.get_array() == IMAGE).all()
        assert shown.get_clim() == (0, 255)
    assert plain.get_extent()[1] < under.get_extent()[0]
    assert over.get_extent() == under.get_extent()
    np.testing.assert_allclose(over.get_array(), HEAT, atol=1e-6)
    assert ax.get_title() == "a child"


def test_opacity_is_none_where_it_is_cold_and_grows_with_the_heat() -> None:
    opacity = np.asarray(plot_heatmap(IMAGE, HEAT).images[2].get_alpha())
    assert (opacity[HEAT == 0] == 0).all()
    order = np.argsort(HEAT.ravel())
    assert (np.diff(opacity.ravel()[order]) >= 0).all()
    assert 0.4 < opacity.max() < 0.8


def test_a_line_runs_at_half_and_none_where_all_is_cold() -> None:
    ax = plot_heatmap(IMAGE, HEAT)
    (contour,) = ax.collections
    assert list(contour.levels) == [0.5]
    x, y = contour.get_paths()[0].vertices[10]
    assert HEAT[round(y - 0.5), round(x - 0.5 - ax.images[2].get_extent()[0])] == pytest.approx(0.5, abs=0.06)
    assert not plot_heatmap(IMAGE, np.zeros((4, 4))).collections


def test_the_colour_bar_speaks_in_words() -> None:
    bar = colour_bar(plot_heatmap(IMAGE, HEAT).figure)
    assert [text.get_text() for text in bar.get_yticklabels()] == ["not at all", "half", "most"]
    assert "speaks for pneumonia" in bar.get_ylabel()


def test_phantom_stands_in_the_titles() -> None:
    assert plot_heatmap(IMAGE, HEAT, title="a child", phantom=True).get_title() == "PHANTOM: a child"
    figure = plot_heatmap_gallery([IMAGE], [HEAT], [1], [0.9], ["a"], 0.5, phantom=True)
    assert figure.get_suptitle().startswith("PHANTOM: ")


def test_it_draws_where_it_is_told_and_leaves_other_figures_alone() -> None:
    before = dict(mpl.rcParams)
    ax = plt.subplots()[1]
    assert pn.plots.plot_heatmap(IMAGE, HEAT, ax=ax) is ax
    assert dict(mpl.rcParams) == before


def test_the_gallery_has_a_row_for_each_outcome_in_its_order() -> None:
    y = [1, 1, 1, 1, 1, 0, 0, 0]
    p = [0.99, 0.9, 0.8, 0.4, 0.001, 0.7, 0.97, 0.1]
    names = [f"test/x/{c}.jpeg" for c in "abcdefgh"]
    heats = [HEAT * (i + 1) / 8 for i in range(8)]
    figure = pn.plots.plot_heatmap_gallery([IMAGE] * 8, heats, y, p, names, 0.5, ncols=2)
    shown = [ax for ax in figure.axes if ax.images]
    titles = [ax.get_title() for ax in shown]
    # Found: the surest and the least sure. Missed and false alarms: the most wrong first.
    assert [title[0] for title in titles] == ["a", "c", "e", "d", "g", "f", "h"]
    assert titles[0] == "a\nP(pneumonia) 0.990"
    for ax, index in zip(shown, (0, 2, 4, 3, 6, 5, 7), strict=True):
        np.testing.assert_allclose(ax.images[2].get_array(), heats[index], atol=1e-6)
    words = [text.get_text() for ax in shown for text in ax.texts]
    assert words == [
        "ill, found\n2 of 3",
        "ill, missed\n2 of 2",
        "false alarm\n2 of 2",
        "rightly normal\n1 of 1",
    ]
    assert figure.get_suptitle() == "What speaks for pneumonia, threshold 0.500"
    assert colour_bar(figure)


def test_an_outcome_that_does_not_occur_has_no_row() -> None:
    figure = plot_heatmap_gallery([IMAGE] * 2, [HEAT] * 2, [1, 0], [0.9, 0.1], ["a", "b"], 0.5)
    assert [text.get_text().split("\n")[0] for ax in figure.axes for text in ax.texts] == [
        "ill, found",
        "rightly normal",
    ]


def test_odd_galleries_are_refused() -> None:
    with pytest.raises(DataError, match="an image, a heat map and a name"):
        plot_heatmap_gallery([IMAGE], [HEAT], [1, 0], [0.9, 0.1], ["a", "b"], 0.5)
    with pytest.raises(DataError, match="ncols=0"):
        plot_heatmap_gallery([IMAGE], [HEAT], [1], [0.9], ["a"], 0.5, ncols=0)
    with pytest.raises(DataError, match=r"0\.\.1"):
        plot_heatmap(IMAGE, HEAT - 1)
