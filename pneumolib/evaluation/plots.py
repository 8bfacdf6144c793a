"""Figures of an evaluation. Each takes arrays and an optional `ax` and returns the `Axes` (grids: the `Figure`).

Nothing is changed for figures drawn elsewhere, and nothing is shown: end a cell with ``plt.show()``. The colours can be
told apart with every kind of colour vision. With ``phantom=True`` the title begins with PHANTOM.

Example:
    >>> ax = plot_counts({"train": {"NORMAL": 1341, "PNEUMONIA": 3875}}, phantom=True)
    >>> ax.get_title()
    'PHANTOM: Images in each part'
    >>> plt.close(ax.figure)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from pneumolib.errors import DataError
from pneumolib.evaluation.audit_plots import plot_facts as plot_facts
from pneumolib.evaluation.audit_plots import plot_shortcuts as plot_shortcuts
from pneumolib.evaluation.audit_plots import plot_sizes as plot_sizes
from pneumolib.evaluation.calibration import OperatingPoint
from pneumolib.evaluation.consequence_plots import plot_abstention as plot_abstention
from pneumolib.evaluation.consequence_plots import plot_calibration_pair as plot_calibration_pair
from pneumolib.evaluation.consequence_plots import plot_consequences as plot_consequences
from pneumolib.evaluation.consequence_plots import plot_decision_curve as plot_decision_curve
from pneumolib.evaluation.galleries import plot_errors as plot_errors
from pneumolib.evaluation.galleries import plot_images as plot_images
from pneumolib.evaluation.heatmaps import plot_heatmap as plot_heatmap
from pneumolib.evaluation.heatmaps import plot_heatmap_gallery as plot_heatmap_gallery
from pneumolib.evaluation.metrics import bin_of, bootstrap, checked, ece, wilson
from pneumolib.evaluation.report import Report
from pneumolib.evaluation.robustness_plots import plot_stress as plot_stress
from pneumolib.evaluation.style import (
    BLUE,
    BROWN,
    COLOURS,
    GRAY,
    ORANGE,
    PINK,
    SKY,
    YELLOW,
    axes,
    style,
    threshold_of,
    titled,
)


def plot_roc(
    y_true: ArrayLike,
    p: ArrayLike,
    *,
    patients: ArrayLike | None = None,
    operating_point: OperatingPoint | float | None = None,
    ax: Axes | None = None,
    phantom: bool = False,
    label: str | None = None,
) -> Axes:
    """Return the ROC curve with its AUC and interval in the legend, and a mark at the operating point on these data.

    Args:
        y_true: bool or 0/1 [N], both classes present.
        p: probability of pneumonia, float [N] in 0..1.
        patients: the patient of each image, for the interval; None makes each image its own patient.
        operating_point: a threshold chosen beforehand.
        ax: where to draw; None makes a figure. A second curve may be drawn into the same Axes.
        phantom: say PHANTOM in the title.
        label: of the curve.

    Raises:
        DataError: see `metrics.checked`; or only one class is present.
    """
    truth, values, rates = _curve(y_true, p)
    area = bootstrap(truth, values, None if patients is None else np.asarray(patients), 0.5)["auc"]
    with axes(ax, (5.4, 5.2)) as ax:
        x, y = 1 - rates["specificity"], rates["sensitivity"]
        (line,) = ax.plot(x, y, lw=2, clip_on=False, label=f"{label + ': ' if label else ''}AUC {area}")
        ax.axline((0, 0), slope=1, color=GRAY, ls=":", lw=1)
        if operating_point is not None:
            name, cut = threshold_of(operating_point)
            at = float((values[~truth] >= cut).mean()), float((values[truth] >= cut).mean())
            text = f"{name} {cut:.3f}:\nsensitivity {at[1]:.3f}, specificity {1 - at[0]:.3f}"
            ax.plot(*at, "o", ms=8, mec="white", color=line.get_color(), clip_on=False, zorder=5, label=text)
        ax.set(xlabel="1 - specificity (normal called pneumonia)", ylabel="sensitivity (pneumonia found)")
        ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", title=titled("ROC curve", phantom))
        ax.legend(loc="lower right")
    return ax


def plot_precision_recall(
    y_true: ArrayLike,
    p: ArrayLike,
    *,
    patients: ArrayLike | None = None,
    operating_point: OperatingPoint | float | None = None,
    ax: Axes | None = None,
    phantom: bool = False,
    label: str | None = None,
) -> Axes:
    """Return the precision-recall curve with its average precision, beside the share of pneumonia (a blind guess).

    Args and raises as `plot_roc`.
    """
    truth, values, rates = _curve(y_true, p)
    area = bootstrap(truth, values, None if patients is None else np.asarray(patients), 0.5)["average_precision"]
    share = float(truth.mean())
    with axes(ax, (5.4, 5.2)) as ax:
        text = f"{label + ': ' if label else ''}average precision\n{area}"
        (line,) = ax.step(rates["sensitivity"], rates["precision"], where="pre", lw=2, clip_on=False, label=text)
        ax.axhline(share, color=GRAY, ls=":", lw=1, label=f"blind guess {share:.3f}")
        if operating_point is not None:
            name, cut = threshold_of(operating_point)
            called = values >= cut
            if called.any():
                at = float(called[truth].mean()), float(truth[called].mean())
                text = f"{name} {cut:.3f}:\nsensitivity {at[0]:.3f}, precision {at[1]:.3f}"
                ax.plot(*at, "o", ms=8, mec="white", color=line.get_color(), clip_on=False, zorder=5, label=text)
        ax.set(xlabel="recall (sensitivity: pneumonia found)", ylabel="precision (called pneumonia, and is)")
        ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", title=titled("Precision and recall", phantom))
        ax.legend(loc="lower left")
    return ax


def plot_reliability(
    y_true: ArrayLike, p: ArrayLike, *, bins: int = 10, ax: Axes | None = None, phantom: bool = False
) -> Axes:
    """Return the reliability diagram: the share of pneumonia against the probability, and images per bin below.

    Bars are Wilson's 95 % intervals, for images; a calibrated detector lies on the diagonal.

    Args:
        y_true: bool or 0/1 [N].
        p: probability of pneumonia, float [N] in 0..1.
        bins: of equal width; empty ones are left out.
        ax: where to draw, from `plt.subplots`; the histogram takes the lower fifth of its place.
        phantom: say PHANTOM in the title.

    Raises:
        DataError: see `metrics.checked`; or there is no bin; or `ax` is no subplot.
    """
    truth, values = checked(y_true, p)
    where = bin_of(values, bins)
    used = np.unique(where)
    shares = [wilson(int(truth[where == b].sum()), int((where == b).sum())) for b in used]
    middle = [float(values[where == b].mean()) for b in used]
    height = [s.value for s in shares]
    whiskers = [[s.value - s.low for s in shares], [s.high - s.value for s in shares]]
    with axes(ax, (5.4, 6.0)) as ax:
        ax.axline((0, 0), slope=1, color=GRAY, ls=":", lw=1, label="calibrated")
        text = f"calibration error {ece(truth, values):.3f}"
        ax.errorbar(middle, height, whiskers, fmt="o-", color=BLUE, ecolor=SKY, capsize=3, clip_on=False, label=text)
        ax.set(xlim=(0, 1), ylim=(0, 1), ylabel="observed share of pneumonia")
        ax.set_title(titled("Reliability", phantom))
        ax.tick_params(labelbottom=False)
        ax.legend(loc="upper left")
        place = ax.get_subplotspec()
        if place is None:
            raise DataError(
                "The reliability diagram needs Axes of `plt.subplots`, to share their place. Received: others"
            )
        rows = place.subgridspec(2, 1, height_ratios=(4, 1), hspace=0.06)
        ax.set_subplotspec(rows[0])
        below = ax.figure.add_subplot(rows[1], sharex=ax)
        below.hist(values, bins=np.linspace(0, 1, bins + 1).tolist(), color=SKY, edgecolor="white")
        below.set(xlabel="predicted probability of pneumonia", ylabel="images")
        below.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    return ax


def plot_confusion(result: Report | Mapping[str, int], *, ax: Axes | None = None, phantom: bool | None = None) -> Axes:
    """Return the four numbers of images, truth by decision, each with its share of the row.

    Args:
        result: a `Report`, or a mapping with the numbers "tn", "fp", "fn", "tp".
        ax: where to draw; None makes a figure.
        phantom: say PHANTOM in the title; None takes it from the report.

    Raises:
        DataError: a number is missing.
    """
    counts = result.confusion if isinstance(result, Report) else result
    if not {"tn", "fp", "fn", "tp"} <= set(counts):
        raise DataError(f"A confusion needs the numbers tn, fp, fn and tp. Received: {sorted(counts)}")
    if phantom is None:
        phantom = isinstance(result, Report) and result.phantom
    table = np.array([[counts["tn"], counts["fp"]], [counts["fn"], counts["tp"]]])
    share = table / np.maximum(table.sum(1, keepdims=True), 1)
    text = [[f"{n}\n{s:.1%}" for n, s in zip(*row, strict=True)] for row in zip(table, share, strict=True)]
    names = ["normal", "pneumonia"]
    with axes(ax, (4.6, 4.2), look="white") as ax:
        sns.heatmap(
            share, annot=np.array(text), fmt="", cmap="Blues", vmin=0, vmax=1, square=True, cbar=False,
            linewidths=2, xticklabels=names, yticklabels=names, annot_kws={"fontsize": 14}, ax=ax,
        )  # fmt: skip
        ax.set(xlabel="called", ylabel="truth", title=titled("Confusion", phantom))
    return ax


def plot_scores(
    p: ArrayLike,
    subtypes: ArrayLike,
    *,
    threshold: OperatingPoint | float | None = None,
    bins: int = 40,
    ax: Axes | None = None,
    phantom: bool = False,
) -> Axes:
    """Return a histogram of the probabilities for each subtype, with the threshold as a line.

    The counts are on a logarithmic scale: most images lie at the ends, and the interesting ones in between.

    Args:
        p: probability of pneumonia, float [N] in 0..1.
        subtypes: "normal", "bacterial", "viral" or other names [N].
        threshold: chosen beforehand.
        bins: of equal width.
        ax: where to draw; None makes a figure.
        phantom: say PHANTOM in the title.

    Raises:
        DataError: see `metrics.checked`.
    """
    kinds = np.asarray(subtypes).astype(str)
    _, values = checked(kinds != "normal", p)
    present = set(kinds.tolist())
    order = [name for name in COLOURS if name in present] + sorted(present - set(COLOURS))
    with axes(ax, (7.0, 4.0)) as ax:
        for name in order:
            mine = values[kinds == name]
            shape = {"color": COLOURS.get(name, GRAY), "bins": np.linspace(0, 1, bins + 1).tolist(), "log": True}
            ax.hist(mine, histtype="stepfilled", alpha=0.15, **shape)
            ax.hist(mine, histtype="step", lw=2, label=f"{name} (n = {len(mine)})", **shape)
        if threshold is not None:
            name, cut = threshold_of(threshold)
            ax.axvline(cut, color="black", ls="--", lw=1.5, label=f"{name} {cut:.3f}")
        ax.set(xlabel="predicted probability of pneumonia", ylabel="images (logarithmic)", xlim=(0, 1))
        ax.set_title(titled("Scores by subtype", phantom))
        ax.set_ylim(bottom=0.7)
        ax.yaxis.set_major_formatter("{x:g}")
        ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def plot_counts(
    counts: pd.DataFrame | Mapping[str, Mapping[str, int]], *, ax: Axes | None = None, phantom: bool = False
) -> Axes:
    """Return a group of bars for each row of `counts`, a bar for each column, the number written above it.

    Args:
        counts: rows such as the parts of a data set, columns such as the classes; or a mapping of mappings, as
            `Dataset.counts` gives it. The known classes come first.
        ax: where to draw; None makes a figure.
        phantom: say PHANTOM in the title.

    Raises:
        DataError: there is nothing to count.
    """
    table = counts if isinstance(counts, pd.DataFrame) else pd.DataFrame.from_dict(counts, orient="index")
    if table.empty:
        raise DataError("There is nothing to draw: the table of counts needs rows and columns. Received: an empty one")
    known = [name for name in COLOURS for column in table.columns if name == column]
    table = table[known + [column for column in table.columns if column not in known]].fillna(0).astype(int)
    width = 0.8 / table.shape[1]
    others = iter((SKY, PINK, BROWN, YELLOW, GRAY))
    with axes(ax, (max(5.0, 1.1 + 0.6 * table.size), 4.0)) as ax:
        for i, column in enumerate(table.columns):
            colour = COLOURS.get(str(column).lower()) or next(others, GRAY)
            at = np.arange(len(table)) + (i - (table.shape[1] - 1) / 2) * width
            bars = ax.bar(at, table[column], width * 0.95, color=colour, label=str(column))
            ax.bar_label(bars, fmt="{:,.0f}", padding=2, fontsize="small")
        ax.set_xticks(np.arange(len(table)), [str(name) for name in table.index])
        ax.set(xlabel=str(table.index.name or ""), ylabel="images", title=titled("Images in each part", phantom))
        ax.yaxis.set_major_locator(MaxNLocator(integer=True))
        ax.yaxis.set_major_formatter("{x:,.0f}")
        ax.grid(visible=False, axis="x")
        ax.margins(y=0.1)
        ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def plot_history(history: Sequence[Mapping[str, float]], *, phantom: bool = False) -> Figure:
    """Return two panels over the epochs: the losses, and the AUC on validation and on shifted validation.

    Args:
        history: one mapping for each epoch, with "epoch" and any of "loss", "val_loss", "shifted_loss", "val_auc",
            "shifted_auc"; as `Run.history` holds it.
        phantom: say PHANTOM in the titles.

    Raises:
        DataError: there is no epoch, or an epoch has no number.
    """
    table = pd.DataFrame(list(history))
    if table.empty or "epoch" not in table:
        raise DataError(f"A history needs at least one epoch, with its number. Received: columns {list(table)}")
    names = {"": ("training", GRAY), "val_": ("validation", BLUE), "shifted_": ("shifted validation", ORANGE)}
    with style("whitegrid"):
        figure, panels = plt.subplots(1, 2, figsize=(9.5, 3.8), layout="constrained")
        for ax, key, name in zip(panels, ("loss", "auc"), ("loss", "AUC"), strict=True):
            for prefix, (text, colour) in names.items():
                if prefix + key in table:
                    ax.plot(table["epoch"], table[prefix + key], "o-", ms=3.5, color=colour, label=text)
            ax.set(xlabel="epoch", ylabel=name, title=titled(f"{name[0].upper()}{name[1:]}", phantom))
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
            if ax.lines:
                ax.legend(loc="best")
    return figure


def _curve(y_true: ArrayLike, p: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float64], dict[str, Any]]:
    """Truth and probabilities, and the rates at every threshold, from calling all normal to calling all pneumonia."""
    truth, values = checked(y_true, p)
    if truth.all() or not truth.any():
        raise DataError("A curve needs images of both classes. Received: only one class")
    order = np.argsort(-values, kind="stable")
    last = np.append(np.flatnonzero(np.diff(values[order])), len(values) - 1)  # one step for each distinct value
    tp, fp = np.cumsum(truth[order])[last], np.cumsum(~truth[order])[last]
    precision = tp / (tp + fp)
    return truth, values, {
        "sensitivity": np.append(0, tp / truth.sum()),
        "specificity": np.append(1, 1 - fp / (~truth).sum()),
        "precision": np.append(precision[0], precision),
    }  # fmt: skip
