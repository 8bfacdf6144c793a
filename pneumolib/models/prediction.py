"""What a detector answers to one picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pneumolib.models.reference import InputCheck

Decision = Literal["pneumonia", "normal"]


@dataclass(frozen=True)
class Prediction:
    """A detector's answer to one picture.

    `decision` is None where the picture was refused: `input` says why, and `probability` then means nothing.
    `subtypes` splits the pneumonia into bacterial and viral; how well is unproven, so decide nothing by it.
    """

    path: str | None
    probability: float  # calibrated P(pneumonia)
    decision: Decision | None
    threshold: float
    operating_point: str
    subtypes: dict[str, float]
    input: InputCheck

    def to_dict(self) -> dict[str, Any]:
        """Return the answer as plain values for JSON."""
        return {
            "path": self.path,
            "probability": self.probability,
            "decision": self.decision,
            "threshold": self.threshold,
            "subtypes": dict(self.subtypes),
            "input": {"ok": self.input.ok, "reason": self.input.reason},
        }

    def __str__(self) -> str:
        name = f"{self.path}: " if self.path else ""
        if not self.input.ok:
            return f"{name}refused: {self.input.reason}"
        return (
            f"{name}{self.decision}, probability {self.probability:.3f} "
            f"(threshold {self.threshold:.3f}, {self.operating_point})"
        )
