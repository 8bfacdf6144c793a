"""The result of an evaluation: every number with its interval, to print, to show in a notebook, and to keep as JSON."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from pneumolib.errors import ArtifactError, DataError, DataNotFoundError
from pneumolib.evaluation.metrics import METRICS, Interval, bootstrap, check_threshold, checked

if TYPE_CHECKING:
    import pandas as pd

SUBTYPES = ("normal", "bacterial", "viral")
LABELS = {
    "auc": "AUC",
    "average_precision": "average precision",
    "accuracy": "accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "f1": "F1",
    "brier": "Brier score",
    "ece": "calibration error",
}
Row = tuple[str, ...]
CONFUSION = ("tn", "fp", "fn", "tp")


@dataclass(frozen=True)
class Subtype:
    """The share of one subtype: its images, and what the detector reached on them.

    `metrics` holds "specificity" for the normal images, "sensitivity" and "auc" (against all normal images) for others.
    """

    n: int
    metrics: dict[str, Interval | None]


@dataclass(frozen=True, repr=False)
class Report:
    """How good a detector is on a set of images, at one operating point; `make_report` makes it.

    Attributes:
        n: images.
        n_patients: patients that they come from.
        metrics: each of `metrics.METRICS` with its 95 % interval; None where the set leaves it undefined.
        threshold: pneumonia is called where the probability is at least this.
        operating_point: name of the threshold, such as "balanced".
        source: what was evaluated on.
        phantom: synthetic X-rays, or a detector trained on them: the numbers mean nothing.
        per_subtype: `Subtype` of "normal", "bacterial", "viral".
        confusion: numbers of images, "tn", "fp", "fn", "tp"; pneumonia is positive.
        detector: name of the detector.
        predictions: columns name, label, subtype, patient, probability; empty in a loaded report.
    """

    n: int
    n_patients: int
    metrics: dict[str, Interval | None]
    threshold: float
    operating_point: str
    source: str
    phantom: bool
    per_subtype: dict[str, Subtype]
    confusion: dict[str, int]
    detector: str = ""
    predictions: dict[str, list[Any]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def title(self) -> str:
        """One line that says what the report is about, and PHANTOM where it is about synthetic X-rays."""
        kind = "PHANTOM evaluation: synthetic X-rays, no result" if self.phantom else "Evaluation"
        return f"{kind}: {self.detector}" if self.detector else kind

    def table(self) -> pd.DataFrame:
        """Return a row for each image: name, label, subtype, patient, probability, and the decision taken on it.

        Raises:
            DataError: the report was loaded from JSON, which keeps numbers only.
        """
        import pandas as pd

        if not self.predictions:
            raise DataError("A report loaded from JSON holds no predictions: evaluate again to have them.")
        called = np.asarray(self.predictions["probability"]) >= self.threshold
        return pd.DataFrame({**self.predictions, "decision": np.where(called, "pneumonia", "normal")})

    def to_dict(self) -> dict[str, Any]:
        """Return what `save` writes: plain numbers, ``None`` where undefined, and ``<metric>_ci`` as [low, high]."""
        return {
            "n": self.n,
            "n_patients": self.n_patients,
            **_flat(self.metrics),
            "threshold": self.threshold,
            "operating_point": self.operating_point,
            "source": self.source,
            "phantom": self.phantom,
            "detector": self.detector,
            "confusion": dict(self.confusion),
            "per_subtype": {name: {"n": part.n, **_flat(part.metrics)} for name, part in self.per_subtype.items()},
        }

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the report as JSON, without the predictions, and return the path; missing folders are made."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n", encoding="utf-8")
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Report:
        """Return the report that `save` wrote.

        Raises:
            DataNotFoundError: there is no such file.
            ArtifactError: the file is not a report.
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise DataNotFoundError(f"There is no report at this path. Received: {os.fspath(path)!r}") from error
        except ValueError as error:
            raise ArtifactError(f"The file is not JSON, so it is no report. Received: {os.fspath(path)!r}") from error
        try:
            return cls(
                n=int(values["n"]),
                n_patients=int(values["n_patients"]),
                metrics=_unflat(values, METRICS),
                threshold=float(values["threshold"]),
                operating_point=str(values["operating_point"]),
                source=str(values["source"]),
                phantom=bool(values["phantom"]),
                per_subtype={
                    name: Subtype(int(part["n"]), _unflat(part, [key for key in part if key in METRICS]))
                    for name, part in values["per_subtype"].items()
                },
                confusion={key: int(values["confusion"][key]) for key in CONFUSION},
                detector=str(values["detector"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ArtifactError(
                f"The file is JSON, but no report of pneumolib: {type(error).__name__} {error}. "
                f"Received: {os.fspath(path)!r}"
            ) from error

    def __repr__(self) -> str:
        numbers = ", ".join(f"{LABELS[name]} {self.metrics[name]}" for name in ("auc", "accuracy"))
        return f"Report({self.title}; {self.source}, n = {self.n}; {numbers})"

    def __str__(self) -> str:
        blocks = [self.title] + [_aligned(rows) for rows in self._tables()]
        return "\n\n".join(blocks)

    def _repr_html_(self) -> str:
        tables = "".join(_html_table(rows) for rows in self._tables())
        return f"<div><h4>{html.escape(self.title)}</h4>{tables}</div>"

    def _tables(self) -> list[list[Row]]:
        """The rows to show, in blocks; the first row of a block is its head."""
        about: list[Row] = [
            ("evaluated on", ""),
            ("images", f"{self.n} of {self.n_patients} patients"),
            ("source", self.source),
            ("threshold", f"{self.threshold:.3f} ({self.operating_point})"),
        ]
        numbers: list[Row] = [("metric", "value", "95 % interval")]
        numbers += [(LABELS[name], *_cells(self.metrics[name])) for name in METRICS]
        subtypes: list[Row] = [("subtype", "images", "metric", "value", "95 % interval")]
        for name, part in self.per_subtype.items():
            for i, (key, interval) in enumerate(part.metrics.items()):
                first = (name, str(part.n)) if i == 0 else ("", "")
                subtypes.append((*first, "AUC against normal" if key == "auc" else key, *_cells(interval)))
        c = {key: str(value) for key, value in self.confusion.items()}
        confusion: list[Row] = [
            ("truth", "called normal", "called pneumonia"),
            ("normal", c["tn"], c["fp"]),
            ("pneumonia", c["fn"], c["tp"]),
        ]
        return [about, numbers, subtypes, confusion]


def make_report(
    y_true: ArrayLike,
    p: ArrayLike,
    *,
    names: Sequence[str],
    subtypes: ArrayLike,
    patients: ArrayLike,
    threshold: float,
    operating_point: str,
    source: str,
    phantom: bool,
    detector: str = "",
    n_bootstrap: int = 2000,
    seed: int = 0,
) -> Report:
    """Return the `Report` of probabilities against the truth, with intervals from resampled patients.

    Args:
        y_true: bool or 0/1 [N], True = pneumonia.
        p: probability of pneumonia, float [N] in 0..1.
        names: of the images [N].
        subtypes: "normal" where the truth is normal, else "bacterial", "viral" or another name [N].
        patients: the patient of each image [N].
        threshold: chosen beforehand, on validation images; pneumonia is called where ``p >= threshold``.
        operating_point: its name.
        source: what the images are, for the reader.
        phantom: whether they, or those behind the detector, are synthetic.
        detector: its name.
        n_bootstrap: resamples of patients.
        seed: of the resampling.

    Raises:
        DataError: arrays of different lengths, empty, or out of range; subtypes that contradict the truth.

    Example:
        >>> report = make_report([0, 1], [0.2, 0.9], names=["a", "b"], subtypes=["normal", "viral"],
        ...                      patients=["p", "q"], threshold=0.5, operating_point="balanced", source="two images",
        ...                      phantom=False)
        >>> report.to_dict()["accuracy"], report.confusion["tp"]
        (1.0, 1)
    """
    truth, values = checked(y_true, p)
    cut = check_threshold(threshold)
    kinds, patient = np.asarray(subtypes).astype(str), np.asarray(patients).astype(str)
    for what, column in (("names", names), ("subtypes", kinds), ("patients", patient)):
        if len(column) != len(truth):
            raise DataError(f"`{what}` must have one entry for each image. Received: {len(column)} for {len(truth)}")
    wrong = np.flatnonzero((kinds != "normal") != truth)
    if len(wrong):
        raise DataError(
            "The subtype must be 'normal' exactly where the truth is normal. "
            f"Received: {kinds[wrong[0]]!r} with truth {bool(truth[wrong[0]])} for {names[wrong[0]]!r}"
        )

    def measured(chosen: np.ndarray, keys: Sequence[str]) -> dict[str, Interval | None]:
        if not chosen.any():
            return dict.fromkeys(keys)
        found = bootstrap(truth[chosen], values[chosen], patient[chosen], cut, n=n_bootstrap, seed=seed)
        return {key: found[key] for key in keys}

    metrics = measured(np.ones(len(truth), bool), METRICS)
    per_subtype = {}
    for name in dict.fromkeys((*SUBTYPES, *sorted(set(kinds)))):
        mine = kinds == name
        if name == "normal":
            per_subtype[name] = Subtype(int(mine.sum()), {"specificity": metrics["specificity"]})
        elif mine.any():
            per_subtype[name] = Subtype(int(mine.sum()), measured(mine | ~truth, ["sensitivity", "auc"]))
        else:
            per_subtype[name] = Subtype(0, {"sensitivity": None, "auc": None})
    called = values >= cut
    cells = (~truth & ~called, ~truth & called, truth & ~called, truth & called)
    return Report(
        n=len(truth),
        n_patients=len(np.unique(patient)),
        metrics=metrics,
        threshold=cut,
        operating_point=operating_point,
        source=source,
        phantom=bool(phantom),
        per_subtype=per_subtype,
        confusion={key: int(cell.sum()) for key, cell in zip(CONFUSION, cells, strict=True)},
        detector=detector,
        predictions={
            "name": [str(name) for name in names],
            "label": ["pneumonia" if ill else "normal" for ill in truth],
            "subtype": kinds.tolist(),
            "patient": patient.tolist(),
            "probability": values.tolist(),
        },
    )


def _flat(metrics: Mapping[str, Interval | None]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, interval in metrics.items():
        flat[name] = None if interval is None else interval.value
        flat[f"{name}_ci"] = None if interval is None else [interval.low, interval.high]
    return flat


def _unflat(values: Mapping[str, Any], names: Sequence[str]) -> dict[str, Interval | None]:
    metrics: dict[str, Interval | None] = {}
    for name in names:
        value, limits = values[name], values[f"{name}_ci"]
        metrics[name] = None if value is None else Interval(float(value), float(limits[0]), float(limits[1]))
    return metrics


def _cells(interval: Interval | None) -> tuple[str, str]:
    if interval is None:
        return "undefined", "-"
    return f"{interval.value:.3f}", f"{interval.low:.3f} to {interval.high:.3f}"


def _aligned(rows: Sequence[Row]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _html_table(rows: Sequence[Row]) -> str:
    def line(row: Row, tag: str) -> str:
        return "<tr>" + "".join(f'<{tag} style="text-align:left">{html.escape(cell)}</{tag}>' for cell in row) + "</tr>"

    head, *body = rows
    return f"<table><thead>{line(head, 'th')}</thead><tbody>{''.join(line(row, 'td') for row in body)}</tbody></table>"
