"""The figure of a stress test: what a detector keeps of its AUC and accuracy under each change of the picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from pneumolib.errors import DataError
from pneumolib.evaluation.style import BLUE, GRAY, ORANGE, axes, titled

UNTOUCHED = "untouched"
# Name, colour, mark, place beside the middle of the row, and where in the width a value beyond the axis is written.
_DRAWN = {"auc": ("AUC", BLUE, "o", -0.16, 0.14), "accuracy": ("accuracy", ORANGE, "D", 0.16, 0.03)}


def plot_stress(
    table: pd.DataFrame | Mapping[str, Any], *, ax: Axes | None = None, phantom: bool | None = None
) -> Axes:
    """Return a row for each stress with a mark at the AUC and one at the accuracy, and lines where untouched ones are.

    Values far below the others are written in arrows at the left edge.

    Args:
        table: as `StressTable.to_frame` or `StressTable.to_dict` gives it: a row for each stress with group, label, auc
            and accuracy, each 0..1, and one row of the group "untouched".
        ax: where to draw; None makes a figure that is as high as the rows need.
        phantom: say PHANTOM in the title; None takes it from a dictionary.

    Raises:
        DataError: a column, the untouched row or the stresses are missing.
    """
    rows = table if isinstance(table, pd.DataFrame) else pd.DataFrame(list(table.get("rows", [])))
    if phantom is None:
        phantom = not isinstance(table, pd.DataFrame) and bool(table.get("phantom"))
    missing = {"group", "label", *_DRAWN} - set(rows.columns)
    if missing:
        raise DataError(f"A stress table needs the columns group, label, auc and accuracy. Missing: {sorted(missing)}")
    plain, stressed = rows[rows["group"] == UNTOUCHED], rows[rows["group"] != UNTOUCHED]
    if len(plain) != 1 or stressed.empty:
        raise DataError(
            "A stress table needs one untouched row and at least one stress. "
            f"Received: {len(plain)} untouched, {len(stressed)} stresses"
        )
    groups = list(dict.fromkeys(stressed["group"]))
    # Half a row of air between the groups.
    at = np.arange(len(stressed)) + 0.5 * np.array([groups.index(group) for group in stressed["group"]])
    values = {column: stressed[column].astype(float).to_numpy() for column in _DRAWN}
    reference = {column: float(plain[column].astype(float).iloc[0]) for column in _DRAWN}
    low, high = _range(values, reference)
    with axes(ax, (7.4, 1.5 + 0.21 * (float(at[-1]) + 1))) as ax:
        for i, group in enumerate(groups):
            mine = at[(stressed["group"] == group).to_numpy()]
            if i % 2 == 0:
                ax.axhspan(mine[0] - 0.75, mine[-1] + 0.75, color=GRAY, alpha=0.1, lw=0, zorder=0)
        for column, (name, colour, mark, beside, place) in _DRAWN.items():
            label = f"{name}, untouched {reference[column]:.3f}"
            ax.axvline(reference[column], color=colour, ls="--", lw=1.2, zorder=1)
            shown = values[column]
            ax.hlines(at + beside, np.maximum(shown, low), reference[column], color=colour, lw=1.5, alpha=0.5, zorder=2)
            ax.plot(shown, at + beside, mark, ms=5.5, mec="white", mew=0.6, color=colour, label=label, zorder=3)
            for y, value in zip(at[shown < low], shown[shown < low], strict=True):
                spot = {"boxstyle": "larrow,pad=0.15", "facecolor": "white", "edgecolor": colour}
                ax.text(
                    place, y, f"{value:.3f}", transform=ax.get_yaxis_transform(), va="center", fontsize=7.5, bbox=spot,
                    zorder=4,
                )  # fmt: skip
        ax.set_yticks(at, [str(label) for label in stressed["label"]])
        ax.set(xlim=(low, high), ylim=(at[-1] + 0.75, -0.75), xlabel="AUC, and accuracy at the frozen threshold")
        ax.set_ylabel("change of the picture")
        ax.set_title(titled("What each change of the picture costs", phantom), pad=30)
        ax.grid(visible=False, axis="y")
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    return ax


def _range(values: dict[str, NDArray[np.float64]], reference: dict[str, float]) -> tuple[float, float]:
    """The limits of the axis: a few rows that lose very much would press all others against the edge, and stay out."""
    worst = np.nanmin([*values.values(), np.full(len(values["auc"]), min(reference.values()))], axis=0)
    low = float(np.floor(20 * np.quantile(worst, 0.1) - 0.2) / 20)
    return max(low, 0.0), 1 + 0.04 * (1 - max(low, 0.0))
