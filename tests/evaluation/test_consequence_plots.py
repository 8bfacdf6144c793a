"""Figures of consequences by their content: marks, lines, bands, titles; never by pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import FillBetweenPolyCollection, PolyCollection
from matplotlib.figure import Figure

from pneumolib.errors import DataError
from pneumolib.evaluation import plots
from pneumolib.evaluation.abstention import Abstention, fit_abstention, measure_abstention
from pneumolib.evaluation.consequence_plots import (
    plot_abstention,
    plot_calibration_pair,
    plot_consequences,
    plot_decision_curve,
)
from pneumolib.evaluation.consequences import Consequences, consequences, decision_curve
from pneumolib.evaluation.metrics import bootstrap, wilson

RNG = np.random.default_rng(0)
Y = np.repeat([True, False], [120, 80])
P = (1 / (1 + np.exp(-RNG.normal(np.where(Y, 1.5, -1.5), 1.5)))).round(3)
PATIENTS = np.arange(200) // 2
RESULT = consequences(wilson(378, 390), wilson(206, 234), 0.2, name="high_sensitivity")
CURVE = decision_curve(Y, P, prevalence=0.2, thresholds=[0.1, 0.3, 0.5, 0.7], n_bootstrap=100)
COVERAGES = (0.7, 0.8, 0.9, 0.95)
MEASURED = [measure_abstention(fit_abstention(Y, P, coverage=c), Y, P, PATIENTS, n_bootstrap=100) for c in COVERAGES]

ALL: dict[str, Callable[..., Axes | Figure]] = {
    "consequences": lambda **k: plot_consequences(RESULT, **k),
    "decision_curve": lambda **k: plot_decision_curve(CURVE, **k),
    "calibration_pair": lambda **k: plot_calibration_pair((Y, P), (Y, P, PATIENTS), **k),
    "abstention": lambda **k: plot_abstention(MEASURED, **k),
}
all_of_them = pytest.mark.parametrize("draw", ALL.values(), ids=ALL)


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


def titles(drawn: Axes | Figure) -> list[str]:
    return [ax.get_title() for ax in ([drawn] if isinstance(drawn, Axes) else drawn.axes) if ax.get_title()]


def legend_of(ax: Any) -> list[str]:
    legend = ax.get_legend() if isinstance(ax, Axes) else ax.legends[0]
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


@all_of_them
def test_titles_say_phantom_where_it_is_one(draw: Callable[..., Axes | Figure]) -> None:
    assert all(title.startswith("PHANTOM: ") for title in titles(draw(phantom=True)))
    assert not any("PHANTOM" in title for title in titles(draw()))
    assert titles(draw())


@all_of_them
def test_nothing_is_cut_off_and_nothing_changed_for_other_figures(draw: Callable[..., Axes | Figure]) -> None:
    before = dict(mpl.rcParams)
    drawn = draw(phantom=True)
    assert dict(mpl.rcParams) == before
    figure = drawn.figure if isinstance(drawn, Axes) else drawn
    figure.canvas.draw()
    box = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert box.x0 > -0.05
    assert box.y0 > -0.05
    assert box.x1 < width + 0.05
    assert box.y1 < height + 0.05


@pytest.mark.parametrize("name", ["consequences", "decision_curve"])
def test_they_draw_into_the_axes_given(name: str) -> None:
    ax = plt.subplots()[1]
    assert ALL[name](ax=ax) is ax


@pytest.mark.parametrize("name", ALL)
def test_plots_shows_them_under_its_own_name(name: str) -> None:
    assert getattr(plots, f"plot_{name}") is globals()[f"plot_{name}"]


def marks(ax: Axes) -> dict[str, np.ndarray]:
    """The middle of each mark, by group."""
    found = [one for one in ax.collections if isinstance(one, PolyCollection)]
    return {
        one.get_label(): np.array([(p.vertices.min(0) + p.vertices.max(0)) / 2 for p in one.get_paths()]).reshape(-1, 2)
        for one in found
    }


@pytest.mark.parametrize(
    "result",
    [RESULT, consequences(0.97, 0.88, 0.01), consequences(0.5, 0.5, 0.9, 317), consequences(1, 1, 0.5, 4)],
    ids=lambda r: f"{r.prevalence}-{r.n}",
)
def test_every_child_is_a_mark_of_its_own_and_the_ill_stand_to_the_left(result: Consequences) -> None:
    ax = plot_consequences(result)
    found = marks(ax)
    assert {group: len(spots) for group, spots in found.items()} == result.children
    spots = np.concatenate(list(found.values())).round(6)
    assert len({tuple(spot) for spot in spots.tolist()}) == result.n
    ill = np.concatenate([found["found"], found["missed"]])
    well = np.concatenate([found["alarmed"], found["left_alone"]])
    assert ill[:, 0].max() + 2 < well[:, 0].min()
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    assert left < spots[:, 0].min()
    assert spots[:, 0].max() < right
    assert top < spots[:, 1].min()
    assert spots[:, 1].max() < bottom


def test_errors_differ_in_colour_and_shape_and_the_legend_counts_them() -> None:
    ax = plot_consequences(RESULT)
    drawn = {one.get_label(): one for one in ax.collections}
    assert len({tuple(one.get_facecolor()[0]) for one in drawn.values()}) == 4
    corners = {group: len(one.get_paths()[0].vertices) for group, one in drawn.items()}
    assert len({corners[group] for group in ("found", "missed", "alarmed")}) == 3
    assert legend_of(ax) == [
        "194 (189 to 196) found",
        "6 (4 to 11) missed",
        "96 (67 to 134) alarmed for nothing",
        "704 (666 to 733) rightly left alone",
    ]
    assert [text.get_text() for text in ax.texts] == ["200 with pneumonia", "800 healthy"]
    assert ax.get_title() == "High sensitivity: prevalence 20 %, an alarm is right in 67 % (59 % to 74 %)"


def test_the_picture_knows_a_phantom_and_a_silent_detector() -> None:
    assert plot_consequences(consequences(0, 1, 0.3, 50, phantom=True)).get_title() == (
        "PHANTOM: prevalence 30 %, no alarm"
    )
    assert "PHANTOM" not in plot_consequences(consequences(0, 1, 0.3, 50, phantom=True), phantom=False).get_title()


def test_more_children_than_can_be_seen_are_refused() -> None:
    with pytest.raises(DataError, match=r"2,000 children: ask for n=1000. Received: n=2,001"):
        plot_consequences(consequences(0.9, 0.9, 0.2, 2001))


def test_decision_curve_draws_the_three_ways_to_act_per_thousand() -> None:
    ax = plot_decision_curve(CURVE, operating_point=0.4)
    lines = {line.get_label(): line for line in ax.lines}
    assert lines["acting on the detector"].get_ydata() == pytest.approx(1000 * CURVE.model)
    assert lines["acting on every child"].get_ydata() == pytest.approx(1000 * CURVE.treat_all)
    assert set(lines["acting on no child"].get_ydata()) == {0}
    assert list(lines["frozen threshold 0.400"].get_xdata()) == [0.4, 0.4]
    assert ax.get_ylim()[1] > 200
    assert "Prevalence 20 %" in ax.get_title()
    (band,) = ax.collections
    assert isinstance(band, FillBetweenPolyCollection)
    corners = band.get_paths()[0].vertices
    assert corners[:, 1].min() == pytest.approx(1000 * CURVE.low.min())
    assert corners[:, 1].max() == pytest.approx(1000 * CURVE.high.max())


def test_the_upper_axis_says_what_a_found_child_is_worth() -> None:
    (above,) = plot_decision_curve(CURVE).child_axes
    said = dict(zip(above.get_xticks(), [label.get_text() for label in above.get_xticklabels()], strict=True))
    for threshold, text in said.items():
        worth = float(text) if "/" not in text else 1 / float(text[2:])
        assert (1 - threshold) / threshold == pytest.approx(worth, rel=0.01)


def test_curves_of_one_prevalence_can_be_compared_and_others_not() -> None:
    ax = plot_decision_curve({"one": CURVE, "other": CURVE})
    assert legend_of(ax) == ["acting on every child", "acting on no child", "one", "other"]
    assert ax.lines[2].get_color() != ax.lines[3].get_color()
    other = decision_curve(Y, P, prevalence=0.3, n_bootstrap=10)
    with pytest.raises(DataError, match=r"one prevalence. Received: \[0\.2, 0\.3\]"):
        plot_decision_curve({"one": CURVE, "other": other})
    with pytest.raises(DataError, match="no curve"):
        plot_decision_curve({})
    with pytest.raises(DataError, match=r"told apart\. Received: 5"):
        plot_decision_curve(dict.fromkeys("abcde", CURVE))


def test_calibration_pair_reads_both_diagrams() -> None:
    figure = plot_calibration_pair((Y, P), (Y, P**3, PATIENTS), names=("here", "there"))
    here, there = (title.split("\n") for title in titles(figure))
    assert here[0] == "here, 200 images of 200 patients"
    assert there[0] == "there, 200 images of 100 patients"
    assert here[1] == f"calibration error {bootstrap(Y, P, None, 0.5)['ece']}"
    assert there[1] == f"calibration error {bootstrap(Y, P**3, PATIENTS, 0.5)['ece']}"
    assert there[2] == f"says {100 * (P**3).mean():.0f} % on average, 60 % are ill: too low"
    bars = [ax for ax in figure.axes if ax.get_ylabel() == "images"]
    assert [sum(bar.get_height() for bar in ax.patches) for ax in bars] == [200, 200]


def test_calibration_is_called_wrong_only_where_more_than_chance_is_seen() -> None:
    rng = np.random.default_rng(1)
    p = rng.uniform(0.3, 0.9, 400)
    y = rng.random(400) < p
    right, high = titles(plot_calibration_pair((y, p), (y, p + 0.08)))
    assert right.endswith("right on the whole")
    assert high.endswith("too high")
    # Forty patients of ten images each: a gap that 400 patients would show is no longer shown.
    gap = np.repeat([-0.25, 0.3], [160, 240])
    truth, said = np.tile([True, False], 200), 0.5 + gap
    shown, unshown = titles(plot_calibration_pair((truth, said), (truth, said, np.arange(400) // 10)))
    assert not shown.endswith("right on the whole")
    assert unshown.endswith("right on the whole")


def test_abstention_shows_what_is_promised_kept_and_paid() -> None:
    figure = plot_abstention(list(reversed(MEASURED)))
    kept, paid = figure.axes
    lines = {line.get_label(): line for line in kept.lines}
    assert list(lines["as stated"].get_xdata()) == list(lines["as stated"].get_ydata()) == list(COVERAGES)
    for ax, what in ((kept, "covered"), (paid, "answered")):
        for name in ("normal", "pneumonia"):
            (line,) = (line for line in ax.lines if line.get_label() == f"{name} patients")
            assert list(line.get_xdata()) == list(COVERAGES)
            assert list(line.get_ydata()) == [getattr(result, what)[name].value for result in MEASURED]
    assert legend_of(figure) == ["normal patients", "pneumonia patients", "as stated"]


def test_abstention_says_where_no_answer_fits_and_where_both_do() -> None:
    numbers = {"normal": 9, "pneumonia": 9}
    rules = [
        Abstention(0.7, 0.6, 0.4, numbers),
        Abstention(0.8, 0.5, 0.45, numbers),
        Abstention(0.9, 0.3, 0.6, numbers),
    ]
    results = [measure_abstention(rule, Y, P, n_bootstrap=10) for rule in rules]
    paid = plot_abstention(results).axes[1]
    assert [text.get_text() for text in paid.texts] == ["rest: neither fits", "rest: both fit"]
    assert paid.lines[-1].get_xdata()[0] == pytest.approx(0.85)
    assert [text.get_text() for text in plot_abstention(results[:2]).axes[1].texts] == ["rest: neither fits"]
    late = [measure_abstention(Abstention(c, 0.3, 0.6, numbers), Y[:120], P[:120], n_bootstrap=10) for c in (0.9, 0.95)]
    assert [text.get_text() for text in plot_abstention(late).axes[1].texts] == ["rest: both fit"]


def test_one_coverage_makes_no_curve() -> None:
    with pytest.raises(DataError, match=r"two or more coverages. Received: \[0\.7\]"):
        plot_abstention(MEASURED[:1])
