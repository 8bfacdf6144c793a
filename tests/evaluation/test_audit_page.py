"""The page of an audit: one file that loads nothing, escapes everything, and says what the report says."""

from __future__ import annotations

import base64
import html
import re
from html.parser import HTMLParser
from typing import Any

import matplotlib as mpl
import pandas as pd
import pytest

mpl.use("Agg")

import matplotlib.pyplot as plt

from pneumolib.errors import DataError
from pneumolib.evaluation.audit_page import LISTED, audit_page

EVIL = "train/ill/<script>alert('x')</script>\"><img src=http://evil/x.png>.png"
FACTS = pd.DataFrame(
    {
        "split": ["train", "train", "test", "test"],
        "label": ["healthy", "ill"] * 2,
        "width": [100, 200, 100, 200],
        "height": 90,
        "n_bytes": [1000, 2000, 1000, 2000],
        "jpeg_quality": 90.0,
    }
)


def report(**changes: Any) -> dict[str, Any]:
    row = {"name": EVIL, "split": "train", "label": "ill", "patient": "<b>p1</b>"}
    pair = {"a": EVIL, "b": "b.png", "distance": 2, "correlation": 0.95, "same_picture": False, "same_patient": False}
    return {
        "title": "audit of 4 files in mine",
        "phantom": False,
        "pneumolib": "0.1.0",
        "findings": {"files": "4 files were read, such as <i>x</i>.", "shortcuts": "Best shortcut: file size."},
        "baselines": [
            {"features": "majority class", "auc_cv_train": 0.5, "auc_test": 0.5, "accuracy_test": 0.5,
             "sensitivity_test": None, "specificity_test": None, "in_words": None},
            {"features": "file size", "auc_cv_train": 0.9187, "auc_test": None, "accuracy_test": 0.5,
             "sensitivity_test": 1.0, "specificity_test": 0.0, "in_words": "File size alone tells <much>."},
        ],
        "summary": [
            {"split": "train", "label": "<ill>", "files": 1234, "patients": 2, "megabytes": 1.5, "widths": "1 to 2",
             "heights": "3", "formats": "PNG 2", "modes": "L 2", "jpeg_quality": None, "mean": 120.25, "contrast": 60.0}
        ],
        "unreadable": [{"name": EVIL, "reason": "cut off"}],
        "duplicates": [[row, {**row, "name": "copy.png"}]],
        "near_duplicates": {"n": 1, "pairs": [{**pair, "across_splits": True, "across_labels": False}]},
        "shared_patients": {"train & test": ["<u>p9</u>"], "train & val": []},
        **changes,
    }  # fmt: skip


class Elements(HTMLParser):
    """Collects every element with its attributes, and whether each that was opened was closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_names_of_files_cannot_bring_in_elements() -> None:
    page = audit_page(report(), FACTS)
    elements = Elements(page)
    assert elements.open == []
    assert {tag for tag, _ in elements.found}.isdisjoint({"script", "i", "b", "u", "iframe", "link"})
    assert EVIL not in page
    assert page.count(html.escape(EVIL)) >= 3
    assert "&lt;u&gt;p9&lt;/u&gt;" in page
    assert "&lt;ill&gt;" in page


def test_nothing_is_loaded_from_elsewhere() -> None:
    elements = Elements(audit_page(report(), FACTS)).found
    sources = [attributes["src"] for _, attributes in elements if "src" in attributes]
    assert len(sources) == 3
    for source in sources:
        assert source is not None
        assert base64.b64decode(source.removeprefix("data:image/png;base64,")).startswith(b"\x89PNG")
    assert not any("href" in attributes for _, attributes in elements)
    policy = next(a for tag, a in elements if a.get("http-equiv") == "Content-Security-Policy")
    assert str(policy["content"]).startswith("default-src 'none'")
    assert "url(" not in audit_page(report(), FACTS)


def test_it_can_be_read_on_a_phone_and_in_the_dark() -> None:
    page = audit_page(report(), FACTS)
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page
    assert "prefers-color-scheme: dark" in page
    assert page.count("<table>") == page.count("<div class=scroll><table>") > 3
    assert all(attributes.get("alt") for tag, attributes in Elements(page).found if tag == "img")


def test_it_says_what_the_report_says() -> None:
    page = audit_page(report(), FACTS)
    assert "<title>Audit of 4 files in mine</title>" in page
    assert "Best shortcut: file size." in page
    assert "<li>File size alone tells &lt;much&gt;.</li>" in page
    assert "<td class=number>0.919</td><td>-</td>" in page
    assert "<td class=number>1,234</td>" in page
    assert "<td>yes</td><td>no</td>" in page
    assert "Patients in several parts" in page
    assert "PHANTOM" not in page


def test_phantom_stands_in_the_title() -> None:
    page = audit_page(report(title="PHANTOM: audit of 4 files in the phantom", phantom=True), FACTS)
    assert "<title>PHANTOM: audit" in page
    assert "synthetic X-rays" in page


def test_what_was_not_found_has_no_section() -> None:
    nothing = report(unreadable=[], duplicates=[], near_duplicates=None, shared_patients={"train & test": []})
    headings = re.findall("<h2>(.*?)</h2>", audit_page(nothing, FACTS))
    assert headings == ["What tells the label without medicine", "The files"]


def test_a_long_list_is_cut_and_says_so() -> None:
    many = [{"name": f"{i}.png", "reason": "empty"} for i in range(LISTED + 7)]
    page = audit_page(report(unreadable=many), FACTS)
    assert f"<td>{LISTED - 1}.png</td>" in page
    assert f"<td>{LISTED}.png</td>" not in page
    assert "7 more are in the JSON." in page


def test_without_files_and_numbers_there_are_no_figures() -> None:
    rows = [{**row, "auc_cv_train": None, "auc_test": None} for row in report()["baselines"]]
    assert "<img" not in audit_page(report(baselines=rows, summary=[]), FACTS[:0])


def test_what_is_the_same_in_all_files_has_no_figure() -> None:
    same = FACTS.assign(width=100, n_bytes=1)
    assert audit_page(report(), same).count("<img") == 1


def test_no_figure_stays_open_and_what_is_no_report_is_refused() -> None:
    audit_page(report(), FACTS)
    assert plt.get_fignums() == []
    with pytest.raises(DataError, match="to_dict"):
        audit_page({"phantom": False}, FACTS)
