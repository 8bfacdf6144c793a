"""The report as numbers, text, HTML and JSON, on whole, partial and degenerate sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pneumolib.errors import ArtifactError, DataError, DataNotFoundError
from pneumolib.evaluation import metrics
from pneumolib.evaluation.report import Report, make_report

NAMES = ("auc", "average_precision", "accuracy", "sensitivity", "specificity", "f1", "brier", "ece")


def columns(n: int = 120, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    subtypes = rng.choice(["normal", "bacterial", "viral"], n)
    y = subtypes != "normal"
    shift = np.select([subtypes == "normal", subtypes == "viral"], [-1.5, 1.0], 2.5)
    return {
        "y_true": y,
        "p": (1 / (1 + np.exp(-rng.normal(shift, 1.2)))).astype(np.float32),
        "names": [f"test/{i}.jpeg" for i in range(n)],
        "subtypes": subtypes,
        "patients": [f"{s}:{i // 2}" for i, s in enumerate(subtypes)],
    }


def report(chosen: np.ndarray | None = None, **changes: Any) -> Report:
    parts = columns()
    if chosen is not None:
        parts = {key: np.asarray(value)[chosen] for key, value in parts.items()}
    y, p = parts.pop("y_true"), parts.pop("p")
    rest = {"threshold": 0.4, "operating_point": "balanced", "source": "test of a zip", "phantom": False}
    return make_report(y, p, **{**parts, **rest, "detector": "resnet18", "n_bootstrap": 200, **changes})


@pytest.fixture(scope="module")
def whole() -> Report:
    return report()


def test_numbers_are_those_of_the_metrics(whole: Report) -> None:
    parts = columns()
    y, p = parts["y_true"], parts["p"]
    values = whole.to_dict()
    assert values["auc"] == metrics.auc(y, p)
    assert values["specificity"] == metrics.specificity(y, p, 0.4)
    assert values["n"] == sum(whole.confusion.values()) == 120
    assert whole.confusion["tp"] == ((p >= 0.4) & y).sum()
    assert whole.confusion["fp"] == ((p >= 0.4) & ~y).sum()
    assert whole.n_patients == len(set(parts["patients"]))
    assert values["accuracy"] == (whole.confusion["tn"] + whole.confusion["tp"]) / 120


def test_each_subtype_is_measured_against_all_normal_images(whole: Report) -> None:
    parts = columns()
    y, p, kinds = parts["y_true"], parts["p"], parts["subtypes"]
    subtypes = whole.to_dict()["per_subtype"]
    for name in ("bacterial", "viral"):
        mine = kinds == name
        assert subtypes[name]["n"] == mine.sum()
        assert subtypes[name]["sensitivity"] == (p[mine] >= 0.4).mean()
        assert subtypes[name]["auc"] == metrics.auc(y[mine | ~y], p[mine | ~y])
    assert set(subtypes["normal"]) == {"n", "specificity", "specificity_ci"}
    assert subtypes["normal"]["specificity_ci"] == whole.to_dict()["specificity_ci"]


def test_json_has_the_keys_that_others_rely_on_and_plain_numbers(whole: Report) -> None:
    values = whole.to_dict()
    promised = {"n", "threshold", "source", "per_subtype", "phantom", "operating_point", "confusion", "detector"}
    assert promised | set(NAMES) | {f"{name}_ci" for name in NAMES} | {"n_patients"} == set(values)
    for name in NAMES:
        low, high = values[f"{name}_ci"]
        assert {type(values[name]), type(low), type(high)} == {float}
        assert low <= values[name] <= high
    assert json.loads(json.dumps(values, allow_nan=False)) == values


def test_saved_report_loads_as_it_was_but_for_the_predictions(whole: Report, tmp_path: Path) -> None:
    path = whole.save(tmp_path / "new" / "report.json")
    again = Report.load(path)
    assert again == whole
    assert str(again) == str(whole)
    with pytest.raises(DataError, match="evaluate again"):
        again.table()


def test_table_has_a_row_for_each_image(whole: Report) -> None:
    table = whole.table()
    assert list(table) == ["name", "label", "subtype", "patient", "probability", "decision"]
    assert len(table) == 120
    assert ((table["decision"] == "pneumonia") == (table["probability"] >= 0.4)).all()
    assert ((table["label"] == "normal") == (table["subtype"] == "normal")).all()


def test_text_is_aligned_and_says_every_number(whole: Report) -> None:
    text = str(whole)
    assert text.startswith("Evaluation: resnet18\n")
    block = text[text.index("metric ") :].splitlines()[:9]
    column = block[0].index("value")
    for name, line in zip(NAMES, block[1:], strict=True):
        interval = whole.metrics[name]
        assert line[column:] == f"{interval.value:.3f}  {interval.low:.3f} to {interval.high:.3f}"
    assert "120 of" in text
    assert "0.400 (balanced)" in text
    assert "AUC against normal" in text


def test_html_shows_the_same_and_escapes_what_came_from_outside() -> None:
    page = report(source="<script>x</script>", detector="a & b")._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "a &amp; b" in page
    assert page.count("<table>") == page.count("</table>") == 4


def test_phantom_stands_in_every_title(tmp_path: Path) -> None:
    result = report(phantom=True)
    assert str(result).startswith("PHANTOM")
    assert "<h4>PHANTOM" in result._repr_html_()
    assert Report.load(result.save(tmp_path / "r.json")).title.startswith("PHANTOM")
    assert "PHANTOM" not in str(report())


def test_set_with_normal_images_only_still_has_an_accuracy(tmp_path: Path) -> None:
    result = report(columns()["subtypes"] == "normal")
    values = result.to_dict()
    for name in ("auc", "average_precision", "sensitivity", "f1"):
        assert values[name] is None
        assert values[f"{name}_ci"] is None
    assert values["accuracy"] == values["specificity"]
    assert values["per_subtype"]["viral"] == {
        "n": 0, "sensitivity": None, "sensitivity_ci": None, "auc": None, "auc_ci": None,
    }  # fmt: skip
    assert "undefined" in str(result)
    assert Report.load(result.save(tmp_path / "r.json")) == result


def test_set_with_one_subtype_of_pneumonia_only() -> None:
    values = report(columns()["subtypes"] == "viral").to_dict()
    assert values["auc"] is None
    assert values["sensitivity"] == values["accuracy"] == values["per_subtype"]["viral"]["sensitivity"]
    assert values["per_subtype"]["normal"] == {"n": 0, "specificity": None, "specificity_ci": None}


def test_unknown_subtypes_get_their_own_row() -> None:
    subtypes = ["unspecified" if s == "viral" else s for s in columns()["subtypes"]]
    result = report(subtypes=subtypes)
    assert list(result.per_subtype) == ["normal", "bacterial", "viral", "unspecified"]
    assert result.per_subtype["viral"].n == 0
    assert result.per_subtype["unspecified"].metrics["sensitivity"] is not None


def test_one_image_makes_a_report() -> None:
    assert report(np.array([0])).n == 1


def test_contradictions_and_lengths_are_refused() -> None:
    with pytest.raises(DataError, match="exactly where the truth is normal"):
        report(subtypes=["normal"] * 120)
    with pytest.raises(DataError, match="`patients` must have one entry"):
        report(patients=["a"])
    with pytest.raises(DataError, match="`names` must have one entry"):
        report(names=["a"])
    with pytest.raises(DataError, match="nothing to measure"):
        report(np.zeros(120, bool))
    with pytest.raises(DataError, match="threshold"):
        report(threshold=2.0)


def test_loading_says_what_is_wrong_with_the_file(tmp_path: Path, whole: Report) -> None:
    with pytest.raises(DataNotFoundError, match="no report"):
        Report.load(tmp_path / "none.json")
    path = tmp_path / "r.json"
    path.write_text("{")
    with pytest.raises(ArtifactError, match="not JSON"):
        Report.load(path)
    for damaged in (
        "[]",
        "{}",
        json.dumps({**whole.to_dict(), "auc_ci": None}),
        json.dumps({**whole.to_dict(), "confusion": {"tn": 1}}),
        json.dumps({**whole.to_dict(), "per_subtype": []}),
    ):
        path.write_text(damaged)
        with pytest.raises(ArtifactError, match="no report of pneumolib"):
            Report.load(path)
