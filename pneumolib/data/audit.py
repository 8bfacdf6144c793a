"""What a data set's files give away before a pixel is read: size, JPEG quality, colour mode, bytes.

A classifier fed with nothing but such facts sets the mark that a model of the pixels has to pass. On the original
files of this data set the JPEG quality alone separates train almost perfectly and test not at all, and width and
height alone reach an AUC of about .91 on the test set.
"""

from __future__ import annotations

import html
import io
import json
import warnings
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from pneumolib.errors import DataError, ImageError

if TYPE_CHECKING:
    import pandas as pd

    from pneumolib.data.dataset import Dataset, ImageSet
    from pneumolib.data.verify import Verification

FEATURES: dict[str, tuple[str, ...]] = {  # what each baseline may look at
    "majority class": (),
    "width and height": ("width", "height"),
    "aspect ratio": ("aspect",),
    "JPEG quality": ("jpeg_quality",),
    "colour mode": ("colour",),
    "bytes per megapixel": ("bytes_per_megapixel",),
    "all of these": ("width", "height", "aspect", "jpeg_quality", "colour", "bytes_per_megapixel"),
}
_COLUMN_NAMES = {"filename": "name", "estimated_quality": "jpeg_quality", "file_size": "n_bytes"}
_NEEDED = ("name", "split", "label", "patient", "width", "height", "mode", "jpeg_quality", "n_bytes")
_NO_QUALITY = 100.0  # stands in for files that are no JPEG, whose pixels are stored without loss

# The luminance table of the JPEG standard, ITU-T T.81 (1992), annex K.1, row by row.
_LUMINANCE = (
    "16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62 "
    "18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99"
)


def file_facts(imageset: ImageSet) -> pd.DataFrame:
    """Return one row a file, read from the headers alone: no pixel is decoded.

    Returns:
        Columns name, split, label, subtype, patient, format, mode (of Pillow: "L", "RGB", ...), width and height in
        pixels, aspect (width / height), jpeg_quality (1 to 100, see `jpeg_quality`; NaN for other formats), n_bytes,
        bytes_per_megapixel.

    Raises:
        ImageError: a file is no image; the message names it.
    """
    import pandas as pd

    rows = []
    for i, record in enumerate(imageset.records):
        rows.append(
            {
                "name": record.name,
                "split": record.split,
                "label": record.label,
                "subtype": record.subtype,
                "patient": record.patient,
                **_header(imageset.read(i), record.name),
                "n_bytes": record.n_bytes,
            }
        )
    columns = ["name", "split", "label", "subtype", "patient", "format", "mode", "width", "height", "jpeg_quality"]
    return _derive(pd.DataFrame(rows, columns=[*columns, "n_bytes"]))


def jpeg_quality(table: list[int]) -> int:
    """Return the quality setting, 1 to 100, whose luminance table is nearest to `table`.

    Uses the rule of the Independent JPEG Group's library (jcparam.c), which scales the table of the standard; files of
    other encoders get the setting that loses about as much.

    Args:
        table: the 64 quantisation steps of the luminance, row by row, as Pillow gives them.

    Examples:
        >>> jpeg_quality([1] * 64)
        100
    """
    return int(np.abs(_tables() - np.asarray(table, dtype=np.float64)).sum(axis=1).argmin()) + 1


def shortcut_baselines(facts: pd.DataFrame) -> pd.DataFrame:
    """Return how well each fact about the files alone tells pneumonia from normal.

    Logistic regression on standardised features, fitted on the rows of train. `auc_cv_train` comes from 5 folds of
    train that keep patients whole; `auc_test`, `accuracy_test`, `sensitivity_test` and `specificity_test` (at a
    probability of .5) from one fit on train, applied to test. What cannot be computed (no test rows, one class only,
    too few patients) is NaN.

    Args:
        facts: from `file_facts` (several parts concatenated), or a table with the columns split, class, filename, mode,
            width, height, estimated_quality, file_size.

    Raises:
        DataError: a column is missing.
    """
    import pandas as pd

    table = _normalise(facts)
    train, test = (table[table["split"] == split] for split in ("train", "test"))
    rows = []
    for name, columns in FEATURES.items():
        rows.append({"features": name, "n_train": len(train), "n_test": len(test), **_baseline(train, test, columns)})
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class AuditReport:
    """What the files of a data set give away, and whether the copy is whole."""

    location: str
    phantom: bool
    facts: pd.DataFrame
    baselines: pd.DataFrame
    verification: Verification
    verdict: str

    def to_json(self) -> str:
        """Return the baselines and the verdict as JSON; missing numbers are null."""
        return json.dumps(
            {
                "location": self.location,
                "phantom": self.phantom,
                "n": len(self.facts),
                "baselines": baselines_to_records(self.baselines),
                "verification": str(self.verification),
                "verdict": self.verdict,
            },
            indent=2,
        )

    def __str__(self) -> str:
        title = f"{'PHANTOM: ' if self.phantom else ''}audit of {len(self.facts)} files in {self.location}"
        table = self.baselines.round(3).to_string(index=False, na_rep="-")
        return f"{title}\n{table}\n{self.verdict}\n{self.verification}"

    def _repr_html_(self) -> str:
        title = f"{'PHANTOM: ' if self.phantom else ''}what {len(self.facts)} files give away without their pixels"
        table = self.baselines.round(3).to_html(index=False, na_rep="-", border=0)
        return f"<h4>{html.escape(title)}</h4>{table}<p>{html.escape(self.verdict)}</p>"


