"""The report of an audit as one HTML file: nothing is loaded from elsewhere, and no X-ray is in it.

It can be read on a phone, in the dark, and without a network. Whatever comes from the data, such as the names of files,
is escaped, and the page forbids itself scripts.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from pneumolib.errors import DataError
from pneumolib.evaluation.audit_plots import plot_facts, plot_shortcuts, plot_sizes, varying

LISTED = 50  # rows of a long list; the JSON has them all
_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --soft: #5b6570; --line: #d5dae0; --card: #f4f6f8;
  --warn: #9a3412 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --paper: #14171a; --soft: #9aa4af; --line: #363c43;
  --card: #1e2226; --warn: #fdba74 } }
body { margin: 0 auto; padding: 1rem; max-width: 60rem; font: 1rem/1.5 system-ui, sans-serif; color: var(--ink);
  background: var(--paper) }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .5rem 0; overflow-wrap: anywhere }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem }
p, li { overflow-wrap: anywhere }
.soft { color: var(--soft) }
.phantom { color: var(--warn); font-weight: 600 }
dl { background: var(--card); border-radius: .5rem; padding: .75rem 1rem; margin: 1rem 0 }
dt { font-weight: 600 }
dd { margin: 0 0 .5rem; overflow-wrap: anywhere }
.scroll { overflow-x: auto }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top }
th { color: var(--soft); font-weight: 600 }
td.number { text-align: right }
img { display: block; max-width: 100%; height: auto; margin: .75rem 0; border-radius: .5rem; background: #fff }
"""
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def audit_page(report: Mapping[str, Any], facts: pd.DataFrame) -> str:
    """Return the report of an audit as the text of a self-contained HTML page.

    Args:
        report: from `AuditReport.to_dict`.
        facts: `AuditReport.facts`, for the figures.

    Raises:
        DataError: `report` is none.

    Example:
        >>> from pathlib import Path
        >>> import pneumolib as pn
        >>> audit = pn.audit("phantom")
        >>> page = audit_page(audit.to_dict(), audit.facts)
        >>> "PHANTOM" in page
        True
    """
    try:
        return _page(report, facts)
    except (KeyError, TypeError) as error:
        raise DataError(f"The page needs what `AuditReport.to_dict` gives. Received: one that lacks {error}") from error


def _page(report: Mapping[str, Any], facts: pd.DataFrame) -> str:
    phantom = bool(report["phantom"])
    title = html.escape(report["title"][0].upper() + report["title"][1:])
    warning = "<p class=phantom>PHANTOM: synthetic X-rays; nothing here says anything about patients.</p>"
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            f"<title>{title}</title><style>{_STYLE}</style></head><body>",
            f"<h1>{title}</h1>",
            warning if phantom else "",
            _definitions(report["findings"]),
            *_shortcuts(report, phantom),
            *_files(report, facts, phantom),
            *_duplicates(report),
            *_patients(report),
            f"<p class=soft>Made by pneumolib {html.escape(str(report['pneumolib']))}. Logistic regression on "
            "standardised facts; 5 folds of train by patient; on test, what was fitted on train. Nothing was chosen on "
            "test.</p>",
            "</body></html>\n",
        ]
    )


def _shortcuts(report: Mapping[str, Any], phantom: bool) -> list[str]:
    rows = report["baselines"]
    columns = {
        "features": "from",
        "auc_cv_train": "AUC in train",
        "auc_test": "AUC on test",
        "accuracy_test": "accuracy on test",
        "sensitivity_test": "sensitivity",
        "specificity_test": "specificity",
    }
    words = [f"<li>{html.escape(row['in_words'])}</li>" for row in rows if row["in_words"]]
    measured = pd.DataFrame(rows, columns=list(columns))
    drawn = measured.astype({"auc_cv_train": float, "auc_test": float})
    # Where there is nothing to measure, an empty figure would only ask what it means.
    figure = [] if drawn["auc_cv_train"].isna().all() else [_image(plot_shortcuts(drawn, phantom=phantom).figure)]
    return [
        "<h2>What tells the label without medicine</h2>",
        "<p class=soft>An AUC of 0.5 is guessing, 1 is perfect. A model has to beat these numbers before it may speak "
        "of lungs; what is high in train and not on test flatters it in validation.</p>",
        *figure,
        _table(rows, columns),
        f"<ul>{''.join(words)}</ul>",
    ]


