"""Figures of what an answer leads to: children found and missed, net benefit, calibration elsewhere, and abstention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import ArrayLike, NDArray

from pneumolib.errors import DataError
from pneumolib.evaluation.abstention import CLASSES, AbstentionResult
from pneumolib.evaluation.consequences import GROUPS, Consequences, DecisionCurve, percent
from pneumolib.evaluation.metrics import Bools, Floats, Interval, bootstrap, checked
from pneumolib.evaluation.shares import patient_numbers
from pneumolib.evaluation.style import BLUE, BROWN, COLOURS, GRAY, GREEN, ORANGE, PURPLE, axes, style, titled

MOST_ICONS = 2000
_ROWS = 20
_GAP = 1.5  # columns between the ill and the healthy
_TURN = 2 * np.pi * np.arange(24) / 24
_DOT = 0.36 * np.stack([np.cos(_TURN), np.sin(_TURN)], axis=1)
_DIAMOND = 0.5 * np.array([[0, 1], [1, 0], [0, -1], [-1, 0]])
_CROSS = 0.23 * np.array([[0, 1], [1, 2], [2, 1], [1, 0], [2, -1], [1, -2], [0, -1], [-1, -2], [-2, -1], [-1, 0],
                          [-2, 1], [-1, 2]])  # fmt: skip
# Words, colour, and shape: drawn in the picture in units of the grid, in the legend as a mark.
_ICONS = {
    "found": ("found", BLUE, _DOT, "o"),
    "missed": ("missed", (0.0, 0.0, 0.0), _CROSS, "X"),
    "alarmed": ("alarmed for nothing", ORANGE, _DIAMOND, "D"),
    "left_alone": ("rightly left alone", (0.82, 0.82, 0.82), _DOT, "o"),
}
_Set = tuple[ArrayLike, ArrayLike] | tuple[ArrayLike, ArrayLike, ArrayLike | None]


def plot_consequences(result: Consequences, *, ax: Axes | None = None, phantom: bool | None = None) -> Axes:
    """Return a mark for each child, the ill left of the healthy; the missed and the false alarms differ in shape too.

    Args:
        result: as `consequences` gives it, of 2,000 children at most.
        ax: where to draw; None makes a figure.
        phantom: say PHANTOM in the title; None takes it from the result.

    Raises:
        DataError: there are too many children to draw.
    """
    if result.n > MOST_ICONS:
        raise DataError(f"The picture has room for {MOST_ICONS:,} children: ask for n=1000. Received: n={result.n:,}")
    children = result.children
    ill = children["found"] + children["missed"]
    rows = min(_ROWS, max(5, result.n // 10))
    # The healthy begin a new column, so that the two blocks can be told apart and counted.
    start = -(-ill // rows) + (_GAP if ill and ill < result.n else 0)
    place = np.arange(result.n)
    column = np.where(place < ill, place // rows, start + (place - ill) // rows)
    row = np.where(place < ill, place % rows, (place - ill) % rows)
    spots = np.stack([column, row], axis=1)
    right = float(column.max()) + 0.5
    name = f"{result.name[0].upper()}{result.name[1:]}: ".replace("_", " ") if result.name else ""
    alarm = "no alarm" if np.isnan(result.ppv) else f"an alarm is right in {result.share('ppv')}"
    title = f"{name}prevalence {100 * result.prevalence:.3g} %, {alarm}"
    with axes(ax, (8.6, 5.0), look="white") as ax:
        first = 0
        handles = []
        for group in GROUPS:
            words, colour, shape, mark = _ICONS[group]
            mine = spots[first : first + children[group]]
            first += children[group]
            ax.add_collection(PolyCollection(mine[:, None] + shape, facecolor=[colour], lw=0, label=group))
            text = f"{result.count(group)} {words}"
            handles.append(Line2D([], [], ls="", marker=mark, ms=8, mew=0, color=colour, label=text))
        ax.text(-0.5, -0.9, f"{ill:,} with pneumonia", ha="left", va="bottom", fontweight="bold")
        ax.text(right, -0.9, f"{result.n - ill:,} healthy", ha="right", va="bottom", fontweight="bold")
        ax.set(xlim=(-0.7, right + 0.2), ylim=(rows - 0.3, -2.4), aspect="equal", xticks=[], yticks=[])
        ax.set_xlabel(f"each mark is one of {result.n:,} children")
        for side in ax.spines.values():
            side.set_visible(False)
        ax.set_title(titled(title, result.phantom if phantom is None else phantom))
        ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.09), ncols=2, frameon=False)
    return ax


def plot_decision_curve(
    curves: DecisionCurve | Mapping[str, DecisionCurve],
    *,
    operating_point: float | None = None,
    ax: Axes | None = None,
    phantom: bool = False,
) -> Axes:
    """Return the net benefit per 1,000 children at each threshold, beside acting on every child and on none.

    The upper axis says what the threshold means: how many alarms for nothing one found child is worth.

    Args:
        curves: as `decision_curve` gives it; or up to four of one prevalence, by the name to show.
        operating_point: a threshold chosen beforehand, 0..1, on the scale of these probabilities; drawn as a line.
        ax: where to draw; None makes a figure.
        phantom: say PHANTOM in the title.

    Raises:
        DataError: no curve, more than four, or curves of different prevalences, whose net benefits cannot be compared.
    """
    named = {"acting on the detector": curves} if isinstance(curves, DecisionCurve) else dict(curves)
    shares = {round(curve.prevalence, 9) for curve in named.values()}
    if len(shares) != 1:
        raise DataError(f"Decision curves to compare need one prevalence. Received: {sorted(shares) or 'no curve'}")
    colours = (BLUE, GREEN, PURPLE, BROWN)
    if len(named) > len(colours):
        raise DataError(f"More than {len(colours)} curves cannot be told apart. Received: {len(named)}")
    first = next(iter(named.values()))
    per = 1000.0
    with axes(ax, (7.4, 5.2)) as ax:
        ax.plot(first.thresholds, per * first.treat_all, "--", color=ORANGE, lw=1.8, label="acting on every child")
        ax.axhline(0, color="black", lw=1.8, label="acting on no child")
        for colour, (name, curve) in zip(colours, named.items(), strict=False):
            ax.fill_between(curve.thresholds, per * curve.low, per * curve.high, color=colour, alpha=0.18, lw=0)
            ax.plot(curve.thresholds, per * curve.model, color=colour, lw=2, label=name)
        if operating_point is not None:
            ax.axvline(operating_point, color=GRAY, ls=":", lw=1.5, label=f"frozen threshold {operating_point:.3f}")
        best = per * first.prevalence
        ax.set(xlim=(0, float(first.thresholds.max())), ylim=(-0.35 * best, 1.08 * best))
        ax.set_xlabel("threshold: act from this probability of pneumonia on")
        ax.set_ylabel("net benefit, per 1,000 children")
        above = ax.secondary_xaxis("top")
        ticks = {0.05: "19", 0.1: "9", 0.2: "4", 0.333: "2", 0.5: "1", 0.667: "1/2", 0.8: "1/4", 0.9: "1/9"}
        above.set_xticks(list(ticks), list(ticks.values()))
        above.set_xlabel("alarms for nothing that one found child is worth")
        ax.set_title(titled(f"Is acting on it worth it? Prevalence {100 * first.prevalence:.3g} %", phantom), pad=12)
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, frameon=False)
    return ax


def plot_calibration_pair(
    validation: _Set,
    test: _Set,
    *,
    names: tuple[str, str] = ("validation", "test"),
    bins: int = 10,
    phantom: bool = False,
) -> Figure:
    """Return the reliability diagrams of two sets side by side, each with its reading above.

    The reading holds the calibration error with its interval from resampled patients, and whether the probabilities are
    too high or too low on the whole, where more than chance is to be seen (an interval from the spread of patients).

    Args:
        validation: truth, bool or 0/1 [N]; probability of pneumonia, float [N] in 0..1; and, if known, the patient of
            each image [N]. The set that the temperature was fitted on.
        test: the same of a set on which nothing was fitted.
        names: of the two sets.
        bins: of equal width; empty ones are left out.
        phantom: say PHANTOM in the titles.

    Raises:
        DataError: see `metrics.checked`; or `patients` of another length.
    """
    # `plots` shows the figures of this file under its own name, so this file cannot import it at its top.
    from pneumolib.evaluation.plots import plot_reliability

    with style("whitegrid"):
        figure, panels = plt.subplots(1, 2, figsize=(10.5, 5.6), layout="constrained")
        for ax, name, part in zip(panels, names, (validation, test), strict=True):
            truth, values = checked(part[0], part[1])
            patient = patient_numbers(part[2] if len(part) > 2 else None, len(truth))
            plot_reliability(truth, values, bins=bins, ax=ax)
            error = bootstrap(truth, values, patient, 0.5)["ece"]
            head = titled(f"{name}, {len(truth):,} images of {len(np.unique(patient)):,} patients", phantom)
            ax.set_title(f"{head}\ncalibration error {error}\n{_reading(truth, values, patient)}", fontsize=11)
            legend = ax.get_legend()
            if legend is not None:
                legend.remove()
        figure.supxlabel("dotted: probabilities that mean what they say; bars: 95 % intervals for images", fontsize=10)
    return figure


def plot_abstention(results: Sequence[AbstentionResult], *, phantom: bool = False) -> Figure:
    """Return two panels over the stated coverage: the coverage measured, and the share of patients that get an answer.

    Bands are 95 % intervals. Where a curve lies below the dotted line with its whole band, the promise is not kept.

    Args:
        results: as `measure_abstention` gives them, at two or more stated coverages.
        phantom: say PHANTOM in the titles.

    Raises:
        DataError: fewer than two coverages.
    """
    rows = sorted(results, key=lambda result: result.rule.coverage)
    stated = np.array([result.rule.coverage for result in rows])
    if len(np.unique(stated)) < 2:
        raise DataError(f"A curve needs results at two or more coverages. Received: {stated.tolist()}")
    with style("whitegrid"):
        figure, panels = plt.subplots(1, 2, figsize=(10, 4.4), layout="constrained")
        for ax, what in zip(panels, ("covered", "answered"), strict=True):
            for name, mark in zip(CLASSES, "os", strict=True):
                found = [getattr(result, what)[name] for result in rows]
                value, low, high = _columns(found)
                colour = COLOURS[name]
                ax.fill_between(stated, low, high, color=colour, alpha=0.18, lw=0)
                ax.plot(stated, value, mark + "-", ms=5, color=colour, label=f"{name} patients")
            ax.set_xlabel("coverage stated, fitted on validation")
            ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
            ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
            ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
            ax.set_xlim(stated[0], stated[-1])
        panels[0].plot(stated, stated, ":", color="black", lw=1.5, label="as stated")
        panels[0].set(ylabel="coverage measured here", title=titled("Is the promise kept?", phantom))
        panels[0].set_ylim(top=1.01)
        panels[1].set(ylabel="patients that get an answer", title=titled("What it costs", phantom), ylim=(0, 1.03))
        _mark_reasons(panels[1], rows, stated)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def _reading(truth: Bools, p: Floats, patient: NDArray[np.intp]) -> str:
    """What the probabilities say on average against how many are ill, and whether more than chance is between."""
    surplus = p - truth
    gap = float(surplus.mean())
    # Images of one patient err together, so their deviations are added up before they are squared.
    error = float((np.bincount(patient, surplus - gap) ** 2).sum() ** 0.5 / len(p))
    verdict = "right on the whole" if abs(gap) <= 1.96 * error else "too high" if gap > 0 else "too low"
    return f"says {percent(float(p.mean()))} on average, {percent(float(truth.mean()))} are ill: {verdict}"


def _columns(intervals: Sequence[Interval | None]) -> tuple[Floats, Floats, Floats]:
    rows = [(np.nan,) * 3 if i is None else (i.value, i.low, i.high) for i in intervals]
    value, low, high = np.array(rows, dtype=np.float64).T
    return value, low, high


def _mark_reasons(ax: Axes, rows: Sequence[AbstentionResult], stated: Floats) -> None:
    """Say for which coverages it abstains because no answer is possible, and for which because both are."""
    neither = np.array([row.rule.pneumonia_from > row.rule.normal_up_to for row in rows])
    # A higher coverage widens both sets, so the coverages with neither come first.
    edge = float(
        stated[0] if not neither.any() else stated[-1] if neither.all() else stated[neither.sum() - 1 :][:2].mean()
    )
    for low, high, text in ((stated[0], edge, "rest: neither fits"), (edge, stated[-1], "rest: both fit")):
        if high > low:
            ax.text((low + high) / 2, 0.03, text, ha="center", va="bottom", color="dimgray", fontsize=9)
    if stated[0] < edge < stated[-1]:
        ax.axvline(edge, color="dimgray", ls="--", lw=1)