def audit(dataset: Dataset) -> AuditReport:
    """Return the file facts of all parts, the shortcut baselines, the verification, and a verdict in words."""
    import pandas as pd

    parts = [part for part in (dataset.train, dataset.val, dataset.test) if len(part)]
    if not parts:
        raise DataError(f"An audit needs images in train, val or test. Received: none in {dataset.location}")
    facts = pd.concat([file_facts(part) for part in parts], ignore_index=True)
    baselines = shortcut_baselines(facts)
    return AuditReport(
        location=str(dataset.location),
        phantom=dataset.phantom,
        facts=facts,
        baselines=baselines,
        verification=dataset.verify(),
        verdict=_verdict(baselines),
    )


def baselines_to_records(baselines: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of `shortcut_baselines` as plain values with four digits, ready for JSON; NaN becomes None."""
    return [
        {k: None if v != v else round(v, 4) if isinstance(v, float) else v for k, v in row.items()}
        for row in baselines.to_dict(orient="records")
    ]


def _header(data: bytes, name: str) -> dict[str, Any]:
    from PIL import Image

    try:
        with warnings.catch_warnings():
            # Only the header is read here; the door for pixels keeps its own limit on their number.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(f"{name} has no image header that can be read. Received: {error}") from error
    tables = getattr(image, "quantization", None)
    return {
        "format": image.format,
        "mode": image.mode,
        "width": image.width,
        "height": image.height,
        "jpeg_quality": jpeg_quality(tables[min(tables)]) if tables else None,
    }


@cache
def _tables() -> np.ndarray[Any, np.dtype[np.float64]]:
    base = np.array(_LUMINANCE.split(), dtype=np.float64)
    scales = [5000 // q if q < 50 else 200 - 2 * q for q in range(1, 101)]
    return np.array([np.clip((base * scale + 50) // 100, 1, 255) for scale in scales])


def _derive(table: pd.DataFrame) -> pd.DataFrame:
    table["jpeg_quality"] = table["jpeg_quality"].astype(float)
    table["aspect"] = table["width"] / table["height"]
    table["bytes_per_megapixel"] = table["n_bytes"] / (table["width"] * table["height"] / 1e6)
    return table


def _normalise(facts: pd.DataFrame) -> pd.DataFrame:
    from pneumolib.data.card import parse_name

    table = facts.rename(columns={old: new for old, new in _COLUMN_NAMES.items() if new not in facts})
    if "label" not in table and "class" in table:
        table["label"] = table["class"].str.lower()
    if "patient" not in table and {"split", "name", "label"} <= set(table):
        keys = zip(table["split"], table["label"].str.upper(), table["name"], strict=True)
        table["patient"] = [parse_name(*key).patient for key in keys]
    missing = [column for column in _NEEDED if column not in table]
    if missing:
        raise DataError(f"The table of file facts lacks columns: {', '.join(missing)}. Received: {', '.join(facts)}")
    table = _derive(table.copy())
    table["jpeg_quality"] = table["jpeg_quality"].fillna(_NO_QUALITY)
    table["colour"] = (table["mode"] != "L").astype(float)
    table["pneumonia"] = table["label"] == "pneumonia"
    return table


def _baseline(train: pd.DataFrame, test: pd.DataFrame, columns: tuple[str, ...]) -> dict[str, float]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    names = ("auc_cv_train", "auc_test", "accuracy_test", "sensitivity_test", "specificity_test")
    result = dict.fromkeys(names, float("nan"))
    if train["pneumonia"].nunique() < 2:
        return result
    # A constant in place of no feature: what is left to fit is the share of the classes.
    x, x_test = (np.column_stack([np.zeros(len(t)), *(t[c] for c in columns)]) for t in (train, test))
    y, y_test = train["pneumonia"].to_numpy(), test["pneumonia"].to_numpy()
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    if train.groupby("pneumonia")["patient"].nunique().min() >= 5:
        folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
        p = cross_val_predict(model, x, y, groups=train["patient"], cv=folds, method="predict_proba")[:, 1]
        result["auc_cv_train"] = float(roc_auc_score(y, p)) if columns else 0.5
    if len(test):
        p = model.fit(x, y).predict_proba(x_test)[:, 1]
        called = p >= 0.5
        result["accuracy_test"] = float((called == y_test).mean())
        if 0 < y_test.sum() < len(y_test):
            result["auc_test"] = float(roc_auc_score(y_test, p))
            result["sensitivity_test"] = float(called[y_test].mean())
            result["specificity_test"] = float((~called[~y_test]).mean())
    return result


def _verdict(baselines: pd.DataFrame) -> str:
    rows = baselines.iloc[1:]
    sentences = []
    for column, where in (("auc_cv_train", "in cross-validation on train"), ("auc_test", "on test")):
        known = rows.dropna(subset=[column])
        if len(known):
            best = known.loc[known[column].idxmax()]
            sentences.append(f"Best without a pixel {where}: AUC {best[column]:.3f}, from {best['features']}.")
    if not sentences:
        return "No baseline could be computed: train needs both classes, of at least five patients each."
    broken = rows[(rows["auc_cv_train"] > 0.7) & (rows["auc_test"] < rows["auc_cv_train"] - 0.15)]
    if len(broken):
        names = ", ".join(broken["features"])
        sentences.append(f"What separates train but not test: {names}. A random validation part hides this.")
    return " ".join(sentences)