def _files(report: Mapping[str, Any], facts: pd.DataFrame, phantom: bool) -> list[str]:
    columns = {
        "split": "part",
        "label": "label",
        "files": "files",
        "patients": "patients",
        "megabytes": "MB",
        "widths": "width",
        "heights": "height",
        "formats": "formats",
        "modes": "colour modes",
        "jpeg_quality": "JPEG quality",
        "mean": "mean",
        "contrast": "contrast",
    }
    parts = ["<h2>The files</h2>", _table(report["summary"], columns)]
    parts.append("<p class=soft>JPEG quality, mean and contrast (gray values 0 to 255) are medians.</p>")
    # What is the same in all files needs no picture.
    if len(facts) and facts[["width", "height"]].nunique().gt(1).any():
        parts.append(_image(plot_sizes(facts, phantom=phantom)))
    if varying(facts):
        parts.append(_image(plot_facts(facts, phantom=phantom)))
    if report["unreadable"]:
        parts += ["<h2>Files that cannot be read</h2>", _table(report["unreadable"], {"name": "file", "reason": "why"})]
    return parts


def _duplicates(report: Mapping[str, Any]) -> list[str]:
    parts = []
    groups = [
        {"files": _listed(f["name"] for f in group), "patients": _listed(sorted({f["patient"] for f in group}))}
        for group in report["duplicates"]
    ]
    if groups:
        parts += ["<h2>The same byte for byte</h2>", _table(groups, {"files": "files", "patients": "patients"})]
    near = report["near_duplicates"]
    if near and near["pairs"]:
        columns = {
            "a": "one",
            "b": "the other",
            "distance": "bits apart",
            "correlation": "correlation",
            "same_picture": "one picture",
            "across_splits": "across parts",
            "across_labels": "across labels",
        }
        pairs = sorted(near["pairs"], key=lambda pair: -pair["correlation"])
        parts += [
            "<h2>Pictures that look alike</h2>",
            "<p class=soft>Most alike first. X-rays of different children can be very much alike: look at a pair "
            "before you leave anything out.</p>",
            _table(pairs, columns),
        ]
    return parts


def _patients(report: Mapping[str, Any]) -> list[str]:
    rows = [{"parts": pair, "patients": _listed(who)} for pair, who in report["shared_patients"].items() if who]
    if not rows:
        return []
    return ["<h2>Patients in several parts</h2>", _table(rows, {"parts": "parts", "patients": "patients"})]


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _definitions(findings: Mapping[str, str]) -> str:
    rows = [
        f"<dt>{html.escape(name[0].upper() + name[1:])}</dt><dd>{html.escape(text)}</dd>"
        for name, text in findings.items()
    ]
    return f"<dl>{''.join(rows)}</dl>"


def _table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns.values())
    body = "".join(f"<tr>{''.join(_cell(row[key]) for key in columns)}</tr>" for row in rows[:LISTED])
    more = f"<p class=soft>{len(rows) - LISTED:,} more are in the JSON.</p>" if len(rows) > LISTED else ""
    return f"<div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{more}"


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return f"<td>{'yes' if value else 'no'}</td>"
    if isinstance(value, int | float):
        digits = f"{value:,}" if isinstance(value, int) else f"{value:,.3f}" if abs(value) <= 1 else f"{value:,.1f}"
        return f"<td class=number>{digits}</td>"
    return f"<td>{'-' if value is None else html.escape(str(value))}</td>"


def _image(figure: Any) -> str:
    """Return a figure as an image element, with its title as the text for who cannot see it; close it."""
    assert isinstance(figure, Figure)
    titles = [figure.get_suptitle(), *(ax.get_title() for ax in figure.axes)]
    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=130)
    plt.close(figure)
    data = base64.b64encode(written.getvalue()).decode("ascii")
    return f'<img alt="{html.escape(next(t for t in titles if t), quote=True)}" src="data:image/png;base64,{data}">'
