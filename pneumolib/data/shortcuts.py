"""How well the label can be told by what is no medicine: size, encoding, brightness, the frame of the picture.

A classifier fed with nothing but such facts sets the mark that a model of the pixels has to pass. On the original
files of this data set the JPEG quality alone separates train almost perfectly and test not at all; on the test set
width and height alone reach an AUC of .91, and the file's size in bytes .93 (``benchmarks/results/shortcuts.json``).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pneumolib.data.facts import BORDER, derive
from pneumolib.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

FILE_FACTS = ("width", "height", "aspect", "jpeg_quality", "colour", "n_bytes", "bytes_per_megapixel")
FEATURES: dict[str, tuple[str, ...]] = {  # what each baseline may look at
    "majority class": (),
    "width and height": ("width", "height"),
    "aspect ratio": ("aspect",),
    "file size": ("n_bytes",),
    "bytes per megapixel": ("bytes_per_megapixel",),
    "JPEG quality": ("jpeg_quality",),
    "colour mode": ("colour",),
    "all file facts": FILE_FACTS,
    "mean and contrast": ("mean", "contrast"),
    "border pixels": BORDER,
}
PIXELS = ("mean and contrast", "border pixels")  # the baselines that look into the picture
HEALTHY = ("normal", "healthy", "no finding", "no_finding", "negative", "control", "controls", "0")
LASTS = 0.15  # how much lower the AUC on test may be where a shortcut still counts as one that lasts

_COLUMN_NAMES = {"filename": "name", "estimated_quality": "jpeg_quality", "file_size": "n_bytes"}
_NEEDED = ("name", "split", "label", "patient", "width", "height", "mode", "jpeg_quality", "n_bytes")
_NO_QUALITY = 100.0  # stands in for files that are no JPEG, whose pixels are stored without loss
_FOLDS = 5


def shortcut_baselines(facts: pd.DataFrame) -> pd.DataFrame:
    """Return how well each fact alone tells the label, one row a baseline.

    Logistic regression on standardised features, fitted on the rows of train. `auc_cv_train` comes from 5 folds of
    train that keep patients whole; `auc_test`, `accuracy_test`, `sensitivity_test` and `specificity_test` (at a
    probability of .5) from one fit on train, applied to test, which decides nothing. With more than two labels the AUC
    is the mean over labels of each against the rest, and sensitivity and specificity are NaN. NaN too is what cannot be
    computed: no test rows, one label only, fewer than five patients with a label.

    Args:
        facts: from `file_facts` or `look` (several parts concatenated), or a table with the columns split, class,
            filename, mode, width, height, estimated_quality, file_size. The rows of `FEATURES` that need other columns
            are left out where those are missing.

    Returns:
        Columns features, n_train, n_test, auc_cv_train, auc_test, accuracy_test, sensitivity_test, specificity_test.

    Raises:
        DataError: a column is missing.
    """
    import pandas as pd

    table = _normalise(facts)
    train, test = (table[table["split"] == split] for split in ("train", "test"))
    rows = []
    for name, columns in FEATURES.items():
        if set(columns) <= set(table):
            numbers = _baseline(train, test, columns)
            rows.append({"features": name, "n_train": len(train), "n_test": len(test), **numbers})
    return pd.DataFrame(rows)


def plain_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table as plain values, floats with four digits, ready for JSON; NaN becomes None."""
    return [
        {k: None if v != v else round(v, 4) if isinstance(v, float) else v for k, v in row.items()}
        for row in table.to_dict(orient="records")
    ]


def in_words(baselines: pd.DataFrame) -> dict[str, str]:
    """Return a sentence for each baseline but the majority class: what it tells in train, and whether that lasts.

    Args:
        baselines: from `shortcut_baselines`.

    Examples:
        >>> import pandas as pd
        >>> row = {"features": "JPEG quality", "n_test": 624, "auc_cv_train": 0.9995, "auc_test": 0.4513}
        >>> print(in_words(pd.DataFrame([row]))["JPEG quality"])
        JPEG quality alone tells nearly everything about the label in train (AUC 0.9995), and misleads on test (AUC \
0.451): who learns it looks brilliant in validation and fails elsewhere.
    """
    rows = baselines[baselines["features"] != "majority class"].to_dict(orient="records")
    return {row["features"]: _sentence(row) for row in rows}


def verdict(baselines: pd.DataFrame) -> str:
    """Return the mark to beat, in a few sentences: the best baseline in train and on test, and what does not last.

    Args:
        baselines: from `shortcut_baselines`.
    """
    rows = baselines[baselines["features"] != "majority class"]
    sentences = []
    for column, where in (("auc_cv_train", "in cross-validation on train"), ("auc_test", "on test")):
        known = rows.dropna(subset=[column])
        if len(known):
            best = known.loc[known[column].idxmax()]
            sentences.append(f"Best shortcut {where}: {best['features']}, AUC {_digits(best[column])}.")
    if not sentences:
        return f"No baseline could be computed: train needs two labels, of at least {_FOLDS} patients each."
    broken = rows[(rows["auc_cv_train"] > 0.7) & (rows["auc_test"] < rows["auc_cv_train"] - LASTS)]
    if len(broken):
        names = ", ".join(broken["features"])
        sentences.append(f"What separates train but not test: {names}. A random validation part hides this.")
    return " ".join(sentences)


