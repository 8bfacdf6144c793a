"""Figures of an audit: how well shortcuts tell the label, and how the labels differ in size, encoding and tone."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pneumolib.errors import DataError
from pneumolib.evaluation.style import BLUE, BROWN, COLOURS, GRAY, ORANGE, PINK, SKY, YELLOW, axes, style, titled

FACTS = {  # what `plot_facts` draws: the name on the axis, and what a value is divided by
    "n_bytes": ("file size, kB", 1000.0),
    "jpeg_quality": ("JPEG quality", 1.0),
    "mean": ("mean gray value", 1.0),
    "contrast": ("contrast (deviation of gray values)", 1.0),
}
_SPLITS = ("train", "val", "test")


def plot_shortcuts(baselines: pd.DataFrame, *, ax: Axes | None = None, phantom: bool = False) -> Axes:
    """Return a row for each baseline: its AUC cross-validated on train, and on test, joined by a line.

    Args:
        baselines: from `shortcut_baselines`: the columns features, auc_cv_train and auc_test, each 0..1 or NaN.
        ax: where to draw; None makes a figure.
        phantom: say PHANTOM in the title.

    Raises:
        DataError: a column is missing, or there is no row.

    Example:
        >>> row = {"features": "JPEG quality", "auc_cv_train": 0.9995, "auc_test": 0.4513}
        >>> ax = plot_shortcuts(pd.DataFrame([row]))
        >>> ax.get_yticklabels()[0].get_text()
        'JPEG quality'
        >>> plt.close(ax.figure)
    """
    _check(baselines, ("features", "auc_cv_train", "auc_test"))
    at = np.arange(len(baselines))
    train, test = (baselines[column].to_numpy(dtype=float) for column in ("auc_cv_train", "auc_test"))
    with axes(ax, (7.0, 1.6 + 0.32 * len(baselines))) as ax:
        ax.axvline(0.5, color=GRAY, ls=":", lw=1.5, zorder=0)
        ax.hlines(at, train, test, color=GRAY, lw=2, alpha=0.5, zorder=1)
        ax.plot(train, at, "o", ms=11, mec="white", color=BLUE, label="cross-validated on train", zorder=2)
        if not np.isnan(test).all():
            ax.plot(test, at, "D", ms=6, mec="white", color=ORANGE, label="on test", zorder=3)
        ax.set_yticks(at, baselines["features"].tolist())
        low = min(0.4, float(np.fmin.reduce([*train, *test], initial=0.5)) - 0.05)
        ax.set(xlim=(low, 1.02), ylim=(len(at) - 0.5, -0.5), xlabel="AUC (0.5: guessing)")
        ax.set_title(titled("How well shortcuts tell the label", phantom), pad=30)
        ax.grid(visible=False, axis="y")
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    return ax


def plot_sizes(facts: pd.DataFrame, *, phantom: bool = False) -> Figure:
    """Return a panel for each part with a dot for each file, at its width and height in pixels.

    Args:
        facts: a row for each file: the columns split, label, width and height.
        phantom: say PHANTOM in the title.

    Raises:
        DataError: a column is missing, or there is no row.
    """
    _check(facts, ("split", "label", "width", "height"))
    splits, colours = _splits(facts), _colours(facts)
    with style("whitegrid"):
        figure, panels = plt.subplots(
            1, len(splits), figsize=(2.2 + 2.8 * len(splits), 3.4), sharex=True, sharey=True, layout="constrained",
            squeeze=False,
        )  # fmt: skip
        for ax, split in zip(panels[0], splits, strict=True):
            part = facts[facts["split"] == split]
            for label, colour in colours.items():
                mine = part[part["label"] == label]
                look = {"ms": 3.0, "alpha": 0.5, "mew": 0, "color": colour, "label": label}
                ax.plot(mine["width"].to_numpy(), mine["height"].to_numpy(), "o", **look)
            ax.set(title=f"{split} ({len(part):,})", xlabel="width, pixels")
            ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        panels[0][0].set_ylabel("height, pixels")
        _finish(figure, titled("Size of the files", phantom))
    return figure


def plot_facts(facts: pd.DataFrame, columns: Sequence[str] | None = None, *, phantom: bool = False) -> Figure:
    """Return a row of panels for each fact, one for each part: what share of each label's files has which value.

    Args:
        facts: a row for each file: split, label, and numbers.
        columns: which numbers; None takes those of `FACTS` that are there and not the same in all files.
        phantom: say PHANTOM in the title.

    Raises:
        DataError: a column is missing, or there is no row or nothing to draw.
    """
    _check(facts, ("split", "label", *(columns or ())))
    if columns is None:
        columns = varying(facts)
    if not columns:
        raise DataError(
            f"There is nothing to draw. Allowed: columns such as {', '.join(FACTS)}. Received: none of them"
        )
    splits, colours = _splits(facts), _colours(facts)
    with style("whitegrid"):
        figure, grid = plt.subplots(
            len(columns), len(splits), figsize=(2.2 + 2.8 * len(splits), 0.8 + 1.8 * len(columns)), sharex="row",
            layout="constrained", squeeze=False,
        )  # fmt: skip
        for row, column in zip(grid, columns, strict=True):
            name, unit = FACTS.get(column, (column, 1.0))
            values = facts[column].to_numpy(dtype=float) / unit
            known = values[~np.isnan(values)]
            low, high = (known.min(), known.max()) if len(known) else (0.0, 1.0)
            # One value throughout still needs a bin with a width.
            bins = np.linspace(low, high, 31) if high > low else np.array([low - 0.5, low + 0.5])
            for ax, split in zip(row, splits, strict=True):
                for label, colour in colours.items():
                    mine = values[((facts["split"] == split) & (facts["label"] == label)).to_numpy()]
                    mine = mine[~np.isnan(mine)]
                    weights = np.full(len(mine), 1 / max(1, len(mine)))
                    shape = {"bins": bins.tolist(), "weights": weights, "color": colour}
                    ax.hist(mine, histtype="stepfilled", alpha=0.2, **shape)
                    ax.hist(mine, histtype="step", lw=1.8, label=label, **shape)
                ax.set_xlabel(name)
                ax.xaxis.set_major_locator(MaxNLocator(4))
                ax.yaxis.set_major_locator(MaxNLocator(3))
                ax.yaxis.set_major_formatter("{x:.0%}")
            row[0].set_ylabel("share of files")
        for ax, split in zip(grid[0], splits, strict=True):
            ax.set_title(split)
        _finish(figure, titled("How the labels differ without medicine", phantom))
    return figure


def varying(facts: pd.DataFrame) -> list[str]:
    """Return those of `FACTS` that a table holds and that are not the same in all its rows."""
    return [column for column in FACTS if column in facts and facts[column].nunique() > 1]


def _check(table: pd.DataFrame, columns: Sequence[str]) -> None:
    missing = [column for column in columns if column not in table]
    if missing or table.empty:
        what = f"a table without {', '.join(missing)}" if missing else "an empty table"
        raise DataError(f"This figure needs rows with {', '.join(columns)}. Received: {what}")


def _splits(facts: pd.DataFrame) -> list[str]:
    present = set(facts["split"])
    return [split for split in _SPLITS if split in present] + sorted(present - set(_SPLITS))


def _colours(facts: pd.DataFrame) -> dict[str, tuple[float, ...]]:
    """The colour of each label, those known first."""
    present = set(facts["label"])
    others = [SKY, PINK, BROWN, YELLOW, GRAY]
    unknown = sorted(present - set(COLOURS))
    colours = {label: COLOURS[label] for label in COLOURS if label in present}
    return colours | {label: others[i % len(others)] for i, label in enumerate(unknown)}


def _finish(figure: Figure, title: str) -> None:
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.suptitle(title)
    legend = figure.legend(
        handles, labels, loc="outside lower center", ncols=min(4, len(labels)), frameon=False, markerscale=2
    )
    for mark in legend.legend_handles:
        if mark is not None:
            mark.set_alpha(1)