def labels_in_order(labels: pd.Series[str]) -> list[str]:
    """Return the labels that occur, the healthy one first, so that the last of two is what a test calls positive.

    Examples:
        >>> import pandas as pd
        >>> labels_in_order(pd.Series(["ill", "healthy", "ill"]))
        ['healthy', 'ill']
    """
    return sorted(set(labels), key=lambda label: (label.lower() not in HEALTHY, label))


def _sentence(row: dict[str, Any]) -> str:
    name, train, test = row["features"], row["auc_cv_train"], row["auc_test"]
    name = name[0].upper() + name[1:]
    alone = f"{name} together" if name == "All file facts" else f"{name} alone"
    several = " and " in name or name.endswith("s")
    tell, mislead, say, them = ("tell", "mislead", "say", "them") if several else ("tells", "misleads", "says", "it")
    if math.isnan(train):
        return f"{alone}: not measured; train needs two labels, of at least {_FOLDS} patients each."
    strong = train >= 0.6
    if not strong:
        start = f"{alone} {say} little about the label in train (AUC {_digits(train)})"
    else:
        share = "nearly everything" if train >= 0.9 else "much" if train >= 0.7 else "something"
        start = f"{alone} {tell} {share} about the label in train (AUC {_digits(train)})"
    if math.isnan(test):
        return f"{start}; there is no test part with all labels to try {them} on."
    found = f"(AUC {_digits(test)})"
    if not strong:
        end = f", and little on test {found}." if test < 0.6 else f", and more on test {found}: chance, or other files."
    elif test < 0.47:
        end = f", and {mislead} on test {found}: who learns {them} looks brilliant in validation and fails elsewhere."
    elif test < train - LASTS:
        share = "next to nothing" if test < 0.6 else "less"
        end = f", and {share} on test {found}: validation on train's own patients flatters who learns {them}."
    else:
        end = f", and on test {found}: a model has to beat that before it may speak of lungs."
    return start + end


def _digits(auc: float) -> str:
    """Return the AUC with three digits, and more where it would otherwise look like a perfect one."""
    text = f"{auc:.3f}"
    if auc < 1 and text == "1.000":
        text = f"{auc:.4f}" if auc < 0.99995 else "above 0.9999"
    return text


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
    table = derive(table.copy())
    table["jpeg_quality"] = table["jpeg_quality"].fillna(_NO_QUALITY)
    table["colour"] = (table["mode"] != "L").astype(float)
    return table


def _baseline(train: pd.DataFrame, test: pd.DataFrame, columns: tuple[str, ...]) -> dict[str, float]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    names = ("auc_cv_train", "auc_test", "accuracy_test", "sensitivity_test", "specificity_test")
    result = dict.fromkeys(names, float("nan"))
    labels = labels_in_order(train["label"])
    if len(labels) < 2:
        return result
    # A constant in place of no feature: what is left to fit is the share of the labels.
    x, x_test = (np.column_stack([np.zeros(len(t)), *(t[c] for c in columns)]) for t in (train, test))
    y, y_test = (np.array([labels.index(v) if v in labels else -1 for v in t["label"]]) for t in (train, test))
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    if train.groupby("label")["patient"].nunique().min() >= _FOLDS:
        # What is the same everywhere ranks nothing; across folds its probabilities would still differ, by chance.
        constant = bool((x == x[0]).all())
        result["auc_cv_train"] = 0.5 if constant else _cross_validated(model, x, y, train["patient"].to_numpy())
    if len(test):
        p = model.fit(x, y).predict_proba(x_test)
        called = (p[:, 1] >= 0.5).astype(int) if len(labels) == 2 else p.argmax(axis=1)
        result["accuracy_test"] = float((called == y_test).mean())
        result["auc_test"] = _auc(y_test, p)
        if set(y_test.tolist()) == {0, 1} and len(labels) == 2:
            result["sensitivity_test"] = float((called == 1)[y_test == 1].mean())
            result["specificity_test"] = float((called == 0)[y_test == 0].mean())
    return result


def _cross_validated(model: Any, x: NDArray[Any], y: NDArray[Any], patients: NDArray[Any]) -> float:
    """Return the AUC of probabilities that each row got from a fit without the patients of its fold."""
    from sklearn.model_selection import StratifiedGroupKFold

    p = np.full((len(y), len(set(y.tolist()))), np.nan)
    for fit, held_out in StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=0).split(x, y, patients):
        if len(set(y[fit].tolist())) < p.shape[1]:
            return float("nan")
        p[held_out] = model.fit(x[fit], y[fit]).predict_proba(x[held_out])
    return _auc(y, p)


def _auc(y: NDArray[Any], p: NDArray[Any]) -> float:
    """Return the AUC of probabilities ``[N, K]``; NaN where not just the K labels occur, 0 to K - 1."""
    from sklearn.metrics import roc_auc_score

    if set(y.tolist()) != set(range(p.shape[1])):
        return float("nan")
    if p.shape[1] == 2:
        return float(roc_auc_score(y, p[:, 1]))
    return float(roc_auc_score(y, p, multi_class="ovr", average="macro"))
